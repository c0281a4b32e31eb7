//! A store that was restored from a copy: what it has forgotten, and this node remembers.
//!
//! Until everything that the store says now was heard, and for a while from there on, nothing is allocated and nobody takes
//! anything: each agent writes again what it has. A record that says less than what was known before does not count
//! meanwhile, so nothing that is programmed goes. What nobody wrote again in that time is as the store says, but for the
//! epochs, which never fall.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use buoy_api::binding::{Binding, Epoch, Owner};
use buoy_api::ip::FloatingIp;
use buoy_api::ipam::{Attribute, Block};
use buoy_api::v3::WorkloadEndpoint;

use super::View;
use crate::endpoint::EndpointId;
use crate::floating::lease::Own;
use crate::ipam::IpamError;
use crate::store::{Bad, Delta, Value};
use crate::subject::Subject;
use crate::time::Mono;

/// How long nothing is allocated once a restored store was read: every agent that lives notices the restore within this
/// time, and has written again what it has.
pub const RESTORE_HOLD: Duration = Duration::from_secs(20);

/// Whether nothing is allocated or taken because the store was restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Hold {
    /// No.
    #[default]
    Over,
    /// Yes: not everything that the store says now was heard, or it does not answer.
    Listing,
    /// Yes, until then.
    Until(Mono),
}

/// What is remembered of the time before.
#[derive(Clone, Debug, Default)]
pub(super) struct Restored {
    hold: Hold,
    bindings: BTreeMap<FloatingIp, Memory>,
    /// Highest epoch of addresses whose records were behind when the hold ended.
    epochs: BTreeMap<FloatingIp, Epoch>,
    floor: Epoch,
    endpoints: BTreeMap<EndpointId, WorkloadEndpoint>,
    forgotten: BTreeSet<EndpointId>,
    lost: BTreeMap<FloatingIp, String>,
    /// Handles that this node's workloads had.
    handles: BTreeSet<String>,
}

/// A workload that this node had when the copy was made, and not any more: its records came back with the copy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revenant {
    /// Name of the network that it was attached to.
    pub network: String,
    /// Its container.
    pub container: String,
    /// Its interface.
    pub ifname: String,
    /// Namespace and name, if it is a pod.
    pub pod: Option<(String, String)>,
}

/// A binding as it was known last.
#[derive(Clone, Debug)]
struct Memory {
    binding: Binding,
    /// What the store says instead, if it says less.
    instead: Option<Delta>,
}

impl Memory {
    fn is_of(&self, node: &str) -> bool {
        let owner = self.binding.spec.owner.as_ref();
        owner.is_some_and(|owner| owner.node == node)
    }
}

impl View {
    /// The store turned out to be restored from a copy. Says whom that concerns: everybody.
    pub fn restored(&mut self) -> BTreeSet<Subject> {
        self.restored.hold = Hold::Listing;
        self.restored.floor = self.epoch_floor();
        self.restored.lost.clear();
        self.restored.handles = self.own_handles().map(|(handle, _)| handle.to_owned()).collect();
        let bindings = self.bindings.iter().map(|(floating, binding)| {
            let memory = Memory {
                binding: binding.clone(),
                instead: None,
            };
            (*floating, memory)
        });
        self.restored.bindings = bindings.collect();
        let records = self.attachments().filter_map(|attachment| {
            let record = self.record_of(attachment)?;
            Some((attachment.endpoint.clone(), record.clone()))
        });
        self.restored.endpoints = records.collect();
        self.forget_leases();
        let mut dirty = match self.own_lease() {
            Own::Foreign(_) => BTreeSet::new(),
            _ => self.set_own_lease(Own::Nothing),
        };
        dirty.extend(self.floating_in_use().map(Subject::Binding));
        dirty
    }

    /// Everything that the store says now was heard: if it was restored, the others have from now on time to write again
    /// what they have. They may not have reached it any earlier than this agent did.
    pub fn listed(&mut self, now: Mono) {
        if self.restored.hold == Hold::Listing {
            self.restored.hold = Hold::Until(now.after(RESTORE_HOLD));
        }
    }

    /// The store does not answer: nobody writes again what they have, and time that passes says nothing.
    pub fn contact_lost(&mut self) {
        if self.is_held() {
            self.restored.hold = Hold::Listing;
        }
    }

