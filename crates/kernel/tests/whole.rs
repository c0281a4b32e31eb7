//! Whether somebody else's change of our rules is noticed, and loading takes it back, in real namespaces.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use buoy_kernel::{
    IfIndex,
    netlink::OwnPorts,
    nft::{self, Dump, Element, Loaded, Nft, Skeleton, Transaction},
};
use common::{
    TestNs, ip,
    router::{CLIENT, FLOATING, Router},
};

/// A namespace with the ruleset loaded and elements in it.
fn node() -> (TestNs, Nft) {
    let ns = TestNs::new();
    let mut nft = ns.run(Nft::open).unwrap();
    load(&ns, &mut nft);
    add(&mut nft, elements());
    (ns, nft)
}

fn load(ns: &TestNs, nft: &mut Nft) -> Loaded {
    ns.run(|| nft::load(nft, &OwnPorts::default())).unwrap()
}

fn add(nft: &mut Nft, elements: BTreeSet<Element>) {
    let transaction = Transaction {
        add: elements,
        ..Transaction::default()
    };
    nft.apply(&transaction).unwrap();
}

fn elements() -> BTreeSet<Element> {
    [
        Element::Link(IfIndex(1)),
        Element::Source(IfIndex(1), ip("fd00:65::10")),
        Element::SourcePrefix(IfIndex(1), "10.0.0.0/8".parse().unwrap()),
        Element::Nat {
            floating: ip("172.16.1.3"),
            internal: ip("10.65.0.10"),
        },
        Element::Ending(ip("172.16.1.3"), ip("10.65.0.9")),
    ]
    .into()
}

/// Runs commands by somebody else; another process must notice, and loading must restore all and keep the elements.
fn is_noticed_and_taken_back(commands: &[&str]) {
    let (ns, mut nft) = node();
    let whole = ns.cmd("nft list ruleset");
    for command in commands {
        ns.cmd(command);
    }
    let skeleton = ns.run(Nft::open).unwrap().skeleton().unwrap();
    assert_eq!(skeleton, Skeleton::Different, "{commands:?}");
    assert_eq!(load(&ns, &mut nft), Loaded::Kept, "{commands:?}");
    assert_eq!(nft.skeleton().unwrap(), Skeleton::Current, "{commands:?}");
    let kept = Dump {
        elements: elements(),
        partial: BTreeSet::new(),
    };
    assert_eq!(nft.dump().unwrap(), kept, "{commands:?}");
    assert_eq!(
        sorted_lines(&ns.cmd("nft list ruleset")),
        sorted_lines(&whole),
        "{commands:?}"
    );
}

#[test]
fn a_flushed_chain() {
    is_noticed_and_taken_back(&["nft flush chain ip buoy dnat_in"]);
    is_noticed_and_taken_back(&["nft flush chain ip6 buoy check_source"]);
}

#[test]
fn all_chains_flushed() {
    is_noticed_and_taken_back(&["nft flush table ip buoy"]);
    is_noticed_and_taken_back(&["nft flush table ip6 buoy", "nft flush table ip buoy"]);
}

#[test]
fn a_deleted_rule() {
    let (ns, _nft) = node();
    for chain in ["ip buoy snat_hairpin", "ip6 buoy check_source"] {
        for handle in handles(&ns, chain) {
            is_noticed_and_taken_back(&[&format!("nft delete rule {chain} handle {handle}")]);
        }
    }
}

#[test]
fn an_inserted_rule() {
    is_noticed_and_taken_back(&["nft insert rule ip buoy check_source accept"]);
    is_noticed_and_taken_back(&["nft add rule ip6 buoy dnat_out counter"]);
    is_noticed_and_taken_back(&[
        "nft add chain ip buoy strange",
        "nft insert rule ip buoy dnat_in jump strange",
    ]);
}

#[test]
fn a_replaced_rule() {
    let (ns, _nft) = node();
    let handle = handles(&ns, "ip buoy dnat_in")[0];
    for other in [
        "accept",
        "ip daddr @floating fib daddr oif @links dnat to 10.0.0.1",
    ] {
        is_noticed_and_taken_back(&[&format!(
            "nft replace rule ip buoy dnat_in handle {handle} {other}"
        )]);
    }
}

