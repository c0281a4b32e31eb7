//! The cluster's network by itself: what the router learns by BGP the client reaches, and cables can be pulled. The peers
//! here are BIRDs with configurations written by hand.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use buoy_lab::cluster::{Cluster, NODES, ROUTER};
use buoy_lab::exec::{PATIENCE, Process, eventually};
use buoy_lab::node::Node;
use buoy_lab::probe::{self, Via};

const V4: &str = "172.16.1.3";
const V6: &str = "fd16::3";

/// A node's peer: announces both addresses with a MED, and has them on its loopback.
fn announce(node: &Node, [v4, v6]: [&str; 2], med: u32) -> Result<Process> {
    let config = format!(
        "log stderr all; router id {v4};
         protocol device {{ }}
         protocol static {{ ipv4; route {V4}/32 unreachable; }}
         protocol static {{ ipv6; route {V6}/128 unreachable; }}
         protocol bgp {{ local {v4} as 64512; neighbor {} as 64600; direct; connect delay time 1; error wait time 1, 5;
            ipv4 {{ import all; export filter {{ bgp_med = {med}; accept; }}; }}; }}
         protocol bgp {{ local {v6} as 64512; neighbor {} as 64600; direct; connect delay time 1; error wait time 1, 5;
            ipv6 {{ import all; export filter {{ bgp_med = {med}; accept; }}; }}; }}\n",
        ROUTER[0], ROUTER[1]
    );
    let path = node.directory().join("hand.conf");
    fs::write(&path, config)?;
    for address in [format!("{V4}/32"), format!("{V6}/128")] {
        node.netns().add_address("lo", address.parse()?)?;
    }
    let mut command = node.netns().command("bird");
    command
        .args(["-f", "-s"])
        .arg(node.bird_socket())
        .arg("-c")
        .arg(path);
    Process::start(
        node.netns().run(),
        &mut command,
        &node.directory().join("hand.log"),
    )
}

fn leads_to(cluster: &Cluster, name: &str) -> Result<()> {
    for floating in [V4, V6] {
        let floating: IpAddr = floating.parse()?;
        eventually(PATIENCE, &format!("{floating} leads to {name}"), || {
            let node = cluster
                .leads_to(floating)
                .with_context(|| cluster.nodes[0].birdc("show protocols all").unwrap_or_default())?;
            ensure!(node.name() == name, "it leads to {}", node.name());
            Ok(())
        })?;
        probe::ask(&cluster.client, Via::Ping, floating, PATIENCE)?;
    }
    Ok(())
}

#[test]
fn the_router_follows_the_lower_med_and_cables_can_be_pulled() {
    Cluster::bare().unwrap().test(|cluster| {
        let [n1, n2, _] = &cluster.nodes[..] else {
            anyhow::bail!("three nodes")
        };
        let _old = announce(n1, NODES[0], 100)?;
        leads_to(cluster, "n1")?;
        ensure!(
            n1.birdc("show protocols")?.contains("Established"),
            "birdc of a node"
        );
        let new = announce(n2, NODES[1], 99)?;
        leads_to(cluster, "n2")?;
        drop(new);
        leads_to(cluster, "n1")?;
        cluster.plug(n1, "down")?;
        probe::nobody_answers(
            &cluster.client,
            Via::Ping,
            V4.parse()?,
            Duration::from_millis(300),
        )?;
        let kept = n1.netns().exec("ip -br address show dev eth0")?.stdout;
        ensure!(
            kept.contains(NODES[0][1]),
            "a pulled cable takes no address away: {kept}"
        );
        cluster.plug(n1, "up")?;
        leads_to(cluster, "n1")?;
        cluster.check()
    });
}
