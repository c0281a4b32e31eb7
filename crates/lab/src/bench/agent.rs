//! What an idle agent costs.

use std::thread;
use std::time::Instant;

use anyhow::Result;

use super::report::{Report, Row};
use super::{Scale, machine};
use crate::node::Node;

/// Looks into which the time of watching is divided.
const LOOKS: u32 = 5;

/// Memory and processor time with so many floating IPs.
pub(super) fn measure(node: &Node, level: usize, scale: &Scale, report: &mut Report) -> Result<()> {
    let pid = node.with_agent(|agent| Ok(agent.pid()))?;
    machine::rest(pid)?;
    let mut shares = Vec::new();
    let mut memory = Vec::new();
    for _ in 0..LOOKS {
        let (begun, before) = (Instant::now(), machine::processor_time(pid)?);
        thread::sleep(scale.idle / LOOKS);
        let used = machine::processor_time(pid)?.saturating_sub(before);
        shares.push(100.0 * used.as_secs_f64() / begun.elapsed().as_secs_f64());
        memory.push(crate::exec::memory(pid, "VmRSS")? as f64 / 1024.0);
    }
    report.add(Row::costs(format!("agent-memory/{level}"), "MiB", &memory));
    report.add(Row::costs(format!("agent-idle/{level}"), "% of a core", &shares));
    Ok(())
}
