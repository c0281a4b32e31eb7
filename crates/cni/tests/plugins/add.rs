//! ADD of `calico` against a fake agent.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::support::agent::{Act, FakeAgent, Received};
use crate::support::netns::Netns;
use crate::support::{Outcome, Site};
use buoy_cni_spec::agent::{Body, SpoolRecord};
use buoy_cni_spec::{CniError, ErrorCode};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use serde_json::{Value, json};

/// Less than the deadline of an ADD for which nobody sets another.
const NOT_BY_DEFAULT: Duration = Duration::from_secs(20);

/// A second, but for what clocks are apart.
const THE_DEADLINE: Duration = Duration::from_millis(995);

fn result() -> Value {
    json!({"cniVersion": "1.0.0", "ips": [{"interface": 1, "address": "192.0.2.7/32"}], "unknown": [1]})
}

/// One ADD against an agent that does this.
fn add(site: &Site, netns: &Netns, acts: Vec<Act>) -> (Outcome, Vec<Received>) {
    let agent = FakeAgent::start(site.socket(), acts);
    let config = site.config("1.0.0", json!({}));
    let outcome = site
        .call("calico", "ADD", &config)
        .netns(netns.path())
        .deadline_ms(20_000)
        .run();
    (outcome, agent.received())
}

/// An ADD that waits for an agent in vain, and ends with code 11 at its deadline, which is a second away. Returns the error.
fn gives_up(site: &Site, netns: &Netns, not_before: Duration) -> Value {
    let config = site.config("1.0.0", json!({}));
    let call = site.call("calico", "ADD", &config).netns(netns.path());
    let outcome = call.deadline_ms(1_000).run();
    assert!(
        outcome.took >= not_before && outcome.took < NOT_BY_DEFAULT,
        "{outcome:?}"
    );
    outcome.failure(11)
}

/// A socket at the agent's place, on which nobody listens yet.
fn unix_socket(site: &Site) -> OwnedFd {
    let made = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    bind(made.as_raw_fd(), &UnixAddr::new(&site.socket()).unwrap()).unwrap();
    made
}

#[test]
fn sends_one_request_with_the_namespace_and_prints_the_answer_as_it_is() {
    let (site, netns) = (Site::new(), Netns::new());
    let agent = FakeAgent::start(site.socket(), vec![Act::Answer(Ok(result()))]);
    let config = site.config("1.0.0", json!({"mtu": 1400, "some": {"other": "key"}}));
    let call = site
        .call("calico", "ADD", &config)
        .netns(netns.path())
        .env("CNI_ARGS", "K8S_POD_NAME=web;X=1");
    assert_eq!(call.run().success(), result());

    let received = agent.only();
    assert_eq!(received.netns, Some(netns.identity()));
    assert!(
        received.request.client.starts_with("calico (buoy-cni "),
        "{}",
        received.request.client
    );
    let Body::Add(add) = received.request.body else {
        panic!("not an ADD: {:?}", received.request)
    };
    assert_eq!((add.container_id.as_str(), add.ifname.as_str()), ("c1", "eth0"));
    assert_eq!(add.netns_path, netns.path().to_str().unwrap());
    assert_eq!((add.args.as_str(), add.delegated), ("K8S_POD_NAME=web;X=1", None));
    assert_eq!(add.path, site.path("bin").to_str().unwrap());
    assert_eq!(add.config, config);
    assert!(
        (15_000..=30_000).contains(&add.deadline_ms),
        "{}",
        add.deadline_ms
    );
}

#[test]
fn a_request_larger_than_the_socket_takes_at_once_arrives_whole() {
    let (site, netns) = (Site::new(), Netns::new());
    let agent = FakeAgent::start(site.socket(), vec![Act::Answer(Ok(result()))]);
    let config = site.config("1.0.0", json!({"filler": "x".repeat(900_000)}));
    site.call("calico", "ADD", &config)
        .netns(netns.path())
        .run()
        .success();
    let received = agent.only();
    assert_eq!(received.netns, Some(netns.identity()));
    assert!(matches!(received.request.body, Body::Add(add) if add.config == config));
}

#[test]
fn the_environment_names_the_socket_where_the_configuration_does_not() {
    let (site, netns) = (Site::new(), Netns::new());
    let agent = FakeAgent::start(site.socket(), vec![Act::Answer(Ok(result()))]);
    let config = site.config("1.0.0", json!({"buoy": {}}));
    let call = site.call("calico", "ADD", &config).netns(netns.path());
    let call = call
        .env("BUOY_SOCKET", site.socket().to_str().unwrap())
        .env("BUOY_SPOOL", site.spool().to_str().unwrap());
    assert_eq!(call.run().success(), result());
    agent.only();
}

#[test]
fn an_error_of_the_agent_comes_with_the_configurations_version() {
    let (site, netns) = (Site::new(), Netns::new());
    let error = CniError::generic("address is in use: 192.0.2.7").with_hint("choose another");
    let (outcome, _) = add(&site, &netns, vec![Act::Answer(Err(error))]);
    assert_eq!(
        outcome.failure(999),
        json!({"cniVersion": "1.0.0", "code": 999, "msg": "address is in use: 192.0.2.7", "details": "choose another"})
    );
}

#[test]
fn sends_again_when_the_connection_breaks() {
    let (site, netns) = (Site::new(), Netns::new());
    let half_an_answer = vec![0, 0, 0, 200, b'{'];
    let acts = vec![Act::HangUp, Act::Send(half_an_answer), Act::Answer(Ok(result()))];
    let (outcome, received) = add(&site, &netns, acts);
    assert_eq!(outcome.success(), result());
    assert_eq!(received.len(), 3);
    assert!(
        received
            .iter()
            .all(|received| received.netns == Some(netns.identity()))
    );
}

