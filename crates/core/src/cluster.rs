//! What a whole cluster owes its datastore, whoever looks after it: records of what is no more.
//!
//! A [`Cluster`] is fed by deltas, as a node's view is. What should be done is a function of it, [`Cluster::standing`]: each
//! [`Chore`] with how long it must stand before it is done. Whoever does it reads everything again first, from the store
//! itself, and does only what stands there, too; and what takes an address, an owner or a lease is tied to what was read. So
//! nothing depends on a watch that is late, and two that look after one cluster at once do no harm.

mod contested;
mod endpoints;
mod leaks;
mod remains;
mod ripening;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use buoy_api::binding::{Binding, CONTROLLER, Term};
use buoy_api::ip::{Family, FloatingIp};
use buoy_api::ipam::{AffinityOwner, Block};
use buoy_api::lease::NodeLease;
use buoy_api::v3::Node;
use ipnet::IpNet;
use jiff::Timestamp;

pub use self::contested::condition as contested;
use self::endpoints::Endpoints;
pub use self::ripening::Ripening;
use crate::endpoint::EndpointId;
use crate::floating;
use crate::floating::decide::hold_ends;
use crate::store::{Delta, Key, Prefix, Revision};
use crate::view::Records;

/// Name of the lease that whoever looks after the cluster holds, among those of nodes.
pub const ELECTION: &str = CONTROLLER;

/// How long things must stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// An address that its pod does not have.
    pub grace: Duration,
    /// What a node left that has no record.
    pub node_grace: Duration,
    /// How long a namespace keeps a released floating IP.
    pub hold: Duration,
}

/// One thing to do. In this order, where several are due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chore {
    /// Nobody uses what a handle has: free these addresses, if they still have these sequence numbers.
    FreeAddresses {
        /// The handle.
        handle: String,
        /// Addresses and sequence numbers.
        addresses: Vec<(IpAddr, u64)>,
    },
    /// A floating IP is reserved and has no binding: free it, if it still has this sequence number.
    FreeReservation {
        /// The floating IP.
        floating: FloatingIp,
        /// Its sequence number.
        stamp: u64,
    },
    /// The owner of a block is gone: delete the block if it is empty, else leave it without owner.
    GiveUpBlock {
        /// Whose it was.
        owner: AffinityOwner,
        /// The block.
        cidr: IpNet,
    },
    /// The node of some candidates is gone: take them out of a binding.
    ForgetCandidates {
        /// The floating IP.
        floating: FloatingIp,
        /// The node.
        node: String,
    },
    /// Nodes without an agent serve an address, too: say so in its binding, or that it is so no more.
    Contest {
        /// The floating IP.
        floating: FloatingIp,
        /// The nodes.
        nodes: Vec<String>,
    },
    /// The node of owners is gone: revoke its lease, at this revision, or make the one that is missing.
    RevokeLease {
        /// The node.
        node: String,
        /// Revision of its lease.
        revision: Option<Revision>,
        /// Highest term of the owners.
        owner: Term,
    },
    /// The owner's lease was revoked, and nobody took the address: leave it without owner.
    Disown {
        /// The floating IP.
        floating: FloatingIp,
        /// Revision of its binding.
        revision: Revision,
    },
    /// Nobody wants the address, and its hold is over: delete binding and reservation.
    Collect {
        /// The floating IP.
        floating: FloatingIp,
        /// Revision of its binding.
        revision: Revision,
    },
    /// The node is gone, and owned nothing.
    DeleteLease {
        /// The node.
        node: String,
        /// Revision of its lease.
        revision: Revision,
    },
}

impl Chore {
    /// What it is, for who counts.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::FreeAddresses { .. } => "free_addresses",
            Self::FreeReservation { .. } => "free_reservation",
            Self::GiveUpBlock { .. } => "give_up_block",
            Self::ForgetCandidates { .. } => "forget_candidates",
            Self::Contest { .. } => "contest",
            Self::RevokeLease { .. } => "revoke_lease",
            Self::Disown { .. } => "disown",
            Self::Collect { .. } => "collect",
            Self::DeleteLease { .. } => "delete_lease",
        }
    }

    /// How many addresses are free once it is done.
    pub fn frees(&self) -> usize {
        match self {
            Self::FreeAddresses { addresses, .. } => addresses.len(),
            Self::FreeReservation { .. } | Self::Collect { .. } => 1,
            _ => 0,
        }
    }
}

