//! What tests of several clusters have in common: a pod that is reached by its floating IP, by a port of its node and by a
//! Service.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use buoy_lab::ask::answered_by;
use buoy_lab::kube::{Buoy, Cluster, Manifest};
use buoy_lab::probe::{self, Via};

/// Generous: a busy machine takes its time.
const SOON: Duration = Duration::from_secs(30);

/// By ping, TCP and UDP, from beyond the router.
pub(crate) fn reached(cluster: &Cluster, address: &str, who: &str) -> Result<()> {
    for via in [Via::Tcp, Via::Udp] {
        answered_by(&cluster.client, via, address, who)?;
    }
    probe::ask(&cluster.client, Via::Ping, address.parse()?, SOON).map(drop)
}

/// portmap and kube-proxy beside a floating IP of the same pod.
pub(crate) fn host_port_and_service(cluster: &Cluster, _: &Buoy<'_>, here: &str) -> Result<()> {
    let manifest = Manifest::new(here, "web")
        .floating(&["172.16.1.50"])
        .host_port(7070);
    cluster.apply(&manifest.deployment(1, "Recreate").to_string())?;
    cluster.apply(&manifest.service("10.96.8.8", 30070).to_string())?;
    cluster.apply(&Manifest::new(here, "other").pod().to_string())?;
    let pod = cluster.until("the pod is ready", |_| {
        let pods = cluster.pods(here)?;
        let found = pods.into_iter().find(|pod| pod.name != "other" && pod.ready);
        found.context("it is not")
    })?;
    reached(cluster, "172.16.1.50", &pod.name)?;
    let other = cluster.wait_for_pod(here, "other")?;
    let node = cluster.node(&pod.node)?;
    for place in [
        format!("{} 7070", node.addresses()[0]),
        format!("{} 30070", cluster.nodes()[0].addresses()[0]),
    ] {
        cluster.until(&format!("{place} answers"), |_| {
            let said = cluster.client.exec(&format!("timeout 2 busybox nc {place}"));
            let said = said.map_or_else(|error| format!("{error:#}"), |finished| finished.stdout);
            ensure!(said.contains(&pod.name), "{said}");
            Ok(())
        })?;
    }
    for place in ["10.96.8.8", "172.16.1.50"] {
        cluster.until(&format!("{place} answers a pod"), |_| {
            let said = cluster.exec(&other, &["sh", "-c", &format!("nc {place} 7007 </dev/null")])?;
            ensure!(said.contains(&pod.name), "{said}");
            Ok(())
        })?;
    }
    Ok(())
}
