//! Containers as Kubernetes makes those of a node's own agents: in the node's network, confined, with some of the node's
//! directories.

use std::path::Path;

use anyhow::Result;

use super::Runtime;
use super::containerd::CONTAINER_PATIENCE;
use crate::exec::{self, Finished, Process};

/// What `ctr` gives a container that asks for nothing; all of it is dropped.
const GIVEN: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// A directory of the node in a container.
#[derive(Clone, Debug)]
pub struct Mount {
    /// On the node.
    pub source: String,
    /// In the container.
    pub target: String,
    /// How, as `ctr` says it: `ro` or `rw`, and how mounts propagate.
    pub options: &'static str,
}

/// How a container is confined: its root file system is read-only, and seccomp's default profile in force.
#[derive(Clone, Debug, Default)]
pub struct Confined {
    /// All that it may do, as Kubernetes names it: `NET_ADMIN`.
    pub capabilities: Vec<String>,
    /// Directories of the node.
    pub mounts: Vec<Mount>,
    /// Its environment.
    pub variables: Vec<(String, String)>,
}

impl Confined {
    fn arguments(&self) -> Vec<String> {
        let mut words: Vec<String> = ["run", "--rm", "--read-only", "--net-host", "--seccomp"]
            .map(str::to_owned)
            .into();
        let added: Vec<String> = self
            .capabilities
            .iter()
            .map(|name| format!("CAP_{name}"))
            .collect();
        for name in GIVEN
            .iter()
            .filter(|given| !added.iter().any(|added| added == *given))
        {
            words.extend(["--cap-drop".to_owned(), (*name).to_owned()]);
        }
        for name in added {
            words.extend(["--cap-add".to_owned(), name]);
        }
        for (name, value) in &self.variables {
            words.extend(["--env".to_owned(), format!("{name}={value}")]);
        }
        for Mount {
            source,
            target,
            options,
        } in &self.mounts
        {
            let mount = format!("type=bind,src={source},dst={target},options=rbind:{options}");
            words.extend(["--mount".to_owned(), mount]);
        }
        words
    }
}

impl Runtime {
    /// Takes in an image from an OCI archive.
    pub fn import(&self, archive: &Path) -> Result<()> {
        self.ctr(&["images", "import", &archive.to_string_lossy()])?
            .ok()?;
        Ok(())
    }

    /// Runs a container to its end, however it ends.
    pub fn run_confined(
        &self,
        image: &str,
        name: &str,
        confined: &Confined,
        command: &[&str],
    ) -> Result<Finished> {
        let mut ctr = self.containerd.ctr_command(&self.machine);
        ctr.args(confined.arguments()).args([image, name]).args(command);
        exec::run(&mut ctr, "", CONTAINER_PATIENCE)
    }

    /// Starts a container, which runs until [`Runtime::ctr`] ends it. What it says is in a file of its name.
    pub fn start_confined(
        &self,
        image: &str,
        name: &str,
        confined: &Confined,
        command: &[&str],
    ) -> Result<Process> {
        let mut ctr = self.containerd.ctr_command(&self.machine);
        ctr.args(confined.arguments()).args([image, name]).args(command);
        let log = self.machine.directory().join(format!("{name}.log"));
        Process::start(self.machine.netns().run(), &mut ctr, &log)
    }
}
