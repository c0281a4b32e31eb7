//! Single readings, for who has no protocol to run.

use buoy_core::store::{FailureKind, Key, Prefix, Record, Reply, Revision, StoreError, StoreOp};

use crate::Datastore;

/// The record of a key, if there is one.
pub fn get(store: &dyn Datastore, key: Key) -> Result<Option<Record>, StoreError> {
    match store.run(&StoreOp::Get(key)) {
        Reply::Record(record) => Ok(record),
        other => Err(failure(store, other)),
    }
}

/// The records of a prefix in order of their keys, and the revision at which they were read.
pub fn list(store: &dyn Datastore, prefix: Prefix) -> Result<(Vec<Record>, Revision), StoreError> {
    match store.run(&StoreOp::List(prefix)) {
        Reply::List(records, revision) => Ok((records, revision)),
        other => Err(failure(store, other)),
    }
}

fn failure(store: &dyn Datastore, reply: Reply) -> StoreError {
    match reply {
        Reply::Failed(error) => error,
        _ => StoreError {
            kind: FailureKind::Unavailable,
            message: format!("no answer to a reading: {}", store.name()),
        },
    }
}
