//! What a run made on the machine, and its removal.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// Where named network namespaces are.
pub(crate) const NETNS_DIRECTORY: &str = "/run/netns";

/// How long the kernel may take to end processes that were killed.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Something that does not go away with the process that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    /// A process, told from later ones of the same id by the time of its start.
    Process {
        /// Its id.
        pid: i32,
        /// Clock ticks from the machine's start to its own.
        start: u64,
    },
    /// A named network namespace.
    Namespace(String),
    /// A control group; the processes in it and below are the run's.
    Cgroup(PathBuf),
}

impl Thing {
    /// A process that lives now; `None` if it does not.
    pub(crate) fn process(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        Some(Self::Process {
            pid,
            start: start_of(pid)?,
        })
    }

    /// Whether this is a process that still lives (as something else than a zombie of ours).
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self, Self::Process { pid, start } if start_of(*pid) == Some(*start))
    }
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, start } => write!(f, "process {pid} {start}"),
            Self::Namespace(name) => write!(f, "namespace {name}"),
            Self::Cgroup(path) => write!(f, "cgroup {}", path.display()),
        }
    }
}

impl FromStr for Thing {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let (kind, rest) = line.split_once(' ').ok_or(())?;
        match kind {
            "process" => {
                let (pid, start) = rest.split_once(' ').ok_or(())?;
                Ok(Self::Process {
                    pid: pid.parse().map_err(|_| ())?,
                    start: start.parse().map_err(|_| ())?,
                })
            }
            "namespace" => Ok(Self::Namespace(rest.to_owned())),
            "cgroup" => Ok(Self::Cgroup(PathBuf::from(rest))),
            _ => Err(()),
        }
    }
}

/// A list of things, in the order they were made.
#[derive(Debug, Default)]
pub(crate) struct Made(Vec<Thing>);

impl Made {
    /// Reads a journal; lines that a killed process left unfinished are passed over.
    pub(crate) fn read(journal: &str) -> Self {
        Self(journal.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Adds a thing.
    pub(crate) fn note(&mut self, thing: Thing) {
        self.0.push(thing);
    }

    /// The process that made the run: the first entry.
    pub(crate) fn maker(&self) -> Option<&Thing> {
        self.0.first()
    }

    /// Removes everything, the youngest first; what is gone already is passed over.
    pub(crate) fn remove(&mut self) {
        let own = i32::try_from(process::id()).ok();
        let things: Vec<Thing> = self.0.drain(..).rev().collect();
        let processes: Vec<&Thing> = things
            .iter()
            .filter(|thing| matches!(thing, Thing::Process { pid, .. } if Some(*pid) != own))
            .collect();
        for process in &processes {
            kill(process);
        }
        wait_until_gone(&processes);
        for thing in &things {
            match thing {
                Thing::Process { .. } => {}
                Thing::Namespace(name) => remove_namespace(name),
                Thing::Cgroup(path) => remove_cgroup(path),
            }
        }
    }
}

fn kill(process: &Thing) {
    if let Thing::Process { pid, .. } = process
        && process.is_alive()
    {
        let _ = signal::kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
}

fn wait_until_gone(processes: &[&Thing]) {
    let begun = Instant::now();
    while processes.iter().any(|process| process.is_alive()) && begun.elapsed() < KILL_PATIENCE {
        thread::sleep(Duration::from_millis(2));
    }
}

/// The named network namespaces that a run has.
pub(crate) fn namespaces_of(run: &str) -> Vec<String> {
    let prefix = crate::run::namespace_prefix(run);
    let entries = fs::read_dir(NETNS_DIRECTORY).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&prefix))
        .collect()
}

/// The processes that live in a network namespace: id and name. A thread of this process there does not count.
pub(crate) fn processes_in(netns: &Path) -> Vec<(i32, String)> {
    let Ok(namespace) = fs::metadata(netns).map(|found| (found.dev(), found.ino())) else {
        return Vec::new();
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let inside = entries.filter(|entry| {
        fs::metadata(entry.path().join("ns/net")).is_ok_and(|found| (found.dev(), found.ino()) == namespace)
    });
    inside
        .filter_map(|entry| {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, name.trim().to_owned()))
        })
        .collect()
}

/// Removes a named network namespace, as `ip netns delete` does, and ends what still runs in it: a daemon that outlives
/// the one that started it is in nobody's list.
pub(crate) fn remove_namespace(name: &str) {
    let path = Path::new(NETNS_DIRECTORY).join(name);
    for (pid, _) in processes_in(&path) {
        let _ = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = umount2(&path, MntFlags::MNT_DETACH);
    let _ = fs::remove_file(path);
}

/// Kills what is in a control group and below it, then removes the group.
fn remove_cgroup(path: &Path) {
    let begun = Instant::now();
    while path.exists() && begun.elapsed() < KILL_PATIENCE {
        for member in members(path) {
            let _ = signal::kill(Pid::from_raw(member), Signal::SIGKILL);
        }
        remove_directories(path);
        thread::sleep(Duration::from_millis(5));
    }
}

/// The processes of a control group and of those below.
pub(crate) fn members(cgroup: &Path) -> Vec<i32> {
    let own = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    for child in children(cgroup) {
        pids.extend(members(&child));
    }
    pids
}

fn remove_directories(cgroup: &Path) {
    for child in children(cgroup) {
        remove_directories(&child);
    }
    let _ = fs::remove_dir(cgroup);
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

/// When a process started, in clock ticks since the machine's start; `None` if there is none, or only its zombie.
fn start_of(pid: i32) -> Option<u64> {
    let exists = signal::kill(Pid::from_raw(pid), None);
    if exists == Err(Errno::ESRCH) {
        return None;
    }
    // The name in parentheses may hold anything; the fields behind it are fixed (proc(5)).
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_journal_reads_back_and_survives_a_torn_line() {
        let me = Thing::process(process::id()).unwrap();
        let things = [
            me.clone(),
            Thing::Namespace("b1x0-n1".to_owned()),
            Thing::Cgroup(PathBuf::from("/sys/fs/cgroup/x y")),
        ];
        let mut journal: String = things.iter().map(|thing| format!("{thing}\n")).collect();
        journal.push_str("process 12");
        let made = Made::read(&journal);
        assert_eq!(made.0, things);
        assert_eq!(made.maker(), Some(&me));
        assert!(me.is_alive());
    }

    #[test]
    fn removal_ends_the_noted_process_and_not_a_namesake() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let noted = Thing::process(child.id()).unwrap();
        let Thing::Process { pid, start } = noted else {
            panic!("a process")
        };
        let mut namesake = Made(vec![Thing::Process {
            pid,
            start: start + 1,
        }]);
        namesake.remove();
        assert!(
            child.try_wait().unwrap().is_none(),
            "another process of this id was killed"
        );
        let mut made = Made(vec![noted]);
        made.remove();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()),
            Some(9)
        );
    }
}
