//! A component of Kubernetes as a process: started, killed, frozen, started again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use crate::exec::{Process, tail};
use crate::netns::Netns;
use crate::runtime::machine::Machine;
use crate::slot::Slot;

/// Where a component runs.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// In a network namespace, with the machine's files.
    Namespace(Netns),
    /// On a node.
    Node(Arc<Machine>),
}

impl Place {
    fn netns(&self) -> &Netns {
        match self {
            Self::Namespace(netns) => netns,
            Self::Node(machine) => machine.netns(),
        }
    }

    fn command(&self, program: &Path) -> Command {
        match self {
            Self::Node(machine) => machine.command(program),
            Self::Namespace(netns) => {
                let mut command = netns.command(program);
                command
                    .env_clear()
                    .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                    .env("HOME", netns.run().base());
                command
            }
        }
    }
}

/// A component, running or not.
#[derive(Debug)]
pub struct Component {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    place: Place,
    log: PathBuf,
    process: Slot,
}

impl Component {
    /// A component of Kubernetes that does not run yet. Its log is `<directory>/<name>.log`.
    pub(crate) fn kubernetes(
        name: &'static str,
        place: &Place,
        arguments: Vec<String>,
        directory: &Path,
    ) -> Result<Self> {
        let arguments = [name.to_owned()].into_iter().chain(arguments).collect();
        let program = buoy_kubeserver::binary()?;
        Ok(Self::new(name, place, program, arguments, directory))
    }

    /// The same for any program.
    pub(crate) fn new(
        name: &'static str,
        place: &Place,
        program: &Path,
        arguments: Vec<String>,
        directory: &Path,
    ) -> Self {
        Self {
            name,
            program: program.to_owned(),
            arguments,
            place: place.clone(),
            log: directory.join(format!("{name}.log")),
            process: Slot::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Starts it, if need be after a kill, and does not wait until it is of use.
    pub fn start(&self) -> Result<()> {
        self.start_with(&[])
    }

    /// The same with more arguments, for this once.
    pub fn start_with(&self, more: &[&str]) -> Result<()> {
        let mut command = self.place.command(&self.program);
        command.args(&self.arguments).args(more);
        let run = self.place.netns().run();
        self.process
            .restart(|| Process::start(run, &mut command, &self.log))
    }

    /// Kills it at once; nothing if it does not run.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Lets it do nothing until [`Component::thaw`].
    pub fn freeze(&self) -> Result<()> {
        self.process.freeze().with_context(|| self.name)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        self.process.thaw().with_context(|| self.name)
    }

    /// Its process id. Error: it does not run.
    pub fn pid(&self) -> Result<u32> {
        self.process.pid().with_context(|| self.name)
    }

    /// Error: it has ended; with the end of its log.
    pub(crate) fn ensure_running(&self) -> Result<()> {
        let runs = self.process.is_running();
        ensure!(runs, "{} ended:\n{}", self.name, tail(&self.log, 20));
        Ok(())
    }
}
