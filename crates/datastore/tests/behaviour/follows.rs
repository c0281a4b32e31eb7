//! Following a store, whatever happens to it.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use buoy_core::store::{Delta, FailureKind, Key, Prefix, Reply, Revision, StoreError, StoreOp};
use buoy_datastore::{Datastore, Event, Feed, Watch, WatchError, follow};

use crate::tools::{Backend, create, delete, get, key, list, update};

const PATIENCE: Duration = Duration::from_secs(30);
const INTEREST: [Prefix; 2] = [Prefix::BgpPeers, Prefix::Reservations];

/// A key, and whether it is (still) there.
pub(crate) type Change = (Key, bool);

/// A follower on a thread of its own, until this is dropped.
pub(crate) struct Following {
    feed: mpsc::Receiver<Feed>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Following {
    pub(crate) fn begin(store: Arc<dyn Datastore>) -> Self {
        let (sender, feed) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            follow(&*store, &INTEREST, &seen, &mut |feed| match sender.send(feed) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            });
        });
        Self {
            feed,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn next(&self) -> Feed {
        self.feed.recv_timeout(PATIENCE).expect("nothing comes")
    }

    /// What comes before contact is (again) complete: what changed, and failures.
    pub(crate) fn until_synced(&self) -> (Vec<Change>, Vec<StoreError>) {
        let (mut changes, mut errors) = (Vec::new(), Vec::new());
        loop {
            match self.next() {
                Feed::Delta(delta) => changes.push(change(delta)),
                Feed::Lost(error) => errors.push(error),
                Feed::Restored => panic!("it is the same store"),
                Feed::Synced(_) => return (changes, errors),
            }
        }
    }

    fn delta(&self) -> Delta {
        match self.next() {
            Feed::Delta(delta) => delta,
            other => panic!("{other:?}"),
        }
    }

    /// Tells it to stop, and waits until it has.
    fn stops(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        let thread = self.thread.take().unwrap();
        while !thread.is_finished() {
            assert!(begun.elapsed() < PATIENCE, "it goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
        thread.join().unwrap();
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let joined = thread.join();
            assert!(std::thread::panicking() || joined.is_ok());
        }
    }
}

pub(crate) fn a_follower_gets_everything_and_then_every_change(backend: &dyn Backend) {
    let store = backend.open();
    create(&*store, "a", 1);
    let b = create(&*store, "b", 2);
    let following = Following::begin(backend.open());
    assert_eq!(following.until_synced().0, [(key("a"), true), (key("b"), true)]);
    let revision = update(&*store, "b", 3, b);
    let record = get(&*store, &key("b")).unwrap();
    let expected = Delta {
        key: key("b"),
        revision,
        value: Some(record.value),
    };
    assert_eq!(following.delta(), expected);
    delete(&*store, "b", revision);
    let gone = following.delta();
    assert_eq!((gone.key, gone.value), (key("b"), None));
    assert!(gone.revision > revision);
}

/// A store that fails when told to, as if it were out of reach, or pretends that its past is gone.
#[derive(Debug)]
struct Flaky {
    inner: Arc<dyn Datastore>,
    away: Arc<AtomicBool>,
    compacted: Arc<AtomicBool>,
}

impl Flaky {
    fn over(inner: Arc<dyn Datastore>) -> Self {
        Self {
            inner,
            away: Arc::default(),
            compacted: Arc::default(),
        }
    }
}

fn out_of_reach() -> StoreError {
    StoreError {
        kind: FailureKind::Unavailable,
        message: "out of reach".to_owned(),
    }
}

impl Datastore for Flaky {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn run(&self, op: &StoreOp) -> Reply {
        if self.away.load(Ordering::SeqCst) {
            return Reply::Failed(out_of_reach());
        }
        self.inner.run(op)
    }

    fn watch(&self, interest: &[(Prefix, Revision)]) -> Result<Box<dyn Watch>, WatchError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(out_of_reach().into());
        }
        if self.compacted.swap(false, Ordering::SeqCst) {
            return Err(WatchError::Compacted);
        }
        Ok(Box::new(FlakyWatch {
            inner: self.inner.watch(interest)?,
            away: Arc::clone(&self.away),
        }))
    }
}

