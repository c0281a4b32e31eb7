//! What this node knows of leases, and of the turns of a binding's owners: kept by key both ways, so that a change costs
//! what it concerns.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use buoy_api::binding::{Binding, Candidate, Epoch, Term};
use buoy_api::ip::FloatingIp;
use buoy_api::lease::NodeLease;

use super::View;
use crate::floating::lease::{Own, Sighting, Steady};
use crate::store::Revision;
use crate::subject::Subject;
use crate::time::Mono;

/// How long a candidate that did not take what it was offered is passed over, unless what it says of itself changes.
const DEAF: Duration = Duration::from_secs(60);

/// How far an address that is given away exclusively has come on its way out of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// It is to go.
    Begun,
    /// The kernel has nothing of it any more.
    Done,
}

/// Leases and turns.
#[derive(Clone, Debug, Default)]
pub(super) struct Ownership {
    own: Own,
    /// Whether the store may say that this node holds its lease, though it was left since.
    is_unknown: bool,
    steady: Option<Steady>,
    floor: Term,
    sightings: BTreeMap<String, Sighting>,
    awaited: BTreeMap<String, BTreeSet<FloatingIp>>,
    awaits: BTreeMap<FloatingIp, String>,
    turns: BTreeMap<FloatingIp, (Epoch, Mono)>,
    deaf: BTreeMap<FloatingIp, BTreeMap<Candidate, Mono>>,
    withdrawals: BTreeMap<FloatingIp, Withdrawal>,
    given: BTreeMap<FloatingIp, Revision>,
}

impl View {
    /// This node's lease, as far as this agent has it.
    pub fn own_lease(&self) -> &Own {
        &self.ownership.own
    }

    /// Whether a copy from which the store was restored may say that this node holds its lease. Nobody but this node gives it
    /// up: it is taken once, and left again.
    pub fn is_own_lease_unknown(&self) -> bool {
        self.ownership.is_unknown
    }

    /// The store has forgotten what it was told of this node's lease. Says whom that concerns.
    pub(super) fn forget_own_lease(&mut self) -> BTreeSet<Subject> {
        if matches!(self.ownership.own, Own::Foreign(_)) {
            return BTreeSet::new();
        }
        let dirty = self.set_own_lease(Own::Nothing);
        self.ownership.is_unknown = true;
        dirty
    }

    /// Highest term that an owner on this node ever had, as far as this agent saw.
    pub fn term_floor(&self) -> Term {
        self.ownership.floor
    }

    /// Whether this node's record of a binding names it as the owner's.
    pub fn owns(&self) -> bool {
        !self.owned.is_empty()
    }

    /// Whether this agent is sure that a workload of this node owns an address: its last successful renewal is younger than
    /// its lease, the owner has the lease's term, and no write that gives the address away was begun.
    pub fn is_confirmed(&self, floating: FloatingIp, now: Mono) -> bool {
        let Some((binding, _)) = self.bindings.versioned(&floating) else {
            return false;
        };
        let owner = binding
            .spec
            .owner
            .as_ref()
            .filter(|owner| owner.node == self.settings.node);
        owner.is_some_and(|owner| self.own_lease().live_term(now) == Some(owner.term))
            && !self.is_giving(floating)
            && self.to_reassert(floating).is_none()
            && !self.may_be_of_the_past()
    }

    /// This agent begins to write that an address has no owner any more. Whatever becomes of the answer, nobody here may
    /// rely on owning it until a later revision says so.
    pub fn begin_giving(&mut self, floating: FloatingIp) {
        if let Some((_, revision)) = self.bindings.versioned(&floating) {
            self.ownership.given.insert(floating, revision);
        }
    }

    /// Whether a write that gives an address away was begun, and nothing later is known of it.
    pub fn is_giving(&self, floating: FloatingIp) -> bool {
        let seen = self.bindings.versioned(&floating);
        seen.is_some_and(|(_, revision)| self.ownership.given.get(&floating) == Some(&revision))
    }

