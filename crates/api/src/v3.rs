//! Kinds of `projectcalico.org/v3` that this project reads or writes. Fields it has no use for stay in `extra`.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::ip::Family;
use crate::meta::Extra;
use crate::resource::{CALICO_V3, Kind, Resource};

macro_rules! kind {
    ($alias:ident, $spec:ident, $kind:literal, $plural:literal, $namespaced:literal) => {
        #[doc = concat!("`", $kind, "` of `projectcalico.org/v3`.")]
        pub type $alias = Resource<$spec>;

        impl Kind for $spec {
            type Status = Extra;
            const API_VERSION: &'static str = CALICO_V3;
            const KIND: &'static str = $kind;
            const PLURAL: &'static str = $plural;
            const NAMESPACED: bool = $namespaced;
        }
    };
}

kind!(IpPool, IpPoolSpec, "IPPool", "ippools", false);
kind!(
    IpReservation,
    IpReservationSpec,
    "IPReservation",
    "ipreservations",
    false
);
kind!(Node, NodeSpec, "Node", "nodes", false);
kind!(
    WorkloadEndpoint,
    WorkloadEndpointSpec,
    "WorkloadEndpoint",
    "workloadendpoints",
    true
);
kind!(
    FelixConfiguration,
    FelixConfigurationSpec,
    "FelixConfiguration",
    "felixconfigurations",
    false
);
kind!(
    ClusterInformation,
    ClusterInformationSpec,
    "ClusterInformation",
    "clusterinformations",
    false
);
kind!(Profile, ProfileSpec, "Profile", "profiles", false);
kind!(BgpPeer, BgpPeerSpec, "BGPPeer", "bgppeers", false);
kind!(
    BgpConfiguration,
    BgpConfigurationSpec,
    "BGPConfiguration",
    "bgpconfigurations",
    false
);

/// What addresses of a pool may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AllowedUse {
    /// Pods and instances.
    Workload,
    /// Tunnel devices of nodes.
    Tunnel,
    /// Services of type LoadBalancer.
    LoadBalancer,
}

/// Whether a pool gives addresses unasked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AssignmentMode {
    /// Yes.
    #[default]
    Automatic,
    /// Only when asked for by name or address.
    Manual,
}

/// `spec` of an [`IpPool`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpPoolSpec {
    /// Prefix, strictly masked; cannot change.
    pub cidr: IpNet,
    /// Prefix length of blocks; 26 or 122 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u8>,
    /// `Never`, `Always` or `CrossSubnet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipip_mode: Option<String>,
    /// `Never`, `Always` or `CrossSubnet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vxlan_mode: Option<String>,
    /// Masquerade traffic that leaves the pools.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nat_outgoing: bool,
    /// No new allocations.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
    /// Not announced to BGP peers.
    #[serde(
        default,
        rename = "disableBGPExport",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub disable_bgp_export: bool,
    /// Nodes that take addresses from it; `all()` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<String>,
    /// Namespaces that may use it; every one, if empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<String>,
    /// Workload and Tunnel, if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_uses: Vec<AllowedUse>,
    /// Automatic or manual.
    #[serde(default, skip_serializing_if = "is_automatic")]
    pub assignment_mode: AssignmentMode,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

fn is_automatic(mode: &AssignmentMode) -> bool {
    *mode == AssignmentMode::Automatic
}

impl IpPoolSpec {
    /// A pool with defaults.
    pub fn new(cidr: IpNet) -> Self {
        Self {
            cidr,
            block_size: None,
            ipip_mode: None,
            vxlan_mode: None,
            nat_outgoing: false,
            disabled: false,
            disable_bgp_export: false,
            node_selector: None,
            namespace_selector: None,
            allowed_uses: Vec::new(),
            assignment_mode: AssignmentMode::Automatic,
            extra: Extra::new(),
        }
    }

    /// Prefix length of its blocks.
    pub fn block_len(&self) -> u8 {
        self.block_size.unwrap_or(match Family::of_net(&self.cidr) {
            Family::V4 => 26,
            Family::V6 => 122,
        })
    }

    /// Whether it allows a use.
    pub fn allows(&self, wanted: AllowedUse) -> bool {
        if self.allowed_uses.is_empty() {
            return wanted != AllowedUse::LoadBalancer;
        }
        self.allowed_uses.contains(&wanted)
    }
}

/// `spec` of an [`IpReservation`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IpReservationSpec {
    /// Addresses that are never assigned automatically.
    #[serde(default, rename = "reservedCIDRs")]
    pub reserved_cidrs: Vec<IpNet>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

