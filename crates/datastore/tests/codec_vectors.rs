//! Records in the shape of Calico's, read and written again: nothing may be lost.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use buoy_api::ipam::{AffinityOwner, AffinityState, Block};
use buoy_core::store::{Key, Prefix, Value};
use buoy_datastore::codec::{decode, encode, key, path, ranges};
use serde_json::{Value as Json, json};

const CALICO: &str = "/calico/resources/v3/projectcalico.org";

fn block_4(changes: impl FnOnce(&mut Json)) -> Json {
    let mut block = json!({
        "cidr": "10.20.30.4/30",
        "affinity": "host:alpha",
        "affinity_claim_time": "2026-03-01T08:00:00Z",
        "allocations": [0, null, 1, null],
        "unallocated": [3, 1],
        "attributes": [
            {"handle_id": "net.aaaa", "secondary": {"node": "alpha", "timestamp": "2026-03-01 08:00:01.5 +0000 UTC"}},
            {"releasedAt": "2026-03-01T09:00:00Z"}
        ],
        "sequenceNumber": 1_795_222_770_930_025_601_u64,
        "sequenceNumberForAllocation": {"0": u64::MAX, "2": 1_795_222_770_930_025_600_u64},
        "deleted": false
    });
    changes(&mut block);
    block
}

