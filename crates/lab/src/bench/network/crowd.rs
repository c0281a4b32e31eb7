//! Many floating IPs over three nodes, each with a standby on another, moved while agents are killed.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::super::bed::prepare;
use super::super::report::{Report, Row};
use super::super::{bindings, progress, requests};
use super::stir::{Stirred, stir};
use super::{FAMILY, Field, PATIENCE, Scale, address};
use crate::exec::eventually;
use crate::probe::Rounds;
use crate::workload::Workload;

/// Pings of each address that are answered before and after.
const CALM: u32 = 5;
/// How often a client pings each address that it watches: no black-out can be seen that is shorter.
const ROUND: Duration = Duration::from_millis(50);

/// Error: the checker finds something in the end, an address is not answered any more, or one did not move.
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
    let sampled = sampled(count, scale.sampled);
    let watched: Vec<IpAddr> = sampled.iter().copied().map(address).collect();
    let client = Rounds::start(&field.cluster.client, &watched, ROUND)?;
    client.wait_for_more(CALM, PATIENCE)?;
    let before = epochs(field, count)?;
    let stirred = stir(field, count, scale.stir)?;
    let calm = Instant::now();
    client.wait_for_more(CALM, PATIENCE)?;
    field.check()?;
    report.took("crowd/agrees", count, calm.elapsed());
    let gaps = client.stop()?;
    let risen = risen(field, &before, &stirred.moved)?;
    tell(&stirred, &sampled, risen, count, report)?;
    report.add(Row::times(format!("crowd/black-out/{count}"), &gaps));
    let worst = gaps.iter().max().copied().unwrap_or_default();
    report.took("crowd/black-out-worst", count, worst);
    Ok(())
}

/// What was done, as rows.
fn tell(
    stirred: &Stirred,
    sampled: &BTreeSet<usize>,
    risen: u64,
    count: usize,
    report: &mut Report,
) -> Result<()> {
    let moves = stirred.moved.len();
    progress(&format!(
        "  {moves} moves asked for, agents killed {} times",
        stirred.kills
    ))?;
    let watched = stirred.moved.iter().filter(|number| sampled.contains(number));
    for (what, unit, done) in [
        ("moves", "moves", moves),
        ("moves-watched", "moves", watched.count()),
        ("epochs", "epochs", usize::try_from(risen)?),
        ("kills", "kills", stirred.kills),
    ] {
        report.add(Row::costs(format!("crowd/{what}/{count}"), unit, &[done as f64]));
    }
    Ok(())
}

/// So many numbers of a crowd: neighbours have different nodes, and the last is as good as the first.
fn sampled(count: usize, many: usize) -> BTreeSet<usize> {
    (0..many)
        .map(|number| number * (count - 1) / (many - 1).max(1))
        .collect()
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

/// The epochs of a crowd, by their numbers.
fn epochs(field: &Field, count: usize) -> Result<Vec<u64>> {
    (0..count)
        .map(|number| {
            let binding = bindings::binding(field.store.as_ref(), address(number))?;
            Ok(binding.spec.epoch.0)
        })
        .collect()
}

/// By how much all epochs have risen together: by one when an address is given away, and by one when it is taken. Error: one
/// that was asked to move has still the same, or there were fewer changes than moves.
fn risen(field: &Field, before: &[u64], moved: &[usize]) -> Result<u64> {
    eventually(PATIENCE, "what was asked to move has moved", || {
        let now = epochs(field, before.len())?;
        let rises: Vec<u64> = now
            .iter()
            .zip(before)
            .map(|(now, then)| now.saturating_sub(*then))
            .collect();
        let stayed: BTreeSet<_> = moved.iter().filter(|number| rises[**number] == 0).collect();
        ensure!(
            stayed.is_empty(),
            "numbers {stayed:?} have the epoch that they had"
        );
        let sum: u64 = rises.iter().sum();
        ensure!(
            sum >= moved.len() as u64,
            "{} moves were asked for, and epochs rose by {sum}",
            moved.len()
        );
        Ok(sum)
    })
}