#[test]
fn waits_for_an_agent_that_restarts() {
    let (site, netns) = (Site::new(), Netns::new());
    let acts = vec![
        Act::Restart(Duration::from_millis(300)),
        Act::Answer(Ok(result())),
    ];
    let (outcome, received) = add(&site, &netns, acts);
    assert!(outcome.took >= Duration::from_millis(300));
    assert_eq!(outcome.success(), result());
    let deadline = |received: &Received| match &received.request.body {
        Body::Add(add) => add.deadline_ms,
        other => panic!("not an ADD: {other:?}"),
    };
    let deadlines: Vec<_> = received.iter().map(deadline).collect();
    assert!(
        deadlines[1] + 300 <= deadlines[0] + 1,
        "the second request has less time left: {deadlines:?}"
    );
}

#[test]
fn an_agent_that_does_not_come_back_is_code_11_at_the_deadline() {
    let (site, netns) = (Site::new(), Netns::new());
    let agent = FakeAgent::start(site.socket(), vec![Act::HangUp]);
    gives_up(&site, &netns, Duration::from_millis(100));
    agent.only();
}

#[test]
fn an_answer_that_is_none_is_code_6() {
    let netns = Netns::new();
    let answers = [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"\x00\x00\x00\x02{}",
        b"\x00\x00\x00\x03\xff\xfe\xfd",
    ];
    for answer in answers {
        let site = Site::new();
        let (outcome, _) = add(&site, &netns, vec![Act::Send(answer.to_vec())]);
        let error = outcome.failure(6);
        assert!(
            error["details"].as_str().unwrap().contains("is it buoy-agent"),
            "{error}"
        );
    }
}

#[test]
fn an_agent_of_another_version_is_told() {
    let (site, netns) = (Site::new(), Netns::new());
    let mismatch = CniError::new(
        ErrorCode::INCOMPATIBLE_VERSION,
        "protocol versions differ: a speaks 1, b speaks 2",
    );
    let (outcome, _) = add(&site, &netns, vec![Act::Answer(Err(mismatch))]);
    assert_eq!(
        outcome.failure(1)["msg"],
        "protocol versions differ: a speaks 1, b speaks 2"
    );
}

#[test]
fn an_agent_that_does_not_answer_is_code_11_at_the_deadline() {
    let (site, netns) = (Site::new(), Netns::new());
    let agent = FakeAgent::start(site.socket(), vec![Act::Stall]);
    site.is_named_by(&gives_up(&site, &netns, THE_DEADLINE));
    agent.only();
}

#[test]
fn an_agent_that_accepts_nobody_is_code_11_at_the_deadline() {
    let (site, netns) = (Site::new(), Netns::new());
    let listener = unix_socket(&site);
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let _fills_the_queue = UnixStream::connect(site.socket()).unwrap();
    gives_up(&site, &netns, THE_DEADLINE);
}

#[test]
fn no_agent_is_code_11_at_once_and_names_the_socket() {
    let (site, netns) = (Site::new(), Netns::new());
    let config = site.config("1.0.0", json!({}));
    let absent = || site.call("calico", "ADD", &config).netns(netns.path()).run();
    let check = |outcome: Outcome| {
        assert!(outcome.took < NOT_BY_DEFAULT, "{outcome:?}");
        let error = outcome.failure(11);
        site.is_named_by(&error);
        assert!(
            error["details"].as_str().unwrap().starts_with("start buoy-agent"),
            "{error}"
        );
    };
    check(absent());
    // A socket that a dead agent left behind.
    let _nobody_listens = unix_socket(&site);
    check(absent());
    assert_eq!(site.spooled(), [""; 0]);
}

#[test]
fn a_namespace_that_is_gone_or_none_is_refused_without_the_agent() {
    let site = Site::new();
    let config = site.config("0.4.0", json!({}));
    let add = |path: &str| site.call("calico", "ADD", &config).netns(path).run();
    let gone = add("/run/netns/no-such-namespace").failure(3);
    assert_eq!(
        gone["msg"],
        "network namespace does not exist: /run/netns/no-such-namespace"
    );
    assert_eq!(gone["cniVersion"], "0.4.0");
    add("/proc/self/ns/net").failure(8);
    add("/etc/passwd").failure(8);
    let fifo = site.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    add(fifo.to_str().unwrap()).failure(8);
}

#[test]
fn success_takes_over_what_the_spool_would_free() {
    let (site, netns) = (Site::new(), Netns::new());
    let config = site.config("1.0.0", json!({}));
    site.call("calico", "DEL", &config).run().success();
    assert_eq!(site.spooled(), ["c1-eth0.json"]);
    let record: SpoolRecord =
        serde_json::from_slice(&fs::read(site.spool().join("c1-eth0.json")).unwrap()).unwrap();

    let (failed, _) = add(&site, &netns, vec![Act::Answer(Err(CniError::generic("no")))]);
    failed.failure(999);
    assert_eq!(
        site.spooled(),
        ["c1-eth0.json"],
        "a failed ADD takes nothing over"
    );

    let (succeeded, _) = add(&site, &netns, vec![Act::Answer(Ok(result()))]);
    succeeded.success();
    assert_eq!(site.spooled(), [""; 0]);
    assert!(matches!(record, SpoolRecord::Del(del) if del.container_id == "c1"));
}
