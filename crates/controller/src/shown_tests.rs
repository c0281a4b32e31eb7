use std::collections::BTreeSet;

use buoy_core::cluster::Chore;
use serde_json::Value as Json;

use super::*;

const GUIDE: &str = include_str!("../../../docs/guide/observability.md");
const DASHBOARD: &str = include_str!("../../../deploy/monitoring/dashboard.json");
const ALERTS: &str = include_str!("../../../deploy/monitoring/alerts.yaml");

/// What one that did a little of everything shows.
fn busy() -> String {
    let shown = Shown::new();
    shown.looked(clock::mono(), true);
    shown.contact(None);
    shown.stand(3, 1);
    let addresses = ["10.65.0.7", "10.65.0.8"].map(|address| (address.parse().unwrap(), 7));
    let chore = Chore::FreeAddresses {
        handle: "net.c1".to_owned(),
        addresses: addresses.to_vec(),
    };
    shown.did(&chore, true);
    shown.did(&chore, false);
    shown.operations.ran("etcd", "get", "ok", PAUSE);
    buoy_daemon::metrics::text(&shown.registry).unwrap()
}

#[test]
fn what_is_done_is_counted() {
    let text = busy();
    for line in [
        "buoy_controller_works 1",
        "buoy_controller_synced 1",
        "buoy_controller_looks_total 1",
        r#"buoy_controller_chores_total{kind="free_addresses",outcome="done"} 1"#,
        r#"buoy_controller_chores_total{kind="free_addresses",outcome="failed"} 1"#,
        "buoy_controller_freed_addresses_total 2",
        "buoy_controller_chores_waiting 3",
        "buoy_controller_contested_floating_ips 1",
        r#"buoy_datastore_requests_total{backend="etcd",verb="get",result="ok"} 1"#,
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "no {line}: {text}");
    }
}

#[test]
fn it_is_healthy_while_its_loop_turns_and_ready_in_contact() {
    let shown = Shown::new();
    let now = clock::mono();
    shown.turned(now);
    assert_eq!(shown.health(now.after(PATIENCE)), Answer::plain(200, "ok"));
    let late = now.after(PATIENCE + Duration::from_secs(1));
    let why = "the controller's loop has not turned for 121 s";
    assert_eq!(shown.health(late), Answer::plain(503, why));

    let why = "not everything in the datastore was read yet";
    assert_eq!(shown.readiness(), Answer::plain(503, why));
    shown.contact(None);
    assert_eq!(shown.readiness(), Answer::plain(200, "ready"));
    shown.contact(Some("away"));
    let why = "no contact with the datastore: away";
    assert_eq!(shown.readiness(), Answer::plain(503, why));
}

#[test]
fn guide_dashboard_and_alerts_know_what_there_is() {
    let text = busy();
    let shown: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    for name in &shown {
        assert!(GUIDE.contains(&format!("`{name}`")), "{name} is not in the guide");
    }
    let dashboard: Json = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].to_string();
    for (what, text) in [("dashboard", panels.as_str()), ("alerts", ALERTS)] {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let used: BTreeSet<&str> = words
            .filter(|word| word.starts_with("buoy_controller_"))
            .collect();
        assert!(!used.is_empty(), "{what}");
        let unknown: Vec<&&str> = used.difference(&shown).collect();
        assert!(unknown.is_empty(), "{what}: {unknown:?}");
    }
}
