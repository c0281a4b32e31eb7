//! A real Kubernetes: a control plane and up to three whole nodes, on the segment of the lab's cluster, with its router and
//! the client beyond.
//!
//! ```text
//!  control 192.0.2.10 ─┐
//!  n1      192.0.2.1  ─┤
//!  n2      192.0.2.2  ─┼── switch ── 192.0.2.254 router 198.51.100.1 ── client 198.51.100.10
//!  n3      192.0.2.3  ─┘
//! ```
//!
//! Everything of it is a process of this machine: the control plane in a network namespace, each node with its containerd,
//! kubelet, kube-proxy and pods in a machine of its own ([`crate::runtime`]). Images are never pulled.

mod audit;
mod buoy;
mod cases;
mod check;
mod cni;
mod component;
mod control;
mod evidence;
pub mod image;
mod kubelet;
mod manifest;
mod node;
pub mod operator;
mod pods;
pub mod up;

use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::api::Api;
use crate::checker::Checker;
use crate::exec::{self, Finished};
use crate::lab::judge;
use crate::netns::Netns;
use crate::router::Router;
use crate::run::Run;
use crate::segment::{NODES, Segment, peers};

pub use buoy::{AGENT, Buoy, Gate};
pub use cases::Case;
pub use cni::Cni;
pub use component::Component;
pub use control::ControlPlane;
use control::{ADMIN, CONTROL};
pub use manifest::{Manifest, UNREADY};
pub use node::Node;
use node::Surroundings;
pub use pods::Pod;

/// What takes seconds on a machine with nothing else to do takes a minute on a busy one.
pub const SOON: Duration = Duration::from_secs(120);

/// Pause between two questions about the same thing.
const PAUSE: Duration = Duration::from_millis(25);

/// How kube-proxy programs Services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyMode {
    /// By iptables.
    #[default]
    Iptables,
    /// By nftables.
    Nftables,
}

/// What a cluster shall be.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many nodes: one to three.
    pub nodes: usize,
    /// How kube-proxy programs Services.
    pub proxy: ProxyMode,
    /// Which network pods have.
    pub cni: Cni,
    /// After what time without a word of its kubelet a node counts as dead.
    pub node_grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: NODES.len(),
            proxy: ProxyMode::default(),
            cni: Cni::default(),
            // Where a real cluster waits for most of a minute.
            node_grace: Duration::from_secs(6),
        }
    }
}

/// The name of a node in Kubernetes; `index` begins at 0.
fn node_name(index: usize) -> String {
    format!("n{}", index + 1)
}

/// A cluster. Everything goes when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// The control plane.
    pub control: ControlPlane,
    /// The router, which knows pods and floating IPs only from what nodes announce.
    pub router: Router,
    /// A host beyond the router.
    pub client: Netns,
    /// The switch.
    pub switch: Netns,
    nodes: Vec<Node>,
    checker: Mutex<Checker>,
    took: Duration,
    run: Run,
}

impl Cluster {
    /// Makes a cluster, and waits until its nodes are ready; without a network for pods: until they are there.
    pub fn start(options: &Options) -> Result<Self> {
        let begun = Instant::now();
        ensure!(
            (1..=NODES.len()).contains(&options.nodes),
            "a cluster has one to three nodes, not {}",
            options.nodes
        );
        let mut cluster = Self::boot(options)?;
        if let Err(error) = cluster.begin(options.cni) {
            cluster.run.keep_directory();
            return Err(error.context(cluster.evidence()));
        }
        cluster.took = begun.elapsed();
        Ok(cluster)
    }

