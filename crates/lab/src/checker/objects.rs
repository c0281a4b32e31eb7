//! Reading the records out of the Kubernetes API, as raw JSON: what there is of them in other places is brought into the form
//! that the other stores have, without anything of the programs under test.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use super::facts::Records;
use super::store;
use crate::api::Api;

/// A record's key in the other stores, and its value there; `None` if an object is no record.
type Entry = Option<(String, Value)>;

/// How an object is read.
type Read = fn(&Value) -> Entry;

/// Where the API has records, and how an object of each list is read.
const LISTS: [(&str, Read); 7] = [
    ("/apis/buoy.dev/v1alpha1/floatingipbindings", binding),
    (
        "/apis/coordination.k8s.io/v1/namespaces/buoy-system/leases",
        lease,
    ),
    ("/apis/crd.projectcalico.org/v1/ippools", pool),
    ("/apis/crd.projectcalico.org/v1/ipamblocks", block),
    ("/apis/crd.projectcalico.org/v1/ipamhandles", handle),
    ("/api/v1/nodes", node),
    ("/api/v1/pods", endpoint),
];

/// Reads all records. Error: the API does not answer.
pub(super) fn read(api: &Api) -> Result<Records> {
    let mut pairs = Vec::new();
    for (path, read) in LISTS {
        let objects = api
            .list(path)
            .with_context(|| format!("cannot read the records at {path}"))?;
        pairs.extend(objects.iter().filter_map(read));
    }
    let pairs: Vec<(String, String)> = pairs
        .into_iter()
        .map(|(key, value)| (key, value.to_string()))
        .collect();
    Ok(store::parse(
        pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())),
    ))
}

fn binding(object: &Value) -> Entry {
    let key = format!("/buoy/v1alpha1/floatingipbindings/{}", name(object)?);
    Some((key, object.clone()))
}

/// A node's lease is one of Kubernetes'.
fn lease(object: &Value) -> Entry {
    let labels = &object["metadata"]["labels"];
    if labels["app.kubernetes.io/managed-by"] != "buoy" {
        return None;
    }
    let spec = &object["spec"];
    let lease = json!({"spec": {
        "holder": spec["holderIdentity"],
        "term": spec["leaseTransitions"],
        "renewed": spec["renewTime"],
    }});
    Some((format!("/buoy/v1alpha1/nodeleases/{}", name(object)?), lease))
}

fn pool(object: &Value) -> Entry {
    let key = format!("/calico/resources/v3/projectcalico.org/ippools/{}", name(object)?);
    Some((key, object.clone()))
}

fn block(object: &Value) -> Entry {
    let key = format!("/calico/ipam/v2/assignment/block/{}", name(object)?);
    Some((key, object["spec"].clone()))
}

/// Its object's name is in lower case, so the handle says its own.
fn handle(object: &Value) -> Entry {
    let spec = &object["spec"];
    let key = format!("/calico/ipam/v2/handle/{}", spec["handleID"].as_str()?);
    Some((key, spec.clone()))
}

fn node(object: &Value) -> Entry {
    let key = format!("/calico/resources/v3/projectcalico.org/nodes/{}", name(object)?);
    Some((key, json!({})))
}

/// A pod has an endpoint from its attachment until it is taken down, which an annotation without text says.
fn endpoint(pod: &Value) -> Entry {
    let annotation = |name: &str| {
        let name = format!("cni.projectcalico.org/{name}");
        pod["metadata"]["annotations"][name].as_str()
    };
    let (node, container) = (pod["spec"]["nodeName"].as_str()?, annotation("containerID")?);
    let has_ended = ["Succeeded", "Failed"]
        .map(Value::from)
        .contains(&pod["status"]["phase"]);
    if has_ended || pod["spec"]["hostNetwork"] == true || annotation("podIP") == Some("") {
        return None;
    }
    let (name, namespace) = (name(pod)?, pod["metadata"]["namespace"].as_str()?);
    let addresses = addresses(pod, annotation("podIPs"));
    let asks: Vec<Value> = list(annotation("floatingIPs"))
        .into_iter()
        .map(|floating| {
            let is_like = |own: &&String| own.contains(':') == floating.contains(':');
            json!({"externalIP": floating, "internalIP": addresses.iter().find(is_like)})
        })
        .collect();
    let networks = addresses.iter().map(|address| {
        let length = if address.contains(':') { 128 } else { 32 };
        json!(format!("{address}/{length}"))
    });
    let value = json!({
        "metadata": {"namespace": namespace},
        "spec": {
            "node": node,
            "pod": name,
            "endpoint": "eth0",
            "containerID": container,
            "interfaceName": link(namespace, name),
            "ipNetworks": networks.collect::<Vec<_>>(),
            "ipNATs": asks,
        },
    });
    let key = format!("/calico/resources/v3/projectcalico.org/workloadendpoints/{namespace}/{name}");
    Some((key, value))
}

