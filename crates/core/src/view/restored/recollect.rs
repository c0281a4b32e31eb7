//! A store that was restored while no agent ran here: the kernel remembers what this node had.

use std::collections::BTreeSet;

use buoy_api::binding::{Binding, BindingSpec, Term};
use buoy_api::ip::FloatingIp;
use buoy_api::meta::ObjectMeta;
use buoy_api::names::binding_name;

use crate::floating::candidates;
use crate::floating::claim::binding_key;
use crate::observed::Claimed;
use crate::store::{Delta, Revision, Value};
use crate::subject::Subject;
use crate::time::Mono;
use crate::view::View;

impl View {
    /// Compares what the kernel had when this agent began with all that the store says. An agent programs what it has
    /// read, and epochs never fall: where the kernel is further, the store was restored; or that is known already. Then
    /// all is as if this agent had lived through it, and it says whom that concerns.
    pub fn recollect(
        &mut self,
        claimed: impl IntoIterator<Item = Claimed>,
        is_known: bool,
        now: Mono,
    ) -> Option<BTreeSet<Subject>> {
        let claimed = claimed.into_iter();
        let forgotten: Vec<Claimed> = claimed.filter(|claimed| self.is_ahead(claimed)).collect();
        if forgotten.is_empty() && !is_known {
            return None;
        }
        let mut said = Vec::new();
        for claimed in &forgotten {
            self.restored.epochs.insert(claimed.floating, claimed.epoch);
            if let Some(binding) = self.as_claimed(claimed) {
                let now_said = self.said_of(claimed.floating);
                let before = Delta {
                    value: Some(Ok(Value::Binding(binding))),
                    ..now_said.clone()
                };
                self.apply(before, now);
                said.push(now_said);
            }
        }
        let mut dirty = self.restored();
        self.restored.is_fresh = true;
        self.listed(now);
        for delta in said {
            dirty.extend(self.apply(delta, now));
        }
        Some(dirty)
    }

    /// Whether the kernel has a newer epoch than the store. A record that does not decode says nothing.
    fn is_ahead(&self, claimed: &Claimed) -> bool {
        let said = match self.bindings.get(&claimed.floating) {
            Some(binding) => binding.spec.epoch,
            None if self.bindings.contains(&claimed.floating) => return false,
            None => self.epoch_floor(),
        };
        said < claimed.epoch
    }

    /// The record by which an address was programmed, if the workload still runs here and still asks for it.
    fn as_claimed(&self, claimed: &Claimed) -> Option<Binding> {
        let floating = claimed.floating;
        let asking = self.asking(floating).find_map(|endpoint| {
            let candidate = candidates::candidate(self, floating, endpoint).ok()?;
            (candidate.internal_ip == claimed.internal).then_some((endpoint, candidate))
        });
        let (endpoint, candidate) = asking?;
        let spec = BindingSpec {
            address: floating.addr(),
            namespace: endpoint.namespace.clone(),
            owner: Some(candidate.as_owner(Term(0))),
            epoch: claimed.epoch,
            ..BindingSpec::default()
        };
        Some(Binding::new(
            ObjectMeta::named(binding_name(floating.addr())),
            spec,
        ))
    }

    fn said_of(&self, floating: FloatingIp) -> Delta {
        let said = self.bindings.versioned(&floating);
        Delta {
            key: binding_key(floating),
            revision: said.map_or(Revision(0), |(_, revision)| revision),
            value: said.map(|(binding, _)| Ok(Value::Binding(binding.clone()))),
        }
    }
}

#[cfg(test)]
#[path = "recollect_tests.rs"]
mod tests;
