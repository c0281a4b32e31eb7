//! Step 5: a person moves, attaches and detaches, live.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{FLOATING, NAMESPACE, OFTEN, SOON, Stage, ip};
use crate::exec::eventually;
use crate::probe::{self, Probe, Via};
use crate::workload::{Spec, Workload};

/// An address that no pod asked for when it was made.
const EXTRA: &str = "172.16.1.77";

/// Packets in flight at the very moment of a move.
const LOST_PER_MOVE: u32 = 1;

pub(super) fn tell(stage: &mut Stage) -> Result<()> {
    stage
        .story
        .step(5, "A person moves it, attaches another, takes it away")?;
    let spec = Spec::pod(NAMESPACE, "web-2").floating(&FLOATING);
    let other = Workload::start(&stage.lab.node, spec)?;
    stage.workloads.insert("web-2".to_owned(), other);
    move_back_and_forth(stage)?;
    attach_live(stage)?;
    detach_live(stage)
}

fn move_back_and_forth(stage: &mut Stage) -> Result<()> {
    let floating = ip(FLOATING[0])?;
    let ping = Probe::start(&stage.lab.client, Via::Ping, floating, OFTEN)?;
    let udp = Probe::start(
        &stage.lab.client,
        Via::UdpFrom(4001),
        floating,
        Duration::from_millis(1),
    )?;
    udp.wait_for_more(10, SOON)?;
    let mut owners = vec!["web-1"];
    for to in ["web-2", "web-1", "web-2"] {
        stage.show_ctl(&format!("fip move {} --to {to}", FLOATING[0]))?;
        owners.push(to);
        let changes = owners.len();
        udp.wait(SOON, &format!("{to} answers"), |tally| {
            tally.changes.len() >= changes && tally.changes.last().is_some_and(|(_, who)| who == to)
        })?;
        ping.wait_for_more(10, SOON)?;
    }
    let (ping, udp) = (ping.stop()?, udp.stop()?);
    let allowed = LOST_PER_MOVE * 3;
    ensure!(ping.lost() <= allowed, "pings were lost: {ping}");
    stage.story.checked(
        &format!(
            "three moves under a ping every 10 ms: {} of {} answered",
            ping.answered, ping.sent
        ),
        &format!("longest gap {}", super::story::figure(ping.longest_gap)),
    )?;
    stage.story.checked(
        "the UDP sender changed partners with each move",
        &format!("longest gap {}", super::story::figure(udp.longest_gap)),
    )
}

fn attach_live(stage: &mut Stage) -> Result<()> {
    let why = stage.show_ctl(&format!("fip why {EXTRA}"))?;
    ensure!(why.contains(EXTRA), "'why' does not speak of {EXTRA}");
    stage.show_ctl(&format!("fip attach {EXTRA} web-1 -n {NAMESPACE}"))?;
    let answer = stage.ask(Via::Tcp, EXTRA)?;
    ensure!(answer.who == "web-1", "answered by {}", answer.who);
    stage.story.check("web-1 answers on it, without a restart")?;
    let why = stage.show_ctl(&format!("fip why {EXTRA}"))?;
    ensure!(why.contains("web-1"), "'why' does not name the owner");
    Ok(())
}

fn detach_live(stage: &mut Stage) -> Result<()> {
    stage.show_ctl(&format!("fip detach {EXTRA} web-1 -n {NAMESPACE}"))?;
    let floating = ip(EXTRA)?;
    let client = &stage.lab.client;
    eventually(SOON, "it falls silent", || {
        probe::nobody_answers(client, Via::Udp, floating, Duration::from_millis(100))
    })?;
    stage.story.check("nobody answers on it any more")?;
    let why = stage.show_ctl(&format!("fip why {EXTRA}"))?;
    ensure!(why.contains(NAMESPACE), "'why' does not say for whom it is held");
    stage
        .story
        .check("and 'why' says that it is kept for its namespace for a while")
}