/// `spec` of a [`Node`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSpec {
    /// Addresses and AS number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bgp: Option<NodeBgp>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Addresses and AS number of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeBgp {
    /// Address with prefix length.
    #[serde(default, rename = "ipv4Address", skip_serializing_if = "Option::is_none")]
    pub ipv4_address: Option<IpNet>,
    /// Address with prefix length.
    #[serde(default, rename = "ipv6Address", skip_serializing_if = "Option::is_none")]
    pub ipv6_address: Option<IpNet>,
    /// AS number, if not the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_number: Option<u32>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

/// `spec` of a [`WorkloadEndpoint`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadEndpointSpec {
    /// `k8s`, `cni`, `openstack`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub orchestrator: String,
    /// Workload, for orchestrators without pods.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub workload: String,
    /// Node it runs on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Container whose ADD made it.
    #[serde(default, rename = "containerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    /// Pod name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// Interface inside the workload.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// Its own addresses, /32 and /128.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_networks: Vec<IpNet>,
    /// Requests for floating IPs.
    #[serde(default, rename = "ipNATs", skip_serializing_if = "Vec::is_empty")]
    pub ip_nats: Vec<IpNat>,
    /// Profiles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// Link on the node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub interface_name: String,
    /// MAC address inside the workload.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Prefixes the workload may send from besides its own addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_spoofed_source_prefixes: Vec<IpNet>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A request for a floating IP. Kept as text: one bad entry must not hide the endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IpNat {
    /// One of the endpoint's own addresses.
    #[serde(rename = "internalIP")]
    pub internal_ip: String,
    /// The floating IP.
    #[serde(rename = "externalIP")]
    pub external_ip: String,
}

impl IpNat {
    /// A request that is well formed.
    pub fn new(internal: IpAddr, external: IpAddr) -> Self {
        Self {
            internal_ip: internal.to_string(),
            external_ip: external.to_string(),
        }
    }
}

/// `spec` of a [`FelixConfiguration`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FelixConfigurationSpec {
    /// `Enabled` switches floating IPs on for every workload.
    #[serde(default, rename = "floatingIPs", skip_serializing_if = "Option::is_none")]
    pub floating_ips: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

/// `spec` of a [`ClusterInformation`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterInformationSpec {
    /// Identity of the cluster.
    #[serde(default, rename = "clusterGUID", skip_serializing_if = "String::is_empty")]
    pub cluster_guid: String,
    /// False while a migration locks the datastore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore_ready: Option<bool>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

/// `spec` of a [`Profile`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileSpec {
    /// Labels that workloads with the profile inherit.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub labels_to_apply: std::collections::BTreeMap<String, String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

/// `spec` of a [`BgpPeer`]: a session with somebody outside the mesh.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeerSpec {
    /// The node that has this session; every node, if neither this nor `node_selector` is given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Nodes that have this session, by their labels.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node_selector: String,
    /// Address of the peer, with `:port` (`[address]:port`) where it is not 179. Kept as text: one bad record must not
    /// hide another.
    #[serde(default, rename = "peerIP", skip_serializing_if = "String::is_empty")]
    pub peer_ip: String,
    /// AS number of the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_number: Option<u32>,
    /// AS number that this node has in the session, if not its own.
    #[serde(default, rename = "localASNumber", skip_serializing_if = "Option::is_none")]
    pub local_as_number: Option<u32>,
    /// Where the session's TCP MD5 password is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<BgpPassword>,
    /// `None` binds no source address; `UseNodeIP`, the default, binds the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<String>,
    /// How long the peer keeps routes while this node restarts, such as `120s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_restart_time: Option<String>,
    /// Pause between keepalives, such as `3s`; the session's hold time is three of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_time: Option<String>,
    /// Hops that the peer may be away, by the TTL of its packets (RFC 5082).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_security: Option<u8>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Where a password is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpPassword {
    /// An entry of a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

/// An entry of a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretKeyRef {
    /// Name of the secret.
    pub name: String,
    /// Entry within it.
    pub key: String,
}

/// `spec` of a [`BgpConfiguration`]. The one named `default` is the cluster's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpConfigurationSpec {
    /// Whether every node has a session with every other; yes by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_to_node_mesh_enabled: Option<bool>,
    /// AS number of nodes that have none of their own; 64512 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_number: Option<u32>,
    /// Port that nodes listen on; 179 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
    /// Where the TCP MD5 password of the mesh is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_mesh_password: Option<BgpPassword>,
    /// Level of what the routing daemon logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_severity_screen: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}
