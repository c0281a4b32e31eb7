//! A store that was restored from a copy: what it has forgotten, and this node remembers.
//!
//! Until everything that the store says now was heard, and for a while from there on, nothing is allocated and nobody takes
//! anything: each agent writes again what it has. A record that says less than what was known before does not count
//! meanwhile, so nothing that is programmed goes. What nobody wrote again in that time is as the store says, but for the
//! epochs, which never fall.

mod recollect;
mod revenants;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use buoy_api::binding::{Binding, Epoch, Owner};
use buoy_api::ip::FloatingIp;
use buoy_api::v3::WorkloadEndpoint;

pub use self::revenants::Revenant;
use super::View;
use crate::endpoint::{Attachment, EndpointId};
use crate::ipam::IpamError;
use crate::records::says_the_same;
use crate::store::{Delta, Value};
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
    /// This agent began after the restore: until the hold is over, what the store says of an address may be of the past.
    is_fresh: bool,
    /// How often the store was restored.
    count: u64,
    bindings: BTreeMap<FloatingIp, Memory<Binding>>,
    endpoints: BTreeMap<EndpointId, Memory<WorkloadEndpoint>>,
    /// Highest epoch of addresses whose records were behind when the hold ended.
    epochs: BTreeMap<FloatingIp, Epoch>,
    floor: Epoch,
    /// What this node had, and was somebody else's when that was heard.
    lost: BTreeSet<FloatingIp>,
    /// Handles that this node's workloads had.
    handles: BTreeSet<String>,
}

/// A record as it was known last.
#[derive(Clone, Debug)]
struct Memory<T> {
    record: T,
    /// What the store says instead, if it says less.
    instead: Option<Delta>,
}

impl View {
    /// The store turned out to be restored from a copy. Says whom that concerns: every address, and this node's lease; what
    /// concerns workloads is told with their records.
    ///
    /// During a hold what is remembered is of the time before the first restore, and what the store said since counts until
    /// it says something else: what it never had in between is told no second time.
    pub fn restored(&mut self) -> BTreeSet<Subject> {
        if !self.is_held() {
            self.restored.lost.clear();
            self.restored.handles = self.own_handles().map(|(handle, _)| handle.to_owned()).collect();
        }
        self.restored.hold = Hold::Listing;
        self.restored.count += 1;
        self.restored.floor = self.restored.floor.max(self.epoch_floor());
        self.remember_bindings();
        self.remember_endpoints();
        self.forget_leases();
        let mut dirty = self.forget_own_lease();
        dirty.extend(self.floating_in_use().map(Subject::Binding));
        dirty
    }

    fn remember_bindings(&mut self) {
        let mut known = std::mem::take(&mut self.restored.bindings);
        let bindings = self.bindings.iter().map(|(floating, binding)| {
            let instead = known.remove(floating).and_then(|memory| memory.instead);
            let record = binding.clone();
            (*floating, Memory { record, instead })
        });
        self.restored.bindings = bindings.collect();
    }

