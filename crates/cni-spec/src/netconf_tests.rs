use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn the_least_configuration_has_the_documented_defaults() {
    let conf = NetConf::from_value(json!({"name": "pods"})).unwrap();
    assert_eq!(conf.version, CniVersion::V0_2_0);
    assert_eq!(
        (conf.mtu, conf.num_queues, conf.allow_ip_forwarding),
        (None, 1, false)
    );
    assert!(conf.ipam.assign_v4 && !conf.ipam.assign_v6);
    assert_eq!(
        conf.feature_control,
        FeatureControl {
            floating_ips: false,
            ip_addrs_no_ipam: false
        }
    );
    assert_eq!((conf.valid_attachments, conf.prev_result), (None, None));
}

#[test]
fn every_known_key_is_read() {
    let document = json!({
        "cniVersion": "1.0.0", "name": "pods", "type": "calico", "mtu": 1440, "num_queues": 4,
        "nodename": "n7", "hostname": "ignored", "log_level": "debug", "datastore_type": "etcdv3",
        "etcd_endpoints": "http://192.0.2.9:2379", "some_future_key": {"a": [1]},
        "ipam": {"type": "calico-ipam", "assign_ipv4": "false", "assign_ipv6": "true",
                 "ipv4_pools": ["blue"], "ipv6_pools": ["2001:db8::/64"], "subnet": "usePodCidr"},
        "feature_control": {"floating_ips": true, "ip_addrs_no_ipam": true},
        "container_settings": {"allow_ip_forwarding": true},
        "policy": {"type": "k8s"},
        "buoy": {"socket": "/srv/a.sock", "namespace": "shop", "spool": "/srv/spool"},
        "runtimeConfig": {
            "io.kubernetes.cri.pod-annotations": {"k": "v"},
            "ips": ["192.0.2.7/24", "2001:db8::7"], "mac": "02:00:00:00:00:07", "portMappings": [{"hostPort": 80}]},
        "args": {"cni": {"ips": ["192.0.2.8"], "mac": "02:00:00:00:00:08",
                         "labels": [{"key": "app", "value": "web"}, {"key": "empty"}]}},
        "prevResult": {"ips": []},
    });
    let conf = NetConf::from_value(document.clone()).unwrap();
    assert_eq!(
        (conf.version, conf.mtu, conf.num_queues),
        (CniVersion::V1_0_0, Some(1440), 4)
    );
    assert_eq!(
        (conf.kind.as_deref(), conf.node_name.as_deref()),
        (Some("calico"), Some("n7"))
    );
    assert_eq!(
        (conf.policy_type.as_deref(), conf.log_level.as_deref()),
        (Some("k8s"), Some("debug"))
    );
    assert!(!conf.ipam.assign_v4 && conf.ipam.assign_v6);
    assert_eq!(
        (conf.ipam.v4_pools, conf.ipam.v6_pools),
        (vec!["blue".into()], vec!["2001:db8::/64".into()])
    );
    assert!(
        conf.feature_control.floating_ips
            && conf.feature_control.ip_addrs_no_ipam
            && conf.allow_ip_forwarding
    );
    assert_eq!(conf.buoy.socket, Some("/srv/a.sock".into()));
    assert_eq!(
        (conf.buoy.namespace.as_deref(), conf.buoy.spool),
        (Some("shop"), Some("/srv/spool".into()))
    );
    assert_eq!(
        conf.runtime.pod_annotations,
        BTreeMap::from([("k".into(), "v".into())])
    );
    assert_eq!(
        conf.runtime.ips,
        [
            "192.0.2.7".parse::<IpAddr>().unwrap(),
            "2001:db8::7".parse().unwrap()
        ]
    );
    assert_eq!(
        (conf.runtime.mac, conf.args.mac),
        (
            Some(MacAddr([2, 0, 0, 0, 0, 7])),
            Some(MacAddr([2, 0, 0, 0, 0, 8]))
        )
    );
    assert_eq!(
        conf.args.labels,
        BTreeMap::from([("app".into(), "web".into()), ("empty".into(), String::new())])
    );
    assert_eq!(conf.prev_result, Some(json!({"ips": []})));
    assert_eq!(conf.raw, document);
}

#[test]
fn third_party_ipam_is_any_type_but_our_own() {
    let with = |kind| NetConf::from_value(json!({"name": "pods", "ipam": {"type": kind}})).unwrap();
    assert_eq!(with("calico-ipam").third_party_ipam(), None);
    assert_eq!(with("").third_party_ipam(), None);
    assert_eq!(with("host-local").third_party_ipam(), Some("host-local"));
}

#[test]
fn lenient_where_calico_is() {
    let conf = NetConf::from_value(json!({
        "name": "pods", "mtu": 0, "num_queues": -3, "hostname": "old", "nodename": "", "policy": null,
        "ipam": {"assign_ipv6": true}, "args": {"cni": {"labels": {"a": "b"}}},
    }))
    .unwrap();
    assert_eq!(
        (conf.mtu, conf.num_queues, conf.node_name.as_deref()),
        (None, 1, Some("old"))
    );
    assert!(conf.ipam.assign_v6);
    assert_eq!(conf.args.labels["a"], "b");
}

