//! All floating IPs into an empty kernel.

use std::fs;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::bed::Bed;
use super::events::{Events, What};
use super::population::Population;
use super::report::{Aim, Report, Row};
use super::{Scale, machine, progress};

/// Patience with a start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the agent says when it has read all lists.
const READ: &str = "all records are read";

/// Starts the agent again and again, each time with nothing of its own in the kernel but the links.
pub(super) fn measure(
    bed: &Bed,
    population: &Population<'_>,
    scale: &Scale,
    report: &mut Report,
) -> Result<()> {
    progress("  starts with an empty kernel")?;
    let (mut from_lists, mut from_start) = (Vec::new(), Vec::new());
    for _ in 0..scale.cold {
        let start = once(bed, population.level())?;
        from_start.push(start.complete.duration_since(start.started)?);
        if let Some(read) = start.read {
            from_lists.push(start.complete.duration_since(read)?);
        }
        machine::rest(bed.agent()?)?;
    }
    let level = population.level();
    if from_lists.is_empty() {
        progress(&format!(
            "the agent's log does not say when it has read the lists: {READ}"
        ))?;
    } else {
        let name = format!("cold/from-lists/{level}");
        report.add(Row::times(name, &from_lists).aim(Aim::P50(200.0)));
    }
    report.add(Row::times(format!("cold/from-start/{level}"), &from_start));
    Ok(())
}

struct Start {
    started: SystemTime,
    read: Option<SystemTime>,
    complete: SystemTime,
}

fn once(bed: &Bed, level: usize) -> Result<Start> {
    bed.node.stop_agent()?;
    let netns = bed.node.netns();
    netns.nft("delete table ip buoy\ndelete table ip6 buoy")?;
    netns.exec("ip route flush proto 177")?;
    let seen = fs::metadata(bed.node.log())?.len();
    let events = Events::subscribe(netns)?;
    let started = SystemTime::now();
    bed.node.start_agent()?;
    let complete = wait_for(&events, level)?;
    let read = said_at(bed, seen)?;
    Ok(Start {
        started,
        read,
        complete,
    })
}

/// When the last translation and the last route of so many floating IPs were there.
fn wait_for(events: &Events, level: usize) -> Result<SystemTime> {
    let (mut elements, mut routes) = (0, 0);
    loop {
        let event = events
            .next(PATIENCE)
            .with_context(|| format!("{elements} elements and {routes} routes of {level}"))?;
        match event.what {
            What::Element if event.is_in("fips") => elements += 1,
            What::Route if event.is_to_floating() => routes += 1,
            _ => continue,
        }
        if elements >= level && routes >= level {
            return Ok(event.wall);
        }
    }
}

/// When the agent said that it had read all lists, in what it has logged since.
fn said_at(bed: &Bed, since: u64) -> Result<Option<SystemTime>> {
    let log = fs::read(bed.node.log())?;
    let text = String::from_utf8_lossy(&log[usize::try_from(since)?..]).into_owned();
    let Some(line) = text.lines().find(|line| line.contains(READ)) else {
        return Ok(None);
    };
    let time = line.split_whitespace().next().unwrap_or_default();
    let time: Timestamp = time
        .parse()
        .with_context(|| format!("no time in a line of the log: {line}"))?;
    Ok(Some(time.into()))
}
