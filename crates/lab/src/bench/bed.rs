//! The network that is measured.
//!
//! ```text
//!  client 192.0.2.10 ──── node 192.0.2.1 ──── workloads 10.65.0.0/16, floating IPs 172.16.0.0/16
//!         198.51.100.10 ── bare router ────── the first workload, 203.0.113.2
//! ```
//!
//! The bare router is a namespace that forwards and has no ruleset: what plain forwarding to the same workload costs.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use buoy_datastore::Datastore;
use serde_json::json;

use crate::lab::{CLIENT, NODE, NODE_IPS};
use crate::netns::Netns;
use crate::node::Node;
use crate::run::Run;
use crate::workload::{Spec, Workload};

/// Kubernetes namespace of all workloads.
pub(super) const NAMESPACE: &str = "bench";

/// The first workload's address behind the bare router.
const BEHIND: &str = "203.0.113.2";

/// IPv4 only: so are those that it is compared with.
const POOLS: &str = "\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: workloads
spec:
  cidr: 10.65.0.0/16
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: floating
spec:
  cidr: 172.16.0.0/16
  assignmentMode: Manual
";

/// Client, node with its agent, and store.
#[derive(Debug)]
pub(super) struct Bed {
    pub(super) node: Node,
    pub(super) client: Netns,
    pub(super) store: Arc<dyn Datastore>,
    run: Run,
}

/// A namespace that forwards, and does nothing else.
#[derive(Debug)]
pub(super) struct BarePath {
    router: Netns,
}

impl Bed {
    /// Makes the network, starts the agent, and makes the pools.
    pub(super) fn make() -> Result<Self> {
        let run = Run::begin()?;
        let directory = run.base().join("store");
        std::fs::create_dir_all(&directory)?;
        let datastore = format!("sqlite://{}", directory.join("buoy.db").display());
        let node = Node::make(&run, NODE, &datastore)?;
        let client = Netns::make(&run, "client")?;
        client.link("eth0", node.netns(), "eth0")?;
        client.add_address("eth0", format!("{}/24", CLIENT[0]).parse()?)?;
        node.netns()
            .add_address("eth0", format!("{}/24", NODE_IPS[0]).parse()?)?;
        for prefix in ["10.65.0.0/16", "172.16.0.0/16"] {
            client.add_route(prefix.parse()?, NODE_IPS[0].parse()?)?;
        }
        prepare_for_many(&client, node.netns())?;
        node.start_agent()?;
        node.apply(POOLS).context("cannot make the pools")?;
        let store = buoy_datastore::open(&datastore)?;
        Ok(Self {
            node,
            client,
            store,
            run,
        })
    }

    /// Makes the bare router, with nothing behind it yet.
    pub(super) fn path(&self) -> Result<BarePath> {
        let router = Netns::make(&self.run, "router")?;
        router.set_sysctl("net/ipv4/ip_forward", "1")?;
        router.link("eth0", &self.client, "eth1")?;
        router.add_address("eth0", "198.51.100.1/24".parse()?)?;
        self.client.add_address("eth1", "198.51.100.10/24".parse()?)?;
        self.client
            .add_route("203.0.113.0/24".parse()?, "198.51.100.1".parse()?)?;
        Ok(BarePath { router })
    }

    /// The agent's process.
    pub(super) fn agent(&self) -> Result<u32> {
        self.node.with_agent(|agent| Ok(agent.pid()))
    }
}

impl BarePath {
    /// Connects a workload, by a link like the one it has on the node; returns its address there.
    pub(super) fn lead_to(&self, workload: &Workload) -> Result<IpAddr> {
        let inside = workload.netns();
        self.router.link("eth1", inside, "plain0")?;
        self.router.ip("link set eth1 mtu 1450")?;
        inside.ip("link set plain0 mtu 1450")?;
        self.router.add_address("eth1", "203.0.113.1/24".parse()?)?;
        inside.add_address("plain0", format!("{BEHIND}/24").parse()?)?;
        inside.add_route("198.51.100.0/24".parse()?, "203.0.113.1".parse()?)?;
        Ok(BEHIND.parse()?)
    }
}

/// A workload that is not attached yet, with an IPv4 address only.
pub(super) fn prepare(node: &Node, name: &str) -> Result<Workload> {
    let ipam = json!({"type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "false"});
    Workload::prepare(node, Spec::pod(NAMESPACE, name).config("ipam", ipam))
}

/// More connections in a second than people make in an hour: neither ports nor connection tracking shall run out.
fn prepare_for_many(client: &Netns, node: &Netns) -> Result<()> {
    client.set_sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
    node.set_sysctl("net/netfilter/nf_conntrack_tcp_timeout_close", "1")?;
    node.set_sysctl("net/netfilter/nf_conntrack_udp_timeout", "2")
}
