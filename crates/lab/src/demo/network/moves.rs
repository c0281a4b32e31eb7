//! Steps 9 and 10: the address moves: asked for, because its owner goes, because its node is cut off, because its agent
//! stands still.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::super::{FLOATING, SOON, ip};
use super::Network;
use crate::probe::{self, Via};
use crate::traffic::{Seen, Witnesses};

/// Patience with clients that cannot hear of the end of their connections: who had them is gone.
const DEAF: Duration = Duration::from_millis(500);
/// A lease may be revoked when it was not renewed for six seconds and a tenth, and a takeover takes a second at most; three
/// times that, where the machine is busy with other demos.
const TAKEOVER: Duration = Duration::from_millis(3 * 7_600);
/// Pings that a planned move may lose, there.
const LOST: u32 = 3 * 2;

pub(super) fn tell(network: &mut Network) -> Result<()> {
    network
        .story
        .step(9, "It moves to another node, and the network follows")?;
    network.start("n2", "web-2")?;
    network.story.say(
        "Clients are busy: a ping, a UDP sender with fixed ports, a TCP talk, a TCP client that only reads.",
    )?;
    let seen = during(network, "web-2", SOON, |network| {
        network
            .show_ctl("n1", &format!("fip move {} --to web-2", FLOATING[0]))
            .map(drop)
    })?;
    network.cost("planned, to web-2 on n2", &seen)?;
    ensure!(seen.pings.1 <= LOST, "a planned move lost pings: {seen}");
    ensure!(seen.reset.is_some(), "the reading client heard nothing: {seen}");
    network
        .story
        .check("the old connections ended with a reset; nobody holds on to the past")?;
    agrees(network)?;

    network.start("n3", "web-3")?;
    let seen = during(network, "web-1", SOON, |network| {
        let took = network.take("web-2")?.delete()?;
        network.story.timed("n2: CNI DEL of web-2, the owner", took)
    })?;
    network.cost("its owner is deleted, the eldest standby on n1 has it", &seen)?;
    agrees(network)?;
    fail(network)
}

/// Step 10.
fn fail(network: &mut Network) -> Result<()> {
    network
        .story
        .step(10, "Its node is cut off; then its agent stands still")?;
    let seen = during(network, "web-3", TAKEOVER, |network| {
        network
            .story
            .command("switch# ip link set port0 down      (all links of n1)", "")?;
        network.cluster.cut(network.node("n1")?)
    })?;
    network.cost("n1 is cut off, web-3 on n3 has it", &seen)?;
    network.cluster.restore(network.node("n1")?)?;
    network.cluster.wait_for_sessions()?;
    agrees(network)?;

    let seen = during(network, "web-1", TAKEOVER, |network| {
        network.story.command("n3# kill -STOP $(pidof buoy-agent)", "")?;
        network.cluster.freeze(network.node("n3")?)
    })?;
    network.cost("n3's agent is frozen, web-1 on n1 has it", &seen)?;
    let answer = probe::ask(network.node("n3")?.netns(), Via::Udp, ip(FLOATING[0])?, SOON)?;
    ensure!(answer.who == "web-1", "on n3 {} answers", answer.who);
    network
        .story
        .check("n3 itself sends new flows to n1, with nobody there who decides: NAT follows the route")?;
    network.cluster.thaw(network.node("n3")?)?;
    network
        .story
        .say("It wakes up, finds its lease revoked, and gives up what is no longer its own.")?;
    agrees(network)
}

/// Clients talk while something happens; then `to` answers.
fn during(
    network: &mut Network,
    to: &str,
    limit: Duration,
    happens: impl FnOnce(&mut Network) -> Result<()>,
) -> Result<Seen> {
    let witnesses = Witnesses::start(&network.cluster.client, ip(FLOATING[0])?)?;
    let begun = Instant::now();
    happens(network)?;
    let hears = if limit == TAKEOVER { DEAF } else { SOON };
    witnesses.moved_and_heard(begun, to, limit, hears)
}

/// The independent checker reads kernels, routers and records.
fn agrees(network: &mut Network) -> Result<()> {
    network.cluster.check()?;
    network
        .story
        .check("records, kernels, BIRD and router agree, says a checker that shares no code with the agent")
}
