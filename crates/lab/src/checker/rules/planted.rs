//! A cluster in which all agrees, and faults planted in it one by one: each is found, and named.

use std::net::IpAddr;

use super::disagreements;
use crate::checker::facts::{BirdRoute, Facts, Flow, Kernel, LAST_RESORT, Node, Route, Router, Table};
use crate::checker::store;
use crate::cluster::Standing;

const LINK: &str = "cali1";
const ON_N1: &str = "10.65.1.1";
const ON_N2: &str = "10.65.2.1";
const F: &str = "172.16.1.3";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `web-0` on n1 owns the address, `web-1` on n2 stands by.
fn records() -> Vec<(String, String)> {
    let endpoint = |node: &str, pod: &str, own: &str| {
        (
            format!("/calico/resources/v3/projectcalico.org/workloadendpoints/shop/{node}-k8s-{pod}-eth0"),
            format!(
                r#"{{"metadata":{{"namespace":"shop"}},"spec":{{"node":"{node}","pod":"{pod}","endpoint":"eth0","containerID":"c-{pod}","interfaceName":"{LINK}","ipNetworks":["{own}/32"],"ipNATs":[{{"externalIP":"{F}","internalIP":"{own}"}}]}}}}"#
            ),
        )
    };
    let block = |cidr: &str, ordinal: usize, handle: &str| {
        let before = "null,".repeat(ordinal);
        (
            format!("/calico/ipam/v2/assignment/ipv4/block/{cidr}"),
            format!(
                r#"{{"cidr":"{cidr}","allocations":[{before}0],"attributes":[{{"handle_id":"{handle}"}}]}}"#
            ),
        )
    };
    let handle = |name: &str| {
        let path = format!("/calico/ipam/v2/handle/{name}");
        (path, r#"{"block":{"some":1}}"#.to_owned())
    };
    let candidate = |node: &str, pod: &str, own: &str| {
        format!(
            r#"{{"node":"{node}","workload":"{pod}","endpoint":"eth0","internalIP":"{own}","ready":true}}"#
        )
    };
    vec![
        (
            "/buoy/v1alpha1/floatingipbindings/172-16-1-3".to_owned(),
            format!(
                r#"{{"spec":{{"address":"{F}","namespace":"shop","epoch":7,"owner":{{"node":"n1","workload":"web-0","endpoint":"eth0","internalIP":"{ON_N1}","term":3}}}},"status":{{"candidates":[{},{}]}}}}"#,
                candidate("n1", "web-0", ON_N1),
                candidate("n2", "web-1", ON_N2)
            ),
        ),
        (
            "/buoy/v1alpha1/nodeleases/n1".to_owned(),
            r#"{"spec":{"holder":"h1","term":3,"renewed":"2026-01-01T00:00:00Z"}}"#.to_owned(),
        ),
        endpoint("n1", "web-0", ON_N1),
        endpoint("n2", "web-1", ON_N2),
        block("10.65.1.0/30", 1, "net.c-web-0"),
        block("10.65.2.0/30", 1, "net.c-web-1"),
        block("172.16.1.0/26", 3, "buoy-fip-172-16-1-3"),
        handle("net.c-web-0"),
        handle("net.c-web-1"),
        handle("buoy-fip-172-16-1-3"),
        (
            "/calico/resources/v3/projectcalico.org/ippools/floating".to_owned(),
            r#"{"spec":{"cidr":"172.16.1.0/24"}}"#.to_owned(),
        ),
    ]
}

fn link_route(to: &str, metric: u64) -> Route {
    Route {
        to: ip(to).into(),
        kind: "unicast".to_owned(),
        device: Some(LINK.to_owned()),
        gateway: None,
        metric,
        protocol: "177".to_owned(),
        dead: false,
    }
}

fn learnt(to: &str, gateway: &str) -> Route {
    Route {
        device: Some("eth0".to_owned()),
        gateway: Some(ip(gateway)),
        metric: 32,
        protocol: "bird".to_owned(),
        ..link_route(to, 0)
    }
}

fn bird(protocol: &str, gateway: Option<&str>) -> BirdRoute {
    BirdRoute {
        to: ip(F).into(),
        protocol: protocol.to_owned(),
        best: true,
        gateway: gateway.map(ip),
        device: Some("eth0".to_owned()),
    }
}

fn node(address: &str, own: &str, routes: Vec<Route>, learnt: BirdRoute) -> Node {
    let mut routes = routes;
    routes.push(link_route(own, 1024));
    Node {
        standing: Standing::Live,
        kernel: Kernel {
            addresses: [ip(address)].into(),
            up: ["eth0".to_owned(), LINK.to_owned()].into(),
            routes,
            links: [(Table::Ip, LINK.to_owned())].into(),
            ..Kernel::default()
        },
        bird: Some(vec![learnt]),
    }
}

/// All agrees here.
fn right() -> Facts {
    let pairs = records();
    let records = store::parse(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let owned = vec![link_route(F, 999_999_993)];
    let mut n1 = node("192.0.2.1", ON_N1, owned, bird("kernel1", None));
    n1.kernel.translated.insert(ip(F), ip(ON_N1));
    n1.kernel.floating.insert(ip(F));
    n1.kernel.flows.push(flow(ON_N1));
    let mut waiting = link_route(F, LAST_RESORT);
    waiting.kind = "unreachable".to_owned();
    waiting.device = None;
    let n2 = node(
        "192.0.2.2",
        ON_N2,
        vec![learnt(F, "192.0.2.1"), waiting],
        bird("n1_v4", Some("192.0.2.1")),
    );
    Facts {
        now: "2026-01-01T00:00:01Z".parse().unwrap(),
        records,
        nodes: [("n1".to_owned(), n1), ("n2".to_owned(), n2)].into(),
        router: Some(Router {
            routes: vec![learnt(F, "192.0.2.1")],
            bird: vec![bird("n1_v4", Some("192.0.2.1"))],
        }),
    }
}

fn flow(answers: &str) -> Flow {
    Flow {
        protocol: "udp".to_owned(),
        source: ip("198.51.100.10"),
        destination: ip(F),
        answers: ip(answers),
    }
}

fn kernel<'a>(facts: &'a mut Facts, node: &str) -> &'a mut Kernel {
    &mut facts.nodes.get_mut(node).unwrap().kernel
}

