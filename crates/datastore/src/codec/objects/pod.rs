//! WorkloadEndpoints, from pods: their addresses as the kubelet says them or, until it does, as the CNI plugin noted them in
//! annotations; their requests for floating IPs as people write them.
//!
//! A pod always gives an endpoint that can be read. What of it is malformed asks for nothing, and stays visible as it was
//! written: neither does it hide other pods, nor does it keep its own endpoint from being taken down.

use std::collections::BTreeMap;
use std::net::IpAddr;

use buoy_api::annotations::{
    ALLOWED_SOURCE_PREFIXES, FLOATING_IPS, IP_ADDRS, IP_ADDRS_NO_IPAM, MAX_VALUE, READINESS, Readiness,
    prefixes,
};
use buoy_api::meta::Extra;
use buoy_api::names::{EndpointName, Orchestrator, namespace_profile, pod_link};
use buoy_api::resource::{CALICO_V3, Kind};
use buoy_api::v3::{WorkloadEndpoint, WorkloadEndpointSpec};
use buoy_core::store::{Bad, Key};
use ipnet::IpNet;
use serde_json::{Value as Json, json};

use super::{derived_metadata, metadata, name, strings};

const POD_IP: &str = "cni.projectcalico.org/podIP";
const POD_IPS: &str = "cni.projectcalico.org/podIPs";
const CONTAINER: &str = "cni.projectcalico.org/containerID";

/// The only interface that a pod has here.
pub(super) const INTERFACE: &str = "eth0";
/// Longest value of a label.
const MAX_LABEL: usize = 63;

/// Key of a pod's endpoint, and the record, if it has one now: pods without a node have no name for it, and those of the
/// host's network, those that have ended and those that were taken down have no endpoint.
pub(super) fn read(object: &Extra) -> Option<(Key, Option<Result<Extra, Bad>>)> {
    let pod = Pod::of(object)?;
    let endpoint = EndpointName::new(pod.node, Orchestrator::K8s, pod.name, INTERFACE)
        .ok()?
        .to_string();
    let key = Key::Endpoint {
        namespace: pod.namespace.to_owned(),
        name: endpoint.clone(),
    };
    let record = pod.has_endpoint().then(|| Ok(pod.endpoint(&endpoint)));
    Some((key, record))
}

/// What is needed of a pod.
struct Pod<'a> {
    object: &'a Extra,
    namespace: &'a str,
    name: &'a str,
    node: &'a str,
    annotations: BTreeMap<String, String>,
}

impl<'a> Pod<'a> {
    fn of(object: &'a Extra) -> Option<Self> {
        let spec = object.get("spec")?.as_object()?;
        let node = spec.get("nodeName")?.as_str().filter(|node| !node.is_empty())?;
        Some(Self {
            object,
            namespace: metadata(object)?.get("namespace")?.as_str()?,
            name: name(object)?,
            node,
            annotations: strings(object, "annotations"),
        })
    }

    fn spec(&self, field: &str) -> Option<&Json> {
        self.object.get("spec")?.get(field)
    }

    fn status(&self, field: &str) -> Option<&Json> {
        self.object.get("status")?.get(field)
    }

    fn annotation(&self, name: &str) -> &str {
        self.annotations.get(name).map_or("", String::as_str)
    }

    fn has_endpoint(&self) -> bool {
        let is_host_s = self.spec("hostNetwork").and_then(Json::as_bool) == Some(true);
        let has_ended = matches!(
            self.status("phase").and_then(Json::as_str),
            Some("Succeeded" | "Failed" | "Completed")
        );
        // Set to nothing, which is not the same as absent, it says that the pod was taken down.
        let is_down = self.annotations.get(POD_IP).is_some_and(String::is_empty);
        let has_begun = !self.annotation(CONTAINER).is_empty() || !self.addresses().is_empty();
        !is_host_s && !has_ended && !is_down && has_begun
    }

    /// Its own addresses, from the best witness that says any.
    fn addresses(&self) -> Vec<IpAddr> {
        let listed = self
            .status("podIPs")
            .and_then(Json::as_array)
            .into_iter()
            .flatten();
        let listed = listed.filter_map(|entry| entry.get("ip")?.as_str());
        let single = self.status("podIP").and_then(Json::as_str).into_iter();
        let noted = self.annotation(POD_IPS).split(',');
        let noted_single = std::iter::once(self.annotation(POD_IP));
        let witnesses: [Vec<IpAddr>; 4] = [
            parsed(listed),
            parsed(single),
            parsed(noted),
            parsed(noted_single),
        ];
        witnesses
            .into_iter()
            .find(|ips| !ips.is_empty())
            .unwrap_or_default()
    }

    fn endpoint(&self, name: &str) -> Extra {
        let addresses = self.addresses();
        let networks: Vec<IpNet> = addresses.iter().copied().map(IpNet::from).collect();
        let account = self
            .spec("serviceAccountName")
            .and_then(Json::as_str)
            .unwrap_or_default();
        let mut profiles = vec![namespace_profile(self.namespace)];
        if !account.is_empty() {
            profiles.push(format!("ksa.{}.{account}", self.namespace));
        }
        let mut spec = json!({
            "orchestrator": Orchestrator::K8s.as_str(),
            "node": self.node,
            "pod": self.name,
            "endpoint": INTERFACE,
            "interfaceName": pod_link(self.namespace, self.name),
            "ipNetworks": networks,
            "ipNATs": self.requests(&addresses),
            "profiles": profiles,
        });
        let container = self.annotation(CONTAINER);
        for (field, text) in [("containerID", container), ("serviceAccountName", account)] {
            if !text.is_empty() {
                spec[field] = text.into();
            }
        }
        for (field, values) in [
            ("ports", self.ports()),
            ("allowSpoofedSourcePrefixes", self.source_prefixes()),
        ] {
            if !values.is_empty() {
                spec[field] = values.into();
            }
        }
        let mut metadata = derived_metadata(self.object, name);
        metadata.insert("namespace".to_owned(), self.namespace.into());
        metadata.insert("labels".to_owned(), json!(self.labels(account)));
        let mut annotations = self.fixed_requests();
        annotations.insert(READINESS, self.readiness().as_str());
        metadata.insert("annotations".to_owned(), json!(annotations));
        Extra::from_iter([
            ("apiVersion".to_owned(), CALICO_V3.into()),
            ("kind".to_owned(), WorkloadEndpointSpec::KIND.into()),
            ("metadata".to_owned(), metadata.into()),
            ("spec".to_owned(), spec),
        ])
    }

