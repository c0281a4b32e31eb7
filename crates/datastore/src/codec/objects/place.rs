//! Where objects are: resources, names and selectors.

use buoy_api::ipam::AffinityOwner;
use buoy_api::names::{self, EndpointName, Orchestrator};
use buoy_core::store::{Bad, Key, Prefix};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::super::key::EPOCH_FLOOR;
use super::{affinity, bad};

/// A kind of object as the API server serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiResource {
    /// API group; empty for Kubernetes' own first one.
    pub group: &'static str,
    /// Version within the group.
    pub version: &'static str,
    /// Lower-case plural, as in URLs.
    pub plural: &'static str,
    /// Kind, as in objects.
    pub kind: &'static str,
}

const fn calico(plural: &'static str, kind: &'static str) -> ApiResource {
    ApiResource {
        group: "crd.projectcalico.org",
        version: "v1",
        plural,
        kind,
    }
}

const fn buoy(plural: &'static str, kind: &'static str) -> ApiResource {
    ApiResource {
        group: "buoy.dev",
        version: "v1alpha1",
        plural,
        kind,
    }
}

const fn core(plural: &'static str, kind: &'static str) -> ApiResource {
    ApiResource {
        group: "",
        version: "v1",
        plural,
        kind,
    }
}

pub(super) const POOLS: ApiResource = calico("ippools", "IPPool");
pub(super) const RESERVATIONS: ApiResource = calico("ipreservations", "IPReservation");
pub(super) const FELIX: ApiResource = calico("felixconfigurations", "FelixConfiguration");
pub(super) const CLUSTER: ApiResource = calico("clusterinformations", "ClusterInformation");
pub(super) const BGP_PEERS: ApiResource = calico("bgppeers", "BGPPeer");
pub(super) const BGP_CONFIGURATIONS: ApiResource = calico("bgpconfigurations", "BGPConfiguration");
pub(super) const BLOCKS: ApiResource = calico("ipamblocks", "IPAMBlock");
pub(super) const AFFINITIES: ApiResource = calico("blockaffinities", "BlockAffinity");
pub(super) const HANDLES: ApiResource = calico("ipamhandles", "IPAMHandle");
pub(super) const IPAM_CONFIGS: ApiResource = calico("ipamconfigs", "IPAMConfig");
/// The only one that has another name in the other group.
const V3_IPAM_CONFIGS: ApiResource = ApiResource {
    group: "projectcalico.org",
    version: "v3",
    plural: "ipamconfigurations",
    kind: "IPAMConfiguration",
};
pub(super) const BINDINGS: ApiResource = buoy("floatingipbindings", "FloatingIPBinding");
pub(super) const EPOCH_FLOORS: ApiResource = buoy("epochfloors", "EpochFloor");
pub(super) const PODS: ApiResource = core("pods", "Pod");
pub(super) const NODES: ApiResource = core("nodes", "Node");
pub(super) const NAMESPACES: ApiResource = core("namespaces", "Namespace");
pub(super) const LEASES: ApiResource = ApiResource {
    group: "coordination.k8s.io",
    version: "v1",
    plural: "leases",
    kind: "Lease",
};

pub(super) const EVENTS: ApiResource = ApiResource {
    group: "events.k8s.io",
    version: "v1",
    plural: "events",
    kind: "Event",
};
const CONFIG_MAPS: ApiResource = core("configmaps", "ConfigMap");
const NETWORK_POLICIES: ApiResource = ApiResource {
    group: "networking.k8s.io",
    version: "v1",
    plural: "networkpolicies",
    kind: "NetworkPolicy",
};
const CALICO_POLICIES: ApiResource = calico("networkpolicies", "NetworkPolicy");
const GLOBAL_POLICIES: ApiResource = calico("globalnetworkpolicies", "GlobalNetworkPolicy");

/// Name of Calico's only IPAM configuration.
const IPAM_CONFIG: &str = "default";

impl ApiResource {
    /// Those that are custom, and so may be missing: Calico's first, then Buoy's.
    pub const CUSTOM: [Self; 12] = [
        POOLS,
        RESERVATIONS,
        FELIX,
        CLUSTER,
        BGP_PEERS,
        BGP_CONFIGURATIONS,
        BLOCKS,
        AFFINITIES,
        HANDLES,
        IPAM_CONFIGS,
        BINDINGS,
        EPOCH_FLOORS,
    ];

    /// Leases, of nodes and of others.
    pub const LEASES: Self = LEASES;

    /// Policies that somebody counts on.
    pub const POLICIES: [Self; 3] = [NETWORK_POLICIES, CALICO_POLICIES, GLOBAL_POLICIES];

    /// ConfigMaps.
    pub const CONFIG_MAPS: Self = CONFIG_MAPS;