fn binding(facts: &mut Facts) -> &mut crate::checker::facts::Binding {
    &mut facts.records.bindings[0]
}

type Fault = (&'static str, fn(&mut Facts), &'static str);

/// What is planted, how, and what must be said.
const FAULTS: &[Fault] = &[
    (
        "no translation",
        |f| kernel(f, "n1").translated.clear(),
        "owned here and not translated",
    ),
    (
        "a wrong translation",
        |f| {
            kernel(f, "n1").translated.insert(ip(F), ip(ON_N2));
        },
        "translated to 10.65.2.1",
    ),
    (
        "not matched",
        |f| kernel(f, "n1").floating.clear(),
        "not in the set of floating IPs",
    ),
    (
        "the metric of an older epoch",
        |f| kernel(f, "n1").routes[0].metric += 1,
        "its route has metric 999999994",
    ),
    (
        "a better route on the owner's node",
        |f| kernel(f, "n1").routes.push(learnt(F, "192.0.2.2")),
        "another route is better than the owner's",
    ),
    (
        "a link that is down",
        |f| {
            kernel(f, "n1").up.remove(LINK);
        },
        "cali1 is not up",
    ),
    (
        "an unknown link",
        |f| kernel(f, "n1").links.clear(),
        "cali1 is not in the set of links",
    ),
    (
        "no route to the workload",
        |f| kernel(f, "n1").routes.truncate(1),
        "the route to 10.65.1.1 leads to nowhere",
    ),
    (
        "a flow to an earlier owner",
        |f| kernel(f, "n1").flows.push(flow("10.65.1.9")),
        "a flow from 198.51.100.10 (udp) leads to 10.65.1.9",
    ),
    (
        "an untranslated flow",
        |f| kernel(f, "n1").flows.push(flow(F)),
        "a flow from 198.51.100.10 (udp) leads to nobody",
    ),
    (
        "a flow that another node still translates",
        |f| kernel(f, "n2").flows.push(flow(ON_N2)),
        "to 172.16.1.3 leads to 10.65.2.1",
    ),
    (
        "a second owner",
        |f| kernel(f, "n2").routes.push(link_route(F, 31)),
        "n2: 172.16.1.3 leads to the workload behind cali1, its owner is web-0 on n1",
    ),
    (
        "a translation elsewhere",
        |f| {
            kernel(f, "n2").translated.insert(ip(F), ip(ON_N2));
        },
        "n2: 172.16.1.3 is translated and not owned here",
    ),
    (
        "a route of an earlier owner",
        |f| kernel(f, "n2").routes.push(link_route(F, 999_999_994)),
        "n2: a route of an address that is not owned here",
    ),
    (
        "an address that nobody asks for is unreachable",
        |f| kernel(f, "n2").routes.push(link_route("172.16.1.9", LAST_RESORT)),
        "nobody here asks for 172.16.1.9",
    ),
    (
        "packets bounce where somebody waits",
        |f| kernel(f, "n2").routes.retain(|route| route.metric != LAST_RESORT),
        "n2: somebody here waits for 172.16.1.3, and no route says that it is unreachable",
    ),
    (
        "the way to an owner is hidden where there is no BIRD",
        |f| f.nodes.get_mut("n2").unwrap().bird = None,
        "n2: 172.16.1.3 is unreachable here, which hides the way to its owner",
    ),
    (
        "flows are being ended for ever",
        |f| {
            kernel(f, "n1").ending.insert((ip(F), ip(ON_N2)));
        },
        "still being ended",
    ),
    (
        "the router follows somebody else",
        |f| f.router.as_mut().unwrap().routes[0] = learnt(F, "192.0.2.2"),
        "the router sends 172.16.1.3 to 192.0.2.2",
    ),
    (
        "the router knows nothing",
        |f| f.router.as_mut().unwrap().routes.clear(),
        "the router has no route",
    ),
    (
        "the router's BIRD prefers another",
        |f| f.router.as_mut().unwrap().bird[0] = bird("n2_v4", Some("192.0.2.2")),
        "the router's BIRD prefers 192.0.2.2",
    ),
    (
        "the router's kernel does not follow its BIRD",
        |f| f.router.as_mut().unwrap().bird[0] = bird("n2_v4", Some("192.0.2.2")),
        "the router's kernel sends 172.16.1.3/32 to 192.0.2.1, its BIRD has learnt 192.0.2.2",
    ),
    (
        "the router's kernel has nothing of its BIRD",
        |f| f.router.as_mut().unwrap().routes.clear(),
        "the router's BIRD has learnt 172.16.1.3/32, and its kernel has no route",
    ),
    (
        "the router's kernel has what its BIRD forgot",
        |f| f.router.as_mut().unwrap().bird.clear(),
        "the router's kernel has a route to 172.16.1.3/32 that its BIRD has not learnt",
    ),
    (
        "the router has an address of nobody",
        |f| {
            f.router
                .as_mut()
                .unwrap()
                .routes
                .push(learnt("172.16.1.9", "192.0.2.1"))
        },
        "address of nobody: 172.16.1.9/32",
    ),
    (
        "a node has learnt nothing",
        |f| {
            kernel(f, "n2").routes.remove(0);
        },
        "n2: 172.16.1.3 goes by unreachable 172.16.1.3/32, not to n1",
    ),
    (
        "a node's BIRD prefers its own",
        |f| f.nodes.get_mut("n2").unwrap().bird = Some(vec![bird("kernel1", None)]),
        "n2: BIRD prefers kernel1",
    ),
    (
        "given twice",
        |f| {
            let block = f.records.blocks[0].clone();
            f.records.blocks.push(block);
        },
        "10.65.1.1 is given twice",
    ),
    (
        "overlapping blocks",
        |f| f.records.blocks[0].cidr = "10.65.0.0/16".parse().unwrap(),
        "blocks overlap",
    ),
    (
        "not reserved",
        |f| f.records.blocks.retain(|block| !block.cidr.contains(&ip(F))),
        "172.16.1.3 is not reserved",
    ),
    (
        "reserved for nothing",
        |f| f.records.blocks[2].given[0].0 = ip("172.16.1.4"),
        "172.16.1.4 is reserved by 'buoy-fip-172-16-1-3' and has no binding",
    ),
    (
        "a miscounted handle",
        |f| {
            f.records.handles.insert("net.x".into(), 1);
        },
        "handle net.x counts 1",
    ),
    (
        "an address of nobody",
        |f| f.records.blocks[0].given[0].1 = "net.gone".into(),
        "10.65.1.1 of web-0 is given to 'net.gone'",
    ),
    (
        "a candidate that does not ask",
        |f| f.records.endpoints[1].asks.clear(),
        "candidate web-1 on n2 does not ask for it",
    ),
    (
        "somebody who asks and is no candidate",
        |f| {
            binding(f).candidates.pop();
        },
        "web-1 asks for it and is no candidate",
    ),
    (
        "a candidate of another namespace",
        |f| f.records.endpoints[1].namespace = "bank".into(),
        "candidate web-1 on n2 is of another namespace",
    ),
    (
        "an owner that is no candidate",
        |f| {
            binding(f).candidates.remove(0);
        },
        "is no candidate",
    ),
    (
        "an owner without a workload",
        |f| {
            f.records.endpoints.remove(0);
        },
        "its owner web-0 has no workload endpoint",
    ),
    (
        "nobody owns it",
        |f| binding(f).owner = None,
        "nobody owns it, and web-0 on n1 is ready",
    ),
    (
        "a name of another address",
        |f| binding(f).name = "172-16-1-4".into(),
        "another's name",
    ),
    (
        "an owner of an older term",
        |f| f.records.leases.get_mut("n1").unwrap().term = 4,
        "lost and not taken back",
    ),
    (
        "an owner of a term that never was",
        |f| f.records.leases.get_mut("n1").unwrap().term = 2,
        "its owner claims term 3",
    ),
    (
        "no lease",
        |f| f.records.leases.clear(),
        "n1 owns it without a lease",
    ),
    (
        "nobody's lease",
        |f| f.records.leases.get_mut("n1").unwrap().holder = None,
        "nobody holds its lease",
    ),
    (
        "a lease for nothing",
        |f| {
            let lease = f.records.leases["n1"].clone();
            f.records.leases.insert("n2".into(), lease);
            f.now = "2026-01-01T00:01:00Z".parse().unwrap();
        },
        "n2 owns nothing and holds its lease",
    ),
    (
        "a record that cannot be read",
        |f| f.records.bad.push("/x: no JSON".into()),
        "a record cannot be read: /x",
    ),
];

