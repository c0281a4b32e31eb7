//! The probes, between two namespaces and without Buoy: what they report can be known beforehand.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::ensure;

use super::*;
use crate::exec::eventually;
use crate::run::Run;

const LIMIT: Duration = Duration::from_secs(10);
const OFTEN: Duration = Duration::from_millis(10);
/// How long who falls silent is silent at least.
const SILENCE: Duration = Duration::from_millis(200);

struct Pair {
    client: Netns,
    server: Netns,
}

const CLIENT: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const SERVER: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

fn pair() -> Pair {
    let run = Run::begin().unwrap();
    let (client, server) = (Netns::make(&run, "c").unwrap(), Netns::make(&run, "s").unwrap());
    client.link("eth0", &server, "eth0").unwrap();
    for (netns, [v4, v6]) in [(&client, CLIENT), (&server, SERVER)] {
        netns
            .add_address("eth0", format!("{v4}/24").parse().unwrap())
            .unwrap();
        netns
            .add_address("eth0", format!("{v6}/64").parse().unwrap())
            .unwrap();
    }
    Pair { client, server }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn every_way() -> Vec<Via> {
    let mut ways = vec![Via::Ping, Via::Udp, Via::UdpFrom(4000), Via::Tcp];
    ways.extend(RawProtocol::ALL.map(Via::Raw));
    ways
}

#[test]
fn every_protocol_is_answered_by_name_and_sees_the_source() {
    let pair = pair();
    let _server = Server::start(&pair.server, "web-0").unwrap();
    for (client, server) in CLIENT.into_iter().zip(SERVER) {
        for via in every_way() {
            let answer = ask(&pair.client, via, ip(server), LIMIT).unwrap();
            let (who, saw) = match via {
                Via::Ping => ("", None),
                _ => ("web-0", Some(ip(client))),
            };
            assert_eq!(
                (answer.who.as_str(), answer.saw),
                (who, saw),
                "{via:?} to {server}"
            );
        }
    }
    nobody_answers(
        &pair.client,
        Via::Udp,
        ip("192.0.2.9"),
        Duration::from_millis(200),
    )
    .unwrap();
}

#[test]
fn a_probe_counts_what_is_lost_and_how_long_the_gap_was() {
    let pair = pair();
    let _server = Server::start(&pair.server, "web-0").unwrap();
    for via in [Via::Ping, Via::UdpFrom(4001)] {
        let probe = Probe::start(&pair.client, via, ip(SERVER[0]), OFTEN).unwrap();
        probe.wait_for_more(10, LIMIT).unwrap();
        let sent = || probe.tally().sent;
        let before = sent();
        pair.server
            .nft("table ip t { chain c { type filter hook prerouting priority 0; drop; }; }")
            .unwrap();
        let cut = sent();
        std::thread::sleep(Duration::from_millis(300));
        let still_cut = sent();
        pair.server.nft("delete table ip t").unwrap();
        let after = sent();
        probe.wait_for_more(10, LIMIT).unwrap();
        let tally = probe.stop().unwrap();
        // The last one before a look may have been on its way.
        let lost = (still_cut - cut).saturating_sub(1)..=after - before + 1;
        assert!(
            still_cut > cut && lost.contains(&tally.lost()),
            "{via:?}: {lost:?}, {tally}"
        );
        assert!(
            tally.longest_gap >= Duration::from_millis(280),
            "{via:?}: {tally}"
        );
    }
    for via in [Via::Ping, Via::UdpFrom(4003)] {
        let quiet = Probe::start(&pair.client, via, ip(SERVER[0]), OFTEN).unwrap();
        quiet.wait_for_more(20, LIMIT).unwrap();
        let tally = quiet.stop().unwrap();
        assert_eq!(tally.lost(), 0, "{via:?}: {tally}");
    }
}

#[test]
fn rounds_tell_which_of_many_fall_silent_and_for_how_long() {
    let pair = pair();
    for (network, length) in [("192.0.2.", 24), ("2001:db8::", 64)] {
        let many: Vec<IpAddr> = (10..40).map(|number| ip(&format!("{network}{number}"))).collect();
        for address in &many {
            let address = format!("{address}/{length}").parse().unwrap();
            pair.server.add_address("eth0", address).unwrap();
        }
        let rounds = Rounds::start(&pair.client, &many, OFTEN).unwrap();
        rounds.wait_for_more(5, LIMIT).unwrap();
        let silent = many[7];
        let version = if silent.is_ipv4() { "ip" } else { "ip6" };
        pair.server
            .nft(&format!(
                "table {version} t {{ chain c {{ type filter hook input priority 0; {version} daddr {silent} drop; }}; }}"
            ))
            .unwrap();
        eventually(LIMIT, "all others answer", || {
            let some = rounds.wait_for_more(1, SILENCE);
            let error = format!("{:#}", some.err().context("all answer")?);
            ensure!(error.contains(&format!("1 of 30: [{silent}]")), "{error}");
            Ok(())
        })
        .unwrap();
        pair.server.nft(&format!("delete table {version} t")).unwrap();
        rounds.wait_for_more(1, LIMIT).unwrap();
        let gaps = rounds.stop().unwrap();
        assert_eq!(gaps.len(), 30);
        assert!(gaps[7] >= SILENCE, "{gaps:?}");
    }
}

#[test]
fn a_probe_tells_when_another_workload_answers() {
    let pair = pair();
    let first = Server::start(&pair.server, "web-0").unwrap();
    let probe = Probe::start(&pair.client, Via::UdpFrom(4002), ip(SERVER[1]), OFTEN).unwrap();
    probe.wait_for_more(3, LIMIT).unwrap();
    let changed = Instant::now();
    drop(first);
    probe
        .wait(LIMIT, "nobody listens", |tally| !tally.errors.is_empty())
        .unwrap();
    let _second = Server::start(&pair.server, "web-1").unwrap();
    probe
        .wait(LIMIT, "web-1 answers", |tally| tally.by.contains_key("web-1"))
        .unwrap();
    let tally = probe.stop().unwrap();
    assert!(tally.first_answer_by("web-0").unwrap() < changed);
    assert!(tally.first_answer_by("web-1").unwrap() > changed);
    assert!(
        tally.errors.keys().any(|error| error.contains("refused")),
        "{tally}"
    );
}

#[test]
fn streams_tell_how_they_ended() {
    let pair = pair();
    let _server = Server::start(&pair.server, "web-0").unwrap();
    let reader = Reader::start(&pair.client, ip(SERVER[0])).unwrap();
    assert_eq!(reader.greeting.who, "web-0");
    let probe = Probe::start(&pair.client, Via::Tcp, ip(SERVER[0]), OFTEN).unwrap();
    probe.wait_for_more(5, LIMIT).unwrap();
    assert!(reader.is_open());
    assert!(reader.ending(Duration::from_millis(50)).is_err());
    pair.server.exec("ss -K sport = :7007").unwrap();
    assert!(reader.ending(LIMIT).unwrap().is_reset());
    let tally = probe
        .wait(LIMIT, "the end", |tally| tally.ended.is_some())
        .unwrap();
    assert!(tally.ended.unwrap().contains("reset"));
}