/// What it is for, as a log says it.
impl fmt::Display for Chore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FreeAddresses { handle, addresses } => {
                let addresses: Vec<String> =
                    addresses.iter().map(|(address, _)| address.to_string()).collect();
                write!(
                    f,
                    "free {}: nobody uses what handle {handle} has",
                    addresses.join(", ")
                )
            }
            Self::FreeReservation { floating, .. } => {
                write!(
                    f,
                    "free floating IP {floating}: it is reserved and has no binding"
                )
            }
            Self::GiveUpBlock { owner, cidr } => write!(f, "take block {cidr} from {owner}: it is gone"),
            Self::ForgetCandidates { floating, node } => {
                write!(f, "forget candidates for {floating} on node {node}: it is gone")
            }
            Self::Contest { floating, nodes } if nodes.is_empty() => {
                write!(f, "{floating} is not contested any more")
            }
            Self::Contest { floating, nodes } => {
                write!(
                    f,
                    "{floating} is contested, by workloads on nodes without an agent: {}",
                    nodes.join(", ")
                )
            }
            Self::RevokeLease { node, .. } => write!(f, "revoke the lease of node {node}: it is gone"),
            Self::Disown { floating, .. } => {
                write!(
                    f,
                    "leave {floating} without owner: its node is gone, and nobody took it"
                )
            }
            Self::Collect { floating, .. } => {
                write!(
                    f,
                    "delete the binding of {floating}: nobody wants it, and its hold is over"
                )
            }
            Self::DeleteLease { node, .. } => {
                write!(
                    f,
                    "delete the lease of node {node}: it is gone, and owned nothing"
                )
            }
        }
    }
}

/// What is known of a cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    settings: Settings,
    nodes: Records<String, Node>,
    blocks: Records<IpNet, Block>,
    affinities: BTreeSet<(AffinityOwner, IpNet)>,
    bindings: Records<FloatingIp, Binding>,
    leases: Records<String, NodeLease>,
    endpoints: Endpoints,
}

impl Cluster {
    /// A cluster of which nothing is known yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            nodes: Records::default(),
            blocks: Records::default(),
            affinities: BTreeSet::new(),
            bindings: Records::default(),
            leases: Records::default(),
            endpoints: Endpoints::default(),
        }
    }

    /// What a cluster is fed with.
    pub fn interest() -> Vec<Prefix> {
        vec![
            Prefix::Nodes,
            Prefix::Endpoints,
            Prefix::Blocks(Family::V4),
            Prefix::Blocks(Family::V6),
            Prefix::AllAffinities,
            Prefix::Bindings,
            Prefix::Leases,
        ]
    }

    /// Takes a change of a record in.
    pub fn apply(&mut self, delta: Delta) {
        let Delta { key, revision, value } = delta;
        match key {
            Key::Node(name) => self.nodes.set(name, revision, value),
            Key::Block(cidr) => self.blocks.set(cidr, revision, value),
            Key::Lease(name) => self.leases.set(name, revision, value),
            Key::Binding(name) => {
                if let Some(floating) = floating::of_binding(&name) {
                    self.bindings.set(floating, revision, value);
                }
            }
            Key::Affinity { owner, cidr } => match value {
                Some(_) => drop(self.affinities.insert((owner, cidr))),
                None => drop(self.affinities.remove(&(owner, cidr))),
            },
            Key::Endpoint { namespace, name } => self.endpoints.set(EndpointId { namespace, name }, value),
            _ => {}
        }
    }

    /// Everything that should be done, and how long each must have stood before it is.
    pub fn standing(&self, now: Timestamp) -> BTreeMap<Chore, Duration> {
        let mut standing = leaks::standing(self);
        standing.append(&mut remains::standing(self));
        standing.append(&mut contested::standing(self));
        standing.extend(self.unwanted(now).map(|chore| (chore, Duration::ZERO)));
        standing
    }

    fn unwanted(&self, now: Timestamp) -> impl Iterator<Item = Chore> {
        self.bindings.iter().filter_map(move |(floating, binding)| {
            let (_, revision) = self.bindings.versioned(floating)?;
            let status = &binding.status;
            let is_wanted =
                binding.spec.owner.is_some() || !status.candidates.is_empty() || status.contested().is_some();
            let is_over = now >= hold_ends(binding, self.settings.hold);
            (!is_wanted && is_over).then_some(Chore::Collect {
                floating: *floating,
                revision,
            })
        })
    }

    /// Whether a node has no record. Where there is none at all, the store is new, or says nothing.
    fn is_gone(&self, node: &str) -> bool {
        !self.nodes.is_empty() && !self.nodes.contains(node)
    }

    /// The binding of an address, if it is readable.
    pub fn binding(&self, floating: FloatingIp) -> Option<(&Binding, Revision)> {
        self.bindings.versioned(&floating)
    }

    /// How many bindings say that their address is contested.
    pub fn contested(&self) -> usize {
        let bindings = self.bindings.iter();
        bindings
            .filter(|(_, binding)| binding.status.contested().is_some())
            .count()
    }

    /// The lease of a node, if it is readable.
    pub fn lease(&self, node: &str) -> Option<(&NodeLease, Revision)> {
        self.leases.versioned(node)
    }

    /// The block that holds an address, if there is one.
    pub fn block_of(&self, address: IpAddr) -> Option<&Block> {
        self.blocks.holding(address)
    }
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
