//! Subscriptions to links and routes.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use buoy_kernel::{
    events::{Event, Events},
    netlink::{OwnPorts, Protocol},
    route::{self, MAIN_TABLE, Route, Target},
};
use common::{TestNs, create, ifindex, ip, pod_link};

const SHORT: Option<Duration> = Some(Duration::from_millis(200));

/// All events that come within a short time.
fn drain(events: &mut Events) -> Vec<Event> {
    let mut all = Vec::new();
    while let Some(event) = events.wait(SHORT).unwrap() {
        all.push(event);
    }
    all
}

#[test]
fn links_come_and_go() {
    let (node, pod) = (TestNs::new(), TestNs::new());
    let mut events = node.run(|| Events::subscribe(OwnPorts::default())).unwrap();
    let made = create(&node, &pod, &pod_link("cali1", &["10.65.0.10"])).unwrap();
    let seen = drain(&mut events);
    let is_ours = |event: &Event| matches!(event, Event::Link(link) if link.ifindex == made.host_ifindex && link.alias.is_some() && link.up);
    assert!(seen.iter().any(is_ours), "{seen:?}");

    drop(pod);
    let gone = Event::LinkGone {
        ifindex: made.host_ifindex,
        name: "cali1".to_owned(),
    };
    let mut waited = 0;
    loop {
        match events.wait(Some(Duration::from_secs(1))).unwrap() {
            Some(event) if event == gone => break,
            _ => waited += 1,
        }
        assert!(waited < 20, "the link goes with its namespace");
    }
}

#[test]
fn only_a_strangers_change_of_our_routes_is_told() {
    let (node, other) = (TestNs::new(), TestNs::new());
    common::join(&node, "up0", &other, "up0");
    let link = ifindex(&node, "up0");
    let own = OwnPorts::default();
    let mut socket = node.socket(Protocol::Route);
    own.add(socket.port());
    let mut events = node.run(|| Events::subscribe(own)).unwrap();
    let route = |destination: &str| Route {
        destination: ip(destination).into(),
        table: MAIN_TABLE,
        metric: 7,
        target: Target::Link {
            ifindex: link,
            gateway: None,
        },
    };
    let ours = [route("172.16.1.3"), route("2001:db8:1::3")];
    for outcome in route::put(&mut socket, &ours).unwrap() {
        outcome.unwrap();
    }
    node.ip("route add 172.16.9.9/32 dev up0 proto static");
    assert_eq!(drain(&mut events), []);

    node.ip("route del 172.16.1.3/32 dev up0 metric 7 proto 177");
    node.ip("-6 route del 2001:db8:1::3/128 dev up0 metric 7 proto 177");
    node.ip("route add 172.16.1.4/32 dev up0 metric 7 proto 177 scope link");
    let expected = [
        Event::RouteGone(ours[0]),
        Event::RouteGone(ours[1]),
        Event::RoutePut(route("172.16.1.4")),
    ];
    assert_eq!(drain(&mut events), expected);
}
