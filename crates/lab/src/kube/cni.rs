//! The network of pods as the cluster begins: Debian's plugins with routes between the nodes, or none.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::Cluster;
use crate::netns::Netns;
use crate::node::place;
use crate::segment::NODES;

/// Where Debian's package `containernetworking-plugins` puts them.
const DEBIAN: &str = "/usr/lib/cni";

/// What every node of a real cluster has in `/opt/cni/bin` before any network is installed, as far as it is called here.
const PLUGINS: [&str; 4] = ["host-local", "loopback", "portmap", "ptp"];

/// The stock network's configuration.
const STOCK: &str = "10-stock.conflist";

/// Which network pods have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cni {
    /// `ptp` and `host-local`, with routes between the nodes.
    #[default]
    Stock,
    /// None until somebody installs one: nodes are not ready.
    None,
}

impl Cni {
    /// Addresses of pods, as kube-proxy is told.
    pub(crate) fn cluster_cidr(self) -> &'static str {
        match self {
            Self::Stock => "10.244.0.0/16,fd44::/48",
            Self::None => "10.65.0.0/16,fd65::/64",
        }
    }

    /// Fills a node's directories of plugins and configuration; `number` begins at 1.
    pub(crate) fn install(self, number: usize, plugins: &Path, configuration: &Path) -> Result<()> {
        for plugin in PLUGINS {
            place(&Path::new(DEBIAN).join(plugin), &plugins.join(plugin))
                .context("no plugins\n  install the package containernetworking-plugins")?;
        }
        if self == Self::Stock {
            let list = conflist(number).to_string();
            fs::write(configuration.join(STOCK), list)?;
        }
        Ok(())
    }

    /// Gives the nodes routes to each other's pods, and the router too.
    pub(crate) fn connect(self, nodes: &[&Netns], router: &Netns) -> Result<()> {
        if self == Self::None {
            return Ok(());
        }
        for (index, [v4, v6]) in NODES.iter().enumerate().take(nodes.len()) {
            let [pods4, pods6] = subnets(index + 1);
            let routes = format!("route add {pods4} via {v4}\nroute add {pods6} via {v6}");
            let others = nodes.iter().enumerate().filter(|(other, _)| *other != index);
            for netns in others.map(|(_, netns)| *netns).chain([router]) {
                netns.ip(&routes)?;
            }
        }
        Ok(())
    }
}

impl Cluster {
    /// Takes the stock network off all nodes: pods that come later have none until somebody installs another.
    pub fn remove_stock_network(&self) -> Result<()> {
        for node in self.nodes() {
            fs::remove_file(node.configuration().join(STOCK))?;
        }
        Ok(())
    }
}

/// The pods' addresses on a node.
fn subnets(number: usize) -> [String; 2] {
    [format!("10.244.{number}.0/24"), format!("fd44:0:0:{number}::/64")]
}

fn conflist(number: usize) -> serde_json::Value {
    let [v4, v6] = subnets(number);
    json!({
        "cniVersion": "0.3.1",
        "name": "stock",
        "plugins": [
            {"type": "ptp", "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": v4}], [{"subnet": v6}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            }},
            {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}},
        ],
    })
}
