//! What must hold after every step: I3, and the rules of the lease protocol that bring it about.

use std::collections::{BTreeMap, BTreeSet};

use buoy_api::binding::{Binding, Epoch, Owner, Term};
use buoy_api::ip::FloatingIp;
use buoy_api::lease::NodeLease;
use buoy_core::floating::lease::{DURATION, key as lease_key};
use buoy_core::store::{Key, Record, Value};
use buoy_core::subject::Subject;

use super::agent::{Agent, Process};
use super::run::Watch;
use super::world::World;

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pen {
    Agent(usize),
    Person,
}

/// What was written so far.
#[derive(Default)]
pub(crate) struct History {
    /// Whose a term of a node's lease was.
    holders: BTreeMap<(String, Term), String>,
    /// The owner, whatever its term, of each epoch of each binding.
    owners: BTreeMap<(String, Epoch), Option<Owner>>,
    /// Highest epoch that an address had when its binding was deleted.
    floors: BTreeMap<FloatingIp, Epoch>,
    /// Bindings that a person deleted, whoever owned them.
    deleted: BTreeSet<String>,
    /// What happened, in a word, and how often.
    pub(crate) events: BTreeMap<&'static str, u64>,
    /// Addresses whose new binding has yet to be lifted above its floor, and by whom.
    low: BTreeMap<FloatingIp, Pen>,
}

impl History {
    /// The store is another: what was in it says nothing of what is written from now on.
    pub(crate) fn forget_records(&mut self) {
        self.owners.clear();
        self.floors.clear();
        self.deleted.clear();
        self.low.clear();
    }
}

impl World {
    /// A record was written or deleted.
    pub(crate) fn written(&mut self, pen: Pen, key: &Key, before: Option<Record>) -> Result<(), String> {
        let before = before.and_then(|record| record.value.ok());
        let after = self.store.get(key).and_then(|record| record.value.ok());
        match (before, after) {
            (before, Some(Value::Lease(after))) => {
                let before = match before {
                    Some(Value::Lease(before)) => Some(before),
                    _ => None,
                };
                self.lease_written(pen, before.as_ref(), &after)
            }
            (Some(Value::Binding(before)), Some(Value::Binding(after))) => {
                self.binding_written(pen, Some(&before), &after)
            }
            (None, Some(Value::Binding(after))) => self.binding_written(pen, None, &after),
            (Some(Value::Binding(before)), None) => self.binding_deleted(pen, &before),
            _ => Ok(()),
        }
    }

    fn lease_written(
        &mut self,
        pen: Pen,
        before: Option<&NodeLease>,
        after: &NodeLease,
    ) -> Result<(), String> {
        let node = after.name().to_owned();
        let Pen::Agent(who) = pen else { return Ok(()) };
        let identity = self.agents[who].identity.clone();
        let term = after.spec.term;
        let (held, was) = before.map_or((None, Term(0)), |before| {
            (before.spec.holder.as_ref(), before.spec.term)
        });
        if term < was {
            return Err(format!("the term of {node} fell: {was:?} to {term:?}"));
        }
        if let Some(holder) = &after.spec.holder {
            if held.is_some_and(|held| held != holder) {
                return Err(format!(
                    "the lease of {node} was taken from its holder by {holder}"
                ));
            }
            if held.is_none() && before.is_some() && term == was {
                return Err(format!("the lease of {node} was taken without a new term"));
            }
            let first = self
                .history
                .holders
                .entry((node.clone(), term))
                .or_insert_with(|| holder.clone());
            if first != holder {
                return Err(format!("two held term {term:?} of {node}"));
            }
            return Ok(());
        }
        if held == Some(&identity) || before.is_some() && held.is_none() {
            return Ok(());
        }
        self.note("revoked");
        if self.all_live
            && let Some(holder) =
                held.filter(|held| self.agents.iter().any(|a| a.identity == **held && a.loops()))
        {
            return Err(format!("{holder} lives and {identity} revoked its lease"));
        }
        self.revoked(who, &node, was)
    }

