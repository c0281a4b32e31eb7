//! What the ruleset does to packets: client — node — workloads.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    thread,
};

use buoy_kernel::{
    conntrack::{self, Leads, Selector},
    netlink::Protocol,
    nft::{Element, Transaction},
};
use common::{
    SHORT, TestNs, eventually, hears, ip, listener,
    raw::{Raw, first_of},
    router::{CLIENT, FLOATING, NODE, Router, any, at},
    udp,
};

/// Sends a datagram, which must be answered: what the other side saw as its sender, and the sender as the answer's.
fn exchange(from: &UdpSocket, to: &str, server: &UdpSocket) -> (SocketAddr, SocketAddr) {
    let mut buffer = [0; 64];
    from.send_to(b"ahoy", to).expect("send");
    let (length, sender) = server
        .recv_from(&mut buffer)
        .expect("the first datagram must arrive");
    server.send_to(&buffer[..length], sender).expect("answer");
    let (_, answerer) = from.recv_from(&mut buffer).expect("the answer must come");
    (sender, answerer)
}

#[test]
fn a_client_reaches_the_workload_and_is_seen_as_itself() {
    let mut router = Router::new();
    let pod = router.workload(10);
    router.float(&pod);
    for family in [0, 1] {
        let server = udp(&pod.ns, &any(family, 7000));
        let client = udp(&router.client, &any(family, 0));
        let (sender, answerer) = exchange(&client, &at(FLOATING[family], 7000), &server);
        assert_eq!(
            sender.ip(),
            ip(CLIENT[family]),
            "the workload sees the client's own address"
        );
        assert_eq!(answerer.ip(), ip(FLOATING[family]));
        assert!(router.client.pings(FLOATING[family]));
    }
    assert_eq!(
        (router.counted("spoofed"), router.counted("untranslated")),
        (0, 0)
    );
}

#[test]
fn tcp_passes() {
    let mut router = Router::new();
    let pod = router.workload(10);
    router.float(&pod);
    for family in [0, 1] {
        let listener = listener(&pod.ns, &any(family, 80));
        let echo = thread::spawn(move || {
            let (mut stream, peer) = listener.accept().unwrap();
            stream.write_all(b"ahoy").unwrap();
            peer.ip()
        });
        let mut stream = router
            .client
            .run(|| TcpStream::connect(at(FLOATING[family], 80)))
            .unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(
            (said.as_str(), echo.join().unwrap()),
            ("ahoy", ip(CLIENT[family]))
        );
    }
}

#[test]
fn protocols_that_no_port_belongs_to_pass() {
    let mut router = Router::new();
    let pod = router.workload(10);
    router.float(&pod);
    // 253 is for experiments; 47 is GRE; 132 is SCTP.
    for protocol in [253, 47, 132] {
        let receiver = Raw::open(&pod.ns, protocol);
        Raw::open(&router.client, protocol).send(FLOATING[0], &first_of(protocol));
        let packet = receiver
            .receive()
            .unwrap_or_else(|| panic!("protocol {protocol} did not arrive"));
        assert_eq!(
            packet[16..20],
            [10, 65, 0, 10],
            "protocol {protocol} is translated"
        );
        assert_eq!(
            packet[12..16],
            [192, 0, 2, 2],
            "protocol {protocol} comes from the client"
        );
    }
}

#[test]
fn a_workload_calls_its_own_floating_ip() {
    let mut router = Router::new();
    let pod = router.workload(10);
    router.float(&pod);
    for family in [0, 1] {
        let server = udp(&pod.ns, &any(family, 7000));
        let client = udp(&pod.ns, &any(family, 0));
        let (sender, answerer) = exchange(&client, &at(FLOATING[family], 7000), &server);
        assert_eq!(
            sender.ip(),
            ip(FLOATING[family]),
            "it sees the address that it called"
        );
        assert_eq!(answerer.ip(), ip(FLOATING[family]));
        assert!(pod.ns.pings(FLOATING[family]));
    }
    assert_eq!(
        (router.counted("spoofed"), router.counted("untranslated")),
        (0, 0)
    );
}

#[test]
fn a_neighbour_is_seen_as_itself() {
    let mut router = Router::new();
    let (pod, neighbour) = (router.workload(10), router.workload(11));
    router.float(&pod);
    for family in [0, 1] {
        let server = udp(&pod.ns, &any(family, 7000));
        let client = udp(&neighbour.ns, &any(family, 0));
        let (sender, answerer) = exchange(&client, &at(FLOATING[family], 7000), &server);
        assert_eq!(sender.ip(), ip(&neighbour.addresses[family]));
        assert_eq!(answerer.ip(), ip(FLOATING[family]));
    }
}

#[test]
fn the_node_itself_reaches_it() {
    let mut router = Router::new();
    let pod = router.workload(10);
    router.float(&pod);
    for family in [0, 1] {
        let server = udp(&pod.ns, &any(family, 7000));
        let client = udp(&router.node, &any(family, 0));
        let (sender, answerer) = exchange(&client, &at(FLOATING[family], 7000), &server);
        assert_eq!(sender.ip(), ip(NODE[family]));
        assert_eq!(answerer.ip(), ip(FLOATING[family]));
        assert!(router.node.pings(FLOATING[family]));
    }
}