    /// `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            return self.version.to_owned();
        }
        format!("{}/{}", self.group, self.version)
    }

    /// The same records where Calico keeps them in this group.
    fn within(self, group: CalicoGroup) -> Self {
        match group {
            CalicoGroup::V3 if self == IPAM_CONFIGS => V3_IPAM_CONFIGS,
            CalicoGroup::V3 if self.group == POOLS.group => Self {
                group: V3_IPAM_CONFIGS.group,
                version: V3_IPAM_CONFIGS.version,
                ..self
            },
            _ => self,
        }
    }

    /// The same records where Calico keeps them by default.
    pub(super) fn canonical(self) -> Self {
        match self {
            V3_IPAM_CONFIGS => IPAM_CONFIGS,
            resource if resource.is_v3() => Self {
                group: POOLS.group,
                version: POOLS.version,
                ..resource
            },
            resource => resource,
        }
    }

    /// Whether it is one of Calico's as people see it.
    pub(super) fn is_v3(&self) -> bool {
        self.group == V3_IPAM_CONFIGS.group
    }

    /// Whether its definition knows every field there is.
    pub fn is_strict(&self) -> bool {
        self.group == BINDINGS.group
    }

    /// Plural and group, as kubectl and the definition of a custom one name it.
    pub fn name(&self) -> String {
        if self.group.is_empty() {
            return self.plural.to_owned();
        }
        format!("{}.{}", self.plural, self.group)
    }

    /// Path of its list, in all namespaces or one.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let within = namespace.map_or_else(String::new, |namespace| format!("namespaces/{namespace}/"));
        format!("{root}/{}/{within}{}", self.api_version(), self.plural)
    }
}

/// In which of its API groups Calico keeps its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CalicoGroup {
    /// `crd.projectcalico.org/v1`.
    #[default]
    Crd,
    /// `projectcalico.org/v3`: the same records as people see them.
    V3,
}

/// Where objects are, as far as clusters differ in that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The group of Calico's records.
    pub calico: CalicoGroup,
    /// Namespace of the leases.
    pub namespace: String,
    /// The only node whose pods are wanted.
    pub node: Option<String>,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What it is.
    pub resource: ApiResource,
    /// Its namespace, if it has one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl Place {
    /// Path of its URL.
    pub fn path(&self) -> String {
        format!("{}/{}", self.directory(), self.name)
    }

    /// Path of the URL that objects like it are made by.
    pub fn directory(&self) -> String {
        self.resource.path(self.namespace.as_deref())
    }
}

/// Objects that can be listed and watched together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Collection {
    /// What they are.
    pub resource: ApiResource,
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only those with these labels, as a selector.
    pub labels: Option<String>,
    /// Only those with these fields, as a selector.
    pub fields: Option<String>,
}

impl Collection {
    fn all(resource: ApiResource) -> Self {
        Self {
            resource,
            namespace: None,
            labels: None,
            fields: None,
        }
    }

    fn named(resource: ApiResource, name: &str) -> Self {
        Self {
            fields: Some(format!("metadata.name={name}")),
            ..Self::all(resource)
        }
    }

    /// Path of its URL with its selectors, and what else the query is to say.
    pub fn url(&self, more: &str) -> String {
        let selectors = [("labelSelector", &self.labels), ("fieldSelector", &self.fields)];
        let selectors = selectors.into_iter().filter_map(|(name, selector)| {
            let selector = utf8_percent_encode(selector.as_ref()?, NON_ALPHANUMERIC);
            Some(format!("{name}={selector}"))
        });
        let query: Vec<String> = selectors
            .chain(std::iter::once(more.to_owned()).filter(|more| !more.is_empty()))
            .collect();
        let path = self.resource.path(self.namespace.as_deref());
        if query.is_empty() {
            return path;
        }
        format!("{path}?{}", query.join("&"))
    }
}

/// What only this cluster has: a namespace that Kubernetes itself makes, and nobody can delete.
pub(super) fn identity() -> Collection {
    Collection::named(NAMESPACES, "kube-system")
}

