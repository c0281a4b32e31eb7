//! Pods as endpoints.

use buoy_api::ObjectMeta;
use buoy_api::v3::{WorkloadEndpoint, WorkloadEndpointSpec};
use buoy_core::store::{FailureKind, Key, Prefix, Reply, StoreOp, Value};
use buoy_datastore::kubernetes::Options;
use buoy_datastore::{Datastore, Event};
use buoy_kubeserver::ADMIN;

use super::backend::{ApiServerBackend, api_server};
use super::failure;
use crate::tools::{Backend, events_until, get, list, written};

pub(super) fn pod(name: &str, node: &str, annotations: &str) -> String {
    format!(
        r#"{{"apiVersion": "v1", "kind": "Pod",
        "metadata": {{"namespace": "default", "name": "{name}", "annotations": {annotations}}},
        "spec": {{"nodeName": "{node}", "containers": [{{"name": "c", "image": "i"}}]}}}}"#
    )
}

pub(super) fn key(name: &str) -> Key {
    Key::Endpoint {
        namespace: "default".to_owned(),
        name: format!("n1-k8s-{name}-eth0"),
    }
}

pub(super) fn endpoint(name: &str, container: &str, address: &str) -> Value {
    let spec = WorkloadEndpointSpec {
        orchestrator: "k8s".to_owned(),
        node: "n1".to_owned(),
        pod: name.to_owned(),
        endpoint: "eth0".to_owned(),
        container_id: container.to_owned(),
        ip_networks: vec![address.parse().unwrap()],
        ..WorkloadEndpointSpec::default()
    };
    let metadata = ObjectMeta::namespaced("default", format!("n1-k8s-{name}-eth0"));
    Value::Endpoint(WorkloadEndpoint::new(metadata, spec))
}

fn found(store: &dyn Datastore, name: &str) -> Option<WorkloadEndpoint> {
    match get(store, &key(name))?.value.unwrap() {
        Value::Endpoint(endpoint) => Some(endpoint),
        other => panic!("{other:?}"),
    }
}

fn annotate(backend: &ApiServerBackend, pod: &str, annotation: &str) {
    let args = ["annotate", "pod", pod, annotation, "--overwrite"];
    backend.server().kubectl(&args, "").unwrap();
}

#[test]
fn an_endpoint_comes_and_goes_with_notes_on_its_pod() {
    let backend = api_server();
    let store = backend.open();
    backend.create(&pod(
        "web",
        "n1",
        r#"{"cni.projectcalico.org/floatingIPs": "[\"172.16.1.3\"]"}"#,
    ));
    let (records, from) = list(&*store, Prefix::Endpoints);
    assert_eq!(
        (records, get(&*store, &key("web"))),
        (Vec::new(), None),
        "it has not begun"
    );
    let mut watch = store.watch(&[(Prefix::Endpoints, from)]).unwrap();

    let create = StoreOp::Create(key("web"), endpoint("web", "c0ffee", "10.65.0.7/32"));
    let created = written(store.run(&create));
    assert_eq!(store.run(&create), Reply::Conflict);
    let first = found(&*store, "web").unwrap();
    assert_eq!(first.spec.container_id, "c0ffee");
    assert_eq!(first.spec.ip_networks, ["10.65.0.7/32".parse().unwrap()]);
    assert_eq!(first.spec.ip_nats[0].internal_ip, "10.65.0.7");
    assert_eq!(
        events_until(watch.as_mut(), created),
        [Event::Put(get(&*store, &key("web")).unwrap())]
    );

    // A container in its place, and another request of a person.
    let again = endpoint("web", "beef", "10.65.0.8/32");
    let updated = written(store.run(&StoreOp::Update(key("web"), again, created)));
    annotate(
        &backend,
        "web",
        "cni.projectcalico.org/floatingIPs=[\"172.16.1.4\"]",
    );
    let record = get(&*store, &key("web")).unwrap();
    assert!(record.revision > updated);
    let second = found(&*store, "web").unwrap();
    assert_eq!(
        (
            second.spec.container_id.as_str(),
            second.spec.ip_nats[0].external_ip.as_str()
        ),
        ("beef", "172.16.1.4")
    );
    let events = events_until(watch.as_mut(), record.revision);
    assert_eq!(events.last(), Some(&Event::Put(record.clone())));

    assert_eq!(store.run(&StoreOp::Delete(key("web"), updated)), Reply::Conflict);
    assert_eq!(
        store.run(&StoreOp::Delete(key("web"), record.revision)),
        Reply::Deleted
    );
    assert_eq!(found(&*store, "web"), None);
    let create = StoreOp::Create(key("web"), endpoint("web", "c0de", "10.65.0.9/32"));
    let last = written(store.run(&create));
    let events = events_until(watch.as_mut(), last);
    let newest = get(&*store, &key("web")).unwrap();
    assert_eq!(
        events,
        [
            Event::Deleted(key("web"), events[0].revision()),
            Event::Put(newest)
        ]
    );
}

#[test]
fn a_malformed_pod_hides_no_other_and_can_be_taken_down() {
    let backend = api_server();
    let store = backend.open();
    for name in ["good", "bad"] {
        backend.create(&pod(name, "n1", "{}"));
        let create = StoreOp::Create(key(name), endpoint(name, name, "10.65.0.7/32"));
        written(store.run(&create));
    }
    annotate(&backend, "bad", "cni.projectcalico.org/floatingIPs={not json");
    annotate(&backend, "bad", "cni.projectcalico.org/podIPs=garbage");
    let (records, _) = list(&*store, Prefix::Endpoints);
    let keys: Vec<Key> = records.iter().map(|record| record.key.clone()).collect();
    assert_eq!(keys, [key("bad"), key("good")]);
    assert!(records.iter().all(|record| record.value.is_ok()));
    let delete = StoreOp::Delete(key("bad"), records[0].revision);
    assert_eq!(store.run(&delete), Reply::Deleted);
    assert_eq!(found(&*store, "bad"), None);
}

#[test]
fn only_pods_have_endpoints() {
    let backend = api_server();
    let store = backend.open();
    let create = StoreOp::Create(key("web"), endpoint("web", "c0ffee", "10.65.0.7/32"));
    let message = failure(&*store, &create, FailureKind::Refused);
    assert!(message.contains("Kubernetes has no Pod"), "{message}");
    // It runs elsewhere than the record says, and an agent of another node hears nothing of it.
    backend.create(&pod("web", "n2", "{}"));
    assert_eq!(store.run(&create), Reply::Conflict);
    let own = Options {
        node: Some("n1".to_owned()),
        ..Options::default()
    };
    let own = backend.open_with(ADMIN, own);
    backend.create(&pod(
        "ours",
        "n1",
        r#"{"cni.projectcalico.org/podIP": "10.65.0.7"}"#,
    ));
    backend.create(&pod(
        "theirs",
        "n2",
        r#"{"cni.projectcalico.org/podIP": "10.65.0.8"}"#,
    ));
    let keys = |store: &dyn Datastore| -> Vec<Key> {
        let (records, _) = list(store, Prefix::Endpoints);
        records.into_iter().map(|record| record.key).collect()
    };
    assert_eq!(keys(&*own), [key("ours")]);
    assert_eq!(keys(&*store).len(), 2);
    let container = Key::Endpoint {
        namespace: "default".to_owned(),
        name: "n1-cni-c0ffee-eth0".to_owned(),
    };
    let message = failure(&*store, &StoreOp::Get(container), FailureKind::Invalid);
    assert!(
        message.contains("only pods have endpoints in Kubernetes"),
        "{message}"
    );
}
