use super::*;
use serde_json::{Value, json};

fn add(config: Value, args: &str) -> AddRequest {
    AddRequest {
        container_id: "c0ffee".into(),
        ifname: "eth0".into(),
        netns_path: "/run/netns/x".into(),
        args: args.into(),
        path: "/opt/cni/bin".into(),
        config,
        delegated: None,
        deadline_ms: 1000,
    }
}

fn config(extra: Value) -> Value {
    let mut config =
        json!({"cniVersion": "1.0.0", "name": "pods", "type": "calico", "ipam": {"type": "calico-ipam"}});
    let (Some(config_map), Value::Object(extra)) = (config.as_object_mut(), extra) else {
        panic!()
    };
    config_map.extend(extra);
    config
}

fn annotated(annotations: Value, extra: Value) -> Value {
    let mut config = config(extra);
    config["runtimeConfig"] = json!({"io.kubernetes.cri.pod-annotations": annotations});
    config
}

fn read(add: &AddRequest) -> Result<Parsed, CniError> {
    let at = Netns {
        path: add.netns_path.clone(),
        device: 1,
        inode: 2,
    };
    parse(add, at, "node-a", &|configured| configured, Timestamp::UNIX_EPOCH)
}

const POD: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=demo;K8S_POD_NAME=web-0;K8S_POD_UID=u1";

#[test]
fn a_pod_is_named_as_in_kubernetes() {
    let attachment = read(&add(config(json!({})), POD)).unwrap().attachment;
    assert_eq!(attachment.endpoint.namespace, "demo");
    assert_eq!(attachment.endpoint.name, "node--a-k8s-web--0-eth0");
    assert_eq!(attachment.request.host_ifname.0, "cali50aeaf5a85d");
    assert_eq!(
        (
            attachment.request.workload.as_str(),
            attachment.request.uid.as_str()
        ),
        ("web-0", "u1")
    );
}

#[test]
fn a_container_is_named_by_its_id_and_belongs_to_a_namespace() {
    let plain = read(&add(config(json!({})), "")).unwrap().attachment;
    assert_eq!(plain.endpoint.namespace, "default");
    assert_eq!(plain.endpoint.name, "node--a-cni-c0ffee-eth0");
    assert_eq!(plain.request.host_ifname.0, "calic0ffee");
    let configured = read(&add(config(json!({"buoy": {"namespace": "shop"}})), ""))
        .unwrap()
        .attachment;
    assert_eq!(configured.endpoint.namespace, "shop");
    let argued = add(
        config(json!({"buoy": {"namespace": "shop"}})),
        "BUOY_NAMESPACE=lab",
    );
    assert_eq!(read(&argued).unwrap().attachment.endpoint.namespace, "lab");
}

#[test]
fn how_a_floating_ip_leaves_is_kept_with_the_attachment() {
    let asked = json!({"buoy.dev/floatingIPDrain": "30s", "buoy.dev/floatingIPMove": "exclusive"});
    let request = read(&add(annotated(asked, json!({})), POD))
        .unwrap()
        .attachment
        .request;
    assert_eq!(
        (request.drain, request.exclusive),
        (Duration::from_secs(30), true)
    );
    let wrong = json!({"buoy.dev/floatingIPDrain": "2h"});
    let refused = read(&add(annotated(wrong, json!({})), POD)).unwrap_err();
    assert_eq!(refused.msg, "buoy.dev/floatingIPDrain: too long: 2h");
}

#[test]
fn an_attachment_of_a_version_that_knew_no_drain_is_read() {
    let attachment = read(&add(config(json!({})), POD)).unwrap().attachment;
    let mut stored = serde_json::to_value(&attachment).unwrap();
    let request = stored["request"].as_object_mut().unwrap();
    for field in ["drain", "exclusive"] {
        request.remove(field).unwrap();
    }
    assert_eq!(serde_json::from_value::<Attachment>(stored).unwrap(), attachment);
}

#[test]
fn a_repeated_request_asks_for_the_same() {
    let request = add(config(json!({})), POD);
    assert_eq!(
        read(&request).unwrap().attachment,
        read(&request).unwrap().attachment
    );
}

#[test]
fn fixed_addresses_come_in_every_form_and_the_nearest_to_the_workload_wins() {
    let own = |request: &AddRequest| read(request).unwrap().attachment.request.addresses;
    let specific = |text: &str| AddressRequest::Specific(vec![text.parse().unwrap()]);
    let forms = json!({"runtimeConfig": {"ips": ["10.0.0.2"]}, "args": {"cni": {"ips": ["10.0.0.3"]}}});
    assert_eq!(own(&add(config(json!({})), "IP=10.0.0.4")), specific("10.0.0.4"));
    assert_eq!(
        own(&add(
            config(json!({"args": {"cni": {"ips": ["10.0.0.3"]}}})),
            "IP=10.0.0.4"
        )),
        specific("10.0.0.3")
    );
    assert_eq!(own(&add(config(forms), "IP=10.0.0.4")), specific("10.0.0.2"));
    let annotations = json!({"cni.projectcalico.org/ipAddrs": "[\"10.0.0.1\"]"});
    assert_eq!(
        own(&add(annotated(annotations, json!({})), "IP=10.0.0.4")),
        specific("10.0.0.1")
    );
}

