//! Keys and the paths they are kept under.

use std::net::IpAddr;

use buoy_api::binding::{BindingSpec, EpochFloorSpec};
use buoy_api::ip::Family;
use buoy_api::ipam::AffinityOwner;
use buoy_api::lease::NodeLeaseSpec;
use buoy_api::resource::{BUOY_V1ALPHA1, Kind};
use buoy_api::v3::{
    BgpConfigurationSpec, BgpPeerSpec, ClusterInformationSpec, FelixConfigurationSpec, IpPoolSpec,
    IpReservationSpec, NodeSpec, ProfileSpec, WorkloadEndpointSpec,
};
use buoy_core::store::{Bad, Key, Prefix};
use ipnet::IpNet;

use super::bad;

const RESOURCES: &str = "/calico/resources/v3/projectcalico.org";
const BUOY: &str = "/buoy/v1alpha1";
const IPAM: &str = "/calico/ipam/v2";
/// Name of the only epoch floor.
pub(super) const EPOCH_FLOOR: &str = "default";

/// Paths from `start` (included) to `end` (excluded).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// First path.
    pub start: String,
    /// First path after the last.
    pub end: String,
}

impl Range {
    fn below(directory: String) -> Self {
        Self {
            // '0' is the character after '/'.
            end: format!("{directory}0"),
            start: format!("{directory}/"),
        }
    }

    fn only(path: String) -> Self {
        Self {
            end: format!("{path}\0"),
            start: path,
        }
    }

    /// Whether a path lies in it.
    pub fn contains(&self, path: &str) -> bool {
        self.start.as_str() <= path && path < self.end.as_str()
    }
}

fn directory<S: Kind>() -> String {
    let root = if S::API_VERSION == BUOY_V1ALPHA1 {
        BUOY
    } else {
        RESOURCES
    };
    format!("{root}/{}", S::PLURAL)
}

/// The path of a key. Fails if a name cannot be part of a path, or a prefix has bits beyond its length.
pub fn path(key: &Key) -> Result<String, Bad> {
    let within = |directory: String, name: &str| Ok(format!("{directory}/{}", segment(name)?));
    match key {
        Key::Pool(name) => within(directory::<IpPoolSpec>(), name),
        Key::Reservation(name) => within(directory::<IpReservationSpec>(), name),
        Key::Node(name) => within(directory::<NodeSpec>(), name),
        Key::Endpoint { namespace, name } => within(
            format!("{}/{}", directory::<WorkloadEndpointSpec>(), segment(namespace)?),
            name,
        ),
        Key::Felix(name) => within(directory::<FelixConfigurationSpec>(), name),
        Key::ClusterInformation(name) => within(directory::<ClusterInformationSpec>(), name),
        Key::Profile(name) => within(directory::<ProfileSpec>(), name),
        Key::BgpPeer(name) => within(directory::<BgpPeerSpec>(), name),
        Key::BgpConfiguration(name) => within(directory::<BgpConfigurationSpec>(), name),
        Key::Block(cidr) => Ok(format!("{}/{}", blocks(Family::of_net(cidr)), dashed(cidr)?)),
        Key::Affinity { owner, cidr } => Ok(format!(
            "{}/{}/block/{}",
            affinities(owner)?,
            version(Family::of_net(cidr)),
            dashed(cidr)?
        )),
        Key::Handle(id) => within(format!("{IPAM}/handle"), id),
        Key::IpamConfig => Ok(format!("{IPAM}/config")),
        Key::Binding(name) => within(directory::<BindingSpec>(), name),
        Key::EpochFloor => within(directory::<EpochFloorSpec>(), EPOCH_FLOOR),
        Key::Lease(name) => within(directory::<NodeLeaseSpec>(), name),
    }
}

/// Where the records of a prefix are. Other paths may lie there too, and then have no [`key`].
pub fn ranges(prefix: &Prefix) -> Result<Vec<Range>, Bad> {
    let range = match prefix {
        Prefix::Pools => Range::below(directory::<IpPoolSpec>()),
        Prefix::Reservations => Range::below(directory::<IpReservationSpec>()),
        Prefix::Nodes => Range::below(directory::<NodeSpec>()),
        Prefix::Endpoints => Range::below(directory::<WorkloadEndpointSpec>()),
        Prefix::Felix => Range::below(directory::<FelixConfigurationSpec>()),
        Prefix::ClusterInformations => Range::below(directory::<ClusterInformationSpec>()),
        Prefix::Profiles => Range::below(directory::<ProfileSpec>()),
        Prefix::BgpPeers => Range::below(directory::<BgpPeerSpec>()),
        Prefix::BgpConfigurations => Range::below(directory::<BgpConfigurationSpec>()),
        Prefix::Blocks(family) => Range::below(blocks(*family)),
        Prefix::Affinities(owner) => Range::below(affinities(owner)?),
        Prefix::AllAffinities => {
            return Ok(["host", "virtual"]
                .map(|kind| Range::below(format!("{IPAM}/{kind}")))
                .to_vec());
        }
        Prefix::Handles => Range::below(format!("{IPAM}/handle")),
        Prefix::IpamConfig => Range::only(path(&Key::IpamConfig)?),
        Prefix::Bindings => Range::below(directory::<BindingSpec>()),
        Prefix::EpochFloor => Range::only(path(&Key::EpochFloor)?),
        Prefix::Leases => Range::below(directory::<NodeLeaseSpec>()),
    };
    Ok(vec![range])
}

