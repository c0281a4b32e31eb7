//! Step 11: daemons are killed and upgraded under traffic.

use anyhow::Result;

use super::super::{FLOATING, SOON, ip};
use super::Network;
use crate::exec;
use crate::traffic::Traffic;

/// The owner's node after step 10.
const OWNER: &str = "n1";

pub(super) fn tell(network: &mut Network) -> Result<()> {
    network
        .story
        .step(11, "BIRD is killed; BIRD and agent are upgraded")?;
    let traffic = Traffic::start(&network.cluster.client, ip(FLOATING[0])?)?;
    network.node(OWNER)?.kill_bird()?;
    network
        .story
        .command(&format!("{OWNER}# kill -9 $(pidof bird)"), "")?;
    traffic.progress()?;
    network.cluster.wait_for_sessions()?;
    traffic.progress()?;
    network
        .story
        .check("the agent started it again, and its sessions stand")?;

    let node = network.node(OWNER)?;
    exec::run(&mut node.agent_command(&["bird", "stop"]), "", SOON)?.ok()?;
    network.story.command(
        &format!("{OWNER}# buoy-agent bird stop           (in order, for another version)"),
        "",
    )?;
    network.cluster.wait_for_sessions()?;
    traffic.progress()?;
    let node = network.node(OWNER)?;
    node.stop_agent()?;
    traffic.progress()?;
    let took = node.start_agent()?;
    network.story.command(
        &format!("{OWNER}# systemctl restart buoy-agent   (what it does, here)"),
        "",
    )?;
    network.story.timed("the new agent is ready after", took)?;
    network.cluster.wait_for_sessions()?;
    traffic.progress()?;
    for (via, tally) in traffic.unharmed()? {
        network.story.checked(
            &format!(
                "{} through all of this: {} of {} answered",
                via.name(),
                tally.answered,
                tally.sent
            ),
            "nothing lost",
        )?;
    }
    network.cluster.check()
}
