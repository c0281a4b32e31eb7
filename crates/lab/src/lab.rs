//! The smallest lab: a client, a switch and one node.
//!
//! ```text
//!  client 192.0.2.10 ──┐
//!                    switch 192.0.2.254 (a bridge in a namespace of its own)
//!  node n1 192.0.2.1 ──┘
//! ```
//!
//! Client and switch route the pools by way of the node. Nobody answers ARP or NDP for a floating IP.

use std::net::IpAddr;
use std::panic::{self, AssertUnwindSafe};
use std::thread;

use anyhow::{Context, Result};
use ipnet::IpNet;

use crate::checker::{Checker, Place, Places, Source};
use crate::cluster::{AT_REST, Standing};
use crate::dump::Dump;
use crate::exec::{indented, tail};
use crate::netns::Netns;
use crate::node::Node;
use crate::run::{Run, keep_everything};
use crate::store::{Kind, Store};

/// Name of the node.
pub const NODE: &str = "n1";

/// Addresses of the client.
pub const CLIENT: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
/// Addresses of the node.
pub const NODE_IPS: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
/// Addresses of the switch.
pub const SWITCH: [&str; 2] = ["192.0.2.254", "2001:db8::fe"];
/// Prefixes that the others route by way of the node.
pub const ROUTED: [&str; 4] = ["10.65.0.0/16", "172.16.0.0/16", "fd65::/64", "fd16::/64"];

/// Pools for workloads and for floating IPs.
pub const POOLS: &str = "\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: workloads-v4
spec:
  cidr: 10.65.0.0/16
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: workloads-v6
spec:
  cidr: fd65::/64
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: floating-v4
spec:
  cidr: 172.16.1.0/24
  assignmentMode: Manual
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: floating-v6
spec:
  cidr: fd16::/112
  assignmentMode: Manual
";

/// One node, one client, one switch. Everything goes when it is dropped.
#[derive(Debug)]
pub struct Lab {
    /// The node.
    pub node: Node,
    /// A host behind the switch.
    pub client: Netns,
    /// The switch.
    pub switch: Netns,
    /// The node's state before anything of Buoy was there.
    pub before: Dump,
    run: Run,
}

impl Lab {
    /// Makes the network, without an agent and without records.
    pub fn bare() -> Result<Self> {
        Self::bare_on(Kind::default())
    }

    /// The same with another datastore.
    pub fn bare_on(kind: Kind) -> Result<Self> {
        let run = Run::begin()?;
        let store = Store::make(&run, kind)?;
        let node = Node::make(&run, NODE, &store)?;
        let (client, switch) = (Netns::make(&run, "client")?, Netns::make(&run, "switch")?);
        let hosts = [(&client, CLIENT), (node.netns(), NODE_IPS)];
        connect(&switch, &[&hosts[..], &store.hosts()].concat())?;
        give_addresses(&switch, "br0", SWITCH)?;
        switch.wait_for_addresses()?;
        store.start(&switch, hosts.len())?;
        for from in [&client, &switch] {
            for prefix in ROUTED {
                let prefix: IpNet = prefix.parse()?;
                from.add_route(prefix, of_family(NODE_IPS, prefix.addr())?)?;
            }
        }
        let before = Dump::at_rest(node.netns())?;
        Ok(Self {
            node,
            client,
            switch,
            before,
            run,
        })
    }

    /// Makes the network, starts the agent, and makes the pools.
    pub fn start() -> Result<Self> {
        Self::start_on(Kind::default())
    }

    /// The same with another datastore.
    pub fn start_on(kind: Kind) -> Result<Self> {
        let lab = Self::bare_on(kind)?;
        lab.node.start_agent().inspect_err(|_| lab.run.keep_directory())?;
        lab.node.apply(POOLS).context("cannot make the pools")?;
        Ok(lab)
    }

