//! Many floating IPs over three nodes, each with a standby on another, moved while agents are killed.

use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::super::bed::prepare;
use super::super::report::{Report, Row};
use super::super::{bindings, progress, requests};
use super::stir::stir;
use super::{FAMILY, Field, OFTEN, PATIENCE, Scale, address};
use crate::probe::{Probe, Via};
use crate::workload::Workload;

/// Pings that are answered before and after.
const CALM: u32 = 20;

/// Error: the checker finds something in the end, or an address is not answered any more.
pub(super) fn measure(field: &Field, scale: &Scale, report: &mut Report) -> Result<()> {
    let count = scale.crowd;
    progress(&format!("  {count} floating IPs over three nodes"))?;
    let workloads = attach(field, scale.workloads)?;
    let begun = Instant::now();
    requests::ask_all(field.store.as_ref(), &shared_out(&workloads, count))?;
    let all = field.wait_for_routes(count)?;
    report.took("crowd/router", count, all.saturating_duration_since(begun));
    field.rest()?;
    field.check()?;
    let client = &field.cluster.client;
    // Neighbours have different nodes, and the last is as good as the first.
    let sampled: Vec<usize> = (0..scale.sampled)
        .map(|number| number * (count - 1) / (scale.sampled - 1).max(1))
        .collect();
    let probes = sampled
        .iter()
        .map(|number| Probe::start(client, Via::Ping, address(*number), OFTEN))
        .collect::<Result<Vec<_>>>()?;
    answered(&probes)?;
    let before = epochs(field, count)?;
    let stirred = stir(field, count, &sampled, scale.stir)?;
    let risen = epochs(field, count)?.saturating_sub(before);
    // One when it is given away and one when it is taken; a move that is asked for anew before it happened is none.
    ensure!(
        risen >= stirred.moves as u64,
        "{} moves were asked for, and epochs rose by {risen}",
        stirred.moves
    );
    progress(&format!(
        "  {} moves asked for, agents killed {} times",
        stirred.moves, stirred.kills
    ))?;
    for (what, unit, done) in [
        ("moves", "moves", stirred.moves),
        ("moves-watched", "moves", stirred.watched),
        ("epochs", "epochs", risen as usize),
        ("kills", "kills", stirred.kills),
    ] {
        report.add(Row::costs(format!("crowd/{what}/{count}"), unit, &[done as f64]));
    }
    let calm = Instant::now();
    answered(&probes)?;
    field.check()?;
    report.took("crowd/agrees", count, calm.elapsed());
    let gaps = probes.into_iter().map(|probe| Ok(probe.stop()?.longest_gap));
    let worst = gaps.collect::<Result<Vec<_>>>()?;
    report.add(Row::times(format!("crowd/black-out/{count}"), &worst));
    Ok(())
}

fn answered(probes: &[Probe]) -> Result<()> {
    for probe in probes {
        probe.wait_for_more(CALM, PATIENCE)?;
    }
    Ok(())
}

/// So many workloads on each node: neighbours in the list are on different nodes.
fn attach(field: &Field, each: usize) -> Result<Vec<Workload>> {
    let mut workloads = Vec::new();
    for number in 0..each {
        for node in field.nodes()? {
            let mut workload = prepare(node, FAMILY, &format!("crowd-{}-{number}", node.name()))?;
            workload.add()?.ok().context("ADD")?;
            workloads.push(workload);
        }
    }
    Ok(workloads)
}

/// Each address is asked for by a workload and its neighbour.
fn shared_out(workloads: &[Workload], count: usize) -> Vec<(String, Vec<IpAddr>)> {
    let all = workloads.len();
    let each = workloads.iter().enumerate().map(|(number, workload)| {
        let is_own = |floating: &usize| [floating % all, (floating + 1) % all].contains(&number);
        let own = (0..count).filter(is_own).map(address);
        (workload.name().to_owned(), own.collect())
    });
    each.collect()
}

/// The sum of all epochs.
fn epochs(field: &Field, count: usize) -> Result<u64> {
    (0..count)
        .map(|number| {
            Ok(bindings::binding(field.store.as_ref(), address(number))?
                .spec
                .epoch
                .0)
        })
        .sum()
}
