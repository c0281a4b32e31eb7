//! A Deployment of three with one floating IP, whose owner is deleted again and again.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::super::report::{Report, Row};
use crate::kube::{Cluster, Manifest};
use crate::probe::{Probe, Via};

/// Namespace and name of the Deployment.
const NAME: &str = "web";

/// The address.
const FLOATING: &str = "172.16.1.9";

/// How often the client asks: so exact is the time until the first answer.
const OFTEN: Duration = Duration::from_millis(2);

/// The client asks from one port all the time.
const PORT: u16 = 19_999;

/// Until somebody answers, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// From the deletion until another pod answers the client beyond the router for the first time.
pub(super) fn measure(cluster: &Cluster, times: usize, report: &mut Report) -> Result<()> {
    cluster.import_server()?;
    cluster.namespace(NAME)?;
    let manifest = Manifest::new(NAME, NAME).floating(&[FLOATING]).spread();
    cluster.apply(&manifest.deployment(3, "RollingUpdate").to_string())?;
    let to: IpAddr = FLOATING.parse()?;
    let probe = Probe::start(&cluster.client, Via::UdpFrom(PORT), to, OFTEN)?;
    let mut took = Vec::new();
    for _ in 0..times {
        cluster.wait_for_pods(NAME, 3)?;
        probe.wait_for_more(10, SOON)?;
        took.push(deleted(cluster, &probe)?);
    }
    cluster.wait_for_pods(NAME, 3)?;
    cluster.check()?;
    report.add(Row::times("kube-move/deleted", &took));
    Ok(())
}

fn deleted(cluster: &Cluster, probe: &Probe) -> Result<Duration> {
    let changes = probe.tally().changes;
    let (_, owner) = changes.last().context("nobody answers")?;
    let pod = cluster.pod(NAME, owner)?;
    let begun = Instant::now();
    cluster.api().delete(&pod.path())?;
    let tally = probe.wait(SOON, "another answers", |tally| {
        tally.changes.len() > changes.len()
    })?;
    let (first, _) = &tally.changes[changes.len()];
    Ok(first.saturating_duration_since(begun))
}
