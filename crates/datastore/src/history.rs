//! Whether a store is the one that it was: answers say of which cluster they are, and how far that has come.

use std::sync::{Mutex, MutexGuard, PoisonError};

use buoy_core::store::Revision;

use serde::{Deserialize, Serialize};

use crate::cause::Cause;

/// The store is another than the one that was read.
pub(crate) fn replaced() -> Cause {
    Cause::unavailable(
        "it was restored from a copy",
        "nothing is written before everything is read again",
    )
}

/// A store at some time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Of which cluster its answers were, if they say so.
    pub cluster: Option<String>,
    /// How far it had come.
    pub revision: u64,
}

/// What the answers of a store said so far.
#[derive(Debug, Default)]
pub struct History(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Of which cluster the answers are; `None` before the first that said it.
    cluster: Option<String>,
    /// How far it has come.
    revision: Revision,
    /// How often it was another, or had gone back.
    replaced: u64,
    /// How many of these times are known to whoever follows.
    accepted: u64,
}

impl History {
    /// Where the store is, as far as is known when a request begins.
    pub(crate) fn begin(&self) -> Revision {
        self.lock().revision
    }

    /// Takes in an answer to a request that began there. What the quorum says is never older.
    pub(crate) fn heard(&self, cluster: Option<&str>, at: Revision, began: Revision) {
        self.lock().hear(cluster, at, began);
    }

    /// Takes in that the store has come this far, from somebody who cannot tell whether it went back.
    pub(crate) fn came_to(&self, at: Revision) {
        self.heard(None, at, Revision(0));
    }

    /// The store is at this revision, and surely not what it was.
    pub(crate) fn went_back(&self, at: Revision) {
        self.lock().replace(at);
    }

    /// How often the store was another than before.
    pub(crate) fn replaced(&self) -> u64 {
        self.lock().replaced
    }

    /// Whoever follows it knows of so many times.
    pub(crate) fn accept(&self, replaced: u64) {
        let mut known = self.lock();
        known.accepted = known.accepted.max(replaced);
    }

    /// Whether it is known to be the store that it was.
    pub(crate) fn is_accepted(&self) -> bool {
        let known = self.lock();
        known.accepted == known.replaced
    }

    /// What the next process should know; nothing while it is not known to be the store that it was.
    pub(crate) fn mark(&self) -> Option<Mark> {
        let known = self.lock();
        let is_known = known.accepted == known.replaced && known.revision > Revision(0);
        is_known.then(|| Mark {
            cluster: known.cluster.clone(),
            revision: known.revision.0,
        })
    }

    /// What an earlier process knew. Whatever was heard since is compared with it by the next answer.
    pub(crate) fn recall(&self, mark: &Mark) {
        let mut known = self.lock();
        known.cluster.clone_from(&mark.cluster);
        known.revision = Revision(mark.revision);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn hear(&mut self, cluster: Option<&str>, at: Revision, began: Revision) {
        let known = self.cluster.as_deref();
        let is_another = cluster.is_some() && known.is_some() && known != cluster;
        // An answer that was under way while the cluster went back is of the time before.
        let has_gone_back = at < began && began <= self.revision;
        if is_another || has_gone_back {
            self.replace(at);
        }
        if is_another || self.cluster.is_none() {
            self.cluster = cluster.map(str::to_owned);
        }
        self.revision = self.revision.max(at);
    }

    fn replace(&mut self, at: Revision) {
        self.replaced += 1;
        self.revision = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(answers: &[(u64, u64, u64)]) -> (u64, Revision) {
        let history = History::default();
        for (cluster, at, began) in answers {
            history.heard(Some(&cluster.to_string()), Revision(*at), Revision(*began));
        }
        (history.replaced(), history.begin())
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
        history.heard(Some("a"), Revision(1), Revision(0));
        history.heard(Some("b"), Revision(1), Revision(1));
        assert!(!history.is_accepted());
        history.accept(1);
        assert!(history.is_accepted());
    }

    #[test]
    fn what_an_earlier_process_knew_counts() {
        let mark = |cluster: Option<&str>, revision| Mark {
            cluster: cluster.map(str::to_owned),
            revision,
        };
        for (known, is_another) in [
            (mark(Some("a"), 9), false),
            (mark(Some("a"), 10), false),
            (mark(None, 9), false),
            (mark(Some("a"), 11), true),
            (mark(Some("b"), 9), true),
            (mark(None, 11), true),
        ] {
            let history = History::default();
            history.recall(&known);
            history.heard(Some("a"), Revision(10), history.begin());
            assert_eq!(history.replaced() == 1, is_another, "{known:?}");
            let later = (!is_another).then(|| mark(Some("a"), 10));
            assert_eq!(history.mark(), later, "not before it is accepted");
            history.accept(history.replaced());
            assert_eq!(history.mark(), Some(mark(Some("a"), 10)));
        }
        assert_eq!(History::default().mark(), None);
    }

    #[test]
    fn what_does_not_say_its_cluster_is_of_the_same() {
        let history = History::default();
        history.heard(Some("a"), Revision(5), Revision(0));
        history.heard(None, Revision(7), Revision(5));
        history.came_to(Revision(6));
        assert_eq!((history.replaced(), history.begin()), (0, Revision(7)));
        history.heard(Some("b"), Revision(8), Revision(7));
        assert_eq!(history.replaced(), 1);
        history.went_back(Revision(8));
        assert_eq!((history.replaced(), history.begin()), (2, Revision(8)));
    }
}
