//! Servers that say nothing, say it late, or speak another language.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use buoy_core::store::{FailureKind, Prefix, Reply, Revision, StoreOp};
use buoy_datastore::{Datastore, WatchError};

use super::answers::hasty;
use super::proxy::{DELAY, Mode, Proxy};
use crate::server::{Server, own_address};
use crate::tools::{create, events_until, get, key, list, value};

/// Twice the timeout of the most patient client here, and as much for a busy machine.
const BOUND: Duration = Duration::from_secs(20);

/// Every kind of request fails, soon.
pub(crate) fn nothing_works(store: &dyn Datastore) {
    for op in [
        StoreOp::Get(key("a")),
        StoreOp::List(Prefix::Reservations),
        StoreOp::Create(key("x"), value("x", 1)),
        StoreOp::Delete(key("a"), Revision(1)),
    ] {
        let begun = Instant::now();
        let is_read = matches!(op, StoreOp::Get(_) | StoreOp::List(_));
        match store.run(&op) {
            Reply::Failed(error) => {
                assert_eq!(error.kind, FailureKind::Unavailable, "{error}");
                assert!(error.message.starts_with(store.name()), "{error}");
            }
            Reply::Unknown if !is_read => {}
            other => panic!("{op:?}: {other:?}"),
        }
        assert!(begun.elapsed() < BOUND, "{op:?}: {:?}", begun.elapsed());
    }
    let begun = Instant::now();
    match store.watch(&[(Prefix::Reservations, Revision(1))]) {
        Err(WatchError::Store(error)) => assert_eq!(error.kind, FailureKind::Unavailable),
        other => panic!("{other:?}"),
    }
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_given_up() {
    let silent = TcpListener::bind((own_address(), 0)).unwrap();
    let address = silent.local_addr().unwrap();
    nothing_works(&hasty(&format!("etcd://{address}")));
}

#[test]
fn a_server_that_is_no_etcd_is_given_up() {
    let web: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    // The preface of HTTP/2 and a frame that says it is 16 MB long.
    let promises: &[u8] = b"\0\0\0\x04\0\0\0\0\0\xff\xff\xff\x00\0\0\0\0\x01";
    for answer in [web, &noise(), promises, b""] {
        nothing_works(&hasty(&format!("etcd://{}", babbler(answer.to_vec()))));
    }
}

/// What no protocol looks like.
pub(crate) fn noise() -> Vec<u8> {
    (0..100_000_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect()
}

/// Says the same to everybody, and hangs up.
pub(crate) fn babbler(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind((own_address(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let _ = client.write_all(&answer);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    address
}

#[test]
fn a_connection_that_falls_silent_is_noticed_and_replaced() {
    let server = Server::start();
    let proxy = Proxy::to(server.address);
    let store = hasty(&proxy.url());
    let at = create(&store, "a", 1);
    let mut watch = store.watch(&[(Prefix::Reservations, at)]).unwrap();
    proxy.set(Mode::Stall);
    nothing_works(&store);
    let begun = Instant::now();
    let ended = loop {
        match watch.next(Duration::from_secs(1)) {
            Ok(events) => assert_eq!(events, []),
            Err(error) => break error,
        }
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "a dead watch is not noticed"
        );
    };
    println!(
        "a silent connection is noticed after {:?}: {ended}",
        begun.elapsed()
    );
    assert!(matches!(ended, WatchError::Store(_)), "{ended:?}");
    proxy.set(Mode::Pass);
    proxy.cut();
    let mut resumed = store
        .watch(&[(Prefix::Reservations, watch.reached()[0])])
        .unwrap();
    let last = create(&store, "z", 2);
    assert!(
        events_until(resumed.as_mut(), last)
            .iter()
            .any(|event| event.revision() == last)
    );
}

#[test]
fn a_slow_server_is_waited_for() {
    let server = Server::start();
    let proxy = Proxy::to(server.address);
    let store = crate::server::client(&proxy.url());
    proxy.set(Mode::Slow);
    let begun = Instant::now();
    let at = create(&*store, "a", 1);
    assert!(begun.elapsed() >= 2 * DELAY, "{:?}", begun.elapsed());
    assert_eq!(get(&*store, &key("a")).unwrap().revision, at);
    assert_eq!(list(&*store, Prefix::Reservations).1, at);
    let mut watch = store.watch(&[(Prefix::Reservations, Revision(0))]).unwrap();
    assert_eq!(events_until(watch.as_mut(), at).len(), 1);
}
