//! A real Kubernetes of three nodes: pods by the hundred, beside Debian's plugins on the same cluster; what the API server is
//! asked for them; an agent beside ten thousand pods of other nodes; and a Deployment whose owner is deleted.

mod burst;
mod elsewhere;
mod owner;

use anyhow::{Context, Result};

use super::progress;
use super::report::Report;
use crate::kube::{Buoy, Cluster, Gate, Options};

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// Pods that are created at once, and then deleted at once.
    pods: usize,
    /// Pods of other nodes.
    others: usize,
    /// Owners that are deleted.
    owners: usize,
}

pub(super) const FULL: Scale = Scale {
    pods: 200,
    others: 10_000,
    owners: 30,
};

pub(super) const QUICK: Scale = Scale {
    pods: 6,
    others: 100,
    owners: 2,
};

/// Everything, on one cluster.
pub(super) fn measure(scale: Scale, report: &mut Report) -> Result<()> {
    progress("three nodes of Kubernetes")?;
    let cluster = Cluster::start(&Options::default())?;
    let measured = parts(&cluster, scale, report);
    measured
        .inspect_err(|_| cluster.run().keep_directory())
        .with_context(|| cluster.evidence())
}

fn parts(cluster: &Cluster, scale: Scale, report: &mut Report) -> Result<()> {
    progress(&format!("  {} pods by Debian's plugins", scale.pods))?;
    let stock = burst::run(cluster, "stock", scale.pods)?;
    cluster.remove_stock_network()?;
    let buoy = Buoy::install(cluster, Gate::Open)?;
    progress(&format!("  {} pods by Buoy", scale.pods))?;
    burst::measure(cluster, &stock, scale.pods, report)?;
    progress("  owners that are deleted")?;
    owner::measure(cluster, scale.owners, report)?;
    progress(&format!("  {} pods of other nodes", scale.others))?;
    elsewhere::measure(cluster, &buoy, scale.others, report)
}
