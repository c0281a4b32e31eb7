//! A watcher that is slower than the writer keeps its memory. In a process of its own, whose memory is nobody else's.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test ends where it cannot go on, and shows what it measured"
)]

#[path = "behaviour/server.rs"]
#[expect(dead_code, reason = "this test needs only a part")]
mod server;

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use buoy_api::ObjectMeta;
use buoy_api::v3::{IpReservation, IpReservationSpec};
use buoy_core::store::{Key, Prefix, Record, Reply, Revision, StoreOp, Value};
use buoy_datastore::kubernetes::{Kubernetes, Options};
use buoy_datastore::{Datastore, Event};
use buoy_kubeserver::{ADMIN, ApiServer};

const WRITES: u64 = 2000;
const SIZE: usize = 50_000;
/// Far below what was written, 100 MB.
const MOST: u64 = 30 << 20;

/// One at a time: there is one memory.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_watcher_of_etcd_that_does_not_look_keeps_its_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = server::Server::start();
    keeps_its_memory(&*server.store());
}

#[test]
fn a_watcher_of_an_api_server_that_does_not_look_keeps_its_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = ApiServer::start(server::own_address()).unwrap();
    let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/crds");
    server.create(&[Path::new(crds)]).unwrap();
    let url = format!("kubernetes:{}?qps=0", server.kubeconfig(ADMIN).display());
    keeps_its_memory(&Kubernetes::open(&url, |_| None, Options::default()).unwrap());
}

fn keeps_its_memory(store: &dyn Datastore) {
    let mut at = write(store, 0, None);
    let mut watch = store.watch(&[(Prefix::Reservations, at)]).unwrap();
    let before = resident();
    for number in 1..WRITES {
        at = write(store, number, Some(at));
    }
    let after = resident();
    println!(
        "{} MB before, {} MB after 100 MB of changes that nobody looked at",
        before >> 20,
        after >> 20
    );
    assert!(after < before + MOST, "{before} bytes before, {after} after");
    let mut next = 1;
    while next < WRITES {
        for event in watch.next(Duration::from_secs(30)).unwrap() {
            let Event::Put(record) = event else {
                panic!("{event:?}")
            };
            assert_eq!(number_of(&record), next);
            next += 1;
        }
    }
    assert!(
        resident() < before + MOST,
        "{before} bytes before, {} after all was seen",
        resident()
    );
}

/// Writes the one record: new, or again at this revision.
fn write(store: &dyn Datastore, number: u64, at: Option<Revision>) -> Revision {
    let mut spec = IpReservationSpec::default();
    let text = format!("{number:010}{}", "x".repeat(SIZE));
    spec.extra.insert("n".to_owned(), text.into());
    let value = Value::Reservation(IpReservation::new(ObjectMeta::named("p"), spec));
    let key = Key::Reservation("p".to_owned());
    let op = match at {
        None => StoreOp::Create(key, value),
        Some(at) => StoreOp::Update(key, value, at),
    };
    match store.run(&op) {
        Reply::Written(at) => at,
        other => panic!("{other:?}"),
    }
}

fn number_of(record: &Record) -> u64 {
    let Ok(Value::Reservation(reservation)) = &record.value else {
        panic!("{:?}", record.key)
    };
    let text = reservation.spec.extra["n"].as_str().unwrap();
    text[..10].parse().unwrap()
}

/// Bytes of memory of this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes << 10
}