    /// As its Ready condition says; a pod that is being deleted serves nobody new.
    fn readiness(&self) -> Readiness {
        if metadata(self.object).is_some_and(|metadata| metadata.contains_key("deletionTimestamp")) {
            return Readiness::Going;
        }
        let conditions = self.status("conditions").and_then(Json::as_array);
        let is_ready = |condition: &Json| condition["type"] == "Ready" && condition["status"] == "True";
        if conditions.into_iter().flatten().any(is_ready) {
            Readiness::Ready
        } else {
            Readiness::NotReady
        }
    }

    fn labels(&self, account: &str) -> BTreeMap<String, String> {
        let mut labels = strings(self.object, "labels");
        let mut add = |key: &str, value: &str| {
            labels.insert(format!("projectcalico.org/{key}"), value.to_owned());
        };
        add("namespace", self.namespace);
        add("orchestrator", Orchestrator::K8s.as_str());
        if !account.is_empty() && account.len() < MAX_LABEL {
            add("serviceaccount", account);
        }
        labels
    }

    /// Requests for addresses of its own. They have no effect any more: who made them later is told so.
    fn fixed_requests(&self) -> BTreeMap<&str, &str> {
        let asked = [IP_ADDRS, IP_ADDRS_NO_IPAM].into_iter();
        asked
            .map(|name| (name, self.annotation(name)))
            .filter(|(_, text)| !text.is_empty())
            .collect()
    }

    /// Requests for floating IPs, each for the first address of its family. What is not a list of texts is one request
    /// that nobody can read.
    fn requests(&self, addresses: &[IpAddr]) -> Vec<Json> {
        let text = self.annotation(FLOATING_IPS);
        if text.is_empty() {
            return Vec::new();
        }
        let wanted: Vec<String> = serde_json::from_str(text).unwrap_or_else(|_| vec![text.to_owned()]);
        let request = |external: String| {
            let family = external.parse::<IpAddr>().map(|external| external.is_ipv4());
            let internal = addresses.iter().find(|address| Ok(address.is_ipv4()) == family);
            let internal = internal.map(ToString::to_string).unwrap_or_default();
            json!({"internalIP": internal, "externalIP": external})
        };
        wanted.into_iter().map(request).collect()
    }

    /// Where else it may send from. What cannot be read allows nothing.
    fn source_prefixes(&self) -> Vec<Json> {
        let text = self.annotation(ALLOWED_SOURCE_PREFIXES);
        if text.is_empty() || text.len() > MAX_VALUE {
            return Vec::new();
        }
        let allowed = prefixes(text).unwrap_or_default();
        allowed.iter().map(|prefix| json!(prefix)).collect()
    }

    /// Ports that have a name or a place on the host.
    fn ports(&self) -> Vec<Json> {
        let containers = ["containers", "initContainers"].into_iter();
        let containers = containers
            .filter_map(|field| self.spec(field)?.as_array())
            .flatten();
        let ports = containers
            .filter_map(|container| container.get("ports")?.as_array())
            .flatten();
        ports.filter_map(port).collect()
    }
}

fn port(port: &Json) -> Option<Json> {
    let mut found = json!({
        "port": port.get("containerPort")?,
        "protocol": port.get("protocol").cloned().unwrap_or_else(|| "TCP".into()),
    });
    let (name, host_port) = (port.get("name"), port.get("hostPort"));
    name.or(host_port)?;
    if let Some(name) = name {
        found["name"] = name.clone();
    }
    // As Calico writes them, also where there is none.
    found["hostPort"] = host_port.cloned().unwrap_or_else(|| 0.into());
    found["hostIP"] = port.get("hostIP").cloned().unwrap_or_else(|| "".into());
    Some(found)
}

fn parsed<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<IpAddr> {
    // With or without prefix length.
    let address = |text: &str| text.split('/').next()?.trim().parse().ok();
    texts.filter_map(address).collect()
}

/// What notes an endpoint on its pod. All else that the record says comes from the pod itself.
pub(super) fn patch(endpoint: &WorkloadEndpoint) -> Extra {
    let spec = &endpoint.spec;
    let all: Vec<String> = spec.ip_networks.iter().map(ToString::to_string).collect();
    // An empty text would say that it was taken down.
    let first = all.first().cloned();
    let noted = first.is_some().then(|| all.join(","));
    annotated(json!({POD_IP: first, POD_IPS: noted, CONTAINER: spec.container_id}))
}

/// What notes on a pod that its endpoint was taken down.
pub(super) fn removal() -> Extra {
    annotated(json!({POD_IP: "", POD_IPS: "", CONTAINER: null}))
}

fn annotated(annotations: Json) -> Extra {
    Extra::from_iter([("metadata".to_owned(), json!({"annotations": annotations}))])
}
