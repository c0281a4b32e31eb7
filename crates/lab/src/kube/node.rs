//! A whole node: a machine with containerd, a kubelet and kube-proxy.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, anyhow};

use super::component::{Component, Place};
use super::control::{ControlPlane, PROXY};
use super::image;
use super::kubelet;
use super::{Options, Pod, ProxyMode};
use crate::api::Api;
use crate::cluster::Standing;
use crate::daemon::Daemon;
use crate::netns::Netns;
use crate::runtime::containerd::{self, Client, Containerd};
use crate::runtime::machine::{Machine, Places};
use crate::segment::NODES;

/// A node.
#[derive(Debug)]
pub struct Node {
    /// kubelet.
    pub kubelet: Component,
    /// kube-proxy.
    pub proxy: Component,
    name: String,
    addresses: [&'static str; 2],
    port: String,
    switch: Netns,
    containerd: Containerd,
    machine: Arc<Machine>,
    directory: PathBuf,
    standing: Mutex<Standing>,
}

impl Node {
    /// Boots the machine with containerd and the images; without kubelet and kube-proxy. `index` is that of its network
    /// namespace in the segment.
    pub(super) fn boot(
        options: &Options,
        index: usize,
        netns: &Netns,
        at: &Surroundings<'_>,
    ) -> Result<Self> {
        let name = super::node_name(index);
        let directory = netns.run().base().join(&name);
        let addresses = NODES[index];
        let machine = Machine::start(netns, &name, &directory, &places(&directory)?)?;
        let machine = Arc::new(machine);
        options
            .cni
            .install(index + 1, &directory.join("bin"), &directory.join("net.d"))?;
        let containerd = Containerd::start(&machine, Client::Kubelet(image::PAUSE), &directory)?;
        machine.wait_for_socket(containerd::SOCKET)?;
        for archive in at.images {
            containerd.import(&machine, archive)?;
        }
        let config = directory.join("kubelet.json");
        fs::write(&config, kubelet::configuration().to_string())?;
        let place = Place::Node(Arc::clone(&machine));
        let own = at.control.kubeconfig(&name);
        let arguments = kubelet::arguments(&name, addresses, &config, &own);
        let kubeconfig = at.control.kubeconfig(PROXY);
        let proxy = proxy_arguments(&name, options, &kubeconfig);
        Ok(Self {
            kubelet: Component::kubernetes("kubelet", &place, arguments, &directory)?,
            proxy: Component::kubernetes("kube-proxy", &place, proxy, &directory)?,
            name,
            addresses,
            port: format!("port{index}"),
            switch: at.switch.clone(),
            containerd,
            machine,
            directory,
            standing: Mutex::default(),
        })
    }

    /// Starts kubelet and kube-proxy, and does not wait.
    pub(super) fn start(&self) -> Result<()> {
        self.kubelet.start()?;
        self.proxy.start()
    }

    /// Its name in Kubernetes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its addresses.
    pub fn addresses(&self) -> [&'static str; 2] {
        self.addresses
    }