/// Path, and JSON that must come out as it went in.
fn vectors() -> Vec<(String, Json)> {
    let resource = |plural: &str, name: &str, kind: &str, spec: Json| {
        let (namespace, short) = name
            .split_once('/')
            .map_or((None, name), |(namespace, name)| (Some(namespace), name));
        let mut metadata = json!({
            "name": short, "uid": "7d1f0c1e-0000-4000-8000-000000000001",
            "creationTimestamp": "2026-03-01T08:00:00Z",
            "labels": {"a/b": "c"}, "annotations": {"note": "x"}, "finalizers": ["kept"]
        });
        if let Some(namespace) = namespace {
            metadata["namespace"] = json!(namespace);
        }
        let record = json!({
            "kind": kind, "apiVersion": "projectcalico.org/v3",
            "metadata": metadata, "spec": spec, "top": {"level": 1}
        });
        (format!("{CALICO}/{plural}/{name}"), record)
    };
    let ipam = |path: &str, value: Json| (format!("/calico/ipam/v2/{path}"), value);
    vec![
        resource(
            "ippools",
            "front",
            "IPPool",
            json!({
                "cidr": "10.20.0.0/16", "blockSize": 28, "ipipMode": "Never", "vxlanMode": "CrossSubnet",
                "natOutgoing": true, "nodeSelector": "all()", "allowedUses": ["Workload"],
                "assignmentMode": "Manual", "awsSubnetID": "kept"
            }),
        ),
        resource(
            "ipreservations",
            "fixed",
            "IPReservation",
            json!({"reservedCIDRs": ["10.20.1.0/24", "fd00:9::/64"]}),
        ),
        resource(
            "nodes",
            "alpha",
            "Node",
            json!({
                "bgp": {"ipv4Address": "192.0.2.7/24", "asNumber": 4_200_000_001_u32, "routeReflectorClusterID": "1.2.3.4"},
                "orchRefs": [{"nodeName": "alpha", "orchestrator": "k8s"}]
            }),
        ),
        resource(
            "workloadendpoints",
            "shop/alpha-k8s-web--0-eth0",
            "WorkloadEndpoint",
            json!({
                "orchestrator": "k8s", "node": "alpha", "pod": "web-0", "containerID": "c1", "endpoint": "eth0",
                "serviceAccountName": "default", "ipNetworks": ["10.20.30.4/32"],
                "ipNATs": [{"internalIP": "10.20.30.4", "externalIP": "not an address"}],
                "profiles": ["kns.shop"], "interfaceName": "cali0123456789a", "mac": "02:00:00:00:00:01",
                "ports": [{"name": "http", "protocol": "TCP", "port": 80, "hostPort": 0, "hostIP": ""}]
            }),
        ),
        resource(
            "felixconfigurations",
            "default",
            "FelixConfiguration",
            json!({"floatingIPs": "Enabled", "bpfEnabled": false}),
        ),
        resource(
            "clusterinformations",
            "default",
            "ClusterInformation",
            json!({
                "clusterGUID": "g", "datastoreReady": true, "calicoVersion": "v3", "clusterType": "x"
            }),
        ),
        resource(
            "profiles",
            "kns.shop",
            "Profile",
            json!({"labelsToApply": {"pcns.a": "b"}, "egress": [{"action": "Allow"}]}),
        ),
        resource(
            "bgppeers",
            "rack-1",
            "BGPPeer",
            json!({
                "nodeSelector": "rack == '1'", "peerIP": "[2001:db8::1]:1790", "asNumber": u32::MAX, "localASNumber": 64_600,
                "password": {"secretKeyRef": {"name": "bgp", "key": "rack-1"}, "kept": true},
                "sourceAddress": "UseNodeIP", "maxRestartTime": "2m0s", "keepaliveTime": "3s", "ttlSecurity": 1,
                "filters": ["rack"], "reversePeering": "Auto", "numAllowedLocalASNumbers": 2
            }),
        ),
        resource(
            "bgpconfigurations",
            "default",
            "BGPConfiguration",
            json!({
                "nodeToNodeMeshEnabled": false, "asNumber": 64_600, "listenPort": 1790, "logSeverityScreen": "Info",
                "nodeMeshPassword": {"secretKeyRef": {"name": "bgp", "key": "mesh"}},
                "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}],
                "communities": [{"name": "c", "value": "64600:1"}], "bindMode": "NodeIP"
            }),
        ),
        ipam("assignment/ipv4/block/10.20.30.4-30", block_4(|_| {})),
        ipam(
            "assignment/ipv4/block/10.20.30.4-30",
            block_4(|block| {
                block["affinity"] = Json::Null;
                block["deleted"] = json!(true);
                block["newer"] = json!([1, {"x": u64::MAX}]);
                block["attributes"][0]["alternateOwnerAttrs"] = json!({"pod": "twin"});
            }),
        ),
        ipam(
            "assignment/ipv6/block/fd00:9::5c80-127",
            json!({
                "cidr": "fd00:9::5c80/127", "affinity": "virtual:load-balancer", "allocations": [null, null],
                "unallocated": [0, 1], "attributes": [], "sequenceNumber": 0,
                "sequenceNumberForAllocation": {}, "deleted": false
            }),
        ),
        ipam(
            "host/alpha/ipv4/block/10.20.30.4-30",
            json!({"state": "pending", "deleted": false, "more": 1}),
        ),
        ipam(
            "virtual/load-balancer/ipv6/block/fd00:9::5c80-127",
            json!({"state": "pendingDeletion", "deleted": true}),
        ),
        ipam(
            "handle/net.aaaa",
            json!({"block": {"10.20.30.4/30": 1, "fd00:9::5c80/127": 2}, "deleted": false, "id": "kept"}),
        ),
        ipam(
            "config",
            json!({
                "strict_affinity": true, "auto_allocate_blocks": false, "maxBlocksPerHost": 4,
                "ipCooldownSeconds": 30, "kubeVirtVMAddressPersistence": "Enabled"
            }),
        ),
        (
            "/buoy/v1alpha1/floatingipbindings/2001-db8-0-0-0-0-0-1".to_owned(),
            json!({
                "kind": "FloatingIPBinding", "apiVersion": "buoy.dev/v1alpha1",
                "metadata": {"name": "2001-db8-0-0-0-0-0-1", "labels": {"node.buoy.dev/alpha": ""}},
                "spec": {
                    "address": "2001:db8::1", "namespace": "shop", "epoch": u64::MAX, "released": "2026-03-01T08:00:00.25Z",
                    "owner": {"node": "alpha", "workload": "web-0", "endpoint": "eth0", "internalIP": "fd00:9::5c80", "uid": "u", "term": 3},
                    "offer": {"workload": "web-1"},
                    "move": {"id": "m1", "to": {"node": "beta", "workload": "web-2"}, "exclusive": true},
                    "drain": "kept"
                },
                "status": {
                    "candidates": [{"node": "alpha", "workload": "web-0", "endpoint": "eth0", "uid": "u", "internalIP": "fd00:9::5c80",
                        "ready": true, "priority": -1, "since": "2026-03-01T08:00:00Z"}],
                    "conditions": [{"type": "Accepted", "status": "True", "reason": "Fits", "message": ""}],
                    "observed": 7
                }
            }),
        ),
        (
            "/buoy/v1alpha1/epochfloors/default".to_owned(),
            json!({
                "kind": "EpochFloor", "apiVersion": "buoy.dev/v1alpha1", "metadata": {"name": "default"}, "spec": {"epoch": 9}
            }),
        ),
        (
            "/buoy/v1alpha1/nodeleases/alpha".to_owned(),
            json!({
                "kind": "NodeLease", "apiVersion": "buoy.dev/v1alpha1", "metadata": {"name": "alpha", "uid": "u"},
                "spec": {"holder": "a7f3", "term": u64::MAX, "durationSeconds": 6, "renewed": "2026-03-01T08:00:00.25Z",
                    "reason": "kept"},
                "status": {"seen": 1}
            }),
        ),
    ]
}

