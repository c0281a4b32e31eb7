//! Whether an etcd is the one that it was: each answer says of which cluster it is, and how far that has come.

use std::sync::{Mutex, MutexGuard, PoisonError};

use buoy_core::store::Revision;
use etcd_client::ResponseHeader;

use super::read::revision;

/// What the answers said so far.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Of which cluster the answers are; 0 before the first.
    cluster: u64,
    /// How far it has come.
    revision: Revision,
    /// How often it was another, or had gone back.
    replaced: u64,
    /// How many of these times are known to whoever follows.
    accepted: u64,
}

impl History {
    /// Where the store is, as far as is known when a request begins.
    pub(super) fn begin(&self) -> Revision {
        self.lock().revision
    }

    /// Takes in an answer to a request that began there. What the quorum says is never older.
    pub(super) fn heard(&self, header: Option<&ResponseHeader>, began: Revision) {
        if let Some(header) = header {
            self.lock()
                .hear(header.cluster_id(), revision(header.revision()), began);
        }
    }

    /// How often the store was another than before.
    pub(super) fn replaced(&self) -> u64 {
        self.lock().replaced
    }

    /// Whoever follows it knows of so many times.
    pub(super) fn accept(&self, replaced: u64) {
        let mut known = self.lock();
        known.accepted = known.accepted.max(replaced);
    }

    /// Whether it is known to be the store that it was.
    pub(super) fn is_accepted(&self) -> bool {
        let known = self.lock();
        known.accepted == known.replaced
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn hear(&mut self, cluster: u64, at: Revision, began: Revision) {
        let is_another = self.cluster != 0 && self.cluster != cluster;
        // An answer that was under way while the cluster went back is of the time before.
        let has_gone_back = at < began && began <= self.revision;
        if is_another || has_gone_back {
            self.replaced += 1;
            self.revision = at;
        }
        self.cluster = cluster;
        self.revision = self.revision.max(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(answers: &[(u64, u64, u64)]) -> (u64, Revision) {
        let mut known = Known::default();
        for (cluster, at, began) in answers {
            known.hear(*cluster, Revision(*at), Revision(*began));
        }
        (known.replaced, known.revision)
    }

    #[test]
    fn a_store_that_goes_on_is_the_same() {
        assert_eq!(after(&[(7, 10, 0), (7, 10, 10), (7, 12, 10)]), (0, Revision(12)));
        // Answers to requests that were under way together come in any order.
        assert_eq!(after(&[(7, 10, 0), (7, 12, 10), (7, 11, 10)]), (0, Revision(12)));
    }

    #[test]
    fn another_cluster_and_one_that_went_back_are_noticed_once() {
        assert_eq!(after(&[(7, 10, 0), (8, 15, 10), (8, 16, 15)]), (1, Revision(16)));
        assert_eq!(after(&[(7, 10, 0), (7, 4, 10), (7, 5, 4)]), (1, Revision(5)));
        assert_eq!(after(&[(7, 10, 0), (7, 4, 10), (7, 4, 10)]), (1, Revision(4)));
        assert_eq!(
            after(&[(7, 10, 0), (8, 4, 10), (8, 4, 10), (9, 4, 4)]),
            (2, Revision(4))
        );
    }

    #[test]
    fn a_store_counts_as_another_until_that_is_known() {
        let history = History::default();
        assert!(history.is_accepted());
        history.lock().hear(7, Revision(1), Revision(0));
        history.lock().hear(8, Revision(1), Revision(1));
        assert!(!history.is_accepted());
        history.accept(1);
        assert!(history.is_accepted());
    }
}
