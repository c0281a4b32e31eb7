//! Many floating IPs on one node, and the router that learns them.

use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, Result};

use super::super::bed::prepare;
use super::super::report::{Report, Row};
use super::super::{progress, requests};
use super::{FAMILY, Field, Scale, address};
use crate::workload::Workload;

/// Requests all of them at once, and waits for the router.
pub(super) fn measure(field: &Field, scale: &Scale, report: &mut Report) -> Result<()> {
    let many = scale.many;
    progress(&format!("  {many} floating IPs on one node"))?;
    let [node, _, _] = field.nodes()?;
    let mut workloads = Vec::new();
    for number in 0..scale.workloads * 4 {
        let mut workload = prepare(node, FAMILY, &format!("many-{number}"))?;
        workload.add()?.ok().context("ADD")?;
        workloads.push(workload);
    }
    field.rest()?;
    let begun = Instant::now();
    requests::ask_all(field.store.as_ref(), &shared_out(&workloads, many))?;
    let all = field.wait_for_routes(many)?;
    report.took("router", many, all.saturating_duration_since(begun));
    field.rest()?;
    let bird = u32::try_from(node.bird_pid()?.as_raw())?;
    for (what, pid) in [("bird", bird), ("router", field.cluster.router.pid()?)] {
        let memory = crate::exec::memory(pid, "VmRSS")? as f64 / 1024.0;
        report.add(Row::costs(format!("{what}-memory/{many}"), "MiB", &[memory]));
    }
    field.check()
}

/// The same number for each, to within one.
fn shared_out(workloads: &[Workload], many: usize) -> Vec<(String, Vec<IpAddr>)> {
    let each = workloads.iter().enumerate().map(|(number, workload)| {
        let own = (number..many).step_by(workloads.len()).map(address);
        (workload.name().to_owned(), own.collect())
    });
    each.collect()
}
