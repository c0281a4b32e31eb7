//! The built agent on a real API server, with exactly its rights, in a network namespace of its own.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]
#![expect(clippy::print_stdout, reason = "what an ADD costs is to be read, too")]

mod bed;
mod proxies;
mod requests;
mod rights;
mod tokens;

use buoy_kubeserver::AGENT;
use serde_json::{Value as Json, json};

use crate::bed::{Bed, NODE, Pod};

const POOL: &str = r#"{"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "pods"},
    "spec": {"cidr": "10.65.0.0/24", "blockSize": 26, "ipipMode": "Never", "vxlanMode": "Never"}}"#;

#[test]
fn an_agent_begins_notes_its_node_and_outlives_its_server() {
    let mut bed = Bed::begin(&[]);
    // Until there is a node to note it on, it waits.
    bed.create(NODE);
    let address = "/metadata/annotations/projectcalico.org~1IPv4Address";
    bed.until_is("node/n1", address, &json!("192.0.2.1/24"));
    let cluster = "clusterinformations.crd.projectcalico.org/default";
    bed.until_is(cluster, "/spec/datastoreReady", &json!(true));

    // Before the server changes: one that has just begun does not know yet who may do what.
    was_denied_nothing(&bed);

    // Another server in its place: what somebody changes is seen, and put right.
    bed.server.replace().unwrap();
    let forget = ["annotate", "node", "n1", "buoy.dev/agent-"];
    bed.server.kubectl(&forget, "").unwrap();
    let version = json!(env!("CARGO_PKG_VERSION"));
    bed.until_is("node/n1", "/metadata/annotations/buoy.dev~1agent", &version);
}

#[test]
fn a_pod_is_told_what_is_wrong_with_its_requests() {
    let bed = Bed::begun(&[], &[POOL]);
    let pod = Pod::new(&bed, "web-0", json!({}));

    // An ADD that asks for what cannot be read fails, and the pod says why.
    let malformed = json!({"cni.projectcalico.org/floatingIPs": "172.16.1.3"});
    let error = pod.add_addresses(&bed, malformed).unwrap_err();
    assert!(error.msg.contains("cni.projectcalico.org/floatingIPs"), "{error}");
    let failed = bed.event("AttachFailed");
    assert_eq!(failed["type"], "Warning");
    let told = failed["note"].as_str().unwrap();
    assert!(told.contains(&error.msg), "{told}");
    assert_eq!(failed["regarding"]["uid"], pod.uid());

    // One that asks for nothing special succeeds. What is written on the running pod afterwards is told, and nothing else
    // comes of it.
    pod.add_addresses(&bed, json!({})).unwrap();
    let annotate = |annotation: &str| {
        let words = ["annotate", "--overwrite", "pod", "web-0", annotation];
        bed.server.kubectl(&words, "").unwrap();
    };
    annotate("cni.projectcalico.org/podIP=10.65.0.1/32");
    annotate("cni.projectcalico.org/containerID=c0ffee-web-0");
    annotate(r#"cni.projectcalico.org/ipAddrs=["10.65.0.9"]"#);
    let late = bed.event("FixedIPIgnored");
    assert!(late["note"].as_str().unwrap().contains("has no effect"), "{late}");
    annotate("cni.projectcalico.org/floatingIPs=[172.16");
    let malformed = bed.event("FloatingIPMalformed");
    assert!(
        malformed["note"].as_str().unwrap().contains("[172.16"),
        "{malformed}"
    );
    let described = bed.server.kubectl(&["describe", "pod", "web-0"], "").unwrap();
    assert!(described.contains("FloatingIPMalformed"), "{described}");
    was_denied_nothing(&bed);
}

/// It used its rights and no others, and asked for the pods of its node alone.
fn was_denied_nothing(bed: &Bed) {
    let events = bed.server.audit().unwrap();
    let own: Vec<&Json> = events
        .iter()
        .filter(|event| event["user"]["username"] == AGENT)
        .collect();
    assert!(
        own.iter().all(|event| event["responseStatus"]["code"] != 403),
        "{own:#?}"
    );
    let pods: Vec<&str> = own
        .iter()
        .filter(|event| event["objectRef"]["resource"] == "pods")
        .filter_map(|event| event["requestURI"].as_str())
        .collect();
    assert!(
        !pods.is_empty() && pods.iter().all(|uri| uri.contains("spec%2EnodeName%3Dn1")),
        "{pods:?}"
    );
}
