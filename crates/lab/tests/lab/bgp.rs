//! Routes between nodes and a router, as BIRD brings them with the configuration that the agent gives it.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use buoy_lab::ask::status_says;
use buoy_lab::cluster::Cluster;
use buoy_lab::exec::{self, PATIENCE, eventually};
use buoy_lab::node::Node;
use buoy_lab::run::Run;

/// A floating IP of each family, which no binding knows.
const FLOATING: [&str; 2] = ["172.16.1.50", "fd16::50"];
/// From here floating IPs' metrics count down.
const BASE: u32 = 1_000_000_000;
/// In which a router has to follow.
const SOON: Duration = Duration::from_secs(5);

/// Adds or deletes routes as an agent would have them.
fn routes(node: &Node, verb: &str, epoch: u32) -> Result<()> {
    for floating in FLOATING {
        let family = if floating.contains(':') { "-6" } else { "-4" };
        let metric = BASE - epoch;
        node.netns().exec(&format!(
            "ip {family} route {verb} {floating} dev w0 proto 177 metric {metric}"
        ))?;
    }
    Ok(())
}

/// A link to a workload that is none.
fn workload_link(node: &Node) -> Result<()> {
    node.netns()
        .ip("link add w0 type veth peer name w1\nlink set w0 up\nlink set w1 up")
}

/// Where a node's kernel sends a packet.
fn goes(node: &Node, to: &str, where_to: &str) -> Result<()> {
    let said = node.netns().exec(&format!("ip route get {to}"))?.stdout;
    ensure!(
        said.contains(where_to),
        "{} sends {to} not {where_to}: {said}",
        node.name()
    );
    Ok(())
}

/// Everybody sends both addresses to one owner, who has them on the link of a workload.
fn all_follow(cluster: &Cluster, owner: &Node, addresses: [&str; 2]) -> Result<()> {
    eventually(SOON, &format!("everybody follows {}", owner.name()), || {
        for (floating, via) in FLOATING.into_iter().zip(addresses) {
            let at_router = cluster.leads_to(floating.parse()?)?;
            ensure!(
                at_router.name() == owner.name(),
                "the router sends it to {}",
                at_router.name()
            );
            for node in &cluster.nodes {
                let to = if node.name() == owner.name() {
                    "dev w0"
                } else {
                    via
                };
                goes(node, floating, to)?;
            }
        }
        Ok(())
    })
}

#[test]
fn every_feature_is_accepted_by_the_daemons_own_parser() {
    let run = Run::begin().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/golden");
    let mut count = 0;
    for file in fs::read_dir(golden).unwrap() {
        let path = file.unwrap().path();
        let mut command = std::process::Command::new("bird");
        command.args(["-p", "-c"]).arg(&path).current_dir(run.base());
        exec::run(&mut command, "", PATIENCE).unwrap().ok().unwrap();
        count += 1;
    }
    assert!(count >= 8, "{count} files");
}

#[test]
fn the_epoch_is_the_preference() {
    Cluster::start().unwrap().test(|cluster| {
        let [n1, n2, n3] = cluster.nodes.as_slice() else {
            unreachable!("a cluster has three nodes")
        };
        let (n1_at, n2_at) = (
            ["via 192.0.2.1 ", "via 2001:db8::1 "],
            ["via 192.0.2.2 ", "via 2001:db8::2 "],
        );
        // Nobody but BIRD acts from here on.
        for node in &cluster.nodes {
            cluster.freeze(node)?;
        }
        for node in [n1, n2] {
            workload_link(node)?;
        }
        routes(n1, "add", 5)?;
        all_follow(cluster, n1, n1_at)?;
        // Two have it at once: the older owner's own node follows the newer too.
        routes(n2, "add", 6)?;
        all_follow(cluster, n2, n2_at)?;
        ensure!(
            n1.netns()
                .exec("ip route show proto 177")?
                .stdout
                .contains("172.16.1.50 dev w0"),
            "the older owner still has its own"
        );
        // The newer one withdraws, and comes back with an epoch as an address of many moves has.
        routes(n2, "del", 6)?;
        all_follow(cluster, n1, n1_at)?;
        routes(n2, "add", 64_000)?;
        all_follow(cluster, n2, n2_at)?;
        routes(n1, "add", 64_001)?;
        all_follow(cluster, n1, n1_at)?;
        // The third node learnt them as from BIRD, with a metric that wins over any of ours.
        let learnt = n3.netns().exec("ip route show proto bird")?.stdout;
        ensure!(
            learnt.contains("172.16.1.50 via 192.0.2.1 dev eth0 metric 32"),
            "{learnt}"
        );
        cluster.nodes.iter().try_for_each(|node| cluster.thaw(node))?;
        cluster.check()
    });
}

