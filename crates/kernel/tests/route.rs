//! Routes in real namespaces.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests")]

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use buoy_kernel::{
    Error, IfIndex,
    netlink::{Protocol, Socket},
    route::{self, MAIN_TABLE, Route, Target},
};
use common::{TestNs, ifindex, ip, join};

/// A namespace with two links that are up.
fn node() -> (TestNs, TestNs, Socket, [IfIndex; 2]) {
    let (node, other) = (TestNs::new(), TestNs::new());
    join(&node, "up0", &other, "up0");
    join(&node, "up1", &other, "up1");
    node.ip("addr add 192.0.2.1/24 dev up0");
    node.ip("addr add 2001:db8::1/64 dev up0 nodad");
    let links = ["up0", "up1"].map(|name| ifindex(&node, name));
    let socket = node.socket(Protocol::Route);
    (node, other, socket, links)
}

fn to(destination: &str, metric: u32, ifindex: IfIndex) -> Route {
    let target = Target::Link {
        ifindex,
        gateway: None,
    };
    Route {
        destination: destination.parse().unwrap(),
        table: MAIN_TABLE,
        metric,
        target,
    }
}

fn put(socket: &mut Socket, routes: &[Route]) {
    for outcome in route::put(socket, routes).unwrap() {
        outcome.unwrap();
    }
}

fn del(socket: &mut Socket, routes: &[Route]) {
    for outcome in route::del(socket, routes).unwrap() {
        outcome.unwrap();
    }
}

fn sorted(mut routes: Vec<Route>) -> Vec<Route> {
    routes.sort();
    routes
}

#[test]
fn every_form_reads_back_as_it_was_put() {
    let (_node, _other, mut socket, [up0, _]) = node();
    let via = |destination: &str, metric, gateway| Route {
        target: Target::Link {
            ifindex: up0,
            gateway: Some(ip(gateway)),
        },
        ..to(destination, metric, up0)
    };
    let nowhere = |destination: &str| Route {
        metric: u32::MAX,
        target: Target::Unreachable,
        ..to(destination, 0, up0)
    };
    let routes = vec![
        to("10.65.0.10/32", 0, up0),
        to("10.65.0.11/32", 999_999_993, up0),
        via("10.66.0.0/26", 5, "192.0.2.9"),
        nowhere("172.16.1.3/32"),
        Route {
            table: 1000,
            ..to("10.65.0.12/32", 7, up0)
        },
        to("fd00:65::10/128", 1024, up0),
        via("fd00:66::/122", 5, "2001:db8::9"),
        nowhere("2001:db8:1::3/128"),
    ];
    put(&mut socket, &routes);
    put(&mut socket, &routes);
    assert_eq!(sorted(route::list(&mut socket).unwrap()), sorted(routes.clone()));
    del(&mut socket, &routes);
    del(&mut socket, &routes);
    assert_eq!(route::list(&mut socket).unwrap(), []);
}

#[test]
fn a_put_replaces_what_the_key_had() {
    let (_node, _other, mut socket, [up0, up1]) = node();
    for destination in ["172.16.1.3/32", "2001:db8:1::3/128"] {
        put(&mut socket, &[to(destination, 7, up0)]);
        put(&mut socket, &[to(destination, 7, up1), to(destination, 6, up0)]);
        let expected = sorted(vec![to(destination, 7, up1), to(destination, 6, up0)]);
        assert_eq!(sorted(route::list(&mut socket).unwrap()), expected);
        let nowhere = Route {
            target: Target::Unreachable,
            ..to(destination, 7, up0)
        };
        put(&mut socket, &[nowhere]);
        assert_eq!(
            sorted(route::list(&mut socket).unwrap()),
            sorted(vec![nowhere, to(destination, 6, up0)])
        );
        del(&mut socket, &expected);
    }
}

#[test]
fn metric_zero_does_not_mean_any() {
    let (_node, _other, mut socket, [up0, up1]) = node();
    let preferred = to("172.16.1.3/32", 999_999_999, up0);
    put(&mut socket, &[preferred]);
    del(&mut socket, &[to("172.16.1.3/32", 0, up1)]);
    assert_eq!(route::list(&mut socket).unwrap(), [preferred]);
}

#[test]
fn a_strangers_route_is_neither_replaced_nor_deleted_nor_listed() {
    let (node, _other, mut socket, [up0, up1]) = node();
    node.ip("route add 172.16.1.3/32 dev up0 metric 7 proto static");
    node.ip("-6 route add 2001:db8:1::3/128 dev up0 metric 7 proto static");
    let before = (node.ip("route"), node.ip("-6 route"));
    for destination in ["172.16.1.3/32", "2001:db8:1::3/128"] {
        let refused = route::put(&mut socket, &[to(destination, 7, up1)])
            .unwrap()
            .remove(0)
            .unwrap_err();
        assert!(
            refused.is_exists() && refused.to_string().contains(destination),
            "{refused}"
        );
        del(&mut socket, &[to(destination, 7, up0)]);
    }
    assert_eq!(route::list(&mut socket).unwrap(), []);
    assert_eq!((node.ip("route"), node.ip("-6 route")), before);
}

#[test]
fn one_bad_route_of_a_batch_fails_alone() {
    let (_node, _other, mut socket, [up0, _]) = node();
    let good = [to("10.65.0.10/32", 0, up0), to("10.65.0.12/32", 0, up0)];
    let batch = [good[0], to("10.65.0.11/32", 0, IfIndex(4711)), good[1]];
    let outcomes = route::put(&mut socket, &batch).unwrap();
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok());
    assert!(
        outcomes[1].as_ref().is_err_and(Error::is_not_found),
        "{:?}",
        outcomes[1]
    );
    assert_eq!(sorted(route::list(&mut socket).unwrap()), good);
}

#[test]
fn ipv6_metric_zero_is_refused() {
    let (_node, _other, mut socket, [up0, _]) = node();
    assert!(matches!(
        route::put(&mut socket, &[to("fd00::1/128", 0, up0)]),
        Err(Error::Invalid(_))
    ));
}

/// More than one batch holds, and one among them moves.
#[test]
fn ten_thousand_routes() {
    let (_node, _other, mut socket, [up0, up1]) = node();
    for v6 in [false, true] {
        let address = |index: u32| -> IpAddr {
            if v6 {
                Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) + (1 << 64) + u128::from(index)).into()
            } else {
                Ipv4Addr::from_bits(0xac10_0000 + index).into()
            }
        };
        let routes: Vec<Route> = (0..10_000)
            .map(|index| Route {
                destination: address(index).into(),
                ..to("::/0", 999_999_999, up0)
            })
            .collect();
        put(&mut socket, &routes);
        assert_eq!(sorted(route::list(&mut socket).unwrap()), sorted(routes.clone()));
        let moved = Route {
            target: Target::Link {
                ifindex: up1,
                gateway: None,
            },
            metric: 999_999_998,
            ..routes[77]
        };
        put(&mut socket, &[moved]);
        del(&mut socket, &[routes[77]]);
        del(&mut socket, &routes);
        assert_eq!(route::list(&mut socket).unwrap(), [moved]);
        del(&mut socket, &[moved]);
    }
}
