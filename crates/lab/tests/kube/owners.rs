//! A Deployment of three with one floating IP: one owner, two that stand by.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use buoy_lab::kube::{Buoy, Cluster, Manifest, Pod, UNREADY};
use buoy_lab::probe::{self, Via};
use buoy_lab::traffic::Witnesses;

/// Generous: a busy machine takes its time.
const SOON: Duration = Duration::from_secs(30);

/// A takeover of a dead node's address, on a busy machine.
const TAKEOVER: Duration = Duration::from_secs(60);

/// `kubectl delete pod`, of the owner.
pub(crate) fn owner_deleted(cluster: &Cluster, buoy: &Buoy<'_>, here: &str) -> Result<()> {
    let floating = "172.16.1.70";
    let owner = three(cluster, here, floating, &Manifest::new(here, "web"))?;
    loses(cluster, buoy, &owner, floating, "deleted").map(drop)
}

/// The address goes with readiness, and with a drain.
pub(crate) fn owner_unready_or_drained(cluster: &Cluster, buoy: &Buoy<'_>, here: &str) -> Result<()> {
    let floating = "172.16.1.71";
    let owner = three(cluster, here, floating, &Manifest::new(here, "web"))?;
    let next = loses(cluster, buoy, &owner, floating, "not ready")?;
    cluster.exec(&owner, &["rm", UNREADY])?;
    cluster.wait_for_pods(here, 3)?;
    loses(cluster, buoy, &next, floating, "drained")?;
    cluster.kubectl(&format!("uncordon {}", next.node))?;
    cluster.wait_for_pods(here, 3).map(drop)
}

/// Makes a Deployment of three that asks for an address. Returns its owner.
fn three(cluster: &Cluster, here: &str, floating: &str, manifest: &Manifest) -> Result<Pod> {
    let manifest = manifest.clone().floating(&[floating]).spread();
    cluster.apply(&manifest.deployment(3, "RollingUpdate").to_string())?;
    cluster.wait_for_pods(here, 3)?;
    owner(cluster, here, floating)
}

/// Something happens to the owner while clients talk to it, and one of those that stood by takes over. Returns who.
fn loses(cluster: &Cluster, buoy: &Buoy<'_>, owner: &Pod, floating: &str, what: &str) -> Result<Pod> {
    let here = &owner.namespace;
    let before = cluster.pods(here)?;
    let witnesses = Witnesses::start(&cluster.client, floating.parse()?)?;
    let begun = Instant::now();
    match what {
        "deleted" => cluster.api().delete(&owner.path())?,
        "not ready" => drop(cluster.exec(owner, &["touch", UNREADY])?),
        _ => drain(cluster, &owner.node)?,
    }
    let (next, seen) = witnesses
        .taken_over(begun, &owner.name, SOON)
        .with_context(|| format!("the owner was {what}\n{}", buoy.evidence()))?;
    eprintln!("  owner {what}: {} → {next}: {seen}", owner.name);
    let next = before.into_iter().find(|pod| pod.name == next);
    next.context("a newcomer took it")
}

/// Kubelet, containerd, agent and links of the owner's node gone.
pub(crate) fn node_dies(cluster: &Cluster, buoy: &Buoy<'_>, here: &str) -> Result<()> {
    let floating = "172.16.1.80";
    let owner = three(cluster, here, floating, &Manifest::new(here, "web").tolerates(2))?;
    let witnesses = Witnesses::start(&cluster.client, floating.parse()?)?;
    let begun = Instant::now();
    cluster.node(&owner.node)?.cut_power()?;
    let (next, seen) = witnesses
        .taken_over(begun, &owner.name, TAKEOVER)
        .with_context(|| buoy.evidence())?;
    eprintln!("  owner's node without power: {} → {next}: {seen}", owner.name);
    Ok(())
}

/// The pod that answers at an address.
fn owner(cluster: &Cluster, namespace: &str, address: &str) -> Result<Pod> {
    let answer = probe::ask(&cluster.client, Via::Tcp, address.parse()?, SOON)?;
    cluster.pod(namespace, &answer.who)
}

/// Waits until another pod has taken the place of this one.
pub(crate) fn another(cluster: &Cluster, namespace: &str, old: &Pod) -> Result<Pod> {
    cluster.until("another pod is there", |_| {
        let pods = cluster.pods(namespace)?;
        let found = pods.into_iter().find(|pod| pod.uid != old.uid && pod.ready);
        found.context("there is none")
    })
}

/// Evicts all pods of a node, and waits until they are gone.
pub(crate) fn drain(cluster: &Cluster, node: &str) -> Result<()> {
    let words = format!("drain {node} --ignore-daemonsets --force --delete-emptydir-data --timeout=60s");
    cluster.kubectl(&words).map(drop)
}
