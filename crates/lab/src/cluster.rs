//! A cluster: three nodes on one segment, a router that leads out of it, and a client beyond the router.
//!
//! ```text
//!  n1 192.0.2.1 ──┐
//!  n2 192.0.2.2 ──┼── switch ── 192.0.2.254 router 198.51.100.1 ── client 198.51.100.10
//!  n3 192.0.2.3 ──┘
//! ```
//!
//! All agents share one embedded store, or an etcd whose members are on the nodes' segment too. The nodes' default route leads to the router; the router knows floating IPs and
//! pools only from the nodes' announcements.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::bird;
use crate::checker::{Checker, Place, Places, Source};
use crate::dump::Dump;
use crate::exec::{eventually, tail};
use crate::lab::{POOLS, how_to_look, judge, shown};
use crate::netns::Netns;
use crate::node::Node;
use crate::router::Router;
use crate::run::Run;
use crate::segment::{Segment, peers};
use crate::store::{Kind, Store};

pub use crate::segment::{CLIENT, NODES, ROUTER};

/// The nodes' sessions with the router.
pub const PEERS: &str = "\
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata:
  name: router-v4
spec:
  peerIP: 192.0.2.254
  asNumber: 64600
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata:
  name: router-v6
spec:
  peerIP: 2001:db8::fe
  asNumber: 64600
";

/// Sessions come up within this time, on a busy machine: BIRD tries again every few seconds.
const SESSIONS: Duration = Duration::from_secs(40);

/// Everything comes to rest within this time: claims, sessions, and flows that end.
pub(crate) const AT_REST: Duration = Duration::from_secs(40);

/// How it stands with a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Everything runs and is connected.
    #[default]
    Live,
    /// Its agent does nothing, or is not there; its BIRD and its kernel go on.
    Frozen,
    /// Nothing reaches it, and its agent changes nothing.
    Cut,
    /// No agent was ever there, or everything was removed after it.
    Clean,
}

/// Three nodes, a router, a client. Everything goes when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes: `n1`, `n2`, `n3`.
    pub nodes: Vec<Node>,
    /// The router.
    pub router: Router,
    /// A host beyond the router.
    pub client: Netns,
    /// The switch to which nodes and router are connected, by `port0` … `port3`.
    pub switch: Netns,
    /// The nodes' state before anything of Buoy was there.
    pub before: Vec<Dump>,
    standing: Mutex<BTreeMap<String, Standing>>,
    checker: Mutex<Checker>,
    run: Run,
}

impl Cluster {
    /// Makes the network with a running router, without agents and without records. The nodes are set to use BIRD.
    pub fn bare() -> Result<Self> {
        Self::bare_on(Kind::default())
    }

    /// The same with another datastore.
    pub fn bare_on(kind: Kind) -> Result<Self> {
        let run = Run::begin()?;
        let store = Store::make(&run, kind)?;
        let nodes: Vec<Node> = (1..=NODES.len())
            .map(|number| Node::make(&run, &format!("n{number}"), &store))
            .collect::<Result<_>>()?;
        let inside: Vec<&Netns> = nodes.iter().map(Node::netns).collect();
        let segment = Segment::make(&run, &inside, &store.hosts())?;
        store.start(&segment.switch, nodes.len() + 1)?;
        for node in &nodes {
            node.set(|settings| "bird".clone_into(&mut settings.routing));
        }
        let before = nodes
            .iter()
            .map(|node| Dump::take(node.netns()))
            .collect::<Result<_>>()?;
        let cluster = Self {
            nodes,
            router: segment.router,
            client: segment.client,
            switch: segment.switch,
            before,
            standing: Mutex::default(),
            checker: Mutex::default(),
            run,
        };
        cluster.router.set(|settings| settings.peers = peers())?;
        cluster.router.start()?;
        Ok(cluster)
    }

