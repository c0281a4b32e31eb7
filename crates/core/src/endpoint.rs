//! Endpoints and attachments: what a runtime asked for, and how far it has come.
//!
//! An *endpoint* is an interface of a workload; its identity is that of its WorkloadEndpoint record. An *attachment* is
//! one ADD for it, keyed by container and interface. The newest attachment is the endpoint's; an older one only waits
//! to be taken down.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use buoy_api::ip::{Family, FloatingIp};
use buoy_api::names::{self, Orchestrator};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Name of a link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IfName(pub String);

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Index of a link on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IfIndex(pub u32);

/// Identity of an endpoint: namespace and name of its WorkloadEndpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EndpointId {
    /// Namespace of the workload.
    pub namespace: String,
    /// Name of the WorkloadEndpoint record.
    pub name: String,
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Identity of an attachment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttachmentId {
    /// Container ID that the runtime gave.
    pub container: String,
    /// Interface inside the container.
    pub ifname: String,
}

impl AttachmentId {
    /// Alias of the attachment's link on the node: the mark that says it is ours, complete, and whose.
    pub fn alias(&self) -> String {
        format!("buoy:{}/{}", self.container, self.ifname)
    }

    /// Reads an alias.
    pub fn from_alias(alias: &str) -> Option<Self> {
        let (container, ifname) = alias.strip_prefix("buoy:")?.split_once('/')?;
        Some(Self {
            container: container.to_owned(),
            ifname: ifname.to_owned(),
        })
    }
}

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container, self.ifname)
    }
}

/// A network namespace: where it was, and what proves that it is still the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Netns {
    /// Path the runtime gave.
    pub path: String,
    /// Device of the namespace file.
    pub device: u64,
    /// Inode of the namespace file.
    pub inode: u64,
}

/// How the workload gets its own addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AddressRequest {
    /// From pools, one per family listed.
    Automatic {
        /// Families wanted.
        families: Vec<WireFamily>,
        /// Names or CIDRs of IPv4 pools; any that allows it, if empty.
        ipv4_pools: Vec<String>,
        /// Names or CIDRs of IPv6 pools.
        ipv6_pools: Vec<String>,
    },
    /// These, from IPAM.
    Specific(Vec<IpAddr>),
    /// These, without a record in IPAM: a third-party plugin gave them, or `ipAddrsNoIpam` names them.
    Given(Vec<IpAddr>),
}

/// [`Family`] as it is written to files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WireFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl From<WireFamily> for Family {
    fn from(family: WireFamily) -> Family {
        match family {
            WireFamily::V4 => Family::V4,
            WireFamily::V6 => Family::V6,
        }
    }
}

/// What one ADD asks for, read and checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Name of the network.
    pub network: String,
    /// `k8s` or `cni`.
    pub orchestrator: String,
    /// Pod name, or container ID outside Kubernetes.
    pub workload: String,
    /// Identity of this incarnation: pod UID, or container ID.
    pub uid: String,
    /// Whether a link is made. A plugin that asks for addresses alone makes its own.
    pub link: bool,
    /// Link on the node.
    pub host_ifname: IfName,
    /// Network namespace of the workload.
    pub netns: Netns,
    /// MAC address inside, if one was asked for.
    pub mac: Option<[u8; 6]>,
    /// MTU; the kernel's default, if absent.
    pub mtu: Option<u32>,
    /// Queues of the link.
    pub queues: u32,
    /// Whether the workload forwards packets.
    pub forwarding: bool,
    /// Its own addresses.
    pub addresses: AddressRequest,
    /// Floating IPs it was created with.
    pub floating: Vec<FloatingIp>,
    /// Whether floating IPs are on for it.
    pub gate: bool,
    /// Preference among candidates; higher wins.
    pub priority: i32,
    /// Whether a floating IP that leaves it is withdrawn before another workload has it.
    #[serde(default)]
    pub exclusive: bool,
    /// How long established flows go on when a floating IP leaves it for another workload of this node.
    #[serde(default)]
    pub drain: Duration,
    /// Prefixes it may send from besides its own addresses.
    pub source_prefixes: Vec<IpNet>,
    /// Labels of the WorkloadEndpoint record.
    pub labels: BTreeMap<String, String>,
}

impl Request {
    /// Handle of the addresses in IPAM.
    pub fn handle(&self, id: &AttachmentId) -> String {
        names::workload_handle(&self.network, &id.container)
    }

    /// Whether the workload is a pod.
    pub fn is_pod(&self) -> bool {
        self.orchestrator == Orchestrator::K8s.as_str()
    }

    /// Whether the addresses have no record in IPAM.
    pub fn is_given(&self) -> bool {
        matches!(self.addresses, AddressRequest::Given(_))
    }
}

/// How far an attachment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The runtime waits for the answer.
    Adding,
    /// Its link is there, so its own addresses work; the runtime still waits.
    Linked,
    /// Answered: the workload runs.
    Up,
    /// Being taken down.
    Removing,
    /// The kernel has nothing of it any more; its records in the datastore are to be released.
    Down,
}

/// One ADD and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// Container and interface.
    pub id: AttachmentId,
    /// Endpoint that it is for.
    pub endpoint: EndpointId,
    /// What was asked.
    pub request: Request,
    /// Order of arrival on this node: the highest is the endpoint's.
    pub order: u64,
    /// When the ADD arrived: since when it is a candidate.
    pub since: Timestamp,
    /// How far it has come.
    pub phase: Phase,
    /// Its own addresses with the prefix length of their blocks, once they are assigned.
    pub addresses: Option<Vec<IpNet>>,
}

impl Attachment {
    /// Its own addresses; empty before they are assigned.
    pub fn own_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().flatten().map(IpNet::addr)
    }

    /// Its own address of a family.
    pub fn address_of(&self, family: Family) -> Option<IpAddr> {
        self.own_addresses()
            .find(|address| Family::of(*address) == family)
    }

    /// Whether the runtime still waits for the answer to its ADD.
    pub fn is_adding(&self) -> bool {
        matches!(self.phase, Phase::Adding | Phase::Linked)
    }

    /// Whether traffic can be brought to it.
    pub fn is_reachable(&self) -> bool {
        self.is_wanted() && self.phase != Phase::Adding
    }

    /// Whether it was taken down or is about to be.
    pub fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Removing | Phase::Down)
    }

    /// Whether it takes part in what the node should look like.
    pub fn is_wanted(&self) -> bool {
        self.request.link && !self.is_leaving() && self.addresses.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_says_whose_a_link_is() {
        let id = AttachmentId {
            container: "c1".into(),
            ifname: "eth0".into(),
        };
        assert_eq!(AttachmentId::from_alias(&id.alias()), Some(id));
        assert_eq!(AttachmentId::from_alias("uplink to rack 3"), None);
    }
}
