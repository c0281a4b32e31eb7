//! An address moves across the network: sessions, routes, planned moves and takeovers, with clients beyond a router. The
//! router's hold time is 240 seconds and there is no BFD: the epoch decides.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use buoy_lab::ask::answered_by;
use buoy_lab::cluster::{CLIENT, Cluster};
use buoy_lab::exec::{PATIENCE, eventually};
use buoy_lab::node::Node;
use buoy_lab::probe::{self, Via};
use buoy_lab::store::Kind;
use buoy_lab::traffic::{Seen, Witnesses};
use buoy_lab::workload::{Spec, Workload};

const V4: &str = "172.16.1.3";
const V6: &str = "fd16::3";
const BOTH: [&str; 2] = [V4, V6];
const SOON: Duration = Duration::from_secs(20);
/// A lease that nobody renews may be revoked after this: its duration and ten percent.
const LEASE: Duration = Duration::from_millis(6_600);
/// A lease is renewed every two seconds: so long before it died may an agent have renewed it last.
const RENEWAL: Duration = Duration::from_secs(2);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn web(node: &Node, name: &str) -> Result<Workload> {
    Workload::start(node, Spec::pod("shop", name).floating(&BOTH))
}

buoy_lab::on_each_store! {
    an_address_moves_across_the_network,
}

fn an_address_moves_across_the_network(store: Kind) {
    Cluster::start_on(store).unwrap().test(|cluster| {
        let [n1, n2, n3] = &cluster.nodes[..] else {
            anyhow::bail!("three nodes");
        };
        let owner = web(n1, "web-1")?;
        it_is_announced_where_it_lives(cluster, n1)?;
        let _standby = web(n2, "web-2")?;
        planned_moves_lose_nothing(cluster, n1, n2)?;
        an_exclusive_move_withdraws_first(cluster, n1)?;
        let third = web(n3, "web-3")?;
        the_owner_is_deleted(cluster, owner)?;
        the_owners_agent_is_frozen(cluster, n2, "web-3")?;
        the_owners_node_is_cut_off(cluster, n3, "web-2")?;
        third.delete()?;
        cluster.check()
    });
}

/// Sessions, the client, the router, the owner, the others.
fn it_is_announced_where_it_lives(cluster: &Cluster, owner: &Node) -> Result<()> {
    for (floating, client) in BOTH.into_iter().zip(CLIENT) {
        let answer = answered_by(&cluster.client, Via::Tcp, floating, "web-1")?;
        ensure!(
            answer.saw == Some(ip(client)),
            "the workload saw {:?}",
            answer.saw
        );
        ensure!(cluster.leads_to(ip(floating))?.name() == owner.name());
        let family = if ip(floating).is_ipv4() { "-4" } else { "-6" };
        let shown = format!("ip {family} route show {floating}");
        let own = owner.netns().exec(&shown)?.stdout;
        ensure!(
            own.contains("proto 177") && own.contains("dev cali"),
            "on its node: {own}"
        );
        for other in &cluster.nodes[1..] {
            eventually(PATIENCE, "the others have learnt it", || {
                let learnt = other.netns().exec(&shown)?.stdout;
                ensure!(
                    learnt.contains("proto bird metric 32"),
                    "on {}: {learnt}",
                    other.name()
                );
                Ok(())
            })?;
            answered_by(other.netns(), Via::Tcp, floating, "web-1")?;
        }
    }
    let status = owner.ctl("node status")?;
    ensure!(status.matches("Established").count() == 6, "{status}");
    cluster.check()
}

fn planned_moves_lose_nothing(cluster: &Cluster, n1: &Node, n2: &Node) -> Result<()> {
    for (floating, to, node) in [
        (V4, "web-2", n2),
        (V4, "web-1", n1),
        (V6, "web-2", n2),
        (V6, "web-1", n1),
    ] {
        let seen = moved(cluster, floating, to, SOON, || {
            n1.ctl(&format!("fip move {floating} --to {to}")).map(drop)
        })?;
        ensure!(
            seen.pings.1 <= 2,
            "more than two pings lost by a planned move: {seen}"
        );
        ensure!(seen.reset.is_some(), "the reading client heard nothing: {seen}");
        ensure!(cluster.leads_to(ip(floating))?.name() == node.name());
        cluster.check()?;
    }
    Ok(())
}

fn an_exclusive_move_withdraws_first(cluster: &Cluster, n1: &Node) -> Result<()> {
    for to in ["web-2", "web-1"] {
        moved(cluster, V4, to, SOON, || {
            n1.ctl(&format!("fip move {V4} --to {to} --exclusive")).map(drop)
        })?;
        cluster.check()?;
    }
    Ok(())
}

fn the_owner_is_deleted(cluster: &Cluster, owner: Workload) -> Result<()> {
    let seen = moved(cluster, V4, "web-2", SOON, || owner.delete().map(drop))?;
    ensure!(seen.reset.is_some(), "the reading client heard nothing: {seen}");
    answered_by(&cluster.client, Via::Tcp, V6, "web-2")?;
    cluster.check()
}

/// The third node takes over once the lease is revoked; the frozen one's kernel forwards to it.
fn the_owners_agent_is_frozen(cluster: &Cluster, owner: &Node, next: &str) -> Result<()> {
    let seen = moved(cluster, V4, next, SOON, || cluster.freeze(owner))?;
    taken_when_the_lease_was_over(&seen)?;
    cluster.check()?;
    answered_by(owner.netns(), Via::Udp, V4, next)?;
    cluster.thaw(owner)?;
    cluster.check()?;
    answered_by(&cluster.client, Via::Tcp, V4, next)?;
    Ok(())
}

fn the_owners_node_is_cut_off(cluster: &Cluster, owner: &Node, next: &str) -> Result<()> {
    let seen = moved(cluster, V4, next, SOON, || cluster.cut(owner))?;
    taken_when_the_lease_was_over(&seen)?;
    answered_by(&cluster.client, Via::Tcp, V6, next)?;
    cluster.check()?;
    cluster.restore(owner)?;
    cluster.wait_for_sessions()?;
    cluster.check()?;
    probe::ask(&cluster.client, Via::Ping, ip(V4), SOON)?;
    Ok(())
}

fn taken_when_the_lease_was_over(seen: &Seen) -> Result<()> {
    let latest = LEASE + Duration::from_secs(1);
    ensure!(seen.first_answer < latest, "later than {latest:?}: {seen}");
    let earliest = LEASE - RENEWAL - Duration::from_millis(100);
    ensure!(seen.first_answer > earliest, "taken before {earliest:?}: {seen}");
    Ok(())
}

/// Clients talk while something happens; waits until `to` answers.
fn moved(
    cluster: &Cluster,
    floating: &str,
    to: &str,
    limit: Duration,
    happens: impl FnOnce() -> Result<()>,
) -> Result<Seen> {
    let witnesses = Witnesses::start(&cluster.client, ip(floating))?;
    let begun = Instant::now();
    happens()?;
    let seen = witnesses
        .moved(begun, to, limit)
        .with_context(|| format!("{floating} moves to {to}"))?;
    eprintln!("{floating} to {to}: {seen}");
    Ok(seen)
}