    /// Its run.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// What somebody needs who wants to know why something failed: state, logs, and how to step in.
    pub fn evidence(&self) -> String {
        let node = &self.node;
        let inside = |command: &str| node.netns().exec(command).map(|finished| finished.stdout);
        [
            shown("floating IPs", node.ctl("fip list")),
            shown("nftables of the node", inside("nft list ruleset")),
            shown("routes of the node", inside("ip route show")),
            shown("IPv6 routes of the node", inside("ip -6 route show")),
            shown("end of the agent's log", Ok(tail(&node.log(), 40))),
            how_to_look(&self.run, &[&self.client, &self.switch, node.netns()]),
        ]
        .concat()
    }

    /// Runs a test in this lab, and in the end the independent checker; when something fails, prints the evidence and keeps
    /// the logs, then fails.
    #[track_caller]
    pub fn test(self, body: impl FnOnce(&Self) -> Result<()>) {
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
            body(&self)?;
            self.check()
        }));
        judge(outcome, &self.run, || self.evidence());
    }

    /// Waits until kernel and records agree with the invariants, by the independent checker.
    fn check(&self) -> Result<()> {
        let places = Places {
            records: Source::Store(self.node.store().clone()),
            nodes: vec![Place::of(&self.node, self.standing())],
            router: None,
        };
        Checker::default().wait(&places, AT_REST)
    }

    fn standing(&self) -> Standing {
        let runs = self.node.with_agent(|agent| Ok(agent.is_running()));
        match runs {
            Ok(true) => Standing::Live,
            _ if self.node.is_clean() => Standing::Clean,
            _ => Standing::Frozen,
        }
    }
}

/// What becomes of a test: where it failed, the evidence is printed and the logs are kept.
#[track_caller]
pub(crate) fn judge(outcome: thread::Result<Result<()>>, run: &Run, evidence: impl FnOnce() -> String) {
    if matches!(outcome, Ok(Ok(()))) {
        return;
    }
    run.keep_directory();
    eprintln!("{}", evidence());
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error:?}"),
        Err(panicked) => panic::resume_unwind(panicked),
    }
}

/// One piece of evidence: a heading, and below it the text or what kept it from being had.
pub(crate) fn shown(what: &str, result: Result<String>) -> String {
    let text = result.unwrap_or_else(|error| format!("{error:#}"));
    format!("{what}:\n{}", indented(&text))
}

/// How a person looks at what is left: the directory, and how to step in where everything stays.
pub(crate) fn how_to_look(run: &Run, namespaces: &[&Netns]) -> String {
    let mut text = format!("logs: {}\n", run.base().display());
    if keep_everything() {
        for netns in namespaces {
            text += &format!("step in: {}\n", netns.how_to_enter());
        }
        text += "remove it with: buoy-lab sweep\n";
    } else {
        text += "to step in, run it again with BUOY_LAB_KEEP=1: the namespaces then stay\n";
    }
    text
}

/// Makes a bridge in the switch's namespace and plugs the others in: `port0` leads to the first, and so on.
pub(crate) fn connect(switch: &Netns, members: &[(&Netns, [&str; 2])]) -> Result<()> {
    switch.ip("link add br0 type bridge forward_delay 0\nlink set br0 up")?;
    for (index, (netns, addresses)) in members.iter().enumerate() {
        let port = format!("port{index}");
        switch.link(&port, netns, "eth0")?;
        switch.ip(&format!("link set {port} master br0"))?;
        give_addresses(netns, "eth0", *addresses)?;
    }
    for (netns, _) in members {
        netns.wait_for_addresses()?;
    }
    Ok(())
}

pub(crate) fn give_addresses(netns: &Netns, ifname: &str, [v4, v6]: [&str; 2]) -> Result<()> {
    netns.add_address(ifname, format!("{v4}/24").parse()?)?;
    netns.add_address(ifname, format!("{v6}/64").parse()?)
}

/// The one of two addresses that is of the family of `like`.
pub fn of_family(ips: [&str; 2], like: IpAddr) -> Result<IpAddr> {
    let [v4, v6] = ips;
    Ok(if like.is_ipv4() { v4 } else { v6 }.parse()?)
}