    /// Takes in that this node's lease was taken or renewed, left, or found with another agent, and says whom it concerns.
    pub fn own_lease_kept(&mut self, own: Own, ended: Mono) -> BTreeSet<Subject> {
        let steady = match &own {
            Own::Held(held) => Some(Steady::renewed(self.ownership.steady, held.began, ended)),
            Own::Nothing | Own::Foreign(_) => None,
        };
        let dirty = self.set_own_lease(own);
        self.ownership.steady = steady;
        dirty
    }

    /// Whether this node's own lease shows that the datastore has been taking writes.
    pub fn can_write(&self, now: Mono) -> bool {
        self.ownership
            .steady
            .is_some_and(|steady| steady.proves_writes(now))
    }

    /// Sets this node's lease and says whom it concerns: what this node owns, if its standing is another.
    pub fn set_own_lease(&mut self, own: Own) -> BTreeSet<Subject> {
        self.ownership.steady = None;
        self.ownership.is_unknown &= own == Own::Nothing;
        let before = std::mem::replace(&mut self.ownership.own, own);
        let mut dirty = BTreeSet::from([Subject::Lease]);
        if standing(&before) != standing(&self.ownership.own) {
            let owned: BTreeSet<FloatingIp> = self.owned.values().flatten().copied().collect();
            for floating in &owned {
                dirty.extend(self.look_whom_it_awaits(*floating));
            }
            dirty.extend(owned.into_iter().map(Subject::Binding));
            dirty.insert(Subject::OtherNode(self.settings.node.clone()));
            dirty.insert(Subject::Node);
        }
        dirty
    }

    /// A node's lease as it was read last.
    pub fn sighting(&self, node: &str) -> Option<&Sighting> {
        self.ownership.sightings.get(node)
    }

    /// Takes in a reading of a node's lease and says whom it concerns.
    pub fn sighted(
        &mut self,
        node: &str,
        lease: Option<(NodeLease, Revision)>,
        ended: Mono,
    ) -> BTreeSet<Subject> {
        let mut dirty = BTreeSet::from([Subject::OtherNode(node.to_owned())]);
        if self.is_foreign(node)
            && lease
                .as_ref()
                .is_none_or(|(lease, _)| lease.spec.holder.is_none())
        {
            dirty.extend(self.set_own_lease(Own::Nothing));
        }
        let before = self.ownership.sightings.get(node);
        let now = Sighting::read(before, lease, ended);
        if before.map(Sighting::term) != Some(now.term()) {
            dirty.extend(self.awaited_of(node).map(Subject::Binding));
        }
        self.ownership.sightings.insert(node.to_owned(), now);
        dirty
    }

    /// Takes in what was found of a node's lease that was to be revoked. One that stands as before may have been written,
    /// and the write be on its way.
    pub fn revoked(
        &mut self,
        node: &str,
        lease: Option<(NodeLease, Revision)>,
        ended: Mono,
    ) -> BTreeSet<Subject> {
        let stands = self
            .sighting(node)
            .is_some_and(|seen| seen.has_revision_of(lease.as_ref()));
        let mut dirty = self.sighted(node, lease, ended);
        if stands {
            dirty.append(&mut self.not_revoked(node, ended));
        }
        dirty
    }

    /// Takes in that a node's lease was to be revoked and the datastore did not do it: who cannot write now may have been
    /// unable to for long, and so may the holder.
    pub fn not_revoked(&mut self, node: &str, ended: Mono) -> BTreeSet<Subject> {
        if let Some(seen) = self.ownership.sightings.remove(node) {
            let seen = seen.not_revoked(ended);
            self.ownership.sightings.insert(node.to_owned(), seen);
        }
        BTreeSet::from([Subject::OtherNode(node.to_owned())])
    }

