//! Watches.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use buoy_api::ObjectMeta;
use buoy_api::v3::{BgpPeer, BgpPeerSpec};
use buoy_core::store::{Key, Prefix, Revision, StoreOp, Value};
use buoy_datastore::{Datastore, Event, Watch, WatchError};

use crate::tools::{Backend, create, delete, events_until, get, key, list, number, update, written};

const SHORT: Duration = Duration::from_millis(50);

pub(crate) fn a_watch_gives_what_its_interest_covers_in_order(backend: &dyn Backend) {
    let store = backend.open();
    create(&*store, "before", 0);
    let (_, from) = list(&*store, Prefix::Reservations);
    let mut watch = store
        .watch(&[(Prefix::Reservations, from), (Prefix::Bindings, from)])
        .unwrap();
    let mut elsewhere = store.watch(&[(Prefix::BgpPeers, from)]).unwrap();
    assert_eq!(watch.next(SHORT), Ok(Vec::new()));

    let created = create(&*store, "a", 1);
    let seen = get(&*store, &key("a")).unwrap();
    let updated = update(&*backend.open(), "a", 2, created);
    let seen_again = get(&*store, &key("a")).unwrap();
    delete(&*store, "a", updated);
    let last = create(&*store, "last", 3);
    let events = events_until(watch.as_mut(), last);
    let deleted = events[2].revision();
    assert!(updated < deleted && deleted < last);
    assert_eq!(
        events,
        [
            Event::Put(seen),
            Event::Put(seen_again),
            Event::Deleted(key("a"), deleted),
            Event::Put(get(&*store, &key("last")).unwrap()),
        ]
    );
    assert_eq!(watch.next(SHORT), Ok(Vec::new()));
    assert_eq!(elsewhere.next(SHORT), Ok(Vec::new()));
}

pub(crate) fn each_prefix_begins_where_it_is_known(backend: &dyn Backend) {
    let store = backend.open();
    let older = create(&*store, "a", 1);
    let peer = written(store.run(&StoreOp::Create(
        Key::BgpPeer("p1".into()),
        Value::BgpPeer(BgpPeer::new(ObjectMeta::named("p1"), BgpPeerSpec::default())),
    )));
    let newer = update(&*store, "a", 2, older);
    let begin = [(Prefix::BgpPeers, older), (Prefix::Reservations, newer)];
    let mut watch = store.watch(&begin).unwrap();
    assert_eq!(events_until(watch.as_mut(), peer).len(), 1, "the peer alone");
    let last = update(&*store, "a", 3, newer);
    let events = events_until(watch.as_mut(), last);
    assert_eq!(events, [Event::Put(get(&*store, &key("a")).unwrap())]);
    let reached = watch.reached();
    // A store with writers of its own may have said more meanwhile.
    assert!(reached[0] >= peer && reached[1] >= last, "{reached:?}");
    let mut resumed = store
        .watch(&[(Prefix::BgpPeers, reached[0]), (Prefix::Reservations, reached[1])])
        .unwrap();
    assert_eq!(resumed.next(SHORT), Ok(Vec::new()));
}

pub(crate) fn a_watch_resumes_anywhere_without_loss_or_repetition(backend: &dyn Backend) {
    const WRITES: u64 = 1000;
    let store = backend.open();
    let (_, mut from) = list(&*store, Prefix::Reservations);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let store = backend.open();
            let mut at = BTreeMap::new();
            for step in 0..WRITES {
                let name = format!("p{}", step % 10);
                let next = match at.get(&name) {
                    None => create(&*store, &name, step),
                    Some(old) => update(&*store, &name, step, *old),
                };
                at.insert(name, next);
            }
        });
        let mut numbers = Vec::new();
        while numbers.len() < WRITES as usize {
            let mut watch = store.watch(&[(Prefix::Reservations, from)]).unwrap();
            for _ in 0..RandomState::new().hash_one(from) % 5 {
                for event in watch.next(SHORT).unwrap() {
                    assert!(event.revision() > from);
                    from = event.revision();
                    if let Event::Put(record) = event {
                        numbers.push(number(&record));
                    }
                }
            }
        }
        writer.join().unwrap();
        assert!(numbers.into_iter().eq(0..WRITES));
    });
}