    /// Makes the network, and starts everything that needs no API server beside the control plane.
    fn boot(options: &Options) -> Result<Self> {
        let run = Run::begin()?;
        let names: Vec<String> = (0..options.nodes).map(node_name).collect();
        let inside = names.iter().map(|name| Netns::make(&run, name));
        let inside: Vec<Netns> = inside.collect::<Result<_>>()?;
        let control = ControlPlane::make(&Netns::make(&run, "control")?, &names, options.node_grace)?;
        let images = image::standard(&run.base().join("images"))?;
        let hosts: Vec<&Netns> = inside.iter().collect();
        let segment = Segment::make(&run, &hosts, &[(control.netns(), CONTROL)])?;
        options.cni.connect(&hosts, segment.router.netns())?;
        let at = Surroundings {
            control: &control,
            switch: &segment.switch,
            images: &images,
        };
        let nodes = thread::scope(|scope| {
            let starting = scope.spawn(|| control.start());
            let booting: Vec<_> = (inside.iter().enumerate())
                .map(|(index, netns)| (scope, &at, index, netns))
                .map(|(scope, at, index, netns)| scope.spawn(move || Node::boot(options, index, netns, at)))
                .collect();
            segment.router.set(|settings| settings.peers = peers())?;
            segment.router.start()?;
            let nodes: Result<Vec<Node>> = booting.into_iter().map(joined).collect();
            joined(starting).and(nodes)
        });
        // Whoever failed left a log.
        let nodes = nodes.inspect_err(|_| run.keep_directory())?;
        Ok(Self {
            control,
            router: segment.router,
            client: segment.client,
            switch: segment.switch,
            nodes,
            checker: Mutex::default(),
            took: Duration::ZERO,
            run,
        })
    }

    fn begin(&self, cni: Cni) -> Result<()> {
        self.nodes.iter().try_for_each(Node::start)?;
        match cni {
            Cni::Stock => self.wait_for_nodes()?,
            Cni::None => self.until("all nodes are there", |api| {
                let found = api.list("/api/v1/nodes")?.len();
                ensure!(found == self.nodes.len(), "{found} of {}", self.nodes.len());
                Ok(())
            })?,
        }
        self.wait_for_account("default")
    }

    /// From nothing until it was ready.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Its run.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Its nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node by its name. Error: there is none.
    pub fn node(&self, name: &str) -> Result<&Node> {
        let found = self.nodes.iter().find(|node| node.name() == name);
        found.with_context(|| format!("no node {name}"))
    }

    /// The administrator's kubeconfig; the server it names is reached from the cluster's segment.
    pub fn kubeconfig(&self) -> PathBuf {
        self.control.kubeconfig(ADMIN)
    }

    /// The API as the administrator sees it.
    pub fn api(&self) -> Api {
        self.control.api()
    }

    /// Imports the images of an OCI archive into all nodes.
    pub fn import(&self, archive: &Path) -> Result<()> {
        thread::scope(|scope| {
            let importing: Vec<_> = (self.nodes.iter())
                .map(|node| scope.spawn(|| node.import(archive)))
                .collect();
            importing.into_iter().try_for_each(joined)
        })
    }

    /// The real kubectl, as the administrator.
    pub fn kubectl_command(&self) -> Result<Command> {
        let mut command = self.control.netns().command(buoy_kubeserver::binary()?);
        command
            .arg("kubectl")
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.run.base());
        Ok(command)
    }

    /// Runs kubectl to its end, however it ends.
    pub fn try_kubectl(&self, words: &[&str], input: &str) -> Result<Finished> {
        exec::run(self.kubectl_command()?.args(words), input, SOON)
    }

    /// Runs kubectl; `line` is split at white space. Returns what it printed. Error: it fails.
    pub fn kubectl(&self, line: &str) -> Result<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Ok(self.try_kubectl(&words, "")?.ok()?.stdout)
    }

    /// Gives objects, as YAML or JSON, to `kubectl apply`. Error: they are refused.
    pub fn apply(&self, objects: &str) -> Result<String> {
        Ok(self.try_kubectl(&["apply", "-f", "-"], objects)?.ok()?.stdout)
    }

    /// Asks again and again until the answer is there. Error: the last answer's.
    pub fn until<T>(&self, what: &str, mut ask: impl FnMut(&Api) -> Result<T>) -> Result<T> {
        let api = self.api();
        exec::eventually(SOON, what, || ask(&api).inspect_err(|_| thread::sleep(PAUSE)))
    }

    /// Runs a test in this cluster; when it fails, prints the evidence and keeps the logs, then fails.
    #[track_caller]
    pub fn test(self, body: impl FnOnce(&Self) -> Result<()>) {
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| body(&self)));
        judge(outcome, &self.run, || self.evidence());
    }
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a starter panicked"))?
}
