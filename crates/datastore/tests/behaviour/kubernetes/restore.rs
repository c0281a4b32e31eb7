//! A cluster that was restored from a copy, or made anew in the place of another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use buoy_api::ObjectMeta;
use buoy_api::lease::{NodeLease, NodeLeaseSpec};
use buoy_core::store::{Key, Prefix, Revision, StoreOp, Value};
use buoy_datastore::kubernetes::Options;
use buoy_datastore::{Datastore, Feed, WatchError};

use super::backend::{ApiServerBackend, api_server_with, by_way_of, client, own_api_server};
use super::failures::signal;
use crate::faults::proxy::{Mode, Proxy};
use crate::faults::restore::{Restorable, everything, is_noticed, nothing_is_written, told};
use crate::follows::Following;
use crate::tools::{Backend, create, delete, get, key, list, update, written};

impl Restorable for ApiServerBackend {
    fn store(&self) -> Arc<dyn Datastore> {
        self.open()
    }
}

/// Writes so often that nothing the server does by itself is as much.
fn much_happens(store: &dyn Datastore) -> Revision {
    let mut at = create(store, "busy", 0);
    for step in 1..300 {
        at = update(store, "busy", step, at);
    }
    delete(store, "busy", at);
    at
}

#[test]
fn a_store_behind_the_server_that_was_restored_is_noticed() {
    is_noticed(
        own_api_server(),
        |backend| backend.server().copy().unwrap(),
        |backend, copy| {
            much_happens(&*backend.open());
            backend.server().restore(copy).unwrap();
        },
    );
}

/// Who watches has lost a connection, and looks before the first write.
#[test]
fn nothing_is_written_into_a_restored_store_by_who_has_not_listed_it() {
    let backend = own_api_server();
    create(&*backend.open(), "a", 1);
    let copy = backend.server().copy().unwrap();
    let store = backend.open();
    much_happens(&*backend.open());
    let (_, from) = list(&*store, Prefix::Reservations);
    let _watch = store.watch(&[(Prefix::Reservations, from)]).unwrap();
    backend.server().restore(&copy).unwrap();
    nothing_is_written(&*store);
    assert_eq!(store.replaced(), 1);
    store.accept(1);
    create(&*store, "new", 1);
}

/// Its node's lease is older than the agent knows it: that tells it, however far the store has come meanwhile.
#[test]
fn a_restored_store_that_has_come_as_far_is_noticed_by_the_lease() {
    let backend = own_api_server();
    let namespace = r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "buoy-system"}}"#;
    backend.create(namespace);
    let direct = backend.open();
    let a = create(&*direct, "a", 1);
    let b = create(&*direct, "b", 1);
    create(&*direct, "same", 1);
    let lease = written(direct.run(&StoreOp::Create(lease_key(), lease(1))));
    let copy = backend.server().copy().unwrap();

    let proxy = Proxy::to(backend.server().address);
    let options = Options {
        node: Some("n1".to_owned()),
        ..Options::default()
    };
    let store = client(&by_way_of(&proxy, &[&backend]), options);
    written(store.run(&StoreOp::Update(lease_key(), self::lease(2), lease)));
    let direct = backend.open();
    update(&*direct, "a", 2, a);
    delete(&*direct, "b", b);
    let last = create(&*direct, "c", 1);
    let following = Following::begin(Arc::clone(&store));
    assert_eq!(following.until_synced().0.len(), 3);

    proxy.set(Mode::Stall);
    backend.server().restore(&copy).unwrap();
    assert!(much_happens(&*backend.open()) > last);
    proxy.cut();
    proxy.set(Mode::Pass);
    assert_eq!(told(&following), everything());
    assert_eq!(store.replaced(), 1);
    // Once it is known it is over: the lease is still the old one.
    create(&*store, "new", 1);
    proxy.cut();
    let newest = create(&*backend.open(), "newer", 1);
    until(&following, newest);
    assert_eq!(store.replaced(), 1);
}

fn lease_key() -> Key {
    Key::Lease("n1".to_owned())
}

fn lease(seconds: u64) -> Value {
    let spec = NodeLeaseSpec {
        duration_seconds: seconds,
        ..NodeLeaseSpec::default()
    };
    Value::Lease(NodeLease::new(ObjectMeta::named("n1"), spec))
}

/// Waits for a change; nobody says that the store is another.
fn until(following: &Following, at: Revision) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match following.next() {
            Feed::Delta(delta) if delta.revision == at => return,
            Feed::Restored => panic!("it is the same store"),
            _ => assert!(Instant::now() < deadline, "the change does not come"),
        }
    }
}

#[test]
fn another_cluster_in_its_place_is_noticed_however_far_it_is() {
    let (one, other) = (own_api_server(), own_api_server());
    create(&*one.open(), "a", 1);
    let proxy = Proxy::to(one.server().address);
    let store = client(&by_way_of(&proxy, &[&one, &other]), Options::default());
    let following = Following::begin(Arc::clone(&store));
    assert_eq!(following.until_synced().0, [(key("a"), true)]);
    let direct = other.open();
    much_happens(&*direct);
    create(&*direct, "b", 1);
    proxy.turn_to(other.server().address);
    proxy.cut();
    assert_eq!(told(&following), [(key("a"), false), (key("b"), true)]);
    assert_eq!(store.replaced(), 1);
    assert!(get(&*store, &key("b")).is_some());
}

/// A server that ends ends its answers properly: the watch goes on by itself, at whatever server is there then.
#[test]
fn a_watch_that_goes_on_at_a_server_of_the_past_is_told_so() {
    let one = api_server_with(&["--shutdown-watch-termination-grace-period=5s"]);
    let other = own_api_server();
    let from = much_happens(&*one.open());
    let proxy = Proxy::to(one.server().address);
    let store = client(&by_way_of(&proxy, &[&one, &other]), Options::default());
    let mut watch = store.watch(&[(Prefix::Reservations, from)]).unwrap();
    proxy.turn_to(other.server().address);
    signal("-TERM", one.server().pids()[1]);
    let deadline = Instant::now() + Duration::from_secs(30);
    let end = loop {
        match watch.next(Duration::from_secs(1)) {
            Ok(_) => assert!(Instant::now() < deadline, "it waits for the past"),
            Err(error) => break error,
        }
    };
    assert_eq!(end, WatchError::Compacted);
}
