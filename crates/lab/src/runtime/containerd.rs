//! containerd on a machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use super::machine::Machine;
use crate::daemon::Daemon;
use crate::exec::{self, Finished};

/// A runtime pulls nothing here, but starting a container on a busy machine takes its time.
pub(crate) const CONTAINER_PATIENCE: Duration = Duration::from_secs(60);

/// Where it listens on its machine.
pub(crate) const SOCKET: &str = "/run/containerd/containerd.sock";

/// Plugins of it that nobody here needs.
const DISABLED: [&str; 4] = ["aufs", "btrfs", "devmapper", "zfs"];

/// Who tells it what to run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Client {
    /// `ctr`.
    Ctr,
    /// A kubelet; the image of the container that holds a pod's namespaces.
    Kubelet(&'static str),
}

impl Client {
    /// The namespace of containerd that it uses.
    fn namespace(self) -> &'static str {
        match self {
            Self::Ctr => "default",
            Self::Kubelet(_) => "k8s.io",
        }
    }
}

/// containerd, running or not.
#[derive(Debug)]
pub(crate) struct Containerd {
    daemon: Mutex<Option<Daemon>>,
    client: Client,
    configuration: PathBuf,
    log_directory: PathBuf,
}

impl Containerd {
    /// Starts it. Error: a Debian package is missing, or it does not start; with the end of its log.
    pub(crate) fn start(machine: &Machine, client: Client, log_directory: &Path) -> Result<Self> {
        let file = machine.directory().join("containerd.toml");
        fs::write(&file, configuration(machine.directory(), client))?;
        let containerd = Self {
            daemon: Mutex::default(),
            client,
            configuration: file,
            log_directory: log_directory.to_owned(),
        };
        containerd.restart(machine)?;
        Ok(containerd)
    }

    /// Starts it again, if need be after a kill; containers live on.
    pub(crate) fn restart(&self, machine: &Machine) -> Result<()> {
        self.kill();
        let mut command = machine.command("containerd");
        command.arg("--config").arg(&self.configuration);
        let daemon = Daemon::start(
            machine.netns().run(),
            "containerd",
            &mut command,
            &self.log_directory,
        )
        .context("cannot start containerd\n  install the packages containerd and runc")?;
        *lock(&self.daemon) = Some(daemon);
        Ok(())
    }

    /// Kills it at once; nothing if it does not run.
    pub(crate) fn kill(&self) {
        if let Some(daemon) = lock(&self.daemon).take() {
            daemon.kill();
        }
    }

    /// Calls `work` with the running daemon. Error: there is none.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Daemon) -> Result<T>) -> Result<T> {
        work(lock(&self.daemon).as_mut().context("containerd does not run")?)
    }

    /// Its log.
    pub(crate) fn log(&self) -> PathBuf {
        self.log_directory.join("containerd.log")
    }

    /// `ctr` on the machine.
    pub(crate) fn ctr_command(&self, machine: &Machine) -> Command {
        let mut command = machine.command("ctr");
        command.args(["--namespace", self.client.namespace()]);
        command
    }

    /// Runs `ctr` on the machine to its end, however it ends.
    pub(crate) fn ctr(&self, machine: &Machine, words: &[&str]) -> Result<Finished> {
        exec::run(self.ctr_command(machine).args(words), "", CONTAINER_PATIENCE)
    }

    /// Imports the images of an archive.
    pub(crate) fn import(&self, machine: &Machine, archive: &Path) -> Result<()> {
        self.ctr(machine, &["images", "import", &archive.to_string_lossy()])?
            .ok()
            .map(drop)
    }
}

/// Nothing outside the machine's directory and `/run`, which is its own.
fn configuration(machine: &Path, client: Client) -> String {
    let mut disabled: Vec<String> = DISABLED
        .iter()
        .map(|name| format!("\"io.containerd.snapshotter.v1.{name}\""))
        .collect();
    let cri = match client {
        Client::Ctr => {
            disabled.push("\"io.containerd.grpc.v1.cri\"".to_owned());
            String::new()
        }
        Client::Kubelet(pause) => cri(pause),
    };
    format!(
        "version = 2\nroot = \"{}/containerd\"\nstate = \"/run/containerd\"\ndisabled_plugins = [{}]\n\
         [grpc]\naddress = \"{SOCKET}\"\n{cri}",
        machine.display(),
        disabled.join(", ")
    )
}

/// What the kubelet's part of it is told. Who may not raise the scores by which the kernel picks victims when memory is
/// short, as in many containers, must not try: runc would fail.
fn cri(pause: &str) -> String {
    format!(
        r#"[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"
conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"#
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
