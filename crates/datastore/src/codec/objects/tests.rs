//! Objects as Calico and Kubernetes write them, and what they are here.

use buoy_api::ipam::{AffinityOwner, AffinityState};
use buoy_api::meta::Extra;
use buoy_core::store::{Key, Prefix, Revision, Value};
use serde_json::{Value as Json, json};

use super::place::{self, ApiResource, CalicoGroup, Layout};
use super::{Form, creation, is_derived, read, record, removal, update};

fn layout() -> Layout {
    Layout {
        calico: CalicoGroup::Crd,
        namespace: "buoy-system".to_owned(),
        node: None,
    }
}

fn object(json: Json) -> Extra {
    match json {
        Json::Object(mut object) => {
            object["metadata"]["resourceVersion"] = "7".into();
            object
        }
        other => panic!("{other}"),
    }
}

fn value(resource: ApiResource, json: Json) -> (Key, Value) {
    let found = read(resource, &object(json)).expect("a record");
    assert_eq!(found.revision, Revision(7));
    (
        found.key,
        found.value.expect("there is one").expect("that decodes"),
    )
}

fn whole(form: Form) -> Json {
    match form {
        Form::Object(object) | Form::Patch(object) => Json::Object(object),
        Form::Foreign(owner) => panic!("{owner}"),
    }
}

fn key_of(prefix: &str) -> Key {
    Key::Block(prefix.parse().unwrap())
}

/// Reads an object, writes its record again, and expects the same but for what is the server's.
fn unchanged(resource: ApiResource, json: Json) -> Value {
    let (key, value) = value(resource, json.clone());
    let written = whole(creation(resource, &key, &value).unwrap());
    assert_eq!(written, json, "{key}");
    let pinned = whole(update(resource, &key, &value, None, Revision(7)).unwrap());
    assert_eq!(pinned["metadata"]["resourceVersion"], "7");
    value
}

#[test]
fn a_block_of_calico_s_loses_nothing() {
    let block = json!({
        "apiVersion": "crd.projectcalico.org/v1", "kind": "IPAMBlock", "metadata": {"name": "10-65-0-0-29"},
        "spec": {
            "cidr": "10.65.0.0/29", "affinity": "host:node-a", "affinityClaimTime": "2026-08-22T10:00:00Z",
            "strictAffinity": false, "deleted": false,
            "allocations": [0, null, 1, null, null, null, null, null],
            "unallocated": [1, 3, 4, 5, 6, 7],
            "attributes": [
                {"handle_id": "k8s-pod-network.c0ffee", "secondary": {"pod": "web-0"}},
                {"releasedAt": "2026-08-22T10:05:00Z"},
            ],
            "sequenceNumber": 1_787_392_800_000_000_003_u64,
            "sequenceNumberForAllocation": {"0": 1_787_392_800_000_000_001_u64, "2": 1_787_392_800_000_000_002_u64},
            "somethingNew": {"a": 1},
        },
    });
    let Value::Block(block) = unchanged(place::BLOCKS, block) else {
        panic!("no block")
    };
    assert_eq!(block.sequence_number, 1_787_392_800_000_000_003);
    assert!(block.affinity_claim_time.is_some());
}

#[test]
fn an_affinity_has_labels_and_its_flag_as_text() {
    let affinity = json!({
        "apiVersion": "crd.projectcalico.org/v1", "kind": "BlockAffinity",
        "metadata": {"name": "node-a-10-65-0-0-26", "labels": {
            "projectcalico.org/affinity-type": "host",
            "projectcalico.org/hostname-hash": place_hash("node-a"),
            "projectcalico.org/ip-version": "4",
        }},
        "spec": {"state": "pending", "node": "node-a", "type": "host", "cidr": "10.65.0.0/26", "deleted": "false"},
    });
    let Value::Affinity(affinity) = unchanged(place::AFFINITIES, affinity) else {
        panic!("no affinity")
    };
    assert_eq!(
        (affinity.state, affinity.deleted),
        (AffinityState::Pending, false)
    );

    let of_old = json!({"metadata": {"name": "n1-10-65-0-0-26"},
        "spec": {"node": "n1", "cidr": "10.65.0.0/26", "deleted": "true"}});
    let (key, Value::Affinity(affinity)) = value(place::AFFINITIES, of_old) else {
        panic!("no affinity")
    };
    let owner = AffinityOwner::Host("n1".to_owned());
    assert_eq!(
        key,
        Key::Affinity {
            owner,
            cidr: "10.65.0.0/26".parse().unwrap()
        }
    );
    assert_eq!(
        (affinity.state, affinity.deleted),
        (AffinityState::Confirmed, true)
    );
}