#[test]
fn without_a_route_to_a_workload_nothing_is_translated() {
    let mut router = Router::new();
    let pod = router.workload(10);
    router.float(&pod);
    // A newer owner elsewhere: a better route that leads back to the client's side.
    router
        .node
        .ip(&format!("route add {} via {} metric 5", FLOATING[0], CLIENT[0]));
    router.node.ip(&format!(
        "-6 route add {} via {} metric 5",
        FLOATING[1], CLIENT[1]
    ));
    for family in [0, 1] {
        router.client.address(FLOATING[family], "lo");
        let elsewhere = udp(&router.client, &at(FLOATING[family], 7000));
        elsewhere.set_read_timeout(Some(SHORT)).unwrap();
        let here = udp(&pod.ns, &any(family, 7000));
        for sender in [&router.node, &pod.ns] {
            let sender = udp(sender, &any(family, 0));
            let port = sender.local_addr().unwrap().port();
            // A first datagram may be lost while neighbours learn of each other.
            eventually("it is forwarded to the newer owner", || {
                sender.send_to(b"ahoy", at(FLOATING[family], 7000)).unwrap();
                let received = elsewhere.recv_from(&mut [0; 64]);
                received.is_ok_and(|(_, from)| from.port() == port)
            });
        }
        assert!(!hears(&here), "nothing may reach the old owner");
    }
}

#[test]
fn a_flow_that_began_untranslated_is_dropped_and_counted() {
    let mut router = Router::new();
    let pod = router.workload(10);
    router.float(&pod);
    let translations = router.nft.dump().unwrap().elements;
    let translations: Vec<Element> = translations
        .into_iter()
        .filter(|element| matches!(element, Element::Nat { .. }))
        .collect();
    let remove = Transaction {
        del: translations.iter().copied().collect(),
        ..Transaction::default()
    };
    let mut tracked = router.node.socket(Protocol::Netfilter);
    for (family, floating) in FLOATING.into_iter().enumerate() {
        router.nft.apply(&remove).unwrap();
        let client = udp(&router.client, &any(family, 0));
        let target = at(floating, 7000);
        // The workload's link swallows it: nobody there has this address. But the flow is tracked now.
        client.send_to(b"ahoy", &target).unwrap();
        let flow = Selector {
            called: ip(floating),
            leads: Leads::Anywhere,
        };
        eventually("the flow is tracked", || {
            conntrack::find(&mut tracked, std::slice::from_ref(&flow))
                .unwrap()
                .len()
                == 1
        });
        router.add(translations.iter().copied());
        let before = router.counted("untranslated");
        client.send_to(b"ahoy", &target).unwrap();
        router.counts("untranslated", before + 1);
    }
}

#[test]
fn a_foreign_source_is_dropped_and_counted() {
    let mut router = Router::new();
    let (pod, other) = (router.workload(10), router.workload(11));
    router.float(&other);
    let stolen = [
        other.addresses[0].as_str(),
        FLOATING[0],
        "203.0.113.9",
        other.addresses[1].as_str(),
        FLOATING[1],
    ];
    for (sent, source) in stolen.iter().enumerate() {
        pod.ns.address(source, "lo");
        let family = usize::from(source.contains(':'));
        let server = udp(&router.client, &any(family, 7000));
        let client = udp(&pod.ns, &at(source, 0));
        client.send_to(b"ahoy", at(CLIENT[family], 7000)).unwrap();
        router.counts("spoofed", sent as u64 + 1);
        assert!(!hears(&server), "{source} must not get out");
    }
    let server = udp(&router.client, &any(0, 7000));
    let honest = udp(&pod.ns, &any(0, 0));
    // Its own address gets out.
    exchange(&honest, &at(CLIENT[0], 7000), &server);
}

#[test]
fn a_source_prefix_is_allowed_on_its_link_only() {
    let mut router = Router::new();
    let (pod, other) = (router.workload(10), router.workload(11));
    // Strict reverse path checks would drop these: the prefix is not routed to the link.
    router.node.cmd("sysctl -q -w net.ipv4.conf.all.rp_filter=0");
    let allowed = ["203.0.113.0/24", "2001:db8:9::/48"].map(|text| text.parse().unwrap());
    router.add(allowed.map(|prefix| Element::SourcePrefix(pod.link.host_ifindex, prefix)));
    for (ns, passes) in [(&pod.ns, true), (&other.ns, false)] {
        for (family, source) in ["203.0.113.9", "2001:db8:9::9"].into_iter().enumerate() {
            ns.address(source, "lo");
            let server = udp(&router.client, &any(family, 7000));
            let client = udp(ns, &at(source, 0));
            client.send_to(b"ahoy", at(CLIENT[family], 7000)).unwrap();
            let heard = if passes {
                server.recv_from(&mut [0; 64]).is_ok()
            } else {
                hears(&server)
            };
            assert_eq!(heard, passes, "{source}");
        }
    }
}

#[test]
fn neighbour_discovery_of_a_workload_passes_the_source_check() {
    let mut router = Router::new();
    let pod = router.workload(10);
    pod.ns.ip("-6 neigh flush dev eth0 nud all");
    assert!(
        pod.ns.pings(CLIENT[1]),
        "the workload finds its gateway by asking"
    );
    router.node.ip("-6 neigh flush dev cali10");
    assert!(
        router.client.pings(&pod.addresses[1]),
        "the node finds the workload by asking"
    );
    assert_eq!(router.counted("spoofed"), 0);
}

#[test]
fn namespaces_of_a_test_are_distinct() {
    assert_ne!(TestNs::new().netns.id(), TestNs::new().netns.id());
}
