//! DEL of `calico`, with and without an agent.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::Site;
use crate::support::agent::{Act, FakeAgent};
use crate::support::netns::Netns;
use buoy_cni_spec::agent::{Body, SpoolRecord};
use buoy_cni_spec::{CniError, ErrorCode};
use serde_json::{Value, json};

/// A workload's namespace as a runtime leaves it: an interface with its peer elsewhere, and one of another plugin.
fn workload() -> (Netns, Netns) {
    let (node, pod) = (Netns::new(), Netns::new());
    for (outside, inside) in [("cali0", "eth0"), ("other0", "net1")] {
        let there = pod.path().display();
        node.ip(&format!(
            "link add {outside} type veth peer name {inside} netns {there}"
        ));
    }
    (node, pod)
}

#[test]
fn the_agent_gets_the_request_and_the_binary_touches_nothing() {
    let (site, (node, pod)) = (Site::new(), workload());
    let agent = FakeAgent::start(site.socket(), vec![Act::Answer(Ok(Value::Null))]);
    let config = site.config("1.0.0", json!({}));
    let outcome = site
        .call("calico", "DEL", &config)
        .netns(pod.path())
        .env("CNI_ARGS", "A=b")
        .inside(node.path())
        .run();
    assert_eq!(outcome.success(), Value::Null);
    let received = agent.only();
    assert_eq!(received.netns, Some(pod.identity()));
    let Body::Del(del) = received.request.body else {
        panic!("not a DEL: {:?}", received.request)
    };
    assert_eq!(
        (del.container_id.as_str(), del.ifname.as_str(), del.args.as_str()),
        ("c1", "eth0", "A=b")
    );
    assert_eq!(del.netns_path.as_deref(), pod.path().to_str());
    assert_eq!(del.config, config);
    assert!((1_000..=5_000).contains(&del.deadline_ms), "{}", del.deadline_ms);
    assert!(pod.has_link("eth0") && node.has_link("cali0"));
    assert_eq!(site.spooled(), [""; 0]);
}

#[test]
fn without_agent_the_interface_goes_and_a_record_stays() {
    let (site, (node, pod)) = (Site::new(), workload());
    let config = site.config("1.0.0", json!({"some": "key"}));
    let del = || {
        site.call("calico", "DEL", &config)
            .netns(pod.path())
            .inside(node.path())
            .run()
    };
    assert_eq!(del().success(), Value::Null);
    assert!(!pod.has_link("eth0") && !node.has_link("cali0"));
    assert!(pod.has_link("net1") && node.has_link("other0") && pod.has_link("lo"));

    assert_eq!(site.spooled(), ["c1-eth0.json"]);
    let path = site.spool().join("c1-eth0.json");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        fs::metadata(site.spool()).unwrap().permissions().mode() & 0o777,
        0o700
    );
    let record: SpoolRecord = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let SpoolRecord::Del(request) = &record else {
        panic!("not a DEL: {record:?}")
    };
    assert_eq!(
        (request.container_id.as_str(), request.ifname.as_str()),
        ("c1", "eth0")
    );
    assert_eq!(
        (request.netns_path.as_deref(), &request.config),
        (pod.path().to_str(), &config)
    );

    assert_eq!(
        del().success(),
        Value::Null,
        "a second DEL finds nothing to delete"
    );
    assert_eq!(
        serde_json::from_slice::<SpoolRecord>(&fs::read(&path).unwrap()).unwrap(),
        record
    );
}

#[test]
fn a_namespace_that_is_missing_is_fine() {
    let site = Site::new();
    let config = site.config("0.3.1", json!({}));
    for netns in [
        "",
        "/run/netns/no-such-namespace",
        "/etc/passwd",
        "/proc/self/ns/mnt",
    ] {
        site.call("calico", "DEL", &config).netns(netns).run().success();
        assert_eq!(site.spooled(), ["c1-eth0.json"]);
    }
    let agent = FakeAgent::start(site.socket(), vec![Act::Answer(Ok(Value::Null))]);
    site.call("calico", "DEL", &config)
        .netns("/run/netns/no-such-namespace")
        .run()
        .success();
    assert_eq!(agent.only().netns, None);
    assert_eq!(site.spooled(), [""; 0], "what the agent has done needs no record");
}

