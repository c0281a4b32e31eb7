//! `buoy-lab bench`: how fast it is, beside what it is compared with, in the same run.
//!
//! Shows and does not judge: a number that misses its aim is marked, and the run goes on. What is compared is
//! measured in turns, so that a machine that is busy with something else slows both. `docs/benchmarks.md` says what
//! each row means.

mod agent;
mod attach;
mod bed;
mod bindings;
mod client;
mod cold;
mod dataplane;
mod events;
mod family;
mod kubernetes;
mod latency;
mod load;
mod machine;
mod memory;
mod network;
mod peers;
mod population;
mod report;
mod requests;
mod stores;
mod throughput;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use bed::Bed;
use family::Family;
use population::Population;
use report::Report;

/// Parts of the bench, as `--only` names them.
const PARTS: [&str; 9] = [
    "agent",
    "dataplane",
    "move",
    "change",
    "cold",
    "cni",
    "network",
    "stores",
    "kubernetes",
];

/// What to measure, and how long.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Some parts only; all of them, if none is named.
    pub only: Vec<String>,
    /// Few samples: shows that everything works, and says little about speed.
    pub quick: bool,
    /// Where the results go, instead of `bench/results.json` in cargo's target directory.
    pub out: Option<PathBuf>,
}

/// Counts and times of a run.
#[derive(Clone, Copy, Debug)]
struct Scale {
    /// Numbers of floating IPs on the node.
    levels: [usize; 3],
    /// Interleaved rounds of each measurement of the dataplane.
    rounds: usize,
    /// Length of one measurement of the dataplane.
    period: Duration,
    /// How much of one TCP stream is measured, as iperf3 wants to hear it.
    stream: [&'static str; 2],
    /// Moves at each number of floating IPs.
    moves: usize,
    /// Changes at the highest number.
    changes: usize,
    /// Starts of the agent with an empty kernel.
    cold: usize,
    /// How long an idle agent is watched.
    idle: Duration,
    /// ADDs and DELs at each concurrency.
    adds: usize,
    /// ADDs at once without a pause.
    burst: usize,
    /// Workloads that have the floating IPs which nothing happens to.
    crowd: usize,
    /// What is done to a network of three nodes.
    network: network::Scale,
    /// What is done to each datastore.
    stores: stores::Scale,
    /// What is done to a cluster of Kubernetes.
    kubernetes: kubernetes::Scale,
}

const FULL: Scale = Scale {
    levels: [1, 1_000, 10_000],
    rounds: 7,
    period: Duration::from_millis(300),
    stream: ["--time", "3"],
    moves: 100,
    changes: 200,
    cold: 5,
    idle: Duration::from_secs(5),
    adds: 300,
    burst: 500,
    crowd: 40,
    network: network::FULL,
    stores: stores::FULL,
    kubernetes: kubernetes::FULL,
};

const QUICK: Scale = Scale {
    levels: [1, 50, 200],
    rounds: 1,
    period: Duration::from_millis(20),
    stream: ["--bytes", "20M"],
    moves: 4,
    changes: 5,
    cold: 1,
    idle: Duration::from_millis(500),
    adds: 8,
    burst: 16,
    crowd: 4,
    network: network::QUICK,
    stores: stores::QUICK,
    kubernetes: kubernetes::QUICK,
};

/// Measures, shows the table, and writes the results. Error: something does not work at all.
pub fn run(options: &Options) -> Result<()> {
    for only in &options.only {
        ensure!(
            PARTS.contains(&only.as_str()),
            "no such part of the bench: {only}\n  it has: {}",
            PARTS.join(", ")
        );
    }
    let begun = Instant::now();
    let scale = if options.quick { QUICK } else { FULL };
    let mut report = Report::default();
    let mut out = io::stdout();
    writeln!(out, "{}", machine::describe()?)?;
    // What was measured before something failed is worth showing.
    let outcome = measure(&Selection::of(options), &scale, &mut report);
    writeln!(out, "\n{}", report.table())?;
    let path = results_file(options)?;
    write_file(&path, &report.json())?;
    writeln!(out, "{}", report.verdict())?;
    writeln!(out, "took {:.0?}; results: {}", begun.elapsed(), path.display())?;
    outcome
}

/// The parts to measure.
#[derive(Clone, Debug)]
struct Selection(BTreeSet<String>);

impl Selection {
    fn of(options: &Options) -> Self {
        let is_meant = |part: &&str| options.only.is_empty() || options.only.iter().any(|only| only == part);
        let meant = PARTS.iter().copied().filter(is_meant);
        Self(meant.map(str::to_owned).collect())
    }

