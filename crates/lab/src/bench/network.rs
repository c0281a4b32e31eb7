//! Three nodes, a router and a client beyond it: how fast an address moves across the network, and what many of them cost.
//!
//! The router's hold time is 240 seconds. But for `unreachable/bfd` there is no BFD: the epoch decides.

mod crowd;
mod moves;
mod router;
mod stir;
mod takeover;
mod unreachable;
mod web;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use buoy_datastore::Datastore;

use super::bed::{pools, prepare_for_many};
use super::family::Family;
use super::report::Report;
use super::{machine, progress};
use crate::cluster::{Cluster, PEERS};
use crate::node::Node;
use web::Web;

/// What is measured; sessions are of both families.
const FAMILY: Family = Family::V4;
/// Patience with sessions and with many routes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a client pings.
const OFTEN: Duration = Duration::from_millis(10);

/// Counts and times of this part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// Planned moves.
    moves: usize,
    /// Owners that are deleted.
    deleted: usize,
    /// Agents that are frozen, and nodes that are cut off.
    taken: usize,
    /// Nodes that are cut off under an address without standby.
    unreachable: usize,
    /// Workloads on each node that have many floating IPs.
    workloads: usize,
    /// Floating IPs over three nodes that are moved while agents are killed.
    crowd: usize,
    /// How long they are.
    stir: Duration,
    /// Addresses of them that a client pings meanwhile.
    sampled: usize,
    /// Floating IPs on one node.
    many: usize,
}

/// As `make bench` measures.
pub(super) const FULL: Scale = Scale {
    moves: 100,
    deleted: 100,
    taken: 3,
    unreachable: 3,
    workloads: 10,
    crowd: 1_000,
    stir: Duration::from_secs(60),
    sampled: 200,
    many: 10_000,
};

/// Shows that it works.
pub(super) const QUICK: Scale = Scale {
    moves: 4,
    deleted: 2,
    taken: 1,
    unreachable: 1,
    workloads: 2,
    crowd: 30,
    stir: Duration::from_secs(2),
    sampled: 10,
    many: 200,
};

/// Measures all of it, in three clusters one after the other.
pub(super) fn measure(scale: &super::Scale, report: &mut Report) -> Result<()> {
    let scale = &scale.network;
    Field::with(|field| one_address(field, scale, report))?;
    Field::with(|field| crowd::measure(field, scale, report))?;
    Field::with(|field| router::measure(field, scale, report))
}

/// What happens to one address with two workloads on two nodes.
fn one_address(field: &Field, scale: &Scale, report: &mut Report) -> Result<()> {
    let [first, second, third] = field.nodes()?;
    let mut pair = [
        Web::start(first, b'1', &[address(0)])?,
        Web::start(second, b'2', &[address(0)])?,
    ];
    field.wait_for_routes(1)?;
    moves::planned(field, &pair, scale, report)?;
    moves::deleted(field, &mut pair, scale, report)?;
    takeover::measure(field, &mut pair, scale, report)?;
    unreachable::measure(field, third, scale, report)
}

/// A cluster, and a store by which records are written.
#[derive(Debug)]
struct Field {
    store: Arc<dyn Datastore>,
    cluster: Cluster,
}

impl Field {
    /// Makes a cluster, measures in it, and removes it. Error: something does not work; the evidence is kept.
    fn with(measure: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        progress("  three nodes, a router and a client")?;
        let cluster = Cluster::bare()?;
        let store = cluster.store().open()?;
        let field = Self { store, cluster };
        field
            .begin()
            .and_then(|()| measure(&field))
            .map_err(|error| field.failed(error))
    }

    fn begin(&self) -> Result<()> {
        for node in &self.cluster.nodes {
            prepare_for_many(&self.cluster.client, node.netns())?;
        }
        self.cluster.start_agents()?;
        self.cluster.nodes[0].apply(&pools(FAMILY))?;
        self.cluster.nodes[0].apply(PEERS)?;
        self.cluster.wait_for_sessions()
    }

    fn failed(&self, error: anyhow::Error) -> anyhow::Error {
        let run = self.cluster.run();
        run.keep_directory();
        let file = run.base().join("evidence");
        match std::fs::write(&file, self.cluster.evidence()) {
            Ok(()) => error.context(format!("evidence and logs: {}", file.display())),
            Err(unwritten) => error.context(format!("no evidence: {unwritten}")),
        }
    }

    fn nodes(&self) -> Result<&[Node; 3]> {
        let nodes = self.cluster.nodes.as_slice();
        nodes.try_into().context("a cluster has three nodes")
    }

    /// How many floating IPs the router's kernel has a route to.
    fn routes(&self) -> Result<usize> {
        let router = self.cluster.router.netns();
        let shown = router.exec("ip -4 route show root 172.16.0.0/16 proto bird")?;
        // A block has a length, a single address has none.
        let single = |line: &&str| line.split(' ').next().is_some_and(|to| !to.contains('/'));
        Ok(shown.stdout.lines().filter(single).count())
    }

    /// Until the router has a route to so many floating IPs; returns when that was.
    fn wait_for_routes(&self, count: usize) -> Result<Instant> {
        let begun = Instant::now();
        loop {
            let found = self.routes()?;
            if found == count {
                return Ok(Instant::now());
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "the router has {found} of {count} floating IPs after {PATIENCE:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Until the agents do next to nothing.
    fn rest(&self) -> Result<()> {
        for node in &self.cluster.nodes {
            machine::rest(node.with_agent(|agent| Ok(agent.pid()))?)?;
        }
        Ok(())
    }

    /// Waits until the checker finds that all agrees.
    fn check(&self) -> Result<()> {
        self.cluster.check()
    }
}

/// A floating IP by its number; the first is the one that moves.
fn address(number: usize) -> IpAddr {
    FAMILY.floating(number)
}
