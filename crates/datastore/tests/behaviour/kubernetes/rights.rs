//! Rights that are missing are named. That an agent needs those of `deploy/rbac.yaml`, each of them and no other, the built agent
//! shows (`crates/agent/tests/kubernetes/rights.rs`).

use std::path::Path;

use buoy_core::store::{FailureKind, Key, Prefix, Revision, StoreOp};

use super::backend::{ApiServerBackend, DEPLOY, own_api_server};
use super::failure;
use crate::tools::list;

#[test]
fn a_missing_right_is_named() {
    let backend = own_api_server();
    let store = backend.open_as("nobody");
    let message = failure(&*store, &StoreOp::List(Prefix::Pools), FailureKind::Refused);
    for part in [
        "User \"nobody\" cannot list resource \"ippools\"",
        "see deploy/rbac*.yaml",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let delete = StoreOp::Delete(Key::Binding("172-16-1-3".to_owned()), Revision(1));
    let message = failure(&*store, &delete, FailureKind::Refused);
    assert!(
        message.contains("cannot delete resource \"floatingipbindings\""),
        "{message}"
    );
    take_away(&backend);
}

/// One verb is missing from the agent's rights: the message names it, and the others work on.
fn take_away(backend: &ApiServerBackend) {
    let manifest = std::fs::read_to_string(Path::new(DEPLOY).join("rbac.yaml")).unwrap();
    let without = manifest.replace(
        "resources: [namespaces]\n  verbs: [list, watch]",
        "resources: [namespaces]\n  verbs: [list]",
    );
    assert_ne!(manifest, without);
    backend.create(&without);
    let store = backend.open_as("agent");
    let (_, from) = list(&*store, Prefix::Profiles);
    match store.watch(&[(Prefix::Pools, from), (Prefix::Profiles, from)]) {
        Err(error) => assert!(
            error.to_string().contains("cannot watch resource \"namespaces\""),
            "{error}"
        ),
        Ok(watch) => panic!("{watch:?}"),
    }
    assert!(store.watch(&[(Prefix::Pools, from)]).is_ok());
}
