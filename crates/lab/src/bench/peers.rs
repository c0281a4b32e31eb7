//! Those that attach a workload: Buoy, and what it is compared with.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::exec::{self, PATIENCE};
use crate::netns::Netns;
use crate::node::Node;
use crate::workload::{Workload, call_plugin};

/// Where Debian puts the plugins of the CNI project.
const PLUGINS: &str = "/usr/lib/cni";

/// Somebody who attaches workloads to a node and detaches them.
pub(super) trait Peer: Sync {
    /// Its name in the table.
    fn name(&self) -> &'static str;
    /// Attaches a workload; returns how long its processes took. `number` tells workloads apart.
    fn add(&self, workload: &Workload, number: usize) -> Result<Duration>;
    /// Detaches it again.
    fn del(&self, workload: &Workload, number: usize) -> Result<Duration>;
}

/// The real binary with a real agent, IPAM included.
#[derive(Debug)]
pub(super) struct Buoy;

impl Peer for Buoy {
    fn name(&self) -> &'static str {
        "buoy"
    }

    fn add(&self, workload: &Workload, _number: usize) -> Result<Duration> {
        call(workload, "ADD")
    }

    fn del(&self, workload: &Workload, _number: usize) -> Result<Duration> {
        call(workload, "DEL")
    }
}

fn call(workload: &Workload, verb: &str) -> Result<Duration> {
    let answered = workload.call(verb)?;
    let took = answered.took;
    answered.ok()?;
    Ok(took)
}

/// `ptp` with `host-local`, as Debian has them.
#[derive(Debug)]
pub(super) struct Ptp {
    node: Node,
    config: String,
}

impl Ptp {
    /// `None` where they are not installed.
    pub(super) fn find(node: &Node) -> Option<Self> {
        let there = ["ptp", "host-local"]
            .iter()
            .all(|plugin| Path::new(PLUGINS).join(plugin).is_file());
        let config = json!({
            "cniVersion": "0.3.1",
            "name": "ptp",
            "type": "ptp",
            "mtu": 1450,
            "ipam": {
                "type": "host-local",
                "subnet": "10.90.0.0/16",
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": node.directory().join("host-local"),
            },
        });
        there.then(|| Self {
            node: node.clone(),
            config: config.to_string(),
        })
    }

    fn call(&self, workload: &Workload, verb: &str) -> Result<Duration> {
        let answered = call_plugin(&self.node, self.command(workload, verb), self.config.clone())?;
        let took = answered.took;
        answered.ok().with_context(|| format!("{verb} by ptp"))?;
        Ok(took)
    }

    /// The plugin's command, to be run in the node's namespace.
    pub(super) fn command(&self, workload: &Workload, verb: &str) -> Command {
        let mut command = Command::new(Path::new(PLUGINS).join("ptp"));
        command
            .env_clear()
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &workload.container_id)
            .env("CNI_NETNS", workload.netns().path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", PLUGINS)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    /// What the plugin reads.
    pub(super) fn config(&self) -> &str {
        &self.config
    }
}

impl Peer for Ptp {
    fn name(&self) -> &'static str {
        "ptp"
    }

    fn add(&self, workload: &Workload, _number: usize) -> Result<Duration> {
        self.call(workload, "ADD")
    }

    fn del(&self, workload: &Workload, _number: usize) -> Result<Duration> {
        self.call(workload, "DEL")
    }
}

/// The kernel's part alone: the same link by three `ip -batch`, without IPAM, ruleset and records.
#[derive(Debug)]
pub(super) struct Batch {
    /// The node's namespace.
    pub(super) node: Netns,
}

impl Peer for Batch {
    fn name(&self) -> &'static str {
        "ip-batch"
    }

    fn add(&self, workload: &Workload, number: usize) -> Result<Duration> {
        let (link, address) = (link(number), address(number));
        let (inside, there) = (workload.netns(), workload.netns().path().display());
        let made = batch(
            &self.node,
            &format!(
                "link add {link} address ee:ee:ee:ee:ee:ee mtu 1450 type veth peer name eth0 mtu 1450 netns {there}\n\
                 link set {link} up\n"
            ),
        )?;
        let given = batch(
            inside,
            &format!(
                "link set eth0 up\n\
                 address add {address}/32 dev eth0\n\
                 route add 169.254.1.1 dev eth0 scope link\n\
                 route add default via 169.254.1.1 dev eth0\n\
                 neighbour replace 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent\n"
            ),
        )?;
        let routed = batch(
            &self.node,
            &format!("route add {address} dev {link} scope link\n"),
        )?;
        Ok(made + given + routed)
    }

    fn del(&self, _workload: &Workload, number: usize) -> Result<Duration> {
        batch(&self.node, &format!("link del {}\n", link(number)))
    }
}

fn link(number: usize) -> String {
    format!("bat{number}")
}

fn address(number: usize) -> String {
    format!("10.91.{}.{}", number / 200, number % 200 + 1)
}

/// Runs `ip -batch` from a thread inside: a helper that enters the namespace would be counted in its time.
fn batch(netns: &Netns, lines: &str) -> Result<Duration> {
    let lines = lines.to_owned();
    netns.enter(move || {
        let finished = exec::run(Command::new("ip").args(["-batch", "-"]), &lines, PATIENCE)?;
        Ok(finished.ok()?.took)
    })
}
