//! Ending flows: finding them, resetting sockets, deleting entries.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
};

use buoy_kernel::{
    conntrack::{self, Flow, Leads, Selector},
    netlink::{Protocol, Socket},
    sockdiag::{self, Connection},
};
use common::{
    SOON, TestNs, hears, ip, listener,
    raw::{Raw, first_of},
    router::{CLIENT, FLOATING, Router, any, at},
    udp,
};

fn called(family: usize, leads: Leads) -> Selector {
    Selector {
        called: ip(FLOATING[family]),
        leads,
    }
}

/// A TCP connection from the client to an address of the workload, and the workload's end of it.
fn connect(router: &Router, listener: &TcpListener, to: &str) -> (TcpStream, TcpStream) {
    let port = listener.local_addr().expect("a port").port();
    let client = router
        .client
        .run(|| TcpStream::connect(at(to, port)))
        .expect("connect");
    client.set_read_timeout(Some(SOON)).expect("set a timeout");
    (client, listener.accept().expect("accept").0)
}

/// Sends one datagram to a floating IP from a port that stays.
fn poke(client: &UdpSocket, family: usize) {
    client.send_to(b"ahoy", at(FLOATING[family], 7000)).expect("send");
}

fn find(socket: &mut Socket, selectors: &[Selector]) -> Vec<Flow> {
    conntrack::find(socket, selectors).expect("list flows")
}

#[test]
fn flows_are_found_by_where_they_lead() {
    let mut router = Router::new();
    let pod = router.workload(10);
    router.float(&pod);
    let mut tracked = router.node.socket(Protocol::Netfilter);
    for family in [0, 1] {
        let internal = ip(&pod.addresses[family]);
        let client = udp(&router.client, &any(family, 0));
        poke(&client, family);
        client.send_to(b"ahoy", at(&pod.addresses[family], 7000)).unwrap();
        assert!(router.client.pings(FLOATING[family]));

        let flows = find(&mut tracked, &[called(family, Leads::Anywhere)]);
        let protocols: BTreeSet<u8> = flows.iter().map(|flow| flow.protocol).collect();
        assert_eq!(protocols, [17, [1, 58][family]].into(), "{flows:?}");
        for flow in &flows {
            assert_eq!(flow.original.source, ip(CLIENT[family]));
            assert_eq!(
                (flow.original.destination, flow.reply.source),
                (ip(FLOATING[family]), internal)
            );
        }
        let udp = flows.iter().find(|flow| flow.protocol == 17).unwrap();
        assert_eq!(udp.original.source_port, client.local_addr().unwrap().port());
        assert_eq!(udp.original.destination_port, 7000);

        assert_eq!(
            find(&mut tracked, &[called(family, Leads::To(internal))]).len(),
            2
        );
        assert_eq!(
            find(&mut tracked, &[called(family, Leads::NotTo([internal].into()))]),
            []
        );
        assert_eq!(
            find(
                &mut tracked,
                &[called(family, Leads::NotTo([ip("10.65.0.99")].into()))]
            )
            .len(),
            2
        );
        assert_eq!(
            find(&mut tracked, &[called(family, Leads::To(ip("10.65.0.99")))]),
            []
        );
    }
    assert_eq!(find(&mut tracked, &[]), []);
}

