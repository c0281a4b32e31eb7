//! Floating and fixed IPs on one node: who gets an address, who may, how it moves, and that no client is left behind.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use buoy_lab::ask::{answered_by, listed, listed_as, silent, why_says};
use buoy_lab::lab::{CLIENT, Lab};
use buoy_lab::leaks::assert_nothing_leaked;
use buoy_lab::probe::{self, Probe, RawProtocol, Reader, Via};
use buoy_lab::store::Kind;
use buoy_lab::traffic::Traffic;
use buoy_lab::workload::{Spec, Workload};
use serde_json::json;

const V4: &str = "172.16.1.3";
const V6: &str = "fd16::3";
const SOON: Duration = Duration::from_secs(20);
const OFTEN: Duration = Duration::from_millis(10);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn shop(name: &str) -> Spec {
    Spec::pod("shop", name)
}

buoy_lab::on_each_store! {
    every_protocol_reaches_it_and_sees_the_real_client,
    a_standby_takes_over_and_no_client_keeps_the_past,
    it_moves_back_and_forth_while_clients_talk,
    it_is_attached_and_detached_live,
}

fn every_protocol_reaches_it_and_sees_the_real_client(store: Kind) {
    Lab::start_on(store).unwrap().test(|lab| {
        let _web = Workload::start(&lab.node, shop("web-0").floating(&[V4, V6]))?;
        let mut ways = vec![Via::Tcp, Via::Udp, Via::UdpFrom(4000)];
        ways.extend(RawProtocol::ALL.map(Via::Raw));
        for (floating, client) in [V4, V6].into_iter().zip(CLIENT) {
            probe::ask(&lab.client, Via::Ping, ip(floating), SOON)?;
            for via in &ways {
                let answer = probe::ask(&lab.client, *via, ip(floating), SOON)?;
                ensure!(
                    answer.who == "web-0" && answer.saw == Some(ip(client)),
                    "{via:?}: {answer:?}"
                );
            }
        }
        Ok(())
    });
}

