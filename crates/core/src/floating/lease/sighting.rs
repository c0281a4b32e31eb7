//! What an observer saw of another node's lease.

use std::time::Duration;

use buoy_api::binding::Term;
use buoy_api::lease::NodeLease;

use super::{CONTACT, DURATION};
use crate::store::Revision;
use crate::time::Mono;

/// A lease as it was read, how long it has stood like that, and whether the store answered all the time.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    /// The lease with its revision; `None` while there is no such record.
    pub lease: Option<(NodeLease, Revision)>,
    /// When the reading ended that first brought this revision; later, if contact was lost since.
    pub since: Mono,
    /// When the last reading ended.
    pub last: Mono,
}

impl Sighting {
    /// Takes a reading in. After a gap between answers the count begins anew.
    pub fn read(before: Option<&Self>, lease: Option<(NodeLease, Revision)>, ended: Mono) -> Self {
        let since = before
            .filter(|before| before.revision() == lease.as_ref().map(|(_, revision)| *revision))
            .filter(|before| ended <= before.last.after(CONTACT))
            .map_or(ended, |before| before.since);
        Self {
            lease,
            since,
            last: ended,
        }
    }

    fn revision(&self) -> Option<Revision> {
        self.lease.as_ref().map(|(_, revision)| *revision)
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

    /// Whether it has stood long enough to be revoked.
    pub fn is_revocable(&self) -> bool {
        self.last.since(self.since) >= self.patience()
    }
}
