//! Everything that needs neither a namespace nor a third party: names, VERSION, errors of input, CHECK, GC, STATUS,
//! and `calico-ipam`.

use std::fs;

use crate::support::Site;
use crate::support::agent::{Act, FakeAgent};
use crate::support::netns::Netns;
use buoy_cni_spec::agent::{Body, SpoolRecord};
use buoy_cni_spec::netconf::Attachment;
use serde_json::{Value, json};

fn ok() -> Vec<Act> {
    vec![Act::Answer(Ok(Value::Null))]
}

#[test]
fn version() {
    let site = Site::new();
    let expected = json!({"cniVersion": "1.1.0",
        "supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]});
    for plugin in ["calico", "calico-ipam"] {
        assert_eq!(site.call(plugin, "VERSION", &json!({})).run().success(), expected);
        assert_eq!(
            site.call(plugin, "VERSION", &json!({}))
                .stdin("garbage")
                .run()
                .success(),
            expected
        );
    }
}

#[test]
fn the_program_has_two_names() {
    let site = Site::new();
    let error = site.call("buoy-cni", "VERSION", &json!({})).run().failure(999);
    assert_eq!(error["msg"], "not the name of a plugin: buoy-cni");
    assert!(
        error["details"]
            .as_str()
            .unwrap()
            .contains("calico and calico-ipam"),
        "{error}"
    );
}

#[test]
fn a_person_is_told_what_it_is() {
    let site = Site::new();
    let outcome = site.call("calico", "", &json!({})).run();
    assert!(
        outcome.stderr.contains("a CNI plugin") && outcome.stderr.contains("1.1.0"),
        "{outcome:?}"
    );
    assert_eq!(outcome.success(), Value::Null);
    for flag in ["-v", "--version"] {
        let output = std::process::Command::new(site.path("buoy-cni"))
            .arg(flag)
            .output()
            .unwrap();
        assert_eq!(
            output.stdout,
            format!("buoy-cni {}\n", env!("CARGO_PKG_VERSION")).into_bytes()
        );
    }
}

#[test]
fn errors_of_the_environment_are_code_4() {
    let site = Site::new();
    let config = site.config("0.3.1", json!({}));
    let add = || site.call("calico", "ADD", &config).netns("/run/netns/w");
    let cases = [
        (
            add().env("CNI_CONTAINERID", ""),
            "required env variables [CNI_CONTAINERID] missing",
        ),
        (
            add().env("CNI_IFNAME", "").env("CNI_PATH", ""),
            "required env variables [CNI_IFNAME,CNI_PATH] missing",
        ),
        (
            add().env("CNI_NETNS", ""),
            "required env variables [CNI_NETNS] missing",
        ),
        (add().env("CNI_COMMAND", "JUMP"), "unknown CNI_COMMAND: JUMP"),
        (
            add().env("CNI_CONTAINERID", "-c/1"),
            "invalid characters in containerID",
        ),
        (
            add().env("CNI_IFNAME", "sixteen-letters-"),
            "interface name is too long",
        ),
        (add().env("CNI_ARGS", "foo"), "ARGS: invalid pair \"foo\""),
        (
            add().env("CNI_ARGS", "IP=x"),
            "ARGS: error parsing value of pair \"IP=x\": invalid IP address: x",
        ),
    ];
    for (call, msg) in cases {
        assert_eq!(call.run().failure(4)["msg"], msg);
    }
}

#[test]
fn errors_of_the_configuration_have_their_codes() {
    let site = Site::new();
    let add = |stdin: &[u8]| {
        site.call("calico", "ADD", &json!({}))
            .netns("/run/netns/w")
            .stdin(stdin)
            .run()
    };
    for not_json in [&b""[..], b"{", b"\xff\xfe", b"{name: pods}", &[b'['; 5_000]] {
        assert_eq!(add(not_json).failure(6)["cniVersion"], "1.1.0");
    }
    assert_eq!(
        add(b"{\"cniVersion\": \"1.0.0\"}").failure(7)["msg"],
        "missing network name"
    );
    assert_eq!(
        add(br#"{"name": "bad name!"}"#).failure(7)["msg"],
        "invalid characters found in network name"
    );
    let bad = add(br#"{"name": "pods", "cniVersion": "0.4.0", "mtu": "x"}"#).failure(7);
    assert_eq!(bad["cniVersion"], "0.4.0");
    assert!(bad["msg"].as_str().unwrap().contains(": mtu: "), "{bad}");
    let newer = add(br#"{"name": "pods", "cniVersion": "9.9.9"}"#).failure(1);
    assert_eq!(
        (&newer["msg"], &newer["cniVersion"]),
        (&json!("incompatible CNI versions"), &json!("9.9.9"))
    );
    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(1 << 20));
    assert!(
        add(large.as_bytes()).failure(7)["msg"]
            .as_str()
            .unwrap()
            .contains("too large")
    );
}

#[test]
fn check_asks_the_agent() {
    let (site, netns) = (Site::new(), Netns::new());
    let config = site.config("0.4.0", json!({"prevResult": {"ips": []}}));
    let agent = FakeAgent::start(site.socket(), ok());
    assert_eq!(
        site.call("calico", "CHECK", &config)
            .netns(netns.path())
            .run()
            .success(),
        Value::Null
    );
    let received = agent.only();
    assert_eq!(received.netns, Some(netns.identity()));
    assert!(matches!(received.request.body, Body::Check(check) if check.config == config));
    site.call("calico", "CHECK", &config)
        .netns(netns.path())
        .run()
        .failure(11);
    let older = site.config("0.3.1", json!({}));
    let error = site
        .call("calico", "CHECK", &older)
        .netns(netns.path())
        .run()
        .failure(1);
    assert_eq!(error["msg"], "config version does not allow CHECK");
}

#[test]
fn gc_needs_its_list() {
    let site = Site::new();
    for plugin in ["calico", "calico-ipam"] {
        let valid = json!([{"containerID": "c7", "ifname": "eth0"}]);
        let config = site.config("1.1.0", json!({"cni.dev/valid-attachments": valid}));
        let agent = FakeAgent::start(site.socket(), ok());
        site.call(plugin, "GC", &config).run().success();
        let attachment = Attachment {
            container_id: "c7".into(),
            ifname: "eth0".into(),
        };
        assert_eq!(
            agent.only_body(),
            Body::Gc {
                network: "pods".into(),
                valid: vec![attachment]
            }
        );
        site.call(plugin, "GC", &config).run().failure(11);
        site.call(plugin, "GC", &site.config("1.1.0", json!({})))
            .run()
            .failure(7);
        let error = site
            .call(plugin, "GC", &site.config("1.0.0", json!({})))
            .run()
            .failure(1);
        assert_eq!(error["msg"], "config version does not allow GC");
    }
}

#[test]
fn status_says_whether_an_add_could_be_served() {
    let site = Site::new();
    let config = site.config("1.1.0", json!({}));
    for plugin in ["calico", "calico-ipam"] {
        let agent = FakeAgent::start(site.socket(), ok());
        site.call(plugin, "STATUS", &config).run().success();
        assert_eq!(agent.only_body(), Body::Status);
        let error = site.call(plugin, "STATUS", &config).run().failure(50);
        site.is_named_by(&error);
        site.call(plugin, "STATUS", &site.config("1.0.0", json!({})))
            .run()
            .failure(1);
    }
}

#[test]
fn calico_ipam_gives_and_frees_addresses() {
    let site = Site::new();
    let config = site.config("1.0.0", json!({"type": "bridge"}));
    let call = |command| {
        site.call("calico-ipam", command, &config)
            .netns("/run/netns/w")
            .run()
    };
    let result = json!({"cniVersion": "1.0.0", "ips": [{"address": "192.0.2.7/26"}]});
    let agent = FakeAgent::start(
        site.socket(),
        vec![Act::Answer(Ok(result.clone())), Act::Answer(Ok(Value::Null))],
    );
    assert_eq!(call("ADD").success(), result);
    assert_eq!(call("DEL").success(), Value::Null);
    let bodies: Vec<_> = agent
        .received()
        .into_iter()
        .map(|received| received.request.body)
        .collect();
    let [Body::IpamAdd(add), Body::IpamDel(del)] = &bodies[..] else {
        panic!("{bodies:?}")
    };
    assert_eq!((add.container_id.as_str(), &add.config), ("c1", &config));
    assert_eq!(
        (del.ifname.as_str(), del.netns_path.as_deref()),
        ("eth0", Some("/run/netns/w"))
    );

    call("ADD").failure(11);
    assert_eq!(call("CHECK").success(), Value::Null);
    assert_eq!(call("DEL").success(), Value::Null);
    assert_eq!(site.spooled(), ["ipam:c1-eth0.json"]);
    let record = fs::read(site.spool().join("ipam:c1-eth0.json")).unwrap();
    assert!(
        matches!(serde_json::from_slice(&record), Ok(SpoolRecord::IpamDel(del)) if del.container_id == "c1")
    );
}