#[test]
fn two_addresses_of_one_family_are_refused_in_every_form() {
    for request in [
        add(config(json!({})), "IP=10.0.0.4,10.0.0.5"),
        add(
            config(json!({"args": {"cni": {"ips": ["10.0.0.4", "10.0.0.5"]}}})),
            "",
        ),
        add(
            annotated(
                json!({"cni.projectcalico.org/ipAddrs": "[\"10.0.0.4\",\"10.0.0.5\"]"}),
                json!({}),
            ),
            POD,
        ),
    ] {
        let error = read(&request).unwrap_err();
        assert!(
            error.msg.contains("cannot have more than one IPv4 address"),
            "{error:?}"
        );
    }
}

#[test]
fn the_gate_is_the_configurations_unless_the_agent_says_otherwise() {
    let annotations = json!({"cni.projectcalico.org/floatingIPs": "[\"172.16.1.3\"]"});
    let shut = add(annotated(annotations.clone(), json!({})), POD);
    assert_eq!(
        read(&shut).unwrap_err().msg,
        "requested feature is not enabled: floating_ips"
    );
    let open = add(
        annotated(annotations, json!({"feature_control": {"floating_ips": true}})),
        POD,
    );
    let attachment = read(&open).unwrap().attachment;
    assert!(attachment.request.gate);
    assert_eq!(attachment.request.floating, ["172.16.1.3".parse().unwrap()]);
    let at = Netns {
        path: String::new(),
        device: 1,
        inode: 2,
    };
    assert!(parse(&shut, at.clone(), "n", &|_| true, Timestamp::UNIX_EPOCH).is_ok());
    assert!(parse(&open, at, "n", &|_| false, Timestamp::UNIX_EPOCH).is_err());
}

#[test]
fn a_floating_ip_needs_an_address_of_its_family() {
    let annotations = json!({"cni.projectcalico.org/floatingIPs": "[\"fd16::3\"]"});
    let on = json!({"feature_control": {"floating_ips": true}});
    let error = read(&add(annotated(annotations.clone(), on), POD)).unwrap_err();
    assert_eq!(
        error.msg,
        "floating IP fd16::3 needs an IPv6 address, and the workload has none"
    );
    let both = json!({
        "feature_control": {"floating_ips": true},
        "ipam": {"type": "calico-ipam", "assign_ipv6": "true"},
    });
    assert!(read(&add(annotated(annotations, both), POD)).is_ok());
}

#[test]
fn another_plugins_addresses_are_taken_as_they_are() {
    let mut request = add(config(json!({"ipam": {"type": "host-local"}})), POD);
    request.delegated = Some(json!({"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.4/24"}]}));
    let addresses = read(&request).unwrap().attachment.request.addresses;
    assert_eq!(
        addresses,
        AddressRequest::Given(vec!["10.9.0.4".parse().unwrap()])
    );
    request.config["runtimeConfig"] =
        json!({"io.kubernetes.cri.pod-annotations": {"cni.projectcalico.org/ipAddrs": "[\"10.0.0.1\"]"}});
    let error = read(&request).unwrap_err();
    assert_eq!(
        error.msg,
        "ipAddrs is not compatible with configured IPAM: host-local"
    );
}

#[test]
fn an_address_without_ipam_needs_its_own_gate() {
    let annotations = json!({"cni.projectcalico.org/ipAddrsNoIpam": "[\"10.9.9.9\"]"});
    let error = read(&add(annotated(annotations.clone(), json!({})), POD)).unwrap_err();
    assert_eq!(error.msg, "requested feature is not enabled: ip_addrs_no_ipam");
    let on = json!({"feature_control": {"ip_addrs_no_ipam": true}});
    let addresses = read(&add(annotated(annotations, on), POD))
        .unwrap()
        .attachment
        .request
        .addresses;
    assert_eq!(
        addresses,
        AddressRequest::Given(vec!["10.9.9.9".parse().unwrap()])
    );
}

#[test]
fn malformed_annotations_name_themselves() {
    for (key, value) in [
        ("cni.projectcalico.org/floatingIPs", "[\"172.16.1.3\""),
        ("cni.projectcalico.org/floatingIPs", "[\"nonsense\"]"),
        ("cni.projectcalico.org/ipAddrs", "[]"),
        ("cni.projectcalico.org/hwAddr", "no mac"),
    ] {
        let error = read(&add(annotated(json!({key: value}), json!({})), POD)).unwrap_err();
        assert!(
            format!("{}{}", error.msg, error.details).contains(key),
            "{key}={value}: {error:?}"
        );
    }
}
