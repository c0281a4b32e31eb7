//! What is asked of a cluster beside its records.

use buoy_core::store::FailureKind;
use buoy_datastore::kubernetes::Policies;
use buoy_kubeserver::ADMIN;
use serde_json::json;

use super::backend::{api_server, bare_api_server};

const GLOBAL: &str = "globalnetworkpolicies.crd.projectcalico.org";

#[test]
fn policies_of_every_kind_are_found() {
    let backend = bare_api_server();
    let cluster = backend.cluster(ADMIN);
    assert_eq!(cluster.policies(), Ok(Policies::default()));

    // Calico's definitions may be missing, or there.
    define_global(&backend);
    for name in ["a", "b"] {
        backend.create(&policy("networking.k8s.io/v1", "NetworkPolicy", name));
    }
    backend.create(&policy("crd.projectcalico.org/v1", "GlobalNetworkPolicy", "c"));
    let kind = "networkpolicies.networking.k8s.io default";
    let some = vec![format!("{kind}/a"), format!("{kind}/b"), format!("{GLOBAL} c")];
    assert_eq!(cluster.policies(), Ok(Policies { some, more: false }));

    for name in ["d", "e"] {
        backend.create(&policy("networking.k8s.io/v1", "NetworkPolicy", name));
    }
    let found = cluster.policies().unwrap();
    assert!(found.more && found.some.len() == 4, "{found:?}");

    let refused = backend.cluster("nobody").policies().unwrap_err();
    assert_eq!(refused.kind, FailureKind::Refused);
    assert!(
        refused
            .message
            .contains("cannot list resource \"networkpolicies\""),
        "{refused}"
    );
}

#[test]
fn a_config_map_is_its_texts() {
    let backend = api_server();
    let cluster = backend.cluster(ADMIN);
    assert_eq!(cluster.config_map("kube-system", "calico-config"), Ok(None));
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "calico-config", "namespace": "kube-system"},
        "data": {"veth_mtu": "0"}, "binaryData": {"more": "Zm8="}});
    backend.create(&object.to_string());
    let found = cluster.config_map("kube-system", "calico-config").unwrap();
    assert_eq!(found, Some([("veth_mtu".to_owned(), "0".to_owned())].into()));
}

fn define_global(backend: &super::backend::ApiServerBackend) {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": GLOBAL},
        "spec": {
            "group": "crd.projectcalico.org",
            "names": {"kind": "GlobalNetworkPolicy", "plural": "globalnetworkpolicies"},
            "scope": "Cluster",
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": open}}],
        },
    });
    let server = backend.server();
    server
        .kubectl(&["create", "-f", "-"], &definition.to_string())
        .unwrap();
    let wait = ["wait", "--for=condition=Established", "crd", GLOBAL];
    server.kubectl(&wait, "").unwrap();
}

fn policy(version: &str, kind: &str, name: &str) -> String {
    let spec = json!({"podSelector": {}});
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}).to_string()
}
