//! Third-party IPAM plugins.

use std::fs;

use crate::support::Site;
use crate::support::agent::{Act, FakeAgent};
use crate::support::netns::Netns;
use buoy_cni_spec::CniError;
use buoy_cni_spec::agent::Body;
use serde_json::{Value, json};

const GIVES: &str =
    r#"{"cniVersion":"1.0.0","ips":[{"address":"198.51.100.9/24","gateway":"198.51.100.1"}]}"#;

/// An IPAM plugin that notes its calls and prints this at ADD; `at_del` is what it does at DEL.
fn install(site: &Site, at_add: &str, at_del: &str) {
    let log = site.path("calls");
    let stdin = site.path("stdin");
    site.install(
        "leases",
        &format!(
            "cat > {stdin}\necho \"$CNI_COMMAND $CNI_CONTAINERID $CNI_ARGS\" >> {log}\n\
             case $CNI_COMMAND in ADD) {at_add};; DEL) {at_del};; esac",
            stdin = stdin.display(),
            log = log.display()
        ),
    );
}

fn calls(site: &Site) -> Vec<String> {
    fs::read_to_string(site.path("calls"))
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn config(site: &Site) -> Value {
    site.config("1.0.0", json!({"ipam": {"type": "leases", "pool": "p"}}))
}

fn answer(value: Value) -> Vec<Act> {
    vec![Act::Answer(Ok(value))]
}

#[test]
fn its_result_goes_to_the_agent() {
    let (site, netns) = (Site::new(), Netns::new());
    install(&site, &format!("echo '{GIVES}'"), "");
    let agent = FakeAgent::start(site.socket(), answer(json!({"ips": []})));
    let call = site
        .call("calico", "ADD", &config(&site))
        .netns(netns.path())
        .env("CNI_ARGS", "K8S_POD_NAME=web");
    assert_eq!(call.run().success(), json!({"ips": []}));
    let Body::Add(add) = agent.only_body() else {
        panic!("not an ADD")
    };
    assert_eq!(add.delegated, Some(serde_json::from_str(GIVES).unwrap()));
    assert_eq!(calls(&site), ["ADD c1 IgnoreUnknown=1;K8S_POD_NAME=web"]);
    assert_eq!(
        fs::read_to_string(site.path("stdin")).unwrap(),
        config(&site).to_string()
    );
}

#[test]
fn what_it_gave_is_given_back_when_the_agent_fails_or_is_absent() {
    let (site, netns) = (Site::new(), Netns::new());
    install(
        &site,
        &format!("echo '{GIVES}'"),
        "echo 'no such lease' >&2; exit 3",
    );
    let agent = FakeAgent::start(site.socket(), vec![Act::Answer(Err(CniError::generic("no")))]);
    let failed = site
        .call("calico", "ADD", &config(&site))
        .netns(netns.path())
        .run();
    assert!(
        failed.stderr.contains("leases: cannot give the addresses back: "),
        "{failed:?}"
    );
    assert_eq!(failed.failure(999)["msg"], "no");
    agent.only();
    site.call("calico", "ADD", &config(&site))
        .netns(netns.path())
        .run()
        .failure(11);
    let commands = ["ADD c1 IgnoreUnknown=1", "DEL c1 IgnoreUnknown=1"];
    assert_eq!(calls(&site), [commands, commands].concat());
}

#[test]
fn its_failure_is_the_failure_of_add() {
    let (site, netns) = (Site::new(), Netns::new());
    let add = || {
        site.call("calico", "ADD", &config(&site))
            .netns(netns.path())
            .run()
    };
    install(
        &site,
        r#"echo '{"code": 117, "msg": "pool is full: p", "details": "grow it"}'; exit 1"#,
        "",
    );
    let error = add().failure(117);
    assert_eq!(
        (&error["msg"], &error["details"]),
        (&json!("pool is full: p"), &json!("grow it"))
    );

    install(&site, "echo 'segmentation fault'; exit 9", "");
    assert!(
        add().failure(999)["msg"]
            .as_str()
            .unwrap()
            .starts_with("IPAM plugin failed: leases: exit status: 9")
    );
    install(&site, "echo hello", "");
    add().failure(6);
    install(&site, "head -c 3000000 /dev/zero", "");
    add().failure(5);
}

#[test]
fn a_result_that_is_no_use_is_given_back() {
    let (site, netns) = (Site::new(), Netns::new());
    let add = || {
        site.call("calico", "ADD", &config(&site))
            .netns(netns.path())
            .run()
    };
    install(&site, r#"echo '{"cniVersion": "1.0.0", "ips": []}'"#, "");
    assert_eq!(
        add().failure(999)["msg"],
        "IPAM plugin returned no IP addresses in result"
    );
    assert_eq!(calls(&site), ["ADD c1 IgnoreUnknown=1", "DEL c1 IgnoreUnknown=1"]);
    install(&site, r#"echo '{"ips": [{"address": "nine"}]}'"#, "");
    add().failure(6);
    assert_eq!(calls(&site).len(), 4);
}

#[test]
fn a_plugin_that_is_not_there_is_named() {
    let (site, netns) = (Site::new(), Netns::new());
    let error = site
        .call("calico", "ADD", &config(&site))
        .netns(netns.path())
        .run()
        .failure(999);
    let directory = site.path("bin");
    assert_eq!(
        error["msg"],
        format!(
            "failed to find plugin \"leases\" in path [{}]",
            directory.display()
        )
    );
}

#[test]
fn a_plugin_that_would_run_itself_is_refused() {
    let (site, netns) = (Site::new(), Netns::new());
    for kind in ["calico", "../calico", "/bin/sh"] {
        let config = site.config("1.0.0", json!({"ipam": {"type": kind}}));
        site.call("calico", "ADD", &config)
            .netns(netns.path())
            .run()
            .failure(7);
    }
}

#[test]
fn del_runs_it_and_tells_its_failure_last() {
    let site = Site::new();
    install(&site, "", r#"echo '{"code": 5, "msg": "disk is full"}'; exit 1"#);
    let agent = FakeAgent::start(site.socket(), answer(Value::Null));
    let del = || site.call("calico", "DEL", &config(&site)).run();
    assert_eq!(del().failure(5)["msg"], "disk is full");
    assert!(matches!(agent.only_body(), Body::Del(_)));
    // Without an agent too, and what is left for the agent is in the spool by then.
    del().failure(5);
    assert_eq!(site.spooled(), ["c1-eth0.json"]);
    install(&site, "", "exit 0");
    del().success();
}

#[test]
fn gc_status_and_check_reach_it_where_it_knows_them() {
    let (site, netns) = (Site::new(), Netns::new());
    let config = site.config(
        "1.1.0",
        json!({"ipam": {"type": "leases"}, "cni.dev/valid-attachments": []}),
    );
    let run = |command| site.call("calico", command, &config).netns(netns.path()).run();
    install(&site, "", "");
    let agent = FakeAgent::start(
        site.socket(),
        (0..3).map(|_| Act::Answer(Ok(Value::Null))).collect(),
    );
    for command in ["GC", "STATUS", "CHECK"] {
        run(command).success();
    }
    assert_eq!(
        calls(&site),
        [
            "GC c1 IgnoreUnknown=1",
            "STATUS c1 IgnoreUnknown=1",
            "CHECK c1 IgnoreUnknown=1"
        ]
    );
    agent.received();

    site.install(
        "leases",
        r#"echo "{\"code\": 4, \"msg\": \"unknown CNI_COMMAND: $CNI_COMMAND\"}"; exit 1"#,
    );
    let agent = FakeAgent::start(
        site.socket(),
        (0..2).map(|_| Act::Answer(Ok(Value::Null))).collect(),
    );
    run("GC").success();
    run("STATUS").success();
    agent.received();
    site.install("leases", r#"echo '{"code": 50, "msg": "no leases"}'; exit 1"#);
    let agent = FakeAgent::start(site.socket(), answer(Value::Null));
    assert_eq!(run("STATUS").failure(50)["msg"], "no leases");
    agent.received();
}

#[test]
fn a_large_configuration_does_not_stop_a_plugin_that_answers_first() {
    let (site, netns) = (Site::new(), Netns::new());
    // Fills its output before it reads its input.
    site.install(
        "leases",
        &format!("printf '%200000s' ''\necho '{GIVES}'\ncat > /dev/null"),
    );
    let agent = FakeAgent::start(site.socket(), answer(json!({})));
    let mut config = config(&site);
    config["filler"] = "x".repeat(500_000).into();
    site.call("calico", "ADD", &config)
        .netns(netns.path())
        .run()
        .success();
    agent.only();
}