#[test]
fn an_interface_of_the_plugins_own_namespace_is_never_deleted() {
    let (site, (node, pod)) = (Site::new(), workload());
    let config = site.config("1.0.0", json!({}));
    let call = site.call("calico", "DEL", &config).env("CNI_IFNAME", "cali0");
    call.netns(node.path()).inside(node.path()).run().success();
    assert!(node.has_link("cali0") && pod.has_link("eth0"));
}

#[test]
fn an_interface_that_cannot_be_deleted_does_not_fail_del() {
    let (site, (node, pod)) = (Site::new(), workload());
    let config = site.config("1.0.0", json!({}));
    let call = site
        .call("calico", "DEL", &config)
        .netns(pod.path())
        .env("CNI_IFNAME", "lo")
        .inside(node.path());
    let outcome = call.run();
    assert!(
        outcome.stderr.starts_with("cannot delete interface: lo: "),
        "{outcome:?}"
    );
    outcome.success();
}

#[test]
fn a_spool_that_takes_nothing_fails_del_and_leaves_the_interface() {
    let (site, (node, pod)) = (Site::new(), workload());
    fs::write(site.spool(), "a file where the directory should be").unwrap();
    let config = site.config("1.0.0", json!({}));
    let call = site
        .call("calico", "DEL", &config)
        .netns(pod.path())
        .inside(node.path());
    let error = call.run().failure(5);
    let record = site.spool().join("c1-eth0.json");
    assert!(
        error["msg"].as_str().unwrap().contains(record.to_str().unwrap()),
        "{error}"
    );
    assert!(
        pod.has_link("eth0"),
        "nothing would tell the agent to free the rest"
    );
}

#[test]
fn an_agent_that_hangs_dies_or_is_another_does_not_hold_del_up() {
    let mismatch = CniError::new(ErrorCode::INCOMPATIBLE_VERSION, "protocol versions differ");
    let acts = [
        Act::Stall,
        Act::HangUp,
        Act::Send(b"HTTP/1.1 400\r\n".to_vec()),
        Act::Answer(Err(mismatch)),
    ];
    for act in acts {
        let (site, (node, pod)) = (Site::new(), workload());
        let agent = FakeAgent::start(site.socket(), vec![act]);
        let config = site.config("1.0.0", json!({}));
        let call = site
            .call("calico", "DEL", &config)
            .netns(pod.path())
            .deadline_ms(1_000)
            .inside(node.path());
        call.run().success();
        assert_eq!(site.spooled(), ["c1-eth0.json"]);
        assert!(!pod.has_link("eth0"));
        agent.only();
    }
}

#[test]
fn an_agent_that_restarts_at_once_carries_it_out() {
    let site = Site::new();
    let agent = FakeAgent::start(site.socket(), vec![Act::HangUp, Act::Answer(Ok(Value::Null))]);
    site.call("calico", "DEL", &site.config("1.0.0", json!({})))
        .run()
        .success();
    assert_eq!(agent.received().len(), 2);
    assert_eq!(site.spooled(), [""; 0]);
}

#[test]
fn what_the_agent_refuses_is_told() {
    let site = Site::new();
    let refused = Act::Answer(Err(CniError::generic("link is foreign: eth0")));
    let agent = FakeAgent::start(site.socket(), vec![refused]);
    let error = site
        .call("calico", "DEL", &site.config("1.0.0", json!({})))
        .run()
        .failure(999);
    assert_eq!(error["msg"], "link is foreign: eth0");
    assert_eq!(site.spooled(), [""; 0]);
    agent.only();
}

#[test]
fn bad_arguments_do_not_hold_del_up() {
    let site = Site::new();
    site.call("calico", "DEL", &site.config("1.0.0", json!({})))
        .env("CNI_ARGS", "nonsense")
        .run()
        .success();
    assert_eq!(site.spooled(), ["c1-eth0.json"]);
}
