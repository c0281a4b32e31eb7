//! What Kubernetes has anyway: nodes, namespaces, leases.

use buoy_api::ObjectMeta;
use buoy_api::binding::Term;
use buoy_api::lease::{NodeLease, NodeLeaseSpec};
use buoy_api::v3::{Node, NodeSpec};
use buoy_core::edit::{Change, Edit};
use buoy_core::records;
use buoy_core::store::{FailureKind, Key, Prefix, Reply, Revision, StoreOp, Value};
use buoy_datastore::drive;

use super::backend::{DEPLOY, api_server, own_api_server};
use super::failure;
use crate::tools::{Backend, get, list, written};

pub(super) const NODE: &str = r#"{"apiVersion": "v1", "kind": "Node",
    "metadata": {"name": "n1", "labels": {"zone": "a"}, "annotations": {"theirs": "x"}}}"#;

#[test]
fn a_node_is_kubernetes_own_with_our_notes() {
    let backend = api_server();
    let store = backend.open();
    let key = Key::Node("n1".to_owned());
    let edit = || {
        let addresses = ["192.0.2.1/24".parse().unwrap()];
        let note = move |found: Option<&Value>| records::node(found, "n1", "1.0", &addresses);
        drive(&*store, Edit::new(Key::Node("n1".to_owned()), note))
    };
    let error = edit().unwrap_err().to_string();
    assert!(error.contains("Kubernetes has no Node"), "{error}");
    backend.create(NODE);
    edit().unwrap();
    let record = get(&*store, &key).unwrap();
    let Ok(Value::Node(node)) = record.value else {
        panic!("{record:?}")
    };
    assert_eq!(node.metadata.annotations["theirs"], "x");
    assert_eq!(node.metadata.annotations["buoy.dev/agent"], "1.0");
    let bgp = node.spec.bgp.unwrap();
    assert_eq!(bgp.ipv4_address.unwrap().to_string(), "192.0.2.1/24");
    edit().unwrap();
    assert_eq!(
        get(&*store, &key).unwrap().revision,
        record.revision,
        "nothing is left to say"
    );
    let noted = "jsonpath={.metadata.annotations.projectcalico\\.org/IPv4Address}";
    let noted = backend.server().kubectl(&["get", "node", "n1", "-o", noted], "");
    assert_eq!(noted.unwrap(), "192.0.2.1/24");

    let delete = StoreOp::Delete(key, record.revision);
    failure(&*store, &delete, FailureKind::Invalid);
    let other = Value::Node(Node::new(ObjectMeta::named("n2"), NodeSpec::default()));
    let create = StoreOp::Create(Key::Node("n2".to_owned()), other);
    failure(&*store, &create, FailureKind::Refused);
}

#[test]
fn a_namespace_is_a_profile() {
    let backend = api_server();
    let store = backend.open();
    backend.create(r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"tier": "gold"}}}"#);
    let (records, _) = list(&*store, Prefix::Profiles);
    let shop = records
        .iter()
        .find(|record| record.key == Key::Profile("kns.shop".to_owned()));
    let Some(Ok(Value::Profile(profile))) = shop.map(|record| &record.value) else {
        panic!("{records:?}")
    };
    assert_eq!(profile.spec.labels_to_apply["pcns.tier"], "gold");
    let create = StoreOp::Create(
        Key::Profile("kns.new".to_owned()),
        Value::Profile(profile.clone()),
    );
    failure(&*store, &create, FailureKind::Refused);
}

#[test]
fn a_lease_is_written_by_who_read_it_last() {
    let backend = own_api_server();
    let store = backend.open();
    let key = Key::Lease("n1".to_owned());
    let lease = |term: u64| {
        let spec = NodeLeaseSpec {
            holder: (term > 0).then(|| "me".to_owned()),
            term: Term(term),
            duration_seconds: 6,
            renewed: Some("2026-03-01T08:00:00.5Z".parse().unwrap()),
            ..NodeLeaseSpec::default()
        };
        Value::Lease(NodeLease::new(ObjectMeta::named("n1"), spec))
    };
    let message = failure(
        &*store,
        &StoreOp::Create(key.clone(), lease(1)),
        FailureKind::Refused,
    );
    assert!(message.contains("buoy-system"), "{message}");
    let rights = format!("{DEPLOY}/rbac.yaml");
    backend.server().create(&[rights.as_ref()]).unwrap();
    let first = written(store.run(&StoreOp::Create(key.clone(), lease(1))));
    let second = written(store.run(&StoreOp::Update(key.clone(), lease(0), first)));
    let late = StoreOp::Update(key.clone(), lease(2), first);
    assert_eq!(store.run(&late), Reply::Conflict);
    let (records, _) = list(&*store, Prefix::Leases);
    assert_eq!(records.len(), 1);
    assert_eq!((&records[0].key, records[0].revision), (&key, second));
    let Ok(Value::Lease(found)) = &records[0].value else {
        panic!("{records:?}")
    };
    let Value::Lease(expected) = lease(0) else {
        unreachable!()
    };
    assert_eq!(found.spec, expected.spec);
    assert_eq!(store.run(&StoreOp::Delete(key, Revision(1))), Reply::Conflict);
    assert_eq!(edit_nothing(&*store), Ok(()));
}

fn edit_nothing(store: &dyn buoy_datastore::Datastore) -> Result<(), buoy_core::edit::EditError> {
    drive(
        store,
        Edit::new(Key::Lease("n1".to_owned()), |_: Option<&Value>| Change::Keep),
    )
}
