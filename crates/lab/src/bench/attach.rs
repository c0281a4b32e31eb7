//! CNI ADD and DEL: the real binary, beside others that do the same, each block after block in turn.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::bed::{Bed, prepare};
use super::family::Family;
use super::peers::{Batch, Buoy, Peer, Ptp};
use super::report::{Aim, Report, Row};
use super::{Scale, machine, memory, progress};
use crate::exec::{PATIENCE, eventually};
use crate::workload::Workload;

/// How many are attached at the same time.
const CONCURRENCY: [usize; 3] = [1, 8, 32];
/// Into how many turns the ADDs of each are divided.
const TURNS: usize = 3;
/// Threads that make namespaces.
const MAKERS: usize = 4;
/// Plugins whose memory is measured.
const WEIGHED: usize = 10;

/// Everything about attaching workloads.
pub(super) fn measure(scale: &Scale, report: &mut Report) -> Result<()> {
    let bed = Bed::make(Family::V4)?;
    progress(&format!("  {} namespaces", scale.burst))?;
    let workloads = prepare_all(&bed, scale.burst)?;
    let batch = Batch {
        node: bed.node.netns().clone(),
    };
    let ptp = Ptp::find(&bed.node);
    if ptp.is_none() {
        progress("nothing to compare with: containernetworking-plugins is not installed")?;
    }
    let mut peers: Vec<&dyn Peer> = vec![&Buoy, &batch];
    peers.extend(ptp.as_ref().map(|ptp| ptp as &dyn Peer));
    let ground = Ground {
        links: links(&bed)?,
        bed: &bed,
        workloads: &workloads,
    };
    for peer in &peers {
        ground.turn(*peer, 1, workloads.len().min(4))?;
    }
    for concurrency in CONCURRENCY {
        progress(&format!("  ADD and DEL, {concurrency} at once"))?;
        ground.compare(&peers, concurrency, scale, report)?;
    }
    progress(&format!("  {} ADDs, 32 at once", scale.burst))?;
    ground.burst(&peers, scale, report)?;
    ground.weigh(ptp.as_ref(), report)?;
    bed.node.stop_agent()
}

/// Namespaces without anything in them.
fn prepare_all(bed: &Bed, count: usize) -> Result<Vec<Workload>> {
    let next = AtomicUsize::new(0);
    let made = Mutex::new(Vec::new());
    let make = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            let workload = prepare(&bed.node, bed.family, &format!("w{number}"))?;
            made.lock()
                .map_err(|_| anyhow!("another thread panicked"))?
                .push(workload);
        }
    };
    thread::scope(|scope| {
        let makers: Vec<_> = (0..MAKERS).map(|_| scope.spawn(make)).collect();
        makers.into_iter().try_for_each(joined)
    })?;
    made.into_inner().context("a thread panicked")
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))?
}

/// Links of the node.
fn links(bed: &Bed) -> Result<usize> {
    let list = || {
        Ok(std::fs::read_to_string("/proc/thread-self/net/dev")?
            .lines()
            .count())
    };
    bed.node.netns().enter(list)
}

/// Where all of them do it.
struct Ground<'a> {
    bed: &'a Bed,
    workloads: &'a [Workload],
    /// Links of a node without workloads.
    links: usize,
}

/// How long each ADD and DEL of a turn took, and all ADDs together.
#[derive(Default)]
struct Turn {
    adds: Vec<Duration>,
    dels: Vec<Duration>,
    all_adds: Duration,
}

