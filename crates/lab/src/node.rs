//! A node of the lab: a namespace, the directories that a machine would have, an agent, and the CNI plugins under
//! Calico's names.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::api::Api;
use crate::binaries::Binaries;
use crate::bird;
use crate::daemon::Daemon;
use crate::exec::{self, Finished, PATIENCE, Process};
use crate::netns::Netns;
use crate::run::Run;
use crate::store::Store;

/// Name of the network in the nodes' CNI configuration.
pub const NETWORK: &str = "k8s-pod-network";

/// How the agent of a node is set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--floating-ips`: `auto`, `on` or `off`.
    pub floating_ips: String,
    /// `--floating-ip-hold`.
    pub hold: String,
    /// `--routing`: `kernel` or `bird`.
    pub routing: String,
    /// `--node-name`; the node's name in the lab, if none is given.
    pub node_name: Option<String>,
    /// `PATH` of the agent; this program's, if none is named.
    pub path: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            floating_ips: "auto".to_owned(),
            hold: "10m".to_owned(),
            routing: "kernel".to_owned(),
            node_name: None,
            path: None,
        }
    }
}

/// A node. Clones are the same node.
#[derive(Clone, Debug)]
pub struct Node {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    store: Store,
    directory: PathBuf,
    binaries: Binaries,
    settings: Mutex<Settings>,
    agent: Mutex<Option<Daemon>>,
    /// Whether no agent has had a chance to leave anything behind.
    clean: AtomicBool,
    netns: Netns,
}

