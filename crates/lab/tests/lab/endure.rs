//! Faults of a store that take nothing: each begins, is seen, lasts and ends; soon after that all is as before.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use buoy_lab::ask::{owner, shows};
use buoy_lab::cluster::Cluster;
use buoy_lab::exec::{self, eventually};
use buoy_lab::faults::{Seen, slow_down};
use buoy_lab::node::Node;
use buoy_lab::store::Store;
use buoy_lab::traffic::Traffic;
use buoy_lab::workload::{Spec, Workload};

pub(crate) const FLOATING: [&str; 2] = ["172.16.1.3", "fd16::3"];
/// Longer than any lease that nobody renews.
const LONGER_THAN_A_LEASE: Duration = Duration::from_secs(12);
/// Within this time after the store answers again, all nodes use it as before.
const RETURN: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(30);

/// An owner on n1, standbys on the other nodes.
pub(crate) fn shop(cluster: &Cluster) -> Result<Vec<Workload>> {
    let nodes = cluster.nodes.iter().zip(["web-1", "web-2", "web-3"]);
    nodes
        .map(|(node, name)| Workload::start(node, Spec::pod("shop", name).floating(&FLOATING)))
        .collect()
}

/// What is the matter, where it is seen, and for how long it lasts.
pub(crate) struct Fault<'a> {
    pub(crate) what: &'a str,
    pub(crate) nodes: &'a [Node],
    pub(crate) seen: Seen,
    pub(crate) lasts: Duration,
}

impl<'a> Fault<'a> {
    /// One that everybody sees, and that lasts longer than a lease.
    pub(crate) fn of_everybody(cluster: &'a Cluster, what: &'a str, seen: Seen) -> Self {
        Self {
            what,
            nodes: &cluster.nodes,
            seen,
            lasts: LONGER_THAN_A_LEASE,
        }
    }
}

/// A fault that takes nothing: nobody's address moves, and no traffic is lost.
pub(crate) fn endured<T>(
    cluster: &Cluster,
    fault: &Fault<'_>,
    begin: impl FnOnce() -> Result<T>,
    end: impl FnOnce(T) -> Result<()>,
) -> Result<()> {
    let n1 = &cluster.nodes[0];
    let before = owner_at_last(n1)?;
    let traffic = FLOATING.map(|floating| {
        let floating: IpAddr = floating.parse()?;
        Traffic::start(&cluster.client, floating)
    });
    let node = fault.nodes.first().unwrap_or(n1);
    let memory = memory(node)?;
    let most = suffered(cluster, fault, begin, end).with_context(|| fault.what.to_owned())?;
    let grown = most.max(self::memory(node)?).saturating_sub(memory);
    eprintln!("{}: {grown} KiB more memory", fault.what);
    ensure!(
        grown < 64 << 10,
        "{}: the agent's memory grew by {grown} KiB",
        fault.what
    );
    for traffic in traffic {
        let traffic = traffic?;
        traffic.progress()?;
        traffic.unharmed().with_context(|| fault.what.to_owned())?;
    }
    let after = owner_at_last(n1)?;
    ensure!(
        after == before,
        "{}: {before:?} before, {after:?} after",
        fault.what
    );
    cluster.check().with_context(|| fault.what.to_owned())
}

/// The same of a store that stands still for 200 ms, again and again.
pub(crate) fn endured_slowly(
    cluster: &Cluster,
    fault: &Fault<'_>,
    freeze: impl Fn() -> Result<()> + Send,
    thaw: impl Fn() -> Result<()> + Send,
) -> Result<()> {
    let over = &AtomicBool::new(false);
    thread::scope(|scope| {
        let begin = || Ok(scope.spawn(move || slow_down(over, freeze, thaw)));
        let slowed = endured(cluster, fault, begin, |slowing| {
            over.store(true, Ordering::Relaxed);
            slowing.join().map_err(|_| anyhow!("it panicked"))?
        });
        over.store(true, Ordering::Relaxed);
        slowed
    })
}