#[test]
fn what_is_read_is_written_again_whole() {
    for (record_path, json) in vectors() {
        let key = key(&record_path).unwrap_or_else(|| panic!("{record_path}"));
        assert_eq!(path(&key).unwrap(), record_path);
        let value =
            decode(&key, json.to_string().as_bytes()).unwrap_or_else(|bad| panic!("{record_path}: {bad}"));
        let again: Json = serde_json::from_slice(&encode(&value).unwrap()).unwrap();
        assert_eq!(again, json, "{record_path}");
    }
}

#[test]
fn every_key_lies_in_the_ranges_of_the_prefixes_that_cover_it_and_in_no_others() {
    let prefixes = [
        Prefix::Pools,
        Prefix::Reservations,
        Prefix::Nodes,
        Prefix::Endpoints,
        Prefix::Felix,
        Prefix::ClusterInformations,
        Prefix::Profiles,
        Prefix::BgpPeers,
        Prefix::BgpConfigurations,
        Prefix::Leases,
        Prefix::Blocks(buoy_api::Family::V4),
        Prefix::Blocks(buoy_api::Family::V6),
        Prefix::Affinities(AffinityOwner::Host("alpha".into())),
        Prefix::Affinities(AffinityOwner::Host("alph".into())),
        Prefix::AllAffinities,
        Prefix::Handles,
        Prefix::IpamConfig,
        Prefix::Bindings,
        Prefix::EpochFloor,
    ];
    for (record_path, _) in vectors() {
        let key = key(&record_path).unwrap();
        for prefix in &prefixes {
            let inside = ranges(prefix)
                .unwrap()
                .iter()
                .any(|range| range.contains(&record_path));
            assert_eq!(inside, prefix.covers(&key), "{prefix:?} {record_path}");
        }
    }
}

#[test]
fn paths_of_other_records_have_no_key() {
    for path in [
        "/calico/ipam/v2/host/alpha",
        "/calico/ipam/v2/assignment/ipv4/block/10.20.30.5-30",
        "/calico/ipam/v2/assignment/ipv6/block/10.20.30.4-30",
        "/calico/ipam/v2/assignment/ipv6/block/FD00:9::5c80-127",
        "/calico/ipam/v2/assignment/ipv4/block/garbage",
        "/calico/resources/v3/projectcalico.org/ippools/",
        "/calico/resources/v3/projectcalico.org/ippools/a/b",
        "/calico/resources/v3/projectcalico.org/workloadendpoints/only-a-namespace",
        "/calico/resources/v3/projectcalico.org/globalnetworkpolicies/x",
        "/buoy/v1alpha1/epochfloors/other",
        "/buoy/v1alpha1/nodeleases/n1/more",
        "/calico/resources/v3/projectcalico.org/bgpfilters/x",
        "/elsewhere",
        "",
    ] {
        assert_eq!(key(path), None, "{path}");
    }
    assert!(path(&Key::Pool("a/b".into())).is_err());
    assert!(path(&Key::Handle(String::new())).is_err());
    assert!(path(&Key::Block("10.20.30.5/30".parse().unwrap())).is_err());
}

fn reason(path: &str, json: &str) -> String {
    decode(&key(path).unwrap(), json.as_bytes()).unwrap_err().reason
}