    /// How it stands with it, for the checker.
    pub(super) fn standing(&self) -> Standing {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it stands with it from now on.
    pub fn now(&self, standing: Standing) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    /// Its network namespace.
    pub fn netns(&self) -> &Netns {
        self.machine.netns()
    }

    /// A program that can be started on it; its log is beside those of the node's components.
    pub fn component(&self, name: &'static str, program: &Path, arguments: Vec<String>) -> Component {
        let place = Place::Node(Arc::clone(&self.machine));
        Component::new(name, &place, program, arguments, &self.directory)
    }

    /// Where this process sees a file of it.
    pub fn seen(&self, path: &str) -> PathBuf {
        self.machine.seen(path)
    }

    /// What its agent answers to people and programs that look at it: metrics, and whether it is ready.
    pub fn agent_api(&self) -> Api {
        Api::behind(&self.seen("/run/buoy/http.sock"))
    }

    /// The directory that is `/opt/cni/bin` on it.
    pub fn plugins(&self) -> PathBuf {
        self.directory.join("bin")
    }

    /// The directory that is `/etc/cni/net.d` on it.
    pub fn configuration(&self) -> PathBuf {
        self.directory.join("net.d")
    }

    /// Its directory, with the logs of its components.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Logs of its components.
    pub(super) fn logs(&self) -> [PathBuf; 3] {
        let [kubelet, proxy] = [&self.kubelet, &self.proxy].map(|component| component.log().to_owned());
        [kubelet, self.containerd.log(), proxy]
    }

    /// How a person steps into it.
    pub fn how_to_enter(&self) -> String {
        let command = self.machine.command("sh");
        let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
        format!("sh {}", words.collect::<Vec<_>>().join(" "))
    }

    /// Imports the images of a further archive.
    pub fn import(&self, archive: &Path) -> Result<()> {
        self.containerd.import(&self.machine, archive)
    }

    /// Kills the process that holds a pod's namespaces. Error: it has none.
    pub fn kill_sandbox(&self, pod: &Pod) -> Result<()> {
        let tasks = self
            .containerd
            .ctr(&self.machine, &["containers", "list", "-q", SANDBOXES])?;
        let mut last = anyhow!("pod {} has no sandbox on {}", pod.name, self.name);
        for id in tasks.ok()?.stdout.lines() {
            let shown = self
                .containerd
                .ctr(&self.machine, &["containers", "info", id])?
                .ok()?
                .stdout;
            if shown.contains(&pod.uid) {
                let words = ["task", "kill", "--signal", "SIGKILL", id];
                match self.containerd.ctr(&self.machine, &words)?.ok() {
                    Ok(_) => return Ok(()),
                    Err(error) => last = error,
                }
            }
        }
        Err(last)
    }

    /// Kills containerd; containers live on.
    pub fn kill_containerd(&self) {
        self.containerd.kill();
    }

    /// Starts containerd, if need be again.
    pub fn start_containerd(&self) -> Result<()> {
        self.containerd.restart(&self.machine)
    }

    /// Lets containerd do nothing until [`Node::thaw_containerd`].
    pub fn freeze_containerd(&self) -> Result<()> {
        self.containerd.with(|daemon| daemon.freeze())
    }

    /// Lets containerd go on.
    pub fn thaw_containerd(&self) -> Result<()> {
        self.containerd.with(|daemon: &mut Daemon| daemon.thaw())
    }

    /// Cuts its power: its link goes, and every process on it ends, containers too. It does not come back.
    pub fn cut_power(&self) -> Result<()> {
        self.now(Standing::Cut);
        self.switch.ip(&format!("link delete {}", self.port))?;
        self.machine.cut_power()?;
        self.kubelet.kill();
        self.proxy.kill();
        self.containerd.kill();
        Ok(())
    }
}

/// Selects the containers that hold pods' namespaces.
const SANDBOXES: &str = "labels.\"io.cri-containerd.kind\"==sandbox";

/// What a node meets when it boots.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) control: &'a ControlPlane,
    pub(super) switch: &'a Netns,
    pub(super) images: &'a [PathBuf],
}

/// What a kubelet reads from the kernel and would write there, for the whole machine.
const SYSCTLS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// The node's own directories at their well-known places, and files in place of the machine's sysctls.
fn places(directory: &Path) -> Result<Places> {
    let mut places = Places::default();
    for (own, target) in [
        ("net.d", "/etc/cni/net.d"),
        ("bin", "/opt/cni/bin"),
        ("kubelet", "/var/lib/kubelet"),
        ("cni", "/var/lib/cni"),
        ("calico", "/var/lib/calico"),
        ("pods", "/var/log/pods"),
        ("containers", "/var/log/containers"),
    ] {
        fs::create_dir_all(directory.join(own))?;
        places = places.with(&directory.join(own), target);
    }
    let files = directory.join("sysctls");
    fs::create_dir_all(&files)?;
    for (key, value) in SYSCTLS {
        let file = files.join(key.replace('/', "."));
        fs::write(&file, format!("{value}\n"))?;
        places = places.with(&file, &format!("/proc/sys/{key}"));
    }
    Ok(places)
}

/// It leaves alone what belongs to the machine: the size of conntrack's table and its timeouts.
fn proxy_arguments(name: &str, options: &Options, kubeconfig: &Path) -> Vec<String> {
    let mode = match options.proxy {
        ProxyMode::Iptables => "iptables",
        ProxyMode::Nftables => "nftables",
    };
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--hostname-override={name}"),
        format!("--proxy-mode={mode}"),
        format!("--cluster-cidr={}", options.cni.cluster_cidr()),
        "--oom-score-adj=0".to_owned(),
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-min=0".to_owned(),
        "--conntrack-tcp-timeout-established=0".to_owned(),
        "--conntrack-tcp-timeout-close-wait=0".to_owned(),
    ]
}
