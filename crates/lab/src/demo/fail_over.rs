//! Step 4: a second pod stands by and takes over, and no client is left with the past.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{FLOATING, NAMESPACE, OFTEN, SOON, Stage, ip};
use crate::probe::{Probe, Reader, Via};
use crate::workload::{Spec, Workload};

/// A sender that keeps this port is one flow for ever.
const PORT: u16 = 4000;

pub(super) fn tell(stage: &mut Stage) -> Result<()> {
    stage
        .story
        .step(4, "A second pod stands by, and takes over when the first goes")?;
    let spec = Spec::pod(NAMESPACE, "web-1").floating(&FLOATING);
    let standby = Workload::start(&stage.lab.node, spec)?;
    stage.workloads.insert("web-1".to_owned(), standby);
    let list = stage.show_ctl("fip list -o wide")?;
    ensure!(
        list.contains("web-0") && list.contains("web-1"),
        "owner and standby are not listed"
    );
    let answer = stage.ask(Via::Udp, FLOATING[0])?;
    ensure!(answer.who == "web-0", "the standby answers");
    stage
        .story
        .check("web-1 asked for the same addresses: it runs, and stands by")?;
    take_over(stage)
}

fn take_over(stage: &mut Stage) -> Result<()> {
    stage
        .story
        .say("Clients are busy: one sends UDP from a fixed port, one talks TCP, one only reads from TCP.")?;
    let floating = ip(FLOATING[0])?;
    let client = &stage.lab.client;
    let udp = Probe::start(client, Via::UdpFrom(PORT), floating, Duration::from_millis(1))?;
    let tcp = Probe::start(client, Via::Tcp, floating, OFTEN)?;
    let reader = Reader::start(client, floating)?;
    udp.wait_for_more(50, SOON)?;
    tcp.wait_for_more(5, SOON)?;
    ensure!(
        reader.is_open(),
        "the reading client lost its connection too early"
    );

    let old = stage.workloads.remove("web-0").context("no workload web-0")?;
    let begun = Instant::now();
    let deleted = old.delete()?;
    let tally = udp.wait(SOON, "web-1 answers", |tally| tally.by.contains_key("web-1"))?;
    let first = tally.first_answer_by("web-1").context("no answer by web-1")?;
    stage.story.timed("CNI DEL of web-0", deleted)?;
    stage.story.timed(
        "the UDP sender, same ports, is answered by web-1 after",
        first.saturating_duration_since(begun),
    )?;
    let talked = tcp.wait(SOON, "the TCP client learns of it", |tally| tally.ended.is_some())?;
    stage.story.check(&format!(
        "the old TCP conversation ended: {}",
        talked.ended.unwrap_or_default()
    ))?;
    let ending = reader.ending(SOON)?;
    ensure!(
        ending.is_reset(),
        "the reading client saw {:?}, no reset",
        ending.how
    );
    stage.story.timed(
        "the client that only reads got its reset after",
        ending.at.saturating_duration_since(begun),
    )?;
    for (via, to) in [
        (Via::Tcp, FLOATING[0]),
        (Via::Tcp, FLOATING[1]),
        (Via::Udp, FLOATING[1]),
    ] {
        let answer = stage.ask(via, to)?;
        ensure!(
            answer.who == "web-1",
            "{} to {to} is answered by {}",
            via.name(),
            answer.who
        );
    }
    stage.story.check("new connections reach web-1, in IPv4 and IPv6")
}
