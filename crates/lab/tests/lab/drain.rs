//! Established flows go on for a while after a floating IP has moved to another workload of the node, and then end.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use buoy_lab::ask::answered_by;
use buoy_lab::exec::eventually;
use buoy_lab::lab::Lab;
use buoy_lab::leaks::assert_nothing_leaked;
use buoy_lab::probe::{Probe, Reader, Tally, Via};
use buoy_lab::store::Kind;
use buoy_lab::workload::{Spec, Workload};

const FLOATING: [&str; 2] = ["172.16.1.3", "fd16::3"];
const DRAIN: Duration = Duration::from_secs(4);
const SOON: Duration = Duration::from_secs(20);
const OFTEN: Duration = Duration::from_millis(10);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Two workloads that ask for the floating IPs; the first of them lets its flows go on.
fn workloads(lab: &Lab, drain: &str) -> Result<[Workload; 2]> {
    let mut first = Spec::pod("shop", "web-0").floating(&FLOATING);
    first
        .annotations
        .insert("buoy.dev/floatingIPDrain".to_owned(), drain.to_owned());
    let second = Spec::pod("shop", "web-1").floating(&FLOATING);
    Ok([
        Workload::start(&lab.node, first)?,
        Workload::start(&lab.node, second)?,
    ])
}

/// Clients of both floating IPs: UDP senders that keep their ports, TCP conversations, and connections that only read.
struct Clients {
    udp: Vec<Probe>,
    tcp: Vec<Probe>,
    readers: Vec<Reader>,
}

impl Clients {
    fn start(lab: &Lab) -> Result<Self> {
        let probe = |via| FLOATING.map(|to| Probe::start(&lab.client, via, ip(to), OFTEN));
        let readers = FLOATING.map(|to| Reader::start(&lab.client, ip(to)));
        let clients = Self {
            udp: probe(Via::UdpFrom(4000)).into_iter().collect::<Result<_>>()?,
            tcp: probe(Via::Tcp).into_iter().collect::<Result<_>>()?,
            readers: readers.into_iter().collect::<Result<_>>()?,
        };
        clients.go_on()?;
        Ok(clients)
    }

    /// All are answered, and by the first workload, to which those that only read are still connected.
    fn go_on(&self) -> Result<()> {
        for probe in self.udp.iter().chain(&self.tcp) {
            let tally = probe.wait_for_more(20, SOON)?;
            ensure!(tally.ended.is_none() && only_by(&tally, "web-0"), "{tally}");
        }
        ensure!(
            self.readers.iter().all(Reader::is_open),
            "a reader lost its connection"
        );
        Ok(())
    }

    /// All come to their end, or reach the second workload. Returns when the first of the senders did.
    fn end(self) -> Result<Instant> {
        let mut reached = Vec::new();
        for probe in &self.udp {
            let tally = probe.wait(SOON, "web-1 answers", |tally| tally.by.contains_key("web-1"))?;
            reached.extend(tally.first_answer_by("web-1"));
        }
        for probe in &self.tcp {
            let tally = probe.wait(SOON, "the conversation ends", |tally| tally.ended.is_some())?;
            let reset = tally.ended.as_ref().is_some_and(|how| how.contains("reset"));
            ensure!(reset && only_by(&tally, "web-0"), "{tally}");
        }
        for reader in self.readers {
            let ending = reader.ending(SOON)?;
            ensure!(ending.is_reset(), "a reading client saw {:?}", ending.how);
        }
        reached.into_iter().min().context("nobody reached web-1")
    }
}

fn only_by(tally: &Tally, who: &str) -> bool {
    tally.by.keys().eq([who])
}

fn move_to(lab: &Lab, to: &str) -> Result<Instant> {
    let begun = Instant::now();
    for floating in FLOATING {
        lab.node.ctl(&format!("fip move {floating} --to {to}"))?;
    }
    Ok(begun)
}

/// New clients reach the new owner.
fn new_ones_reach(lab: &Lab, who: &str) -> Result<()> {
    for floating in FLOATING {
        for via in [Via::Tcp, Via::Udp, Via::Ping] {
            match via {
                Via::Ping => drop(buoy_lab::probe::ask(&lab.client, via, ip(floating), SOON)?),
                via => drop(answered_by(&lab.client, via, floating, who)?),
            }
        }
    }
    Ok(())
}