fn place_hash(node: &str) -> String {
    let owner = AffinityOwner::Host(node.to_owned());
    let selector = super::affinity::selector(&owner);
    selector.split(['=', ',']).nth(1).unwrap().to_owned()
}

#[test]
fn a_handle_keeps_its_capitals_and_settings_their_names() {
    let handle = json!({
        "apiVersion": "crd.projectcalico.org/v1", "kind": "IPAMHandle",
        "metadata": {"name": "k8s-pod-network.c0ffee"},
        "spec": {"handleID": "k8s-pod-network.C0ffee", "block": {"10.65.0.0/26": 1}, "deleted": false},
    });
    unchanged(place::HANDLES, handle);
    let config = json!({
        "apiVersion": "crd.projectcalico.org/v1", "kind": "IPAMConfig", "metadata": {"name": "default"},
        "spec": {"strictAffinity": true, "autoAllocateBlocks": false, "maxBlocksPerHost": 3,
            "ipCooldownSeconds": 0, "kubeVirtVMAddressPersistence": "Enabled"},
    });
    let Value::IpamConfig(config) = unchanged(place::IPAM_CONFIGS, config) else {
        panic!("no settings")
    };
    assert!(config.strict_affinity && !config.auto_allocate_blocks);
}

#[test]
fn two_spellings_of_one_block_are_not_two_records() {
    let spec = json!({"cidr": "10.65.0.0/29", "allocations": []});
    let named = |name: &str| {
        read(
            place::BLOCKS,
            &object(json!({"metadata": {"name": name}, "spec": spec})),
        )
    };
    assert_eq!(
        named("10-65-0-0-29").map(|found| found.key),
        Some(key_of("10.65.0.0/29"))
    );
    assert!(named("another").is_none());
    let loose = json!({"metadata": {"name": "10-65-0-1-29"}, "spec": {"cidr": "10.65.0.1/29"}});
    assert!(read(place::BLOCKS, &object(loose)).is_none());
}

#[test]
fn what_is_malformed_is_bad_under_its_name() {
    let owner = || AffinityOwner::Host("n1".to_owned());
    let cidr = "10.65.0.0/29".parse().unwrap();
    for (resource, name, spec, key, begins) in [
        (
            place::BLOCKS,
            "10-65-0-0-29",
            json!({"cidr": 7}),
            key_of("10.65.0.0/29"),
            "spec.cidr: not a text: 7",
        ),
        (
            place::BLOCKS,
            "10-65-0-0-29",
            json!({"cidr": "10.65.0.8/29"}),
            key_of("10.65.0.0/29"),
            "spec: that of 10-65-0-8-29 in the object named 10-65-0-0-29",
        ),
        (
            place::AFFINITIES,
            "n1-10-65-0-0-29",
            json!({"node": "n1"}),
            Key::Affinity { owner: owner(), cidr },
            "spec.cidr: missing",
        ),
        (
            place::HANDLES,
            "net.c1",
            json!("x"),
            Key::Handle("net.c1".to_owned()),
            "spec.handleID: missing",
        ),
    ] {
        let object = object(json!({"metadata": {"name": name}, "spec": spec}));
        let found = read(resource, &object).expect("a record");
        assert_eq!(found.key, key);
        let reason = found.value.unwrap().unwrap_err().reason;
        assert!(reason.starts_with(begins), "{reason}");
        let record = record(&key, resource, &object).expect("a record");
        assert_eq!((&record.key, record.revision), (&key, Revision(7)));
        assert!(record.value.is_err());
    }
    // A name that says nothing is nobody's, unless it is what was asked for.
    let strange = object(json!({"metadata": {"name": "net.c1"}, "spec": {"handleID": "other"}}));
    let asked = Key::Handle("net.C1".to_owned());
    let reason = record(&asked, place::HANDLES, &strange)
        .unwrap()
        .value
        .unwrap_err()
        .reason;
    assert!(reason.starts_with("spec: that of other"), "{reason}");
}

