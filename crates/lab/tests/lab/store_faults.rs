//! What happens to an etcd under a running cluster: traffic does not suffer, nothing is taken from anybody whose agent lives
//! and reaches the store, every node says how it stands, and soon after the end all is as before.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use buoy_lab::ask::{answered_by, owner, shows};
use buoy_lab::cluster::Cluster;
use buoy_lab::etcd::{Etcd, Member};
use buoy_lab::exec::{self, eventually};
use buoy_lab::faults::{self, Lost, Seen};
use buoy_lab::node::Node;
use buoy_lab::probe::Via;
use buoy_lab::store::Kind;
use buoy_lab::traffic::Traffic;
use buoy_lab::workload::{Spec, Workload};

const FLOATING: [&str; 2] = ["172.16.1.3", "fd16::3"];
/// Longer than any lease that nobody renews.
const LONGER_THAN_A_LEASE: Duration = Duration::from_secs(12);
/// Within this time after its return the store is in use again, on a busy machine.
const RETURN: Duration = Duration::from_secs(8);
const SOON: Duration = Duration::from_secs(30);

/// An owner on n1, standbys on the other nodes.
fn shop(cluster: &Cluster) -> Result<Vec<Workload>> {
    let nodes = cluster.nodes.iter().zip(["web-1", "web-2", "web-3"]);
    nodes
        .map(|(node, name)| Workload::start(node, Spec::pod("shop", name).floating(&FLOATING)))
        .collect()
}

/// A fault that takes nothing: begins, is seen at these nodes, lasts, ends; and nobody's address moved.
fn endured<T>(
    cluster: &Cluster,
    what: &str,
    (nodes, seen): (&[Node], Seen),
    lasts: Duration,
    begin: impl FnOnce(&Etcd) -> Result<T>,
    end: impl FnOnce(&Etcd, T) -> Result<()>,
) -> Result<()> {
    let etcd = cluster.store().etcd()?;
    let n1 = &cluster.nodes[0];
    let before = owner_at_last(n1)?;
    let traffic = FLOATING.map(|floating| {
        let floating: IpAddr = floating.parse()?;
        Traffic::start(&cluster.client, floating)
    });
    let memory = memory(n1)?;
    let begun = Instant::now();
    let held = begin(etcd).with_context(|| format!("{what}: begins"))?;
    for node in nodes {
        shows(node, seen).with_context(|| what.to_owned())?;
    }
    thread::sleep(lasts.saturating_sub(begun.elapsed()));
    end(etcd, held).with_context(|| format!("{what}: ends"))?;
    let took = is_in_use(cluster).with_context(|| what.to_owned())?;
    let grown = self::memory(n1)?.saturating_sub(memory);
    eprintln!("{what}: in use {took:?} after its end, {grown} KiB more memory");
    ensure!(took < RETURN, "{what}: in use only {took:?} after its end");
    ensure!(grown < 64 << 10, "{what}: the agent's memory grew by {grown} KiB");
    for traffic in traffic {
        let traffic = traffic?;
        traffic.progress()?;
        traffic.unharmed().with_context(|| what.to_owned())?;
    }
    let after = owner_at_last(n1)?;
    ensure!(after == before, "{what}: {before:?} before, {after:?} after");
    cluster.check().with_context(|| what.to_owned())
}

/// Who owns the address, once the members have a leader again: a tool that runs once says that they have none.
fn owner_at_last(node: &Node) -> Result<(String, u64)> {
    eventually(SOON, "the store says who owns the address", || {
        owner(node, FLOATING[0])
    })
}

/// From now until every node is in contact and gives addresses.
fn is_in_use(cluster: &Cluster) -> Result<Duration> {
    let begun = Instant::now();
    for node in &cluster.nodes {
        shows(node, Seen::IN_CONTACT)?;
        let mut probe = Workload::prepare(node, Spec::pod("shop", "probe"))?;
        eventually(SOON, "a workload starts", || probe.add()?.ok().map(drop))?;
        probe.delete()?;
    }
    Ok(begun.elapsed())
}

/// Resident memory of a node's agent, in KiB.
fn memory(node: &Node) -> Result<u64> {
    exec::memory(node.with_agent(|agent| Ok(agent.pid()))?, "VmRSS")
}

/// The members but the last.
fn majority(etcd: &Etcd) -> &[Member] {
    &etcd.members()[..2]
}

#[test]
fn a_store_that_is_away_takes_nothing() {
    Cluster::start_on(Kind::Etcd).unwrap().test(|cluster| {
        let _shop = shop(cluster)?;
        let everybody = (&cluster.nodes[..], Seen::NO_CONTACT);
        endured(
            cluster,
            "stopped, and back with its data",
            everybody,
            LONGER_THAN_A_LEASE,
            |etcd| {
                etcd.members().iter().for_each(Member::kill);
                Ok(())
            },
            |etcd, ()| etcd.start_all(),
        )?;
        endured(
            cluster,
            "frozen",
            everybody,
            LONGER_THAN_A_LEASE,
            |etcd| etcd.members().iter().try_for_each(Member::freeze),
            |etcd, ()| etcd.members().iter().try_for_each(Member::thaw),
        )?;
        endured(
            cluster,
            "without a quorum for a minute",
            everybody,
            Duration::from_secs(60),
            |etcd| {
                let mut members = majority(etcd).iter();
                members.try_for_each(|member| etcd.plug(member, "down"))
            },
            |etcd, ()| {
                let mut members = majority(etcd).iter();
                members.try_for_each(|member| etcd.plug(member, "up"))
            },
        )
    });
}

