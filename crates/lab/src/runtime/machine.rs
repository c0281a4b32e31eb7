//! What makes a network namespace a whole machine: a mount namespace in which the machine's own directories are only read,
//! control groups that look like the roots, a host name.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::cgroup;
use crate::exec::{PATIENCE, Process, eventually};
use crate::made::members;
use crate::netns::Netns;

/// A machine that is switched on. Dropping it ends nothing but the process that holds its namespaces: what else runs there
/// ends with the run, or by [`Machine::cut_power`].
#[derive(Debug)]
pub(crate) struct Machine {
    holder: Process,
    directory: PathBuf,
    groups: Vec<PathBuf>,
    netns: Netns,
}

/// What a machine has at its well-known places.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(Vec<(PathBuf, String)>);

impl Places {
    /// The same with a directory or file at a place. A directory's place need not exist.
    pub(crate) fn with(mut self, source: &Path, target: &str) -> Self {
        self.0.push((source.to_owned(), target.to_owned()));
        self
    }
}

impl Machine {
    /// Switches one on. Everything that it keeps is below `directory`; `name` is unique in the run.
    pub(crate) fn start(netns: &Netns, name: &str, directory: &Path, places: &Places) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let groups = cgroup::make(netns.run(), name)?;
        let listed: String = places.0.iter().fold(String::new(), |text, (source, target)| {
            text + &format!("{} {target}\n", source.display())
        });
        for (file, text) in [
            ("cgroups", groups.as_str()),
            ("binds", &listed),
            ("hostname", name),
            ("boot.sh", include_str!("boot.sh")),
            ("join.sh", include_str!("join.sh")),
        ] {
            fs::write(directory.join(file), text)?;
        }
        let mut command = netns.command("sh");
        command
            .arg(directory.join("join.sh"))
            .arg(directory.join("cgroups"))
            .arg("sh")
            .arg(directory.join("boot.sh"))
            .arg(directory);
        let holder = Process::start(netns.run(), &mut command, &directory.join("boot.log"))?;
        let paths = groups.lines().filter_map(|line| line.split(' ').nth(3));
        let mut machine = Self {
            holder,
            directory: directory.to_owned(),
            groups: paths.map(PathBuf::from).collect(),
            netns: netns.clone(),
        };
        machine.wait_until_booted()?;
        Ok(machine)
    }

    /// Its network namespace.
    pub(crate) fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A command that will run on it, with a plain environment.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("sh");
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", "/root")
            .arg(self.directory.join("join.sh"))
            .arg(self.directory.join("cgroups"))
            .arg("nsenter")
            .arg(format!("--target={}", self.holder.pid()))
            .args(["--mount", "--net", "--cgroup", "--uts", "--"])
            .arg(program);
        command
    }

    /// Where this process sees a file of it.
    pub(crate) fn seen(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.holder.pid()))
    }

    /// Waits until somebody listens on a socket of it.
    pub(crate) fn wait_for_socket(&self, path: &str) -> Result<()> {
        let socket = self.seen(path);
        eventually(PATIENCE, &format!("somebody listens on {path}"), || {
            Ok(UnixStream::connect(&socket).map(drop)?)
        })
    }

    /// Ends every process of it at once, containers too.
    pub(crate) fn cut_power(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let living: Vec<i32> = self
                .groups
                .first()
                .map(|group| members(group))
                .unwrap_or_default();
            if living.is_empty() {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "processes do not end: {living:?}");
            for pid in living {
                let _ = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The holder sleeps once everything is mounted.
    fn wait_until_booted(&mut self) -> Result<()> {
        let name = PathBuf::from(format!("/proc/{}/comm", self.holder.pid()));
        eventually(PATIENCE, "the machine boots", || {
            if !self.holder.is_running() {
                return Ok(Err(anyhow::anyhow!(
                    "the machine did not boot:\n{}",
                    self.holder.log_tail(10)
                )));
            }
            let runs = fs::read_to_string(&name).context("it is gone")?;
            ensure!(runs.trim() == "sleep", "it runs {runs}");
            Ok(Ok(()))
        })?
    }
}
