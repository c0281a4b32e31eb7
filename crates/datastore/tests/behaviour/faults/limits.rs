//! As large as it may get, and larger.

use buoy_api::ObjectMeta;
use buoy_api::v3::{IpReservation, IpReservationSpec};
use buoy_core::store::{FailureKind, Prefix, Reply, StoreOp, Value};

use crate::server::Server;
use crate::tools::{create, get, key, list, written};

/// Makes a record of about this size.
pub(crate) fn large(name: &str, bytes: usize) -> StoreOp {
    let mut spec = IpReservationSpec::default();
    spec.extra.insert("padding".to_owned(), "x".repeat(bytes).into());
    let reservation = IpReservation::new(ObjectMeta::named(name), spec);
    StoreOp::Create(key(name), Value::Reservation(reservation))
}

#[test]
fn records_of_the_largest_size_are_kept_and_listed() {
    let server = Server::start();
    let store = server.store();
    // Together more than is taken in at a time.
    for number in 0..50 {
        written(store.run(&large(&format!("p{number:02}"), 1_400_000)));
    }
    let (records, _) = list(&*store, Prefix::Reservations);
    let names: Vec<_> = records.iter().map(|record| record.key.clone()).collect();
    let expected: Vec<_> = (0..50).map(|number| key(&format!("p{number:02}"))).collect();
    assert_eq!(names, expected);
    match store.run(&large("more", 2_000_000)) {
        Reply::Failed(error) => {
            assert_eq!(error.kind, FailureKind::Invalid);
            assert!(error.message.contains("too large"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(get(&*store, &key("more")), None);
    let mut watch = store
        .watch(&[(Prefix::Reservations, buoy_core::store::Revision(0))])
        .unwrap();
    let last = records.iter().map(|record| record.revision).max().unwrap();
    let events = crate::tools::events_until(watch.as_mut(), last);
    assert_eq!(events.len(), 50);
}

#[test]
fn a_full_store_says_so_and_is_read_all_the_same() {
    let server = Server::start_with(&["--quota-backend-bytes", "4000000"]);
    let store = server.store();
    create(&*store, "a", 1);
    let refused = (0..100).find_map(|number| match store.run(&large(&format!("p{number}"), 500_000)) {
        Reply::Written(_) => None,
        Reply::Failed(error) => Some(error),
        other => panic!("{other:?}"),
    });
    let error = refused.expect("it is full after 4 MB");
    assert_eq!(error.kind, FailureKind::Refused);
    assert!(error.message.contains("etcdctl alarm disarm"), "{error}");
    assert!(get(&*store, &key("a")).is_some());
}
