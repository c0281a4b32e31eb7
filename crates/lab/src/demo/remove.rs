//! Step 7: everything goes, and the node is as it was.

use anyhow::{Result, ensure};

use super::story::Story;
use super::{FLOATING, SOON, Stage};
use crate::ask::given_up;
use crate::dump::Dump;
use crate::exec::eventually;
use crate::leaks::assert_nothing_leaked;
use crate::made;

pub(super) fn tell(stage: &mut Stage) -> Result<()> {
    stage
        .story
        .step(7, "Everything goes, and the node is as it was before")?;
    for (name, workload) in std::mem::take(&mut stage.workloads) {
        let took = workload.delete()?;
        stage.story.timed(&format!("CNI DEL of {name}"), took)?;
    }
    for floating in FLOATING {
        given_up(&stage.lab.node, floating)?;
    }
    let list = stage.show_ctl("fip list")?;
    ensure!(list.contains(FLOATING[0]), "the floating IPs are not held");
    stage
        .story
        .say("Nobody uses them; the namespace keeps them for ten minutes, unless they are released:")?;
    for floating in FLOATING.into_iter().chain(["172.16.1.77"]) {
        stage.show_ctl(&format!("fip release {floating}"))?;
    }
    let node = &stage.lab.node;
    eventually(SOON, "the bindings are collected", || {
        let list = node.ctl("fip list -o json")?;
        ensure!(list.trim() == "[]", "still there: {list}");
        Ok(())
    })?;
    assert_nothing_leaked(node, &[])?;
    stage
        .story
        .check("no address is allocated, no record is left over")?;
    clean_up(stage)
}

fn clean_up(stage: &mut Stage) -> Result<()> {
    let node = &stage.lab.node;
    node.stop_agent()?;
    let finished = node.cleanup()?;
    stage.story.command("buoy-agent cleanup", &finished.stdout)?;
    let difference = stage.lab.before.difference(&Dump::take(node.netns())?);
    ensure!(difference.is_empty(), "the node is not as it was:\n{difference}");
    let processes = made::processes_in(node.netns().path());
    ensure!(
        processes.is_empty(),
        "processes are left on the node: {processes:?}"
    );
    stage.story.checked(
        "links, addresses, routes, rules, neighbours, nftables, sysctls: as before",
        &format!("{} lines compared", stage.lab.before.len()),
    )?;
    stage.story.check("no process is left on the node")
}

/// Removes the lab itself, checks that, and hands the story on.
pub(super) fn close(stage: Stage) -> Result<Story> {
    let Stage { lab, mut story, .. } = stage;
    let run = lab.run().id().to_owned();
    let base = lab.run().base().to_owned();
    drop(lab);
    let namespaces = made::namespaces_of(&run);
    ensure!(namespaces.is_empty(), "namespaces are left: {namespaces:?}");
    ensure!(!base.exists(), "files are left: {}", base.display());
    story.check("no namespace and no file of this node is left on the machine")?;
    Ok(story)
}
