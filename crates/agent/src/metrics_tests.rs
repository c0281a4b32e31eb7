use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use buoy_core::op::{Effect, Op};
use buoy_core::store::{Delta, Key, Revision};
use buoy_kernel::Family;
use buoy_kernel::nft::Counter as Packets;
use serde_json::Value;

use super::*;
use crate::inputs::{Applied, Outcome};
use crate::inspect::{Glance, Lease, Requests};

/// What a node that did a little of everything has counted.
fn busy() -> Metrics {
    let metrics = Metrics::new();
    let took = Duration::from_millis(3);
    metrics.attachments.answered("add", Some(11), took);
    metrics.attachments.answered("add", None, took);
    metrics
        .datastore
        .operations
        .ran("etcd", "update", "conflict", took);
    metrics.datastore.performed("claim", &Outcome::Done, took);
    metrics
        .datastore
        .performed("claim", &Outcome::Failed("why".to_owned()), took);
    metrics.datastore.changed(&Delta {
        key: Key::EpochFloor,
        revision: Revision(1),
        value: None,
    });
    metrics.floating.changed("granted");
    metrics.floating.told("dropped");
    let loaded = Applied {
        op: Op::LoadRuleset,
        result: Ok(Effect::Done),
    };
    metrics.node.applied(&[loaded], took);
    metrics.node.read(true);
    metrics.node.turned(took);
    let spoofed = Packets {
        packets: 7,
        bytes: 700,
    };
    metrics
        .node
        .dropped(&BTreeMap::from([((Family::V6, "spoofed".to_owned()), spoofed)]));
    metrics.show(&Glance {
        synced: true,
        lost: Some("why".to_owned()),
        sync_age: Duration::from_millis(1500),
        floating: Requests {
            owned: 5,
            unconfirmed: 2,
            ..Requests::default()
        },
        lease: Lease {
            term: 9,
            ..Lease::default()
        },
        queues: vec![("inputs", 3)],
        sessions: 4,
        sessions_established: 3,
        ..Glance::default()
    });
    metrics
}

/// Name and type of every metric.
fn types(text: &str) -> Vec<(&str, &str)> {
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect()
}

#[test]
fn what_was_counted_is_shown() {
    let text = buoy_daemon::metrics::text(busy().registry()).unwrap();
    for line in [
        r#"buoy_build_info{version="0.1.0"} 1"#,
        r#"buoy_cni_requests_total{command="add",code="11"} 1"#,
        r#"buoy_cni_requests_total{command="add",code="0"} 1"#,
        r#"buoy_cni_request_duration_seconds_count{command="add"} 2"#,
        r#"buoy_datastore_requests_total{backend="etcd",verb="update",result="conflict"} 1"#,
        r#"buoy_operations_total{kind="load_ruleset",outcome="done"} 1"#,
        r#"buoy_events_total{outcome="dropped"} 1"#,
        r#"buoy_duties_total{kind="claim",outcome="failed"} 1"#,
        r#"buoy_datastore_watch_events_total{change="delete"} 1"#,
        r#"buoy_floating_ip_changes_total{change="granted"} 1"#,
        r#"buoy_dropped_packets_total{family="ipv6",reason="spoofed"} 7"#,
        r#"buoy_floating_ips{state="owned"} 3"#,
        r#"buoy_floating_ips{state="unconfirmed"} 2"#,
        r#"buoy_bgp_sessions{state="down"} 1"#,
        r#"buoy_queue_depth{queue="inputs"} 3"#,
        "buoy_datastore_sync_age_seconds 1.5",
        "buoy_datastore_up 0",
        "buoy_datastore_synced 1",
        "buoy_lease_term 9",
    ] {
        assert!(text.lines().any(|shown| shown == line), "no {line} in:\n{text}");
    }
}

#[test]
fn names_are_as_prometheus_asks_for() {
    let text = buoy_daemon::metrics::text(busy().registry()).unwrap();
    let types = types(&text);
    assert!(types.len() > 30, "{types:?}");
    let names: BTreeSet<&str> = types.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), types.len(), "one name, one metric");
    for (name, kind) in types {
        let plain = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(name.starts_with("buoy_") && name.chars().all(plain), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        assert!(
            kind != "histogram" || name.ends_with("_duration_seconds"),
            "{name}"
        );
        for unit in ["_ms", "_milliseconds", "_minutes", "_kib", "_percent"] {
            assert!(!name.contains(unit), "{name}: not a base unit");
        }
        let help = format!("# HELP {name} ");
        assert!(text.contains(&help), "{name} has no help");
    }
}

#[test]
fn no_label_has_a_name_without_bound() {
    let known = [
        "backend", "change", "code", "command", "family", "kind", "le", "outcome", "queue", "reason",
        "result", "state", "verb", "version",
    ];
    let text = buoy_daemon::metrics::text(busy().registry()).unwrap();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((_, labels)) = line.split_once('{') else {
            continue;
        };
        for label in labels.split("\",") {
            let (label, _) = label.split_once('=').unwrap();
            assert!(known.contains(&label), "{line}");
        }
    }
}

const DASHBOARD: &str = include_str!("../../../deploy/monitoring/dashboard.json");
const ALERTS: &str = include_str!("../../../deploy/monitoring/alerts.yaml");

/// How the names of the controller's metrics begin, which it looks after itself.
const CONTROLLER: &str = "buoy_controller_";

/// All expressions of the dashboard and of the alert rules.
fn expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let alerts: Value = serde_saphyr::from_str(ALERTS).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let rules = alerts["groups"][0]["rules"].as_array().unwrap().iter();
    let text = |of: &Value| of["expr"].as_str().unwrap().to_owned();
    targets.chain(rules).map(text).collect()
}

/// Names of the agent's metrics in an expression.
fn metrics_in(expression: &str) -> impl Iterator<Item = &str> {
    expression
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("buoy_") && !word.starts_with(CONTROLLER))
}

#[test]
fn dashboard_and_alerts_use_what_there_is() {
    let text = buoy_daemon::metrics::text(busy().registry()).unwrap();
    let types: BTreeMap<&str, &str> = types(&text).into_iter().collect();
    let expressions = expressions();
    assert!(expressions.len() > 30);
    for expression in &expressions {
        let is_used = metrics_in(expression).next().is_some() || expression.contains(CONTROLLER);
        assert!(is_used, "{expression}");
        for name in metrics_in(expression) {
            let histogram = name.strip_suffix("_bucket").unwrap_or(name);
            let kind = types.get(histogram).copied();
            assert!(kind.is_some(), "no {name}: {expression}");
            assert_eq!(name != histogram, kind == Some("histogram"), "{expression}");
            let is_rated = expression.contains("rate(") || expression.contains("increase(");
            assert_eq!(is_rated, kind != Some("gauge"), "{expression}");
        }
    }
}

#[test]
fn the_guide_says_what_each_metric_means() {
    let guide = include_str!("../../../docs/guide/observability.md");
    let text = buoy_daemon::metrics::text(busy().registry()).unwrap();
    for (name, _) in types(&text) {
        assert!(guide.contains(&format!("`{name}`")), "{name} is not in the guide");
    }
    let alerts: Value = serde_saphyr::from_str(ALERTS).unwrap();
    for rule in alerts["groups"][0]["rules"].as_array().unwrap() {
        let name = rule["alert"].as_str().unwrap();
        assert!(guide.contains(name), "{name} is not in the guide");
        assert!(rule["annotations"]["summary"].is_string(), "{name}");
    }
}
