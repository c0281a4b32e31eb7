//! The ruleset and its elements in real namespaces.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use buoy_kernel::{
    Error, IfIndex,
    netlink::OwnPorts,
    nft::{self, Dump, Element, Loaded, Nft, Skeleton, TableEvent, TableEvents, Transaction},
};
use common::{SHORT, SOON, TestNs, ip};

/// A namespace with the ruleset loaded.
fn node() -> (TestNs, Nft) {
    let ns = TestNs::new();
    let mut nft = ns.run(Nft::open).unwrap();
    assert_eq!(load(&ns, &mut nft), Loaded::Kept);
    (ns, nft)
}

fn load(ns: &TestNs, nft: &mut Nft) -> Loaded {
    ns.run(|| nft::load(nft, &OwnPorts::default())).unwrap()
}

fn nat(floating: &str, internal: &str) -> Element {
    Element::Nat {
        floating: ip(floating),
        internal: ip(internal),
    }
}

/// One element of each kind and family.
fn all_kinds() -> BTreeSet<Element> {
    let link = IfIndex(1);
    [
        Element::Link(link),
        Element::Source(link, ip("10.65.0.10")),
        Element::Source(link, ip("fd00:65::10")),
        Element::SourcePrefix(link, "10.0.0.0/8".parse().unwrap()),
        Element::SourcePrefix(link, "192.0.2.7/32".parse().unwrap()),
        Element::SourcePrefix(IfIndex(2), "0.0.0.0/0".parse().unwrap()),
        Element::SourcePrefix(IfIndex(2), "2001:db8::/32".parse().unwrap()),
        nat("172.16.1.3", "10.65.0.10"),
        nat("2001:db8:1::3", "fd00:65::10"),
        Element::Ending(ip("172.16.1.3"), ip("10.65.0.9")),
        Element::Ending(ip("2001:db8:1::3"), ip("2001:db8:1::3")),
    ]
    .into()
}

fn add(elements: impl IntoIterator<Item = Element>) -> Transaction {
    Transaction {
        add: elements.into_iter().collect(),
        ..Transaction::default()
    }
}

fn del(elements: impl IntoIterator<Item = Element>) -> Transaction {
    Transaction {
        del: elements.into_iter().collect(),
        ..Transaction::default()
    }
}

fn elements(nft: &mut Nft) -> BTreeSet<Element> {
    let Dump { elements, partial } = nft.dump().unwrap();
    assert_eq!(partial, BTreeSet::new());
    elements
}

#[test]
fn loading_twice_keeps_the_elements() {
    let (ns, mut nft) = node();
    assert_eq!(nft.skeleton().unwrap(), Skeleton::Current);
    nft.apply(&add(all_kinds())).unwrap();
    let listed = ns.cmd("nft list ruleset");
    assert_eq!(load(&ns, &mut nft), Loaded::Kept);
    assert_eq!(ns.cmd("nft list ruleset"), listed);
    assert_eq!(elements(&mut nft), all_kinds());
}

#[test]
fn loading_restores_what_somebody_broke() {
    let (ns, mut nft) = node();
    let whole = ns.cmd("nft list ruleset");
    ns.cmd("nft flush chain ip buoy dnat_in");
    ns.cmd("nft delete chain ip6 buoy dnat_out");
    ns.cmd("nft add chain ip buoy strange");
    ns.cmd("nft add chain ip buoy stranger");
    ns.cmd("nft add rule ip buoy stranger jump strange");
    assert_eq!(nft.skeleton().unwrap(), Skeleton::Different);
    assert_eq!(load(&ns, &mut nft), Loaded::Kept);
    assert_eq!(nft.skeleton().unwrap(), Skeleton::Current);
    assert_eq!(sorted_lines(&ns.cmd("nft list ruleset")), sorted_lines(&whole));
}