/// As the kubelet says them; until it does, as they were noted at the pod's attachment.
fn addresses(pod: &Value, noted: Option<&str>) -> Vec<String> {
    let told = pod["status"]["podIPs"].as_array().into_iter().flatten();
    let told: Vec<String> = told
        .filter_map(|entry| entry["ip"].as_str().map(str::to_owned))
        .collect();
    if !told.is_empty() {
        return told;
    }
    let noted = noted.unwrap_or_default().split(',');
    let noted = noted.filter(|text| !text.is_empty());
    noted
        .map(|text| text.split('/').next().unwrap_or(text).to_owned())
        .collect()
}

/// A list of texts, as people write it into an annotation. What is none asks for nothing.
fn list(text: Option<&str>) -> Vec<String> {
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// Calico's name for the node's end of a pod's link.
fn link(namespace: &str, pod: &str) -> String {
    let digest = Sha1::digest(format!("{namespace}.{pod}").as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("cali{}", &hex[..11])
}

fn name(object: &Value) -> Option<&str> {
    object["metadata"]["name"].as_str()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn pod() -> Value {
        json!({
            "metadata": {
                "name": "web-0",
                "namespace": "shop",
                "annotations": {
                    "cni.projectcalico.org/containerID": "a40b",
                    "cni.projectcalico.org/podIP": "10.65.1.1/32",
                    "cni.projectcalico.org/podIPs": "10.65.1.1/32,fd65::1/128",
                    "cni.projectcalico.org/floatingIPs": r#"["172.16.1.3", "fd16::3"]"#,
                },
            },
            "spec": {"nodeName": "n1"},
            "status": {"phase": "Running"},
        })
    }

    #[test]
    fn a_pod_is_an_endpoint_until_it_is_taken_down() {
        let mut pod = pod();
        let (key, value) = endpoint(&pod).unwrap();
        let records = store::parse([(key.as_str(), value.to_string().as_str())]);
        assert_eq!(records.bad, Vec::<String>::new());
        let found = &records.endpoints[0];
        let own = ["10.65.1.1", "fd65::1"].map(ip);
        assert_eq!(found.addresses, own);
        let asks = [(ip("172.16.1.3"), own[0]), (ip("fd16::3"), own[1])];
        assert_eq!(found.asks, BTreeMap::from(asks));
        assert_eq!(found.link, "calia4fc3c48bd8");
        pod["metadata"]["annotations"]["cni.projectcalico.org/podIP"] = json!("");
        assert_eq!(endpoint(&pod), None);
    }

    #[test]
    fn a_pod_that_has_no_network_of_its_own_is_none() {
        for (field, value) in [("hostNetwork", json!(true)), ("nodeName", Value::Null)] {
            let mut pod = pod();
            pod["spec"][field] = value;
            assert_eq!(endpoint(&pod), None, "{field}");
        }
        let mut ended = pod();
        ended["status"]["phase"] = json!("Succeeded");
        assert_eq!(endpoint(&ended), None);
    }

    #[test]
    fn other_leases_are_not_ours() {
        let mut lease = json!({
            "metadata": {"name": "n1", "labels": {"app.kubernetes.io/managed-by": "buoy"}},
            "spec": {"holderIdentity": "182c", "leaseTransitions": 3, "renewTime": "2026-11-26T22:06:01.069973Z"},
        });
        let (key, value) = super::lease(&lease).unwrap();
        let records = store::parse([(key.as_str(), value.to_string().as_str())]);
        assert_eq!(records.leases["n1"].term, 3);
        assert!(records.leases["n1"].renewed.is_some());
        lease["metadata"]["labels"] = Value::Null;
        assert_eq!(super::lease(&lease), None);
    }
}