/// Pairs that the kernel remembers, of both families.
fn remembered(lab: &Lab, set: &str) -> Result<usize> {
    let mut count = 0;
    for family in ["ip", "ip6"] {
        let listed = lab
            .node
            .netns()
            .exec(&format!("nft list set {family} buoy {set}"))?;
        count += listed.ok()?.stdout.matches(" . ").count() - 1;
    }
    Ok(count)
}

fn nothing_is_remembered(lab: &Lab) -> Result<()> {
    eventually(SOON, "nothing is ending any more", || {
        let (ending, draining) = (remembered(lab, "ending")?, remembered(lab, "draining")?);
        ensure!(ending + draining == 0, "{ending} ending, {draining} draining");
        Ok(())
    })
}

#[test]
fn old_flows_stay_with_the_old_workload_for_as_long_as_it_asked() {
    Lab::start().unwrap().test(|lab| {
        let [first, second] = workloads(lab, "4s")?;
        let clients = Clients::start(lab)?;
        let begun = move_to(lab, "web-1")?;
        new_ones_reach(lab, "web-1")?;
        clients.go_on()?;
        ensure!(begun.elapsed() < DRAIN, "this machine is too slow for this test");
        ensure!(
            remembered(lab, "draining")? == 2,
            "the kernel does not know of the drain"
        );
        let ended = clients.end()?;
        ensure!(
            ended >= begun + DRAIN,
            "flows ended {:?} after the move",
            ended - begun
        );
        nothing_is_remembered(lab)?;
        assert_nothing_leaked(&lab.node, &[&first, &second])
    });
}

buoy_lab::on_each_store! {
    i5_an_agent_that_is_killed_amid_a_drain_goes_on_with_it,
}

fn i5_an_agent_that_is_killed_amid_a_drain_goes_on_with_it(store: Kind) {
    Lab::start_on(store).unwrap().test(|lab| {
        let [first, second] = workloads(lab, "6s")?;
        let clients = Clients::start(lab)?;
        let begun = move_to(lab, "web-1")?;
        lab.node.kill_agent();
        lab.node.start_agent()?;
        new_ones_reach(lab, "web-1")?;
        clients.go_on()?;
        let wanted = begun + Duration::from_secs(6);
        ensure!(Instant::now() < wanted, "this machine is too slow for this test");
        let ended = clients.end()?;
        ensure!(ended >= wanted, "flows ended {:?} after the move", ended - begun);
        nothing_is_remembered(lab)?;
        assert_nothing_leaked(&lab.node, &[&first, &second])
    });
}

#[test]
fn an_agent_that_was_dead_at_the_end_of_a_drain_ends_it_when_it_is_back() {
    Lab::start().unwrap().test(|lab| {
        let [first, second] = workloads(lab, "2s")?;
        let clients = Clients::start(lab)?;
        move_to(lab, "web-1")?;
        lab.node.kill_agent();
        eventually(SOON, "the drain is over", || {
            ensure!(remembered(lab, "draining")? == 0, "not yet");
            Ok(())
        })?;
        clients.go_on()?;
        ensure!(
            remembered(lab, "ending")? > 0,
            "nothing says that flows are to end"
        );
        lab.node.start_agent()?;
        clients.end()?;
        nothing_is_remembered(lab)?;
        assert_nothing_leaked(&lab.node, &[&first, &second])
    });
}

#[test]
fn a_drain_ends_with_its_workload_or_when_the_address_comes_back() {
    Lab::start().unwrap().test(|lab| {
        let [first, second] = workloads(lab, "1h")?;
        let clients = Clients::start(lab)?;
        move_to(lab, "web-1")?;
        clients.go_on()?;
        // The flows that were drained are those of the owner again.
        move_to(lab, "web-0")?;
        nothing_is_remembered(lab)?;
        new_ones_reach(lab, "web-0")?;
        clients.go_on()?;
        move_to(lab, "web-1")?;
        clients.go_on()?;
        first.delete()?;
        clients.end()?;
        nothing_is_remembered(lab)?;
        assert_nothing_leaked(&lab.node, &[&second])
    });
}