#[test]
fn a_resource_of_calico_s_has_its_metadata_in_an_annotation() {
    let pool = json!({
        "apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool",
        "metadata": {"name": "p", "uid": "u", "annotations": {
            "projectcalico.org/metadata": r#"{"annotations":{"buoy.dev/floatingIPs":"Only"},"labels":{"a":"b"}}"#,
        }},
        "spec": {"cidr": "10.65.0.0/16", "vxlanMode": "Never", "new": 1},
    });
    let Value::Pool(pool) = unchanged(place::POOLS, pool) else {
        panic!("no pool")
    };
    assert_eq!(pool.metadata.labels["a"], "b");
    assert_eq!(pool.metadata.annotations.len(), 1);

    let by_kubectl = json!({"kind": "IPPool", "metadata": {"name": "p", "generation": 4, "annotations": {
        "buoy.dev/floatingIPs": "Deny",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        "projectcalico.org/metadata": r#"{"annotations":{"buoy.dev/floatingIPs":"Only"},"creationTimestamp":null}"#,
    }}, "spec": {"cidr": "10.65.0.0/16"}});
    let (key, Value::Pool(pool)) = value(place::POOLS, by_kubectl) else {
        panic!("no pool")
    };
    assert_eq!(
        pool.metadata.annotations["buoy.dev/floatingIPs"], "Deny",
        "what people see wins"
    );
    let again = whole(creation(place::POOLS, &key, &Value::Pool(pool)).unwrap());
    let annotations = &again["metadata"]["annotations"];
    assert_eq!(
        annotations["kubectl.kubernetes.io/last-applied-configuration"],
        "{}"
    );
    assert_eq!(
        annotations["projectcalico.org/metadata"],
        r#"{"annotations":{"buoy.dev/floatingIPs":"Deny"}}"#
    );
    assert_eq!(again["metadata"].get("generation"), None);
}

#[test]
fn calico_s_other_group_has_the_same_records_as_people_see_them() {
    let layout = Layout {
        calico: CalicoGroup::V3,
        ..layout()
    };
    let resource = |key: &Key| super::place(key, &layout).unwrap().resource;
    let pools = resource(&Key::Pool("p".to_owned()));
    assert_eq!(pools.name(), "ippools.projectcalico.org");
    let pool = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "IPPool",
        "metadata": {"name": "p", "uid": "u", "labels": {"a": "b"}, "annotations": {"buoy.dev/floatingIPs": "Only"}},
        "spec": {"cidr": "10.65.0.0/16", "new": 1},
    });
    let Value::Pool(pool) = unchanged(pools, pool) else {
        panic!("no pool")
    };
    assert_eq!(
        (pool.metadata.labels.len(), pool.metadata.annotations.len()),
        (1, 1)
    );
    let settings = resource(&Key::IpamConfig);
    assert_eq!(settings.name(), "ipamconfigurations.projectcalico.org");
    let config = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "IPAMConfiguration", "metadata": {"name": "default"},
        "spec": {"strictAffinity": true, "autoAllocateBlocks": false, "maxBlocksPerHost": 3,
            "ipCooldownSeconds": 0, "kubeVirtVMAddressPersistence": "Enabled"},
    });
    unchanged(settings, config);
    let owner = AffinityOwner::Host("node-a".to_owned());
    let affinities = super::collection(&Prefix::Affinities(owner), &layout);
    assert!(
        affinities
            .url("")
            .starts_with("/apis/projectcalico.org/v3/blockaffinities?")
    );
    let affinity = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "BlockAffinity",
        "metadata": {"name": "node-a-10-65-0-0-26", "labels": {
            "projectcalico.org/affinity-type": "host",
            "projectcalico.org/hostname-hash": place_hash("node-a"),
            "projectcalico.org/ip-version": "4",
        }},
        "spec": {"state": "pending", "node": "node-a", "type": "host", "cidr": "10.65.0.0/26", "deleted": false},
    });
    unchanged(affinities.resource, affinity);
    assert_eq!(resource(&Key::EpochFloor).name(), "epochfloors.buoy.dev");
}

#[test]
fn what_calico_hid_badly_is_a_bad_record_and_no_other() {
    let pool = json!({"kind": "IPPool", "metadata": {"name": "p",
        "annotations": {"projectcalico.org/metadata": "{"}}, "spec": {"cidr": "10.65.0.0/16"}});
    let found = read(place::POOLS, &object(pool)).unwrap();
    let reason = found.value.unwrap().unwrap_err().reason;
    assert!(
        reason.starts_with("metadata.annotations.projectcalico.org/metadata: "),
        "{reason}"
    );
}

#[test]
fn a_lease_is_kubernetes_own() {
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "n1", "labels": {"app.kubernetes.io/managed-by": "buoy"},
            "annotations": {"buoy.dev/lease": r#"{"note":"x"}"#}},
        "spec": {"holderIdentity": "me", "leaseDurationSeconds": 6, "leaseTransitions": 4,
            "renewTime": "2026-08-22T10:00:00.123456Z"},
    });
    let Value::Lease(lease) = unchanged(place::LEASES, lease) else {
        panic!("no lease")
    };
    assert_eq!((lease.spec.term.0, lease.spec.duration_seconds), (4, 6));
    let others = json!({"metadata": {"name": "kube-scheduler"}, "spec": {}});
    assert!(read(place::LEASES, &object(others)).is_none());
    let mut old = lease.clone();
    old.spec.term.0 = u64::from(u32::MAX);
    assert!(creation(place::LEASES, &Key::Lease("n1".to_owned()), &Value::Lease(old)).is_err());
}

