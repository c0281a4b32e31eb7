//! Workload links in real namespaces.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests")]

mod common;

use buoy_kernel::{
    Error, Mac,
    link::{self, Expected},
    netlink::Protocol,
};
use common::{TestNs, create, ip, pod_link};

#[test]
fn v4_link_answers_at_once() {
    let (node, pod) = (TestNs::new(), TestNs::new());
    let made = create(&node, &pod, &pod_link("cali1", &["10.65.0.10"])).unwrap();
    node.ip("route add 10.65.0.10 dev cali1 scope link");
    node.ip("addr add 10.0.0.1/32 dev lo");
    assert!(pod.pings("10.0.0.1"), "the workload must reach the node");
    assert!(
        node.pings("10.65.0.10"),
        "the first echo request must be answered"
    );
    assert_eq!((made.mtu, made.host_name.as_str()), (1450, "cali1"));
}

#[test]
fn v6_link_answers_at_once() {
    let (node, pod) = (TestNs::new(), TestNs::new());
    create(&node, &pod, &pod_link("cali1", &["fd00:65::10"])).unwrap();
    node.ip("-6 route add fd00:65::10 dev cali1");
    node.address("fd00:1::1/128", "lo");
    assert!(
        node.pings("fd00:65::10"),
        "the first echo request must be answered"
    );
    assert!(pod.pings("fd00:1::1"), "the workload must reach the node");
}

#[test]
fn a_link_that_was_set_down_is_raised_with_its_gateway() {
    let (node, pod) = (TestNs::new(), TestNs::new());
    let made = create(&node, &pod, &pod_link("cali1", &["10.65.0.10", "fd00:65::10"])).unwrap();
    node.address("10.0.0.1/32", "lo");
    node.address("fd00:1::1/128", "lo");
    let mut socket = node.socket(Protocol::Route);
    let mut raise = || link::raise_pod_link(&mut socket, "cali1", made.host_ifindex, true).unwrap();
    for down in [true, false] {
        if down {
            node.ip("link set cali1 down");
            let gateways = link::gateways_v6(&mut node.socket(Protocol::Route)).unwrap();
            assert!(gateways.is_empty(), "a link that is down keeps its addresses");
        }
        raise();
        node.ip("route replace 10.65.0.10 dev cali1 scope link");
        node.ip("-6 route replace fd00:65::10 dev cali1");
        let gateways = link::gateways_v6(&mut node.socket(Protocol::Route)).unwrap();
        assert_eq!(gateways, [made.host_ifindex].into());
        for (from, to) in [
            (&node, "10.65.0.10"),
            (&node, "fd00:65::10"),
            (&pod, "10.0.0.1"),
            (&pod, "fd00:1::1"),
        ] {
            assert!(from.pings(to), "{to} must be reached");
        }
    }
}