    /// Whether nothing is allocated or taken, because the store was restored.
    pub fn is_held(&self) -> bool {
        self.restored.hold != Hold::Over
    }

    /// Until when; `None` also while that is not known, for the store has yet to say all it knows.
    pub fn held_until(&self) -> Option<Mono> {
        match self.restored.hold {
            Hold::Until(until) => Some(until),
            Hold::Over | Hold::Listing => None,
        }
    }

    /// Whether addresses may be given to workloads: not while others may have what the store says is free.
    pub fn may_allocate(&self, now: Mono) -> Result<(), IpamError> {
        match self.restored.hold {
            Hold::Over => Ok(()),
            Hold::Listing => Err(IpamError::Restored { left: None }),
            Hold::Until(until) => Err(IpamError::Restored {
                left: Some(until.since(now)),
            }),
        }
    }

    /// The hold is over: what nobody wrote again is as the store says. Says whom that concerns.
    pub fn end_hold(&mut self, now: Mono) -> BTreeSet<Subject> {
        self.restored.hold = Hold::Over;
        let mut dirty: BTreeSet<Subject> = self.awaited_nodes().map(Subject::OtherNode).collect();
        let memories = std::mem::take(&mut self.restored.bindings);
        let mut behind = Vec::new();
        for (floating, memory) in memories {
            // What is this node's stays so until it could write it, or somebody else has it.
            if memory.is_of(&self.settings.node)
                && memory
                    .instead
                    .as_ref()
                    .is_some_and(|d| self.owner_elsewhere(d).is_none())
            {
                self.restored.bindings.insert(floating, memory);
            } else if let Some(delta) = memory.instead {
                self.restored.epochs.insert(floating, memory.binding.spec.epoch);
                behind.push(delta);
            }
        }
        for delta in behind {
            dirty.append(&mut self.apply(delta, now));
        }
        dirty.extend(self.floating_in_use().map(Subject::Binding));
        dirty.insert(Subject::Lease);
        dirty
    }

    /// What this node has to write again of an address, and above which epoch: it is a workload's of this node, and the
    /// store says less.
    pub fn to_reassert(&self, floating: FloatingIp) -> Option<(&Binding, Epoch)> {
        let (binding, epoch) = match self.restored.bindings.get(&floating) {
            Some(memory) => {
                memory.instead.as_ref()?;
                (&memory.binding, memory.binding.spec.epoch)
            }
            None => {
                let epoch = *self.restored.epochs.get(&floating)?;
                (self.bindings.get(&floating)?, epoch)
            }
        };
        let owner = binding.spec.owner.as_ref()?;
        self.attachment_of_owner(&binding.spec.namespace, owner)?;
        (binding.spec.epoch <= epoch).then_some((binding, epoch))
    }

    /// The record of an endpoint of this node, if the store does not have it as it was.
    pub fn to_republish(&self, endpoint: &EndpointId) -> Option<&WorkloadEndpoint> {
        let record = self.restored.endpoints.get(endpoint)?;
        self.restored.forgotten.contains(endpoint).then_some(record)
    }

    /// Epoch below which no new binding of an address may begin, as far as this node knows.
    pub fn epoch_floor_of(&self, floating: FloatingIp) -> Epoch {
        let remembered = self.restored.epochs.get(&floating).copied();
        self.epoch_floor()
            .max(self.restored.floor)
            .max(remembered.unwrap_or_default())
    }

    /// Workloads of this node that only the store remembers, since the restore.
    pub fn revenants(&self) -> BTreeSet<Revenant> {
        let living: BTreeSet<&str> = self.attachments().map(|a| a.id.container.as_str()).collect();
        let unknown = self
            .own_handles()
            .filter(|(handle, _)| !self.restored.handles.contains(*handle));
        unknown
            .filter_map(|(handle, holder)| {
                let (network, container) = handle.rsplit_once('.')?;
                let record = self
                    .endpoints
                    .values()
                    .find(|record| record.spec.container_id == container);
                let says = |key: &str| holder.secondary.get(key).cloned();
                (!living.contains(container)).then(|| Revenant {
                    network: network.to_owned(),
                    container: container.to_owned(),
                    ifname: record.map_or("eth0".to_owned(), |record| record.spec.endpoint.clone()),
                    pod: says("namespace").zip(says("pod")),
                })
            })
            .collect()
    }

