//! The routing daemon's configuration, a file for each feature. `BUOY_BLESS=1` writes the files anew; the end-to-end
//! tests have each of them read by the daemon's own parser.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use buoy_api::annotations::{BFD, BGP_HOLD_TIME};
use buoy_api::ipam::{AffinityOwner, AffinityState, BlockAffinity};
use buoy_api::meta::{Extra, ObjectMeta};
use buoy_api::v3::{
    BgpConfiguration, BgpConfigurationSpec, BgpPassword, BgpPeer, BgpPeerSpec, IpPool, IpPoolSpec, Node,
    NodeBgp, NodeSpec, SecretKeyRef,
};
use buoy_core::bird::{BirdRow, Secret, Section, render};
use buoy_core::calc;
use buoy_core::desired::{NodeDesired, Row};
use buoy_core::store::{Delta, Key, Revision, Value};
use buoy_core::subject::Subject;
use buoy_core::time::Mono;
use buoy_core::view::{Gate, Routing, Settings, View};

/// Node `n1`, and what it should be: only what a change concerns is calculated again.
struct World {
    view: View,
    desired: NodeDesired,
}

impl World {
    fn new() -> Self {
        Self {
            view: View::new(Settings {
                node: "n1".to_owned(),
                floating: Gate::Auto,
                hold: Duration::from_secs(600),
                version: "0.1.0".to_owned(),
                identity: "i".to_owned(),
                routing: Routing::Bird,
                yield_time: Duration::from_secs(3),
            }),
            desired: NodeDesired::default(),
        }
        .and_look([Subject::Node])
    }

    fn and_look(mut self, subjects: impl IntoIterator<Item = Subject>) -> Self {
        for subject in subjects {
            self.desired.replace(&subject, calc::rows(&self.view, &subject));
        }
        self
    }

    fn with(mut self, key: Key, value: Option<Value>) -> Self {
        let dirty = self.view.apply(
            Delta {
                key,
                revision: Revision(1),
                value: value.map(Ok),
            },
            Mono::default(),
        );
        self.and_look(dirty)
    }

    fn node(self, name: &str, v4: &str, v6: &str, as_number: Option<u32>) -> Self {
        let bgp = NodeBgp {
            ipv4_address: v4.parse().ok(),
            ipv6_address: v6.parse().ok(),
            as_number,
            ..NodeBgp::default()
        };
        let spec = NodeSpec {
            bgp: Some(bgp),
            ..NodeSpec::default()
        };
        let mut node = Node::new(ObjectMeta::named(name), spec);
        node.metadata
            .labels
            .insert("rack".to_owned(), format!("rack-{name}"));
        self.with(Key::Node(name.to_owned()), Some(Value::Node(node)))
    }

    fn pool(self, name: &str, cidr: &str, exported: bool) -> Self {
        let mut spec = IpPoolSpec::new(cidr.parse().unwrap());
        spec.disable_bgp_export = !exported;
        let pool = IpPool::new(ObjectMeta::named(name), spec);
        self.with(Key::Pool(name.to_owned()), Some(Value::Pool(pool)))
    }

    fn block(self, cidr: &str, state: AffinityState) -> Self {
        let affinity = BlockAffinity {
            state,
            deleted: false,
            extra: Extra::new(),
        };
        let key = Key::Affinity {
            owner: AffinityOwner::Host("n1".to_owned()),
            cidr: cidr.parse().unwrap(),
        };
        self.with(key, Some(Value::Affinity(affinity)))
    }

    fn peer(self, name: &str, spec: BgpPeerSpec, annotations: &[(&str, &str)]) -> Self {
        let mut peer = BgpPeer::new(ObjectMeta::named(name), spec);
        peer.metadata.annotations = owned(annotations);
        self.with(Key::BgpPeer(name.to_owned()), Some(Value::BgpPeer(peer)))
    }

    fn config(self, spec: BgpConfigurationSpec, annotations: &[(&str, &str)]) -> Self {
        let mut config = BgpConfiguration::new(ObjectMeta::named("default"), spec);
        config.metadata.annotations = owned(annotations);
        self.with(
            Key::BgpConfiguration("default".to_owned()),
            Some(Value::BgpConfiguration(config)),
        )
    }

