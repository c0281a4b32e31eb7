//! The kinds of resource that people read and write, by the names they use for them.

use std::str::FromStr;

use buoy_api::ObjectMeta;
use buoy_api::binding::BindingSpec;
use buoy_api::lease::NodeLeaseSpec;
use buoy_api::resource::{Kind, Resource};
use buoy_api::v3::{
    BgpConfigurationSpec, BgpPeerSpec, FelixConfigurationSpec, IpPoolSpec, IpReservationSpec, NodeSpec,
    ProfileSpec, WorkloadEndpointSpec,
};
use buoy_core::store::{Key, Prefix, Value};
use serde_json::Value as Json;

/// A kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum KindName {
    /// IPPool.
    Pool,
    /// IPReservation.
    Reservation,
    /// Node.
    Node,
    /// WorkloadEndpoint.
    Endpoint,
    /// FelixConfiguration.
    Felix,
    /// Profile: labels of a namespace, for the `namespaceSelector` of pools.
    Profile,
    /// BGPPeer.
    BgpPeer,
    /// BGPConfiguration.
    BgpConfiguration,
    /// FloatingIPBinding.
    Binding,
    /// NodeLease.
    Lease,
}

/// What is fixed about a kind.
struct Facts {
    kind: &'static str,
    api_version: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
}

fn facts<S: Kind>(short: &'static [&'static str]) -> Facts {
    Facts {
        kind: S::KIND,
        api_version: S::API_VERSION,
        plural: S::PLURAL,
        short,
        namespaced: S::NAMESPACED,
    }
}

impl KindName {
    /// All of them.
    pub(crate) const ALL: [Self; 10] = [
        Self::Pool,
        Self::Reservation,
        Self::Node,
        Self::Endpoint,
        Self::Felix,
        Self::Profile,
        Self::BgpPeer,
        Self::BgpConfiguration,
        Self::Binding,
        Self::Lease,
    ];

    fn facts(self) -> Facts {
        match self {
            Self::Pool => facts::<IpPoolSpec>(&["ipp", "pool", "pools"]),
            Self::Reservation => facts::<IpReservationSpec>(&["reservation", "reservations"]),
            Self::Node => facts::<NodeSpec>(&["no"]),
            Self::Endpoint => facts::<WorkloadEndpointSpec>(&["wep", "weps"]),
            Self::Felix => facts::<FelixConfigurationSpec>(&["felixconfig", "felixconfigs"]),
            Self::Profile => facts::<ProfileSpec>(&[]),
            Self::BgpPeer => facts::<BgpPeerSpec>(&["bgpp", "bp"]),
            Self::BgpConfiguration => facts::<BgpConfigurationSpec>(&["bgpconfig", "bgpconfigs"]),
            Self::Binding => facts::<BindingSpec>(&["fipb", "fipbs"]),
            Self::Lease => facts::<NodeLeaseSpec>(&["lease", "leases"]),
        }
    }

    /// As in the field `kind`.
    pub(crate) fn kind(self) -> &'static str {
        self.facts().kind
    }

    /// As in the field `apiVersion`.
    pub(crate) fn api_version(self) -> &'static str {
        self.facts().api_version
    }

    /// Whether its records live in a namespace.
    pub(crate) fn is_namespaced(self) -> bool {
        self.facts().namespaced
    }

    /// The record of a name; the namespace counts only for namespaced kinds.
    pub(crate) fn key(self, namespace: &str, name: &str) -> Key {
        let name = name.to_owned();
        match self {
            Self::Pool => Key::Pool(name),
            Self::Reservation => Key::Reservation(name),
            Self::Node => Key::Node(name),
            Self::Endpoint => Key::Endpoint {
                namespace: namespace.to_owned(),
                name,
            },
            Self::Felix => Key::Felix(name),
            Self::Profile => Key::Profile(name),
            Self::BgpPeer => Key::BgpPeer(name),
            Self::BgpConfiguration => Key::BgpConfiguration(name),
            Self::Binding => Key::Binding(name),
            Self::Lease => Key::Lease(name),
        }
    }

    /// All records of the kind.
    pub(crate) fn prefix(self) -> Prefix {
        match self {
            Self::Pool => Prefix::Pools,
            Self::Reservation => Prefix::Reservations,
            Self::Node => Prefix::Nodes,
            Self::Endpoint => Prefix::Endpoints,
            Self::Felix => Prefix::Felix,
            Self::Profile => Prefix::Profiles,
            Self::BgpPeer => Prefix::BgpPeers,
            Self::BgpConfiguration => Prefix::BgpConfigurations,
            Self::Binding => Prefix::Bindings,
            Self::Lease => Prefix::Leases,
        }
    }

    /// A document as a record of this kind.
    pub(crate) fn decode(self, document: &Json) -> Result<Value, serde_json::Error> {
        fn read<S: Kind>(document: &Json) -> Result<Resource<S>, serde_json::Error> {
            serde_json::from_value(document.clone())
        }
        Ok(match self {
            Self::Pool => Value::Pool(read(document)?),
            Self::Reservation => Value::Reservation(read(document)?),
            Self::Node => Value::Node(read(document)?),
            Self::Endpoint => Value::Endpoint(read(document)?),
            Self::Felix => Value::Felix(read(document)?),
            Self::Profile => Value::Profile(read(document)?),
            Self::BgpPeer => Value::BgpPeer(read(document)?),
            Self::BgpConfiguration => Value::BgpConfiguration(read(document)?),
            Self::Binding => Value::Binding(read(document)?),
            Self::Lease => Value::Lease(read(document)?),
        })
    }
}