    /// Handles of allocations that say that they are a workload's of this node.
    fn own_handles(&self) -> impl Iterator<Item = (&str, &Attribute)> {
        let given = self.blocks.values().flat_map(Block::allocated);
        given.filter_map(|(_, holder)| {
            let is_own = holder.secondary.get("node") == Some(&self.settings.node)
                && !holder.secondary.contains_key("type");
            is_own.then_some((holder.handle.as_deref()?, holder))
        })
    }

    /// Addresses that a workload of this node had before a restore and still asks for, and who has them after it.
    pub fn lost_by_restore(&self) -> impl Iterator<Item = (&FloatingIp, &String)> {
        let lost = self.restored.lost.iter();
        lost.filter(|(floating, _)| {
            let owner = self.bindings.get(*floating).and_then(|b| b.spec.owner.as_ref());
            let is_back = owner.is_some_and(|owner| owner.node == self.settings.node);
            self.asking(**floating).next().is_some() && !is_back
        })
    }

    /// Whether a change of a binding says less than what was known before the restore. Then it does not count yet.
    pub(super) fn is_behind(&mut self, floating: FloatingIp, delta: &Delta) -> bool {
        let now = match &delta.value {
            Some(Ok(Value::Binding(binding))) => Some(binding),
            Some(_) => return false,
            None => None,
        };
        let epoch = now.map(|binding| binding.spec.epoch);
        let elsewhere = self.owner_elsewhere(delta);
        let is_taken = !self.is_held() && elsewhere.is_some();
        if self
            .restored
            .epochs
            .get(&floating)
            .is_some_and(|behind| epoch > Some(*behind))
        {
            self.restored.epochs.remove(&floating);
        }
        let Some(memory) = self.restored.bindings.get_mut(&floating) else {
            return false;
        };
        let before = &memory.binding.spec;
        let is_same = now.is_some_and(|now| {
            now.spec.epoch == before.epoch && is_same(now.spec.owner.as_ref(), before.owner.as_ref())
        });
        if epoch <= Some(before.epoch) && !is_same && !is_taken {
            memory.instead = Some(delta.clone());
            return true;
        }
        if let Some(owner) = elsewhere.filter(|_| memory.is_of(&self.settings.node)) {
            self.restored.lost.insert(floating, owner);
        }
        self.restored.bindings.remove(&floating);
        false
    }

    /// Who has an address on another node, for people, as a change of its binding says.
    fn owner_elsewhere(&self, delta: &Delta) -> Option<String> {
        let Some(Ok(Value::Binding(binding))) = &delta.value else {
            return None;
        };
        let owner = binding.spec.owner.as_ref()?;
        (owner.node != self.settings.node).then(|| format!("{} on node {}", owner.workload, owner.node))
    }

    /// Whether a change of an endpoint's record says something else than what was known before the restore. Then it does
    /// not count: this node writes the record again.
    pub(super) fn is_forgotten(&mut self, id: &EndpointId, value: Option<&Result<Value, Bad>>) -> bool {
        let is_here = self.attachment_of(id).is_some();
        let Some(record) = self.restored.endpoints.get(id).filter(|_| is_here) else {
            self.restored.endpoints.remove(id);
            self.restored.forgotten.remove(id);
            return false;
        };
        let is_known = matches!(value, Some(Ok(Value::Endpoint(now))) if says_the_same(now, record));
        if is_known || (!self.is_held() && !self.restored.forgotten.contains(id)) {
            self.restored.endpoints.remove(id);
            self.restored.forgotten.remove(id);
            return false;
        }
        self.restored.forgotten.insert(id.clone());
        true
    }
}

/// Whether two records of an endpoint ask for the same.
pub(crate) fn says_the_same(one: &WorkloadEndpoint, other: &WorkloadEndpoint) -> bool {
    one.spec == other.spec
        && one.metadata.labels == other.metadata.labels
        && one.metadata.annotations == other.metadata.annotations
}

/// Whether two owners are the same workload; the term is its node's.
fn is_same(one: Option<&Owner>, other: Option<&Owner>) -> bool {
    let workload = |owner: &Owner| {
        (
            owner.node.clone(),
            owner.workload.clone(),
            owner.endpoint.clone(),
            owner.uid.clone(),
        )
    };
    one.map(workload) == other.map(workload)
}

#[cfg(test)]
#[path = "restored_tests.rs"]
mod tests;