    fn has(&self, part: &str) -> bool {
        self.0.contains(part)
    }
}

fn measure(selection: &Selection, scale: &Scale, report: &mut Report) -> Result<()> {
    if ["agent", "dataplane", "move", "change", "cold"]
        .iter()
        .any(|part| selection.has(part))
    {
        floating(selection, scale, report).context("floating IPs")?;
    }
    if selection.has("dataplane") {
        dataplane_v6(scale, report).context("floating IPs of IPv6")?;
    }
    if selection.has("cni") {
        attach::measure(scale, report).context("cni")?;
    }
    if selection.has("network") {
        network::measure(scale, report).context("network")?;
    }
    if selection.has("stores") {
        stores::measure(scale.stores, report).context("stores")?;
    }
    if selection.has("kubernetes") {
        kubernetes::measure(scale.kubernetes, report).context("kubernetes")?;
    }
    Ok(())
}

/// All that depends on how many floating IPs a node has.
fn floating(selection: &Selection, scale: &Scale, report: &mut Report) -> Result<()> {
    let bed = Bed::make(Family::V4)?;
    if selection.has("agent") {
        agent::measure(&bed.node, 0, scale, report)?;
    }
    let path = bed.path()?;
    let mut population = Population::begin(&bed, scale)?;
    population.connect(&path)?;
    for level in scale.levels {
        progress(&format!("{level} floating IPs on the node"))?;
        let took = population.grow(level)?;
        if level > 1 {
            report.took("claim-all", level, took);
        }
        if selection.has("agent") && level > 1 {
            agent::measure(&bed.node, level, scale, report)?;
        }
        if selection.has("dataplane") {
            dataplane::measure(&bed, &population, scale, report)?;
        }
        if selection.has("move") {
            latency::moves(&bed, &population, scale, report)?;
        }
    }
    if selection.has("change") {
        latency::changes(&bed, &population, scale, report)?;
    }
    if selection.has("cold") {
        cold::measure(&bed, &population, scale, report)?;
    }
    bed.node.stop_agent()
}

/// The dataplane once more over IPv6, with few and with many.
fn dataplane_v6(scale: &Scale, report: &mut Report) -> Result<()> {
    let bed = Bed::make(Family::V6)?;
    let path = bed.path()?;
    let mut population = Population::begin(&bed, scale)?;
    population.connect(&path)?;
    let [few, _, many] = scale.levels;
    for level in [few, many] {
        progress(&format!("{level} floating IPs of IPv6 on the node"))?;
        population.grow(level)?;
        dataplane::measure(&bed, &population, scale, report)?;
    }
    bed.node.stop_agent()
}

/// Says on standard error what is done now: the table comes last.
fn progress(what: &str) -> Result<()> {
    writeln!(io::stderr(), "· {what}").context("cannot write to the terminal")
}

/// Beside the build that was measured: this program is `<target>/<profile>/buoy-lab`.
fn results_file(options: &Options) -> Result<PathBuf> {
    if let Some(out) = &options.out {
        return Ok(out.clone());
    }
    let program = std::env::current_exe().context("cannot find this program")?;
    let target = program
        .ancestors()
        .nth(2)
        .context("this program is in no target directory")?;
    let name = if options.quick {
        "results-quick.json"
    } else {
        "results.json"
    };
    Ok(target.join("bench").join(name))
}

fn write_file(path: &Path, text: &str) -> Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
