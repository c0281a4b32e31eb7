//! A lock that somebody else holds.

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use buoy_core::store::{FailureKind, Prefix, Reply, Revision, StoreOp};
use buoy_datastore::sqlite::{Options, Sqlite};
use buoy_datastore::{Datastore, WatchError};
use rusqlite::Connection;

use super::writer::Writer;
use crate::tools::{create, get, key, list, number, value};

fn hasty(milliseconds: u64) -> Options {
    Options {
        busy_timeout: Duration::from_millis(milliseconds),
        ..Options::default()
    }
}

/// A store on a new file that somebody else has to himself. Before there are tables the lock keeps out readers, too.
fn opened_under_a_lock(dir: &Path) -> (Sqlite, Connection) {
    let path = dir.join("buoy.db");
    let raw = Connection::open(&path).unwrap();
    raw.execute_batch("BEGIN EXCLUSIVE").unwrap();
    (Sqlite::open(&path, hasty(50)).unwrap(), raw)
}

#[test]
fn writers_give_up_after_the_time_out_readers_do_not_wait_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("buoy.db");
    let options = hasty(200);
    let store = Sqlite::open(&path, options.clone()).unwrap();
    create(&store, "a", 1);
    let mut holder = Writer::start(&path, "lock");
    holder.report().unwrap();

    let begun = Instant::now();
    let op = StoreOp::Create(key("b"), value("b", 2));
    match store.run(&op) {
        Reply::Failed(error) => {
            assert_eq!(error.kind, FailureKind::Unavailable);
            assert!(error.message.contains(&path.display().to_string()), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(
        begun.elapsed() >= Duration::from_millis(200),
        "too little patience"
    );
    assert_eq!(number(&get(&store, &key("a")).unwrap()), 1);
    assert_eq!(list(&store, Prefix::Reservations).0.len(), 1);
    let another = Sqlite::open(&path, options).expect("a store can be opened under a lock");
    assert!(get(&another, &key("a")).is_some());

    // Many callers at once, each trying again as told: all of it is written once.
    let all_were_refused = Barrier::new(9);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (store, all_were_refused) = (&store, &all_were_refused);
            scope.spawn(move || {
                let name = format!("c{number}");
                let op = StoreOp::Create(key(&name), value(&name, number));
                assert!(is_refused_for_now(&store.run(&op)));
                all_were_refused.wait();
                while is_refused_for_now(&store.run(&op)) {}
            });
        }
        all_were_refused.wait();
        assert_eq!(list(&store, Prefix::Reservations).0.len(), 1);
        holder.finish();
    });
    assert_eq!(list(&store, Prefix::Reservations).0.len(), 9);
}

#[test]
fn a_store_that_is_locked_when_it_is_opened_is_made_by_what_comes_next() {
    let dir = tempfile::tempdir().unwrap();
    let (store, raw) = opened_under_a_lock(dir.path());
    assert!(is_refused_for_now(&store.run(&StoreOp::Get(key("a")))));
    assert!(is_refused_for_now(
        &store.run(&StoreOp::Create(key("a"), value("a", 1)))
    ));
    match store.watch(&[(Prefix::Reservations, Revision::default())]) {
        Err(WatchError::Store(error)) => assert!(error.is_retryable(), "{error}"),
        other => panic!("{other:?}"),
    }
    raw.execute_batch("ROLLBACK").unwrap();
    let mut watch = store
        .watch(&[(Prefix::Reservations, Revision::default())])
        .unwrap();
    create(&store, "a", 1);
    assert_eq!(number(&get(&store, &key("a")).unwrap()), 1);
    assert_eq!(watch.next(Duration::from_secs(10)).unwrap().len(), 1);
}

#[test]
fn a_locked_file_that_turns_out_to_be_somebody_else_s_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, raw) = opened_under_a_lock(dir.path());
    raw.execute_batch("CREATE TABLE theirs (a); COMMIT").unwrap();
    for op in [
        StoreOp::List(Prefix::Reservations),
        StoreOp::Create(key("a"), value("a", 1)),
    ] {
        match store.run(&op) {
            Reply::Failed(error) => assert_eq!(error.kind, FailureKind::Invalid, "{error}"),
            other => panic!("{other:?}"),
        }
    }
}

fn is_refused_for_now(reply: &Reply) -> bool {
    match reply {
        Reply::Failed(error) => {
            assert!(error.is_retryable(), "{error}");
            true
        }
        Reply::Written(_) | Reply::Record(_) => false,
        other => panic!("{other:?}"),
    }
}