#[test]
fn every_protocol_is_ended_and_nothing_else() {
    let mut router = Router::new();
    let pod = router.workload(10);
    router.float(&pod);
    let mut tracked = router.node.socket(Protocol::Netfilter);
    for family in [0, 1] {
        let client = udp(&router.client, &any(family, 0));
        poke(&client, family);
        client.send_to(b"ahoy", at(&pod.addresses[family], 7000)).unwrap();
        assert!(router.client.pings(FLOATING[family]));
    }
    // These have no ports, or ports that are not UDP's.
    let others = [253, 47, 132];
    for protocol in others {
        Raw::open(&router.client, protocol).send(FLOATING[0], &first_of(protocol));
    }
    let both = [called(0, Leads::Anywhere), called(1, Leads::Anywhere)];
    let flows = find(&mut tracked, &both);
    let protocols: BTreeSet<u8> = flows.iter().map(|flow| flow.protocol).collect();
    assert_eq!(
        protocols,
        [17, 1, 58].into_iter().chain(others).collect(),
        "{flows:?}"
    );
    assert_eq!(flows.len(), 7, "{flows:?}");
    assert_eq!(conntrack::end(&mut tracked, &flows).unwrap(), 7);
    assert_eq!(conntrack::end(&mut tracked, &flows).unwrap(), 0, "they are gone");
    assert_eq!(find(&mut tracked, &both), []);
    let direct = [0, 1].map(|family| Selector {
        called: ip(&pod.addresses[family]),
        leads: Leads::Anywhere,
    });
    assert_eq!(
        find(&mut tracked, &direct).len(),
        2,
        "flows to the workload's own address stay"
    );
}

#[test]
fn a_sender_that_keeps_its_ports_reaches_the_new_owner() {
    for was_translated in [true, false] {
        let mut router = Router::new();
        let (old, new) = (router.workload(10), router.workload(11));
        let mut tracked = router.node.socket(Protocol::Netfilter);
        if was_translated {
            router.float(&old);
        } else {
            // Forwarded to a link where nobody has the address: tracked, but never translated.
            for floating in FLOATING {
                router
                    .node
                    .ip(&format!("route add {floating} dev cali10 metric 1000000001"));
            }
        }
        let clients = [0, 1].map(|family| udp(&router.client, &any(family, 0)));
        for (family, client) in clients.iter().enumerate() {
            poke(client, family);
        }
        if was_translated {
            router.move_floating(&old, &new);
        } else {
            router.float(&new);
        }
        for (family, client) in clients.iter().enumerate() {
            let server = udp(&new.ns, &any(family, 7000));
            poke(client, family);
            assert!(!hears(&server), "the flow holds on to the past");

            let past = if was_translated {
                ip(&old.addresses[family])
            } else {
                ip(FLOATING[family])
            };
            let to_past = [called(family, Leads::To(past))];
            let spared = [ip(&new.addresses[family])].into();
            let not_to_present = [called(family, Leads::NotTo(spared))];
            let flows = find(&mut tracked, &to_past);
            assert_eq!((flows.len(), &find(&mut tracked, &not_to_present)), (1, &flows));
            conntrack::end_called(&mut tracked, &to_past[0]).unwrap();
            assert_eq!(find(&mut tracked, &not_to_present), []);
            poke(client, family);
            assert!(
                server.recv_from(&mut [0; 64]).is_ok(),
                "the next packet reaches the new owner"
            );
            conntrack::end_called(&mut tracked, &to_past[0]).unwrap();
            assert_eq!(
                find(&mut tracked, &[called(family, Leads::Anywhere)]).len(),
                1,
                "the new flow stays"
            );
        }
    }
}

#[test]
fn a_client_that_only_reads_gets_its_reset() {
    let mut router = Router::new();
    let pod = router.workload(10);
    router.float(&pod);
    let mut tracked = router.node.socket(Protocol::Netfilter);
    let mut sockets = pod.ns.socket(Protocol::SockDiag);
    // The last one serves IPv4 by a socket of IPv6.
    for (family, bound) in [(0, any(0, 80)), (1, any(1, 81)), (0, any(1, 82))] {
        let listener = listener(&pod.ns, &bound);
        let (mut client, _server) = connect(&router, &listener, FLOATING[family]);
        let (_idle, _other) = connect(&router, &listener, FLOATING[family]);
        let internal = ip(&pod.addresses[family]);
        let all = sockdiag::connections_of(&mut sockets, internal).unwrap();
        assert!(all.len() >= 2, "{all:?}");
        let mine = client.local_addr().unwrap();
        let connections: Vec<_> = all
            .into_iter()
            .filter(|connection| connection.peer == mine)
            .collect();
        let flows = conntrack::of_connections(&mut tracked, &connections).unwrap();
        assert_eq!(conntrack::connections(&flows), connections);
        assert_eq!(flows[0].original.destination, ip(FLOATING[family]));
        assert_eq!(
            sockdiag::reset_tcp(&mut sockets, &connections).unwrap(),
            1,
            "{bound}"
        );
        assert_eq!(
            sockdiag::reset_tcp(&mut sockets, &connections).unwrap(),
            0,
            "it is gone"
        );
        conntrack::end(&mut tracked, &flows).unwrap();
        let ended = client.read(&mut [0; 1]).expect_err("the connection is reset");
        assert_eq!(ended.kind(), ErrorKind::ConnectionReset);
        connect(&router, &listener, FLOATING[family]);
    }
}