#[test]
fn where_all_agrees_nothing_is_said() {
    assert_eq!(disagreements(&right()), Vec::<String>::new());
}

/// On one node, too: a name is one of its namespace.
#[test]
fn somebody_of_the_same_name_in_another_namespace_is_another() {
    let mut facts = right();
    let mut other = facts.records.endpoints[0].clone();
    other.namespace = "other".to_owned();
    other.link = "cali9".to_owned();
    other.addresses.clear();
    other.asks.clear();
    facts.records.endpoints.insert(0, other);
    assert_eq!(disagreements(&facts), Vec::<String>::new());
}

#[test]
fn flows_that_drain_may_go_on() {
    let mut facts = right();
    let n1 = kernel(&mut facts, "n1");
    n1.flows.push(flow("10.65.1.9"));
    n1.draining.insert((ip(F), ip("10.65.1.9")));
    assert_eq!(disagreements(&facts), Vec::<String>::new());
}

#[test]
fn without_bird_nothing_is_unreachable_that_lives_elsewhere() {
    let mut facts = right();
    kernel(&mut facts, "n2")
        .routes
        .retain(|route| route.metric != LAST_RESORT);
    facts.nodes.get_mut("n2").unwrap().bird = None;
    assert_eq!(disagreements(&facts), Vec::<String>::new());
}

