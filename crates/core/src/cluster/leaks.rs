//! Addresses that IPAM gave to what is no more.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use buoy_api::ip::FloatingIp;
use buoy_api::ipam::{Attribute, Block};
use buoy_api::names;

use super::{Chore, Cluster};
use crate::duty::ORPHAN_GRACE;
use crate::ipam::{FLOATING_IP, TYPE};

/// Types of the addresses that a node has for itself, as Calico writes them.
const TUNNELS: [&str; 5] = [
    "ipipTunnelAddress",
    "vxlanTunnelAddress",
    "vxlanV6TunnelAddress",
    "wireguardTunnelAddress",
    "wireguardV6TunnelAddress",
];
/// Attributes of addresses that outlive the pods of a virtual machine: they are its own business.
const OF_MACHINES: [&str; 4] = ["vmi-name", "vmi-uid", "vm-uid", "vmim-uid"];

/// For whom an address was given.
enum User<'a> {
    /// A pod, on this node if that was noted.
    Pod {
        namespace: &'a str,
        name: &'a str,
        node: Option<&'a str>,
    },
    /// A workload that is no pod, or the node itself.
    OfNode(&'a str),
    /// A floating IP.
    Floating,
    /// Nobody that can be asked for: it stays.
    Unknown,
}

impl<'a> User<'a> {
    fn of(attribute: &'a Attribute) -> Self {
        let says = |key: &str| attribute.secondary.get(key).map(String::as_str);
        let kind = says(TYPE);
        if kind == Some(FLOATING_IP) {
            return Self::Floating;
        }
        if OF_MACHINES.iter().any(|key| says(key).is_some()) || attribute.released_at.is_some() {
            return Self::Unknown;
        }
        match (says("namespace").zip(says("pod")), says("node")) {
            (Some((namespace, name)), node) => Self::Pod {
                namespace,
                name,
                node,
            },
            (None, Some(node)) if kind.is_none_or(|kind| TUNNELS.contains(&kind)) => Self::OfNode(node),
            _ => Self::Unknown,
        }
    }
}

/// What a handle has: the addresses that nobody uses, with their sequence numbers, and how long that must stand.
#[derive(Default)]
struct Held {
    unused: Vec<(IpAddr, u64)>,
    grace: Duration,
    used: bool,
}

/// All addresses of a handle are freed together, or none is.
pub(super) fn standing(cluster: &Cluster) -> BTreeMap<Chore, Duration> {
    let mut by_handle = BTreeMap::<&str, Held>::new();
    let mut standing = BTreeMap::new();
    for block in cluster.blocks.values() {
        for (ordinal, attribute) in block.allocated() {
            let Some((handle, address)) = attribute.handle.as_deref().zip(block.address(ordinal)) else {
                continue;
            };
            match (unused(cluster, attribute, handle, address), stamp(block, ordinal)) {
                (Some(Unused::Floating(floating)), Some(stamp)) => {
                    standing.insert(Chore::FreeReservation { floating, stamp }, ORPHAN_GRACE);
                }
                (Some(Unused::Own(grace)), Some(stamp)) => {
                    let held = by_handle.entry(handle).or_default();
                    held.unused.push((address, stamp));
                    held.grace = held.grace.max(grace);
                }
                _ => by_handle.entry(handle).or_default().used = true,
            }
        }
    }
    let leaked = by_handle
        .into_iter()
        .filter(|(_, held)| !held.used && !held.unused.is_empty());
    standing.extend(leaked.map(|(handle, held)| {
        let chore = Chore::FreeAddresses {
            handle: handle.to_owned(),
            addresses: held.unused,
        };
        (chore, held.grace)
    }));
    standing
}

enum Unused {
    Own(Duration),
    Floating(FloatingIp),
}

/// Without a sequence number it cannot be told from one that is given anew.
fn stamp(block: &Block, ordinal: usize) -> Option<u64> {
    block.sequence_number_for_allocation.get(&ordinal).copied()
}

fn unused(cluster: &Cluster, attribute: &Attribute, handle: &str, address: IpAddr) -> Option<Unused> {
    let settings = &cluster.settings;
    match User::of(attribute) {
        User::Pod {
            namespace,
            name,
            node,
        } => {
            let grace = match node {
                Some(node) if cluster.is_gone(node) => settings.node_grace,
                _ => settings.grace,
            };
            let lives = cluster.endpoints.has((namespace, name), node, address, handle);
            (!lives).then_some(Unused::Own(grace))
        }
        User::OfNode(node) => {
            let lives = !cluster.is_gone(node) || cluster.endpoints.have(address);
            (!lives).then_some(Unused::Own(settings.node_grace))
        }
        User::Floating => {
            let floating = FloatingIp::try_from(address).ok()?;
            let is_ours = handle == names::floating_handle(address);
            (is_ours && !cluster.bindings.contains(&floating)).then_some(Unused::Floating(floating))
        }
        User::Unknown => None,
    }
}
