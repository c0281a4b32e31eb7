//! An address moves across the network: sessions, routes, planned moves and takeovers, with clients beyond a router. The
//! router's hold time is 240 seconds and there is no BFD: the epoch decides.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use buoy_lab::ask::{answered_by, listed_as, owner};
use buoy_lab::cluster::{CLIENT, Cluster};
use buoy_lab::exec::{PATIENCE, eventually};
use buoy_lab::locker::Locker;
use buoy_lab::netns::Netns;
use buoy_lab::node::Node;
use buoy_lab::probe::{self, Via};
use buoy_lab::records::Records;
use buoy_lab::store::Kind;
use buoy_lab::traffic::{Neighbour, Seen, Witnesses};
use buoy_lab::workload::{Spec, Workload};

const V4: &str = "172.16.1.3";
const V6: &str = "fd16::3";
const BOTH: [&str; 2] = [V4, V6];
const SOON: Duration = Duration::from_secs(20);
/// A lease that nobody renews may be revoked after this: its duration and ten percent.
const LEASE: Duration = Duration::from_millis(6_600);
/// An agent that goes on sees what it was asked, and withdraws, within this time.
const WITHDRAWN: Duration = Duration::from_secs(4);
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

/// What a node with a frozen agent sends to an address that it had goes on to the newer owner, and is tracked so. When the
/// address comes back the agent finds the translation that it made before.
#[test]
fn what_led_to_the_owner_between_follows_the_address_back() {
    Cluster::start().unwrap().test(|cluster| {
        let [n1, n2, _] = &cluster.nodes[..] else {
            anyhow::bail!("three nodes");
        };
        let _back = web(n1, "web-1")?;
        it_is_announced_where_it_lives(cluster, n1)?;
        let between = web(n2, "web-2")?;
        cluster.kill(n1);
        for floating in BOTH {
            answered_by(n1.netns(), Via::Udp, floating, "web-2")?;
        }
        let neighbours = BOTH.map(|floating| Neighbour::start(n1.netns(), ip(floating)));
        between.delete()?;
        cluster.start_agent(n1)?;
        for neighbour in neighbours {
            neighbour?.follows("web-1", SOON).with_context(|| tracked(n1))?;
        }
        cluster.check()
    });
}

/// The owner's node sees that it is asked to give, and cannot write: until it can, what is to be withdrawn first is gone
/// from its kernel and from the router, and what is not is still there.
#[test]
fn an_exclusive_move_withdraws_before_it_writes_and_a_planned_one_does_not() {
    Cluster::start().unwrap().test(|cluster| {
        let [n1, n2, _] = &cluster.nodes[..] else {
            anyhow::bail!("three nodes");
        };
        let _workloads = [web(n1, "web-1")?, web(n2, "web-2")?];
        for floating in BOTH {
            answered_by(&cluster.client, Via::Tcp, floating, "web-1")?;
        }
        for floating in BOTH {
            listed_as(n1, floating, "web-2 stands by", |row| {
                row["standby"].to_string().contains("web-2")
            })?;
        }
        cluster.freeze(n1)?;
        thread::scope(|scope| {
            let asked = ["172.16.1.3 --exclusive", "fd16::3"]
                .map(|what| scope.spawn(move || n1.ctl(&format!("fip move --to web-2 {what}"))));
            only_the_exclusive_one_is_withdrawn(cluster, n1)?;
            for asked in asked {
                asked.join().map_err(|_| anyhow!("who asks panicked"))??;
            }
            Ok(()) as Result<()>
        })?;
        for floating in BOTH {
            answered_by(&cluster.client, Via::Tcp, floating, "web-2")?;
        }
        cluster.check()
    });
}