    /// Makes the network, the records and the agents, and waits until all sessions stand.
    pub fn start() -> Result<Self> {
        Self::start_on(Kind::default())
    }

    /// The same with another datastore.
    pub fn start_on(kind: Kind) -> Result<Self> {
        let cluster = Self::bare_on(kind)?;
        if let Err(error) = cluster.begin() {
            cluster.run.keep_directory();
            return Err(error.context(cluster.evidence()));
        }
        Ok(cluster)
    }

    /// Starts the agents of a bare cluster, makes the records, and waits until all sessions stand.
    pub fn begin(&self) -> Result<()> {
        self.start_agents()?;
        self.nodes[0].apply(POOLS).context("cannot make the pools")?;
        self.nodes[0].apply(PEERS).context("cannot make the peers")?;
        self.wait_for_sessions()
    }

    /// Its datastore.
    pub fn store(&self) -> &Store {
        self.nodes[0].store()
    }

    /// Its run.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// A node by its name in the lab.
    pub fn node(&self, name: &str) -> Result<&Node> {
        let found = self.nodes.iter().find(|node| node.name() == name);
        found.with_context(|| format!("no node {name}"))
    }

    /// Starts all agents at once and waits until they are ready.
    pub fn start_agents(&self) -> Result<()> {
        thread::scope(|scope| {
            let starting: Vec<_> = self
                .nodes
                .iter()
                .map(|node| scope.spawn(|| node.start_agent()))
                .collect();
            for start in starting {
                start.join().map_err(|_| anyhow!("a starter panicked"))??;
            }
            Ok(())
        })
    }

    /// Waits until every node has its sessions with the router and with the other nodes, in both families.
    pub fn wait_for_sessions(&self) -> Result<()> {
        let all: Vec<&Node> = self.nodes.iter().collect();
        self.wait_for_sessions_of(&all)
    }

    /// The same for some of the nodes.
    pub fn wait_for_sessions_of(&self, nodes: &[&Node]) -> Result<()> {
        eventually(SESSIONS, "all sessions stand", || {
            let at_router = self.router.established()?;
            for node in nodes {
                let name = node.name();
                let own = at_router
                    .iter()
                    .filter(|peer| peer.starts_with(&format!("{name}_")));
                ensure!(own.count() == 2, "the router has not both sessions with {name}");
                let table = node.birdc("show protocols")?;
                let standing = bird::established(&table).len();
                let expected = 2 * nodes.len();
                ensure!(
                    standing >= expected,
                    "{name} has {standing} of {expected} sessions:\n{table}"
                );
            }
            Ok(())
        })
    }

    /// The node to which the router sends what is for an address. Error: to none.
    pub fn leads_to(&self, floating: IpAddr) -> Result<&Node> {
        let hop = self.router.next_hop(floating)?;
        for node in &self.nodes {
            let addresses = node.netns().exec("ip -br address show dev eth0")?.stdout;
            if addresses.contains(&format!(" {hop}/")) {
                return Ok(node);
            }
        }
        Err(anyhow!("the router sends {floating} to {hop}, which is no node"))
    }

    /// How it stands with a node.
    pub fn standing(&self, node: &Node) -> Standing {
        if node.is_clean() {
            return Standing::Clean;
        }
        lock(&self.standing).get(node.name()).copied().unwrap_or_default()
    }

    fn now(&self, node: &Node, standing: Standing) {
        lock(&self.standing).insert(node.name().to_owned(), standing);
    }

    /// Freezes a node's agent alone (SIGSTOP).
    pub fn freeze(&self, node: &Node) -> Result<()> {
        self.now(node, Standing::Frozen);
        node.with_agent(|agent| agent.freeze())
    }

    /// Lets it go on.
    pub fn thaw(&self, node: &Node) -> Result<()> {
        node.with_agent(|agent| agent.thaw())?;
        self.now(node, Standing::Live);
        Ok(())
    }