/// The key of a path; `None` if it is the path of no record that this project knows.
pub fn key(path: &str) -> Option<Key> {
    let key = if let Some(rest) = path.strip_prefix(RESOURCES) {
        calico_resource(rest)
    } else if let Some(rest) = path.strip_prefix(BUOY) {
        buoy_resource(rest)
    } else {
        ipam(path.strip_prefix(IPAM)?)
    }?;
    // One key has one path: a second spelling of a prefix would be a second record of the same block.
    (self::path(&key).ok()? == path).then_some(key)
}

/// The key of a path that was found in a store. Calico keeps a few records that this project has no use for; anything
/// else that has no key was put there by hand.
pub fn known_key(path: &str) -> Option<Key> {
    let key = key(path);
    if key.is_none() {
        tracing::debug!(path, "record with a key of no known kind is passed over");
    }
    key
}

fn calico_resource(rest: &str) -> Option<Key> {
    let (plural, name) = rest.strip_prefix('/')?.split_once('/')?;
    if plural == WorkloadEndpointSpec::PLURAL {
        let (namespace, name) = name.split_once('/')?;
        return Some(Key::Endpoint {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        });
    }
    let name = name.to_owned();
    match plural {
        IpPoolSpec::PLURAL => Some(Key::Pool(name)),
        IpReservationSpec::PLURAL => Some(Key::Reservation(name)),
        NodeSpec::PLURAL => Some(Key::Node(name)),
        FelixConfigurationSpec::PLURAL => Some(Key::Felix(name)),
        ClusterInformationSpec::PLURAL => Some(Key::ClusterInformation(name)),
        ProfileSpec::PLURAL => Some(Key::Profile(name)),
        BgpPeerSpec::PLURAL => Some(Key::BgpPeer(name)),
        BgpConfigurationSpec::PLURAL => Some(Key::BgpConfiguration(name)),
        _ => None,
    }
}

fn buoy_resource(rest: &str) -> Option<Key> {
    match rest.strip_prefix('/')?.split_once('/')? {
        (BindingSpec::PLURAL, name) => Some(Key::Binding(name.to_owned())),
        (EpochFloorSpec::PLURAL, EPOCH_FLOOR) => Some(Key::EpochFloor),
        (NodeLeaseSpec::PLURAL, name) => Some(Key::Lease(name.to_owned())),
        _ => None,
    }
}

fn ipam(rest: &str) -> Option<Key> {
    let segments: Vec<&str> = rest.strip_prefix('/')?.split('/').collect();
    match segments.as_slice() {
        ["config"] => Some(Key::IpamConfig),
        ["handle", id] => Some(Key::Handle((*id).to_owned())),
        ["assignment", "ipv4" | "ipv6", "block", cidr] => Some(Key::Block(undashed(cidr)?)),
        [kind, name, "ipv4" | "ipv6", "block", cidr] => Some(Key::Affinity {
            owner: AffinityOwner::parse(&format!("{kind}:{name}"))?,
            cidr: undashed(cidr)?,
        }),
        _ => None,
    }
}

fn blocks(family: Family) -> String {
    format!("{IPAM}/assignment/{}/block", version(family))
}

fn affinities(owner: &AffinityOwner) -> Result<String, Bad> {
    Ok(format!("{IPAM}/{}/{}", owner.kind(), segment(owner.name())?))
}

fn version(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

fn segment(name: &str) -> Result<&str, Bad> {
    if name.is_empty() || name.contains(['/', '\0']) {
        return Err(bad(format!("not usable as a name: {name:?}")));
    }
    Ok(name)
}

fn dashed(cidr: &IpNet) -> Result<String, Bad> {
    if *cidr != cidr.trunc() {
        return Err(bad(format!("prefix has bits beyond its length: {cidr}")));
    }
    Ok(format!("{}-{}", cidr.addr(), cidr.prefix_len()))
}

fn undashed(text: &str) -> Option<IpNet> {
    let (address, length) = text.rsplit_once('-')?;
    let address: IpAddr = address.parse().ok()?;
    IpNet::new(address, length.parse().ok()?).ok()
}
