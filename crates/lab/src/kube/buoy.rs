//! Buoy on a cluster, from the programs of this build: as an operator installs it; or without an image, with definitions,
//! rights, pools and peers as an operator applies them, an agent as a process on every node, and the plugins where containerd
//! looks for them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use buoy_kubeserver::settings;
use serde_json::json;

use super::component::Component;
use super::{Cluster, Node};
use crate::ask::owner_in;
use crate::binaries::Binaries;
use crate::cluster::PEERS;
use crate::exec::{self, PATIENCE, tail};
use crate::lab::{POOLS, shown};
use crate::node::place;

/// The account that agents have.
const ACCOUNT: &str = "buoy-agent";

/// The namespace of that account.
const NAMESPACE: &str = "buoy-system";

/// Who an agent is to the API server.
pub const AGENT: &str = "system:serviceaccount:buoy-system:buoy-agent";

/// Whether the network configuration switches floating IPs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// As Calico's guide does it.
    Open,
    /// As it is by default.
    Shut,
}

/// Buoy on every node of a cluster. Dropping it kills the agents.
#[derive(Debug)]
pub struct Buoy<'a> {
    cluster: &'a Cluster,
    agents: Vec<Component>,
    ctl: PathBuf,
}

impl<'a> Buoy<'a> {
    /// Installs it on a cluster without a network, and waits until all nodes are ready and the router hears of all of them.
    pub fn install(cluster: &'a Cluster, gate: Gate) -> Result<Self> {
        let binaries = Binaries::find()?;
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
        for part in ["crds", "rbac.yaml"] {
            cluster.kubectl(&format!("apply --server-side -f {}", deploy.join(part).display()))?;
        }
        cluster.kubectl("wait --for=condition=Established crd --all")?;
        let kubeconfig = kubeconfig(cluster)?;
        let nodes = cluster.nodes().iter();
        let agents = nodes.map(|node| {
            let arguments = arguments(node, &kubeconfig);
            Ok(node.component("buoy-agent", &binaries.agent, arguments))
        });
        let buoy = Self {
            cluster,
            agents: agents.collect::<Result<_>>()?,
            ctl: binaries.ctl,
        };
        for records in [POOLS, PEERS] {
            buoy.apply(records)?;
        }
        for (node, agent) in cluster.nodes().iter().zip(&buoy.agents) {
            agent.start()?;
            install_plugins(node, &binaries.cni, gate)?;
        }
        cluster.wait_for_nodes()?;
        buoy.wait_for_sessions()?;
        Ok(buoy)
    }

    /// Installs it as an operator does, from the image, on a cluster without a network, and waits for the same. Floating IPs
    /// are off; agents are pods.
    pub fn install_as_operator(cluster: &'a Cluster) -> Result<Self> {
        cluster.import_buoy()?;
        cluster.define_records()?;
        cluster.apply_manifest()?;
        cluster.rolled_out("daemonset/buoy-agent")?;
        cluster.rolled_out("deployment/buoy-controller")?;
        let buoy = Self {
            cluster,
            agents: Vec::new(),
            ctl: Binaries::find()?.ctl,
        };
        for records in [POOLS, PEERS] {
            buoy.apply(records)?;
        }
        cluster.wait_for_nodes()?;
        buoy.wait_for_sessions()?;
        Ok(buoy)
    }

    /// The agent of a node, where it is a process. Error: there is no such node.
    pub fn agent(&self, node: &str) -> Result<&Component> {
        let nodes = self.cluster.nodes().iter().zip(&self.agents);
        let mut found = nodes.filter(|(other, _)| other.name() == node);
        found
            .next()
            .map(|(_, agent)| agent)
            .with_context(|| format!("no process on a node {node}"))
    }

    /// Switches floating IPs on or off on a node, for pods that come from now on.
    pub fn set_gate(&self, node: &str, gate: Gate) -> Result<()> {
        write_network(self.cluster.node(node)?, gate)
    }

    /// Runs `buoyctl` as the administrator, from the control plane's host; `line` is split at white space. Returns what it
    /// printed. Error: it fails.
    pub fn ctl(&self, line: &str) -> Result<String> {
        self.run_ctl(&line.split_whitespace().collect::<Vec<_>>(), "")
    }