#[test]
fn every_fault_is_found() {
    for (what, plant, expected) in FAULTS {
        let mut facts = right();
        plant(&mut facts);
        let wrong = disagreements(&facts);
        assert!(
            wrong.iter().any(|line| line.contains(expected)),
            "{what}: no '{expected}' in {wrong:#?}"
        );
    }
}

/// A newer owner on n2; n1's agent does nothing and keeps what it had.
fn taken_from_n1() -> Facts {
    let mut facts = right();
    let owner = binding(&mut facts).candidates[1].clone();
    binding(&mut facts).epoch = 8;
    let owned = binding(&mut facts).owner.as_mut().unwrap();
    (owned.who, owned.internal, owned.term) = (owner.who, owner.internal, 1);
    let mut lease = facts.records.leases["n1"].clone();
    lease.term = 1;
    facts.records.leases.insert("n2".to_owned(), lease);
    facts.records.leases.get_mut("n1").unwrap().term = 4;
    let n2 = kernel(&mut facts, "n2");
    n2.routes = vec![link_route(F, 999_999_992), link_route(ON_N2, 1024)];
    n2.translated.insert(ip(F), ip(ON_N2));
    n2.floating.insert(ip(F));
    facts.nodes.get_mut("n2").unwrap().bird = Some(vec![bird("kernel1", None)]);
    let router = facts.router.as_mut().unwrap();
    router.routes = vec![learnt(F, "192.0.2.2")];
    router.bird = vec![bird("n2_v4", Some("192.0.2.2"))];
    let n1 = facts.nodes.get_mut("n1").unwrap();
    n1.bird = Some(vec![bird("n2_v4", Some("192.0.2.2"))]);
    n1.kernel.routes.push(learnt(F, "192.0.2.2"));
    facts
}

