//! Addresses that pods choose for themselves.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use buoy_lab::kube::{Buoy, Cluster, Manifest, Pod};
use buoy_lab::probe::{self, Via};

use super::owners::another;
use super::service::reached;

/// Of one family, of the other, of both; given later the annotation has no effect.
pub(crate) fn fixed_ip(cluster: &Cluster, _: &Buoy<'_>, here: &str) -> Result<()> {
    for (name, addresses) in [
        ("four", &["10.65.7.1"][..]),
        ("six", &["fd65::7:2"]),
        ("both", &["10.65.7.3", "fd65::7:3"]),
    ] {
        cluster.apply(&Manifest::new(here, name).fixed(addresses).pod().to_string())?;
        let pod = cluster.wait_for_pod(here, name)?;
        for address in addresses {
            let address: IpAddr = address.parse()?;
            ensure!(pod.addresses.contains(&address), "{pod:?} has not {address}");
            reached(cluster, &address.to_string(), name)?;
        }
    }
    // Given later, the annotation has no effect, and that is said.
    let words = "cni.projectcalico.org/ipAddrs=[\"10.65.7.9\"]";
    cluster
        .try_kubectl(&["annotate", "--overwrite", "-n", here, "pod", "four", words], "")?
        .ok()?;
    cluster.wait_for_event(here, "four", "has no effect")?;
    reached(cluster, "10.65.7.1", "four")?;
    probe::nobody_answers(
        &cluster.client,
        Via::Udp,
        "10.65.7.9".parse()?,
        Duration::from_millis(500),
    )
}

/// Outside of every pool, in use, two of a family.
pub(crate) fn refused(cluster: &Cluster, _: &Buoy<'_>, here: &str) -> Result<()> {
    cluster.apply(
        &Manifest::new(here, "first")
            .fixed(&["10.65.8.1"])
            .pod()
            .to_string(),
    )?;
    cluster.wait_for_pod(here, "first")?;
    for (name, addresses, said) in [
        ("outside", &["10.99.0.1"][..], "pool"),
        ("in-use", &["10.65.8.1"], "already assigned"),
        ("two", &["10.65.8.2", "10.65.8.3"], "more than one"),
    ] {
        let pod = Manifest::new(here, name).fixed(addresses).pod();
        cluster.apply(&pod.to_string())?;
        let said = cluster.wait_for_event(here, name, said)?;
        eprintln!("  {said}");
        cluster
            .api()
            .delete(&format!("/api/v1/namespaces/{here}/pods/{name}"))?;
    }
    Ok(())
}

/// A Deployment whose old pod goes before the new one comes.
pub(crate) fn recreate(cluster: &Cluster, _: &Buoy<'_>, here: &str) -> Result<()> {
    let manifest = Manifest::new(here, "web").fixed(&["10.65.9.1"]);
    cluster.apply(&manifest.deployment(1, "Recreate").to_string())?;
    restarted(cluster, here, "10.65.9.1")
}

/// The new pod waits until the old one is gone: its ADD is tried again and again.
pub(crate) fn rolling_update(cluster: &Cluster, _: &Buoy<'_>, here: &str) -> Result<()> {
    let manifest = Manifest::new(here, "web").fixed(&["10.65.9.2"]);
    cluster.apply(&manifest.deployment(1, "RollingUpdate").to_string())?;
    let old = one_pod(cluster, here)?;
    cluster.kubectl(&format!("rollout restart -n {here} deployment/web"))?;
    let new = cluster.until("there is a new pod", |_| {
        let pods = cluster.pods(here)?;
        pods.into_iter()
            .find(|pod| pod.uid != old.uid)
            .context("there is none")
    })?;
    cluster.wait_for_event(here, &new.name, "10.65.9.2")?;
    // Deleted alone it would be replaced by one of its own kind, which might be quicker.
    let (replicas, _) = old.name.rsplit_once('-').context("the name of a pod")?;
    cluster.kubectl(&format!("scale -n {here} replicaset/{replicas} --replicas=0"))?;
    cluster.until("the new pod is ready", |_| {
        let pods = cluster.pods(here)?;
        ensure!(pods.iter().any(|pod| pod.uid == new.uid && pod.ready), "{pods:?}");
        Ok(())
    })?;
    reached(cluster, "10.65.9.2", &new.name)
}

fn one_pod(cluster: &Cluster, namespace: &str) -> Result<Pod> {
    let mut pods = cluster.wait_for_pods(namespace, 1)?;
    pods.pop().context("no pod")
}

/// A Deployment's rollout keeps the fixed address.
fn restarted(cluster: &Cluster, namespace: &str, address: &str) -> Result<()> {
    let old = one_pod(cluster, namespace)?;
    reached(cluster, address, &old.name)?;
    cluster.kubectl(&format!("rollout restart -n {namespace} deployment/web"))?;
    let new = another(cluster, namespace, &old)?;
    reached(cluster, address, &new.name)
}
