//! Pods that were seen to have no endpoint. Whoever reads that there is none creates one next: the pod need not be read a
//! second time for that.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use buoy_api::meta::Extra;
use buoy_core::store::Key;

/// Most that are kept: as many ADDs as are under way at a time.
const MOST: usize = 16;

/// Objects by the key of the record that they do not have.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<BTreeMap<Key, Extra>>);

impl Seen {
    /// Keeps the object that was found in the place of a record.
    pub(super) fn note(&self, key: &Key, object: Extra) {
        let mut seen = self.lock();
        if seen.len() >= MOST {
            // Nobody came for these.
            seen.clear();
        }
        seen.insert(key.clone(), object);
    }

    /// The object, once: what is written changes it.
    pub(super) fn take(&self, key: &Key) -> Option<Extra> {
        self.lock().remove(key)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Extra>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_kept_for_one_write_and_few_are_kept() {
        let seen = Seen::default();
        let key = |number: usize| Key::Handle(number.to_string());
        seen.note(&key(0), Extra::new());
        assert!(seen.take(&key(0)).is_some());
        assert!(seen.take(&key(0)).is_none());
        for number in 0..100 {
            seen.note(&key(number), Extra::new());
        }
        assert!(seen.lock().len() <= MOST);
        assert!(seen.take(&key(99)).is_some());
    }
}