    fn remember_endpoints(&mut self) {
        let mut known = std::mem::take(&mut self.restored.endpoints);
        let endpoints = self.attachments().filter_map(|attachment| {
            let record = self.record_of(attachment)?.clone();
            let instead = known
                .remove(&attachment.endpoint)
                .and_then(|memory| memory.instead);
            Some((attachment.endpoint.clone(), Memory { record, instead }))
        });
        self.restored.endpoints = endpoints.collect();
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

    /// Whether the store may say of any address what is not so any more, and this agent would not know.
    pub(super) fn may_be_of_the_past(&self) -> bool {
        self.restored.is_fresh
    }

    /// How often the store was restored so far: what was read of it before the last time says nothing, nor do revisions.
    pub fn restores(&self) -> u64 {
        self.restored.count
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
        self.restored.is_fresh = false;
        let mut dirty: BTreeSet<Subject> = self.awaited_nodes().map(Subject::OtherNode).collect();
        dirty.append(&mut self.forget(now));
        dirty.extend(self.floating_in_use().map(Subject::Binding));
        dirty.insert(Subject::Lease);
        dirty
    }

    /// After the hold: what was remembered for workloads that are gone is as the store says. Says whom that concerns.
    pub fn forget(&mut self, now: Mono) -> BTreeSet<Subject> {
        if self.is_held() {
            return BTreeSet::new();
        }
        let mut behind = Vec::new();
        for (floating, memory) in std::mem::take(&mut self.restored.bindings) {
            let Some(delta) = &memory.instead else { continue };
            let is_taken = self.is_elsewhere(delta);
            // What is a workload's of this node stays so until it could write it, or somebody else has it.
            if !is_taken && self.runs_here(&memory.record) {
                self.restored.bindings.insert(floating, memory);
            } else {
                self.give_up(floating, &memory.record, is_taken, true);
                behind.extend(memory.instead);
            }
        }
        for (id, memory) in std::mem::take(&mut self.restored.endpoints) {
            if memory.instead.is_some() && self.is_container_of(&id, &memory.record) {
                self.restored.endpoints.insert(id, memory);
            } else {
                behind.extend(memory.instead);
            }
        }
        let applied = behind.into_iter().map(|delta| self.apply(delta, now));
        applied.flatten().collect()
    }

    fn is_of_this_node(&self, binding: &Binding) -> bool {
        let owner = binding.spec.owner.as_ref();
        owner.is_some_and(|owner| owner.node == self.settings.node)
    }

    /// Whether the workload that owns a binding runs on this node.
    fn runs_here(&self, binding: &Binding) -> bool {
        let owner = binding.spec.owner.as_ref();
        owner.is_some_and(|owner| self.attachment_of_owner(&binding.spec.namespace, owner).is_some())
    }

    /// Whether an endpoint's record is the one of the container that it has now.
    fn is_container_of(&self, id: &EndpointId, record: &WorkloadEndpoint) -> bool {
        self.attachment_of(id)
            .is_some_and(|attachment| attachment.id.container == record.spec.container_id)
    }

    /// What this node has to write again of an address, and above which epoch: it is a workload's of this node, and the
    /// store says less.
    pub fn to_reassert(&self, floating: FloatingIp) -> Option<(&Binding, Epoch)> {
        let remembered = self.restored.epochs.get(&floating).copied();
        let (binding, epoch) = match self.restored.bindings.get(&floating) {
            Some(memory) => {
                memory.instead.as_ref()?;
                let before = memory.record.spec.epoch;
                (
                    &memory.record,
                    remembered.map_or(before, |epoch| epoch.max(before)),
                )
            }
            None => (self.bindings.get(&floating)?, remembered?),
        };
        let is_due = binding.spec.epoch <= epoch && self.runs_here(binding);
        is_due.then_some((binding, epoch))
    }

    /// The record of an attachment, if the store does not have it as it was.
    pub fn to_republish(&self, attachment: &Attachment) -> Option<&WorkloadEndpoint> {
        let memory = self.restored.endpoints.get(&attachment.endpoint)?;
        memory.instead.as_ref()?;
        (memory.record.spec.container_id == attachment.id.container).then_some(&memory.record)
    }

    /// Epoch below which no new binding of an address may begin, as far as this node knows.
    pub fn epoch_floor_of(&self, floating: FloatingIp) -> Epoch {
        let remembered = self.restored.epochs.get(&floating).copied();
        self.epoch_floor()
            .max(self.restored.floor)
            .max(remembered.unwrap_or_default())
    }

    /// Addresses that a workload of this node had before a restore and still asks for, and who has them after it, for people.
    pub fn lost_by_restore(&self) -> impl Iterator<Item = (FloatingIp, String)> {
        self.restored.lost.iter().filter_map(|floating| {
            let owner = self.bindings.get(floating)?.spec.owner.as_ref()?;
            let is_lost = owner.node != self.settings.node && self.asking(*floating).next().is_some();
            is_lost.then(|| (*floating, format!("{} on node {}", owner.workload, owner.node)))
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
        if self
            .restored
            .epochs
            .get(&floating)
            .is_some_and(|behind| epoch > Some(*behind))
        {
            self.restored.epochs.remove(&floating);
        }
        let is_elsewhere = self.is_elsewhere(delta);
        let is_taken = is_elsewhere && !self.is_held();
        let Some(memory) = self.restored.bindings.get_mut(&floating) else {
            return false;
        };
        let before = &memory.record.spec;
        let is_same = now.is_some_and(|now| {
            now.spec.epoch == before.epoch && is_same(now.spec.owner.as_ref(), before.owner.as_ref())
        });
        if epoch <= Some(before.epoch) && !is_same && !is_taken {
            memory.instead = Some(delta.clone());
            return true;
        }
        if let Some(memory) = self.restored.bindings.remove(&floating) {
            let is_lower = epoch <= Some(memory.record.spec.epoch) && !is_same;
            self.give_up(floating, &memory.record, is_elsewhere, is_lower);
        }
        false
    }

    /// What was remembered of a binding does not count any more, for another node has the address, or for the store has a
    /// lower epoch and nobody here to write again.
    fn give_up(&mut self, floating: FloatingIp, before: &Binding, is_elsewhere: bool, is_lower: bool) {
        if is_elsewhere && self.is_of_this_node(before) {
            self.restored.lost.insert(floating);
        }
        if is_lower {
            let epoch = self.restored.epochs.entry(floating).or_default();
            *epoch = before.spec.epoch.max(*epoch);
        }
    }

    /// Whether a change of a binding says that another node has the address.
    fn is_elsewhere(&self, delta: &Delta) -> bool {
        let Some(Ok(Value::Binding(binding))) = &delta.value else {
            return false;
        };
        let owner = binding.spec.owner.as_ref();
        owner.is_some_and(|owner| owner.node != self.settings.node)
    }

    /// Whether a change of an endpoint's record says something else than what was known of its container before the restore.
    /// Then it does not count: this node writes the record again.
    pub(super) fn is_forgotten(&mut self, id: &EndpointId, delta: &Delta) -> bool {
        let Some(mut memory) = self.restored.endpoints.remove(id) else {
            return false;
        };
        let is_same =
            matches!(&delta.value, Some(Ok(Value::Endpoint(now))) if says_the_same(now, &memory.record));
        let is_over = !self.is_held() && memory.instead.is_none();
        if is_same || is_over || !self.is_container_of(id, &memory.record) {
            return false;
        }
        memory.instead = Some(delta.clone());
        self.restored.endpoints.insert(id.clone(), memory);
        true
    }
}

/// Whether two owners are the same workload; the term is its node's.
fn is_same(one: Option<&Owner>, other: Option<&Owner>) -> bool {
    fn workload(owner: &Owner) -> [&str; 4] {
        [&owner.node, &owner.workload, &owner.endpoint, &owner.uid]
    }
    one.map(workload) == other.map(workload)
}

#[cfg(test)]
#[path = "restored_tests.rs"]
mod tests;