#[test]
fn a_frozen_agent_may_keep_what_its_bird_knows_better() {
    let mut facts = taken_from_n1();
    assert!(!disagreements(&facts).is_empty(), "a living agent may not");
    facts.nodes.get_mut("n1").unwrap().standing = Standing::Frozen;
    assert_eq!(disagreements(&facts), Vec::<String>::new());
    kernel(&mut facts, "n1").routes.pop();
    let wrong = disagreements(&facts);
    assert!(
        wrong[0].contains("n1: 172.16.1.3 leads to the workload"),
        "{wrong:#?}"
    );
}

#[test]
fn what_is_left_on_a_clean_node_is_found() {
    let mut facts = right();
    facts.records = Default::default();
    facts.router = None;
    let left = facts.nodes["n1"].clone();
    facts.nodes = [(
        "n1".to_owned(),
        Node {
            standing: Standing::Clean,
            bird: None,
            ..left
        },
    )]
    .into();
    kernel(&mut facts, "n1").routes.push(learnt(F, "192.0.2.2"));
    kernel(&mut facts, "n1").ending.insert((ip(F), ip(ON_N2)));
    let wrong = disagreements(&facts);
    for expected in [
        "a route to 172.16.1.3/32 of protocol 177",
        "a route to 172.16.1.3/32 of protocol bird",
        "cali1 in the set of links",
        "a translation of 172.16.1.3",
        "the end of flows to 172.16.1.3 by way of 10.65.2.1",
    ] {
        let line = format!("n1 is clean, and it has {expected}");
        assert!(wrong.contains(&line), "no '{line}' in {wrong:#?}");
    }
    *kernel(&mut facts, "n1") = Kernel::default();
    assert_eq!(disagreements(&facts), Vec::<String>::new());
}

#[test]
fn a_node_that_is_cut_off_goes_on_as_before() {
    let mut facts = taken_from_n1();
    let n1 = facts.nodes.get_mut("n1").unwrap();
    n1.standing = Standing::Cut;
    n1.kernel.routes.pop();
    n1.bird = Some(vec![bird("kernel1", None)]);
    assert_eq!(disagreements(&facts), Vec::<String>::new());
}
