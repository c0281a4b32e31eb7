//! Stores that say what no test can make a real one say.

use std::sync::Mutex;

use buoy_api::ObjectMeta;
use buoy_api::v3::{IpReservation, IpReservationSpec};
use buoy_core::store::{Reply, StoreOp, Value};

use super::*;
use crate::Watch;

/// Lists one record, at these revisions of it and of the store; there is no watching it.
#[derive(Debug)]
struct Scripted {
    lists: Mutex<Vec<(u64, u64)>>,
    watches: Mutex<u32>,
}

impl Scripted {
    fn of(lists: &[(u64, u64)]) -> Self {
        Self {
            lists: Mutex::new(lists.iter().rev().copied().collect()),
            watches: Mutex::new(0),
        }
    }
}

impl Datastore for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }

    fn run(&self, _: &StoreOp) -> Reply {
        let mut lists = self.lists.lock().unwrap();
        let (revision, at) = if lists.len() > 1 {
            lists.pop().unwrap()
        } else {
            lists[0]
        };
        let value = IpReservation::new(ObjectMeta::named("a"), IpReservationSpec::default());
        let record = Record {
            key: Key::Reservation("a".to_owned()),
            revision: Revision(revision),
            value: Ok(Value::Reservation(value)),
        };
        Reply::List(vec![record], Revision(at))
    }

    fn watch(&self, _: &[(Prefix, Revision)]) -> Result<Box<dyn Watch>, WatchError> {
        *self.watches.lock().unwrap() += 1;
        Err(WatchError::Compacted)
    }
}

/// Deltas, and restores as `None`, until so many came.
fn told(store: &Scripted, count: usize) -> Vec<Option<Revision>> {
    let mut told = Vec::new();
    let stop = AtomicBool::new(false);
    follow(store, &[Prefix::Reservations], &stop, &mut |feed| {
        match feed {
            Feed::Delta(delta) => told.push(Some(delta.revision)),
            Feed::Restored => told.push(None),
            other => panic!("{other:?}"),
        }
        if told.len() < count {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    told
}

#[test]
fn a_record_that_is_older_than_it_was_comes_from_a_copy() {
    let at = |revision| Some(Revision(revision));
    // The store itself has come as far meanwhile.
    let restored = Scripted::of(&[(5, 10), (3, 12)]);
    assert_eq!(told(&restored, 3), [at(5), None, at(3)]);
    let same = Scripted::of(&[(5, 10), (5, 12), (6, 12)]);
    assert_eq!(told(&same, 2), [at(5), at(6)]);
}

#[test]
fn a_list_that_is_too_old_at_once_is_not_asked_for_without_a_pause() {
    let store = Scripted::of(&[(5, 10)]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            follow(&store, &[Prefix::Reservations], &stop, &mut |_| {
                ControlFlow::Continue(())
            });
        });
        std::thread::sleep(Duration::from_millis(600));
        stop.store(true, Ordering::Relaxed);
    });
    let watches = *store.watches.lock().unwrap();
    assert!((2..10).contains(&watches), "{watches} in 0.6 s");
}

#[test]
fn pauses_differ_and_are_never_far_from_what_was_meant() {
    let pauses: std::collections::BTreeSet<_> = (0..100).map(|_| jittered(Duration::from_secs(4))).collect();
    assert!(pauses.len() > 10, "{pauses:?}");
    let meant = Duration::from_secs(3)..Duration::from_secs(5);
    assert!(pauses.iter().all(|pause| meant.contains(pause)), "{pauses:?}");
}
