//! What the figures were measured on, and what a process costs.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::exec::PATIENCE;

/// Kernel, cores and load of this machine, for the head of the table.
pub(super) fn describe() -> Result<String> {
    let kernel = read("/proc/sys/kernel/osrelease")?;
    let load = read("/proc/loadavg")?;
    let load = load.split_whitespace().next().unwrap_or_default();
    let cores = thread::available_parallelism()?;
    let model = read("/proc/cpuinfo")?;
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        });
    let profile = if cfg!(debug_assertions) {
        "dev profile: times mean nothing"
    } else {
        "release profile"
    };
    Ok(format!(
        "Linux {}, {cores} cores of {model}, load {load} before, {profile}",
        kernel.trim()
    ))
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// A core of those that this program may use; both are the same where there is only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Core {
    First,
    Last,
}

impl Core {
    /// Its number.
    pub(super) fn number(self) -> Result<usize> {
        let allowed = sched_getaffinity(Pid::from_raw(std::process::id().cast_signed()))?;
        let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core) == Ok(true));
        let core = match self {
            Self::First => cores.next(),
            Self::Last => cores.next_back(),
        };
        core.context("no core to run on")
    }

    /// Keeps the calling thread on it. Where a thread wakes another decides how long that takes, by a factor of three
    /// on a virtual machine: left to the scheduler, this would be all that is seen.
    pub(super) fn keep_to(self) -> Result<()> {
        let mut set = CpuSet::new();
        set.set(self.number()?)?;
        sched_setaffinity(Pid::from_raw(0), &set).context("cannot keep a thread on a core")
    }
}

/// Time that a process has had on a processor, all of its threads.
pub(super) fn processor_time(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the list and the look.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        let first = text
            .split_whitespace()
            .next()
            .and_then(|number| number.parse::<u64>().ok());
        nanoseconds += first.context("schedstat begins with no number")?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Waits until a process does next to nothing.
pub(super) fn rest(pid: u32) -> Result<()> {
    let (begun, look) = (Instant::now(), Duration::from_millis(300));
    let mut before = processor_time(pid)?;
    while begun.elapsed() < PATIENCE * 2 {
        thread::sleep(look);
        let now = processor_time(pid)?;
        if now.saturating_sub(before) < look / 50 {
            return Ok(());
        }
        before = now;
    }
    bail!("process {pid} does not come to rest")
}
