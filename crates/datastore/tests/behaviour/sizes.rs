//! Records as large as they may get, and larger.

use buoy_core::store::{FailureKind, Prefix, Reply, Revision, StoreOp, Value};
use buoy_datastore::{Datastore, Event};

use crate::faults::limits::large;
use crate::tools::{Backend, create, delete, events_until, get, key, list, written};

/// What is in a record beside its padding, at most.
const REST: usize = 1_000;
/// Padding of what fits into every store, and of what fits into none.
const FITS: usize = (1 << 20) - REST;
const FITS_NOWHERE: usize = 4 << 20;

/// Writes a new record with so much padding; `None` if it is refused.
fn try_create(store: &dyn Datastore, name: &str, padding: usize) -> Option<Revision> {
    match store.run(&large(name, padding)) {
        Reply::Failed(error) => {
            assert_eq!(error.kind, FailureKind::Invalid, "{error}");
            assert!(error.message.contains("too large"), "{error}");
            assert!(error.message.starts_with(store.name()), "{error}");
            None
        }
        reply => Some(written(reply)),
    }
}

/// The most padding that a record can have here.
fn limit(store: &dyn Datastore) -> usize {
    let (mut fits, mut too_large) = (FITS, FITS_NOWHERE);
    while too_large - fits > 1 {
        let middle = fits.midpoint(too_large);
        match try_create(store, "big", middle) {
            Some(at) => {
                delete(store, "big", at);
                fits = middle;
            }
            None => too_large = middle,
        }
    }
    fits
}

fn value(op: StoreOp) -> Value {
    match op {
        StoreOp::Create(_, value) => value,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn a_record_at_the_limit_is_kept_and_one_above_it_is_refused(backend: &dyn Backend) {
    let store = backend.open();
    let at = try_create(&*store, "big", FITS).expect("it fits into every store");
    delete(&*store, "big", at);
    let limit = limit(&*store);
    println!("{}: records of about {limit} bytes", store.name());
    create(&*store, "small", 1);
    let (_, from) = list(&*store, Prefix::Reservations);
    let at = try_create(&*store, "big", limit).unwrap();
    for more in [1, FITS_NOWHERE] {
        assert_eq!(try_create(&*store, "new", limit + more), None);
    }
    let update = StoreOp::Update(key("big"), value(large("big", limit + REST)), at);
    match store.run(&update) {
        Reply::Failed(error) => assert_eq!(error.kind, FailureKind::Invalid, "{error}"),
        other => panic!("{other:?}"),
    }
    // Nothing of it happened, and nothing else is lost.
    let record = get(&*store, &key("big")).unwrap();
    assert_eq!(record.revision, at);
    assert_eq!(padding(&record.value), limit);
    let (records, _) = list(&*store, Prefix::Reservations);
    assert_eq!(records.len(), 2);
    assert_eq!(records[0], record);
    let mut watch = store.watch(&[(Prefix::Reservations, from)]).unwrap();
    assert_eq!(events_until(watch.as_mut(), at), [Event::Put(record)]);
}

fn padding(value: &Result<Value, buoy_core::store::Bad>) -> usize {
    match value {
        Ok(Value::Reservation(found)) => found.spec.extra["padding"].as_str().unwrap().len(),
        other => panic!("{other:?}"),
    }
}