impl Ground<'_> {
    /// Everybody in turn, at one concurrency.
    fn compare(
        &self,
        peers: &[&dyn Peer],
        concurrency: usize,
        scale: &Scale,
        report: &mut Report,
    ) -> Result<()> {
        let mut all: Vec<Turn> = peers.iter().map(|_| Turn::default()).collect();
        for _ in 0..TURNS {
            for (peer, sum) in peers.iter().zip(&mut all) {
                let turn = self.turn(*peer, concurrency, scale.adds.div_ceil(TURNS))?;
                sum.adds.extend(turn.adds);
                sum.dels.extend(turn.dels);
            }
        }
        let rows = |verb: &str, times: fn(&Turn) -> &[Duration]| -> Vec<Row> {
            let named = peers.iter().zip(&all);
            named
                .map(|(peer, turn)| Row::times(format!("{verb}/{}/{concurrency}", peer.name()), times(turn)))
                .collect()
        };
        let alone = concurrency == 1;
        let mut adds = rows("cni-add", |turn| &turn.adds);
        if let Some(ptp) = adds.get(2).cloned() {
            adds[0] = adds[0].clone().against(&ptp).aim(Aim::RatioAtMost(1.0));
        }
        let mut dels = rows("cni-del", |turn| &turn.dels);
        if let Some(ptp) = dels.get(2).cloned() {
            dels[0] = dels[0].clone().against(&ptp);
        }
        if alone {
            adds[0] = adds[0].clone().aim(Aim::P50(5.0)).aim(Aim::P99(20.0));
            dels[0] = dels[0].clone().aim(Aim::P50(10.0));
        }
        adds.into_iter().chain(dels).for_each(|row| report.add(row));
        Ok(())
    }

    /// All workloads at once, so many at a time.
    fn burst(&self, peers: &[&dyn Peer], scale: &Scale, report: &mut Report) -> Result<()> {
        let mut rows = Vec::new();
        for peer in peers {
            let turn = self.turn(*peer, CONCURRENCY[2], scale.burst)?;
            let took = turn.all_adds.as_secs_f64();
            let name = format!("cni-burst/{}/{}", peer.name(), scale.burst);
            rows.push(Row::costs(name, "s", &[took]));
        }
        rows[0] = rows[0].clone().aim(Aim::P50(5.0));
        if let Some(ptp) = rows.get(2).cloned() {
            rows[0] = rows[0].clone().against(&ptp);
        }
        rows.into_iter().for_each(|row| report.add(row));
        Ok(())
    }

    /// Attaches so many workloads and detaches them, and waits until nothing of it is left to be done.
    fn turn(&self, peer: &dyn Peer, concurrency: usize, count: usize) -> Result<Turn> {
        let workloads = &self.workloads[..count.min(self.workloads.len())];
        let begun = Instant::now();
        let adds = each(workloads, concurrency, |number, workload| {
            peer.add(workload, number)
                .with_context(|| format!("ADD by {}", peer.name()))
        })?;
        let all_adds = begun.elapsed();
        let dels = each(workloads, concurrency, |number, workload| {
            peer.del(workload, number)
                .with_context(|| format!("DEL by {}", peer.name()))
        })?;
        self.settle()?;
        Ok(Turn { adds, dels, all_adds })
    }

    /// The memory of one ADD.
    fn weigh(&self, ptp: Option<&Ptp>, report: &mut Report) -> Result<()> {
        let weighed = || self.workloads.iter().enumerate().take(WEIGHED);
        let peak = |command: Command, stdin: String| {
            let netns = self.bed.node.netns();
            netns.enter(move || memory::peak(command, &stdin))
        };
        let mut ours = Vec::new();
        for (number, workload) in weighed() {
            ours.push(peak(workload.plugin("ADD"), workload.stdin())?);
            Buoy.del(workload, number)?;
        }
        self.settle()?;
        let mut row = Row::costs("cni-memory/buoy", "MB", &ours).aim(Aim::P99(8.0));
        if let Some(ptp) = ptp {
            let mut theirs = Vec::new();
            for (number, workload) in weighed() {
                theirs.push(peak(ptp.command(workload, "ADD"), ptp.config().to_owned())?);
                ptp.del(workload, number)?;
            }
            let other = Row::costs("cni-memory/ptp", "MB", &theirs);
            row = row.against(&other);
            report.add(other);
        }
        report.add(row);
        Ok(())
    }

    /// Links that are on their way out would cost the next in turn.
    fn settle(&self) -> Result<()> {
        eventually(PATIENCE, "all links gone", || {
            let left = links(self.bed)?;
            ensure!(left <= self.links, "{left} links, and not {}", self.links);
            Ok(())
        })?;
        machine::rest(self.bed.agent()?)
    }
}

/// Does something with each workload, so many at a time; how long each took.
fn each(
    workloads: &[Workload],
    concurrency: usize,
    work: impl Fn(usize, &Workload) -> Result<Duration> + Sync,
) -> Result<Vec<Duration>> {
    let next = AtomicUsize::new(0);
    let labour = || -> Result<Vec<Duration>> {
        let mut took = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(workload) = workloads.get(number) else {
                return Ok(took);
            };
            took.push(work(number, workload)?);
        }
    };
    thread::scope(|scope| {
        let hands: Vec<_> = (0..concurrency).map(|_| scope.spawn(labour)).collect();
        let mut all = Vec::new();
        for hand in hands {
            all.extend(joined(hand)?);
        }
        Ok(all)
    })
}
