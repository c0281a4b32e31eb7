//! Records that an agent keeps: the WorkloadEndpoints of its workloads, its own Node, and what a new store needs.

use buoy_api::annotations;
use buoy_api::meta::ObjectMeta;
use buoy_api::names;
use buoy_api::v3::{
    ClusterInformation, ClusterInformationSpec, IpNat, Node, NodeBgp, NodeSpec, WorkloadEndpoint,
    WorkloadEndpointSpec,
};
use ipnet::IpNet;

use crate::edit::Change;
use crate::endpoint::Attachment;
use crate::store::{Key, Value};

/// Key of an attachment's WorkloadEndpoint.
pub fn endpoint_key(attachment: &Attachment) -> Key {
    Key::Endpoint {
        namespace: attachment.endpoint.namespace.clone(),
        name: attachment.endpoint.name.clone(),
    }
}

/// Key of a WorkloadEndpoint.
pub fn key_of(record: &WorkloadEndpoint) -> Key {
    Key::Endpoint {
        namespace: record.metadata.namespace.clone().unwrap_or_default(),
        name: record.metadata.name.clone(),
    }
}

/// The WorkloadEndpoint of an attachment: new for a new container, left alone for its own.
pub fn published(found: Option<&Value>, attachment: &Attachment, node: &str) -> Change {
    let metadata = match found {
        Some(Value::Endpoint(found))
            if found.spec.container_id == attachment.id.container && found.spec.node == node =>
        {
            return Change::Keep;
        }
        Some(Value::Endpoint(found)) => found.metadata.clone(),
        _ => ObjectMeta::namespaced(&attachment.endpoint.namespace, &attachment.endpoint.name),
    };
    let metadata = ObjectMeta {
        labels: attachment.request.labels.clone(),
        ..metadata
    };
    let record = WorkloadEndpoint::new(metadata, endpoint_spec(attachment, node));
    Change::Put(Box::new(Value::Endpoint(record)))
}

/// The WorkloadEndpoint as it was before the store was restored from a copy.
pub fn republished(found: Option<&Value>, before: &WorkloadEndpoint) -> Change {
    let mut metadata = match found {
        Some(Value::Endpoint(found)) if says_the_same(found, before) => return Change::Keep,
        Some(Value::Endpoint(found)) => found.metadata.clone(),
        _ => ObjectMeta {
            name: before.metadata.name.clone(),
            namespace: before.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
    };
    metadata.labels = before.metadata.labels.clone();
    metadata.annotations = before.metadata.annotations.clone();
    let record = WorkloadEndpoint::new(metadata, before.spec.clone());
    Change::Put(Box::new(Value::Endpoint(record)))
}

/// Whether two records of an endpoint ask for the same.
pub(crate) fn says_the_same(one: &WorkloadEndpoint, other: &WorkloadEndpoint) -> bool {
    one.spec == other.spec
        && one.metadata.labels == other.metadata.labels
        && one.metadata.annotations == other.metadata.annotations
}

fn endpoint_spec(attachment: &Attachment, node: &str) -> WorkloadEndpointSpec {
    let request = &attachment.request;
    let is_pod = request.is_pod();
    WorkloadEndpointSpec {
        orchestrator: request.orchestrator.clone(),
        node: node.to_owned(),
        container_id: attachment.id.container.clone(),
        pod: if is_pod {
            request.workload.clone()
        } else {
            String::new()
        },
        endpoint: attachment.id.ifname.clone(),
        ip_networks: attachment.own_addresses().map(IpNet::from).collect(),
        ip_nats: request
            .floating
            .iter()
            .filter_map(|f| Some(IpNat::new(attachment.address_of(f.family())?, f.addr())))
            .collect(),
        profiles: vec![if is_pod {
            names::namespace_profile(&attachment.endpoint.namespace)
        } else {
            request.network.clone()
        }],
        interface_name: request.host_ifname.0.clone(),
        mac: request.mac.map(mac_text).unwrap_or_default(),
        allow_spoofed_source_prefixes: request.source_prefixes.clone(),
        ..WorkloadEndpointSpec::default()
    }
}

/// A MAC address as people write it.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// No WorkloadEndpoint, if the one there is this attachment's.
pub fn retired(found: Option<&Value>, attachment: &Attachment) -> Change {
    match found {
        Some(Value::Endpoint(found)) if found.spec.container_id == attachment.id.container => Change::Delete,
        _ => Change::Keep,
    }
}

/// This node's record with the mark of this agent and the node's addresses. What people wrote into it stays.
pub fn node(found: Option<&Value>, name: &str, version: &str, addresses: &[IpNet]) -> Change {
    let mut node = match found {
        Some(Value::Node(found)) => found.clone(),
        _ => Node::new(ObjectMeta::named(name), NodeSpec::default()),
    };
    node.metadata
        .annotations
        .insert(annotations::AGENT.to_owned(), version.to_owned());
    if !addresses.is_empty() {
        let bgp = node.spec.bgp.get_or_insert_with(NodeBgp::default);
        let of = |v4: bool| {
            addresses
                .iter()
                .find(|prefix| prefix.addr().is_ipv4() == v4)
                .copied()
        };
        bgp.ipv4_address = of(true).or(bgp.ipv4_address);
        bgp.ipv6_address = of(false).or(bgp.ipv6_address);
    }
    match found {
        Some(Value::Node(found)) if *found == node => Change::Keep,
        _ => Change::Put(Box::new(Value::Node(node))),
    }
}

/// What a new store needs: a ClusterInformation that says it is ready.
pub fn cluster(found: Option<&Value>, guid: &str) -> Change {
    if found.is_some() {
        return Change::Keep;
    }
    let spec = ClusterInformationSpec {
        cluster_guid: guid.to_owned(),
        datastore_ready: Some(true),
        ..ClusterInformationSpec::default()
    };
    let record = ClusterInformation::new(ObjectMeta::named("default"), spec);
    Change::Put(Box::new(Value::ClusterInformation(record)))
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