#[test]
fn tables_of_another_form_are_made_anew() {
    let ns = TestNs::new();
    let mut nft = ns.run(Nft::open).unwrap();
    assert_eq!(nft.skeleton().unwrap(), Skeleton::Absent);
    ns.cmd("nft add table ip buoy");
    ns.cmd("nft add set ip buoy links { type ifname ; }");
    assert_eq!(nft.skeleton().unwrap(), Skeleton::Different);
    assert_eq!(load(&ns, &mut nft), Loaded::Emptied);
    assert_eq!(nft.skeleton().unwrap(), Skeleton::Current);
    nft.apply(&add(all_kinds())).unwrap();
    assert_eq!(elements(&mut nft), all_kinds());
}

#[test]
fn deleting_the_tables_touches_no_other() {
    let (ns, mut nft) = node();
    ns.cmd("nft add table ip other");
    nft.delete_tables().unwrap();
    nft.delete_tables().unwrap();
    assert_eq!(ns.cmd("nft list tables"), "table ip other\n");
    assert_eq!(nft.skeleton().unwrap(), Skeleton::Absent);
    assert!(nft.dump().unwrap_err().is_not_found());
    assert!(nft.counters().unwrap().is_empty());
    assert!(matches!(nft.apply(&add(all_kinds())), Err(Error::Changed { .. })));
}

#[test]
fn every_kind_of_element_reads_back() {
    for open in [Nft::open, Nft::open_without_destroy] {
        let (ns, mut nft) = node();
        let mut other = ns.run(open).unwrap();
        other.apply(&add(all_kinds())).unwrap();
        other.apply(&add(all_kinds())).unwrap();
        assert_eq!(elements(&mut nft), all_kinds());
        for element in all_kinds() {
            other.apply(&del([element])).unwrap();
            assert!(!elements(&mut nft).contains(&element));
        }
        assert_eq!(elements(&mut nft), BTreeSet::new());
    }
}

#[test]
fn nft_reads_the_elements_as_meant() {
    let (ns, mut nft) = node();
    nft.apply(&add(all_kinds())).unwrap();
    for (set, words) in [
        ("set ip buoy links", "elements = { \"lo\" }"),
        ("map ip buoy fips", "172.16.1.3 : 10.65.0.10"),
        ("set ip buoy source_prefixes", "\"lo\" . 10.0.0.0/8"),
        ("set ip6 buoy sources", "\"lo\" . fd00:65::10"),
        ("set ip6 buoy ending", "2001:db8:1::3 . 2001:db8:1::3"),
    ] {
        let listed = ns.cmd(&format!("nft list {set}"));
        assert!(listed.contains(words), "{words} in {listed}");
    }
}

#[test]
fn an_address_changes_hands_in_one_transaction() {
    for open in [Nft::open, Nft::open_without_destroy] {
        let (ns, _nft) = node();
        let mut nft = ns.run(open).unwrap();
        nft.apply(&add([nat("172.16.1.3", "10.65.0.1")])).unwrap();
        let change = Transaction {
            add: [
                nat("172.16.1.3", "10.65.0.2"),
                Element::Ending(ip("172.16.1.3"), ip("10.65.0.1")),
            ]
            .into(),
            del: [nat("172.16.1.3", "10.65.0.1")].into(),
        };
        nft.apply(&change).unwrap();
        assert_eq!(elements(&mut nft), change.add);
    }
}

#[test]
fn a_belief_that_is_wrong_is_told_and_changes_nothing() {
    let (_ns, mut nft) = node();
    nft.apply(&add([nat("172.16.1.3", "10.65.0.1")])).unwrap();
    let wrong = add([Element::Link(IfIndex(9)), nat("172.16.1.3", "10.65.0.2")]);
    let refused = nft.apply(&wrong).unwrap_err();
    assert!(
        matches!(refused, Error::Changed { .. }) && refused.is_retryable(),
        "{refused}"
    );
    assert_eq!(elements(&mut nft), [nat("172.16.1.3", "10.65.0.1")].into());
}

