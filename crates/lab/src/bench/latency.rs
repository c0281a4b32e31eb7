//! From a commit in the store to the kernel, and to the client.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::bed::Bed;
use super::client::Client;
use super::events::Events;
use super::population::{FRONT, OTHER, Population};
use super::report::{Aim, Report, Row};
use super::{Scale, bindings, machine, progress};

/// Patience with one change on a busy machine.
const SOON: Duration = Duration::from_secs(10);
/// A pause in which the agent can come to its end with the change before.
const PAUSE: Duration = Duration::from_millis(15);

/// One record changes: the owner of one floating IP among all. And one request is added, from which the owner follows.
pub(super) fn changes(
    bed: &Bed,
    population: &Population<'_>,
    scale: &Scale,
    report: &mut Report,
) -> Result<()> {
    progress("  changes, one at a time")?;
    machine::rest(bed.agent()?)?;
    let events = Events::subscribe(bed.node.netns())?;
    let mut took = Vec::new();
    for floating in population.shared().into_iter().cycle().take(scale.changes) {
        took.push(change_owner(bed, &events, floating, population)?);
        thread::sleep(PAUSE);
    }
    let level = population.level();
    report.add(
        Row::times(format!("change/owner/{level}"), &took)
            .aim(Aim::P50(3.0))
            .aim(Aim::P99(10.0)),
    );
    let extra = population.address(level + 1);
    let internal = population.other().address(extra)?;
    let mut took = Vec::new();
    for _ in 0..scale.changes.div_ceil(4) {
        let begun = Instant::now();
        population.set_extra(extra, true)?;
        took.push(
            events
                .programmed(extra, internal, SOON)?
                .saturating_duration_since(begun),
        );
        population.set_extra(extra, false)?;
        thread::sleep(PAUSE * 4);
    }
    report.add(Row::times(format!("change/request/{level}"), &took));
    machine::rest(bed.agent()?)
}

/// Writes another owner into a binding, as an agent does it, and waits for the kernel.
fn change_owner(
    bed: &Bed,
    events: &Events,
    floating: IpAddr,
    population: &Population<'_>,
) -> Result<Duration> {
    events.clear();
    let mut internal = floating;
    let begun = bindings::edit(bed.store.as_ref(), floating, |binding| {
        let owner = binding.spec.owner.clone().context("a binding without an owner")?;
        let [front, other] = [population.front(), population.other()];
        let next = if owner.workload == front.name() {
            other
        } else {
            front
        };
        let candidate = bindings::candidate(binding, next.name())?;
        internal = next.address(floating)?;
        binding.spec.owner = Some(candidate.as_owner(owner.term));
        binding.spec.epoch = binding.spec.epoch.next();
        Ok(())
    })?;
    Ok(events
        .programmed(floating, internal, SOON)?
        .saturating_duration_since(begun))
}

/// Moves the first floating IP from one workload to the other and back, under questions of two clients.
pub(super) fn moves(
    bed: &Bed,
    population: &Population<'_>,
    scale: &Scale,
    report: &mut Report,
) -> Result<()> {
    progress("  moves")?;
    machine::rest(bed.agent()?)?;
    let floating = population.floating();
    let clients = [
        Client::start(&bed.client, floating, false)?,
        Client::start(&bed.client, floating, true)?,
    ];
    for client in &clients {
        client.first_answer(FRONT, None)?;
    }
    let mut took = [Vec::new(), Vec::new()];
    for number in 0..scale.moves {
        let (next, name) = match number % 2 {
            0 => (OTHER, population.other().name()),
            _ => (FRONT, population.front().name()),
        };
        let id = format!("bench-{number}");
        let begun = bindings::ask_to_move(bed.store.as_ref(), floating, name, &id)?;
        for (client, took) in clients.iter().zip(&mut took) {
            took.push(client.answered_after(next, begun)?);
        }
        thread::sleep(PAUSE);
    }
    let level = population.level();
    let [fresh, kept] = &took;
    let row = Row::times(format!("move/new-flows/{level}"), fresh);
    report.add(row.aim(Aim::P50(8.0)).aim(Aim::P99(25.0)));
    let row = Row::times(format!("move/kept-flow/{level}"), kept);
    report.add(row.aim(Aim::P50(8.0)).aim(Aim::P99(25.0)));
    Ok(())
}