#[test]
fn a_moved_rule() {
    let (ns, _nft) = node();
    let handle = handles(&ns, "ip buoy check_source")[0];
    is_noticed_and_taken_back(&[
        &format!("nft delete rule ip buoy check_source handle {handle}"),
        "nft add rule ip buoy check_source iif . ip saddr @sources accept",
    ]);
}

#[test]
fn a_changed_copy() {
    let (ns, _nft) = node();
    let listed = ns.cmd("nft list chains ip");
    let marker = listed
        .split_whitespace()
        .find(|word| word.starts_with("buoy_v1_"))
        .unwrap();
    is_noticed_and_taken_back(&[&format!("nft flush chain ip buoy {marker}")]);
    is_noticed_and_taken_back(&[&format!("nft add rule ip buoy {marker} accept")]);
}

#[test]
fn a_chain_that_packets_do_not_pass_as_they_should() {
    is_noticed_and_taken_back(&["nft add chain ip buoy check_source { policy drop ; }"]);
    let again = "nft add rule ip buoy dnat_out oif @links dnat to ip daddr map @fips";
    for place in ["", " { type nat hook output priority -99 ; }"] {
        is_noticed_and_taken_back(&[
            "nft flush chain ip buoy dnat_out",
            "nft delete chain ip buoy dnat_out",
            &format!("nft add chain ip buoy dnat_out{place}"),
            again,
        ]);
    }
}

#[test]
fn a_table_put_to_sleep() {
    is_noticed_and_taken_back(&["nft add table ip6 buoy { flags dormant ; }"]);
}

#[test]
fn what_is_whole_is_current_whatever_the_sets_hold() {
    let (ns, mut nft) = node();
    let all = (0..10_000)
        .map(|i| Element::Nat {
            floating: IpAddr::from(Ipv4Addr::from_bits(0xac11_0000 + i)),
            internal: IpAddr::from(Ipv4Addr::from_bits(0x0a41_0000 + i)),
        })
        .collect();
    add(&mut nft, all);
    let mut later = ns.run(Nft::open).unwrap();
    assert_eq!(later.skeleton().unwrap(), Skeleton::Current);
}

#[test]
fn packets_are_translated_again_and_change_nothing() {
    let mut router = Router::new();
    let pod = router.workload(10);
    router.float(&pod);
    assert!(router.client.pings(FLOATING[0]));
    router.node.cmd("nft flush chain ip buoy dnat_in");
    router
        .node
        .cmd("nft insert rule ip6 buoy check_source ip6 saddr 2001:db8::2 drop");
    assert!(router.client.pings_in_vain(FLOATING[0]), "nobody translates");
    assert!(router.client.pings_in_vain(FLOATING[1]), "a stranger drops");
    assert_eq!(router.nft.skeleton().unwrap(), Skeleton::Different);
    assert_eq!(load(&router.node, &mut router.nft), Loaded::Kept);
    for floating in FLOATING {
        assert!(router.client.pings(floating));
    }
    pod.ns.ip("addr add 10.66.0.1/32 dev eth0");
    assert!(pod.ns.pings_in_vain(&format!("-I 10.66.0.1 {}", CLIENT[0])));
    router.counts("spoofed", 1);
    assert_eq!(router.nft.skeleton().unwrap(), Skeleton::Current);
}

/// Handles of a chain's rules. They are the same wherever the same is loaded.
fn handles(ns: &TestNs, chain: &str) -> Vec<u32> {
    let listed = ns.cmd(&format!("nft -a list chain {chain}"));
    let rules = listed.lines().filter(|line| !line.contains('{'));
    let handles: Vec<u32> = rules
        .filter_map(|line| line.rsplit_once("# handle ")?.1.parse().ok())
        .collect();
    assert!(!handles.is_empty(), "{listed}");
    handles
}

fn sorted_lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}
