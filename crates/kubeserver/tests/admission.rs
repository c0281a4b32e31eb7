//! The admission policy of the chart in a real API server: it refuses what an agent would refuse, and nothing else.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod chart;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use buoy_api::annotations::{FLOATING_IPS, IP_ADDRS, IP_ADDRS_NO_IPAM, PodRequest};
use buoy_kubeserver::ApiServer;
use chart::{objects, render};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);

/// An annotation, its value, and what is said against it.
type Case<'a> = (&'a str, &'a str, Option<&'a str>);

const CASES: [Case<'_>; 29] = [
    (FLOATING_IPS, "", None),
    (FLOATING_IPS, "[]", None),
    (FLOATING_IPS, r#"["10.0.0.1"]"#, None),
    (FLOATING_IPS, " [ \"10.0.0.1\" ,\n\"2001:db8::1\" ] ", None),
    (FLOATING_IPS, r#"["10.0.0.1", "10.0.0.2", "2001:DB8::1"]"#, None),
    (FLOATING_IPS, r#"["10.0.0.1""#, Some("not a JSON list of strings")),
    (
        FLOATING_IPS,
        r#"["10.0.0.1",]"#,
        Some("not a JSON list of strings"),
    ),
    (
        FLOATING_IPS,
        r#"["10.0.0.1" "10.0.0.2"]"#,
        Some("not a JSON list of strings"),
    ),
    (FLOATING_IPS, "10.0.0.1", Some("not a JSON list of strings")),
    (FLOATING_IPS, r#""10.0.0.1""#, Some("not a JSON list of strings")),
    (FLOATING_IPS, "[1]", Some("not a JSON list of strings")),
    (
        FLOATING_IPS,
        r#"[["10.0.0.1"]]"#,
        Some("not a JSON list of strings"),
    ),
    (
        FLOATING_IPS,
        r#"{"a": "10.0.0.1"}"#,
        Some("not a JSON list of strings"),
    ),
    (FLOATING_IPS, " ", Some("not a JSON list of strings")),
    (
        FLOATING_IPS,
        r#"["10.0.0.1", "web"]"#,
        Some("invalid IP format: web"),
    ),
    (FLOATING_IPS, r#"[""]"#, Some("invalid IP format: ")),
    (
        FLOATING_IPS,
        r#"["10.0.0.1/32"]"#,
        Some("invalid IP format: 10.0.0.1/32"),
    ),
    (
        FLOATING_IPS,
        r#"["010.0.0.1"]"#,
        Some("invalid IP format: 010.0.0.1"),
    ),
    (
        FLOATING_IPS,
        r#"["fe80::1%eth0"]"#,
        Some("invalid IP format: fe80::1%eth0"),
    ),
    (
        FLOATING_IPS,
        r#"["127.0.0.1"]"#,
        Some("not a unicast address that can be routed: 127.0.0.1"),
    ),
    (
        FLOATING_IPS,
        r#"["255.255.255.255"]"#,
        Some("not a unicast address"),
    ),
    (FLOATING_IPS, r#"["ff02::1"]"#, Some("not a unicast address")),
    (IP_ADDRS, "", None),
    (IP_ADDRS, r#"["10.0.0.1", "2001:db8::1"]"#, None),
    (IP_ADDRS, "[]", Some("specified but empty")),
    (IP_ADDRS, "10.0.0.1", Some("not a JSON list of strings")),
    (
        IP_ADDRS,
        r#"["10.0.0.1", "10.0.0.2"]"#,
        Some("cannot have more than one IPv4 address"),
    ),
    (
        IP_ADDRS,
        r#"["2001:db8::1", "2001:db8::2"]"#,
        Some("cannot have more than one IPv6 address"),
    ),
    (IP_ADDRS, r#"["0.0.0.0"]"#, Some("not a unicast address")),
];

#[test]
fn it_refuses_what_an_agent_would_refuse() {
    let server = ApiServer::start(IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap();
    // Before there was a policy.
    create(&server, &pod("old", &[(FLOATING_IPS, "garbage")]), false).unwrap();
    create(&server, &pod("running", &[]), false).unwrap();
    let status = r#"{"status": {"podIPs": [{"ip": "10.65.0.1"}]}}"#;
    kubectl(
        &server,
        &["patch", "pod", "running", "--subresource=status", "-p", status],
    )
    .unwrap();
    begin(&server);

    table(&server);
    // What was there before may be edited otherwise, and deleted.
    kubectl(&server, &["label", "pod", "old", "a=b"]).unwrap();
    kubectl(&server, &["delete", "pod", "old", "--now", "--wait=false"]).unwrap();

    // An edit is looked at as a creation is, and a running pod has families.
    let annotate = |value: &str| {
        let annotation = format!("{FLOATING_IPS}={value}");
        kubectl(
            &server,
            &["annotate", "--overwrite", "pod", "running", &annotation],
        )
    };
    annotate(r#"["172.16.1.3"]"#).unwrap();
    let said = annotate("172.16.1.3").unwrap_err();
    assert!(said.contains("not a JSON list of strings"), "{said}");
    let said = annotate(r#"["172.16.1.3", "2001:db8::1"]"#).unwrap_err();
    assert!(
        said.contains("workload has no address of this family: 2001:db8::1"),
        "{said}"
    );
    annotate("").unwrap();
}

fn table(server: &ApiServer) {
    let many = |count: u32| {
        let all: Vec<String> = (1..=count).map(|n| format!("10.0.0.{n}")).collect();
        json!(all).to_string()
    };
    let (full, over) = (many(32), many(33));
    let long = format!("[\"10.0.0.1\"{}]", " ".repeat(16 * 1024));
    let more = [
        (FLOATING_IPS, full.as_str(), None),
        (FLOATING_IPS, over.as_str(), Some("too many floating IPs: 33")),
        (FLOATING_IPS, long.as_str(), Some("value is too long")),
        (IP_ADDRS, long.as_str(), Some("value is too long")),
    ];
    for (name, value, refusal) in CASES.into_iter().chain(more) {
        let shown: String = value.chars().take(60).collect();
        match (create(server, &pod("p", &[(name, value)]), true), refusal) {
            (Ok(()), None) => {}
            (Err(said), Some(part)) => {
                assert!(
                    said.contains(&format!("{name}: {part}")),
                    "{name}: {shown}: {said}"
                );
            }
            (result, _) => panic!("{name}: {shown}: {result:?}"),
        }
        let annotations = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let parsed = PodRequest::parse(&annotations);
        assert_eq!(parsed.is_err(), refusal.is_some(), "{name}: {shown}: {parsed:?}");
    }
    let both = pod(
        "p",
        &[
            (IP_ADDRS, r#"["10.0.0.1"]"#),
            (IP_ADDRS_NO_IPAM, r#"["10.0.0.1"]"#),
        ],
    );
    let said = create(server, &both, true).unwrap_err();
    assert!(said.contains("cannot be used together"), "{said}");
}

/// Creates the policy, and waits until it is in force.
fn begin(server: &ApiServer) {
    let text = render("buoy-system", &[]).unwrap();
    let objects = objects(&text);
    let policy = objects.iter().filter(|object| {
        let kind = object["kind"].as_str().unwrap_or_default();
        kind.starts_with("ValidatingAdmissionPolicy")
    });
    for object in policy {
        create(server, &object.to_string(), false).unwrap();
    }
    let bad = pod("p", &[(FLOATING_IPS, "garbage")]);
    let deadline = Instant::now() + PATIENCE;
    while create(server, &bad, true).is_ok() {
        assert!(Instant::now() < deadline, "the policy does not come into force");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn pod(name: &str, annotations: &[(&str, &str)]) -> String {
    let annotations: BTreeMap<&str, &str> = annotations.iter().copied().collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    })
    .to_string()
}

fn create(server: &ApiServer, object: &str, is_trial: bool) -> Result<(), String> {
    let trial: &[&str] = if is_trial { &["--dry-run=server"] } else { &[] };
    let words = [&["create", "-f", "-"], trial].concat();
    let result = server.kubectl(&words, object);
    result.map(drop).map_err(|error| error.to_string())
}

fn kubectl(server: &ApiServer, words: &[&str]) -> Result<(), String> {
    server
        .kubectl(words, "")
        .map(drop)
        .map_err(|error| error.to_string())
}
