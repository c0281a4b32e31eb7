//! Workloads of the whole cluster, as far as addresses depend on them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use buoy_api::ip::FloatingIp;
use buoy_api::v3::WorkloadEndpoint;

use crate::endpoint::EndpointId;
use crate::store::{Bad, Value};

/// What is kept of an endpoint: there may be many thousands.
#[derive(Clone, Debug)]
struct Endpoint {
    node: String,
    pod: String,
    container: String,
    addresses: Vec<IpAddr>,
    asks: BTreeSet<FloatingIp>,
}

impl Endpoint {
    fn is_its_container_s(&self, handle: &str) -> bool {
        !self.container.is_empty()
            && handle
                .strip_suffix(self.container.as_str())
                .is_some_and(|network| network.ends_with('.'))
    }
}

/// Endpoints by their names, pods and addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Endpoints {
    /// As they could be read last.
    by_id: BTreeMap<EndpointId, Endpoint>,
    /// Those that do not decode now.
    unreadable: BTreeSet<EndpointId>,
    of_pod: BTreeMap<(String, String), BTreeSet<EndpointId>>,
    of_address: BTreeMap<IpAddr, BTreeSet<EndpointId>>,
}

impl Endpoints {
    pub(super) fn set(&mut self, id: EndpointId, value: Option<Result<Value, Bad>>) {
        let record = match value {
            None => None,
            Some(Ok(Value::Endpoint(record))) => Some(record),
            Some(_) => {
                self.unreadable.insert(id);
                return;
            }
        };
        self.unreadable.remove(&id);
        self.unindex(&id);
        if let Some(record) = record {
            self.index(id, &record);
        }
    }

    fn index(&mut self, id: EndpointId, record: &WorkloadEndpoint) {
        let spec = &record.spec;
        let endpoint = Endpoint {
            node: spec.node.clone(),
            pod: spec.pod.clone(),
            container: spec.container_id.clone(),
            addresses: spec.ip_networks.iter().map(|net| net.addr()).collect(),
            asks: spec
                .ip_nats
                .iter()
                .filter_map(|nat| nat.external_ip.parse().ok())
                .collect(),
        };
        let pod = (id.namespace.clone(), endpoint.pod.clone());
        self.of_pod.entry(pod).or_default().insert(id.clone());
        for address in &endpoint.addresses {
            self.of_address.entry(*address).or_default().insert(id.clone());
        }
        self.by_id.insert(id, endpoint);
    }

    fn unindex(&mut self, id: &EndpointId) {
        let Some(endpoint) = self.by_id.remove(id) else {
            return;
        };
        remove(
            &mut self.of_pod,
            &(id.namespace.clone(), endpoint.pod.clone()),
            id,
        );
        for address in &endpoint.addresses {
            remove(&mut self.of_address, address, id);
        }
    }

    /// Whether a pod has an address, or may have: one that has none yet is on its way to it, what was given to its container
    /// may be of another of its interfaces, for which there is no record, and what does not decode may say anything.
    pub(super) fn has(&self, pod: (&str, &str), node: Option<&str>, address: IpAddr, handle: &str) -> bool {
        let (namespace, name) = pod;
        let ids = self.of_pod.get(&(namespace.to_owned(), name.to_owned()));
        let mut known = ids.into_iter().flatten().filter_map(|id| self.by_id.get(id));
        known.any(|endpoint| {
            node.is_none_or(|node| node == endpoint.node)
                && (endpoint.addresses.is_empty()
                    || endpoint.addresses.contains(&address)
                    || endpoint.is_its_container_s(handle))
        }) || self.unreadable.iter().any(|id| id.namespace == namespace)
    }

    /// Whether there is one that cannot be read.
    pub(super) fn are_unreadable(&self) -> bool {
        !self.unreadable.is_empty()
    }

    /// Requests for floating IPs, each with the node of the workload that asks.
    pub(super) fn requests(&self) -> impl Iterator<Item = (FloatingIp, &str)> {
        let all = self.by_id.values();
        all.flat_map(|endpoint| {
            endpoint
                .asks
                .iter()
                .map(|floating| (*floating, endpoint.node.as_str()))
        })
    }

    /// Whether any workload says that it has an address.
    pub(super) fn have(&self, address: IpAddr) -> bool {
        self.of_address.contains_key(&address)
    }
}

fn remove<K: Ord>(index: &mut BTreeMap<K, BTreeSet<EndpointId>>, key: &K, id: &EndpointId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}
