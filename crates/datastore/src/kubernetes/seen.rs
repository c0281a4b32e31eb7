//! Pods that were seen to have no endpoint, in an answer or by a watch. Whoever creates an endpoint next writes it into the
//! pod of that revision, which need not be read once more.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use buoy_core::store::{Key, Revision};

use crate::codec::objects::Found;

/// Most that are kept: more than a node has pods.
const MOST: usize = 1024;

/// Revisions of objects by the key of the record that they do not have.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<BTreeMap<Key, Revision>>);

impl Seen {
    /// Takes in what an object stands for. What is older than what is known says nothing.
    pub(super) fn note(&self, found: &Found) {
        let Found { key, revision, value } = found;
        if !matches!(key, Key::Endpoint { .. }) {
            return;
        }
        let mut seen = self.lock();
        if seen.get(key).is_some_and(|known| known > revision) {
            return;
        }
        if value.is_some() {
            seen.remove(key);
            return;
        }
        if seen.len() >= MOST {
            // Nobody came for these.
            seen.clear();
        }
        seen.insert(key.clone(), *revision);
    }

    /// The object's revision, once: what is written changes it.
    pub(super) fn take(&self, key: &Key) -> Option<Revision> {
        self.lock().remove(key)
    }

    /// Forgets all: revisions mean something else from now on.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Revision>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use buoy_core::store::Bad;

    use super::*;

    fn key(number: usize) -> Key {
        Key::Endpoint {
            namespace: "default".to_owned(),
            name: format!("n1-k8s-web{number}-eth0"),
        }
    }

    fn without(number: usize, revision: u64) -> Found {
        Found {
            key: key(number),
            revision: Revision(revision),
            value: None,
        }
    }

    fn with(number: usize, revision: u64) -> Found {
        let bad = Bad {
            reason: "of no interest here".to_owned(),
        };
        Found {
            value: Some(Err(bad)),
            ..without(number, revision)
        }
    }

    #[test]
    fn an_object_is_good_for_one_write_and_few_are_kept() {
        let seen = Seen::default();
        seen.note(&without(0, 1));
        assert_eq!(seen.take(&key(0)), Some(Revision(1)));
        assert_eq!(seen.take(&key(0)), None);
        for number in 0..3 * MOST {
            seen.note(&without(number, 1));
        }
        assert!(seen.lock().len() <= MOST);
        assert!(seen.take(&key(3 * MOST - 1)).is_some());
    }

    #[test]
    fn the_newest_says_whether_there_is_an_endpoint() {
        let seen = Seen::default();
        seen.note(&without(0, 5));
        seen.note(&without(0, 4));
        assert_eq!(seen.take(&key(0)), Some(Revision(5)));
        seen.note(&without(0, 5));
        seen.note(&with(0, 6));
        assert_eq!(seen.take(&key(0)), None, "it has one now");
        let node = Found {
            key: Key::Node("n1".to_owned()),
            ..without(0, 7)
        };
        seen.note(&node);
        seen.note(&without(1, 7));
        seen.clear();
        assert_eq!((seen.take(&node.key), seen.take(&key(1))), (None, None));
    }
}
