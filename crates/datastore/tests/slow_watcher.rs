//! A watcher that is slower than the writer keeps its memory. In a process of its own, whose memory is nobody else's.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it cannot go on"
)]

#[path = "behaviour/server.rs"]
#[expect(dead_code, reason = "this test needs only a part")]
mod server;

use std::time::Duration;

use buoy_api::ObjectMeta;
use buoy_api::v3::{Profile, ProfileSpec};
use buoy_core::store::{Key, Prefix, Reply, Revision, StoreOp, Value};
use buoy_datastore::Event;

const WRITES: u64 = 2000;
const SIZE: usize = 50_000;
/// Far below what was written, 100 MB.
const MOST: u64 = 30 << 20;

#[test]
fn a_watcher_that_does_not_look_keeps_its_memory() {
    let server = server::Server::start();
    let store = server.store();
    let mut watch = store.watch(&[(Prefix::Profiles, Revision(0))]).unwrap();
    let key = Key::Profile("p".to_owned());
    let mut at = None;
    let write = |number: u64, at: Option<Revision>| {
        let mut spec = ProfileSpec::default();
        let text = format!("{number:010}{}", "x".repeat(SIZE));
        spec.labels_to_apply.insert("n".to_owned(), text);
        let value = Value::Profile(Profile::new(ObjectMeta::named("p"), spec));
        let op = match at {
            None => StoreOp::Create(key.clone(), value),
            Some(at) => StoreOp::Update(key.clone(), value, at),
        };
        match store.run(&op) {
            Reply::Written(at) => at,
            other => panic!("{other:?}"),
        }
    };
    at = Some(write(0, at));
    let before = resident();
    for number in 1..WRITES {
        at = Some(write(number, at));
    }
    let after = resident();
    println!(
        "{} MB before, {} MB after 100 MB of changes that nobody looked at",
        before >> 20,
        after >> 20
    );
    assert!(after < before + MOST, "{before} bytes before, {after} after");
    let mut next = 0;
    while next < WRITES {
        for event in watch.next(Duration::from_secs(30)).unwrap() {
            let Event::Put(record) = event else {
                panic!("{event:?}")
            };
            let Ok(Value::Profile(profile)) = record.value else {
                panic!("{:?}", record.key)
            };
            assert_eq!(
                profile.spec.labels_to_apply["n"][..10].parse::<u64>().unwrap(),
                next
            );
            next += 1;
        }
    }
    assert!(
        resident() < before + MOST,
        "{before} bytes before, {} after all was seen",
        resident()
    );
}

/// Bytes of memory of this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes << 10
}