    /// What the agent of a node says of itself, by `buoyctl node status`. Error: it does not answer.
    pub fn status(&self, node: &Node) -> Result<String> {
        let socket = node.seen("/run/buoy/agent.sock").display().to_string();
        self.run_ctl(&["--socket", &socket, "node", "status"], "")
    }

    /// Who owns an address, and in which epoch.
    pub fn owner(&self, floating: &str) -> Result<(String, u64)> {
        owner_in(&self.ctl("fip list -o json")?, floating)
    }

    /// Gives records to `buoyctl apply`. Error: it refuses them.
    pub fn apply(&self, records: &str) -> Result<String> {
        self.run_ctl(&["apply", "-f", "-"], records)
    }

    fn run_ctl(&self, words: &[&str], input: &str) -> Result<String> {
        let mut command = self.cluster.control.netns().command(&self.ctl);
        command
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .args(["--datastore", "kubernetes:"])
            .args(words);
        Ok(exec::run(&mut command, input, PATIENCE)?.ok()?.stdout)
    }

    /// Waits until the router has its sessions with every node, in both families.
    pub fn wait_for_sessions(&self) -> Result<()> {
        let expected = 2 * self.cluster.nodes().len();
        self.cluster.until("the router has all sessions", |_| {
            let standing = self.cluster.router.established()?;
            ensure!(standing.len() == expected, "it has {standing:?}");
            Ok(())
        })
    }

    /// What is wrong, for a person: floating IPs, and the ends of the agents' logs.
    pub fn evidence(&self) -> String {
        let mut text = shown("floating IPs", self.ctl("fip list -o wide"));
        for (node, agent) in self.cluster.nodes().iter().zip(&self.agents) {
            let what = format!("end of the agent's log on {}", node.name());
            text += &shown(&what, Ok(tail(agent.log(), 25)));
        }
        if self.agents.is_empty() {
            let words = "-n buoy-system logs --prefix --tail=25 -l app.kubernetes.io/name";
            text += &shown("ends of the logs of Buoy's pods", self.cluster.kubectl(words));
        }
        text
    }
}

/// How the agents reach the API server: with a token of their account, as pods have it.
fn kubeconfig(cluster: &Cluster) -> Result<PathBuf> {
    let token = cluster.kubectl(&format!("create token -n {NAMESPACE} {ACCOUNT} --duration=24h"))?;
    let authority = cluster.control.authority();
    let config = settings::kubeconfig(&cluster.control.url(), &authority, ACCOUNT, token.trim());
    let path = cluster.run().base().join("agent.kubeconfig");
    fs::write(&path, config.to_string())?;
    Ok(path)
}

fn arguments(node: &Node, kubeconfig: &Path) -> Vec<String> {
    let datastore = format!("kubernetes:{}", kubeconfig.display());
    let words = [
        "--node-name",
        node.name(),
        "--datastore",
        &datastore,
        "--node-ip",
        "auto",
        "--log",
        "debug",
        "--log-format",
        "text",
    ];
    words.map(str::to_owned).to_vec()
}

/// Puts the plugins in their place, and then the network configuration: from then on the node takes pods.
fn install_plugins(node: &Node, program: &Path, gate: Gate) -> Result<()> {
    for plugin in ["calico", "calico-ipam"] {
        place(program, &node.plugins().join(plugin))?;
    }
    write_network(node, gate)
}

/// The network configuration as Calico's `calico-config` has it. containerd reads it again when it changes.
fn write_network(node: &Node, gate: Gate) -> Result<()> {
    let mut list = json!({
        "name": "k8s-pod-network",
        "cniVersion": "0.3.1",
        "plugins": [
            {
                "type": "calico",
                "log_level": "info",
                "datastore_type": "kubernetes",
                "nodename": node.name(),
                "mtu": 1450,
                "ipam": {"type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "true"},
                "policy": {"type": "k8s"},
                "capabilities": {"io.kubernetes.cri.pod-annotations": true},
            },
            {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}},
        ],
    });
    if gate == Gate::Open {
        list["plugins"][0]["feature_control"] = json!({"floating_ips": true});
    }
    let file = node.configuration().join("10-calico.conflist");
    let beside = node.configuration().join("new");
    fs::write(&beside, list.to_string())?;
    fs::rename(&beside, &file).with_context(|| format!("cannot write {}", file.display()))
}
