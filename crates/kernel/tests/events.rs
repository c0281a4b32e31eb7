//! Subscriptions to links and routes.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests")]

mod common;

use buoy_kernel::{
    BIRD_PROTOCOL,
    events::{Event, Events},
    netlink::{OwnPorts, Protocol},
    route::{self, MAIN_TABLE, Route, Target},
};
use common::{SHORT, SOON, TestNs, create, ifindex, ip, pod_link};

/// All events of routes that come within a short time. A link may still tell that it is up.
fn of_routes(events: &mut Events) -> Vec<Event> {
    let mut all = Vec::new();
    while let Some(event) = events.wait(Some(SHORT)).unwrap() {
        if !matches!(event, Event::Link(_)) {
            all.push(event);
        }
    }
    all
}

/// Waits for an event like this.
fn wait_for(events: &mut Events, what: &str, is_it: impl Fn(&Event) -> bool) {
    let mut others = Vec::new();
    while let Some(event) = events.wait(Some(SOON)).unwrap() {
        if is_it(&event) {
            return;
        }
        others.push(event);
    }
    panic!("{what}; there came {others:?}");
}

#[test]
fn links_come_and_go() {
    let (node, pod) = (TestNs::new(), TestNs::new());
    let mut events = node.run(|| Events::subscribe(OwnPorts::default())).unwrap();
    let made = create(&node, &pod, &pod_link("cali1", &["10.65.0.10"])).unwrap();
    let is_ours = |event: &Event| matches!(event, Event::Link(link) if link.ifindex == made.host_ifindex && link.alias.is_some() && link.up);
    wait_for(&mut events, "the link comes", is_ours);

    drop(pod);
    let gone = Event::LinkGone {
        ifindex: made.host_ifindex,
        name: "cali1".to_owned(),
    };
    wait_for(&mut events, "the link goes with its namespace", |event| {
        *event == gone
    });
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
    assert_eq!(of_routes(&mut events), []);

    node.ip("route del 172.16.1.3/32 dev up0 metric 7 proto 177");
    node.ip("-6 route del 2001:db8:1::3/128 dev up0 metric 7 proto 177");
    node.ip("route add 172.16.1.4/32 dev up0 metric 7 proto 177 scope link");
    let expected = [
        Event::RouteGone(ours[0]),
        Event::RouteGone(ours[1]),
        Event::RoutePut(route("172.16.1.4")),
    ];
    assert_eq!(of_routes(&mut events), expected);
}

#[test]
fn what_the_routing_daemon_does_is_told_and_its_routes_can_be_listed_and_deleted() {
    let (node, other) = (TestNs::new(), TestNs::new());
    common::join(&node, "up0", &other, "up0");
    node.ip("address add 192.0.2.1/24 dev up0");
    node.ip("address add 2001:db8::1/64 dev up0 nodad");
    let mut events = node.run(|| Events::subscribe(OwnPorts::default())).unwrap();
    let route = |destination: &str, gateway: &str| Route {
        destination: ip(destination).into(),
        table: MAIN_TABLE,
        metric: 32,
        target: Target::Link {
            ifindex: ifindex(&node, "up0"),
            gateway: Some(ip(gateway)),
        },
    };
    let daemons = [route("172.16.1.3", "192.0.2.2"), route("fd16::3", "2001:db8::2")];
    node.ip("route add 172.16.1.3 via 192.0.2.2 metric 32 proto bird");
    node.ip("-6 route add fd16::3 via 2001:db8::2 metric 32 proto bird");
    node.ip("route add 172.16.1.4 via 192.0.2.2 metric 32 proto static");
    assert_eq!(of_routes(&mut events), daemons.map(Event::DaemonPut));

    let mut socket = node.socket(Protocol::Route);
    assert_eq!(route::list_of(&mut socket, BIRD_PROTOCOL).unwrap(), daemons);
    assert_eq!(route::list(&mut socket).unwrap(), []);
    for outcome in route::del_of(&mut socket, BIRD_PROTOCOL, &daemons).unwrap() {
        outcome.unwrap();
    }
    assert_eq!(of_routes(&mut events), daemons.map(Event::DaemonGone));
    assert!(
        node.ip("route show proto static").contains("172.16.1.4"),
        "a stranger's stays"
    );
}