#[test]
fn a_namespace_is_a_profile_that_nobody_writes() {
    let namespace = json!({"metadata": {"name": "shop", "labels": {"tier": "gold"}}});
    let (key, profile) = value(place::NAMESPACES, namespace);
    let Value::Profile(found) = &profile else {
        panic!("no profile")
    };
    assert_eq!(found.name(), "kns.shop");
    assert_eq!(found.spec.labels_to_apply["pcns.tier"], "gold");
    assert!(matches!(
        creation(place::NAMESPACES, &key, &profile).unwrap(),
        Form::Foreign(_)
    ));
    assert!(matches!(removal(&key, Revision(7)), Some(Form::Foreign(_))));
    assert!(super::place(&Key::Profile("ksa.shop.default".to_owned()), &layout()).is_err());
}

#[test]
fn a_node_has_calico_s_annotations() {
    let node = object(
        json!({"metadata": {"name": "n1", "uid": "u", "labels": {"zone": "a"}, "annotations": {
        "projectcalico.org/IPv4Address": "192.0.2.1/24", "projectcalico.org/ASNumber": "1.10",
        "projectcalico.org/IPv4VXLANTunnelAddr": "10.65.0.1", "theirs": "x"}}}),
    );
    let (key, value) = value(place::NODES, Json::Object(node.clone()));
    let Value::Node(mut found) = value else {
        panic!("no node")
    };
    let bgp = found.spec.bgp.clone().unwrap();
    assert_eq!(bgp.ipv4_address.unwrap().to_string(), "192.0.2.1/24");
    assert_eq!(bgp.as_number, Some(65546));
    assert_eq!(found.spec.extra["ipv4VXLANTunnelAddr"], "10.65.0.1");
    assert_eq!(found.metadata.labels["zone"], "a");

    found
        .metadata
        .annotations
        .insert("buoy.dev/agent".to_owned(), "1".to_owned());
    found.metadata.annotations.remove("theirs");
    found.spec.bgp.as_mut().unwrap().ipv4_address = Some("192.0.2.2/24".parse().unwrap());
    let form = update(
        place::NODES,
        &key,
        &Value::Node(found.clone()),
        Some(&node),
        Revision(7),
    )
    .unwrap();
    assert_eq!(
        whole(form),
        json!({"metadata": {"uid": "u", "resourceVersion": "7", "annotations": {
            "buoy.dev/agent": "1", "theirs": null, "projectcalico.org/ASNumber": "65546",
            "projectcalico.org/IPv4Address": "192.0.2.2/24"}}})
    );
    found.metadata.labels.clear();
    assert!(
        update(
            place::NODES,
            &key,
            &Value::Node(found.clone()),
            Some(&node),
            Revision(7)
        )
        .is_err()
    );
    assert!(creation(place::NODES, &key, &Value::Node(found)).is_err());
    assert!(is_derived(&key));
}

#[test]
fn names_that_are_no_object_s_are_refused() {
    let layout = layout();
    let endpoint = |name: &str| Key::Endpoint {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    };
    for key in [
        Key::Pool("a/b".to_owned()),
        Key::Pool(String::new()),
        Key::Handle("a b".to_owned()),
        endpoint("n1-cni-c0ffee-eth0"),
        endpoint("n1-k8s-web--0-net1"),
        endpoint("n1"),
    ] {
        assert!(super::place(&key, &layout).is_err(), "{key}");
    }
    let place = super::place(&endpoint("n1-k8s-web--0-eth0"), &layout).unwrap();
    assert_eq!(place.path(), "/api/v1/namespaces/shop/pods/web-0");
    let lease = super::place(&Key::Lease("n1".to_owned()), &layout).unwrap();
    assert_eq!(
        lease.path(),
        "/apis/coordination.k8s.io/v1/namespaces/buoy-system/leases/n1"
    );
    let floor = super::collection(&Prefix::EpochFloor, &layout);
    assert_eq!(
        floor.url(""),
        "/apis/buoy.dev/v1alpha1/epochfloors?fieldSelector=metadata%2Ename%3Ddefault"
    );
    let own = Layout {
        node: Some("n1".to_owned()),
        ..layout.clone()
    };
    let own = super::collection(&Prefix::Endpoints, &own);
    assert_eq!(
        own.url("a=b"),
        "/api/v1/pods?fieldSelector=spec%2EnodeName%3Dn1&a=b"
    );
    let pools = super::collection(&Prefix::Pools, &layout);
    assert_eq!(pools.url(""), "/apis/crd.projectcalico.org/v1/ippools");
}

#[path = "pod_tests.rs"]
mod pods;
