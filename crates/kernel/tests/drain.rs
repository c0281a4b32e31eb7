//! Pairs of a floating IP and an address whose flows go on for a while: the kernel counts the time.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use buoy_kernel::{
    conntrack::{self, Leads, Selector},
    netlink::{OwnPorts, Protocol},
    nft::{self, Element, Loaded, Nft, Skeleton, TableEvent, TableEvents, Transaction},
};
use common::{
    TestNs, ip,
    router::{FLOATING, Router, at},
    udp,
};

const LONG: Duration = Duration::from_secs(3600);
const BRIEF: Duration = Duration::from_millis(300);
const SHORT: Option<Duration> = Some(Duration::from_millis(200));

const PAIRS: [(&str, &str); 2] = [("172.16.1.3", "10.65.0.9"), ("2001:db8:1::3", "fd00:65::9")];

fn draining(time: Duration) -> BTreeSet<Element> {
    PAIRS
        .map(|(floating, old)| Element::Draining(ip(floating), ip(old), time))
        .into()
}

fn change(del: BTreeSet<Element>, add: BTreeSet<Element>) -> Transaction {
    Transaction { add, del }
}

/// A namespace with the ruleset loaded.
fn node() -> (TestNs, Nft) {
    let ns = TestNs::new();
    let mut nft = ns.run(Nft::open).unwrap();
    ns.run(|| nft::load(&mut nft, &OwnPorts::default())).unwrap();
    (ns, nft)
}

/// What is drained, and how long it still is.
fn found(nft: &mut Nft) -> Vec<(IpAddr, IpAddr, Duration)> {
    let dump = nft.dump().unwrap();
    assert_eq!(dump.partial, BTreeSet::new());
    let drained = |element| match element {
        Element::Draining(floating, old, time) => Some((floating, old, time)),
        _ => None,
    };
    dump.elements.into_iter().filter_map(drained).collect()
}

#[test]
fn what_is_left_of_the_time_reads_back() {
    for open in [Nft::open, Nft::open_without_destroy] {
        let (ns, mut nft) = node();
        let mut other = ns.run(open).unwrap();
        let begin = Instant::now();
        other.apply(&change(BTreeSet::new(), draining(LONG))).unwrap();
        let left = found(&mut nft);
        let pairs: Vec<(IpAddr, IpAddr)> = left.iter().map(|(floating, old, _)| (*floating, *old)).collect();
        assert_eq!(pairs, PAIRS.map(|(floating, old)| (ip(floating), ip(old))));
        for (.., time) in left {
            // The kernel counts in ticks.
            let passed = LONG.saturating_sub(time);
            assert!(passed < begin.elapsed() + Duration::from_millis(20), "{time:?}");
        }
        // Another time takes effect by a deletion, whatever time is named in it.
        other.apply(&change(draining(BRIEF), draining(LONG * 2))).unwrap();
        assert!(found(&mut nft).iter().all(|(.., time)| *time > LONG));
        other.apply(&change(draining(LONG), BTreeSet::new())).unwrap();
        assert_eq!(found(&mut nft), []);
    }
}

#[test]
fn the_kernel_forgets_them_and_that_is_no_strangers_doing() {
    let (ns, mut nft) = node();
    let own = OwnPorts::default();
    own.add(nft.port());
    let mut events = ns.run(|| TableEvents::subscribe(own)).unwrap();
    nft.apply(&change(BTreeSet::new(), draining(BRIEF))).unwrap();
    assert_eq!(found(&mut nft).len(), 2);
    thread::sleep(BRIEF + Duration::from_millis(50));
    assert_eq!(found(&mut nft), []);
    // The kernel clears up when something is changed.
    nft.apply(&change(BTreeSet::new(), draining(LONG))).unwrap();
    assert_eq!(found(&mut nft).len(), 2);
    assert_eq!(events.wait(Some(Duration::from_secs(2))).unwrap(), None);
    ns.cmd("nft add element ip buoy draining { 172.16.1.4 . 10.65.0.9 timeout 1h }");
    assert_eq!(events.wait(SHORT).unwrap(), Some(TableEvent::Foreign));
}