/// The owner's agent goes on when both moves are asked for and nobody can write any more.
fn only_the_exclusive_one_is_withdrawn(cluster: &Cluster, n1: &Node) -> Result<()> {
    eventually(WITHDRAWN, "both moves are asked for", || {
        let records = Records::read(cluster.store())?;
        let mut asked = records
            .bindings
            .iter()
            .map(|binding| &binding.spec.requested_move);
        ensure!(asked.all(Option::is_some), "{:?}", records.bindings);
        Ok(())
    })?;
    let before = [owner(n1, V4)?, owner(n1, V6)?];
    let held = Locker::hold(cluster.run(), cluster.store())?;
    cluster.thaw(n1)?;
    eventually(WITHDRAWN, "it is withdrawn from kernel and router", || {
        let routes = n1.netns().exec(&format!("ip route show {V4} proto 177"))?.stdout;
        ensure!(routes.is_empty(), "{routes}");
        let map = n1.netns().exec("nft list map ip buoy fips")?.ok()?.stdout;
        ensure!(!map.contains(V4), "{map}");
        ensure!(cluster.router.next_hop(ip(V4)).is_err(), "the router has a route");
        Ok(())
    })?;
    let kept = n1
        .netns()
        .exec(&format!("ip -6 route show {V6} proto 177"))?
        .stdout;
    ensure!(kept.contains("dev cali"), "a planned move withdrew first: {kept}");
    probe::ask(&cluster.client, Via::Udp, ip(V6), SOON)?;
    ensure!(
        [owner(n1, V4)?, owner(n1, V6)?] == before,
        "it was written before it was withdrawn"
    );
    ensure!(held.held() < LEASE, "the store was held for too long");
    Ok(())
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
        let neighbour = Neighbour::start(node.netns(), ip(floating))?;
        ensure!(
            !leading_away(node, floating)?.is_empty(),
            "{} tracks no flow that leads away",
            node.name()
        );
        let seen = moved(cluster, floating, to, SOON, || {
            n1.ctl(&format!("fip move {floating} --to {to}")).map(drop)
        })?;
        neighbour.follows(to, SOON).with_context(|| tracked(node))?;
        eventually(SOON, "flows that led away have ended", || {
            let left = leading_away(node, floating)?;
            ensure!(left.is_empty(), "on {}: {left}", node.name());
            Ok(())
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

/// All that a node tracks, and its rules with their counters.
fn tracked(node: &Node) -> String {
    let commands = [
        "conntrack -L -f ipv4 -o id",
        "conntrack -L -f ipv6 -o id",
        "ip -6 route show table all",
        "nft list ruleset",
    ];
    let said = |command: &str| match node.netns().exec(command) {
        Ok(finished) => format!("{command}:\n{}", finished.stdout),
        Err(error) => format!("{command}: {error}\n"),
    };
    commands.map(said).concat()
}

/// What a node tracks to an address as a flow that goes on to another node: the floating IP itself answers.
fn leading_away(node: &Node, floating: &str) -> Result<String> {
    let family = if ip(floating).is_ipv4() { "ipv4" } else { "ipv6" };
    let listed = format!("conntrack -L -f {family} -d {floating} -r {floating}");
    Ok(node.netns().exec(&listed)?.ok()?.stdout)
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

/// The third node takes over once the lease is revoked; the frozen one's kernel forwards to it what begins there, in the
/// node itself and in its workloads, although it still has all that translates.
fn the_owners_agent_is_frozen(cluster: &Cluster, owner: &Node, next: &str) -> Result<()> {
    let visitor = Workload::start(owner, Spec::pod("shop", "visitor"))?;
    let seen = moved(cluster, V4, next, SOON, || cluster.freeze(owner))?;
    taken_when_the_lease_was_over(&seen)?;
    answered_by(&cluster.client, Via::Tcp, V6, next)?;
    cluster.check()?;
    for (floating, family) in BOTH.into_iter().zip(["ip", "ip6"]) {
        let map = owner
            .netns()
            .exec(&format!("nft list map {family} buoy fips"))?
            .ok()?;
        ensure!(map.stdout.contains(floating), "{}", map.stdout);
        for from in [owner.netns(), visitor.netns()] {
            new_flows_reach(from, floating, next)?;
        }
    }
    cluster.thaw(owner)?;
    cluster.check()?;
    answered_by(&cluster.client, Via::Tcp, V4, next)?;
    visitor.delete().map(drop)
}

/// The first to answer is the right one, by whatever protocol.
fn new_flows_reach(from: &Netns, floating: &str, who: &str) -> Result<()> {
    for via in [Via::Udp, Via::Tcp] {
        let answers = probe::ask(from, via, ip(floating), SOON)?.who;
        ensure!(
            answers == who,
            "{} to {floating} from {}: {answers} answers",
            via.name(),
            from.name()
        );
    }
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
