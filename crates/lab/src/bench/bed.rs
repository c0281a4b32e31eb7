//! The network that is measured.
//!
//! ```text
//!  client 192.0.2.10 ──── node 192.0.2.1 ──── workloads 10.65.0.0/16, floating IPs 172.16.0.0/16
//!         198.51.100.10 ── bare router ────── the first workload, 203.0.113.2
//! ```
//!
//! or the same of IPv6. The bare router is a namespace that forwards and has no ruleset: what plain forwarding to the same workload costs.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use buoy_datastore::Datastore;

use super::family::Family;
use crate::lab::NODE;
use crate::netns::Netns;
use crate::node::Node;
use crate::run::Run;
use crate::store::{Kind, Store};
use crate::workload::{Spec, Workload};

/// Kubernetes namespace of all workloads.
pub(super) const NAMESPACE: &str = "bench";

/// Client, node with its agent, and store.
#[derive(Debug)]
pub(super) struct Bed {
    pub(super) family: Family,
    pub(super) node: Node,
    pub(super) client: Netns,
    pub(super) store: Arc<dyn Datastore>,
    run: Run,
}

/// A namespace that forwards, and does nothing else.
#[derive(Debug)]
pub(super) struct BarePath {
    family: Family,
    router: Netns,
}

impl Bed {
    /// Makes the network, starts the agent, and makes the pools.
    pub(super) fn make(family: Family) -> Result<Self> {
        let run = Run::begin()?;
        let node = Node::make(&run, NODE, &Store::make(&run, Kind::Sqlite)?)?;
        let client = Netns::make(&run, "client")?;
        client.link("eth0", node.netns(), "eth0")?;
        let network = family.front();
        for (host, netns) in [&client, node.netns()].into_iter().enumerate() {
            netns.add_address("eth0", network.on_link(host)?)?;
            netns.wait_for_addresses()?;
        }
        for prefix in family.pools() {
            client.add_route(prefix.parse()?, network.host(1)?)?;
        }
        prepare_for_many(&client, node.netns())?;
        node.start_agent()?;
        node.apply(&pools(family)).context("cannot make the pools")?;
        let store = node.store().open()?;
        Ok(Self {
            family,
            node,
            client,
            store,
            run,
        })
    }

    /// Makes the bare router, with nothing behind it yet.
    pub(super) fn path(&self) -> Result<BarePath> {
        let (family, network) = (self.family, self.family.before_router());
        let router = Netns::make(&self.run, "router")?;
        router.set_sysctl(family.forwarding(), "1")?;
        router.link("eth0", &self.client, "eth1")?;
        self.client.add_address("eth1", network.on_link(0)?)?;
        router.add_address("eth0", network.on_link(1)?)?;
        let behind = family.behind_router().prefix.parse()?;
        self.client.add_route(behind, network.host(1)?)?;
        Ok(BarePath { family, router })
    }

    /// The agent's process.
    pub(super) fn agent(&self) -> Result<u32> {
        self.node.with_agent(|agent| Ok(agent.pid()))
    }
}

impl BarePath {
    /// Connects a workload, by a link like the one it has on the node; returns its address there.
    pub(super) fn lead_to(&self, workload: &Workload) -> Result<IpAddr> {
        let (inside, network) = (workload.netns(), self.family.behind_router());
        self.router.link("eth1", inside, "plain0")?;
        self.router.ip("link set eth1 mtu 1450")?;
        inside.ip("link set plain0 mtu 1450")?;
        inside.add_address("plain0", network.on_link(0)?)?;
        self.router.add_address("eth1", network.on_link(1)?)?;
        let client = self.family.before_router().prefix.parse()?;
        inside.add_route(client, network.host(1)?)?;
        for netns in [inside, &self.router] {
            netns.wait_for_addresses()?;
        }
        network.host(0)
    }
}

/// A workload that is not attached yet, with an address of this family only.
pub(super) fn prepare(node: &Node, family: Family, name: &str) -> Result<Workload> {
    Workload::prepare(node, spec(family, name))
}

/// What a runtime knows of such a workload.
pub(super) fn spec(family: Family, name: &str) -> Spec {
    Spec::pod(NAMESPACE, name).config("ipam", family.ipam())
}

/// Pools of workloads and of floating IPs.
pub(super) fn pools(family: Family) -> String {
    let [workloads, floating] = family.pools();
    format!(
        "{{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {{name: workloads}}, spec: {{cidr: '{workloads}'}}}}\n\
         ---\n\
         {{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {{name: floating}}, \
         spec: {{cidr: '{floating}', assignmentMode: Manual}}}}\n"
    )
}

/// More connections in a second than people make in an hour: neither ports nor connection tracking shall run out.
pub(super) fn prepare_for_many(client: &Netns, node: &Netns) -> Result<()> {
    client.set_sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
    node.set_sysctl("net/netfilter/nf_conntrack_tcp_timeout_close", "1")?;
    node.set_sysctl("net/netfilter/nf_conntrack_udp_timeout", "2")
}