#[test]
fn link_is_as_calico_builds_it() {
    let (node, pod) = (TestNs::new(), TestNs::new());
    node.cmd("sysctl -q -w net.ipv4.ip_forward=1");
    let mut spec = pod_link("cali1", &["10.65.0.10", "fd00:65::10"]);
    spec.pod_mac = Some(Mac([0x02, 1, 2, 3, 4, 5]));
    let made = create(&node, &pod, &spec).unwrap();
    assert_eq!(Some(made.pod_mac), spec.pod_mac);

    let found = link::find_link(&mut node.socket(Protocol::Route), "cali1")
        .unwrap()
        .unwrap();
    assert_eq!(
        (found.ifindex, found.mac, found.mtu),
        (made.host_ifindex, Some(link::HOST_MAC), 1450)
    );
    assert_eq!(
        (found.alias.as_deref(), found.kind.as_deref()),
        (Some("buoy:cali1/eth0"), Some("veth"))
    );
    assert!(found.up && found.peer_netns.is_some());

    let inside = link::read_pod_link(&pod.netns, "eth0").unwrap().unwrap();
    for address in ["10.65.0.10/32", "fd00:65::10/128"] {
        assert!(
            inside.addresses.contains(&address.parse().unwrap()),
            "{address} in {inside:?}"
        );
    }
    let gateways = [
        ("169.254.1.1/32", None),
        ("0.0.0.0/0", Some("169.254.1.1")),
        ("::/0", Some("fe80::ecee:eeff:feee:eeee")),
    ];
    for (destination, gateway) in gateways {
        let route = (destination.parse().unwrap(), gateway.map(ip));
        assert!(inside.routes.contains(&route), "{route:?} in {:?}", inside.routes);
    }
    let host_settings = [
        ("ipv4/conf/cali1/route_localnet", "1"),
        ("ipv4/conf/cali1/proxy_arp", "1"),
        ("ipv4/conf/cali1/forwarding", "1"),
        ("ipv4/conf/cali1/send_redirects", "0"),
        ("ipv4/neigh/cali1/proxy_delay", "0"),
        ("ipv6/conf/cali1/accept_dad", "0"),
        ("ipv6/conf/cali1/disable_ipv6", "0"),
        ("ipv6/conf/cali1/proxy_ndp", "1"),
        ("ipv6/conf/cali1/forwarding", "1"),
        ("ipv6/conf/cali1/accept_ra", "0"),
    ];
    let pod_settings = [
        ("ipv6/conf/eth0/accept_dad", "0"),
        ("ipv6/conf/all/disable_ipv6", "0"),
        ("ipv6/conf/all/forwarding", "0"),
        ("ipv4/ip_forward", "0"),
    ];
    for (ns, settings) in [(&node, &host_settings[..]), (&pod, &pod_settings[..])] {
        for (key, value) in settings {
            let found = ns
                .run(|| buoy_kernel::sysctl::read(&format!("net/{key}")))
                .unwrap();
            assert_eq!(&found, value, "{key}");
        }
    }
}

#[test]
fn forwarding_is_as_asked_for() {
    let (node, pod) = (TestNs::new(), TestNs::new());
    let mut spec = pod_link("cali1", &["10.65.0.10", "fd00:65::10"]);
    spec.forwarding = true;
    create(&node, &pod, &spec).unwrap();
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        assert_eq!(pod.run(|| buoy_kernel::sysctl::read(key)).unwrap(), "1", "{key}");
    }
}

#[test]
fn a_taken_host_name_is_told_with_its_alias() {
    let (node, pod) = (TestNs::new(), TestNs::new());
    node.ip("link add cali1 type bridge");
    node.ip("link set cali1 alias somebody");
    let refused = create(&node, &pod, &pod_link("cali1", &["10.65.0.10"])).unwrap_err();
    let index = common::ifindex(&node, "cali1");
    assert!(refused.is_exists());
    match &refused {
        Error::LinkExists { ifindex, alias, .. } => {
            assert_eq!((*ifindex, alias.as_deref()), (index, Some("somebody")));
        }
        other => panic!("unexpected: {other}"),
    }
    assert!(
        link::read_pod_link(&pod.netns, "eth0").unwrap().is_none(),
        "nothing may be left inside"
    );
}

#[test]
fn a_taken_inner_name_leaves_nothing_on_the_host() {
    let (node, pod) = (TestNs::new(), TestNs::new());
    pod.ip("link add eth0 type bridge");
    let refused = create(&node, &pod, &pod_link("cali1", &["10.65.0.10"])).unwrap_err();
    assert!(
        matches!(&refused, Error::PodLinkExists { name } if name == "eth0"),
        "{refused}"
    );
    assert!(
        link::find_link(&mut node.socket(Protocol::Route), "cali1")
            .unwrap()
            .is_none()
    );
    let inside = link::read_pod_link(&pod.netns, "eth0").unwrap().unwrap();
    assert_eq!(
        inside.link.kind.as_deref(),
        Some("bridge"),
        "the stranger's interface stays"
    );
}