    fn secret(mut self, text: &str) -> Self {
        let named = self.view.secrets_named();
        let secrets = named.into_iter().map(|key| (key, Secret::new(text)));
        let dirty = self.view.set_secrets(secrets.collect());
        self.and_look(dirty)
    }

    fn text(&self) -> String {
        let text = render(self.desired.bird().map(|(section, row, _)| (section, row))).unwrap();
        assert_eq!(
            Some(&text),
            render(&self.whole()).as_ref(),
            "what is not dirty has not changed"
        );
        text
    }

    /// Every subject's rows, whoever was said to be concerned.
    fn whole(&self) -> BTreeMap<Section, BirdRow> {
        let view = &self.view;
        let blocks = view.affinities.iter().map(|(cidr, _)| Subject::Block(*cidr));
        let pools = view.pools.iter().map(|(name, _)| Subject::Pool(name.clone()));
        let nodes = view
            .nodes
            .iter()
            .map(|(name, _)| Subject::OtherNode(name.clone()));
        let peers = view.peers.iter().map(|(name, _)| Subject::Peer(name.clone()));
        let subjects = [Subject::Node]
            .into_iter()
            .chain(blocks)
            .chain(pools)
            .chain(nodes)
            .chain(peers);
        let rows = subjects.flat_map(|subject| calc::rows(view, &subject));
        rows.filter_map(|row| match row {
            Row::Bird(section, row) => Some((section, row)),
            _ => None,
        })
        .collect()
    }

    fn left_out(&self) -> Vec<String> {
        let rows = self.desired.bird().map(|(section, row, _)| (section, row));
        rows.filter(|(_, row)| matches!(row, BirdRow::LeftOut(_)))
            .map(|(section, row)| format!("{section}: {row}"))
            .collect()
    }
}

fn owned(annotations: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = annotations
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    pairs.collect()
}

fn router(address: &str) -> BgpPeerSpec {
    BgpPeerSpec {
        peer_ip: address.to_owned(),
        as_number: Some(64600),
        ..BgpPeerSpec::default()
    }
}

fn password() -> Option<BgpPassword> {
    Some(BgpPassword {
        secret_key_ref: Some(SecretKeyRef {
            name: "bgp".to_owned(),
            key: "password".to_owned(),
        }),
        extra: Extra::new(),
    })
}

fn two_nodes() -> World {
    World::new()
        .node("n1", "192.0.2.1/24", "2001:db8::1/64", None)
        .node("n2", "192.0.2.2/24", "2001:db8::2/64", None)
}

fn golden(name: &str, world: &World) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/bird-{name}.conf"));
    let text = world.text();
    if std::env::var_os("BUOY_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, wanted, "{}: BUOY_BLESS=1 writes it anew", path.display());
}

#[test]
fn a_node_alone() {
    golden("alone", &World::new());
}

#[test]
fn a_mesh_of_both_families() {
    let world = two_nodes().node("n3.example-1.org", "198.51.100.3/24", "", None);
    golden("mesh", &world);
    assert_eq!(
        world.left_out(),
        ["IPv6 session with node n3.example-1.org: left out: node n3.example-1.org has no IPv6 address"]
    );
}

#[test]
fn a_mesh_of_several_as_numbers() {
    let world = World::new()
        .node("n1", "192.0.2.1/24", "", Some(64_513))
        .node("n2", "192.0.2.2/24", "", None)
        .config(
            BgpConfigurationSpec {
                as_number: Some(4_200_000_001),
                listen_port: Some(1790),
                log_severity_screen: Some("Debug".to_owned()),
                ..BgpConfigurationSpec::default()
            },
            &[(BGP_HOLD_TIME, "30s")],
        );
    golden("mesh-as", &world);
}

#[test]
fn pools_and_blocks() {
    let world = two_nodes()
        .pool("floating", "172.16.1.0/24", true)
        .pool("hidden", "10.66.0.0/16", false)
        .pool("pods", "10.65.0.0/16", true)
        .pool("pods6", "fd80::/64", true)
        .block("10.65.0.64/26", AffinityState::Confirmed)
        .block("10.65.0.128/26", AffinityState::Pending)
        .block("10.65.0.192/32", AffinityState::Confirmed)
        .block("fd80::40/122", AffinityState::Confirmed);
    golden("pools", &world);
    assert!(!world.text().contains("10.65.0.128"), "not this node's yet");
}