#[test]
fn a_store_of_which_enough_works_goes_on() {
    Cluster::start_on(Kind::Etcd).unwrap().test(|cluster| {
        let _shop = shop(cluster)?;
        let everybody = (&cluster.nodes[..], Seen::IN_CONTACT);
        endured(
            cluster,
            "its leader killed",
            everybody,
            LONGER_THAN_A_LEASE,
            |etcd| {
                let leader = etcd.leader()?;
                leader.kill();
                Ok(leader.name().to_owned())
            },
            |etcd, name| member(etcd, &name)?.start(),
        )?;
        endured(
            cluster,
            "its leader cut off",
            everybody,
            LONGER_THAN_A_LEASE,
            |etcd| {
                let leader = etcd.leader()?;
                etcd.plug(leader, "down")?;
                Ok(leader.name().to_owned())
            },
            |etcd, name| etcd.plug(member(etcd, &name)?, "up"),
        )?;
        slow(cluster, everybody)?;
        endured(
            cluster,
            "compacted and defragmented",
            everybody,
            Duration::ZERO,
            |etcd| {
                etcd.ctl(&["compact", &etcd.revision()?.to_string()])?;
                etcd.ctl(&["defrag"]).map(drop)
            },
            |_, ()| Ok(()),
        )
    });
}

/// All members stand still for 200 ms, again and again.
fn slow(cluster: &Cluster, everybody: (&[Node], Seen)) -> Result<()> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        endured(
            cluster,
            "slow: 200 ms",
            everybody,
            LONGER_THAN_A_LEASE,
            |_| {
                Ok(scope.spawn(|| {
                    let etcd = cluster.store().etcd()?;
                    let members = etcd.members();
                    faults::slow_down(
                        &over,
                        || members.iter().try_for_each(Member::freeze),
                        || members.iter().try_for_each(Member::thaw),
                    )
                }))
            },
            |_, slowing| {
                over.store(true, Ordering::Relaxed);
                slowing.join().map_err(|_| anyhow!("it panicked"))?
            },
        )
    })
}

fn member<'a>(etcd: &'a Etcd, name: &str) -> Result<&'a Member> {
    let found = etcd.members().iter().find(|member| member.name() == name);
    found.with_context(|| format!("no member {name}"))
}

/// Cuts a node off from all members.
fn cut_off(etcd: &Etcd, address: &str, lost: Lost) -> Result<()> {
    let mut members = etcd.members().iter();
    members.try_for_each(|member| faults::cut_off(member.netns(), address, lost))
}

fn let_in(etcd: &Etcd) -> Result<()> {
    let mut members = etcd.members().iter();
    members.try_for_each(|member| faults::let_in(member.netns()))
}

#[test]
fn a_node_cut_off_from_the_store_alone_goes_on_as_it_was() {
    Cluster::start_on(Kind::Etcd).unwrap().test(|cluster| {
        let _shop = shop(cluster)?;
        for (what, lost) in [
            ("a standby's requests are lost", Lost::Requests),
            ("answers to a standby are lost", Lost::Answers),
            ("a standby is cut off", Lost::Both),
        ] {
            endured(
                cluster,
                what,
                (&cluster.nodes[2..], Seen::NO_CONTACT),
                LONGER_THAN_A_LEASE,
                |etcd| cut_off(etcd, "192.0.2.3", lost),
                |etcd, ()| let_in(etcd),
            )?;
        }
        the_owner_is_cut_off(cluster)
    });
}

/// Its lease is revoked, and a standby has the address; the owner's agent hears of it when it is back. Meanwhile its node
/// forwards, for it has learnt the newer route.
fn the_owner_is_cut_off(cluster: &Cluster) -> Result<()> {
    let etcd = cluster.store().etcd()?;
    let n1 = &cluster.nodes[0];
    cut_off(etcd, "192.0.2.1", Lost::Both)?;
    shows(n1, Seen::NO_CONTACT)?;
    for floating in FLOATING {
        answered_by(&cluster.client, Via::Tcp, floating, "web-2")?;
        answered_by(n1.netns(), Via::Udp, floating, "web-2")?;
    }
    let_in(etcd)?;
    let took = is_in_use(cluster)?;
    ensure!(took < RETURN, "in use only {took:?} after its end");
    cluster.check()?;
    ensure!(owner(n1, FLOATING[0])?.0 == "web-2");
    Ok(())
}

#[test]
fn a_full_store_keeps_everything_as_it_is_and_says_so() {
    Cluster::bare_on(Kind::Etcd).unwrap().test(|cluster| {
        let etcd = cluster.store().etcd()?;
        for member in etcd.members() {
            member.kill();
            member.set_arguments(&["--quota-backend-bytes", "8000000"]);
        }
        etcd.start_all()?;
        cluster.begin()?;
        let _shop = shop(cluster)?;
        endured(
            cluster,
            "full",
            (&cluster.nodes[..1], Seen::FULL),
            LONGER_THAN_A_LEASE,
            |etcd| {
                let blob = "x".repeat(500_000);
                let filled = (0..40).find(|number| {
                    let key = format!("/somebody/else/{number}");
                    etcd.put(&key, &blob).is_err()
                });
                filled.context("there is room for everything").map(drop)
            },
            |etcd, ()| {
                etcd.ctl(&["del", "--prefix", "/somebody/"])?;
                etcd.ctl(&["compact", &etcd.revision()?.to_string()])?;
                etcd.ctl(&["defrag"])?;
                etcd.ctl(&["alarm", "disarm"]).map(drop)
            },
        )
    });
}