impl FromStr for KindName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_lowercase();
        Self::ALL
            .into_iter()
            .find(|kind| {
                let facts = kind.facts();
                lower == facts.kind.to_lowercase()
                    || lower == facts.plural
                    || facts.short.contains(&lower.as_str())
            })
            .ok_or_else(|| format!("unknown kind: {text}\nuse one of {}", kinds()))
    }
}

/// The kinds as a list for people.
fn kinds() -> String {
    KindName::ALL.map(KindName::kind).join(", ")
}

/// The record as a document; `None` for what is no resource (IPAM's records).
pub(crate) fn encode(value: &Value) -> Option<Json> {
    let document = match value {
        Value::Pool(pool) => serde_json::to_value(pool),
        Value::Reservation(reservation) => serde_json::to_value(reservation),
        Value::Node(node) => serde_json::to_value(node),
        Value::Endpoint(endpoint) => serde_json::to_value(endpoint),
        Value::Felix(felix) => serde_json::to_value(felix),
        Value::Profile(profile) => serde_json::to_value(profile),
        Value::BgpPeer(peer) => serde_json::to_value(peer),
        Value::BgpConfiguration(configuration) => serde_json::to_value(configuration),
        Value::Binding(binding) => serde_json::to_value(binding),
        Value::Lease(lease) => serde_json::to_value(lease),
        _ => return None,
    };
    document.ok()
}

/// Metadata of a resource; `None` for what is no resource.
pub(crate) fn metadata(value: &Value) -> Option<&ObjectMeta> {
    Some(match value {
        Value::Pool(pool) => &pool.metadata,
        Value::Reservation(reservation) => &reservation.metadata,
        Value::Node(node) => &node.metadata,
        Value::Endpoint(endpoint) => &endpoint.metadata,
        Value::Felix(felix) => &felix.metadata,
        Value::Profile(profile) => &profile.metadata,
        Value::BgpPeer(peer) => &peer.metadata,
        Value::BgpConfiguration(configuration) => &configuration.metadata,
        Value::Binding(binding) => &binding.metadata,
        Value::Lease(lease) => &lease.metadata,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_many_names() {
        for (text, kind) in [
            ("IPPool", KindName::Pool),
            ("ippools", KindName::Pool),
            ("pool", KindName::Pool),
            ("ipp", KindName::Pool),
            ("reservation", KindName::Reservation),
            ("no", KindName::Node),
            ("wep", KindName::Endpoint),
            ("WorkloadEndpoints", KindName::Endpoint),
            ("felixconfig", KindName::Felix),
            ("profile", KindName::Profile),
            ("profiles", KindName::Profile),
            ("bgpp", KindName::BgpPeer),
            ("bp", KindName::BgpPeer),
            ("bgppeers", KindName::BgpPeer),
            ("BGPPeer", KindName::BgpPeer),
            ("bgpconfig", KindName::BgpConfiguration),
            ("bgpconfigs", KindName::BgpConfiguration),
            ("bgpconfigurations", KindName::BgpConfiguration),
            ("nodelease", KindName::Lease),
            ("leases", KindName::Lease),
            ("fipb", KindName::Binding),
            ("FloatingIPBinding", KindName::Binding),
        ] {
            assert_eq!(text.parse(), Ok(kind), "{text}");
        }
        let error = "pod".parse::<KindName>().unwrap_err();
        assert_eq!(
            error,
            "unknown kind: pod\nuse one of IPPool, IPReservation, Node, WorkloadEndpoint, FelixConfiguration, Profile, \
             BGPPeer, BGPConfiguration, FloatingIPBinding, NodeLease"
        );
    }
}
