//! What is: the records of the store, and what nodes and router have, as far as the rules look at it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::cluster::Standing;

/// Route protocol of the agents' routes.
pub(super) const OURS: &str = "177";
/// Route protocol of the routes that a node's BIRD puts into the kernel.
pub(super) const BIRD: &str = "bird";
/// Metric of the `unreachable` route of a node that has a candidate and is not the owner.
pub(super) const LAST_RESORT: u64 = 4_294_967_295;
/// Metrics of floating IPs: this minus the epoch.
pub(super) const METRIC_BASE: u64 = 1_000_000_000;

/// Everything that was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// When they were read.
    pub(super) now: Timestamp,
    pub(super) records: Records,
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) router: Option<Router>,
}

/// The records of the store.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    pub(super) bindings: Vec<Binding>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) leases: BTreeMap<String, Lease>,
    pub(super) pools: Vec<Pool>,
    pub(super) blocks: Vec<Block>,
    /// Handles, and how many addresses they say they have.
    pub(super) handles: BTreeMap<String, u64>,
    pub(super) nodes: BTreeSet<String>,
    /// What could not be read, and why.
    pub(super) bad: Vec<String>,
}

/// A floating IP in use or held.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) namespace: String,
    pub(super) epoch: u64,
    pub(super) owner: Option<Owner>,
    pub(super) candidates: Vec<Candidate>,
}

/// Whom it fronts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) who: Who,
    pub(super) internal: IpAddr,
    pub(super) term: u64,
}

/// A workload that asks for it.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) who: Who,
    pub(super) internal: IpAddr,
    pub(super) ready: bool,
}

/// One workload's interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Who {
    pub(super) node: String,
    pub(super) workload: String,
    pub(super) endpoint: String,
}

/// A workload endpoint.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) who: Who,
    pub(super) namespace: String,
    pub(super) container: String,
    pub(super) link: String,
    pub(super) addresses: Vec<IpAddr>,
    /// Floating IPs that it asks for, and the address of its own each would lead to.
    pub(super) asks: BTreeMap<IpAddr, IpAddr>,
}

/// A node's lease.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) holder: Option<String>,
    pub(super) term: u64,
    pub(super) renewed: Option<Timestamp>,
}

/// An IP pool.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    pub(super) cidr: IpNet,
    pub(super) exported: bool,
}

/// A block, and who has what in it.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) cidr: IpNet,
    pub(super) given: Vec<(IpAddr, String)>,
}

/// A node's kernel and BIRD.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) standing: Standing,
    pub(super) kernel: Kernel,
    /// The routes of its BIRD; `None` where it has none.
    pub(super) bird: Option<Vec<BirdRoute>>,
}

/// The router's kernel and BIRD.
#[derive(Clone, Debug, Default)]
pub(super) struct Router {
    pub(super) routes: Vec<Route>,
    pub(super) bird: Vec<BirdRoute>,
}

/// What a node's kernel has.
#[derive(Clone, Debug, Default)]
pub(super) struct Kernel {
    /// Its own addresses, those that only neighbours see among them.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Links that are up.
    pub(super) up: BTreeSet<String>,
    pub(super) routes: Vec<Route>,
    /// Links that lead to workloads, as the packet filter says, by table family.
    pub(super) links: BTreeSet<(Table, String)>,
    /// Floating IP to the workload's own address.
    pub(super) translated: BTreeMap<IpAddr, IpAddr>,
    /// Addresses that the rules match.
    pub(super) floating: BTreeSet<IpAddr>,
    /// Floating IPs and who had them, whose flows are being ended.
    pub(super) ending: BTreeSet<(IpAddr, IpAddr)>,
    /// The same, whose flows may go on for a while.
    pub(super) draining: BTreeSet<(IpAddr, IpAddr)>,
    pub(super) flows: Vec<Flow>,
}

/// The family of a packet filter's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Ip,
    Ip6,
}

impl Table {
    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ip } else { Self::Ip6 }
    }
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) to: IpNet,
    /// `unicast`, `unreachable`, `blackhole` …
    pub(super) kind: String,
    pub(super) device: Option<String>,
    pub(super) gateway: Option<IpAddr>,
    pub(super) metric: u64,
    pub(super) protocol: String,
    /// Whether its link is down.
    pub(super) dead: bool,
}

/// A route of a BIRD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BirdRoute {
    pub(super) to: IpNet,
    pub(super) protocol: String,
    pub(super) best: bool,
    pub(super) gateway: Option<IpAddr>,
    pub(super) device: Option<String>,
}

/// A tracked flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) protocol: String,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// Who answers.
    pub(super) answers: IpAddr,
}

impl Facts {
    /// The node on which an address lives now, if it is one of those that were read.
    pub(super) fn owner_of<'a>(&'a self, binding: &'a Binding) -> Option<(&'a Owner, &'a Node)> {
        let owner = binding.owner.as_ref()?;
        Some((owner, self.nodes.get(&owner.who.node)?))
    }

    /// Whether its pool's routes go out by BGP.
    pub(super) fn is_exported(&self, address: IpAddr) -> bool {
        let pools = self.records.pools.iter();
        pools
            .filter(|pool| pool.cidr.contains(&address))
            .max_by_key(|pool| pool.cidr.prefix_len())
            .is_some_and(|pool| pool.exported)
    }
}

impl Records {
    /// The endpoint of somebody whom a binding names. Others may have the same name in other namespaces; where only such
    /// are there, one of them.
    pub(super) fn endpoint(&self, binding: &Binding, who: &Who) -> Option<&Endpoint> {
        let named = || self.endpoints.iter().filter(move |endpoint| endpoint.who == *who);
        let own = named().find(|endpoint| endpoint.namespace == binding.namespace);
        own.or_else(|| named().next())
    }

    pub(super) fn binding(&self, address: IpAddr) -> Option<&Binding> {
        self.bindings.iter().find(|binding| binding.address == address)
    }
}

impl Kernel {
    /// Whether a link leads to a workload.
    pub(super) fn is_workload(&self, link: &str) -> bool {
        [Table::Ip, Table::Ip6]
            .iter()
            .any(|table| self.links.contains(&(*table, link.to_owned())))
    }
}

/// Routes to this address alone.
pub(super) fn host_routes(routes: &[Route], address: IpAddr) -> impl Iterator<Item = &Route> {
    routes
        .iter()
        .filter(move |route| route.to == IpNet::from(address))
}

/// The route that packets to an address take: the longest prefix, then the lowest metric.
pub(super) fn best_route(routes: &[Route], address: IpAddr) -> Option<&Route> {
    let matching = routes
        .iter()
        .filter(|route| !route.dead && route.to.contains(&address));
    matching.min_by_key(|route| (u8::MAX - route.to.prefix_len(), route.metric))
}

/// Whether an address stands alone in a prefix.
pub(super) fn is_host(to: &IpNet) -> bool {
    to.prefix_len() == to.max_prefix_len()
}
