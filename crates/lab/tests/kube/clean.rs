//! What a node is like, to be compared with what it is after Buoy was there.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use buoy_lab::dump::Dump;
use buoy_lab::exec::eventually;
use buoy_lab::kube::{Node, SOON};

/// Plugins and network configurations by their content, and the state of its network.
pub(crate) struct State {
    files: BTreeMap<PathBuf, Vec<u8>>,
    network: Dump,
}

impl State {
    /// Takes it once kube-proxy has programmed the Service of the API, and nothing changes any more.
    pub(crate) fn of(node: &Node) -> Result<Self> {
        eventually(SOON, "kube-proxy has programmed a Service", || {
            let ruleset = Dump::take(node.netns())?;
            let mut lines = ruleset.section("nftables").iter();
            ensure!(lines.any(|line| line.contains("KUBE-SEP-")), "it has not");
            Ok(())
        })?;
        Ok(Self {
            files: files(node)?,
            network: Dump::at_rest(node.netns())?,
        })
    }

    /// Waits until the node is as it was. Error: what differs.
    pub(crate) fn is_back(&self, node: &Node) -> Result<()> {
        eventually(SOON, "the node is as it was", || {
            let now = files(node)?;
            let names: Vec<_> = self.files.keys().chain(now.keys()).collect();
            for name in names {
                ensure!(
                    self.files.get(name) == now.get(name),
                    "it differs: {}",
                    name.display()
                );
            }
            let difference = self.network.difference(&Dump::take(node.netns())?);
            ensure!(difference.is_empty(), "{difference}");
            Ok(())
        })
    }
}

/// What is in the directories of plugins and configurations.
fn files(node: &Node) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for directory in [node.plugins(), node.configuration()] {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            found.insert(path, content);
        }
    }
    Ok(found)
}