#[test]
fn external_peers() {
    let world = two_nodes()
        .config(
            BgpConfigurationSpec {
                node_to_node_mesh_enabled: Some(false),
                log_severity_screen: Some("None".to_owned()),
                ..BgpConfigurationSpec::default()
            },
            &[],
        )
        .peer("a-router", router("192.0.2.9"), &[(BGP_HOLD_TIME, "12s")])
        .peer("b-port", router("[2001:db8::9]:1790"), &[])
        .peer(
            "c-everything",
            BgpPeerSpec {
                node_selector: "rack == 'rack-n1'".to_owned(),
                local_as_number: Some(65_000),
                source_address: Some("None".to_owned()),
                max_restart_time: Some("2m".to_owned()),
                keepalive_time: Some("5s".to_owned()),
                ttl_security: Some(2),
                ..router("203.0.113.9:1791")
            },
            &[],
        )
        .peer(
            "d-node",
            BgpPeerSpec {
                node: "n1".to_owned(),
                as_number: Some(64_512),
                ttl_security: Some(1),
                ..router("192.0.2.2")
            },
            &[],
        )
        .peer(
            "e-elsewhere",
            BgpPeerSpec {
                node: "n2".to_owned(),
                ..router("192.0.2.8")
            },
            &[],
        );
    golden("peers", &world);
    assert_eq!(world.left_out(), Vec::<String>::new());
}

#[test]
fn sessions_watched_by_bfd() {
    let world = two_nodes()
        .config(BgpConfigurationSpec::default(), &[(BFD, "true")])
        .peer("router", router("203.0.113.9"), &[(BFD, "true")]);
    golden("bfd", &world);
}

#[test]
fn sessions_with_passwords() {
    let world = two_nodes()
        .config(
            BgpConfigurationSpec {
                node_mesh_password: password(),
                ..BgpConfigurationSpec::default()
            },
            &[],
        )
        .peer(
            "router",
            BgpPeerSpec {
                password: password(),
                ..router("192.0.2.9")
            },
            &[],
        )
        .secret("it's \\ a # secret; ü");
    golden("passwords", &world);
}

#[test]
fn a_session_without_its_password_is_left_out() {
    let world = two_nodes().peer("open", router("192.0.2.8"), &[]).peer(
        "router",
        BgpPeerSpec {
            password: password(),
            ..router("192.0.2.9")
        },
        &[],
    );
    let not_read =
        r#"session with BGP peer router: left out: password of secret "bgp", key "password": not read yet"#;
    assert_eq!(world.left_out(), [not_read]);
    assert!(world.text().contains("peer_open") && !world.text().contains("peer_router"));
    let world = world.secret("\"; }");
    assert!(world.left_out()[0].ends_with("it has a quotation mark or a control character"));
}

#[test]
fn names_stay_in_their_place() {
    let world = two_nodes()
        .peer(
            "a; }\nprotocol static { ipv4; route 0.0.0.0/0 blackhole; }\n#",
            router("192.0.2.8"),
            &[],
        )
        .peer("a.b", router("192.0.2.9"), &[])
        .peer("a b", router("192.0.2.10"), &[])
        .peer("a_b", router("192.0.2.11"), &[]);
    golden("names", &world);
    assert_eq!(world.left_out(), Vec::<String>::new());
}

