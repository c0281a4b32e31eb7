//! The built program and a real store: create, apply, get, delete, ipam.

mod common;

use buoy_api::lease::{NodeLease, NodeLeaseSpec};
use buoy_api::{Epoch, ObjectMeta, Term};
use buoy_core::store::{Key, StoreOp, Value};
use common::{Place, endpoint, pool};
use serde_json::Value as Json;

/// Key of the binding of 172.16.1.3 in the file.
const GARBAGE: &str = "/buoy/v1alpha1/floatingipbindings/172-16-1-3";

#[test]
fn pools_are_applied_shown_changed_and_deleted() {
    let place = Place::new();
    let two = format!("{}---\n{}", pool("a", "10.65.0.0/16"), pool("b", "10.66.0.0/16"));
    let file = place.file("pools.yaml", &two);
    let said = place.done(&["apply", "-f", &file]);
    assert_eq!(said, "Successfully applied 2 'IPPool' resource(s)\n");
    assert_eq!(
        place.done(&["get", "ippool"]),
        "NAME   CIDR           SELECTOR\na      10.65.0.0/16   all()\nb      10.66.0.0/16   all()\n"
    );
    let changed = "kind: IPPool\napiVersion: projectcalico.org/v3\nmetadata: {name: a, labels: {x: y}}\n\
                   spec: {cidr: 10.65.0.0/16, natOutgoing: true, comesLater: [1]}\n";
    place.apply(changed);
    let yaml = place.done(&["get", "pool", "a", "-o", "yaml"]);
    for line in [
        "  natOutgoing: true",
        "    x: \"y\"",
        "  comesLater:",
        "  - 1",
        "  resourceVersion: ",
    ] {
        assert!(yaml.contains(line), "{line}: {yaml}");
    }
    let said = place.done(&["delete", "ipp", "a", "b"]);
    assert_eq!(said, "Successfully deleted 2 'IPPool' resource(s)\n");
    assert_eq!(place.done(&["get", "ippools"]), "NAME   CIDR   SELECTOR\n");
}

#[test]
fn what_get_prints_can_be_applied_unless_somebody_was_quicker() {
    let place = Place::new();
    place.apply(&pool("a", "10.65.0.0/16"));
    let first = place.done(&["get", "ippool", "a", "-o", "yaml"]);
    place.apply(&first.replace("spec:", "spec:\n  natOutgoing: true"));
    let stale = place.run_with(&["apply", "-f", "-"], &first);
    assert_eq!(stale.code, 1);
    assert!(stale.err.contains("has changed since: IPPool a"), "{stale:?}");
    let list = place.done(&["get", "ippool", "-o", "json"]);
    assert_eq!(
        place.apply(&list),
        "Successfully applied 1 'IPPool' resource(s)\n"
    );
    let Some(record) = place.get(Key::Pool("a".to_owned())) else {
        panic!("a pool")
    };
    let Ok(Value::Pool(kept)) = record.value else {
        panic!("a pool")
    };
    assert!(kept.spec.nat_outgoing);
    assert_eq!(kept.metadata.extra.get("resourceVersion"), None);
}

#[test]
fn an_apply_without_a_change_writes_nothing() {
    let place = Place::new();
    place.apply(&pool("a", "10.65.0.0/16"));
    let before = place.get(Key::Pool("a".to_owned())).unwrap();
    place.apply(&pool("a", "10.65.0.0/16"));
    assert_eq!(place.get(Key::Pool("a".to_owned())).unwrap(), before);
}

#[test]
fn create_refuses_what_exists() {
    let place = Place::new();
    let file = place.file("pool.yaml", &pool("a", "10.65.0.0/16"));
    assert_eq!(
        place.done(&["create", "-f", &file]),
        "Successfully created 1 'IPPool' resource(s)\n"
    );
    let again = place.run(&["create", "-f", &file]);
    assert_eq!((again.code, again.out.as_str()), (1, ""));
    assert!(
        again.err.contains("exists already: IPPool a\nuse apply"),
        "{again:?}"
    );
}