/// The mesh carries the epoch between AS numbers too; a router outside would need to compare the MEDs of two neighbours, and
/// the nodes say that it does not.
#[test]
fn the_epoch_is_the_preference_between_as_numbers() {
    Cluster::start().unwrap().test(|cluster| {
        let [n1, n2, n3] = cluster.nodes.as_slice() else {
            unreachable!("a cluster has three nodes")
        };
        let status = n1.ctl("node status")?;
        ensure!(!status.contains("AS numbers"), "{status}");
        n1.apply(
            "{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: n2}, spec: {bgp: \
             {ipv4Address: 192.0.2.2/24, ipv6Address: '2001:db8::2/64', asNumber: 64513}}}",
        )?;
        cluster.router.set(|settings| {
            let peers = settings.peers.iter_mut();
            peers
                .filter(|(name, ..)| name.starts_with("n2_"))
                .for_each(|(_, _, number)| *number = 64_513);
        })?;
        for node in &cluster.nodes {
            status_says(
                node,
                &[
                    "nodes have different AS numbers: 64512, 64513",
                    "external routers do not compare their MEDs",
                ],
            )?;
        }
        cluster.wait_for_sessions()?;
        for node in &cluster.nodes {
            cluster.freeze(node)?;
        }
        for node in [n1, n2] {
            workload_link(node)?;
        }
        let nodes_follow = |via: [[&str; 2]; 3]| {
            eventually(SOON, "the nodes follow the newer owner", || {
                for (node, via) in cluster.nodes.iter().zip(via) {
                    FLOATING
                        .into_iter()
                        .zip(via)
                        .try_for_each(|(floating, via)| goes(node, floating, via))?;
                }
                Ok(())
            })
        };
        let (here, n1_at, n2_at) = (
            ["dev w0"; 2],
            ["via 192.0.2.1 ", "via 2001:db8::1 "],
            ["via 192.0.2.2 ", "via 2001:db8::2 "],
        );
        routes(n1, "add", 5)?;
        nodes_follow([here, n1_at, n1_at])?;
        routes(n2, "add", 6)?;
        nodes_follow([n2_at, here, n2_at])?;
        routes(n1, "add", 7)?;
        nodes_follow([here, n1_at, n1_at])?;
        let learnt = n3.birdc("show route all for 172.16.1.50")?;
        ensure!(learnt.contains("BGP.local_pref: 107"), "{learnt}");
        for node in [n1, n2] {
            node.netns().ip("link del w0")?;
        }
        cluster.nodes.iter().try_for_each(|node| cluster.thaw(node))?;
        cluster.check()
    });
}

#[test]
fn only_what_is_ours_and_leads_to_a_workload_is_announced() {
    Cluster::start().unwrap().test(|cluster| {
        let n1 = &cluster.nodes[0];
        cluster.freeze(n1)?;
        workload_link(n1)?;
        let hidden = [
            // An address without an owner.
            "unreachable 172.16.1.51 proto 177 metric 999999990".to_owned(),
            "unreachable 172.16.1.52 proto 177 metric 4294967295".to_owned(),
            // A workload's own address in a block of the node, and a stranger's routes.
            "10.65.9.9 dev w0 proto 177 metric 1024".to_owned(),
            "172.16.1.53 dev w0 proto static metric 999999990".to_owned(),
            "172.16.1.54 dev w0 metric 32".to_owned(),
            // No pool covers it.
            "203.0.113.7 dev w0 proto 177 metric 999999990".to_owned(),
        ];
        for route in &hidden {
            n1.netns().exec(&format!("ip route add {route}"))?;
        }
        // Said last: when this one is known, the others were passed over.
        n1.netns()
            .exec("ip route add 10.65.9.10 dev w0 proto 177 metric 1023")?;
        eventually(SOON, "a borrowed address is announced", || {
            cluster.router.next_hop("10.65.9.10".parse()?)
        })?;
        let known = cluster.router.birdc("show route")?;
        for address in [
            "172.16.1.51",
            "172.16.1.52",
            "10.65.9.9",
            "172.16.1.53",
            "172.16.1.54",
            "203.0.113.7",
        ] {
            ensure!(
                !known.contains(&format!("{address}/")),
                "{address} is announced:\n{known}"
            );
        }
        n1.netns()
            .exec("ip route del 10.65.9.10 dev w0 proto 177 metric 1023")?;
        cluster.thaw(n1)?;
        cluster.check()
    });
}

