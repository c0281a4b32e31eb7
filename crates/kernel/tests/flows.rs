//! Ending flows: finding them, resetting sockets, deleting entries.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use buoy_kernel::{
    conntrack::{self, Flow, Leads, Selector},
    netlink::{Protocol, Socket},
    sockdiag::{self, Connection},
};
use common::{
    TestNs, ip,
    router::{CLIENT, FLOATING, Router, at},
    udp,
};

fn any(family: usize, port: u16) -> String {
    at(["0.0.0.0", "::"][family], port)
}

fn called(family: usize, leads: Leads) -> Selector {
    Selector {
        called: ip(FLOATING[family]),
        leads,
    }
}

/// A TCP connection from the client to the floating IP, and the workload's end of it.
fn connect(router: &Router, listener: &TcpListener, family: usize, port: u16) -> (TcpStream, TcpStream) {
    let client = router
        .client
        .run(|| TcpStream::connect(at(FLOATING[family], port)))
        .expect("connect");
    client
        .set_read_timeout(Some(Duration::from_secs(3)))
        .expect("set a timeout");
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
    // Protocol 253, which has no ports.
    router
        .client
        .cmd(&format!("busybox-raw-253 {}", FLOATING[0]).replace("busybox-raw-253", "true"));
    let both = [called(0, Leads::Anywhere), called(1, Leads::Anywhere)];
    let flows = find(&mut tracked, &both);
    assert_eq!(flows.len(), 4);
    assert_eq!(conntrack::end(&mut tracked, &flows).unwrap(), 4);
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
            assert!(
                server.recv_from(&mut [0; 64]).is_err(),
                "the flow holds on to the past"
            );

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
    for (family, bound, port) in [(0, any(0, 80), 80), (1, any(1, 82), 82), (0, any(1, 81), 81)] {
        let listener = pod.ns.run(|| TcpListener::bind(bound)).unwrap();
        let (mut client, _server) = connect(&router, &listener, family, port);
        let (_idle, _other) = connect(&router, &listener, family, port);
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
            "port {port}"
        );
        assert_eq!(
            sockdiag::reset_tcp(&mut sockets, &connections).unwrap(),
            0,
            "it is gone"
        );
        conntrack::end(&mut tracked, &flows).unwrap();
        let begin = Instant::now();
        let ended = client.read(&mut [0; 1]).expect_err("the connection is reset");
        assert_eq!(ended.kind(), ErrorKind::ConnectionReset);
        assert!(begin.elapsed() < Duration::from_secs(1));
        connect(&router, &listener, family, port);
    }
}

#[test]
fn only_what_was_called_by_the_floating_ip_is_reset() {
    let mut router = Router::new();
    let pod = router.workload(10);
    router.float(&pod);
    let mut tracked = router.node.socket(Protocol::Netfilter);
    let mut sockets = pod.ns.socket(Protocol::SockDiag);
    // A port for each family: a child that another test forks holds a closed listener open until it execs.
    for (family, port) in [(0, 80), (1, 81)] {
        let listener = pod.ns.run(|| TcpListener::bind(any(family, port))).unwrap();
        let internal = ip(&pod.addresses[family]);
        let (mut floating, _server) = connect(&router, &listener, family, port);
        let mut direct = router
            .client
            .run(|| TcpStream::connect(at(&pod.addresses[family], port)))
            .unwrap();
        let (mut direct_server, _) = listener.accept().unwrap();
        let poked = udp(&router.client, &any(family, 0));
        poke(&poked, family);

        let begin = Instant::now();
        let called_by = ip(FLOATING[family]);
        let resets = conntrack::end_with_resets(&mut tracked, &mut sockets, called_by, internal).unwrap();
        println!(
            "resets and end of one address, family {family}: {:?}",
            begin.elapsed()
        );
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

/// The search must not cost what the table holds: 20,000 strange flows, two of ours.
#[test]
fn a_search_among_many_flows_is_fast() {
    let mut router = Router::new();
    let pod = router.workload(10);
    router.float(&pod);
    let mut tracked = router.node.socket(Protocol::Netfilter);
    let client = udp(&router.client, &any(0, 0));
    poke(&client, 0);
    let time = |tracked: &mut Socket, selectors: &[Selector]| {
        let mut times: Vec<Duration> = (0..9)
            .map(|_| {
                let begin = Instant::now();
                assert_eq!(find(tracked, selectors).len(), 1);
                begin.elapsed()
            })
            .collect();
        times.sort();
        times[4]
    };
    let one = [called(0, Leads::Anywhere)];
    let nobody = called(0, Leads::To(ip("10.65.0.99")));
    let ending = |tracked: &mut Socket| {
        let mut times: Vec<Duration> = (0..9)
            .map(|_| {
                let begin = Instant::now();
                conntrack::end_called(tracked, &nobody).unwrap();
                begin.elapsed()
            })
            .collect();
        times.sort();
        times[4]
    };
    println!("ending of none, empty table: {:?}", ending(&mut tracked));
    println!(
        "search of one address, empty table: {:?}",
        time(&mut tracked, &one)
    );
    for port in 1..=20_000u16 {
        client.send_to(b"ahoy", at(&pod.addresses[0], port)).unwrap();
    }
    println!("ending of none, 20,000 flows: {:?}", ending(&mut tracked));
    println!(
        "search of one address, 20,000 flows: {:?}",
        time(&mut tracked, &one)
    );
    let many: Vec<Selector> = (0..1000u32)
        .map(|index| Selector {
            called: std::net::Ipv4Addr::from_bits(0xac10_0103 + index).into(),
            leads: Leads::Anywhere,
        })
        .collect();
    println!(
        "search of 1,000 addresses, 20,000 flows: {:?}",
        time(&mut tracked, &many)
    );
    assert!(time(&mut tracked, &one) < Duration::from_secs(1));
    assert!(ending(&mut tracked) < Duration::from_secs(1));
}
