//! A store that was restored from a copy.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use buoy_core::store::{FailureKind, Key, Prefix, Reply, Revision, StoreOp};
use buoy_datastore::{Datastore, Feed, Mark};

use crate::follows::Following;
use crate::server::Server;
use crate::tools::{create, delete, key, list, update, value};

const PATIENCE: Duration = Duration::from_secs(30);

/// A server that can be put back to what it was.
pub(crate) trait Restorable {
    /// One more client of it.
    fn store(&self) -> Arc<dyn Datastore>;
}

impl Restorable for Server {
    fn store(&self) -> Arc<dyn Datastore> {
        Self::store(self)
    }
}

/// Three records, a copy, changes of all kinds. The copy, and the revision of the last change.
fn before<S: Restorable>(server: &mut S, copy: impl FnOnce(&mut S) -> PathBuf) -> (PathBuf, Revision) {
    let store = server.store();
    let a = create(&*store, "a", 1);
    let b = create(&*store, "b", 1);
    create(&*store, "same", 1);
    let copy = copy(server);
    let store = server.store();
    update(&*store, "a", 2, a);
    delete(&*store, "b", b);
    (copy, create(&*store, "c", 1))
}

/// What a follower hands on once the store is another: first that it is, then all that is and what is gone.
pub(crate) fn told(following: &Following) -> Vec<(Key, bool)> {
    let deadline = Instant::now() + PATIENCE;
    while following.next() != Feed::Restored {
        assert!(Instant::now() < deadline, "nobody says that it is another");
    }
    let (mut changes, _) = following.until_synced();
    // Some listed while it was there, some did not.
    changes.retain(|(changed, _)| *changed != key("busy"));
    changes.sort();
    changes
}

pub(crate) fn everything() -> Vec<(Key, bool)> {
    vec![
        (key("a"), true),
        (key("b"), true),
        (key("c"), false),
        (key("same"), true),
    ]
}

/// A client that has written before, and does not know yet.
fn writes_nothing(store: &dyn Datastore) {
    list(store, Prefix::Reservations);
    assert!(store.replaced() > 0, "the client did not notice");
    nothing_is_written(store);
    store.accept(store.replaced());
    create(store, "new", 1);
}

pub(crate) fn nothing_is_written(store: &dyn Datastore) {
    for op in [
        StoreOp::Create(key("new"), value("new", 1)),
        StoreOp::Delete(key("a"), Revision(2)),
    ] {
        match store.run(&op) {
            Reply::Failed(error) => {
                assert_eq!(error.kind, FailureKind::Unavailable);
                assert!(error.message.contains("restored from a copy"), "{error}");
            }
            other => panic!("{op:?}: {other:?}"),
        }
    }
}

/// A server that is put back is noticed by a follower, by a writer, and by who recalls what an earlier process knew.
pub(crate) fn is_noticed<S: Restorable>(
    mut server: S,
    save: impl FnOnce(&mut S) -> PathBuf,
    restore: impl FnOnce(&mut S, &Path),
) {
    let (copy, last) = before(&mut server, save);
    let writer = server.store();
    assert_eq!(list(&*writer, Prefix::Reservations).0.len(), 3);
    let following = Following::begin(server.store());
    assert_eq!(following.until_synced().0.len(), 3);
    let mark = writer.mark().unwrap();
    restore(&mut server, &copy);
    assert_eq!(told(&following), everything());
    writes_nothing(&*writer);
    is_recalled(server.store(), &mark);
    let newest = create(&*server.store(), "d", 1);
    assert!(
        newest < Revision(last.0 + 20),
        "the test shows a store that went back"
    );
}

/// A client that begins after the restore.
fn is_recalled(store: Arc<dyn Datastore>, mark: &Mark) {
    store.recall(mark);
    let all = told(&Following::begin(Arc::clone(&store)));
    assert!(all.iter().all(|(_, is_there)| *is_there), "{all:?}");
    assert!(all.contains(&(key("a"), true)), "{all:?}");
    assert_eq!(store.replaced(), 1);
    assert_ne!(store.mark().as_ref(), Some(mark));
}

#[test]
fn a_snapshot_that_was_restored_is_noticed() {
    is_noticed(
        Server::start(),
        |server| server.save(),
        |server, copy| server.restore(copy),
    );
}

#[test]
fn files_that_were_put_back_are_noticed() {
    is_noticed(Server::start(), Server::copy_files, |server, copy| {
        server.put_files_back(copy)
    });
}

#[test]
fn a_restored_store_that_has_come_as_far_is_noticed() {
    is_noticed(
        Server::start(),
        |server| server.save(),
        |server, copy| {
            server.restore(copy);
            let store = server.store();
            let mut at = create(&*store, "busy", 0);
            for step in 1..8 {
                at = update(&*store, "busy", step, at);
            }
            delete(&*store, "busy", at);
        },
    );
}

#[test]
fn a_restart_is_no_restore() {
    let mut server = Server::start();
    let store = server.store();
    create(&*store, "a", 1);
    let following = Following::begin(server.store());
    assert_eq!(following.until_synced().0.len(), 1);
    server.start_again();
    let newest = create(&*store, "b", 1);
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "the change does not come");
        match following.next() {
            Feed::Restored => panic!("it is the same store"),
            Feed::Delta(delta) => break assert_eq!(delta.revision, newest),
            Feed::Lost(_) | Feed::Synced(_) => {}
        }
    }
    assert_eq!(store.replaced(), 0);
}