#[test]
fn a_bad_value_is_code_7_and_named_by_its_key() {
    let cases = [
        (json!({"mtu": "big"}), "mtu: expected a whole number, got \"big\""),
        (json!({"mtu": -1}), "mtu: out of range: -1"),
        (
            json!({"mtu": 12}),
            "mtu: expected 68 to 65535, or 0 for the default, got 12",
        ),
        (json!({"ipam": []}), "ipam: expected an object, got []"),
        (
            json!({"ipam": {"assign_ipv4": "maybe"}}),
            "ipam.assign_ipv4: expected true or false, got \"maybe\"",
        ),
        (
            json!({"ipam": {"ipv4_pools": "blue"}}),
            "ipam.ipv4_pools: expected a list, got \"blue\"",
        ),
        (
            json!({"ipam": {"ipv4_pools": ["a", 7]}}),
            "ipam.ipv4_pools[1]: expected a text, got 7",
        ),
        (
            json!({"device_type": "tun"}),
            "device_type: expected \"veth\" or \"netkit\", got \"tun\"",
        ),
        (
            json!({"buoy": {"socket": "agent.sock"}}),
            "buoy.socket: expected an absolute path, got \"agent.sock\"",
        ),
        (
            json!({"buoy": {"namespace": "a/b"}}),
            "buoy.namespace: expected letters, digits, `-`, `_` and `.`, got \"a/b\"",
        ),
        (
            json!({"runtimeConfig": {"ips": ["nine"]}}),
            "runtimeConfig.ips: not an IP address: \"nine\"",
        ),
        (
            json!({"runtimeConfig": {"mac": "x"}}),
            "runtimeConfig.mac: not a MAC address: \"x\", got \"x\"",
        ),
        (
            json!({"runtimeConfig": {"io.kubernetes.cri.pod-annotations": {"k": 1}}}),
            "runtimeConfig.io.kubernetes.cri.pod-annotations.k: expected a text, got 1",
        ),
        (
            json!({"args": {"cni": {"labels": [{}]}}}),
            "args.cni.labels[0].key: expected a text, got nothing",
        ),
        (
            json!({"cni.dev/valid-attachments": [{"ifname": "eth0"}]}),
            "cni.dev/valid-attachments[0].containerID: ",
        ),
    ];
    for (mut document, problem) in cases {
        document["name"] = "pods".into();
        let error = NetConf::from_value(document).unwrap_err();
        assert_eq!(error.code, ErrorCode::INVALID_CONFIG);
        let expected = format!("invalid network configuration: {problem}");
        assert!(
            error.msg.starts_with(&expected),
            "{}\ninstead of\n{expected}",
            error.msg
        );
        assert!(!error.details.is_empty());
    }
}

#[test]
fn what_is_no_configuration_has_its_own_code() {
    assert_eq!(NetConf::parse(b"{name").unwrap_err().code, ErrorCode::DECODE);
    assert_eq!(NetConf::parse(b"").unwrap_err().code, ErrorCode::DECODE);
    assert_eq!(
        NetConf::parse(b"[1]").unwrap_err().msg,
        "network configuration is not an object: [1]"
    );
    assert_eq!(NetConf::parse(b"{}").unwrap_err().msg, "missing network name");
    let newer = NetConf::parse(br#"{"name": "pods", "cniVersion": "9.0.0"}"#).unwrap_err();
    assert_eq!(newer.code, ErrorCode::INCOMPATIBLE_VERSION);
}

#[test]
fn gc_attachments() {
    let conf = NetConf::from_value(json!({"name": "pods", "cni.dev/valid-attachments": [
        {"containerID": "c1", "ifname": "eth0"}]}));
    let attachment = Attachment {
        container_id: "c1".into(),
        ifname: "eth0".into(),
    };
    assert_eq!(conf.unwrap().valid_attachments, Some(vec![attachment]));
}

/// Documents whose keys are ours and whose values are anything.
fn any_document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(json!("1.1.0")),
    ];
    let key = prop::sample::select(vec![
        "name",
        "cniVersion",
        "ipam",
        "mtu",
        "num_queues",
        "buoy",
        "socket",
        "runtimeConfig",
        "args",
        "cni",
        "ips",
        "mac",
        "labels",
        "key",
        "cni.dev/valid-attachments",
        "containerID",
        "feature_control",
        "prevResult",
        "ip4",
        "ip",
        "routes",
        "dst",
        "interfaces",
        "interface",
        "address",
        "dns",
        "gateway",
    ]);
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_document_is_read_or_refused_with_a_code(mut document in any_document()) {
        if let Some(map) = document.as_object_mut() {
            map.insert("name".into(), "pods".into());
        }
        match NetConf::from_value(document.clone()) {
            Ok(conf) => prop_assert_eq!(conf.raw, document),
            Err(error) => prop_assert!([1, 7].contains(&error.code.0), "{}", error),
        }
    }

    #[test]
    fn any_result_is_read_or_refused_with_code_6(document in any_document()) {
        match crate::CniResult::parse(&document) {
            Ok(result) => prop_assert_eq!(crate::CniResult::parse(&result.render(CniVersion::V1_1_0)), Ok(result)),
            Err(error) => prop_assert_eq!(error.code, ErrorCode::DECODE),
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64), text in ".{0,64}") {
        prop_assert_eq!(NetConf::parse(&bytes).is_err(), true);
        let args = crate::args::CniArgs::parse(&text);
        prop_assert!(args.is_ok() || args.unwrap_err().msg.starts_with("ARGS: "));
    }
}