#[test]
fn a_pool_that_is_not_exported_is_not_announced() {
    Cluster::start().unwrap().test(|cluster| {
        let n1 = &cluster.nodes[0];
        let pool = |disabled: bool| {
            format!(
                "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: floating-v4}}\nspec: \
                 {{cidr: 172.16.1.0/24, assignmentMode: Manual, disableBGPExport: {disabled}}}\n"
            )
        };
        let config = n1.directory().join("run/bird.conf");
        n1.apply(&pool(true))?;
        eventually(PATIENCE, "the pool is hidden", || {
            let text = fs::read_to_string(&config)?;
            let hidden = text.split_once("buoy_hidden4").context("no such filter")?.1;
            ensure!(
                hidden.starts_with("()\n{\n  return net ~ [ 172.16.1.0/24+ ]"),
                "{text}"
            );
            Ok(())
        })?;
        // The file is there a moment before BIRD has read it.
        eventually(SOON, "it is loaded", || {
            let plan = n1.ctl("node plan")?;
            ensure!(plan.contains("nothing to do"), "{plan}");
            Ok(())
        })?;
        cluster.freeze(n1)?;
        workload_link(n1)?;
        n1.netns()
            .exec("ip route add 172.16.1.50 dev w0 proto 177 metric 999999990")?;
        n1.netns()
            .exec("ip -6 route add fd16::50 dev w0 proto 177 metric 999999990")?;
        eventually(SOON, "the other family is announced", || {
            cluster.router.next_hop("fd16::50".parse::<IpAddr>()?)
        })?;
        ensure!(
            cluster.router.next_hop("172.16.1.50".parse()?).is_err(),
            "it is announced"
        );
        cluster.thaw(n1)?;
        cluster.check()
    });
}

#[test]
fn cleanup_ends_the_daemon_and_removes_its_routes() {
    Cluster::start().unwrap().test(|cluster| {
        let [n1, n2, _] = cluster.nodes.as_slice() else {
            unreachable!("a cluster has three nodes")
        };
        cluster.freeze(n1)?;
        workload_link(n1)?;
        routes(n1, "add", 5)?;
        let learnt = || Ok(n2.netns().exec("ip route show proto bird")?.stdout) as Result<String>;
        eventually(SOON, "it is learnt", || {
            ensure!(learnt()?.contains("172.16.1.50"), "nothing is learnt");
            Ok(())
        })?;
        n2.stop_agent()?;
        ensure!(
            learnt()?.contains("172.16.1.50"),
            "an agent that stops takes nothing with it"
        );
        ensure!(n2.bird_pid().is_ok(), "its BIRD lives on");
        n2.cleanup()?;
        ensure!(learnt()?.is_empty(), "routes are left: {}", learnt()?);
        let left = n2.netns().exec("ip -6 route show proto bird")?.stdout;
        ensure!(left.is_empty(), "routes are left: {left}");
        for file in fs::read_dir(n2.directory().join("run"))? {
            let name = file?.file_name();
            ensure!(
                !name.to_string_lossy().contains("bird"),
                "a file is left: {}",
                name.display()
            );
        }
        n1.netns().ip("link del w0")?;
        cluster.thaw(n1)?;
        cluster.check()
    });
}
