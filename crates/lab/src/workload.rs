//! A workload: a namespace that is attached and detached through the real CNI plugin, as a runtime does it.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::exec;
use crate::netns::Netns;
use crate::node::Node;
use crate::probe::Server;

/// The interface that workloads get.
pub const IFNAME: &str = "eth0";

/// A runtime's patience with a plugin: above that of the plugin with its agent.
const CNI_PATIENCE: Duration = Duration::from_secs(60);

/// What a runtime knows of a workload when it attaches it.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Name of the pod, or of the container.
    pub name: String,
    /// Kubernetes namespace; `None` for a workload without Kubernetes.
    pub namespace: Option<String>,
    /// The pod's annotations, with their full names.
    pub annotations: BTreeMap<String, String>,
    /// More of `CNI_ARGS`.
    pub args: Vec<(String, String)>,
    /// Keys of the plugin's configuration that replace those of the node.
    pub config: Map<String, Value>,
}

impl Spec {
    /// A pod.
    pub fn pod(namespace: &str, name: &str) -> Self {
        Self {
            namespace: Some(namespace.to_owned()),
            ..Self::container(name)
        }
    }

    /// A container without Kubernetes.
    pub fn container(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: None,
            annotations: BTreeMap::new(),
            args: Vec::new(),
            config: Map::new(),
        }
    }

    /// The same with an annotation of Calico's: `floatingIPs`, and its text.
    #[must_use]
    pub fn annotation(mut self, name: &str, text: &str) -> Self {
        self.annotations
            .insert(format!("cni.projectcalico.org/{name}"), text.to_owned());
        self
    }

    /// The same, asking for floating IPs.
    #[must_use]
    pub fn floating(self, ips: &[&str]) -> Self {
        let text = json!(ips).to_string();
        self.annotation("floatingIPs", &text)
    }

    /// The same, asking for fixed addresses.
    #[must_use]
    pub fn fixed(self, ips: &[&str]) -> Self {
        let text = json!(ips).to_string();
        self.annotation("ipAddrs", &text)
    }

    /// The same with one more of `CNI_ARGS`.
    #[must_use]
    pub fn arg(mut self, key: &str, value: &str) -> Self {
        self.args.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The same with a key of the plugin's configuration replaced; `null` takes it away.
    #[must_use]
    pub fn config(mut self, key: &str, value: Value) -> Self {
        self.config.insert(key.to_owned(), value);
        self
    }
}

/// What a plugin answered.
#[derive(Clone, Debug)]
pub struct Answered {
    /// What it printed: a result, or nothing for DEL.
    pub result: Result<Value, Refusal>,
    /// From its start to its end.
    pub took: Duration,
}

/// An error of the CNI specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `code`.
    pub code: u64,
    /// `msg`.
    pub msg: String,
    /// `details`.
    pub details: String,
}

impl Answered {
    /// The result. Error: the plugin's.
    pub fn ok(self) -> Result<Value> {
        match self.result {
            Ok(result) => Ok(result),
            Err(refusal) => bail!(
                "CNI error {}: {}\n  {}",
                refusal.code,
                refusal.msg,
                refusal.details
            ),
        }
    }

    /// The error. Error: the plugin succeeded.
    pub fn refusal(self) -> Result<Refusal> {
        match self.result {
            Err(refusal) => Ok(refusal),
            Ok(result) => bail!("expected a CNI error, got a result: {result}"),
        }
    }
}

/// A namespace with a name and a container's identity, attached or not.
#[derive(Debug)]
pub struct Workload {
    /// What the runtime knows of it.
    pub spec: Spec,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    server: Option<Server>,
    addresses: Vec<IpAddr>,
    netns: Netns,
    node: Node,
}

