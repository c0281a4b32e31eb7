//! Annotations of pods, pools and nodes: their names here; what a pod's ask for in `request`, values in `values`, and what is
//! wrong with them in `problem`.
//!
//! What depends on other records (is the address in a pool, is it free) is not decided here.

mod problem;
mod reader;
mod request;
mod values;

use std::collections::BTreeMap;
use std::time::Duration;

pub use self::problem::{AnnotationError, AnnotationErrors, Problem};
use self::reader::Reader;
pub use self::request::PodRequest;
pub use self::values::{chosen_addresses, drain, prefixes};

/// Chosen addresses of a pod, from IPAM: at most one of each family.
pub const IP_ADDRS: &str = "cni.projectcalico.org/ipAddrs";
/// Chosen addresses of a pod that IPAM does not know.
pub const IP_ADDRS_NO_IPAM: &str = "cni.projectcalico.org/ipAddrsNoIpam";
/// Floating IPs that a pod asks for.
pub const FLOATING_IPS: &str = "cni.projectcalico.org/floatingIPs";
/// Pools, by name or prefix, for the pod's IPv4 address.
pub const IPV4_POOLS: &str = "cni.projectcalico.org/ipv4pools";
/// Pools, by name or prefix, for the pod's IPv6 address.
pub const IPV6_POOLS: &str = "cni.projectcalico.org/ipv6pools";
/// Families of which the pod gets an address.
pub const IP_FAMILIES: &str = "cni.projectcalico.org/ipFamilies";
/// MAC address inside the pod.
pub const HW_ADDR: &str = "cni.projectcalico.org/hwAddr";
/// Prefixes the pod may send from besides its own addresses.
pub const ALLOWED_SOURCE_PREFIXES: &str = "cni.projectcalico.org/allowedSourcePrefixes";
/// Preference among the candidates of a floating IP: higher wins, 0 by default.
pub const FLOATING_IP_PRIORITY: &str = "buoy.dev/floatingIPPriority";
/// `exclusive`: when a floating IP leaves this pod it is withdrawn first and given afterwards.
pub const FLOATING_IP_MOVE: &str = "buoy.dev/floatingIPMove";
/// How long established flows go on after a floating IP has left this pod for another of its node, such as `30s`; at most
/// [`MAX_DRAIN`].
pub const FLOATING_IP_DRAIN: &str = "buoy.dev/floatingIPDrain";
/// On a BGPPeer, or on BGPConfiguration `default` for the mesh: `true` watches the sessions by BFD.
pub const BFD: &str = "buoy.dev/bfd";
/// On a BGPPeer, or on BGPConfiguration `default` for the mesh: hold time of the sessions, such as `9s`.
pub const BGP_HOLD_TIME: &str = "buoy.dev/holdTime";
/// On an IPPool: whether it takes floating IPs ([`FloatingUse`]).
pub const POOL_FLOATING_IPS: &str = "buoy.dev/floatingIPs";
/// On a Node: version of the agent that works there.
pub const AGENT: &str = "buoy.dev/agent";
/// On a WorkloadEndpoint that is a view of a pod: how the pod is ([`Readiness`]).
pub const READINESS: &str = "buoy.dev/readiness";

/// Longest accepted value, in bytes.
pub const MAX_VALUE: usize = 16 * 1024;
/// Most floating IPs of one workload.
pub const MAX_FLOATING_IPS: usize = 32;
/// Longest time that flows go on after a move.
pub const MAX_DRAIN: Duration = Duration::from_secs(60 * 60);

/// How a workload is, as whoever runs it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It serves.
    Ready,
    /// It does not serve now.
    NotReady,
    /// It is being deleted.
    Going,
}

impl Readiness {
    /// The value of [`READINESS`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::NotReady => "NotReady",
            Self::Going => "Going",
        }
    }

    /// What a record's annotations say; `None` if nothing.
    pub fn of(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let text = annotations.get(READINESS)?;
        let all = [Self::Ready, Self::NotReady, Self::Going];
        all.into_iter().find(|readiness| readiness.as_str() == text)
    }
}

/// Whether a pool takes floating IPs: the annotation [`POOL_FLOATING_IPS`] of an IPPool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatingUse {
    /// Yes, also where `allowedUses` says otherwise.
    Allow,
    /// No.
    Deny,
    /// Yes, and nothing else takes addresses from it.
    Only,
}

impl FloatingUse {
    /// What a pool's annotations say; `None` if they do not.
    pub fn of_pool(annotations: &BTreeMap<String, String>) -> Result<Option<Self>, AnnotationErrors> {
        let mut reader = Reader::new(annotations);
        let floating = reader.read(POOL_FLOATING_IPS, |text| match text {
            "Allow" => Ok(Self::Allow),
            "Deny" => Ok(Self::Deny),
            "Only" => Ok(Self::Only),
            _ => Err(Problem::FloatingUse(text.to_owned())),
        });
        reader.finish(floating)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_says_whether_it_takes_floating_ips() {
        let of = |value: &str| {
            FloatingUse::of_pool(&BTreeMap::from([(
                POOL_FLOATING_IPS.to_owned(),
                value.to_owned(),
            )]))
        };
        assert_eq!(of("Only"), Ok(Some(FloatingUse::Only)));
        assert_eq!(of(""), Ok(None));
        assert_eq!(FloatingUse::of_pool(&BTreeMap::new()), Ok(None));
        assert_eq!(
            of("only").unwrap_err().to_string(),
            "buoy.dev/floatingIPs: unknown use: only\nwrite Allow, Deny or Only"
        );
    }
}