    /// Kills a node's agent (`kill -9`).
    pub fn kill(&self, node: &Node) {
        self.now(node, Standing::Frozen);
        node.kill_agent();
    }

    /// Stops a node's agent in order.
    pub fn stop(&self, node: &Node) -> Result<()> {
        self.now(node, Standing::Frozen);
        node.stop_agent()
    }

    /// Starts a node's agent.
    pub fn start_agent(&self, node: &Node) -> Result<()> {
        node.start_agent()?;
        self.now(node, Standing::Live);
        Ok(())
    }

    /// Pulls all cables of a node: both ends lose their carrier. A store that is a file can be reached whatever happens to
    /// links; for its agent to be cut off from it too, it is frozen.
    pub fn cut(&self, node: &Node) -> Result<()> {
        self.now(node, Standing::Cut);
        if matches!(self.store(), Store::File(_)) {
            node.with_agent(|agent| agent.freeze())?;
        }
        self.plug(node, "down")
    }

    /// Plugs them in again, and lets its agent go on.
    pub fn restore(&self, node: &Node) -> Result<()> {
        self.plug(node, "up")?;
        self.thaw(node)
    }

    /// Sets the switch's end of a node's link.
    pub fn plug(&self, node: &Node, state: &str) -> Result<()> {
        let index = self.nodes.iter().position(|other| other.name() == node.name());
        let index = index.with_context(|| format!("no node {}", node.name()))?;
        self.switch.ip(&format!("link set port{index} {state}"))
    }

    /// Waits until kernels, network and records agree with the invariants, by the independent checker. Error: what still
    /// does not after a while.
    pub fn check(&self) -> Result<()> {
        lock(&self.checker).wait(&self.places(), AT_REST)
    }

    /// What the checker reads, and how it stands with each.
    pub fn places(&self) -> Places {
        let nodes = self.nodes.iter().map(|node| Place::of(node, self.standing(node)));
        Places {
            records: Source::Store(self.store().clone()),
            nodes: nodes.collect(),
            router: Some(Place::of_router(&self.router)),
        }
    }

    /// What somebody needs who wants to know why something failed: state, logs, and how to step in.
    pub fn evidence(&self) -> String {
        let mut text = shown("floating IPs", self.nodes[0].ctl("fip list -o wide"));
        text += &shown("routes of the router", self.router.birdc("show route all"));
        text += &shown("sessions of the router", self.router.birdc("show protocols"));
        for node in &self.nodes {
            let name = node.name();
            let inside = |command: &str| node.netns().exec(command).map(|finished| finished.stdout);
            text += &shown(&format!("{name}: routes"), inside("ip route show"));
            text += &shown(&format!("{name}: IPv6 routes"), inside("ip -6 route show"));
            text += &shown(&format!("{name}: nftables"), inside("nft list ruleset"));
            for family in ["ipv4", "ipv6"] {
                let listed = inside(&format!("conntrack -L -f {family}"));
                text += &shown(&format!("{name}: flows, {family}"), listed);
            }
            text += &shown(&format!("{name}: BIRD's routes"), node.birdc("show route all"));
            text += &shown(&format!("{name}: BIRD's sessions"), node.birdc("show protocols"));
            text += &shown(
                &format!("{name}: end of the agent's log"),
                Ok(tail(&node.log(), 40)),
            );
        }
        if let Store::Etcd(etcd) = self.store() {
            text += &etcd.evidence();
        }
        let namespaces: Vec<&Netns> = self
            .nodes
            .iter()
            .map(Node::netns)
            .chain([self.router.netns(), &self.client, &self.switch])
            .collect();
        text + &how_to_look(&self.run, &namespaces)
    }

    /// Runs a test in this cluster; when it fails, prints the evidence and keeps the logs, then fails.
    #[track_caller]
    pub fn test(self, body: impl FnOnce(&Self) -> Result<()>) {
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| body(&self)));
        judge(outcome, &self.run, || self.evidence());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