#[derive(Debug)]
struct FlakyWatch {
    inner: Box<dyn Watch>,
    away: Arc<AtomicBool>,
}

impl Watch for FlakyWatch {
    fn next(&mut self, timeout: Duration) -> Result<Vec<Event>, WatchError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(out_of_reach().into());
        }
        self.inner.next(timeout.min(Duration::from_millis(20)))
    }

    fn reached(&self) -> Vec<Revision> {
        self.inner.reached()
    }
}

/// What changes while nobody looks: `a` stays, `b` is updated, `c` is deleted, `d` made again, `e` new.
fn change_behind_the_back(store: &dyn Datastore) -> Vec<Change> {
    let at = |name: &str| get(store, &key(name)).unwrap().revision;
    update(store, "b", 20, at("b"));
    delete(store, "c", at("c"));
    delete(store, "d", at("d"));
    create(store, "d", 40);
    create(store, "e", 5);
    vec![
        (key("b"), true),
        (key("c"), false),
        (key("d"), true),
        (key("e"), true),
    ]
}

/// A follower, and a switch that takes the store away from it.
fn begin_flaky(backend: &dyn Backend) -> (Following, Arc<AtomicBool>, Arc<AtomicBool>) {
    let store = backend.open();
    for (number, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        create(&*store, name, number as u64);
    }
    let flaky = Flaky::over(backend.open());
    let (away, compacted) = (Arc::clone(&flaky.away), Arc::clone(&flaky.compacted));
    let following = Following::begin(Arc::new(flaky));
    assert_eq!(following.until_synced().0.len(), 4);
    (following, away, compacted)
}

/// Takes the store away, changes it behind the follower's back, and gives it back.
fn lose_and_find(backend: &dyn Backend, following: &Following, away: &AtomicBool) -> Vec<Change> {
    away.store(true, Ordering::SeqCst);
    assert_eq!(following.next(), Feed::Lost(out_of_reach()));
    let expected = change_behind_the_back(&*backend.open());
    std::thread::sleep(Duration::from_millis(300));
    expected
}

fn change(delta: Delta) -> Change {
    (delta.key, delta.value.is_some())
}

pub(crate) fn after_a_compaction_only_the_difference_comes(backend: &dyn Backend) {
    let (following, away, compacted) = begin_flaky(backend);
    let expected = lose_and_find(backend, &following, &away);
    backend.compact();
    compacted.store(true, Ordering::SeqCst);
    away.store(false, Ordering::SeqCst);
    let (mut changes, _) = following.until_synced();
    changes.sort();
    assert_eq!(changes, expected);
    let newest = create(&*backend.open(), "z", 26);
    assert_eq!(following.delta().revision, newest, "nothing else came in between");
}

pub(crate) fn a_store_that_fails_takes_nothing_back(backend: &dyn Backend) {
    let (following, away, _) = begin_flaky(backend);
    lose_and_find(backend, &following, &away);
    away.store(false, Ordering::SeqCst);
    let (listed, errors) = following.until_synced();
    assert!(errors.iter().all(|error| *error == out_of_reach()));
    assert_eq!(listed, [], "there is no need to list again");
    // The change log still has every step.
    let changes: Vec<Change> = (0..5).map(|_| change(following.delta())).collect();
    let expected = [
        (key("b"), true),
        (key("c"), false),
        (key("d"), false),
        (key("d"), true),
        (key("e"), true),
    ];
    assert_eq!(changes, expected);
    let newest = create(&*backend.open(), "z", 26);
    assert_eq!(following.delta().revision, newest, "nothing else came in between");
}

pub(crate) fn a_follower_stops_when_told(backend: &dyn Backend) {
    let store = backend.open();
    let (_, from) = list(&*store, Prefix::Reservations);
    let following = Following::begin(Arc::clone(&store));
    assert!(matches!(following.next(), Feed::Synced(at) if at >= from));
    following.stops();

    let flaky = Flaky::over(store);
    flaky.away.store(true, Ordering::SeqCst);
    let following = Following::begin(Arc::new(flaky));
    assert_eq!(following.next(), Feed::Lost(out_of_reach()));
    following.stops();
}
