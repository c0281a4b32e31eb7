//! Several processes on one file, and their deaths.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use buoy_core::store::{Prefix, Revision};
use buoy_datastore::sqlite::{Options, Sqlite};
use buoy_datastore::{Datastore, Event, Watch};

use super::writer::{Writer, nanoseconds};
use crate::tools::{create, events_until, get, key, list, number};

fn open(path: &Path) -> Sqlite {
    let options = Options {
        keep: 1_000_000,
        ..Options::default()
    };
    Sqlite::open(path, options).unwrap()
}

#[test]
fn two_processes_lose_no_step_of_one_counter() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("buoy.db");
    let store = open(&path);
    create(&store, "counter", 0);
    let writers = [1, 2].map(|_| Writer::start(&path, "count 1500"));
    for writer in writers {
        writer.finish();
    }
    assert_eq!(number(&get(&store, &key("counter")).unwrap()), 3000);
}

#[test]
fn a_new_store_that_many_open_at_once_is_one_store() {
    for _ in 0..60 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("buoy.db");
        let start = Barrier::new(4);
        std::thread::scope(|scope| {
            for number in 0..4 {
                let (path, start) = (&path, &start);
                scope.spawn(move || {
                    start.wait();
                    create(&open(path), &format!("p{number}"), number);
                });
            }
        });
        let (records, revision) = list(&open(&path), Prefix::Reservations);
        assert_eq!((records.len(), revision), (4, Revision(4)));
    }
}

/// Reads until nothing comes for a while.
fn drain(watch: &mut dyn Watch) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let next = watch.next(Duration::from_millis(1)).unwrap();
        if next.is_empty() {
            return events;
        }
        events.extend(next);
    }
}

/// What a writer reported: number of a write → revision.
fn reports(writer: &mut Writer) -> BTreeMap<u64, u64> {
    std::iter::from_fn(|| writer.report())
        .map(|words| (words[0], words[1]))
        .collect()
}

#[test]
fn killed_writers_leave_everything_they_were_told_is_written() {
    const ROUNDS: u64 = 25;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("buoy.db");
    let store = open(&path);
    let mut watch = store.watch(&[(Prefix::Reservations, Revision(0))]).unwrap();
    let mut answered = 0;
    let mut seen = 0;
    for round in 0..ROUNDS {
        let names = ["a", "b"].map(|name| format!("{name}{round}"));
        let mut writers = names
            .each_ref()
            .map(|name| Writer::start(&path, &format!("endless {name}")));
        // Both at work; then death at any moment.
        let first = writers.each_mut().map(|writer| writer.report().unwrap());
        let life = RandomState::new().hash_one(round) % 20_000;
        std::thread::sleep(Duration::from_micros(life));
        writers.iter_mut().for_each(Writer::kill);

        let (_, last) = list(&store, Prefix::Reservations);
        let mut history = BTreeMap::new();
        for event in events_until(watch.as_mut(), last) {
            seen += 1;
            assert_eq!(event.revision(), Revision(seen), "one event for each revision");
            if let Event::Put(record) = event {
                history.insert((record.key.clone(), number(&record)), record.revision.0);
            }
        }
        assert_eq!(seen, last.0);

        for ((name, writer), first) in names.iter().zip(&mut writers).zip(first) {
            let mut told = reports(writer);
            told.insert(first[0], first[1]);
            let (newest, revision) = told.last_key_value().unwrap();
            let record = get(&store, &key(name)).unwrap();
            // The last write may be there without its answer, but not two of them.
            assert!(number(&record) == *newest || number(&record) == newest + 1);
            assert!(record.revision.0 >= *revision);
            for (write, revision) in &told {
                assert_eq!(
                    history.get(&(key(name), *write)),
                    Some(revision),
                    "{name} {write}"
                );
            }
            answered += told.len();
        }
    }
    println!(
        "{answered} answered writes of {} killed writers, {seen} revisions",
        2 * ROUNDS
    );
    assert!(answered as u64 > 2 * ROUNDS);
    assert_eq!(integrity(&path), "ok");
    assert!(drain(watch.as_mut()).is_empty());
}

pub(super) fn integrity(path: &Path) -> String {
    let raw = rusqlite::Connection::open(path).unwrap();
    raw.query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap()
}

#[test]
fn a_commit_whose_writer_never_rang_is_seen_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("buoy.db");
    let store = open(&path);
    create(&store, "a", 1);
    let mut watch = store.watch(&[(Prefix::Reservations, Revision(1))]).unwrap();
    let committer = std::thread::spawn(move || {
        let raw = rusqlite::Connection::open(&path).unwrap();
        // The watch waits by now.
        std::thread::sleep(Duration::from_millis(100));
        raw.execute_batch(
            "BEGIN IMMEDIATE; INSERT INTO log SELECT 2, key, value FROM log; DELETE FROM kv; COMMIT",
        )
        .unwrap();
        Instant::now()
    });
    let events = watch.next(Duration::from_secs(60)).unwrap();
    let late = committer.join().unwrap().elapsed();
    assert_eq!(events.len(), 1);
    // Not at the end of the wait: the watch looks every second.
    assert!(late < Duration::from_secs(30), "{late:?}");
}

/// By the bell: without it, a watch looks once a second.
#[test]
fn a_watch_wakes_for_another_process() {
    const WRITES: usize = 100;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("buoy.db");
    let store = open(&path);
    let mut watch = store.watch(&[(Prefix::Reservations, Revision(0))]).unwrap();
    let mut writer = Writer::start(&path, &format!("paced {WRITES}"));
    let mut delays = Vec::new();
    while delays.len() < WRITES {
        let events = watch.next(Duration::from_secs(60)).unwrap();
        let now = nanoseconds();
        for event in events {
            let words = writer.report().unwrap();
            assert_eq!(event.revision().0, words[0]);
            delays.push(Duration::from_nanos(now.saturating_sub(words[1])));
        }
    }
    writer.finish();
    delays.sort();
    assert!(delays[WRITES / 2] < Duration::from_millis(500), "{delays:?}");
}

#[test]
fn the_log_keeps_what_it_promises_and_little_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("buoy.db");
    let options = Options {
        keep: 100,
        ..Options::default()
    };
    let store = Sqlite::open(&path, options).unwrap();
    for number in 0..1000 {
        create(&store, &format!("p{number}"), number);
    }
    assert!(store.watch(&[(Prefix::Reservations, Revision(900))]).is_ok());
    assert!(
        store
            .watch(&[(Prefix::Reservations, Revision(800))])
            .is_err_and(|error| error.is_compacted())
    );
    assert_eq!(list(&store, Prefix::Reservations).0.len(), 1000);
}
