//! A real API server, and what is special to it.

mod backend;
mod certificates;
mod definitions;
mod endpoints;
mod failures;
mod faults;
mod groups;
mod nodes;
mod pages;
mod proxies;
mod requests;
mod restore;
mod rights;
mod survey;
mod tokens;

pub(crate) use backend::api_server;

use buoy_core::store::{FailureKind, Reply, StoreOp};
use buoy_datastore::Datastore;

/// What an operation fails with.
fn failure(store: &dyn Datastore, op: &StoreOp, kind: FailureKind) -> String {
    match store.run(op) {
        Reply::Failed(error) => {
            assert_eq!(error.kind, kind, "{error}");
            assert!(error.message.starts_with(store.name()), "{error}");
            error.message
        }
        other => panic!("{op:?}: {other:?}"),
    }
}