/// Returns the memory of an agent that sees it, in KiB, when it has lasted long.
fn suffered<T>(
    cluster: &Cluster,
    fault: &Fault<'_>,
    begin: impl FnOnce() -> Result<T>,
    end: impl FnOnce(T) -> Result<()>,
) -> Result<u64> {
    let begun = Instant::now();
    let held = begin().context("it begins")?;
    for node in fault.nodes {
        shows(node, fault.seen)?;
    }
    thread::sleep(fault.lasts.saturating_sub(begun.elapsed()));
    for node in fault.nodes {
        shows(node, fault.seen).context("at its end")?;
        if fault.seen == Seen::IN_CONTACT {
            a_workload_comes_and_goes(node)?;
        }
    }
    let memory = memory(&fault.nodes[0])?;
    comes_back(cluster, fault.what, || end(held).context("it ends"))?;
    Ok(memory)
}

/// While the fault lasts.
fn a_workload_comes_and_goes(node: &Node) -> Result<()> {
    let mut guest = Workload::prepare(node, Spec::pod("shop", "guest"))?;
    eventually(SOON, "an address is given all the same", || {
        guest.add()?.ok().map(drop)
    })?;
    guest.delete().map(drop)
}

/// The store comes back, and soon all nodes use it as before.
pub(crate) fn comes_back(cluster: &Cluster, what: &str, end: impl FnOnce() -> Result<()>) -> Result<()> {
    let prepare = |node| Workload::prepare(node, Spec::pod("shop", "probe"));
    let mut probes: Vec<Workload> = cluster.nodes.iter().map(prepare).collect::<Result<_>>()?;
    end()?;
    answers(cluster.store())?;
    let begun = Instant::now();
    thread::scope(|scope| {
        let nodes = cluster.nodes.iter().zip(&mut probes);
        let all: Vec<_> = nodes
            .map(|(node, probe)| scope.spawn(move || is_in_use(node, probe)))
            .collect();
        all.into_iter()
            .try_for_each(|one| one.join().map_err(|_| anyhow!("it panicked"))?)
    })?;
    let took = begun.elapsed();
    eprintln!("{what}: in use {took:?} after its end");
    ensure!(took < RETURN, "{what}: in use only {took:?} after its end");
    for node in &cluster.nodes {
        shows(node, Seen::IN_CONTACT)?;
    }
    for probe in probes {
        probe.delete()?;
    }
    Ok(())
}

/// The store itself takes writes again: its members have found each other.
fn answers(store: &Store) -> Result<()> {
    match store {
        Store::Etcd(etcd) => eventually(SOON, "the store takes writes", || etcd.put("elsewhere", "x")),
        Store::File(_) | Store::Elsewhere(_) => Ok(()),
    }
}

/// An agent is ready, sure of what it owns, and gives addresses.
fn is_in_use(node: &Node, probe: &mut Workload) -> Result<()> {
    let unsure = r#"buoy_floating_ips{state="unconfirmed"} 0"#;
    eventually(SOON, &format!("{} uses the store", node.name()), || {
        let agent = node.agent_api();
        agent.text("/readyz")?;
        let metrics = agent.text("/metrics")?;
        ensure!(
            metrics.lines().any(|line| line == unsure),
            "it is not sure of what it owns"
        );
        probe.add()?.ok().map(drop)
    })
}

/// Who owns the address, once the members have a leader again: a tool that runs once says that they have none.
fn owner_at_last(node: &Node) -> Result<(String, u64)> {
    eventually(SOON, "the store says who owns the address", || {
        owner(node, FLOATING[0])
    })
}

/// Resident memory of a node's agent, in KiB.
fn memory(node: &Node) -> Result<u64> {
    exec::memory(node.with_agent(|agent| Ok(agent.pid()))?, "VmRSS")
}