    /// Floating IPs of a node's workloads that somebody on this node stands by for.
    pub fn awaited_of(&self, node: &str) -> impl Iterator<Item = FloatingIp> + '_ {
        self.ownership.awaited.get(node).into_iter().flatten().copied()
    }

    /// Nodes whose owners' addresses somebody on this node stands by for.
    pub(super) fn awaited_nodes(&self) -> impl Iterator<Item = String> + '_ {
        self.ownership.awaited.keys().cloned()
    }

    /// What was read of other nodes' leases is of a time that the store has forgotten: each count begins anew.
    pub(super) fn forget_leases(&mut self) {
        self.ownership.sightings.clear();
    }

    /// Whether another agent holds the lease of this node, and this is that node.
    pub fn is_foreign(&self, node: &str) -> bool {
        node == self.settings.node && matches!(self.ownership.own, Own::Foreign(_))
    }

    /// When the present turn of an address was first seen here.
    pub fn turn_of(&self, floating: FloatingIp) -> Mono {
        let turn = self.ownership.turns.get(&floating);
        turn.map(|(_, since)| *since).unwrap_or_default()
    }

    /// Candidates that did not take an address when it was offered to them.
    pub fn deaf(&self, floating: FloatingIp, now: Mono) -> Vec<&Candidate> {
        let noted = self.ownership.deaf.get(&floating).into_iter().flatten();
        noted
            .filter(|(_, since)| now < since.after(DEAF))
            .map(|(candidate, _)| candidate)
            .collect()
    }

    /// When the first of them may be offered it again.
    pub fn hears_again(&self, floating: FloatingIp, now: Mono) -> Option<Mono> {
        let noted = self.ownership.deaf.get(&floating).into_iter().flatten();
        noted
            .map(|(_, since)| since.after(DEAF))
            .filter(|again| now < *again)
            .min()
    }

    /// How far an address is on its way out of the kernel, if it is to be withdrawn before it is given away.
    pub fn withdrawal(&self, floating: FloatingIp) -> Option<Withdrawal> {
        self.ownership.withdrawals.get(&floating).copied()
    }

    /// Takes in how far the withdrawal of an address is, or that it is off, and says whom that concerns.
    pub fn set_withdrawal(
        &mut self,
        floating: FloatingIp,
        withdrawal: Option<Withdrawal>,
    ) -> BTreeSet<Subject> {
        match withdrawal {
            Some(withdrawal) => self.ownership.withdrawals.insert(floating, withdrawal),
            None => self.ownership.withdrawals.remove(&floating),
        };
        BTreeSet::from([Subject::Binding(floating)])
    }

    /// A binding is another than `before`: takes note of its turn.
    pub(super) fn note_turn(
        &mut self,
        floating: FloatingIp,
        before: Option<&Binding>,
        now: Mono,
    ) -> BTreeSet<Subject> {
        let binding = self.bindings.get(&floating).cloned();
        let Some(binding) = binding else {
            self.ownership.turns.remove(&floating);
            self.ownership.deaf.remove(&floating);
            self.ownership.withdrawals.remove(&floating);
            self.ownership.given.remove(&floating);
            return self.look_whom_it_awaits(floating);
        };
        let epoch = binding.spec.epoch;
        if self
            .ownership
            .turns
            .get(&floating)
            .is_none_or(|(seen, _)| *seen != epoch)
        {
            self.ownership.turns.insert(floating, (epoch, now));
        }
        let mine = binding
            .spec
            .owner
            .as_ref()
            .filter(|owner| owner.node == self.settings.node);
        match mine {
            Some(owner) => self.ownership.floor = self.ownership.floor.max(owner.term),
            None => drop(self.ownership.withdrawals.remove(&floating)),
        }
        let returned = mine.is_some();
        self.note_deaf(floating, before, &binding, now);
        let mut dirty = self.look_whom_it_awaits(floating);
        if self.is_taken_by_force(before, &binding) {
            self.distrust_own_lease();
            dirty.insert(Subject::Lease);
            let owned = self.owned.values().flatten().chain(self.asking.keys());
            dirty.extend(owned.copied().map(Subject::Binding));
        }
        // Who holds this node's lease is watched for what the node owns.
        if returned && self.is_foreign(&self.settings.node) {
            dirty.insert(Subject::OtherNode(self.settings.node.clone()));
        }
        dirty
    }

    /// Whether another node has what a workload of this node had under the lease that this agent believes to hold.
    fn is_taken_by_force(&self, before: Option<&Binding>, now: &Binding) -> bool {
        let owner = before.and_then(|before| before.spec.owner.as_ref());
        let lost = owner.filter(|owner| owner.node == self.settings.node);
        let taken = now
            .spec
            .owner
            .as_ref()
            .is_some_and(|owner| owner.node != self.settings.node);
        match (&self.ownership.own, lost) {
            (Own::Held(held), Some(lost)) => taken && held.term == lost.term,
            _ => false,
        }
    }

    /// The lease was revoked, whatever this machine's clock says, which may have stood. What is claimed under it would be
    /// taken again at once.
    fn distrust_own_lease(&mut self) {
        if let Own::Held(held) = &mut self.ownership.own {
            held.began = Mono::default();
        }
    }

    /// An offer that somebody else took, or that went back, was not heard by whom it was meant for; and nobody hears on a
    /// node from which an address was taken by force. That holds until they say something else of themselves, or take an
    /// address after all.
    fn note_deaf(&mut self, floating: FloatingIp, before: Option<&Binding>, binding: &Binding, now: Mono) {
        let candidates = &binding.status.candidates;
        let owner = binding.spec.owner.as_ref();
        let deaf = self.ownership.deaf.entry(floating).or_default();
        deaf.retain(|deaf, _| candidates.contains(deaf) && !owner.is_some_and(|owner| deaf.is(owner)));
        let offer = before.and_then(|before| before.spec.offer.as_ref());
        let forced = before.and_then(|before| before.spec.owner.as_ref());
        if let (Some(forced), Some(owner)) = (forced, owner)
            && forced.node != owner.node
        {
            let silent = candidates.iter().filter(|c| c.node == forced.node);
            deaf.extend(silent.map(|c| (c.clone(), now)));
        }
        if let (Some(offer), Some(owner)) = (offer, owner) {
            let mut meant = candidates.iter().filter(|c| c.matches(&offer.to));
            deaf.extend(meant.find(|c| !c.is(owner)).map(|c| (c.clone(), now)));
        }
        if deaf.is_empty() {
            self.ownership.deaf.remove(&floating);
        }
    }

    /// Looks again from which node's owner an address is awaited here, and says which nodes' leases that concerns: also one
    /// whose owner has another term now.
    pub(super) fn look_whom_it_awaits(&mut self, floating: FloatingIp) -> BTreeSet<Subject> {
        let binding = self.bindings.get(&floating);
        let owner = binding.and_then(|binding| binding.spec.owner.as_ref());
        let now = owner
            .map(|owner| owner.node.clone())
            .filter(|node| *node != self.settings.node || self.is_foreign(node))
            .filter(|_| self.asking.contains_key(&floating));
        let before = self.ownership.awaits.get(&floating).cloned();
        if now == before {
            return now.into_iter().map(Subject::OtherNode).collect();
        }
        if let Some(node) = &before {
            self.ownership.awaits.remove(&floating);
            self.await_no_more(node, floating);
        }
        if let Some(node) = &now {
            self.ownership.awaits.insert(floating, node.clone());
            self.ownership
                .awaited
                .entry(node.clone())
                .or_default()
                .insert(floating);
        }
        before.into_iter().chain(now).map(Subject::OtherNode).collect()
    }

    fn await_no_more(&mut self, node: &str, floating: FloatingIp) {
        if let Some(awaited) = self.ownership.awaited.get_mut(node) {
            awaited.remove(&floating);
            if awaited.is_empty() {
                self.ownership.awaited.remove(node);
                self.ownership.sightings.remove(node);
            }
        }
    }
}

/// What of a lease decides: its term, or whose it is.
fn standing(own: &Own) -> Result<Option<Term>, &str> {
    match own {
        Own::Nothing => Ok(None),
        Own::Held(held) => Ok(Some(held.term)),
        Own::Foreign(holder) => Err(holder),
    }
}

#[cfg(test)]
#[path = "ownership_tests.rs"]
mod tests;