    fn revoked(&self, who: usize, node: &str, was: Term) -> Result<(), String> {
        let sure = self.agents.iter().find(|agent| {
            agent.process != Process::Down
                && agent.node() == node
                && agent.view.own_lease().live_term(agent.mono()) == Some(was)
                && !agent.was_paused()
        });
        if let Some(agent) = sure {
            return Err(format!("{} was revoked while its lease was live", agent.identity));
        }
        let (since, last) = self.agents[who].contact_before_revoking;
        if last.since(since) < DURATION {
            return Err(format!(
                "{} revoked {node} without contact all the time",
                self.agents[who].identity
            ));
        }
        Ok(())
    }

    fn binding_written(&mut self, pen: Pen, before: Option<&Binding>, after: &Binding) -> Result<(), String> {
        let floating = FloatingIp::try_from(after.spec.address).unwrap();
        let fail = |words: &str| Err(format!("{floating}: {words}\n{before:#?}\n{after:#?}"));
        self.check_epoch(pen, floating, before, after)
            .or_else(|words| fail(&words))?;
        let before_owner = before.and_then(|before| before.spec.owner.as_ref());
        let after_owner = after.spec.owner.as_ref();
        if before_owner == after_owner {
            return Ok(());
        }
        let Pen::Agent(who) = pen else {
            return fail("a person wrote the owner");
        };
        if let Some(owner) = before_owner
            && !self.may_write_over(owner, who)
        {
            return fail("an owner was written over while its lease stood");
        }
        if let Some(owner) = after_owner
            && (owner.node != self.agents[who].node() || !self.held(owner, who))
        {
            return fail("an owner was written by somebody else");
        }
        self.note_change(before, after, who);
        match &after.spec.offer {
            Some(offer) if before_owner.is_some() && offer.from != self.agents[who].node() => {
                fail("offered by another node than the owner's")
            }
            _ => Ok(()),
        }
    }

    fn note(&mut self, event: &'static str) {
        *self.history.events.entry(event).or_default() += 1;
    }

    /// What a change of owner is called.
    fn note_change(&mut self, before: Option<&Binding>, after: &Binding, who: usize) {
        let me = self.agents[who].node();
        let offer = before.and_then(|before| before.spec.offer.as_ref());
        let owner = before.and_then(|before| before.spec.owner.as_ref());
        let event = match (owner, &after.spec.owner) {
            (Some(owner), Some(next)) if owner.uid == next.uid && owner.node == next.node => "stamped anew",
            (Some(owner), Some(_)) if owner.node != me => "taken by force",
            (Some(_), Some(_)) => "passed on",
            (Some(_), None) if after.spec.offer.is_some() => "offered",
            (_, None) => "released",
            (None, Some(_)) if offer.is_some_and(|offer| offer.to.node.as_deref() == Some(me)) => {
                "offer taken"
            }
            (None, Some(_)) if offer.is_some_and(|offer| offer.from == me) => "offer returned",
            (None, Some(_)) => "claimed",
        };
        self.note(event);
    }

    fn check_epoch(
        &mut self,
        pen: Pen,
        floating: FloatingIp,
        before: Option<&Binding>,
        after: &Binding,
    ) -> Result<(), String> {
        let epoch = after.spec.epoch;
        let without_term = after.spec.owner.clone().map(|owner| Owner {
            term: Term(0),
            ..owner
        });
        let uid = after.metadata.uid.clone().unwrap_or_default();
        let first = self
            .history
            .owners
            .entry((uid, epoch))
            .or_insert_with(|| without_term.clone());
        if *first != without_term {
            return Err("two owners in one epoch".to_owned());
        }
        let floor = self.history.floors.get(&floating).copied().unwrap_or_default();
        match before {
            Some(before) if before.spec.epoch > epoch => Err("the epoch fell".to_owned()),
            Some(before)
                if before.spec.owner.as_ref().map(|o| o.term) > after.spec.owner.as_ref().map(|o| o.term)
                    && before.spec.epoch == epoch =>
            {
                Err("the owner's term fell".to_owned())
            }
            None if epoch <= floor => {
                self.history.low.insert(floating, pen);
                Ok(())
            }
            _ => {
                if epoch > floor {
                    self.history.low.remove(&floating);
                }
                Ok(())
            }
        }
    }

