use super::*;
use crate::desired::Hop;
use crate::fixtures::floating;
use crate::op::EndFlows;

fn name() -> IfName {
    IfName("cali1".to_owned())
}

fn host(text: &str) -> RouteKey {
    RouteKey::host(text.parse().unwrap(), 1024)
}

/// A link with a route to it, a member with a source, a translation and a pair that is ending.
fn observed() -> Observed {
    let mut observed = Observed {
        ruleset: true,
        ..Observed::default()
    };
    let alias = Some("buoy:c1/eth0".to_owned());
    observed.links.insert(
        name(),
        ObservedLink {
            index: IfIndex(4),
            alias,
            leaving: false,
            up: true,
            gateway_v6: false,
        },
    );
    observed
        .routes
        .insert(host("10.65.0.7"), ObservedHop::Link(IfIndex(4)));
    observed
        .routes
        .insert(host("10.65.0.8"), ObservedHop::Unreachable);
    let internal = "10.65.0.7".parse().unwrap();
    let add = vec![
        Element::Member(LinkRef::Name(name())),
        Element::Source(LinkRef::Index(IfIndex(4)), IpNet::from(internal)),
        Element::Nat(floating("172.16.1.3"), internal),
        Element::Ending(floating("172.16.1.3"), "10.65.0.6".parse().unwrap()),
    ];
    observed.absorb(
        &Op::Nft(NftTransaction { del: Vec::new(), add }),
        &Effect::Done,
        Mono::default(),
    );
    observed
}

#[test]
fn a_link_that_goes_takes_its_routes_along() {
    let mut observed = observed();
    observed.begin_leaving(&name());
    assert_eq!(observed.index_of(&name()), None);
    let again = observed.absorb(&Op::DelLink(name(), IfIndex(4)), &Effect::Done, Mono::default());
    assert_eq!(
        again,
        BTreeSet::from([RowKey::Link(name()), RowKey::Route(host("10.65.0.7"))])
    );
    assert!(!observed.links.contains_key(&name()));
    assert_eq!(
        observed.routes.keys().copied().collect::<Vec<_>>(),
        vec![host("10.65.0.8")]
    );
    assert!(
        observed.filters.contains_key(&IfIndex(4)),
        "the packet filter still knows the index"
    );
}

#[test]
fn news_of_an_earlier_link_does_not_take_the_present_one() {
    let mut observed = observed();
    observed.forget_link(&name(), IfIndex(3));
    assert_eq!(observed.index_of(&name()), Some(IfIndex(4)));
}

#[test]
fn a_new_link_is_known_by_the_index_that_it_got() {
    let mut observed = observed();
    observed.forget_link(&name(), IfIndex(4));
    let put = Op::PutRoute(host("10.65.0.9"), Hop::Link(name()));
    observed.absorb(&put, &Effect::Done, Mono::default());
    assert!(
        !observed.routes.contains_key(&host("10.65.0.9")),
        "there is no such link"
    );
    let attachment = crate::fixtures::pod("web-0", 7);
    let mut view = crate::fixtures::view();
    view.put_attachment(attachment.clone());
    let rows = crate::calc::rows(
        &view,
        &crate::subject::Subject::Endpoint(attachment.endpoint.clone()),
    );
    let link = rows.into_iter().find_map(|row| match row {
        crate::desired::Row::Link(_, link) => Some(link),
        _ => None,
    });
    observed.absorb(
        &Op::AddLink(name(), *link.unwrap()),
        &Effect::Link(IfIndex(9)),
        Mono::default(),
    );
    assert_eq!(observed.links[&name()].attachment(), Some(attachment.id));
    observed.absorb(&put, &Effect::Done, Mono::default());
    assert_eq!(
        observed.routes.get(&host("10.65.0.9")),
        Some(&ObservedHop::Link(IfIndex(9)))
    );
}

#[test]
fn a_ruleset_that_is_loaded_anew_keeps_its_elements_if_it_can() {
    let before = observed();
    let mut kept = Observed {
        ruleset: false,
        ..before.clone()
    };
    assert!(
        kept.absorb(&Op::LoadRuleset, &Effect::Done, Mono::default())
            .is_empty()
    );
    assert_eq!(kept, before);
    let again = kept.absorb(&Op::LoadRuleset, &Effect::Emptied, Mono::default());
    assert_eq!(
        again,
        BTreeSet::from([RowKey::Link(name()), RowKey::Nat(floating("172.16.1.3"))])
    );
    assert!(kept.ruleset && kept.filters.is_empty() && kept.nat.is_empty() && kept.ending.is_empty());
}

