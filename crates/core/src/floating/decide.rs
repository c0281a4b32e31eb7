//! What this node should do about one floating IP now.
//!
//! The living give, nobody takes: while the lease of an owner's node stands, only that node's agent writes the owner. It
//! offers the address and leaves it without an owner; who was meant claims it at once, the others in turn, and the one
//! that offered it last of all. From a node whose lease was revoked an address is taken by force, in the same order.

use std::time::Duration;

use buoy_api::binding::{Binding, Candidate, Offer, Owner, Target, Term};
use jiff::{SignedDuration, Timestamp};

use crate::floating::order;
use crate::time::{Mono, Now};

/// Pause between the turns of candidates that nobody meant.
pub const TURN: Duration = Duration::from_millis(500);
/// Time after which an offer that nobody took returns to where it came from.
pub const RETURN: Duration = Duration::from_secs(3);

/// How this agent stands to its node's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Holds it, and nobody can have revoked it.
    Holder(Term),
    /// Must take or renew it before it may write an owner.
    Without,
    /// Another agent holds it under this node's name: what this node owns is that one's.
    Foreign,
}

impl Standing {
    fn term(self) -> Option<Term> {
        match self {
            Self::Holder(term) => Some(term),
            Self::Without | Self::Foreign => None,
        }
    }
}

/// The lease of the owner's node, as it was read last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Its term.
    pub term: Term,
    /// When this revision of it was first seen.
    pub since: Mono,
}

/// What is known of one address that has a binding.
#[derive(Clone, Debug)]
pub struct Case<'a> {
    /// Its binding.
    pub binding: &'a Binding,
    /// This node.
    pub node: &'a str,
    /// Candidates of this node, of the binding's namespace.
    pub mine: &'a [Candidate],
    /// How long a namespace keeps an address that nobody owns.
    pub hold: Duration,
    /// This agent and its lease.
    pub standing: Standing,
    /// Lease of the owner's node, if that is another's and was read.
    pub rival: Option<Rival>,
    /// When the binding's present turn was first seen here.
    pub since: Mono,
    /// Whether what this node claims would be announced.
    pub can_announce: bool,
    /// Candidates that did not take what they were offered.
    pub deaf: Vec<&'a Candidate>,
    /// Whether this agent has begun to give the address away, and nothing later is known of it.
    pub giving: bool,
    /// Whether the owner, if it is of this node, wants to be withdrawn before it gives the address away.
    pub exclusive: bool,
    /// Whether the owner's workload is being attached anew on this node: its new incarnation asks for the address, and has
    /// no link yet.
    pub successor: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing, until something changes.
    Hold,
    /// Nothing before this time.
    Wait(Mono),
    /// Take or renew the lease, then look again.
    NeedLease,
    /// Make this candidate the owner.
    Claim(Owner, Reason),
    /// Write this node's new term into what it still owns.
    Restamp(Term),
    /// Leave the address without an owner, meant for a candidate of another node.
    Offer {
        /// Whom it is meant for, and from where.
        offer: Offer,
        /// Withdraw it first.
        exclusive: bool,
        /// Why.
        reason: Reason,
    },
    /// Leave the address without an owner.
    Release,
    /// Say in the binding's status who stands by here.
    Publish(Vec<Candidate>),
    /// Nobody wants the address and its hold is over: delete the binding.
    Collect,
}

/// Why an owner changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Nobody had it.
    Free,
    /// The owner is gone.
    OwnerGone,
    /// A person moved it, or a candidate has a higher priority, or is ready while the owner is not.
    Better,
    /// The owner's own address changed.
    Renumbered,
    /// The lease of the owner's node was revoked.
    Revoked,
    /// It was to be given away, and is not. A new turn proves that it was not: the write may still be on its way.
    Kept,
}

/// The candidate that gets an address that has no binding yet: the oldest.
pub fn first(mine: &[Candidate]) -> Option<&Candidate> {
    mine.iter()
        .min_by_key(|c| (c.since, c.workload.clone(), c.endpoint.clone()))
}

/// Decides. Depends on its arguments alone.
pub fn decide(case: &Case, now: Now) -> Decision {
    let decision = match &case.binding.spec.owner {
        None => free(case, now.mono),
        Some(owner) if owner.node == case.node && case.standing != Standing::Foreign => {
            owned_here(case, owner)
        }
        Some(owner) => owned_elsewhere(case, owner, now.mono),
    };
    match decision {
        Decision::Hold => publish(case).unwrap_or_else(|| collect(case, now)),
        Decision::Wait(_) | Decision::NeedLease => publish(case).unwrap_or(decision),
        // Who takes it must not find the one that is gone among the candidates, and give it back.
        Decision::Offer {
            reason: Reason::OwnerGone,
            ..
        } => publish(case).unwrap_or(decision),
        decision => decision,
    }
}

fn free(case: &Case, now: Mono) -> Decision {
    let Some(best) = order::best(case.binding, case.mine).filter(|_| case.can_announce) else {
        return Decision::Hold;
    };
    let due = case.since.after(pause(case, best));
    if now < due {
        return Decision::Wait(due);
    }
    claim(case, best, Reason::Free)
}