#[test]
fn a_failure_half_way_leaves_nothing_behind() {
    let (node, pod) = (TestNs::new(), TestNs::new());
    let before = (node.ip("-o addr"), pod.ip("-o addr"));
    let mut spec = pod_link("cali1", &["10.65.0.10", "10.65.0.10"]);
    let refused = create(&node, &pod, &spec).unwrap_err();
    assert!(
        refused.to_string().contains("10.65.0.10"),
        "the address is named: {refused}"
    );
    assert_eq!((node.ip("-o addr"), pod.ip("-o addr")), before);

    spec.addresses.pop();
    create(&node, &pod, &spec).expect("the same names can be used at once");
}

#[test]
fn the_hosts_own_namespace_is_refused() {
    let node = TestNs::new();
    let refused = create(&node, &node, &pod_link("cali1", &["10.65.0.10"])).unwrap_err();
    assert!(matches!(refused, Error::Invalid(_)), "{refused}");
}

#[test]
fn delete_means_one_link() {
    let (node, pod) = (TestNs::new(), TestNs::new());
    let made = create(&node, &pod, &pod_link("cali1", &["10.65.0.10"])).unwrap();
    let mut socket = node.socket(Protocol::Route);
    let other = Expected {
        alias: Some("buoy:other/eth0"),
        ..Expected::default()
    };
    assert!(matches!(
        link::delete_link(&mut socket, "cali1", other),
        Err(Error::LinkDiffers { .. })
    ));
    let same = Expected {
        ifindex: Some(made.host_ifindex),
        alias: Some("buoy:cali1/eth0"),
    };
    assert!(link::delete_link(&mut socket, "cali1", same).unwrap());
    assert!(
        !link::delete_link(&mut socket, "cali1", same).unwrap(),
        "a second deletion finds nothing"
    );
    assert!(link::read_pod_link(&pod.netns, "eth0").unwrap().is_none());
}

#[test]
fn delete_inside_takes_the_host_side_along() {
    let (node, pod) = (TestNs::new(), TestNs::new());
    create(&node, &pod, &pod_link("cali1", &["10.65.0.10"])).unwrap();
    assert!(link::delete_in_netns(&pod.netns, "eth0").unwrap());
    assert!(!link::delete_in_netns(&pod.netns, "eth0").unwrap());
    assert!(
        link::find_link(&mut node.socket(Protocol::Route), "cali1")
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_neighbour_entry_is_permanent_and_goes() {
    let (node, pod) = (TestNs::new(), TestNs::new());
    let made = create(&node, &pod, &pod_link("cali1", &["10.65.0.10", "fd00:65::10"])).unwrap();
    let mut socket = node.socket(Protocol::Route);
    for address in [ip("10.65.0.10"), ip("fd00:65::10")] {
        link::put_neighbour(&mut socket, made.host_ifindex, address, made.pod_mac).unwrap();
        link::put_neighbour(&mut socket, made.host_ifindex, address, made.pod_mac).unwrap();
    }
    let listed = node.ip("neigh show dev cali1 nud permanent");
    assert_eq!(listed.matches(&made.pod_mac.to_string()).count(), 2, "{listed}");
    for address in [ip("10.65.0.10"), ip("fd00:65::10")] {
        link::del_neighbour(&mut socket, made.host_ifindex, address).unwrap();
        link::del_neighbour(&mut socket, made.host_ifindex, address).unwrap();
    }
    assert_eq!(node.ip("neigh show dev cali1 nud permanent"), "");
}

#[test]
fn every_link_is_listed() {
    let (node, pods) = (TestNs::new(), [TestNs::new(), TestNs::new()]);
    for (index, pod) in pods.iter().enumerate() {
        create(&node, pod, &pod_link(&format!("cali{index}"), &["10.65.0.10"])).unwrap();
    }
    let names: Vec<String> = link::list_links(&mut node.socket(Protocol::Route))
        .unwrap()
        .into_iter()
        .map(|link| link.name)
        .collect();
    for name in ["lo", "cali0", "cali1"] {
        assert!(names.iter().any(|found| found == name), "{name} in {names:?}");
    }
}