#[test]
fn a_filter_that_knows_nothing_is_none() {
    let mut observed = observed();
    let del = vec![
        Element::Member(LinkRef::Index(IfIndex(4))),
        Element::Source(LinkRef::Index(IfIndex(4)), "10.65.0.7/32".parse().unwrap()),
        Element::Member(LinkRef::Name(IfName("never made".to_owned()))),
    ];
    observed.absorb(
        &Op::Nft(NftTransaction { del, add: Vec::new() }),
        &Effect::Done,
        Mono::default(),
    );
    assert!(observed.filters.is_empty());
}

#[test]
fn the_first_pass_is_remembered_and_a_new_change_begins_anew() {
    let mut observed = observed();
    let pair = (floating("172.16.1.3"), "10.65.0.6".parse().unwrap());
    let end = |pass| {
        Op::EndFlows(EndFlows {
            floating: pair.0,
            keep: BTreeSet::new(),
            gone: Vec::new(),
            pass,
        })
    };
    let at = Mono(std::time::Duration::from_secs(5));
    observed.absorb(&end(Pass::First), &Effect::Done, at);
    assert_eq!(observed.ending.get(&pair), Some(&Ending::FirstPass(at)));
    observed.absorb(
        &end(Pass::Second),
        &Effect::Done,
        at.after(std::time::Duration::from_secs(1)),
    );
    assert_eq!(observed.ending.get(&pair), Some(&Ending::FirstPass(at)));
    let add = vec![Element::Ending(pair.0, pair.1)];
    observed.absorb(
        &Op::Nft(NftTransaction { del: Vec::new(), add }),
        &Effect::Done,
        at,
    );
    assert_eq!(observed.ending.get(&pair), Some(&Ending::Open));
}

#[test]
fn flows_that_are_drained_are_not_ended_with_the_others() {
    let mut observed = observed();
    let old: IpAddr = "10.65.0.6".parse().unwrap();
    let (pair, time) = ((floating("172.16.1.3"), old), std::time::Duration::from_secs(30));
    let begin = Mono(std::time::Duration::from_secs(5));
    let change = |del: &[Element], add: &[Element]| {
        Op::Nft(NftTransaction {
            del: del.to_vec(),
            add: add.to_vec(),
        })
    };
    let draining = Element::Draining(pair.0, old, time);
    observed.absorb(
        &change(&[], std::slice::from_ref(&draining)),
        &Effect::Done,
        begin,
    );
    assert_eq!(observed.ending[&pair], Ending::Draining(begin.after(time)));
    let end = |keep: &[IpAddr]| {
        Op::EndFlows(EndFlows {
            floating: pair.0,
            keep: keep.iter().copied().collect(),
            gone: Vec::new(),
            pass: Pass::First,
        })
    };
    observed.absorb(&end(&[old]), &Effect::Done, begin);
    assert_eq!(observed.ending[&pair], Ending::Draining(begin.after(time)));
    let mut given_up = observed.clone();
    given_up.absorb(&change(&[draining], &[]), &Effect::Done, begin);
    assert_eq!(given_up.ending[&pair], Ending::Open);
    observed.absorb(&end(&[]), &Effect::Done, begin.after(time));
    assert_eq!(observed.ending[&pair], Ending::FirstPass(begin.after(time)));
}

#[test]
fn a_strangers_link_is_none_of_ours() {
    let mut observed = observed();
    let alias = Some("uplink to rack 3".to_owned());
    observed.links.insert(
        IfName("eth0".to_owned()),
        ObservedLink {
            index: IfIndex(2),
            alias,
            leaving: false,
            up: true,
            gateway_v6: false,
        },
    );
    assert!(!observed.keys().contains(&RowKey::Link(IfName("eth0".to_owned()))));
    assert!(observed.keys().contains(&RowKey::Link(name())));
}

#[test]
fn the_routes_of_an_address_are_those_of_every_metric() {
    let mut observed = Observed::default();
    for (text, metric) in [
        ("172.16.1.2", 9),
        ("172.16.1.3", 0),
        ("172.16.1.3", u32::MAX),
        ("172.16.1.4", 1),
    ] {
        observed.routes.insert(
            RouteKey::host(text.parse().unwrap(), metric),
            ObservedHop::Unreachable,
        );
    }
    let metrics: Vec<u32> = observed
        .routes_of("172.16.1.3".parse().unwrap())
        .map(|key| key.metric)
        .collect();
    assert_eq!(metrics, [0, u32::MAX]);
}
