//! What can happen between a client and an API server.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use buoy_core::store::{Prefix, Record, Reply, Revision, StoreOp};
use buoy_datastore::kubernetes::Options;
use buoy_datastore::{Datastore, WatchError};

use super::backend::{ApiServerBackend, api_server, api_server_with, by_way_of, client, own_api_server};
use crate::faults::answers::{follows_over_a_breaking_connection, is_known_over_breaking_connections};
use crate::faults::pages::PATIENCE;
use crate::faults::parts::converge;
use crate::faults::proxy::{DELAY, Mode, Proxy};
use crate::faults::silence::{babbler, noise, nothing_works};
use crate::server::own_address;
use crate::tools::{Backend, create, events_until, get, key, list, number, update, value, written};

fn hasty() -> Options {
    Options {
        timeout: Duration::from_secs(1),
        ..Options::default()
    }
}

/// A client that waits long enough for a server on a busy machine.
fn behind(backend: &ApiServerBackend) -> (Proxy, Arc<dyn Datastore>) {
    let proxy = Proxy::to(backend.server().address);
    let options = Options {
        timeout: Duration::from_secs(5),
        ..Options::default()
    };
    let store = client(&by_way_of(&proxy, &[backend]), options);
    (proxy, store)
}

/// A client of whoever listens there, without TLS.
fn plain(address: SocketAddr, directory: &tempfile::TempDir) -> Arc<dyn Datastore> {
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "u", "user": {}}],
    });
    let path = directory.path().join("kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    client(&format!("kubernetes:{}", path.display()), hasty())
}

#[test]
fn a_write_whose_answer_is_lost_is_unknown() {
    let backend = api_server();
    let (proxy, store) = behind(&backend);
    let first = create(&*store, "a", 1);
    let unknown = |op: StoreOp| {
        proxy.set(Mode::Mute);
        assert_eq!(store.run(&op), Reply::Unknown, "{op:?}");
        proxy.cut();
        proxy.set(Mode::Pass);
    };
    unknown(StoreOp::Create(key("b"), value("b", 2)));
    assert_eq!(number(&found_again(&*store, "b").unwrap()), 2, "it has happened");
    // Whoever lost a connection sees first that it is the same store.
    create(&*store, "c", 1);
    unknown(StoreOp::Update(key("a"), value("a", 2), first));
    let second = found_again(&*store, "a").unwrap();
    assert_eq!(number(&second), 2, "it has happened");
    create(&*store, "d", 1);
    unknown(StoreOp::Delete(key("a"), second.revision));
    assert_eq!(found_again(&*store, "a"), None, "and so has this");
    assert_eq!(store.replaced(), 0);
}

#[test]
fn a_part_whose_answer_is_lost_is_written_again_and_not_twice() {
    let backend = api_server();
    let proxy = Proxy::to(backend.server().address);
    let options = Options {
        timeout: PATIENCE,
        ..Options::default()
    };
    let store = client(&by_way_of(&proxy, &[&backend]), options);
    converge(&*backend.open(), (&proxy, &*store), &|proxy| {
        proxy.set(Mode::Mute)
    });
}

#[test]
fn a_watch_is_given_up_soon_where_requests_get_no_answer() {
    let backend = api_server();
    let (proxy, store) = behind(&backend);
    let first = create(&*store, "a", 1);
    let mut watch = store.watch(&[(Prefix::Reservations, first)]).unwrap();
    assert_eq!(watch.next(Duration::from_millis(100)).unwrap(), []);
    proxy.set(Mode::Mute);
    assert!(matches!(store.run(&StoreOp::Get(key("a"))), Reply::Failed(_)));
    let lost = watch.next(Duration::from_secs(1));
    assert!(matches!(lost, Err(WatchError::Store(_))), "{lost:?}");
}

