//! Steps 8 to 12: three nodes, a router and a client beyond it; the address moves across the network, whoever dies.

mod moves;
mod reach;
mod remove;
mod restarts;

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::story::Story;
use super::{FLOATING, NAMESPACE};
use crate::cluster::{CLIENT, Cluster, NODES, ROUTER};
use crate::node::Node;
use crate::store::Kind;
use crate::traffic::Seen;
use crate::workload::{Spec, Workload};

pub(super) use self::remove::close;

/// What these steps work on.
#[derive(Debug)]
pub(super) struct Network {
    workloads: BTreeMap<String, Workload>,
    cluster: Cluster,
    story: Story,
}

impl Network {
    /// Makes the network.
    pub(super) fn make(story: Story, store: Kind) -> Result<Self> {
        introduce(&story, store)?;
        Ok(Self {
            workloads: BTreeMap::new(),
            cluster: Cluster::bare_on(store)?,
            story,
        })
    }

    /// Tells the story.
    pub(super) fn tell(&mut self) -> Result<()> {
        reach::tell(self)?;
        moves::tell(self)?;
        restarts::tell(self)?;
        remove::tell(self)
    }

    /// Shows the evidence that something does not hold, and keeps the logs.
    pub(super) fn failed(&self, error: &anyhow::Error) -> Result<()> {
        self.cluster.run().keep_directory();
        self.story.failed(error, &self.cluster.evidence())
    }

    fn node(&self, name: &str) -> Result<&Node> {
        self.cluster.node(name)
    }

    /// Starts a pod that asks for the floating IPs.
    fn start(&mut self, node: &str, name: &str) -> Result<()> {
        let spec = Spec::pod(NAMESPACE, name).floating(&FLOATING);
        let pod = Workload::start(self.node(node)?, spec)?;
        self.workloads.insert(name.to_owned(), pod);
        Ok(())
    }

    fn take(&mut self, name: &str) -> Result<Workload> {
        let found = self.workloads.remove(name);
        found.with_context(|| format!("no workload {name}"))
    }

    /// Runs `buoyctl` on a node and shows command and output.
    fn show_ctl(&self, node: &str, line: &str) -> Result<String> {
        let output = self.node(node)?.ctl(line)?;
        self.story.command(&format!("{node}# buoyctl {line}"), &output)?;
        Ok(output)
    }

    /// Shows what a move cost.
    fn cost(&mut self, what: &str, seen: &Seen) -> Result<()> {
        self.story.timed(
            &format!("{what}: the first answer to the UDP sender after"),
            seen.first_answer,
        )?;
        let of = |(sent, lost): (u32, u32)| format!("{} of {sent} answered", sent - lost);
        let lost = |(_, lost): (u32, u32)| format!("{lost} lost");
        self.story.checked(
            &format!("pings every 10 ms: {}", of(seen.pings)),
            &format!(
                "{}, longest gap {}",
                lost(seen.pings),
                super::story::figure(seen.gap)
            ),
        )?;
        self.story.checked(
            &format!("UDP every 2 ms, always from one port: {}", of(seen.udp)),
            &lost(seen.udp),
        )?;
        let ended = match (seen.how_it_ended(), seen.reset) {
            (Some(how), Some(after)) => format!("{how}, the reader after {}", super::story::figure(after)),
            (Some(how), None) => how.to_owned(),
            (None, _) => "nobody is there to end it".to_owned(),
        };
        self.story.checked(
            &format!("TCP talk, every 10 ms: {}, {}", of(seen.tcp), lost(seen.tcp)),
            &ended,
        )
    }
}

fn introduce(story: &Story, store: Kind) -> Result<()> {
    story.line(
        "\nNow a network: three nodes with BIRD beside the agent, a router outside, and a client beyond it:",
    )?;
    let [n1, n2, n3] = NODES.map(|addresses| addresses[0]);
    story.line(&format!(
        "
   n1 {n1} ─┐
   n2 {n2} ─┼─ switch ── {} router (AS 64600) ── client {}   (and the same in IPv6)
   n3 {n3} ─┘   BGP: the nodes with each other, and each with the router",
        ROUTER[0], CLIENT[0]
    ))?;
    match store {
        Kind::Sqlite => Ok(()),
        Kind::Etcd => {
            story.line("   etcd1, etcd2, etcd3 on the same switch: the datastore of the three agents")
        }
    }
}
