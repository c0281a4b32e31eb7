//! From an ADD to the record that it leaves, compared as a whole with what Calico's plugin writes for the same ADD: names,
//! times, addresses and MACs aside.

use super::*;
use buoy_core::edit::Change as Edit;
use buoy_core::records::{endpoint_key, published};
use buoy_core::store::StoreOp;
use buoy_datastore::codec::{Change, Moment, change};
use serde_json::{Value as Json, json};

const UID: &str = "7d1f0c1e-0000-4000-8000-000000000001";
const MAC: &str = "1c:0c:0a:c0:ff:ee";

/// What an ADD leaves in a store that keeps Calico's bytes, once it has these addresses.
fn left(args: &str, config: Json, addresses: &[&str]) -> Json {
    let mut whole = json!({
        "cniVersion": "1.0.0", "name": "net1", "type": "calico", "ipam": {"type": "calico-ipam"},
        "feature_control": {"floating_ips": true},
    });
    for (field, value) in config.as_object().unwrap() {
        whole[field] = value.clone();
    }
    let add = AddRequest {
        container_id: "c0000000001".into(),
        ifname: "eth0".into(),
        netns_path: "/run/netns/x".into(),
        args: args.into(),
        path: "/opt/cni/bin".into(),
        config: whole,
        delegated: None,
        deadline_ms: 1000,
    };
    let netns = Netns {
        path: add.netns_path.clone(),
        device: 1,
        inode: 2,
    };
    let read = parse(
        &add,
        netns,
        "node1",
        &|configured| configured,
        Timestamp::UNIX_EPOCH,
    );
    let mut attachment = read.unwrap().attachment;
    attachment.addresses = Some(addresses.iter().map(|text| text.parse().unwrap()).collect());
    let Edit::Put(value) = published(None, &attachment, "node1") else {
        panic!("nothing is published")
    };
    let create = StoreOp::Create(endpoint_key(&attachment), *value);
    let moment = || Moment {
        now: "2026-03-01T08:00:00.5Z".parse().unwrap(),
        uid: UID.to_owned(),
    };
    match change(&create, None, moment).unwrap() {
        Change::Put(bytes) => serde_json::from_slice(&bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn annotated(annotations: &Json) -> Json {
    let mut annotations = annotations.clone();
    annotations["cni.projectcalico.org/hwAddr"] = MAC.into();
    json!({"runtimeConfig": {"io.kubernetes.cri.pod-annotations": annotations}})
}

/// What Calico writes.
fn calico(namespace: &str, name: &str, labels: Json, spec: Json) -> Json {
    json!({
        "kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3",
        "metadata": {
            "name": name, "namespace": namespace, "uid": UID, "creationTimestamp": "2026-03-01T08:00:00Z",
            "labels": labels,
        },
        "spec": spec,
    })
}

#[test]
fn a_container_is_recorded_as_by_calico() {
    let mac = json!({"runtimeConfig": {"mac": MAC}});
    let addresses = ["10.65.166.158/26", "fd00:65::c11:b42f:f17e:a680/122"];
    let expected = calico(
        "default",
        "node1-cni-c0000000001-eth0",
        json!({"projectcalico.org/namespace": "default", "projectcalico.org/orchestrator": "cni"}),
        json!({
            "orchestrator": "cni", "node": "node1", "containerID": "c0000000001", "endpoint": "eth0",
            "ipNetworks": ["10.65.166.158/32", "fd00:65::c11:b42f:f17e:a680/128"],
            "profiles": ["net1"], "interfaceName": "calic0000000001", "mac": MAC,
        }),
    );
    assert_eq!(left("", mac.clone(), &addresses), expected);
    assert_eq!(left("K8S_POD_NAMESPACE=default", mac, &addresses), expected);
}

/// Calico's plugin reads labels where Mesos put them; here they are read where CNI's conventions have them.
#[test]
fn a_container_with_labels_is_recorded_as_by_calico() {
    let config = json!({
        "runtimeConfig": {"mac": MAC},
        "args": {"cni": {"labels": [{"key": "app", "value": "web-front"}]}},
    });
    let expected = calico(
        "ns9",
        "node1-cni-c0000000001-eth0",
        json!({
            "app": "web-front", "projectcalico.org/namespace": "ns9", "projectcalico.org/orchestrator": "cni",
        }),
        json!({
            "orchestrator": "cni", "node": "node1", "containerID": "c0000000001", "endpoint": "eth0",
            "ipNetworks": ["10.65.166.154/32"], "profiles": ["net1"], "interfaceName": "calic0000000001", "mac": MAC,
        }),
    );
    let found = left("K8S_POD_NAMESPACE=ns9", config, &["10.65.166.154/26"]);
    assert_eq!(found, expected);
}

/// Calico's plugin asks Kubernetes for the pod. Here nobody on a node does where etcd is the datastore: what only the pod
/// itself says is not in the record.
fn without_the_pod(mut record: Json) -> Json {
    for field in ["serviceAccountName", "ports"] {
        record["spec"].as_object_mut().unwrap().remove(field).unwrap();
    }
    record["spec"]["profiles"] = json!(["kns.gold"]);
    let labels = record["metadata"]["labels"].as_object_mut().unwrap();
    labels.retain(|key, _| {
        ["projectcalico.org/namespace", "projectcalico.org/orchestrator"].contains(&key.as_str())
    });
    record
}

fn pod(networks: Json, more: &Json) -> Json {
    let mut record = calico(
        "gold",
        "node1-k8s-pod1-eth0",
        json!({
            "app": "x", "projectcalico.org/namespace": "gold", "projectcalico.org/orchestrator": "k8s",
            "projectcalico.org/serviceaccount": "default",
        }),
        json!({
            "orchestrator": "k8s", "node": "node1", "containerID": "c0000000001", "pod": "pod1", "endpoint": "eth0",
            "serviceAccountName": "default", "ipNetworks": networks, "profiles": ["kns.gold", "ksa.gold.default"],
            "interfaceName": "cali6c4b0f417d7", "mac": MAC,
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "hostPort": 0, "hostIP": ""}],
        }),
    );
    for (field, value) in more.as_object().unwrap() {
        record["spec"][field] = value.clone();
    }
    record
}

#[test]
fn a_pod_is_recorded_in_etcd_as_by_calico_but_for_what_only_kubernetes_knows() {
    let args =
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=gold;K8S_POD_NAME=pod1;K8S_POD_INFRA_CONTAINER_ID=c0000000001";
    let v4 = ("10.65.195.139/26", json!(["10.65.195.139/32"]));
    let nat = |internal: &str, external: &str| json!({"internalIP": internal, "externalIP": external});
    for (annotations, more) in [
        (json!({}), json!({})),
        (
            json!({"cni.projectcalico.org/floatingIPs": r#"["203.0.113.8", "203.0.113.9"]"#}),
            json!({"ipNATs": [nat("10.65.195.139", "203.0.113.8"), nat("10.65.195.139", "203.0.113.9")]}),
        ),
        (
            json!({"cni.projectcalico.org/allowedSourcePrefixes": r#"["10.9.0.0/16"]"#}),
            json!({"allowSpoofedSourcePrefixes": ["10.9.0.0/16"]}),
        ),
    ] {
        let expected = without_the_pod(pod(v4.1.clone(), &more));
        assert_eq!(left(args, annotated(&annotations), &[v4.0]), expected);
    }
    let both = json!({
        "cni.projectcalico.org/ipFamilies": r#"["IPv4", "IPv6"]"#,
        "cni.projectcalico.org/floatingIPs": r#"["203.0.113.8", "2001:db8::9"]"#,
    });
    let more = json!({
        "ipNATs": [nat("10.65.195.139", "203.0.113.8"), nat("fd00:65::c380", "2001:db8::9")],
    });
    let networks = json!(["10.65.195.139/32", "fd00:65::c380/128"]);
    let expected = without_the_pod(pod(networks, &more));
    let found = left(args, annotated(&both), &["10.65.195.139/26", "fd00:65::c380/122"]);
    assert_eq!(found, expected);
}
