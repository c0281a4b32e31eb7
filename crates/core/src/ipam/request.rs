//! What the protocols are asked and what they answer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use buoy_api::ip::Family;
use buoy_api::ipam::IpamConfig;
use buoy_api::selector::Labels;
use buoy_api::v3::IpPool;
use ipnet::IpNet;
use jiff::Timestamp;

use crate::store::Record;

/// What the caller's view knows of the cluster. Shared by the requests made from one view.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// All pools, also those that are disabled.
    pub pools: Vec<IpPool>,
    /// Union of all IPReservations: never given automatically.
    pub reserved: Vec<IpNet>,
    /// Settings of IPAM.
    pub config: IpamConfig,
}

/// For whom addresses are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asker {
    /// Node the workload runs on.
    pub host: String,
    /// Labels of the node: what `nodeSelector` sees.
    pub node_labels: Labels,
    /// Labels of the workload's namespace: what `namespaceSelector` sees.
    pub namespace_labels: Labels,
}

/// What is written beside an address that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Handle the address is released by.
    pub handle: String,
    /// `pod`, `namespace`, `node`, `timestamp`, …
    pub attributes: BTreeMap<String, String>,
}

/// Addresses of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// How many.
    pub count: usize,
    /// Names or prefixes of the pools to take them from; every automatic pool, if empty.
    pub pools: Vec<String>,
}

impl Ask {
    /// This many addresses of whatever pool gives them unasked.
    pub fn of(count: usize) -> Self {
        Self {
            count,
            pools: Vec::new(),
        }
    }
}

/// Request to [`super::AutoAssign`].
#[derive(Clone, Debug, PartialEq)]
pub struct AutoAssignRequest {
    /// Pools, reservations, settings.
    pub snapshot: Arc<Snapshot>,
    /// For whom.
    pub asker: Asker,
    /// Handle and attributes.
    pub grant: Grant,
    /// IPv4 addresses.
    pub v4: Ask,
    /// IPv6 addresses.
    pub v6: Ask,
    /// This node's affine blocks (and, if at hand, its affinities) as the caller last saw them. They may be stale:
    /// then it takes longer.
    pub cached: Vec<Record>,
    /// Decides which free block is claimed.
    pub seed: u64,
    /// When.
    pub now: Timestamp,
}

impl AutoAssignRequest {
    /// What is asked of a family.
    pub fn ask(&self, family: Family) -> &Ask {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

/// Request to [`super::AssignAddress`]: all of the addresses, or none.
#[derive(Clone, Debug, PartialEq)]
pub struct AssignAddressRequest {
    /// Pools, reservations, settings.
    pub snapshot: Arc<Snapshot>,
    /// For whom.
    pub asker: Asker,
    /// Handle and attributes.
    pub grant: Grant,
    /// The addresses, usually one of a family.
    pub addresses: Vec<IpAddr>,
    /// When.
    pub now: Timestamp,
}

/// What was given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assigned {
    /// Addresses with the prefix length of their block, IPv4 first.
    pub addresses: Vec<IpNet>,
    /// Blocks as this protocol wrote them last. A caller that puts them into its cache at once need not wait for its
    /// watch before the next request.
    pub written: Vec<Record>,
}

impl Assigned {
    /// The addresses of a family.
    pub fn of(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        let of_family = move |address: &&IpNet| Family::of_net(address) == family;
        self.addresses.iter().filter(of_family).map(IpNet::addr)
    }
}