#[test]
fn the_workload_its_neighbour_and_the_node_reach_it() {
    Lab::start().unwrap().test(|lab| {
        let web = Workload::start(&lab.node, shop("web-0").floating(&[V4, V6]))?;
        let neighbour = Workload::start(&lab.node, shop("neighbour"))?;
        let mut ways = vec![Via::Tcp, Via::Udp];
        ways.extend(RawProtocol::ALL.map(Via::Raw));
        for floating in [V4, V6] {
            for netns in [web.netns(), neighbour.netns(), lab.node.netns()] {
                probe::ask(netns, Via::Ping, ip(floating), SOON)?;
                for via in &ways {
                    let answer = probe::ask(netns, *via, ip(floating), SOON)?;
                    ensure!(answer.who == "web-0", "{via:?} from {}: {answer:?}", netns.name());
                }
            }
            let seen = probe::ask(neighbour.netns(), Via::Tcp, ip(floating), SOON)?.saw;
            ensure!(
                seen == Some(neighbour.address(ip(floating))?),
                "the neighbour is seen as {seen:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_workload_has_several() {
    Lab::start().unwrap().test(|lab| {
        let all = [
            "172.16.1.10",
            "172.16.1.11",
            "172.16.1.200",
            "fd16::10",
            "fd16::ffff",
        ];
        let web = Workload::start(&lab.node, shop("web-0").floating(&all))?;
        for floating in all {
            answered_by(&lab.client, Via::Tcp, floating, "web-0")?;
        }
        web.delete()?;
        for floating in all {
            silent(&lab.client, floating)?;
        }
        Ok(())
    });
}

fn a_standby_takes_over_and_no_client_keeps_the_past(store: Kind) {
    Lab::start_on(store).unwrap().test(|lab| {
        let first = Workload::start(&lab.node, shop("web-0").floating(&[V4, V6]))?;
        let second = Workload::start(&lab.node, shop("web-1").floating(&[V4, V6]))?;
        let row = listed_as(&lab.node, V4, "web-1 stands by", |row| {
            row["owner"] == "web-0" && row["standby"] == json!(["web-1"])
        })?;
        let epoch = row["epoch"].as_u64().context("an epoch")?;
        let udp = Probe::start(&lab.client, Via::UdpFrom(4000), ip(V4), OFTEN)?;
        let udp6 = Probe::start(&lab.client, Via::UdpFrom(4000), ip(V6), OFTEN)?;
        let gre = Probe::start(&lab.client, Via::Raw(RawProtocol::Gre), ip(V4), OFTEN)?;
        let tcp = Probe::start(&lab.client, Via::Tcp, ip(V4), OFTEN)?;
        let readers = [
            Reader::start(&lab.client, ip(V4))?,
            Reader::start(&lab.client, ip(V6))?,
        ];
        for probe in [&udp, &udp6, &gre, &tcp] {
            probe.wait_for_more(10, SOON)?;
        }
        first.delete()?;
        for probe in [&udp, &udp6, &gre] {
            probe.wait(SOON, "web-1 answers", |tally| tally.by.contains_key("web-1"))?;
        }
        let tally = tcp.wait(SOON, "the conversation ends", |tally| tally.ended.is_some())?;
        ensure!(
            tally.ended.as_ref().is_some_and(|how| how.contains("reset")),
            "{tally}"
        );
        for reader in readers {
            let ending = reader.ending(SOON)?;
            ensure!(ending.is_reset(), "a reading client saw {:?}", ending.how);
        }
        answered_by(&lab.client, Via::Tcp, V4, "web-1")?;
        let row = listed(&lab.node, V4)?;
        ensure!(row["owner"] == "web-1", "{row}");
        ensure!(
            row["epoch"].as_u64() > Some(epoch),
            "the epoch did not rise: {row}"
        );
        assert_nothing_leaked(&lab.node, &[&second])
    });
}

fn it_moves_back_and_forth_while_clients_talk(store: Kind) {
    Lab::start_on(store).unwrap().test(|lab| {
        let _web_0 = Workload::start(&lab.node, shop("web-0").floating(&[V4]))?;
        let _web_1 = Workload::start(&lab.node, shop("web-1").floating(&[V4]))?;
        let ping = Probe::start(&lab.client, Via::Ping, ip(V4), OFTEN)?;
        let udp = Probe::start(&lab.client, Via::UdpFrom(4000), ip(V4), OFTEN)?;
        udp.wait_for_more(5, SOON)?;
        for to in ["web-1", "web-0", "web-1", "web-0"] {
            let reader = Reader::start(&lab.client, ip(V4))?;
            let begun = Instant::now();
            lab.node.ctl(&format!("fip move {V4} --to {to}"))?;
            udp.wait(SOON, &format!("{to} answers"), |tally| {
                tally
                    .changes
                    .last()
                    .is_some_and(|(at, who)| *at > begun && who == to)
            })?;
            ensure!(reader.ending(SOON)?.is_reset(), "a reader did not get its reset");
            ping.wait_for_more(5, SOON)?;
        }
        let tally = ping.stop()?;
        ensure!(tally.lost() <= 4, "more than one lost per move: {tally}");
        let tally = udp.stop()?;
        ensure!(
            tally.changes.len() == 5,
            "owners changed otherwise than asked: {:?}",
            tally.changes
        );
        Ok(())
    });
}

fn it_is_attached_and_detached_live(store: Kind) {
    Lab::start_on(store).unwrap().test(|lab| {
        let web = Workload::start(&lab.node, shop("web-0"))?;
        let traffic = Traffic::start(&lab.client, web.addresses()[0])?;
        why_says(&lab.node, V4, &[V4])?;
        silent(&lab.client, V4)?;
        for floating in [V4, V6] {
            lab.node.ctl(&format!("fip attach {floating} web-0 -n shop"))?;
            answered_by(&lab.client, Via::Tcp, floating, "web-0")?;
            why_says(&lab.node, floating, &["web-0"])?;
        }
        lab.node.ctl(&format!("fip detach {V4} web-0 -n shop"))?;
        silent(&lab.client, V4)?;
        answered_by(&lab.client, Via::Tcp, V6, "web-0")?;
        why_says(&lab.node, V4, &["shop"])?;
        lab.node.ctl(&format!("fip attach {V4} web-0 -n shop"))?;
        answered_by(&lab.client, Via::Udp, V4, "web-0")?;
        traffic.unharmed()?;
        Ok(())
    });
}

#[test]
fn a_flow_from_before_the_first_owner_is_answered_by_it() {
    Lab::start().unwrap().test(|lab| {
        // The node forwards these untranslated, and tracks them.
        let udp = Probe::start(&lab.client, Via::UdpFrom(4000), ip(V4), OFTEN)?;
        udp.wait(SOON, "a flow stands", |tally| tally.sent > 20)?;
        let _web = Workload::start(&lab.node, shop("web-0").floating(&[V4]))?;
        udp.wait(SOON, "web-0 answers", |tally| tally.by.contains_key("web-0"))?;
        Ok(())
    });
}

#[test]
fn a_workload_without_kubernetes_gets_one_by_its_container() {
    Lab::start().unwrap().test(|lab| {
        let plain = Workload::start(&lab.node, Spec::container("plain"))?;
        lab.node.ctl(&format!("fip attach {V4} {}", plain.container_id))?;
        answered_by(&lab.client, Via::Tcp, V4, "plain")?;
        let named = Spec::container("named")
            .arg("BUOY_NAMESPACE", "shop")
            .floating(&[V6]);
        let _named = Workload::start(&lab.node, named)?;
        answered_by(&lab.client, Via::Tcp, V6, "named")?;
        let row = listed(&lab.node, V6)?;
        ensure!(row["namespace"] == "shop", "{row}");
        Ok(())
    });
}