impl Workload {
    /// Makes the namespace of a workload, without attaching it.
    pub fn prepare(node: &Node, spec: Spec) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let run = node.netns().run();
        let netns = Netns::make(run, &format!("{}-{}{count}", node.name(), spec.name))?;
        let digest = Sha256::digest(format!("{} {} {count}", run.id(), spec.name));
        Ok(Self {
            container_id: hex(&digest),
            spec,
            server: None,
            addresses: Vec::new(),
            netns,
            node: node.clone(),
        })
    }

    /// Makes, attaches and starts a workload whose servers answer with its name. Error: ADD fails.
    pub fn start(node: &Node, spec: Spec) -> Result<Self> {
        let mut workload = Self::prepare(node, spec)?;
        workload
            .add()?
            .ok()
            .with_context(|| format!("ADD of {}", workload.spec.name))?;
        workload.serve()?;
        Ok(workload)
    }

    /// Starts its servers, which answer with its name.
    pub fn serve(&mut self) -> Result<()> {
        self.server = Some(Server::start(&self.netns, &self.spec.name)?);
        Ok(())
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its own addresses, as its last ADD gave them.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Its own address of a family. Error: it has none.
    pub fn address(&self, like: IpAddr) -> Result<IpAddr> {
        let found = self.addresses.iter().find(|ip| ip.is_ipv4() == like.is_ipv4());
        found
            .copied()
            .with_context(|| format!("{} has no address of the family of {like}", self.name()))
    }

    /// CNI ADD.
    pub fn add(&mut self) -> Result<Answered> {
        let answered = self.call("ADD")?;
        if let Ok(result) = &answered.result {
            self.addresses = addresses_of(result)?;
        }
        Ok(answered)
    }

    /// CNI DEL.
    pub fn del(&self) -> Result<Answered> {
        self.call("DEL")
    }

    /// DEL while its servers still run, which is harder on the dataplane than the runtimes are; then its end. Returns
    /// how long DEL took. Error: DEL fails.
    pub fn delete(self) -> Result<Duration> {
        let answered = self.del()?;
        let took = answered.took;
        answered.ok().with_context(|| format!("DEL of {}", self.name()))?;
        Ok(took)
    }

    /// The same where an agent runs, which has to carry it out at once. Error: the plugin gave up waiting for the agent,
    /// and left the DEL in the spool.
    pub fn delete_by_agent(self) -> Result<Duration> {
        let (spool, name) = (self.node.spool(), self.name().to_owned());
        let took = self.delete()?;
        let left = std::fs::read_dir(spool).map_or(0, Iterator::count);
        ensure!(left == 0, "the agent did not carry out the DEL of {name}");
        Ok(took)
    }

    /// Calls the plugin with a command of the CNI specification, on the node, as a runtime does.
    pub fn call(&self, verb: &str) -> Result<Answered> {
        call_plugin(&self.node, self.plugin(verb), self.stdin())
    }

    /// Starts the plugin and does not wait for its end.
    pub fn begin(&self, verb: &str) -> Result<Child> {
        let (mut command, stdin) = (self.plugin(verb), self.stdin());
        self.node.netns().enter(move || {
            let mut child = command
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            let mut pipe = child.stdin.take().context("no standard input")?;
            pipe.write_all(stdin.as_bytes())?;
            Ok(child)
        })
    }

    /// The plugin's command, to be run in the node's namespace.
    pub(crate) fn plugin(&self, verb: &str) -> Command {
        let mut command = Command::new(self.node.plugins().join("calico"));
        command
            .env_clear()
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &self.container_id)
            .env("CNI_NETNS", self.netns.path())
            .env("CNI_IFNAME", IFNAME)
            .env("CNI_PATH", self.node.plugins())
            .env("CNI_ARGS", self.cni_args())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    /// `CNI_ARGS` as containerd and the kubelet write it.
    fn cni_args(&self) -> String {
        let mut args = vec![("IgnoreUnknown".to_owned(), "1".to_owned())];
        if let Some(namespace) = &self.spec.namespace {
            for (key, value) in [
                ("K8S_POD_NAMESPACE", namespace),
                ("K8S_POD_NAME", &self.spec.name),
                ("K8S_POD_INFRA_CONTAINER_ID", &self.container_id),
            ] {
                args.push((key.to_owned(), value.clone()));
            }
        }
        args.extend(self.spec.args.iter().cloned());
        let pairs: Vec<String> = args
            .into_iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        pairs.join(";")
    }

    /// The plugin's configuration as a runtime that knows pods' annotations writes it.
    pub(crate) fn stdin(&self) -> String {
        let mut network = self.node.network();
        if !self.spec.annotations.is_empty() {
            network["runtimeConfig"] = json!({"io.kubernetes.cri.pod-annotations": self.spec.annotations});
        }
        if let Some(keys) = network.as_object_mut() {
            keys.extend(self.spec.config.clone());
            keys.retain(|_, value| !value.is_null());
        }
        network.to_string()
    }
}

/// Runs a plugin from a thread inside the node's namespace: a helper program would be counted in its time.
pub(crate) fn call_plugin(node: &Node, mut command: Command, stdin: String) -> Result<Answered> {
    let finished = node
        .netns()
        .enter(move || exec::run(&mut command, &stdin, CNI_PATIENCE))?;
    let took = finished.took;
    let printed: Value = match finished.stdout.trim() {
        "" => Value::Null,
        text => serde_json::from_str(text)
            .with_context(|| format!("a plugin printed something else than JSON: {text}"))?,
    };
    let result = match (finished.status.success(), printed.get("code")) {
        (true, None) => Ok(printed),
        (false, Some(code)) => Err(Refusal {
            code: code.as_u64().context("a CNI error's code is no number")?,
            msg: text(&printed, "msg"),
            details: text(&printed, "details"),
        }),
        _ => bail!(
            "a plugin's end and its output do not agree: {}\n  {}\n  {}",
            finished.status,
            finished.stdout,
            finished.stderr
        ),
    };
    Ok(Answered { result, took })
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// The addresses of a CNI result, without their masks.
fn addresses_of(result: &Value) -> Result<Vec<IpAddr>> {
    let ips = result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    let parsed: Result<_, _> = ips
        .iter()
        .map(|ip| ip["address"].as_str().unwrap_or_default().parse::<ipnet::IpNet>())
        .map(|net| net.map(|net| net.addr()))
        .collect();
    parsed.with_context(|| format!("an address in a CNI result: {result}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
