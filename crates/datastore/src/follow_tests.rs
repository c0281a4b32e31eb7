//! Stores that say what no test can make a real one say.

use std::sync::Mutex;

use buoy_api::ObjectMeta;
use buoy_api::v3::{IpReservation, IpReservationSpec};
use buoy_core::store::{FailureKind, Reply, StoreOp, Value};

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

/// Fails, but for every fourth watch, which says once that there is nothing new.
#[derive(Debug, Default)]
struct Flaky {
    watches: Mutex<u32>,
}

#[derive(Debug)]
struct Brief(bool);

impl Watch for Brief {
    fn next(&mut self, _: Duration) -> Result<Vec<Event>, WatchError> {
        if std::mem::replace(&mut self.0, true) {
            return Err(WatchError::Store(away()));
        }
        Ok(Vec::new())
    }

    fn reached(&self) -> Vec<Revision> {
        vec![Revision(10)]
    }
}

fn away() -> StoreError {
    StoreError {
        kind: FailureKind::Unavailable,
        message: "flaky: away".to_owned(),
    }
}

impl Datastore for Flaky {
    fn name(&self) -> &str {
        "flaky"
    }

    fn run(&self, _: &StoreOp) -> Reply {
        Reply::List(Vec::new(), Revision(10))
    }

    fn watch(&self, _: &[(Prefix, Revision)]) -> Result<Box<dyn Watch>, WatchError> {
        let mut watches = self.watches.lock().unwrap();
        *watches += 1;
        if watches.is_multiple_of(4) {
            Ok(Box::new(Brief(false)))
        } else {
            Err(WatchError::Store(away()))
        }
    }
}

#[test]
fn a_follower_rests_longer_each_time_until_it_is_back() {
    let (store, stop, rests) = (Flaky::default(), AtomicBool::new(false), Mutex::new(Vec::new()));
    let rest = |pause: Duration| {
        let mut rests = rests.lock().unwrap();
        rests.push(pause);
        stop.store(rests.len() == 12, Ordering::Relaxed);
    };
    let sink = &mut |_| ControlFlow::Continue(());
    follow_resting(&store, &[Prefix::Reservations], &stop, sink, &rest);
    let rests = rests.into_inner().unwrap();
    // The fourth watch begins, and then fails.
    for (rest, meant) in rests
        .iter()
        .zip([100, 200, 400].into_iter().chain([100, 200, 400, 800].repeat(3)))
    {
        let meant = Duration::from_millis(meant);
        let around = meant * 3 / 4..=meant * 5 / 4;
        assert!(around.contains(rest), "{rests:?}");
    }
}