#[test]
fn nothing_is_written_unless_every_document_is_understood() {
    let place = Place::new();
    for (bad, message) in [
        ("a: [", "neither YAML nor JSON"),
        ("kind: Pod\nmetadata: {name: p}", "unknown kind: Pod"),
        (&*pool("b", "here"), "document 2: spec.cidr: "),
        (
            &*pool("b", "10.66.0.1/16"),
            "document 2: IPPool \"b\" is not valid\nspec.cidr: ",
        ),
        ("kind: IPPool\nmetadata: {name: b}", "missing field `apiVersion`"),
    ] {
        let text = format!("{}---\n{bad}", pool("a", "10.65.0.0/16"));
        let ran = place.run_with(&["apply", "-f", "-"], &text);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{bad}");
        assert!(
            ran.err.starts_with("error: standard input") && ran.err.contains(message),
            "{ran:?}"
        );
        assert!(place.get(Key::Pool("a".to_owned())).is_none());
    }
}

#[test]
fn pools_are_checked_against_each_other() {
    let place = Place::new();
    place.apply(&pool("a", "10.65.0.0/16"));
    let text = format!("{}---\n{}", pool("b", "10.66.0.0/16"), pool("c", "10.65.4.0/24"));
    let ran = place.run_with(&["apply", "-f", "-"], &text);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("overlaps IPPool \"a\": 10.65.0.0/16"), "{ran:?}");
    assert!(ran.err.contains("applied before this: 1 of 2"), "{ran:?}");
    let moved = place.run_with(&["apply", "-f", "-"], &pool("a", "10.67.0.0/16"));
    assert!(
        moved
            .err
            .contains("cannot change from 10.65.0.0/16 to 10.67.0.0/16"),
        "{moved:?}"
    );
}