/// By the bell: without it, a watch looks once a second.
pub(crate) fn a_watch_wakes_at_once(backend: &dyn Backend) {
    const WRITES: u64 = 100;
    let store = backend.open();
    let (_, from) = list(&*store, Prefix::Reservations);
    let mut watch = store.watch(&[(Prefix::Reservations, from)]).unwrap();
    let (arrived, arrivals) = mpsc::channel();
    let mut delays: Vec<Duration> = std::thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..WRITES {
                let events = watch.next(Duration::from_secs(10)).unwrap();
                arrived.send((Instant::now(), events.len())).unwrap();
            }
        });
        let mut delays = Vec::new();
        for number in 0..WRITES {
            create(&*store, &format!("p{number}"), number);
            let answered = Instant::now();
            let (at, count) = arrivals.recv().unwrap();
            assert_eq!(count, 1);
            delays.push(at.saturating_duration_since(answered));
        }
        delays
    });
    delays.sort();
    let half = delays[delays.len() / 2];
    assert!(half < Duration::from_millis(500), "{half:?}");
}

pub(crate) fn a_quiet_watch_tells_how_far_it_is(backend: &dyn Backend) {
    let store = backend.open();
    let (_, from) = list(&*store, Prefix::BgpPeers);
    let mut watch = store.watch(&[(Prefix::BgpPeers, from)]).unwrap();
    for number in 0..3 {
        create(&*store, &format!("p{number}"), number);
    }
    let (_, last) = list(&*store, Prefix::BgpPeers);
    let deadline = Instant::now() + backend.heartbeat();
    while watch.reached()[0] < last {
        assert!(
            Instant::now() < deadline,
            "still at {:?}, not {last}",
            watch.reached()
        );
        assert_eq!(watch.next(SHORT), Ok(Vec::new()));
    }
}

pub(crate) fn a_slow_watcher_gets_everything_in_bounded_bites(backend: &dyn Backend) {
    const WRITES: usize = 5000;
    let store = backend.open();
    let (_, from) = list(&*store, Prefix::Reservations);
    let mut watch = store.watch(&[(Prefix::Reservations, from)]).unwrap();
    let mut at = create(&*store, "p", 0);
    for number in 1..WRITES as u64 {
        at = update(&*store, "p", number, at);
    }
    let mut numbers = Vec::new();
    while numbers.len() < WRITES {
        let events = watch.next(Duration::from_secs(10)).unwrap();
        assert!((1..=1000).contains(&events.len()), "{} at a time", events.len());
        for event in &events {
            if let Event::Put(record) = event {
                numbers.push(number(record));
            }
        }
    }
    assert!(numbers.into_iter().eq(0..WRITES as u64));
}

pub(crate) fn a_watch_from_before_the_compaction_is_told_so(backend: &dyn Backend) {
    let store = backend.open();
    let first = create(&*store, "a", 1);
    let second = create(&*store, "b", 2);
    let mut running = store.watch(&[(Prefix::Reservations, first)]).unwrap();
    let last = create(&*store, "c", 3);
    backend.compact();
    // What was on its way comes still. Then it is told so, or loses the server that remembered.
    let mut revisions = Vec::new();
    while revisions.len() < 2 {
        match running.next(Duration::from_secs(10)) {
            Ok(events) => revisions.extend(events.iter().map(Event::revision)),
            Err(WatchError::Compacted | WatchError::Store(_)) => break,
        }
    }
    assert!([second, last].starts_with(&revisions), "{revisions:?}");
    assert_eq!(begin(&*store, first), Err(WatchError::Compacted));

    let (_, from) = list(&*store, Prefix::Reservations);
    let mut after = store.watch(&[(Prefix::Reservations, from)]).unwrap();
    let newest = create(&*store, "d", 4);
    assert_eq!(events_until(after.as_mut(), newest).len(), 1);
}

pub(crate) fn a_watch_from_the_future_is_told_so(backend: &dyn Backend) {
    let store = backend.open();
    let last = create(&*store, "a", 1);
    assert_eq!(begin(&*store, Revision(last.0 + 1)), Err(WatchError::Compacted));
}

/// Whether a watch begins, or ends at its first step.
fn begin(store: &dyn Datastore, from: Revision) -> Result<Vec<Event>, WatchError> {
    let mut watch: Box<dyn Watch> = store.watch(&[(Prefix::Reservations, from)])?;
    watch.next(Duration::from_secs(10))
}