impl Node {
    /// Makes a node without an agent.
    pub fn make(run: &Run, name: &str, store: &Store) -> Result<Self> {
        let binaries = Binaries::find()?;
        let directory = run.base().join(name);
        for part in ["run", "state", "bin", "net.d"] {
            fs::create_dir_all(directory.join(part))?;
        }
        for plugin in ["calico", "calico-ipam"] {
            place(&binaries.cni, &directory.join("bin").join(plugin))?;
        }
        let node = Self {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                store: store.clone(),
                directory,
                binaries,
                settings: Mutex::new(Settings::default()),
                agent: Mutex::new(None),
                clean: AtomicBool::new(true),
                netns: Netns::make(run, name)?,
            }),
        };
        let list = serde_json::to_string_pretty(&node.network_list())?;
        fs::write(node.directory().join("net.d/10-calico.conflist"), list)?;
        fs::write(node.config_file(), format!("nodeName: {name}\n"))?;
        Ok(node)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.inner.netns
    }

    /// Its directory, below which everything of it is.
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// Its store.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The agent's socket.
    pub fn socket(&self) -> PathBuf {
        self.directory().join("run/agent.sock")
    }

    /// What its agent answers to people and programs that look at it: metrics, and whether it is ready.
    pub fn agent_api(&self) -> Api {
        Api::behind(&self.directory().join("run/http.sock"))
    }

    /// The agent's state directory.
    pub fn state(&self) -> PathBuf {
        self.directory().join("state")
    }

    /// The directory of CNI plugins.
    pub fn plugins(&self) -> PathBuf {
        self.directory().join("bin")
    }

    /// The directory in which the plugin leaves a DEL that no agent took.
    pub fn spool(&self) -> PathBuf {
        self.state().join("spool")
    }

    /// The control socket of the node's BIRD.
    pub fn bird_socket(&self) -> PathBuf {
        self.directory().join("run/bird.ctl")
    }

    /// The process id of the node's BIRD, as it wrote it down. Error: it wrote none.
    pub fn bird_pid(&self) -> Result<Pid> {
        let file = self.directory().join("run/bird.pid");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let pid = text
            .trim()
            .parse()
            .with_context(|| format!("no process id in {}: {text}", file.display()))?;
        Ok(Pid::from_raw(pid))
    }

    /// Kills the node's BIRD at once (`kill -9`).
    pub fn kill_bird(&self) -> Result<()> {
        let pid = self.bird_pid()?;
        signal::kill(pid, Signal::SIGKILL)
            .with_context(|| format!("cannot kill BIRD of {}: {pid}", self.name()))
    }

    /// Asks the node's BIRD; `line` is split at white space. Returns what `birdc` printed. Error: it does not answer.
    pub fn birdc(&self, line: &str) -> Result<String> {
        bird::ask(self.netns(), &self.bird_socket(), line)
    }

    /// The agent's configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.directory().join("agent.yaml")
    }

    /// The agent's log.
    pub fn log(&self) -> PathBuf {
        self.directory().join("agent.log")
    }

    /// Changes how the agent is set, from its next start on.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut lock(&self.inner.settings));
    }

    /// The name by which its agent goes in the records.
    pub fn known_as(&self) -> String {
        let name = lock(&self.inner.settings).node_name.clone();
        name.unwrap_or_else(|| self.name().to_owned())
    }

    /// Who announces its routes: `kernel` or `bird`.
    pub fn routing(&self) -> String {
        lock(&self.inner.settings).routing.clone()
    }

    /// Whether no agent was ever there, or everything was removed after it.
    pub fn is_clean(&self) -> bool {
        self.inner.clean.load(Ordering::Relaxed)
    }

    fn becomes_clean(&self, clean: bool) {
        self.inner.clean.store(clean, Ordering::Relaxed);
    }

    /// Starts the agent and waits until it is ready; says how long that took.
    pub fn start_agent(&self) -> Result<Duration> {
        self.becomes_clean(false);
        let agent = Daemon::start(
            self.netns().run(),
            "agent",
            &mut self.agent_command(&[]),
            self.directory(),
        )
        .with_context(|| format!("cannot start the agent of {}", self.name()))?;
        let took = agent.took();
        *lock(&self.inner.agent) = Some(agent);
        Ok(took)
    }

    /// Starts the agent and does not wait: it may never be ready.
    pub fn launch_agent(&self) -> Result<Process> {
        self.becomes_clean(false);
        Process::start(self.netns().run(), &mut self.agent_command(&[]), &self.log())
    }

    /// Stops the agent in order; nothing if there is none.
    pub fn stop_agent(&self) -> Result<()> {
        let agent = lock(&self.inner.agent).take();
        agent.map_or(Ok(()), Daemon::stop)
    }

    /// Kills the agent at once; nothing if there is none.
    pub fn kill_agent(&self) {
        if let Some(agent) = lock(&self.inner.agent).take() {
            agent.kill();
        }
    }

    /// Calls `work` with the running agent. Error: there is none.
    pub fn with_agent<T>(&self, work: impl FnOnce(&mut Daemon) -> Result<T>) -> Result<T> {
        let mut agent = lock(&self.inner.agent);
        work(
            agent
                .as_mut()
                .with_context(|| format!("{} has no agent", self.name()))?,
        )
    }

    /// Runs `buoy-agent cleanup` to its end.
    pub fn cleanup(&self) -> Result<Finished> {
        let finished = exec::run(&mut self.agent_command(&["cleanup"]), "", PATIENCE)?.ok()?;
        self.becomes_clean(true);
        Ok(finished)
    }

    /// The agent's command line, with words before the flags.
    pub fn agent_command(&self, words: &[&str]) -> Command {
        let settings = lock(&self.inner.settings).clone();
        let name = settings.node_name.as_deref().unwrap_or(self.name());
        let mut command = self.netns().command(&self.inner.binaries.agent);
        plain_environment(&mut command);
        command
            .args(words)
            .arg("--config")
            .arg(self.config_file())
            .args(["--node-name", name, "--datastore", &self.store().url()])
            .arg("--socket")
            .arg(self.socket())
            .arg("--state-dir")
            .arg(self.state())
            .arg("--run-dir")
            .arg(self.directory().join("run"))
            .args(["--node-ip", "auto", "--cni", "own"])
            .args(["--routing", &settings.routing])
            .args(["--floating-ips", &settings.floating_ips])
            .args(["--floating-ip-hold", &settings.hold])
            .args(["--log", "debug", "--log-format", "text"]);
        if let Some(path) = &settings.path {
            command.env("PATH", path);
        }
        command
    }

    /// Runs `buoyctl` on the node to its end, however it ends.
    pub fn try_ctl<S: AsRef<OsStr>>(&self, words: &[S], stdin: &str) -> Result<Finished> {
        let mut command = self.netns().command(&self.inner.binaries.ctl);
        plain_environment(&mut command);
        command
            .args(["--datastore", &self.store().url(), "--socket"])
            .arg(self.socket());
        exec::run(command.args(words), stdin, PATIENCE)
    }

    /// Runs `buoyctl` on the node; `line` is split at white space. Returns what it printed. Error: it fails.
    pub fn ctl(&self, line: &str) -> Result<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Ok(self.try_ctl(&words, "")?.ok()?.stdout)
    }

    /// Gives records to `buoyctl apply`. Error: it refuses them.
    pub fn apply(&self, records: &str) -> Result<String> {
        Ok(self.try_ctl(&["apply", "-f", "-"], records)?.ok()?.stdout)
    }

    /// The configuration of the first plugin, as a runtime writes it to its standard input.
    pub fn network(&self) -> Value {
        let mut network = self.network_list()["plugins"][0].take();
        network["cniVersion"] = json!("0.3.0");
        network["name"] = json!(NETWORK);
        network
    }

    /// The configuration of Calico's guide for floating IPs, with the two paths by which plugin and agent meet here.
    pub fn network_list(&self) -> Value {
        json!({
            "name": NETWORK,
            "cniVersion": "0.3.0",
            "plugins": [
                {
                    "type": "calico",
                    "log_level": "info",
                    "datastore_type": "etcdv3",
                    "mtu": 1450,
                    "ipam": {"type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "true"},
                    "feature_control": {"floating_ips": true},
                    "capabilities": {"io.kubernetes.cri.pod-annotations": true},
                    "buoy": {"socket": self.socket(), "spool": self.spool()},
                },
                {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}},
            ],
        })
    }
}

/// Neither the agent nor the tools shall see what the person's environment says about some other Buoy.
fn plain_environment(command: &mut Command) {
    command.env_clear();
    for name in ["PATH", "TMPDIR", "RUST_BACKTRACE", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
}

/// Puts a program under another name: a hard link, or a symbolic one where the file systems differ. A copy would for a
/// moment be open for writing in children that other threads fork, and no kernel runs such a file.
pub(crate) fn place(program: &Path, at: &Path) -> Result<()> {
    if fs::hard_link(program, at).is_err() {
        symlink(program, at).with_context(|| format!("cannot place {}", at.display()))?;
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
