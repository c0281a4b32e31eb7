//! Leases: a node's right to own floating IPs, and how others may take it away.
//!
//! A lease has a *term*. Whoever takes it raises the term; a renewal is a compare-and-swap on the revision that this
//! process wrote or read last, and leaves the term as it is. A revocation raises it too. So an owner whose term is lower
//! than its node's lease has lost its addresses, whatever it believes, and a revoked agent hears it at its next renewal.
//!
//! Who revokes has counted how long one revision stood ([`Sighting`]) and has kept a lease of its own meanwhile
//! ([`Steady`]): where nobody can write, nobody is taken for dead.

mod keep;
mod revoke;
mod sighting;
mod steady;

use std::time::Duration;

use buoy_api::binding::Term;
use buoy_api::lease::{NodeLease, NodeLeaseSpec};
use buoy_api::meta::ObjectMeta;
use jiff::Timestamp;

pub use self::keep::{KeepLease, Kept, leave};
pub use self::revoke::{RevokeLease, lease_of};
pub use self::sighting::{Begun, Sighting};
pub use self::steady::Steady;
use crate::store::{Key, Revision};
use crate::time::Mono;

/// How long one revision of a lease must stand before somebody may revoke it, and a tenth more.
pub const DURATION: Duration = Duration::from_secs(6);
/// The same after an orderly stop: an upgrade is no failure.
pub const LONG_DURATION: Duration = Duration::from_secs(60);
/// Pause between the beginnings of two renewals.
pub const RENEWAL: Duration = Duration::from_secs(2);
/// Pause between two readings of a lease that this node watches.
pub const READING: Duration = Duration::from_millis(500);
/// Longest time between two answers that counts as having had contact throughout.
pub const CONTACT: Duration = Duration::from_secs(1);
/// Longest time from the beginning of one renewal to the end of the next that counts as having been able to write
/// throughout. What a shorter outage takes from an owner's time is less than what a lease leaves it.
pub const GAP: Duration = Duration::from_secs(3);
/// How long a node must have been able to write before it revokes another's lease: who lives tries to renew several times
/// in it.
pub const PROOF: Duration = Duration::from_secs(3);
/// How long before the end of its count a node begins to show that, with time for a slow write.
pub const LEAD: Duration = Duration::from_millis(3600);

/// Key of a node's lease.
pub fn key(node: &str) -> Key {
    Key::Lease(node.to_owned())
}

/// This node's lease as this process wrote or read it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its term.
    pub term: Term,
    /// Revision to which the next renewal is tied.
    pub revision: Revision,
    /// When the last renewal that succeeded began.
    pub began: Mono,
}

impl Held {
    /// Whether nobody can have revoked it yet.
    pub fn is_live(&self, now: Mono) -> bool {
        now < self.began.after(DURATION)
    }
}

/// What this agent has of its node's lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Own {
    /// Nothing: it needs none, or did not get one yet.
    #[default]
    Nothing,
    /// The lease.
    Held(Held),
    /// Another agent, under this node's name, has it.
    Foreign(String),
}

impl Own {
    /// Its term, while nobody can have revoked it.
    pub fn live_term(&self, now: Mono) -> Option<Term> {
        match self {
            Self::Held(held) if held.is_live(now) => Some(held.term),
            _ => None,
        }
    }
}

/// Who takes or renews a lease, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The node.
    pub node: String,
    /// Identity of the agent.
    pub identity: String,
    /// When it began, by both clocks.
    pub wall: Timestamp,
    /// By the clock that intervals are measured with.
    pub mono: Mono,
}

impl Holder {
    /// The lease, held.
    fn hold(&self, found: Option<&NodeLease>, term: Term, duration: Duration) -> NodeLease {
        let mut lease = found.cloned().unwrap_or_else(|| fresh(&self.node));
        lease.spec.holder = Some(self.identity.clone());
        lease.spec.term = term;
        lease.spec.duration_seconds = duration.as_secs();
        lease.spec.renewed = Some(self.wall);
        lease
    }
}

fn fresh(node: &str) -> NodeLease {
    NodeLease::new(ObjectMeta::named(node), NodeLeaseSpec::default())
}

/// The term after this one.
fn next(term: Term) -> Term {
    Term(term.0.saturating_add(1))
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