#[test]
fn deleting_what_is_gone_does_not_fail_the_rest() {
    let (ns, mut nft) = node();
    let gone = all_kinds();
    let change = Transaction {
        add: [Element::Link(IfIndex(9))].into(),
        del: gone.clone(),
    };
    nft.apply(&change).unwrap();
    assert_eq!(elements(&mut nft), change.add);

    let mut older = ns.run(Nft::open_without_destroy).unwrap();
    assert!(
        matches!(older.apply(&del(gone)), Err(Error::Changed { .. })),
        "an old kernel cannot do that"
    );
}

#[test]
fn a_half_that_somebody_left_is_found_and_mended() {
    let (ns, mut nft) = node();
    let whole = nat("172.16.1.3", "10.65.0.1");
    nft.apply(&add([whole, Element::Link(IfIndex(1))])).unwrap();
    ns.cmd("nft delete element ip buoy floating { 172.16.1.3 }");
    ns.cmd("nft delete element ip6 buoy links { lo }");
    let dump = nft.dump().unwrap();
    assert_eq!(
        dump,
        Dump {
            elements: BTreeSet::new(),
            partial: [whole, Element::Link(IfIndex(1))].into()
        }
    );
    nft.apply(&add([whole])).unwrap();
    nft.apply(&del([Element::Link(IfIndex(1))])).unwrap();
    assert_eq!(elements(&mut nft), [whole].into());
}

#[test]
fn only_a_strangers_change_is_told() {
    let (ns, mut nft) = node();
    let own = OwnPorts::default();
    own.add(nft.port());
    let mut events = ns.run(|| TableEvents::subscribe(own.clone())).unwrap();
    nft.apply(&add(all_kinds())).unwrap();
    ns.run(|| nft::load(&mut nft, &own)).unwrap();
    ns.cmd("nft add table ip other");
    ns.cmd("nft add table inet buoy");
    assert_eq!(events.wait(Some(SHORT)).unwrap(), None);
    for change in [
        "nft add element ip buoy floating { 172.16.9.9 }",
        "nft delete table ip6 buoy",
    ] {
        ns.cmd(change);
        assert_eq!(
            events.wait(Some(SOON)).unwrap(),
            Some(TableEvent::Foreign),
            "{change}"
        );
    }
}

/// All in one transaction, then one of them moves a hundred times, and nobody takes it for a stranger's doing.
#[test]
fn ten_thousand_floating_ips() {
    let (ns, mut nft) = node();
    let own = OwnPorts::default();
    own.add(nft.port());
    let mut events = ns.run(|| TableEvents::subscribe(own)).unwrap();
    let floating = |index: u32| -> IpAddr { Ipv4Addr::from_bits(0xac10_0000 + index).into() };
    let internal = |index: u32| -> IpAddr { Ipv4Addr::from_bits(0x0a41_0000 + index).into() };
    let leads = |i: u32, to: u32| Element::Nat {
        floating: floating(i),
        internal: internal(to),
    };
    let all: BTreeSet<Element> = (0..10_000).map(|i| leads(i, i)).collect();

    nft.apply(&add(all.clone())).unwrap();
    assert_eq!(elements(&mut nft), all);

    let mut expected = all;
    for i in 0..100 {
        let change = Transaction {
            add: [leads(i, i + 1)].into(),
            del: [leads(i, i)].into(),
        };
        nft.apply(&change).unwrap();
        expected.remove(&leads(i, i));
        expected.insert(leads(i, i + 1));
    }
    assert_eq!(elements(&mut nft), expected);
    nft.apply(&del(expected)).unwrap();
    assert_eq!(elements(&mut nft), BTreeSet::new());
    assert_eq!(
        events.wait(Some(SHORT)).unwrap(),
        None,
        "our own changes overran the subscription"
    );
}

fn sorted_lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}