/// How long a candidate of this node leaves an address without owner to others.
fn pause(case: &Case, best: &Candidate) -> Duration {
    let Some(offer) = &case.binding.spec.offer else {
        return turn(place(case, best, |_| true));
    };
    if best.matches(&offer.to) {
        return Duration::ZERO;
    }
    if offer.from == case.node {
        return RETURN;
    }
    let waits = |c: &Candidate| !c.matches(&offer.to) && c.node != offer.from;
    turn(place(case, best, waits) + 1)
}

fn turn(place: usize) -> Duration {
    TURN.saturating_mul(u32::try_from(place).unwrap_or(u32::MAX))
}

/// How many candidates go before this one, of those that `counts`.
fn place(case: &Case, own: &Candidate, counts: impl Fn(&Candidate) -> bool) -> usize {
    case.all()
        .filter(|c| counts(c) && order::compare(case.binding, c, own).is_lt())
        .count()
}

fn owned_elsewhere(case: &Case, owner: &Owner, now: Mono) -> Decision {
    let Some(rival) = case.rival.filter(|rival| rival.term > owner.term) else {
        return Decision::Hold;
    };
    let best = order::best(case.binding, case.mine).filter(|best| best.ready && case.can_announce);
    let Some(best) = best else {
        return Decision::Hold;
    };
    let due = rival
        .since
        .after(turn(place(case, best, |c| c.node != owner.node)));
    if now < due {
        return Decision::Wait(due);
    }
    claim(case, best, Reason::Revoked)
}

fn owned_here(case: &Case, owner: &Owner) -> Decision {
    // A higher term than this agent's is of a lease that was taken after it: by another agent under this node's name,
    // while this machine's clock stood.
    let Some(term) = case.standing.term().filter(|term| *term >= owner.term) else {
        return Decision::NeedLease;
    };
    let heard = case
        .all()
        .filter(|c| c.node == case.node || !case.deaf.contains(c));
    let best = order::best(case.binding, heard);
    let present = case.mine.iter().find(|c| c.is(owner));
    let (Some(best), Some(present)) = (best, present) else {
        if case.successor {
            return Decision::Hold;
        }
        return best.map_or(Decision::Release, |best| pass(case, best, Reason::OwnerGone));
    };
    if !best.is(owner) && best.ready >= present.ready {
        return pass(case, best, Reason::Better);
    }
    if present.internal_ip != owner.internal_ip {
        return claim(case, present, Reason::Renumbered);
    }
    if owner.term < term {
        return Decision::Restamp(term);
    }
    if case.giving {
        return claim(case, present, Reason::Kept);
    }
    Decision::Hold
}

/// Passes an address of this node on: directly to a workload of this node, by an offer to one of another.
fn pass(case: &Case, to: &Candidate, reason: Reason) -> Decision {
    if to.node == case.node {
        return claim(case, to, reason);
    }
    Decision::Offer {
        offer: Offer {
            to: Target {
                node: Some(to.node.clone()),
                workload: to.workload.clone(),
                endpoint: Some(to.endpoint.clone()),
            },
            from: case.node.to_owned(),
        },
        exclusive: case.exclusive,
        reason,
    }
}

fn claim(case: &Case, by: &Candidate, reason: Reason) -> Decision {
    case.standing.term().map_or(Decision::NeedLease, |term| {
        Decision::Claim(by.as_owner(term), reason)
    })
}

impl Case<'_> {
    /// Candidates everywhere: of this node as they are, of others as they say.
    fn all(&self) -> impl Iterator<Item = &Candidate> {
        let others = self.binding.status.candidates.iter();
        self.mine.iter().chain(others.filter(|c| c.node != self.node))
    }
}

/// Publishes when the status does not say what is so.
fn publish(case: &Case) -> Option<Decision> {
    let mut mine = case.mine.to_vec();
    mine.sort();
    let said = case.binding.status.candidates.iter();
    let mut said: Vec<Candidate> = said.filter(|c| c.node == case.node).cloned().collect();
    said.sort();
    (mine != said).then_some(Decision::Publish(mine))
}

fn collect(case: &Case, now: Now) -> Decision {
    let binding = case.binding;
    let is_contested = binding.status.contested().is_some();
    if binding.spec.owner.is_some() || !binding.status.candidates.is_empty() || is_contested {
        return Decision::Hold;
    }
    let over = hold_ends(binding, case.hold);
    if now.wall >= over {
        Decision::Collect
    } else {
        Decision::Wait(now.at(over))
    }
}

/// When a namespace's hold on an address that nobody owns is over.
pub fn hold_ends(binding: &Binding, hold: Duration) -> Timestamp {
    let released = binding
        .spec
        .released
        .or(binding.metadata.creation_timestamp)
        .unwrap_or(Timestamp::UNIX_EPOCH);
    let hold = SignedDuration::try_from(hold).unwrap_or(SignedDuration::MAX);
    released.checked_add(hold).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