#[test]
fn one_without_an_end_is_no_drain() {
    let (ns, mut nft) = node();
    ns.cmd("nft add element ip buoy draining { 172.16.1.3 . 10.65.0.9 }");
    let dump = nft.dump().unwrap();
    assert_eq!((dump.elements.len(), dump.partial.len()), (0, 1));
    nft.apply(&change(dump.partial, BTreeSet::new())).unwrap();
    assert_eq!(nft.dump().unwrap(), nft::Dump::default());
}

#[test]
fn tables_of_a_version_without_drains_keep_what_they_hold() {
    let (ns, mut nft) = node();
    let pair = Element::Ending(ip(PAIRS[0].0), ip(PAIRS[0].1));
    nft.apply(&change(BTreeSet::new(), [pair].into())).unwrap();
    for family in ["ip", "ip6"] {
        ns.cmd(&format!("nft delete set {family} buoy draining"));
        // The chain whose name tells the version.
        let listed = ns.cmd(&format!("nft list chains {family}"));
        let marker = listed
            .split_whitespace()
            .find(|word| word.starts_with("buoy_v1_"));
        ns.cmd(&format!("nft delete chain {family} buoy {}", marker.unwrap()));
        ns.cmd(&format!("nft add chain {family} buoy buoy_v1_0000000000000000"));
    }
    assert_eq!(nft.skeleton().unwrap(), Skeleton::Different);
    let loaded = ns.run(|| nft::load(&mut nft, &OwnPorts::default())).unwrap();
    assert_eq!(
        (loaded, nft.skeleton().unwrap()),
        (Loaded::Kept, Skeleton::Current)
    );
    assert_eq!(nft.dump().unwrap().elements, [pair].into());
}

/// Both directions of a flow go on after the translation leads elsewhere, and a new sender reaches the new owner.
#[test]
fn flows_to_the_owner_before_go_on_and_are_spared() {
    let mut router = Router::new();
    let (old, new) = (router.workload(10), router.workload(20));
    router.float(&old);
    for (family, any) in ["0.0.0.0:0", "[::]:0"].into_iter().enumerate() {
        let servers = [&old, &new].map(|pod| udp(&pod.ns, &at(["0.0.0.0", "::"][family], 7000)));
        let (client, later) = (udp(&router.client, any), udp(&router.client, any));
        let reaches = |client: &std::net::UdpSocket, server: usize| {
            client.send_to(b"ahoy", at(FLOATING[family], 7000)).unwrap();
            let mut buffer = [0; 8];
            let (_, peer) = servers[server].recv_from(&mut buffer).expect("it arrives");
            servers[server].send_to(b"aye", peer).unwrap();
            let (_, from) = client.recv_from(&mut buffer).expect("the answer arrives");
            assert_eq!(from.ip(), ip(FLOATING[family]));
        };
        let (from, to) = if family == 0 { (&old, &new) } else { (&new, &old) };
        let (before, after) = if family == 0 { (0, 1) } else { (1, 0) };
        reaches(&client, before);
        router.move_floating(from, to);
        reaches(&client, before);
        reaches(&later, after);

        let called = |spared: &[&str]| Selector {
            called: ip(FLOATING[family]),
            leads: Leads::NotTo(spared.iter().map(|address| ip(address)).collect()),
        };
        let mut tracked = router.node.socket(Protocol::Netfilter);
        let (from, to) = (&from.addresses[family], &to.addresses[family]);
        let flows = conntrack::find(&mut tracked, &[called(&[from, to])]).unwrap();
        assert_eq!(flows, []);
        let flows = conntrack::find(&mut tracked, &[called(&[to])]).unwrap();
        assert_eq!(flows.len(), 1, "{flows:?}");
        assert_eq!(conntrack::end(&mut tracked, &flows).unwrap(), 1);
        reaches(&client, after);
    }
}
