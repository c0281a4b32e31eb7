//! Step 8: sessions stand, and an address is announced where it lives.

use anyhow::{Result, ensure};

use super::super::{FLOATING, SOON, ip};
use super::Network;
use crate::cluster::PEERS;
use crate::exec::eventually;
use crate::lab::POOLS;
use crate::probe::{self, Via};

/// With two nodes and a router, in two families.
const SESSIONS: usize = 6;

pub(super) fn tell(network: &mut Network) -> Result<()> {
    network.story.step(8, "Three nodes announce what lives on them")?;
    network.cluster.start_agents()?;
    let n1 = network.node("n1")?;
    n1.apply(POOLS)?;
    n1.apply(PEERS)?;
    network.cluster.wait_for_sessions()?;
    let n1 = network.node("n1")?;
    eventually(SOON, "the agent has seen its sessions", || {
        let status = n1.ctl("node status")?;
        ensure!(status.matches("Established").count() == SESSIONS, "{status}");
        Ok(())
    })?;
    network.show_ctl("n1", "node status")?;
    network
        .story
        .check("every node has a session with every other and with the router, in both families")?;
    network.start("n1", "web-1")?;
    for floating in FLOATING {
        let answer = probe::ask(&network.cluster.client, Via::Tcp, ip(floating)?, SOON)?;
        ensure!(answer.who == "web-1", "answered by {}", answer.who);
    }
    network
        .story
        .check("the client beyond the router reaches web-1 by its floating IPs")?;
    show_routes(network)
}

/// The owner's, the other nodes', the router's.
fn show_routes(network: &mut Network) -> Result<()> {
    let line = format!("ip route show {}", FLOATING[0]);
    for (name, expected) in [("n1", "proto 177"), ("n2", "proto bird"), ("n3", "proto bird")] {
        let node = network.node(name)?;
        let output = eventually(SOON, "the route is there", || {
            let output = node.netns().exec(&line)?.stdout;
            ensure!(output.contains(expected), "{name}: {output}");
            Ok(output)
        })?;
        network.story.command(&format!("{name}# {line}"), &output)?;
    }
    let line = format!("show route {}/32", FLOATING[0]);
    let output = network.cluster.router.birdc(&line)?;
    network.story.command(&format!("router# birdc {line}"), &output)?;
    ensure!(
        network.cluster.leads_to(ip(FLOATING[0])?)?.name() == "n1",
        "the router sends it elsewhere"
    );
    network
        .story
        .check("owner, nodes and router agree where it lives: the metric is 1,000,000,000 less its epoch")
}