const BGP: &str = "\
kind: BGPConfiguration
apiVersion: projectcalico.org/v3
metadata: {name: default}
spec: {asNumber: 64600, nodeToNodeMeshEnabled: true, serviceClusterIPs: [{cidr: 10.96.0.0/12}]}
---
kind: BGPPeer
apiVersion: projectcalico.org/v3
metadata: {name: rack, annotations: {buoy.dev/bfd: \"true\"}}
spec: {peerIP: 192.0.2.1, asNumber: 64513}
---
kind: Node
apiVersion: projectcalico.org/v3
metadata: {name: n1}
spec: {bgp: {ipv4Address: 192.0.2.7/24}}
";

#[test]
fn sessions_are_configured_and_shown() {
    let place = Place::new();
    assert_eq!(place.apply(BGP), "Successfully applied 3 resource(s)\n");
    assert_eq!(
        place.done(&["get", "bp"]),
        "NAME   PEERIP      NODE       ASN\nrack   192.0.2.1   (global)   64513\n"
    );
    assert_eq!(
        place.done(&["get", "bgpconfigs"]),
        "NAME      LOGSEVERITY   MESHENABLED   ASNUMBER\ndefault   -             true          64600\n"
    );
    assert_eq!(
        place.done(&["get", "node", "-o", "wide"]),
        "NAME   ASN       IPV4           IPV6\nn1     (64600)   192.0.2.7/24\n",
        "the AS number is the cluster's"
    );
    let json: Json =
        serde_json::from_str(&place.done(&["get", "bgpconfig", "default", "-o", "json"])).unwrap();
    assert_eq!(json["spec"]["serviceClusterIPs"][0]["cidr"], "10.96.0.0/12");
    let yaml = place.done(&["get", "bgppeer", "rack", "-o", "yaml"]);
    assert!(yaml.contains("buoy.dev/bfd: \"true\""), "{yaml}");
    assert_eq!(
        place.done(&["delete", "bgpp", "rack"]),
        "Successfully deleted 1 'BGPPeer' resource(s)\n"
    );
    assert_eq!(place.done(&["get", "bgppeers"]), "NAME   PEERIP   NODE   ASN\n");
}

#[test]
fn reservations_and_the_switch_for_all_nodes_are_written_shown_and_deleted() {
    let place = Place::new();
    place.apply(
        "{kind: IPReservation, apiVersion: projectcalico.org/v3, metadata: {name: routers}, \
         spec: {reservedCIDRs: [10.65.0.0/28, 'fd65::/124']}}",
    );
    place.apply(
        "{kind: FelixConfiguration, apiVersion: projectcalico.org/v3, metadata: {name: default}, \
         spec: {floatingIPs: Enabled}}",
    );
    assert_eq!(
        place.done(&["get", "reservations", "-o", "wide"]),
        "NAME      CIDRS\nrouters   10.65.0.0/28,fd65::/124\n"
    );
    assert_eq!(place.done(&["get", "felixconfig"]), "NAME\ndefault\n");
    let felix: Json =
        serde_json::from_str(&place.done(&["get", "felixconfig", "default", "-o", "json"])).unwrap();
    assert_eq!(felix["spec"]["floatingIPs"], "Enabled");
    for (kind, name) in [("ipreservation", "routers"), ("felixconfiguration", "default")] {
        place.done(&["delete", kind, name]);
        let again = place.run(&["delete", kind, name]);
        assert_eq!(again.code, 1, "{again:?}");
        assert!(
            again
                .err
                .contains(&format!("buoyctl get {kind} shows those there are")),
            "{again:?}"
        );
    }
}

#[test]
fn sessions_that_cannot_be_are_refused() {
    let place = Place::new();
    for (spec, message) in [
        (
            "{peerIP: router, asNumber: 64513}",
            "spec.peerIP: not the address of a peer: \"router\"\nwrite it as ",
        ),
        (
            "{peerIP: 192.0.2.1, asNumber: 0}",
            "spec.asNumber: no AS number: 0\n",
        ),
        (
            "{peerIP: 192.0.2.1, asNumber: 4294967296}",
            "spec.asNumber: invalid value",
        ),
        (
            "{peerIP: 192.0.2.1, node: n1, nodeSelector: all()}",
            "spec.nodeSelector: used together with node\n",
        ),
        (
            "{peerIP: 192.0.2.1, keepaliveTime: soon}",
            "spec.keepaliveTime: not a length of time",
        ),
    ] {
        let peer = format!(
            "kind: BGPPeer\napiVersion: projectcalico.org/v3\nmetadata: {{name: rack}}\nspec: {spec}\n"
        );
        let ran = place.run_with(&["apply", "-f", "-"], &peer);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.contains(message), "{ran:?}");
    }
    assert_eq!(place.get(Key::BgpPeer("rack".to_owned())), None);
}

#[test]
fn leases_are_only_looked_at() {
    let place = Place::new();
    let lease = "kind: NodeLease\napiVersion: buoy.dev/v1alpha1\nmetadata: {name: n1}\nspec: {term: 1}\n";
    let applied = place.run_with(&["apply", "-f", "-"], lease);
    assert_eq!(applied.code, 1);
    assert!(
        applied
            .err
            .contains("leases are written by agents, as a sign that they live\nstart the node's agent"),
        "{applied:?}"
    );
    let value = Value::Lease(NodeLease::new(
        ObjectMeta::named("n1"),
        NodeLeaseSpec {
            holder: Some("a7f3".to_owned()),
            term: Term(4),
            duration_seconds: 6,
            ..NodeLeaseSpec::default()
        },
    ));
    let key = Key::Lease("n1".to_owned());
    common::wrote(&place.store().run(&StoreOp::Create(key.clone(), value)));
    assert_eq!(
        place.done(&["get", "lease"]),
        "NAME   HOLDER   TERM   DURATION   RENEWED\nn1     a7f3     4      6s         -\n"
    );
    let deleted = place.run(&["delete", "nodelease", "n1"]);
    assert_eq!(deleted.code, 1);
    assert!(
        deleted.err.contains("leases are not deleted: NodeLease n1\n"),
        "{deleted:?}"
    );
    assert!(place.get(key).is_some());
}

#[test]
fn namespaces_separate_endpoints() {
    let place = Place::new();
    place.apply(&endpoint("web-0", "10.65.0.7/32"));
    assert_eq!(
        place.done(&["get", "wep"]),
        "WORKLOAD   NODE   NETWORKS   INTERFACE\n"
    );
    assert_eq!(
        place.done(&["get", "wep", "-n", "shop"]),
        "WORKLOAD   NODE   NETWORKS       INTERFACE\nweb-0      n1     10.65.0.7/32\n"
    );
    assert!(place.done(&["get", "wep", "-A"]).contains("shop        web-0"));
    let absent = place.run(&["get", "wep", "n1-k8s-web--0-eth0"]);
    assert_eq!(absent.code, 1);
    assert!(
        absent
            .err
            .contains("resource does not exist: WorkloadEndpoint(default/n1-k8s-web--0-eth0)"),
        "{absent:?}"
    );
    let json = place.done(&["get", "wep", "n1-k8s-web--0-eth0", "-n", "shop", "-o", "json"]);
    assert!(json.contains("\"pod\": \"web-0\""), "{json}");
}

#[test]
fn delete_says_what_is_missing_and_can_pass_over_it() {
    let place = Place::new();
    place.apply(&pool("a", "10.65.0.0/16"));
    let ran = place.run(&["delete", "ippool", "a", "b"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("resource does not exist: IPPool(b)"), "{ran:?}");
    assert!(ran.err.contains("deleted before this: 1 of 2"), "{ran:?}");
    assert_eq!(
        place.done(&["delete", "-s", "ippool", "b"]),
        "Successfully deleted 0 resource(s)\n"
    );
    let file = place.file("e.yaml", &endpoint("web-0", "10.65.0.7/32"));
    place.done(&["apply", "-f", &file]);
    let done = place.done(&["delete", "-f", &file, "-o", "json"]);
    assert!(
        done.contains("\"verb\": \"deleted\"") && done.contains("\"namespace\": \"shop\""),
        "{done}"
    );
}

#[test]
fn bindings_are_read_and_left_to_agents() {
    let place = Place::new();
    place.bind("172.16.1.3", &["web-0", "web-1"]);
    let shown = place.done(&["get", "fipb", "-o", "wide"]);
    assert!(
        shown.contains("172.16.1.3   shop        web-0   n1     Owned   7"),
        "{shown}"
    );
    assert!(shown.trim_end().ends_with("web-1@n1"), "{shown}");
    let yaml = place.done(&["get", "fipb", "172-16-1-3", "-o", "yaml"]);
    let applied = place.run_with(&["apply", "-f", "-"], &yaml);
    assert_eq!(applied.code, 1);
    assert!(
        applied.err.contains("bindings are written by agents"),
        "{applied:?}"
    );
    let deleted = place.run(&["delete", "fipb", "172-16-1-3"]);
    assert_eq!(deleted.code, 1);
    assert!(
        deleted.err.contains("buoyctl fip release 172.16.1.3"),
        "{deleted:?}"
    );
}

#[test]
fn a_record_that_is_garbage_hides_no_other_and_can_be_mended_or_deleted() {
    let place = Place::new();
    place.apply(&pool("a", "10.65.0.0/16"));
    for name in ["rot", "rust"] {
        place.spoil(&format!("/calico/resources/v3/projectcalico.org/ippools/{name}"));
    }
    let ran = place.run(&["get", "ippool"]);
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains("a      10.65.0.0/16"), "{ran:?}");
    assert!(
        ran.err
            .starts_with("warning: IPPool rot: record does not decode: "),
        "{ran:?}"
    );
    let named = place.run(&["get", "ippool", "rot"]);
    assert_eq!((named.code, named.out.as_str()), (1, ""));
    let mended = place.run_with(&["apply", "-f", "-"], &pool("rot", "10.70.0.0/16"));
    assert_eq!(mended.code, 0, "{mended:?}");
    let deleted = place.run(&["delete", "ippool", "rust"]);
    assert_eq!(deleted.code, 0, "{deleted:?}");
    assert!(place.done(&["get", "ippool"]).contains("rot    10.70.0.0/16"));
}

#[test]
fn a_binding_that_is_garbage_leaves_a_higher_epoch_floor_behind() {
    let place = Place::new();
    place.bind("172.16.1.4", &["web-0"]);
    for floor in [1007, 2007] {
        place.spoil(GARBAGE);
        let listed = place.run(&["fip", "list"]);
        assert!(
            listed
                .out
                .contains("172.16.1.3   -           -       -      Unreadable   -"),
            "{listed:?}"
        );
        let ran = place.run(&["delete", "fipb", "172-16-1-3"]);
        assert_eq!(
            (ran.code, ran.out.as_str()),
            (0, "Successfully deleted 1 'FloatingIPBinding' resource(s)\n"),
            "{ran:?}"
        );
        let told = "FloatingIPBinding 172-16-1-3: its epoch is not known, so the epoch floor was raised to";
        assert!(
            ran.err.starts_with(&format!("warning: {told} {floor}\n")),
            "{ran:?}"
        );
        assert!(place.get(Key::Binding("172-16-1-3".to_owned())).is_none());
        let Some(Ok(Value::EpochFloor(record))) = place.get(Key::EpochFloor).map(|record| record.value)
        else {
            panic!("a floor")
        };
        assert_eq!(record.spec.epoch, Epoch(floor));
    }
}

#[test]
fn a_binding_that_is_garbage_stays_if_the_epoch_floor_cannot_be_raised() {
    let place = Place::new();
    place.spoil(GARBAGE);
    place.spoil("/buoy/v1alpha1/epochfloors/default");
    let ran = place.run(&["delete", "fipb", "172-16-1-3"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.err.starts_with("error: epoch floor: ") && ran.err.contains("the binding stays"),
        "{ran:?}"
    );
    assert!(place.get(Key::Binding("172-16-1-3".to_owned())).is_some());
}

#[test]
fn profiles_carry_the_labels_of_namespaces() {
    let place = Place::new();
    let profile = "kind: Profile\napiVersion: projectcalico.org/v3\nmetadata: {name: kns.shop}\n\
                   spec: {labelsToApply: {pcns.tier: gold}, egress: [{action: Allow}]}\n";
    assert_eq!(
        place.apply(profile),
        "Successfully applied 1 'Profile' resource(s)\n"
    );
    for form in ["ps", "wide"] {
        assert_eq!(place.done(&["get", "profile", "-o", form]), "NAME\nkns.shop\n");
    }
    let yaml = place.done(&["get", "profiles", "kns.shop", "-o", "yaml"]);
    for line in ["    pcns.tier: gold", "  - action: Allow"] {
        assert!(yaml.contains(line), "{line}: {yaml}");
    }
    let misnamed = place.run_with(&["apply", "-f", "-"], &profile.replace("kns.shop", "kns/shop"));
    assert!(misnamed.err.contains("metadata.name: not a name"), "{misnamed:?}");
    place.done(&["delete", "profile", "kns.shop"]);
    assert_eq!(place.done(&["get", "profile"]), "NAME\n");
}

#[test]
fn addresses_in_use_are_shown() {
    let place = Place::new();
    place.apply(&pool("a", "10.65.0.0/16"));
    let shown = place.done(&["ipam", "show", "--show-blocks"]);
    assert!(
        shown.contains("| IP Pool  | 10.65.0.0/16 |     65536 | 0 (0%)     |            0 | 65536 (100%) |")
    );
    assert_eq!(
        place.done(&["ipam", "show", "--ip=10.65.0.7"]),
        "IP 10.65.0.7 is not assigned\n"
    );
    let json = place.done(&["ipam", "show", "-o", "json"]);
    assert!(json.contains("\"free\": 65536"), "{json}");
}

#[test]
fn wrong_usage_and_failure_have_their_own_codes() {
    let place = Place::new();
    for (args, code, message) in [
        (&["get", "pods"][..], 2, "unknown kind: pods"),
        (&["fip", "attach", "10.0.0.1/32", "web-0"], 2, "not an IP address"),
        (&["apply"], 2, "--filename"),
        (
            &["apply", "-f", "/nonexistent.yaml"],
            1,
            "cannot be read: /nonexistent.yaml",
        ),
        (
            &["get", "node", "--datastore", "kubernetes:"],
            1,
            "no API server is named",
        ),
        (
            &["get", "node", "--datastore", "etcd://h:port"],
            1,
            "not the address of an etcd",
        ),
        (
            &["get", "node", "--datastore", "sqlite:///proc/none/buoy.db"],
            1,
            "/proc/none",
        ),
        (&["node", "status"], 1, "agent is not running"),
    ] {
        let ran = place.run(args);
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{args:?} {ran:?}");
        assert!(ran.err.contains(message), "{args:?} {ran:?}");
    }
    let help = place.run(&["--help"]);
    assert_eq!(help.code, 0);
    assert!(help.out.contains("See and steer") && help.err.is_empty());
}
