//! Many pods created at once, and when all are ready deleted at once.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::super::progress;
use super::super::report::{Report, Row};
use crate::exec::eventually;
use crate::kube::{AGENT, Cluster, image};

/// Longest that all of them may take to come or to go.
const PATIENCE: Duration = Duration::from_secs(300);

/// Between two looks at all of them: a look costs the API server something, too.
const LOOK: Duration = Duration::from_millis(200);

/// Pods that are made and deleted before it counts: programs and images are in memory then.
const WARM: usize = 3;

/// How long it took.
pub(super) struct Burst {
    ready: Duration,
    gone: Duration,
}

/// Creates them, in a Kubernetes namespace of their own, and deletes them when all are ready.
pub(super) fn run(cluster: &Cluster, name: &str, count: usize) -> Result<Burst> {
    come_and_go(cluster, &format!("{name}-warm"), WARM)?;
    come_and_go(cluster, name, count)
}

/// The same by Buoy, what the API server was asked for it, and whether something is left.
pub(super) fn measure(cluster: &Cluster, stock: &Burst, count: usize, report: &mut Report) -> Result<()> {
    come_and_go(cluster, "buoy-warm", WARM)?;
    let before = cluster.control.asked_by(AGENT)?;
    let own = come_and_go(cluster, "buoy", count)?;
    let ended = Instant::now();
    cluster.check()?;
    cluster.until("nothing of the pods is left", |_| nothing_left(cluster))?;
    let agreed = ended.elapsed();
    let asked = since(&before, cluster.control.asked_by(AGENT)?);
    for ((verb, resource), times) in &asked {
        progress(&format!("    the agents asked {times} times: {verb} {resource}"))?;
    }
    compare(stock, &own, count, report);
    report.took("kube-pods-agree", count, agreed);
    let per_pod = asked.values().sum::<u64>() as f64 / count as f64;
    let name = format!("kube-pods-requests/{count}");
    report.add(Row::costs(name, "per pod", &[per_pod]));
    Ok(())
}

fn compare(stock: &Burst, own: &Burst, count: usize, report: &mut Report) {
    for (what, of_stock, of_own) in [("ready", stock.ready, own.ready), ("gone", stock.gone, own.gone)] {
        let row = |who: &str, took: Duration| {
            Row::costs(
                format!("kube-pods-{what}/{who}/{count}"),
                "s",
                &[took.as_secs_f64()],
            )
        };
        let of_stock = row("ptp", of_stock);
        report.add(row("buoy", of_own).against(&of_stock));
        report.add(of_stock);
    }
}

fn come_and_go(cluster: &Cluster, namespace: &str, count: usize) -> Result<Burst> {
    cluster.namespace(namespace)?;
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    let begun = Instant::now();
    for number in 0..count {
        cluster.api().create(&path, &pod(number))?;
    }
    wait(cluster, namespace, "all pods are ready", |ready, there| {
        (ready, there) == (count, count)
    })?;
    let ready = begun.elapsed();
    let begun = Instant::now();
    cluster.api().delete(&path)?;
    wait(cluster, namespace, "all pods are gone", |_, there| there == 0)?;
    Ok(Burst {
        ready,
        gone: begun.elapsed(),
    })
}

fn wait(cluster: &Cluster, namespace: &str, what: &str, enough: impl Fn(usize, usize) -> bool) -> Result<()> {
    eventually(PATIENCE, what, || {
        let pods = cluster.pods(namespace).inspect_err(|_| thread::sleep(LOOK))?;
        let ready = pods.iter().filter(|pod| pod.ready).count();
        if !enough(ready, pods.len()) {
            thread::sleep(LOOK);
        }
        ensure!(enough(ready, pods.len()), "{ready} of {} are ready", pods.len());
        Ok(())
    })
}

/// One that does nothing, and ends when it is told to. Without any grace the API would forget it before its node does.
fn pod(number: usize) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": format!("p-{number}")},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": false,
            "dnsPolicy": "Default",
            "containers": [{
                "name": "idle",
                "image": image::BUSYBOX,
                "imagePullPolicy": "Never",
                "command": ["sh", "-c", "trap exit TERM; sleep 86400 & wait"],
            }],
        },
    })
}

/// Error: a node has links or routes of pods, or an address is still given to somebody.
fn nothing_left(cluster: &Cluster) -> Result<()> {
    for node in cluster.nodes() {
        for question in ["ip -br link show", "ip route show", "ip -6 route show"] {
            let shown = node.netns().exec(question)?.stdout;
            let left: Vec<&str> = shown.lines().filter(|line| line.contains("cali")).collect();
            ensure!(left.is_empty(), "{} has {left:?}", node.name());
        }
    }
    let handles = cluster.api().list("/apis/crd.projectcalico.org/v1/ipamhandles")?;
    ensure!(handles.is_empty(), "addresses are still given: {handles:?}");
    Ok(())
}

/// What was asked later.
fn since(before: &Asked, mut now: Asked) -> Asked {
    for (what, times) in &mut now {
        *times -= before.get(what).copied().unwrap_or_default();
    }
    now.retain(|_, times| *times > 0);
    now
}

type Asked = BTreeMap<(String, String), u64>;
