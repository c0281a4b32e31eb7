//! Step 12: everything goes.

use anyhow::{Result, ensure};

use super::super::story::{Story, figure};
use super::super::{FLOATING, SOON};
use super::Network;
use crate::ask::given_up;
use crate::dump::Dump;
use crate::exec::eventually;
use crate::leaks::assert_nothing_leaked;
use crate::made;

pub(super) fn tell(network: &mut Network) -> Result<()> {
    network.story.step(12, "Everything goes, on all three nodes")?;
    for (_, workload) in std::mem::take(&mut network.workloads) {
        workload.delete()?;
    }
    let n1 = network.node("n1")?;
    for floating in FLOATING {
        given_up(n1, floating)?;
        n1.ctl(&format!("fip release {floating}"))?;
    }
    eventually(SOON, "the bindings are collected", || {
        let list = n1.ctl("fip list -o json")?;
        ensure!(list.trim() == "[]", "still there: {list}");
        Ok(())
    })?;
    for node in &network.cluster.nodes {
        assert_nothing_leaked(node, &[])?;
        node.stop_agent()?;
        node.cleanup()?;
    }
    let mut lines = 0;
    for (node, before) in network.cluster.nodes.iter().zip(&network.cluster.before) {
        let difference = before.difference(&Dump::take(node.netns())?);
        ensure!(
            difference.is_empty(),
            "{} is not as it was:\n{difference}",
            node.name()
        );
        let processes = made::processes_in(node.netns().path());
        ensure!(processes.is_empty(), "left on {}: {processes:?}", node.name());
        lines += before.len();
    }
    network.story.checked(
        "routes, rules, nftables, links, sysctls as before, and no process, also no BIRD",
        &format!("{lines} lines compared"),
    )
}

/// Removes the network itself, checks that, and says goodbye.
pub(in super::super) fn close(network: Network) -> Result<()> {
    let Network {
        cluster, mut story, ..
    } = network;
    gone(&mut story, cluster.run().id().to_owned(), cluster)?;
    story.line(&format!(
        "\n{} claims checked in {}.",
        story.checks(),
        figure(story.took())
    ))
}

fn gone(story: &mut Story, run: String, cluster: crate::cluster::Cluster) -> Result<()> {
    let base = cluster.run().base().to_owned();
    drop(cluster);
    let namespaces = made::namespaces_of(&run);
    ensure!(namespaces.is_empty(), "namespaces are left: {namespaces:?}");
    ensure!(!base.exists(), "files are left: {}", base.display());
    story.check("no namespace and no file of the lab is left on this machine")
}