#[test]
fn one_bad_record_never_stops_the_rest() {
    let said = |field: &str, value: &str| {
        let mut spec = router("192.0.2.70");
        spec.extra.insert(field.to_owned(), value.into());
        spec
    };
    let bad = [
        ("peerIP: an address", router("router.example.org")),
        ("peerIP: an address", router("192.0.2.9:0")),
        ("peerIP: not an address of a peer", router("127.0.0.1")),
        (
            "asNumber is missing",
            BgpPeerSpec {
                as_number: None,
                ..router("192.0.2.71")
            },
        ),
        (
            "asNumber is missing",
            BgpPeerSpec {
                as_number: Some(0),
                ..router("192.0.2.72")
            },
        ),
        (
            "localASNumber is 0",
            BgpPeerSpec {
                local_as_number: Some(0),
                ..router("192.0.2.73")
            },
        ),
        (
            "sourceAddress:",
            BgpPeerSpec {
                source_address: Some("Any".to_owned()),
                ..router("192.0.2.74")
            },
        ),
        (
            "keepaliveTime:",
            BgpPeerSpec {
                keepalive_time: Some("soon".to_owned()),
                ..router("192.0.2.75")
            },
        ),
        (
            "maxRestartTime:",
            BgpPeerSpec {
                max_restart_time: Some("2h".to_owned()),
                ..router("192.0.2.76")
            },
        ),
        (
            "nodeSelector:",
            BgpPeerSpec {
                node_selector: "rack ==".to_owned(),
                ..router("192.0.2.77")
            },
        ),
        ("this node's own address", router("192.0.2.1")),
        ("the mesh has a session", router("192.0.2.2")),
        ("BGP peer a-good has the same address", router("192.0.2.9")),
        (
            "this version does not know peerSelector",
            said("peerSelector", "has(rr)"),
        ),
        (
            "names a node and a node selector",
            BgpPeerSpec {
                node: "n1".to_owned(),
                node_selector: "all()".to_owned(),
                ..router("192.0.2.78")
            },
        ),
    ];
    let good = two_nodes().peer("a-good", router("192.0.2.9"), &[]);
    let text = good.text();
    let mut world = good;
    for (number, (why, spec)) in bad.into_iter().enumerate() {
        let name = format!("bad-{number}");
        world = world.peer(&name, spec, &[]);
        let left_out = world.left_out();
        let last = left_out.iter().find(|line| line.contains(&format!("{name}:")));
        assert!(
            last.is_some_and(|line| line.contains(why)),
            "{name}: {why}: {left_out:?}"
        );
        assert_eq!(world.text(), text, "{name}");
    }
    let world = world.peer("later", router("192.0.2.99"), &[(BFD, "yes")]);
    assert!(world.left_out().last().unwrap().contains("true or false"));
    let world = world.peer("later", router("192.0.2.99"), &[(BGP_HOLD_TIME, "1s")]);
    assert!(world.left_out().last().unwrap().contains("at least 3 seconds"));
}

#[test]
fn nodes_that_cannot_be_in_the_mesh_are_said() {
    let world = two_nodes()
        .node("n0", "192.0.2.1/24", "", None)
        .node("n3", "192.0.2.2/24", "", None)
        .node("n4", "192.0.2.4/24", "", Some(0));
    let said = world.left_out().join("\n");
    for why in [
        "node n0 has this node's own address: 192.0.2.1\nif that node is no more, delete its record",
        "node n2 has the same address: 192.0.2.2",
        "the AS number of node n4 is 0",
    ] {
        assert!(said.contains(why), "{why}:\n{said}");
    }
    assert!(world.text().contains("mesh4_n2"));
    let world = world.with(Key::Node("n2".to_owned()), None);
    assert!(world.text().contains("mesh4_n3"), "the address is n3's alone now");
}

#[test]
fn whoever_the_peer_is_for_has_it() {
    let mine = |spec: BgpPeerSpec| {
        let world = two_nodes().peer("p", BgpPeerSpec { ..spec }, &[]);
        world.text().contains("peer_p")
    };
    let node = |name: &str| BgpPeerSpec {
        node: name.to_owned(),
        ..router("192.0.2.9")
    };
    let selector = |text: &str| BgpPeerSpec {
        node_selector: text.to_owned(),
        ..router("192.0.2.9")
    };
    assert!(mine(router("192.0.2.9")) && mine(node("n1")) && mine(selector("rack == 'rack-n1'")));
    assert!(!mine(node("n2")) && !mine(selector("rack == 'rack-n2'")));
}

#[test]
fn with_another_routing_daemon_there_is_nothing() {
    let mut world = two_nodes().pool("floating", "172.16.1.0/24", true);
    world.view.settings.routing = Routing::Kernel;
    assert!(world.whole().is_empty());
    assert_eq!(render(&world.whole()), None);
}