pub(super) fn of(key: &Key, layout: &Layout) -> Result<Place, Bad> {
    let (resource, namespace, name) = match key {
        Key::Pool(name) => (POOLS, None, name.clone()),
        Key::Reservation(name) => (RESERVATIONS, None, name.clone()),
        Key::Node(name) => (NODES, None, name.clone()),
        Key::Endpoint { namespace, name } => (PODS, Some(dns(namespace)?.to_owned()), pod(name)?),
        Key::Felix(name) => (FELIX, None, name.clone()),
        Key::ClusterInformation(name) => (CLUSTER, None, name.clone()),
        Key::Profile(name) => (NAMESPACES, None, namespace_of_profile(name)?),
        Key::BgpPeer(name) => (BGP_PEERS, None, name.clone()),
        Key::BgpConfiguration(name) => (BGP_CONFIGURATIONS, None, name.clone()),
        Key::Block(cidr) => (BLOCKS, None, names::cidr_name(cidr)),
        Key::Affinity { owner, cidr } => (AFFINITIES, None, affinity::name(owner, cidr)),
        Key::Handle(id) => (HANDLES, None, id.to_lowercase()),
        Key::IpamConfig => (IPAM_CONFIGS, None, IPAM_CONFIG.to_owned()),
        Key::Binding(name) => (BINDINGS, None, name.clone()),
        Key::EpochFloor => (EPOCH_FLOORS, None, EPOCH_FLOOR.to_owned()),
        Key::Lease(name) => (LEASES, Some(layout.namespace.clone()), name.clone()),
    };
    dns(&name)?;
    Ok(Place {
        resource: resource.within(layout.calico),
        namespace,
        name,
    })
}

pub(super) fn collection(prefix: &Prefix, layout: &Layout) -> Collection {
    let collection = match prefix {
        Prefix::Pools => Collection::all(POOLS),
        Prefix::Reservations => Collection::all(RESERVATIONS),
        Prefix::Nodes => Collection::all(NODES),
        Prefix::Endpoints => Collection {
            fields: layout.node.as_ref().map(|node| format!("spec.nodeName={node}")),
            ..Collection::all(PODS)
        },
        Prefix::Felix => Collection::all(FELIX),
        Prefix::ClusterInformations => Collection::all(CLUSTER),
        Prefix::Profiles => Collection::all(NAMESPACES),
        Prefix::BgpPeers => Collection::all(BGP_PEERS),
        Prefix::BgpConfigurations => Collection::all(BGP_CONFIGURATIONS),
        Prefix::Blocks(_) => Collection::all(BLOCKS),
        Prefix::Affinities(owner) => Collection {
            labels: Some(affinity::selector(owner)),
            ..Collection::all(AFFINITIES)
        },
        Prefix::AllAffinities => Collection::all(AFFINITIES),
        Prefix::Handles => Collection::all(HANDLES),
        Prefix::IpamConfig => Collection::named(IPAM_CONFIGS, IPAM_CONFIG),
        Prefix::Bindings => Collection::all(BINDINGS),
        Prefix::EpochFloor => Collection::named(EPOCH_FLOORS, EPOCH_FLOOR),
        Prefix::Leases => Collection {
            namespace: Some(layout.namespace.clone()),
            labels: Some(super::native::LEASE_LABEL.join("=")),
            ..Collection::all(LEASES)
        },
    };
    Collection {
        resource: collection.resource.within(layout.calico),
        ..collection
    }
}

/// The key of an object of a kind whose objects are named as their records.
pub(super) fn named_key(resource: ApiResource, name: &str) -> Option<Key> {
    let own = name.to_owned();
    Some(match resource {
        POOLS => Key::Pool(own),
        RESERVATIONS => Key::Reservation(own),
        FELIX => Key::Felix(own),
        CLUSTER => Key::ClusterInformation(own),
        BGP_PEERS => Key::BgpPeer(own),
        BGP_CONFIGURATIONS => Key::BgpConfiguration(own),
        BINDINGS => Key::Binding(own),
        EPOCH_FLOORS if name == EPOCH_FLOOR => Key::EpochFloor,
        IPAM_CONFIGS if name == IPAM_CONFIG => Key::IpamConfig,
        _ => return None,
    })
}

/// The pod of an endpoint's name: the only endpoints that there are in Kubernetes.
fn pod(name: &str) -> Result<String, Bad> {
    let parsed: EndpointName = name.parse().map_err(|error| bad(format!("{error}")))?;
    if parsed.orchestrator() != Orchestrator::K8s {
        return Err(bad(format!(
            "only pods have endpoints in Kubernetes: {name}\nuse another datastore for workloads that are no pods"
        )));
    }
    if parsed.endpoint() != super::pod::INTERFACE {
        return Err(bad(format!(
            "only eth0 of a pod is an endpoint in Kubernetes: {name}"
        )));
    }
    Ok(parsed.workload().to_owned())
}

fn namespace_of_profile(name: &str) -> Result<String, Bad> {
    names::namespace_of_profile(name)
        .map(str::to_owned)
        .ok_or_else(|| {
            bad(format!(
                "only namespaces have profiles in Kubernetes, named kns.<namespace>: {name}"
            ))
        })
}

fn dns(name: &str) -> Result<&str, Bad> {
    if names::is_dns_subdomain(name) {
        Ok(name)
    } else {
        Err(bad(format!("not usable as the name of an object: {name:?}")))
    }
}

/// An owner as the specification of an affinity names it.
pub(super) fn owner(kind: &str, name: &str) -> Option<AffinityOwner> {
    AffinityOwner::parse(&format!("{kind}:{name}"))
}