/// A record, once the client has noticed that its connections are gone.
fn found_again(store: &dyn Datastore, name: &str) -> Option<Record> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match store.run(&StoreOp::Get(key(name))) {
            Reply::Record(record) => return record,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
    }
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_given_up() {
    let silent = TcpListener::bind((own_address(), 0)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    nothing_works(&*plain(silent.local_addr().unwrap(), &directory));
}

#[test]
fn a_server_that_is_no_api_server_is_given_up() {
    let page: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>";
    let proxy: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";
    let promise: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{";
    let directory = tempfile::tempdir().unwrap();
    for answer in [&noise(), page, proxy, promise, b""] {
        nothing_works(&*plain(babbler(answer.to_vec()), &directory));
    }
}

#[test]
fn a_slow_server_is_waited_for() {
    let backend = api_server();
    let (proxy, _) = behind(&backend);
    let store = client(&by_way_of(&proxy, &[&backend]), Options::default());
    proxy.set(Mode::Slow);
    let begun = Instant::now();
    let at = create(&*store, "a", 1);
    assert!(begun.elapsed() >= 2 * DELAY, "{:?}", begun.elapsed());
    assert_eq!(get(&*store, &key("a")).unwrap().revision, at);
    let (_, from) = list(&*store, Prefix::Reservations);
    let mut watch = store.watch(&[(Prefix::Reservations, from)]).unwrap();
    let last = create(&*store, "b", 1);
    assert_eq!(events_until(watch.as_mut(), last).len(), 1);
}

/// Nobody asks for anything, so it is the server's bookmark that is missed: due each minute, and in force after less here.
#[test]
fn a_connection_that_falls_silent_is_noticed_and_replaced() {
    let silence = Duration::from_secs(5);
    let backend = api_server();
    let proxy = Proxy::to(backend.server().address);
    let options = Options {
        silence,
        ..Options::default()
    };
    let store = client(&by_way_of(&proxy, &[&backend]), options);
    let at = create(&*store, "a", 1);
    let mut watch = store.watch(&[(Prefix::Reservations, at)]).unwrap();
    proxy.set(Mode::Stall);
    let begun = Instant::now();
    let ended = loop {
        match watch.next(Duration::from_secs(1)) {
            Ok(events) => assert_eq!(events, []),
            Err(error) => break error,
        }
        assert!(begun.elapsed() < 8 * silence, "it is not noticed");
    };
    assert!(begun.elapsed() > silence / 2, "{:?}: {ended}", begun.elapsed());
    assert!(matches!(ended, WatchError::Store(_)), "{ended:?}");
    proxy.set(Mode::Pass);
    proxy.cut();
    assert!(found_again(&*store, "a").is_some());
    let from = watch.reached()[0];
    let mut resumed = store.watch(&[(Prefix::Reservations, from)]).unwrap();
    let last = create(&*store, "z", 2);
    let events = events_until(resumed.as_mut(), last);
    assert!(events.iter().any(|event| event.revision() == last));
}

/// It ends each answer to a watch after a second or two, as every server does after an hour.
#[test]
fn a_watch_that_the_server_ends_goes_on_without_loss_or_repetition() {
    const WRITES: u64 = 400;
    let backend = api_server_with(&["--min-request-timeout=1"]);
    let store = backend.open();
    let mut at = create(&*store, "p", 0);
    let mut watch = store.watch(&[(Prefix::Reservations, at)]).unwrap();
    let before = watches(&*store);
    let mut numbers = Vec::new();
    for step in 1..WRITES {
        at = update(&*store, "p", step, at);
        std::thread::sleep(Duration::from_millis(20));
        numbers.extend(heard(watch.next(Duration::ZERO).unwrap()));
    }
    numbers.extend(heard(events_until(watch.as_mut(), at)));
    assert!(numbers.into_iter().eq(1..WRITES));
    let again = watches(&*store) - before;
    println!("begun again {again} times");
    assert!(again >= 2, "the server ended it {again} times only");
}

fn heard(events: Vec<buoy_datastore::Event>) -> impl Iterator<Item = u64> {
    events.into_iter().map(|event| match event {
        buoy_datastore::Event::Put(record) => number(&record),
        other => panic!("{other:?}"),
    })
}

/// How often a watch was asked for.
fn watches(store: &dyn Datastore) -> u64 {
    let sent = store.requests();
    let watches = sent.into_iter().filter(|((verb, _), _)| *verb == "watch");
    watches.map(|(_, count)| count).sum()
}

#[test]
fn writers_over_breaking_connections_know_what_they_wrote() {
    let backend = own_api_server();
    let (proxy, _) = behind(&backend);
    let url = by_way_of(&proxy, &[&backend]);
    // A connection by TLS takes its time, and on each new one the client looks first.
    let every = Duration::from_millis(200);
    is_known_over_breaking_connections(&*backend.open(), (&proxy, every), &|| client(&url, hasty()));
}

#[test]
fn a_follower_over_a_breaking_connection_misses_and_repeats_nothing() {
    let backend = own_api_server();
    let (proxy, store) = behind(&backend);
    follows_over_a_breaking_connection(&*backend.open(), &proxy, &*store);
}

/// Many write at once over connections that break, while another server takes the place of the first.
#[test]
fn a_replaced_server_is_no_restored_store() {
    let backend = own_api_server();
    let store = backend.open();
    let stop = AtomicBool::new(false);
    let (_, from) = list(&*store, Prefix::Reservations);
    let _watch = store.watch(&[(Prefix::Reservations, from)]).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::SeqCst) {
                store.run(&StoreOp::Create(key(&format!("p{number}")), value("p", 1)));
                store.run(&StoreOp::List(Prefix::Reservations));
                number += 1;
            }
        });
        backend.server().replace().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::SeqCst);
    });
    assert_eq!(store.replaced(), 0);
    assert!(written(store.run(&StoreOp::Create(key("last"), value("last", 1)))) > Revision(0));
}
