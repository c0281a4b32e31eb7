//! What an observer saw of another node's lease.

use std::fmt;
use std::time::Duration;

use buoy_api::binding::Term;
use buoy_api::lease::NodeLease;

use super::{CONTACT, DURATION, LEAD};
use crate::store::Revision;
use crate::time::Mono;

/// A lease as it was read, how long it has stood like that, and whether the store answered all the time.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    /// The lease with its revision; `None` while there is no such record.
    pub lease: Option<(NodeLease, Revision)>,
    /// When the reading ended that first brought this revision; later, if the count began anew since.
    pub since: Mono,
    /// When the last reading ended.
    pub last: Mono,
    /// Why the count began at `since`.
    pub begun: Begun,
}

/// Why an observer began to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The lease was read for the first time.
    First,
    /// Another revision was read: it was renewed, taken, left or revoked.
    Changed,
    /// There was no answer of the datastore for this long.
    Gap(Duration),
    /// The lease was to be revoked, and it is not sure that it was.
    NotRevoked,
}

impl fmt::Display for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => write!(f, "read for the first time"),
            Self::Changed => write!(f, "it was written"),
            Self::Gap(gap) => write!(f, "no answer of the datastore for {} ms", gap.as_millis()),
            Self::NotRevoked => write!(f, "its revocation failed"),
        }
    }
}

impl Sighting {
    /// Takes a reading in. After a gap between answers the count begins anew.
    pub fn read(before: Option<&Self>, lease: Option<(NodeLease, Revision)>, ended: Mono) -> Self {
        let (since, begun) = match before {
            None => (ended, Begun::First),
            Some(before) if !before.has_revision_of(lease.as_ref()) => (ended, Begun::Changed),
            Some(before) if ended > before.last.after(CONTACT) => {
                (ended, Begun::Gap(ended.since(before.last)))
            }
            Some(before) => (before.since, before.begun),
        };
        Self {
            lease,
            since,
            last: ended,
            begun,
        }
    }

    /// The same after a revocation that failed, or of which nothing is known: the count begins anew.
    pub fn not_revoked(self, now: Mono) -> Self {
        Self {
            since: now,
            begun: Begun::NotRevoked,
            ..self
        }
    }

    /// Whether a reading brought the revision that this one brought.
    pub fn has_revision_of(&self, lease: Option<&(NodeLease, Revision)>) -> bool {
        self.lease.as_ref().map(|(_, revision)| revision) == lease.map(|(_, revision)| revision)
    }

    /// Its term, if there is a record.
    pub fn term(&self) -> Option<Term> {
        self.lease.as_ref().map(|(lease, _)| lease.spec.term)
    }

    /// Whether an owner of this term has lost its addresses.
    pub fn outranks(&self, owner: Term) -> bool {
        self.term().is_some_and(|term| term > owner)
    }

    /// How long one revision must have stood: the lease's duration and a tenth.
    pub fn patience(&self) -> Duration {
        let duration = self.lease.as_ref().map_or(DURATION, |(lease, _)| {
            Duration::from_secs(lease.spec.duration_seconds).max(DURATION)
        });
        duration.saturating_add(duration / 10)
    }

    /// When it will have stood long enough.
    pub fn due(&self) -> Mono {
        self.since.after(self.patience())
    }

    /// Whether it had stood long enough when it was read last.
    pub fn is_due(&self) -> bool {
        self.last >= self.due()
    }

    /// Whether it may be revoked: it is due, and there was no gap since.
    pub fn is_revocable(&self, now: Mono) -> bool {
        self.is_due() && now <= self.last.after(CONTACT)
    }

    /// Whether that is so near that who wants to revoke it must show that the datastore takes writes.
    pub fn needs_proof(&self) -> bool {
        self.last.after(LEAD) >= self.due()
    }
}