#[test]
fn only_what_was_called_by_the_floating_ip_is_reset() {
    let mut router = Router::new();
    let pod = router.workload(10);
    router.float(&pod);
    let mut tracked = router.node.socket(Protocol::Netfilter);
    let mut sockets = pod.ns.socket(Protocol::SockDiag);
    for family in [0, 1] {
        let listener = listener(&pod.ns, &any(family, 80));
        let internal = ip(&pod.addresses[family]);
        let (mut floating, _server) = connect(&router, &listener, FLOATING[family]);
        let (mut direct, mut direct_server) = connect(&router, &listener, &pod.addresses[family]);
        let poked = udp(&router.client, &any(family, 0));
        poke(&poked, family);

        let called_by = ip(FLOATING[family]);
        let resets = conntrack::end_with_resets(&mut tracked, &mut sockets, called_by, internal).unwrap();
        assert_eq!(resets, 1);
        assert_eq!(
            floating.read(&mut [0; 1]).unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
        direct_server.write_all(b"x").unwrap();
        assert_eq!(
            direct.read(&mut [0; 1]).unwrap(),
            1,
            "a connection to the workload's own address goes on"
        );
        assert_eq!(find(&mut tracked, &[called(family, Leads::To(internal))]), []);
    }
}

#[test]
fn a_listening_socket_is_never_destroyed() {
    let ns = TestNs::new();
    let listener = ns.run(|| TcpListener::bind("127.0.0.1:80")).unwrap();
    let gone = Connection {
        local: "127.0.0.1:80".parse().unwrap(),
        peer: "127.0.0.1:4711".parse().unwrap(),
    };
    let mut sockets = ns.socket(Protocol::SockDiag);
    assert_eq!(sockdiag::reset_tcp(&mut sockets, &[gone]).unwrap(), 0);
    ns.run(|| TcpStream::connect("127.0.0.1:80"))
        .expect("it still listens");
    drop(listener);
}

/// Twenty thousand strange flows, and one of ours.
#[test]
fn one_flow_is_found_among_many() {
    let mut router = Router::new();
    let pod = router.workload(10);
    router.float(&pod);
    let mut tracked = router.node.socket(Protocol::Netfilter);
    let client = udp(&router.client, &any(0, 0));
    poke(&client, 0);
    for port in 1..=20_000u16 {
        client.send_to(b"ahoy", at(&pod.addresses[0], port)).unwrap();
    }
    let ours = find(&mut tracked, &[called(0, Leads::Anywhere)]);
    assert_eq!(ours.len(), 1);
    // By many addresses at once, of which one has a flow.
    let many: Vec<Selector> = (0..1000u32)
        .map(|index| Selector {
            called: Ipv4Addr::from_bits(0xac10_0103 + index).into(),
            leads: Leads::Anywhere,
        })
        .collect();
    assert_eq!(find(&mut tracked, &many), ours);
    conntrack::end_called(&mut tracked, &called(0, Leads::To(ip("10.65.0.99")))).unwrap();
    assert_eq!(find(&mut tracked, &many), ours, "it leads elsewhere");
    conntrack::end_called(&mut tracked, &called(0, Leads::Anywhere)).unwrap();
    assert_eq!(find(&mut tracked, &many), []);
}
