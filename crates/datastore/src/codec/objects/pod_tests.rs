//! Pods and their endpoints.

use buoy_api::annotations::Readiness;
use buoy_api::v3::WorkloadEndpoint;

use super::*;

fn pod(annotations: Json, spec: Json, status: Json) -> Extra {
    let mut pod = json!({
        "metadata": {"namespace": "shop", "name": "web-0", "uid": "u", "labels": {"app": "web"}, "annotations": annotations},
        "spec": {"nodeName": "node-a", "serviceAccountName": "default"},
        "status": status,
    });
    for (field, value) in spec.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    object(pod)
}

fn running() -> Json {
    json!({"phase": "Running", "podIPs": [{"ip": "10.65.0.7"}, {"ip": "fd80::7"}]})
}

fn endpoint(pod: &Extra) -> Option<WorkloadEndpoint> {
    let found = read(place::PODS, pod)?;
    let name = "node--a-k8s-web--0-eth0".to_owned();
    assert_eq!(
        found.key,
        Key::Endpoint {
            namespace: "shop".to_owned(),
            name
        }
    );
    match found.value?.unwrap() {
        Value::Endpoint(endpoint) => Some(endpoint),
        other => panic!("{other:?}"),
    }
}

fn networks(pod: &Extra) -> Vec<String> {
    let endpoint = endpoint(pod).unwrap();
    endpoint
        .spec
        .ip_networks
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_pod_is_the_endpoint_that_calico_makes_of_it() {
    let annotations = json!({
        "cni.projectcalico.org/containerID": "c0ffee",
        "cni.projectcalico.org/floatingIPs": r#"["10.70.0.1", "fd70::1"]"#,
    });
    let spec = json!({"containers": [{"ports": [
        {"name": "http", "containerPort": 80},
        {"containerPort": 81},
        {"containerPort": 53, "protocol": "UDP", "hostPort": 5353},
    ]}]});
    let endpoint = endpoint(&pod(annotations, spec, running())).unwrap();
    let expected = json!({
        "orchestrator": "k8s", "node": "node-a", "pod": "web-0", "containerID": "c0ffee", "endpoint": "eth0",
        "interfaceName": buoy_api::names::pod_link("shop", "web-0"),
        "ipNetworks": ["10.65.0.7/32", "fd80::7/128"],
        "ipNATs": [
            {"internalIP": "10.65.0.7", "externalIP": "10.70.0.1"},
            {"internalIP": "fd80::7", "externalIP": "fd70::1"},
        ],
        "profiles": ["kns.shop", "ksa.shop.default"], "serviceAccountName": "default",
        "ports": [
            {"name": "http", "port": 80, "protocol": "TCP", "hostPort": 0, "hostIP": ""},
            {"port": 53, "protocol": "UDP", "hostPort": 5353, "hostIP": ""},
        ],
    });
    assert_eq!(json!(endpoint.spec), expected);
    assert_eq!(endpoint.metadata.labels["app"], "web");
    assert_eq!(endpoint.metadata.labels["projectcalico.org/namespace"], "shop");
    assert_eq!(endpoint.metadata.uid.as_deref(), Some("u"));
}

#[test]
fn the_kubelet_s_word_on_addresses_is_better_than_an_annotation() {
    let claimed = json!({"cni.projectcalico.org/podIP": "10.0.0.1/32", "cni.projectcalico.org/podIPs": "10.0.0.1/32,fd80::1/128"});
    assert_eq!(
        networks(&pod(claimed.clone(), json!({}), running())),
        ["10.65.0.7/32", "fd80::7/128"]
    );
    let single = json!({"podIP": "10.65.0.8"});
    assert_eq!(
        networks(&pod(claimed.clone(), json!({}), single)),
        ["10.65.0.8/32"]
    );
    assert_eq!(
        networks(&pod(claimed, json!({}), json!({}))),
        ["10.0.0.1/32", "fd80::1/128"]
    );
}

#[test]
fn what_is_malformed_asks_for_nothing_and_hides_nothing() {
    for text in ["not json", "[1]", r#"["10.70.0.300"]"#, "{}"] {
        let annotations = json!({
            "cni.projectcalico.org/floatingIPs": text,
            "cni.projectcalico.org/podIPs": "garbage",
            "cni.projectcalico.org/allowedSourcePrefixes": text,
        });
        let endpoint = endpoint(&pod(annotations, json!({}), running())).unwrap();
        assert_eq!(endpoint.spec.ip_nats.len(), 1, "{text}");
        assert!(
            endpoint.spec.ip_nats[0]
                .external_ip
                .parse::<std::net::IpAddr>()
                .is_err()
        );
        assert_eq!(endpoint.spec.ip_networks.len(), 2);
        assert_eq!(endpoint.spec.allow_spoofed_source_prefixes, []);
    }
}

#[test]
fn pods_without_an_endpoint() {
    let none = json!({});
    for (annotations, spec, status) in [
        (none.clone(), json!({"hostNetwork": true}), running()),
        (none.clone(), none.clone(), json!({"phase": "Pending"})),
        (
            none.clone(),
            none.clone(),
            json!({"phase": "Succeeded", "podIP": "10.65.0.7"}),
        ),
        (
            none.clone(),
            none.clone(),
            json!({"phase": "Failed", "podIP": "10.65.0.7"}),
        ),
        (
            json!({"cni.projectcalico.org/podIP": ""}),
            none.clone(),
            running(),
        ),
    ] {
        let pod = pod(annotations, spec, status);
        assert_eq!(endpoint(&pod), None, "{pod:?}");
        assert!(read(place::PODS, &pod).is_some(), "its key is known");
    }
    let unscheduled = pod(none, json!({"nodeName": ""}), running());
    assert!(read(place::PODS, &unscheduled).is_none());
}

#[test]
fn readiness_is_the_pods_condition_and_ends_with_its_deletion() {
    let readiness = |conditions: Json, deleted: bool| {
        let status = json!({"phase": "Running", "podIP": "10.65.0.7", "conditions": conditions});
        let mut pod = pod(json!({}), json!({}), status);
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        Readiness::of(&endpoint(&pod).unwrap().metadata.annotations)
    };
    let condition = |status: &str| json!([{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": status}]);
    assert_eq!(readiness(condition("True"), false), Some(Readiness::Ready));
    assert_eq!(readiness(condition("False"), false), Some(Readiness::NotReady));
    assert_eq!(readiness(json!([]), false), Some(Readiness::NotReady));
    assert_eq!(readiness(condition("True"), true), Some(Readiness::Going));
}

#[test]
fn an_endpoint_is_noted_on_its_pod_and_taken_off() {
    let annotations = json!({"cni.projectcalico.org/containerID": "c0ffee"});
    let found = read(place::PODS, &pod(annotations, json!({}), running())).unwrap();
    let value = found.value.unwrap().unwrap();
    let form = update(place::PODS, &found.key, &value, None, Revision(7)).unwrap();
    assert_eq!(
        whole(form),
        json!({"metadata": {"resourceVersion": "7", "annotations": {
            "cni.projectcalico.org/containerID": "c0ffee",
            "cni.projectcalico.org/podIP": "10.65.0.7/32",
            "cni.projectcalico.org/podIPs": "10.65.0.7/32,fd80::7/128"}}})
    );
    let form = removal(&found.key, Revision(8)).unwrap();
    assert_eq!(
        whole(form),
        json!({"metadata": {"resourceVersion": "8", "annotations": {
            "cni.projectcalico.org/containerID": null,
            "cni.projectcalico.org/podIP": "",
            "cni.projectcalico.org/podIPs": ""}}})
    );
}

/// A pod as Calico's plugin left it, and the record that Calico writes into etcd for the same pod.
#[test]
fn a_pod_that_calico_has_noted_is_the_record_that_calico_writes() {
    let asked = json!({
        "cni.projectcalico.org/allowedSourcePrefixes": r#"["10.9.0.0/16"]"#,
        "cni.projectcalico.org/floatingIPs": r#"["203.0.113.8","2001:db8::9"]"#,
        "cni.projectcalico.org/ipFamilies": r#"["IPv4","IPv6"]"#,
    });
    let mut left = asked.clone();
    for (key, value) in [
        ("containerID", "c0000000001"),
        ("podIP", "10.65.195.150/32"),
        ("podIPs", "10.65.195.150/32,fd00:65::c380/128"),
    ] {
        left[format!("cni.projectcalico.org/{key}")] = value.into();
    }
    let noted = |annotations: &Json| {
        let port = json!({"containerPort": 80, "name": "http", "protocol": "TCP"});
        object(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "pod1", "namespace": "gold", "uid": "u", "resourceVersion": "22588",
                "creationTimestamp": "2026-03-01T08:00:00Z", "labels": {"app": "x"}, "annotations": annotations,
            },
            "spec": {"nodeName": "node1", "serviceAccountName": "default", "containers": [{"name": "c", "ports": [port]}]},
            "status": {"phase": "Pending", "qosClass": "BestEffort"},
        }))
    };
    let found = read(place::PODS, &noted(&left)).unwrap().value.unwrap();
    let Ok(Value::Endpoint(record)) = found else {
        panic!("{found:?}")
    };
    // Its MAC is in no pod; whether it serves is this project's own to know.
    let nat = |internal: &str, external: &str| json!({"internalIP": internal, "externalIP": external});
    let expected = json!({
        "kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3",
        "metadata": {
            "name": "node1-k8s-pod1-eth0", "namespace": "gold", "uid": "u", "creationTimestamp": "2026-03-01T08:00:00Z",
            "annotations": {"buoy.dev/readiness": "NotReady"},
            "labels": {
                "app": "x", "projectcalico.org/namespace": "gold", "projectcalico.org/orchestrator": "k8s",
                "projectcalico.org/serviceaccount": "default",
            },
        },
        "spec": {
            "orchestrator": "k8s", "node": "node1", "containerID": "c0000000001", "pod": "pod1", "endpoint": "eth0",
            "serviceAccountName": "default", "ipNetworks": ["10.65.195.150/32", "fd00:65::c380/128"],
            "ipNATs": [nat("10.65.195.150", "203.0.113.8"), nat("fd00:65::c380", "2001:db8::9")],
            "profiles": ["kns.gold", "ksa.gold.default"], "interfaceName": "cali6c4b0f417d7",
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "hostPort": 0, "hostIP": ""}],
            "allowSpoofedSourcePrefixes": ["10.9.0.0/16"],
        },
    });
    let bytes = crate::codec::encode(&Value::Endpoint(record.clone())).unwrap();
    assert_eq!(serde_json::from_slice::<Json>(&bytes).unwrap(), expected);

    // What this project notes for it are Calico's notes, to the letter.
    let mut noted_here = json!(noted(&asked));
    let patch = json!(super::super::pod::patch(&record));
    for (key, value) in patch["metadata"]["annotations"].as_object().unwrap() {
        noted_here["metadata"]["annotations"][key] = value.clone();
    }
    assert_eq!(noted_here, json!(noted(&left)));
    assert_eq!(patch.as_object().unwrap().len(), 1);
}
