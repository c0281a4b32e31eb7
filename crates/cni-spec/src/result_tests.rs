use serde_json::json;

use super::*;

/// A dual-stack result of the main plugin.
fn dual_stack() -> CniResult {
    let ip = |address: &str| IpConfig {
        address: address.parse().unwrap(),
        gateway: None,
        interface: Some(1),
    };
    CniResult {
        interfaces: vec![
            Interface {
                name: "cali0a".into(),
                ..Interface::default()
            },
            Interface {
                name: "eth0".into(),
                mac: Some("02:00:00:00:00:07".into()),
                mtu: Some(1440),
                sandbox: Some("/run/netns/w".into()),
            },
        ],
        ips: vec![ip("192.0.2.7/32"), ip("2001:db8::7/128")],
        routes: vec![
            Route::to("192.0.2.7/26".parse().unwrap()),
            Route::to("2001:db8::7/122".parse().unwrap()),
        ],
        dns: Dns::default(),
    }
}

#[test]
fn renders_0_1_0_and_0_2_0() {
    for version in [CniVersion::V0_1_0, CniVersion::V0_2_0] {
        assert_eq!(
            dual_stack().render(version),
            json!({"cniVersion": version.as_str(), "dns": {},
                   "ip4": {"ip": "192.0.2.7/32", "routes": [{"dst": "192.0.2.7/26"}]},
                   "ip6": {"ip": "2001:db8::7/128", "routes": [{"dst": "2001:db8::7/122"}]}})
        );
    }
}

#[test]
fn renders_0_3_0_to_0_4_0() {
    for version in [CniVersion::V0_3_0, CniVersion::V0_3_1, CniVersion::V0_4_0] {
        assert_eq!(
            dual_stack().render(version),
            json!({"cniVersion": version.as_str(), "dns": {},
                   "interfaces": [{"name": "cali0a"},
                                  {"name": "eth0", "mac": "02:00:00:00:00:07", "sandbox": "/run/netns/w"}],
                   "ips": [{"version": "4", "interface": 1, "address": "192.0.2.7/32"},
                           {"version": "6", "interface": 1, "address": "2001:db8::7/128"}],
                   "routes": [{"dst": "192.0.2.7/26"}, {"dst": "2001:db8::7/122"}]})
        );
    }
}

#[test]
fn renders_1_0_0_and_1_1_0() {
    let mut result = dual_stack();
    result.routes[0].priority = Some(7);
    for version in [CniVersion::V1_0_0, CniVersion::V1_1_0] {
        let mut first_route = json!({"dst": "192.0.2.7/26"});
        if version == CniVersion::V1_1_0 {
            first_route["priority"] = 7.into();
        }
        assert_eq!(
            result.render(version),
            json!({"cniVersion": version.as_str(),
                   "interfaces": [{"name": "cali0a"}, {"name": "eth0", "mac": "02:00:00:00:00:07", "mtu": 1440,
                                                       "sandbox": "/run/netns/w"}],
                   "ips": [{"interface": 1, "address": "192.0.2.7/32"},
                           {"interface": 1, "address": "2001:db8::7/128"}],
                   "routes": [first_route, {"dst": "2001:db8::7/122"}]})
        );
    }
}

#[test]
fn an_ipam_result_has_no_interfaces() {
    let result = CniResult {
        interfaces: Vec::new(),
        ..dual_stack()
    };
    let rendered = result.render(CniVersion::V1_0_0);
    assert_eq!(rendered.get("interfaces"), None);
    let legacy = CniResult {
        ips: Vec::new(),
        ..result
    }
    .render(CniVersion::V0_2_0);
    assert_eq!(legacy, json!({"cniVersion": "0.2.0", "dns": {}}));
}

#[test]
fn reads_back_every_version_with_what_it_can_hold() {
    let full = dual_stack();
    for version in CniVersion::ALL {
        let mut expected = full.clone();
        if version < CniVersion::V1_0_0 {
            expected.interfaces[1].mtu = None;
        }
        if version.has_legacy_result() {
            expected.interfaces.clear();
            expected.ips.iter_mut().for_each(|ip| ip.interface = None);
        }
        assert_eq!(CniResult::parse(&full.render(version)), Ok(expected), "{version}");
    }
}

#[test]
fn reads_another_plugins_result() {
    let result = CniResult::parse(&json!({
        "cniVersion": "0.3.1",
        "ips": [{"version": "4", "address": "198.51.100.9/24", "gateway": "198.51.100.1"}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "198.51.100.1"}, {"dst": "10.9.0.0/16"}],
        "dns": {"nameservers": ["198.51.100.53"], "search": ["example"], "domain": "d", "options": ["ndots:1"]},
    }))
    .unwrap();
    assert_eq!(result.ips[0].gateway, Some(IpAddr::from([198, 51, 100, 1])));
    assert_eq!(result.ips[0].interface, None);
    assert_eq!(result.routes[0].gw, Some(IpAddr::from([198, 51, 100, 1])));
    assert_eq!(result.routes[1], Route::to("10.9.0.0/16".parse().unwrap()));
    assert_eq!(
        result.render(CniVersion::V1_0_0)["dns"],
        json!({"nameservers": ["198.51.100.53"], "search": ["example"], "domain": "d", "options": ["ndots:1"]})
    );
}

#[test]
fn a_bad_result_is_code_6_and_names_its_key() {
    let cases = [
        (json!({"ips": [{"address": "192.0.2.1"}]}), "ips[0].address: "),
        (
            json!({"ips": [{}]}),
            "ips[0].address: expected an address with prefix length, got nothing",
        ),
        (
            json!({"ips": [{"address": "192.0.2.1/32", "interface": 3}]}),
            "ips: interface 3 is not among",
        ),
        (
            json!({"ips": [{"address": "192.0.2.1/32", "interface": -1}]}),
            "ips[0].interface: out of range: -1",
        ),
        (
            json!({"routes": ["default"]}),
            "routes[0]: expected an object, got \"default\"",
        ),
        (json!({"ip4": {"ip": "web"}}), "ip4.ip: "),
    ];
    for (document, problem) in cases {
        let error = CniResult::parse(&document).unwrap_err();
        assert_eq!(error.code, ErrorCode::DECODE);
        assert!(
            error.msg.starts_with(&format!("invalid CNI result: {problem}")),
            "{}",
            error.msg
        );
    }
}
