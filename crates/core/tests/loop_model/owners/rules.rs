//! What must hold of a world: after every operation, when it is at rest, and in the end.

use std::collections::BTreeMap;

use buoy_api::ip::FloatingIp;
use buoy_core::calc;
use buoy_core::desired::Row;
use buoy_core::duty::{self, ORPHAN_GRACE};
use buoy_core::floating::{candidates, order};
use buoy_core::store::Value;
use buoy_core::subject::Subject;

use super::world::{Last, World};
use crate::universe::{CONTAINERS, HOLD, NODE, PODS, all_floating, attachment_id, both, handle_of};

impl World {
    /// What holds after every single operation.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let mut now: BTreeMap<FloatingIp, Last> = BTreeMap::new();
        for binding in self.store.bindings() {
            let address = FloatingIp::try_from(binding.spec.address).unwrap();
            let spec = binding.spec.clone();
            let uid = binding.metadata.uid.clone();
            now.insert(
                address,
                Last {
                    uid,
                    owner: spec.owner,
                    epoch: spec.epoch,
                    namespace: spec.namespace,
                },
            );
        }
        for address in all_floating() {
            let (before, now) = (self.last.get(&address), now.get(&address));
            let before = before.filter(|before| now.is_none_or(|now| now.uid == before.uid));
            self.transition(address, before, now)
                .map_err(|e| format!("{address}: {e}\n{before:#?}\n{now:#?}"))?;
            if let Some(now) = now.filter(|now| now.owner.is_some()) {
                self.highest.insert(address, now.epoch);
            }
        }
        self.last = now;
        Ok(())
    }

    fn transition(
        &self,
        address: FloatingIp,
        before: Option<&Last>,
        now: Option<&Last>,
    ) -> Result<(), &'static str> {
        match (before, now) {
            (Some(before), None) if before.owner.is_some() => return Err("deleted under its owner"),
            (Some(before), Some(now)) => {
                if before.namespace != now.namespace {
                    return Err("another namespace's without having been free");
                }
                let rises = before.epoch < now.epoch;
                if before.owner != now.owner && !rises || before.epoch > now.epoch {
                    return Err("the epoch does not rise with the owner");
                }
            }
            (None, Some(now))
                if self
                    .highest
                    .get(&address)
                    .is_some_and(|highest| now.epoch <= *highest) =>
            {
                return Err("the epoch fell across deletion");
            }
            _ => {}
        }
        let Some((owner, namespace)) = now.and_then(|now| Some((now.owner.as_ref()?, &now.namespace))) else {
            return Ok(());
        };
        let pod = PODS.iter().find(|(_, name)| *name == owner.workload);
        if pod.is_none_or(|(of, _)| of != namespace) || owner.node != NODE {
            return Err("the owner is not of the binding's namespace");
        }
        if !self.is_reserved(address) {
            return Err("owned, and not reserved");
        }
        Ok(())
    }

    fn is_reserved(&self, address: FloatingIp) -> bool {
        self.store.records.values().any(|(_, value)| match value {
            Value::Block(block) => block.ordinals_of(&handle_of(address)).next().is_some(),
            _ => false,
        })
    }

    /// What holds when there is nothing left to do.
    pub(super) fn check_rest(&self) -> Result<(), String> {
        for address in all_floating() {
            let Some(binding) = self.view.bindings.get(&address) else {
                if !candidates::namespaces(&self.view, address).is_empty() {
                    return Err(format!("{address}: somebody may have it and nobody does"));
                }
                continue;
            };
            let mine = candidates::of(&self.view, address, &binding.spec.namespace);
            let best = order::best(binding, &mine);
            if binding.spec.owner.as_ref().map(|o| &o.uid) != best.map(|b| &b.uid) {
                return Err(format!(
                    "{address}: {best:#?} is due, and not the owner of {binding:#?}"
                ));
            }
            let rows = calc::rows(&self.view, &Subject::Binding(address));
            let leads = rows.iter().find_map(|row| {
                if let Row::Nat(_, nat) = row {
                    Some(nat.internal)
                } else {
                    None
                }
            });
            if leads != best.map(|best| best.internal_ip) {
                return Err(format!("{address}: leads to {leads:?} and not to {best:#?}"));
            }
            let owed = duty::owed(&self.view, &Subject::Binding(address), both(self.store.now));
            if best.is_none() && owed.again.is_none() {
                return Err(format!("{address}: nobody's, and never collected"));
            }
        }
        Ok(())
    }

    /// All workloads go; then the holds end.
    pub(super) fn wind_down(&mut self) -> Result<(), String> {
        for pod in 0..PODS.len() {
            for container in 0..CONTAINERS {
                self.detach(&attachment_id(pod, container));
            }
        }
        self.settle()?;
        self.pass(HOLD.as_secs());
        self.settle()?;
        self.pass(ORPHAN_GRACE.as_secs());
        self.settle()?;
        // The handle of a reservation that a crash cut short may stay: it gives nothing, and the next claim takes it up.
        let left = self.store.records.iter().find(|(_, (_, value))| match value {
            Value::Binding(_) | Value::Endpoint(_) => true,
            Value::Block(block) => !block.is_empty(),
            _ => false,
        });
        if let Some((key, (_, value))) = left {
            return Err(format!("left in the end: {key:?} {value:#?}"));
        }
        let floor = self.view.epoch_floor();
        match self.highest.values().max() {
            Some(highest) if *highest > floor => Err(format!("the floor is {floor:?} below {highest:?}")),
            _ => Ok(()),
        }
    }
}