#[test]
fn a_record_that_does_not_decode_says_which_field() {
    let pool = |spec: &str| {
        reason(
            &format!("{CALICO}/ippools/p"),
            &format!(
                r#"{{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{{"name":"p"}},"spec":{spec}}}"#
            ),
        )
    };
    assert!(pool(r#"{"cidr":"10.0.0.0/8","blockSize":"big"}"#).starts_with("spec.blockSize: "));
    assert!(pool(r#"{"cidr":"10.0.0.0/99"}"#).starts_with("spec.cidr: "));
    assert!(pool(r#"{"blockSize":26}"#).starts_with("spec: missing field `cidr`"));
    let binding = |spec: &str| {
        let record = format!(
            r#"{{"kind":"FloatingIPBinding","apiVersion":"buoy.dev/v1alpha1","metadata":{{"name":"b"}},"spec":{spec}}}"#
        );
        reason("/buoy/v1alpha1/floatingipbindings/b", &record)
    };
    assert!(
        binding(r#"{"namespace":"shop","offer":{"node":"n1"}}"#)
            .starts_with("spec.offer: missing field `workload`")
    );
    let calico = |plural: &str, kind: &str, spec: &str| {
        let record = format!(
            r#"{{"kind":"{kind}","apiVersion":"projectcalico.org/v3","metadata":{{"name":"x"}},"spec":{spec}}}"#
        );
        reason(&format!("{CALICO}/{plural}/x"), &record)
    };
    assert!(calico("bgppeers", "BGPPeer", r#"{"asNumber":4294967296}"#).starts_with("spec.asNumber: "));
    assert!(
        calico(
            "bgppeers",
            "BGPPeer",
            r#"{"password":{"secretKeyRef":{"name":"n"}}}"#
        )
        .starts_with("spec.password: missing field `key`")
    );
    assert!(
        calico("bgpconfigurations", "BGPConfiguration", r#"{"listenPort":65536}"#)
            .starts_with("spec.listenPort: ")
    );
    let lease = r#"{"kind":"NodeLease","apiVersion":"buoy.dev/v1alpha1","metadata":{"name":"n1"},"spec":{"term":-1}}"#;
    assert!(reason("/buoy/v1alpha1/nodeleases/n1", lease).starts_with("spec.term: "));
    assert!(pool("7").starts_with("spec: "));
    assert!(reason(&format!("{CALICO}/ippools/p"), "{").starts_with("not JSON: "));
    assert!(reason(&format!("{CALICO}/ippools/p"), "[]").starts_with("not a JSON object"));
    let profile = |text: &str| reason(&format!("{CALICO}/profiles/p"), text);
    let wrong_name = r#"{"kind":"Profile","apiVersion":"projectcalico.org/v3","metadata":{"name":"q"}}"#;
    assert!(profile(wrong_name).starts_with("metadata.name: "));
    let wrong_kind = r#"{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{"name":"p"}}"#;
    assert!(
        profile(wrong_kind).contains("expected Profile"),
        "{}",
        profile(wrong_kind)
    );
    let wrong_labels =
        r#"{"kind":"Profile","apiVersion":"projectcalico.org/v3","metadata":{"name":"p","labels":[]}}"#;
    assert!(profile(wrong_labels).starts_with("metadata.labels: "));

    let affinity = |text: &str| reason("/calico/ipam/v2/host/alpha/ipv4/block/10.20.30.4-30", text);
    assert!(affinity(r#"{"state":"perhaps"}"#).starts_with("state: "));
    assert!(affinity(r#"{"deleted":"no"}"#).starts_with("deleted: "));
}

#[test]
fn a_block_that_contradicts_itself_is_not_trusted() {
    let block = |changes: fn(&mut Json)| {
        reason(
            "/calico/ipam/v2/assignment/ipv4/block/10.20.30.4-30",
            &block_4(changes).to_string(),
        )
    };
    assert!(block(|b| b["cidr"] = json!("10.20.30.8/30")).starts_with("cidr: "));
    assert!(block(|b| b["affinity"] = json!("alpha")).starts_with("affinity: "));
    assert!(block(|b| b["allocations"] = json!([0, null, 1])).starts_with("allocations: "));
    assert!(block(|b| b["allocations"] = json!([0, null, 2, null])).starts_with("allocations: "));
    assert!(block(|b| b["allocations"] = json!([-1, null, 1, null])).starts_with("allocations: "));
    assert!(block(|b| b["unallocated"] = json!([3, 3])).starts_with("unallocated: "));
    assert!(block(|b| b["unallocated"] = json!([0])).starts_with("unallocated: "));
    assert!(block(|b| b["unallocated"] = json!([4])).starts_with("unallocated: "));
    assert!(block(|b| b["sequenceNumber"] = json!(1.5)).starts_with("sequenceNumber: "));
    assert!(block(|b| b["attributes"][0]["secondary"] = json!(7)).starts_with("attributes: "));
}

#[test]
fn old_and_empty_spellings_are_read() {
    let block_path = "/calico/ipam/v2/assignment/ipv4/block/10.20.30.4-30";
    let block = |changes: fn(&mut Json)| -> Block {
        match decode(&key(block_path).unwrap(), block_4(changes).to_string().as_bytes()) {
            Ok(Value::Block(block)) => block,
            other => panic!("{other:?}"),
        }
    };
    let legacy = block(|b| {
        b["affinity"] = Json::Null;
        b["hostAffinity"] = json!("alpha");
    });
    assert_eq!(legacy.affinity, Some(AffinityOwner::Host("alpha".into())));
    let text = String::from_utf8(encode(&Value::Block(legacy)).unwrap()).unwrap();
    assert!(
        text.contains(r#""affinity":"host:alpha""#) && !text.contains("hostAffinity"),
        "{text}"
    );
    let go = block(|b| {
        b["allocations"] = json!([0, 0, 0, 0]);
        b["unallocated"] = Json::Null;
        b["attributes"] = json!([{"handle_id": null, "secondary": null}]);
        b["sequenceNumberForAllocation"] = Json::Null;
    });
    assert!(go.unallocated.is_empty() && go.attributes[0].handle.is_none());

    let affinity = key("/calico/ipam/v2/host/alpha/ipv4/block/10.20.30.4-30").unwrap();
    for empty in ["", "{}", r#"{"state":""}"#] {
        match decode(&affinity, empty.as_bytes()) {
            Ok(Value::Affinity(found)) => assert_eq!(found.state, AffinityState::Confirmed),
            other => panic!("{other:?}"),
        }
    }
}
