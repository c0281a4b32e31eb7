//! Step 6: the agent is killed, the store is held; traffic does not notice.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{FLOATING, Stage, ip};
use crate::locker::Locker;
use crate::store::Store;
use crate::traffic::Traffic;
use crate::workload::Workload;

/// For how long the store is held.
const HOLD: Duration = Duration::from_secs(10);

pub(super) fn tell(stage: &mut Stage) -> Result<()> {
    stage
        .story
        .step(6, "Faults: the agent is killed, the store is held")?;
    let traffic = Traffic::start(&stage.lab.client, ip(FLOATING[0])?)?;
    stage.lab.node.kill_agent();
    stage.story.command("kill -9 $(pidof buoy-agent)", "")?;
    traffic.progress()?;
    let took = take(stage, "neighbour")?.delete()?;
    stage.story.timed("DEL of a pod while there is no agent", took)?;
    let took = stage.lab.node.start_agent()?;
    traffic.progress()?;
    stage
        .story
        .timed("a new agent has read the kernel back and is ready", took)?;
    hold_store(stage)?;
    for (via, tally) in traffic.unharmed()? {
        stage.story.checked(
            &format!(
                "{} through all of this: {} of {} answered",
                via.name(),
                tally.answered,
                tally.sent
            ),
            "nothing lost",
        )?;
    }
    Ok(())
}

fn hold_store(stage: &mut Stage) -> Result<()> {
    let store = stage.lab.node.store();
    let locker = Locker::hold(stage.lab.run(), store)?;
    let how = if let Store::File(_) = store {
        "sqlite3 buoy.db 'BEGIN EXCLUSIVE; …'   (for ten seconds, by another process)"
    } else {
        "kill -STOP $(pidof etcd)   (for ten seconds, all three members)"
    };
    stage.story.command(how, "")?;
    let took = take(stage, "web-1")?.delete_by_agent()?;
    stage
        .story
        .timed("DEL of a pod while nobody can write to the store", took)?;
    std::thread::sleep(HOLD.saturating_sub(locker.held()));
    stage.story.check("the store was held for ten seconds")?;
    drop(locker);
    Ok(())
}

fn take(stage: &mut Stage, name: &str) -> Result<Workload> {
    stage
        .workloads
        .remove(name)
        .with_context(|| format!("no workload {name}"))
}
