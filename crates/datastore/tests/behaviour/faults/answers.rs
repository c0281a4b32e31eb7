//! Answers that are lost, connections that break, members that are gone.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use buoy_core::store::{FailureKind, Prefix, Reply, StoreOp};
use buoy_datastore::etcd::{Etcd, Options};
use buoy_datastore::{Datastore, Feed, follow};

use super::proxy::{Mode, Proxy};
use crate::server::{Server, free, own_address};
use crate::tools::{create, get, key, number, update, value};

pub(super) fn hasty(url: &str) -> Etcd {
    let options = Options {
        timeout: Duration::from_millis(500),
    };
    Etcd::open(url, |_| None, options).unwrap()
}

#[test]
fn a_write_whose_answer_is_lost_is_unknown() {
    let server = Server::start();
    let proxy = Proxy::to(server.address);
    // Long enough for what it asks to arrive, also on a busy machine.
    let options = Options {
        timeout: Duration::from_secs(2),
    };
    let direct = server.store();
    let store = Etcd::open(&proxy.url(), |_| None, options).unwrap();
    let first = create(&*direct, "a", 1);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !matches!(store.run(&StoreOp::Get(key("a"))), Reply::Record(_)) {
        assert!(Instant::now() < deadline, "it never gets an answer");
    }
    proxy.set(Mode::Mute);
    assert_eq!(
        store.run(&StoreOp::Create(key("b"), value("b", 2))),
        Reply::Unknown
    );
    // This one asks before it writes, and so knows that nothing happened.
    match store.run(&StoreOp::Update(key("a"), value("a", 2), first)) {
        Reply::Failed(error) => assert_eq!(error.kind, FailureKind::Unavailable),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.run(&StoreOp::Delete(key("a"), first)), Reply::Unknown);
    // Each was on its way when it was given up.
    while get(&*direct, &key("b")).is_none() || get(&*direct, &key("a")).is_some() {
        assert!(Instant::now() < deadline, "they never happen");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(number(&get(&*direct, &key("b")).unwrap()), 2);
}

#[test]
fn a_write_that_is_never_sent_fails() {
    let nobody = free(own_address());
    let store = hasty(&format!("etcd://{nobody}"));
    for op in [
        StoreOp::Create(key("a"), value("a", 1)),
        StoreOp::Get(key("a")),
        StoreOp::List(Prefix::Reservations),
    ] {
        match store.run(&op) {
            Reply::Failed(error) => {
                assert_eq!(error.kind, FailureKind::Unavailable);
                let begins = format!("etcd://{nobody}: ");
                assert!(error.message.starts_with(&begins), "{error}");
                assert!(error.message.contains("Connection refused"), "{error}");
                assert!(
                    error
                        .message
                        .ends_with("\nsee that etcd runs there, has a quorum and can be reached")
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn another_member_is_asked_where_one_is_gone() {
    let server = Server::start();
    let nobody = free(own_address());
    let (one, other) = (Proxy::to(server.address), Proxy::to(server.address));
    let store = hasty(&format!("etcd://{nobody},{},{}", one.address, other.address));
    let mut at = create(&store, "a", 0);
    for step in 1..40 {
        // One of them is there at any time.
        let (away, back) = if step % 2 == 0 {
            (&one, &other)
        } else {
            (&other, &one)
        };
        back.set(Mode::Pass);
        away.set(Mode::Pass);
        away.cut();
        at = match store.run(&StoreOp::Update(key("a"), value("a", step), at)) {
            Reply::Written(at) => at,
            Reply::Unknown => get(&store, &key("a")).unwrap().revision,
            other => panic!("{step}: {other:?}"),
        };
    }
}

#[test]
fn writers_over_breaking_connections_know_what_they_wrote() {
    let server = Server::start();
    let proxy = Proxy::to(server.address);
    let url = proxy.url();
    let every = Duration::from_millis(15);
    is_known_over_breaking_connections(&*server.store(), (&proxy, every), &|| Arc::new(hasty(&url)));
}

/// Two clients behind a relay that breaks every so often count up one counter; `direct` is a client beside it.
pub(crate) fn is_known_over_breaking_connections(
    direct: &dyn Datastore,
    (proxy, every): (&Proxy, Duration),
    client: &(dyn Fn() -> Arc<dyn Datastore> + Sync),
) {
    const EACH: u64 = 100;
    create(direct, "counter", 0);
    let stop = AtomicBool::new(false);
    let (written, unknown) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                std::thread::sleep(every);
                proxy.cut();
            }
        });
        let writers = [(), ()].map(|()| scope.spawn(|| count_up(&*client(), EACH)));
        let counts = writers.map(|writer| writer.join().unwrap());
        stop.store(true, Ordering::SeqCst);
        (counts[0].0 + counts[1].0, counts[0].1 + counts[1].1)
    });
    println!("{written} writes, {unknown} of unknown fate");
    let counter = number(&get(direct, &key("counter")).unwrap());
    assert!((written..=written + unknown).contains(&counter), "{counter}");
}

/// Raises the counter until so many writes were confirmed; how many were, and how many are not known.
fn count_up(store: &dyn Datastore, times: u64) -> (u64, u64) {
    let (mut written, mut unknown) = (0, 0);
    while written < times {
        let record = match store.run(&StoreOp::Get(key("counter"))) {
            Reply::Record(record) => record.unwrap(),
            Reply::Failed(error) if error.kind == FailureKind::Unavailable => continue,
            other => panic!("{other:?}"),
        };
        let next = value("counter", number(&record) + 1);
        match store.run(&StoreOp::Update(key("counter"), next, record.revision)) {
            Reply::Written(_) => written += 1,
            Reply::Unknown => unknown += 1,
            Reply::Conflict => {}
            Reply::Failed(error) if error.kind == FailureKind::Unavailable => {}
            other => panic!("{other:?}"),
        }
    }
    (written, unknown)
}

#[test]
fn a_follower_over_a_breaking_connection_misses_and_repeats_nothing() {
    let server = Server::start();
    let proxy = Proxy::to(server.address);
    follows_over_a_breaking_connection(&*server.store(), &proxy, &hasty(&proxy.url()));
}

/// A follower behind a relay, and a writer beside it.
pub(crate) fn follows_over_a_breaking_connection(
    direct: &dyn Datastore,
    proxy: &Proxy,
    store: &dyn Datastore,
) {
    const WRITES: u64 = 2000;
    let stop = AtomicBool::new(false);
    let (sender, feed) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            follow(
                store,
                &[Prefix::Nodes, Prefix::Reservations],
                &stop,
                &mut |feed| match sender.send(feed) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                },
            );
        });
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(150));
                proxy.cut();
            }
        });
        while !matches!(
            feed.recv_timeout(Duration::from_secs(30)).unwrap(),
            Feed::Synced(_)
        ) {}
        let mut at = create(direct, "p", 0);
        for step in 1..WRITES {
            at = update(direct, "p", step, at);
        }
        let (mut next, mut lost) = (0, 0);
        while next < WRITES {
            match feed.recv_timeout(Duration::from_secs(30)).unwrap() {
                Feed::Delta(delta) => {
                    let record = buoy_core::store::Record {
                        key: delta.key,
                        revision: delta.revision,
                        value: delta.value.unwrap(),
                    };
                    assert_eq!(number(&record), next);
                    next += 1;
                }
                Feed::Lost(error) => {
                    assert_eq!(error.kind, FailureKind::Unavailable, "{error}");
                    lost += 1;
                }
                Feed::Synced(_) => {}
                Feed::Restored => panic!("it is the same store"),
            }
        }
        stop.store(true, Ordering::SeqCst);
        println!("{WRITES} changes over {lost} broken connections");
        assert!(lost > 2, "the connection broke {lost} times only");
    });
}
