//! Which records an agent follows.

use buoy_api::ip::Family;
use buoy_api::ipam::AffinityOwner;

use crate::store::Prefix;

/// What a node has to know of the datastore: what its [`View`](super::View) is fed with.
pub fn interest(node: &str) -> Vec<Prefix> {
    vec![
        Prefix::Pools,
        Prefix::Reservations,
        Prefix::Nodes,
        Prefix::Endpoints,
        Prefix::Felix,
        Prefix::ClusterInformations,
        Prefix::Profiles,
        Prefix::IpamConfig,
        Prefix::EpochFloor,
        Prefix::Blocks(Family::V4),
        Prefix::Blocks(Family::V6),
        Prefix::Affinities(AffinityOwner::Host(node.to_owned())),
        Prefix::Bindings,
        Prefix::BgpPeers,
        Prefix::BgpConfigurations,
    ]
}