    /// Only the agent whose term an owner has may write over it, until the lease has a higher term.
    fn may_write_over(&self, owner: &Owner, who: usize) -> bool {
        let lease = self.store.get(&lease_key(&owner.node));
        let revoked = match lease.map(|record| record.value) {
            Some(Ok(Value::Lease(lease))) => lease.spec.term > owner.term,
            _ => false,
        };
        revoked || self.held(owner, who)
    }

    fn held(&self, owner: &Owner, who: usize) -> bool {
        let holder = self.history.holders.get(&(owner.node.clone(), owner.term));
        holder == Some(&self.agents[who].identity)
    }

    fn binding_deleted(&mut self, pen: Pen, before: &Binding) -> Result<(), String> {
        let floating = FloatingIp::try_from(before.spec.address).unwrap();
        if pen == Pen::Person {
            self.history.deleted.extend(before.metadata.uid.clone());
        } else if before.spec.owner.is_some() {
            return Err(format!("{floating}: deleted under its owner"));
        }
        self.note(if pen == Pen::Person {
            "deleted"
        } else {
            "collected"
        });
        let floor = self.history.floors.entry(floating).or_default();
        *floor = before.spec.epoch.max(*floor);
        self.history.low.remove(&floating);
        Ok(())
    }

    /// A first claim has ended: its epoch is above all that were.
    pub(crate) fn check_lifted(&self, who: usize, subject: &Subject) -> Result<(), String> {
        match subject {
            Subject::Binding(floating)
                if self.history.low.get(floating) == Some(&Pen::Agent(who))
                    && self
                        .owner_of(*floating)
                        .is_some_and(|owner| self.held(owner, who)) =>
            {
                Err(format!("{floating}: the epoch fell across deletion"))
            }
            _ => Ok(()),
        }
    }

    /// Who makes a binding and then dies or loses contact before it has read the floor again, or whose write was that late,
    /// may leave an epoch that is not above the floor, if that rose in the very moment before; so may who has lost the
    /// address by then. Nobody else can tell, and the next owner's is higher.
    pub(crate) fn forgive_low(&mut self, who: usize) {
        self.history.low.retain(|_, pen| *pen != Pen::Agent(who));
    }

    /// At most one agent is confirmed for an address, and it is the owner; where a machine was paused the epoch decides.
    pub(crate) fn check_confirmed(&self) -> Result<(), String> {
        for floating in self.floating.iter().copied() {
            let mut sure: Vec<(Epoch, &Agent)> = Vec::new();
            for agent in self.agents.iter().filter(|agent| agent.is_confirmed(floating)) {
                let binding = agent.view.bindings.get(&floating).unwrap();
                // A person may have taken it from under a living owner.
                let uid = binding.metadata.uid.as_ref();
                if !uid.is_some_and(|uid| self.history.deleted.contains(uid)) {
                    sure.push((binding.spec.epoch, agent));
                }
            }
            sure.sort_by_key(|(epoch, _)| *epoch);
            self.check_sure(floating, &sure)?;
        }
        Ok(())
    }

    fn check_sure(&self, floating: FloatingIp, sure: &[(Epoch, &Agent)]) -> Result<(), String> {
        if let [.., (low, older), (high, _)] = sure
            && !(older.was_paused() && low < high)
        {
            let names: Vec<_> = sure
                .iter()
                .map(|(epoch, agent)| (&agent.identity, epoch))
                .collect();
            return Err(format!("{floating}: two are confirmed: {names:?}"));
        }
        match sure.last() {
            Some((_, agent))
                if self.watch == Watch::All
                    && !agent.was_paused()
                    && self
                        .owner_of(floating)
                        .is_none_or(|owner| owner.node != agent.node()) =>
            {
                Err(format!(
                    "{floating}: {} is confirmed and not the owner",
                    agent.identity
                ))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn owner_of(&self, floating: FloatingIp) -> Option<&Owner> {
        match self.store.records.get(self.keys.get(&floating)?)? {
            (_, Value::Binding(binding)) => binding.spec.owner.as_ref(),
            _ => None,
        }
    }
}
