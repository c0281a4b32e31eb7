//! What people see of a node: pages, metrics and conditions say what is so, and go with it.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use buoy_lab::ask::{given_up, shows, status_says};
use buoy_lab::exec::eventually;
use buoy_lab::faults::Seen;
use buoy_lab::lab::Lab;
use buoy_lab::locker::Locker;
use buoy_lab::node::Node;
use buoy_lab::store::Kind;
use buoy_lab::workload::{Spec, Workload};
use serde_json::Value;

const V4: &str = "172.16.1.3";
const SOON: Duration = Duration::from_secs(30);

/// The value of a metric, with its labels.
fn metric(node: &Node, name: &str) -> Result<f64> {
    let text = node.agent_api().text("/metrics")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.with_context(|| format!("no {name} in:\n{text}"))?
        .parse()
        .with_context(|| name.to_owned())
}

/// Reads a metric until it is so.
fn measures(node: &Node, name: &str, is_so: impl Fn(f64) -> bool) -> Result<f64> {
    eventually(SOON, name, || {
        let value = metric(node, name)?;
        ensure!(is_so(value), "{name} is {value}");
        Ok(value)
    })
}

/// The binding's record.
fn binding(node: &Node) -> Result<Value> {
    let record = node.ctl("get floatingipbinding 172-16-1-3 -o json")?;
    serde_json::from_str(&record).context(record)
}

fn condition<'a>(binding: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = binding["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    found["status"].as_str()
}

buoy_lab::on_each_store! {
    metrics_and_conditions_follow_a_workload,
}

fn metrics_and_conditions_follow_a_workload(store: Kind) {
    Lab::start_on(store).unwrap().test(|lab| {
        let node = &lab.node;
        node.agent_api().text("/healthz")?;
        shows(node, Seen::IN_CONTACT)?;
        let added = r#"buoy_cni_requests_total{command="add",code="0"}"#;
        let before = node.agent_api().text("/metrics")?;
        ensure!(!before.contains(added), "nothing was added yet:\n{before}");
        let web = Workload::start(node, Spec::pod("shop", "web-0").floating(&[V4]))?;

        measures(node, added, |count| count == 1.0)?;
        measures(node, "buoy_workloads", |count| count == 1.0)?;
        measures(node, r#"buoy_floating_ips{state="owned"}"#, |count| count == 1.0)?;
        measures(node, "buoy_lease_held", |held| held == 1.0)?;
        measures(node, "buoy_datastore_up", |up| up == 1.0)?;
        let changes = r#"buoy_floating_ip_changes_total{change="granted"}"#;
        measures(node, changes, |count| count == 1.0)?;
        for counted in [
            r#"buoy_cni_request_duration_seconds_count{command="add"}"#,
            r#"buoy_operations_total{kind="add_link",outcome="done"}"#,
            r#"buoy_duties_total{kind="first_claim",outcome="done"}"#,
            r#"buoy_datastore_watch_events_total{change="put"}"#,
            r#"buoy_kernel_resyncs_total{outcome="done"}"#,
            "buoy_apply_duration_seconds_count",
            "buoy_loop_turn_duration_seconds_count",
        ] {
            ensure!(metric(node, counted)? >= 1.0, "{counted}");
        }
        metric(
            node,
            r#"buoy_dropped_packets_total{family="ipv6",reason="spoofed"}"#,
        )?;
        for queue in ["inputs", "kernel", "unlink", "store-owner", "store", "notes"] {
            metric(node, &format!("buoy_queue_depth{{queue=\"{queue}\"}}"))?;
        }

        let written = eventually(SOON, "the conditions are there", || {
            let binding = binding(node)?;
            ensure!(condition(&binding, "Programmed") == Some("True"), "{binding:#}");
            Ok(binding)
        })?;
        ensure!(condition(&written, "Accepted") == Some("True"), "{written:#}");
        ensure!(
            condition(&written, "Advertised") == Some("Unknown"),
            "{written:#}"
        );
        // While its lease is renewed, nothing is written into the binding.
        thread::sleep(Duration::from_secs(5));
        ensure!(binding(node)? == written, "{:#}", binding(node)?);

        web.delete()?;
        given_up(node, V4)?;
        eventually(SOON, "the conditions go with the owner", || {
            let binding = binding(node)?;
            ensure!(condition(&binding, "Programmed").is_none(), "{binding:#}");
            Ok(())
        })?;
        measures(node, r#"buoy_floating_ips{state="owned"}"#, |count| count == 0.0)?;
        measures(
            node,
            r#"buoy_cni_requests_total{command="del",code="0"}"#,
            |count| count == 1.0,
        )?;
        Ok(())
    });
}

/// Somebody keeps the embedded store locked: it can be read, and takes no writes.
#[test]
fn a_store_that_takes_no_writes_is_seen_and_restarts_nobody() {
    Lab::start().unwrap().test(|lab| {
        let node = &lab.node;
        let _web = Workload::start(node, Spec::pod("shop", "web-0").floating(&[V4]))?;
        let locker = Locker::hold(lab.run(), node.store())?;
        shows(node, Seen::LOCKED)?;
        status_says(node, &["Ready:          no", "the datastore takes no writes"])?;
        measures(node, "buoy_ready", |ready| ready == 0.0)?;
        measures(node, r#"buoy_floating_ips{state="unconfirmed"}"#, |count| {
            count == 1.0
        })?;
        // A restart would mend nothing.
        node.agent_api().text("/healthz")?;
        drop(locker);
        shows(node, Seen::IN_CONTACT)?;
        status_says(node, &["Ready:          yes"])?;
        measures(node, r#"buoy_floating_ips{state="unconfirmed"}"#, |count| {
            count == 0.0
        })?;
        Ok(())
    });
}

/// A new file that somebody else has to himself cannot even be read.
#[test]
fn a_store_that_is_locked_when_an_agent_starts_is_waited_for() {
    Lab::bare().unwrap().test(|lab| {
        let node = &lab.node;
        let locker = Locker::hold(lab.run(), node.store())?;
        let mut agent = node.launch_agent()?;
        let locked = Seen {
            status: Seen::LOCKED.status,
            ..Seen::NOT_READ
        };
        shows(node, locked)?;
        drop(locker);
        shows(node, Seen::IN_CONTACT)?;
        agent.kill();
        Ok(())
    });
}
