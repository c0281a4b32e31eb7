//! Workloads that come back with a copy: their addresses are still theirs in it, and they are gone.

use std::collections::BTreeSet;

use buoy_api::ipam::{Attribute, Block};

use crate::view::View;

/// A workload that this node had when the copy was made, and not any more: its records came back with the copy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revenant {
    /// Name of the network that it was attached to.
    pub network: String,
    /// Its container.
    pub container: String,
    /// Its interface.
    pub ifname: String,
    /// Namespace and name, if it is a pod.
    pub pod: Option<(String, String)>,
}

impl View {
    /// Workloads of this node that only the store remembers, since the restore.
    pub fn revenants(&self) -> BTreeSet<Revenant> {
        let living: BTreeSet<&str> = self.attachments().map(|a| a.id.container.as_str()).collect();
        let unknown = self
            .own_handles()
            .filter(|(handle, _)| !self.restored.handles.contains(*handle));
        unknown
            .filter_map(|(handle, holder)| {
                let (network, container) = handle.rsplit_once('.')?;
                let record = self
                    .endpoints
                    .values()
                    .find(|record| record.spec.container_id == container);
                let says = |key: &str| holder.secondary.get(key).cloned();
                (!living.contains(container)).then(|| Revenant {
                    network: network.to_owned(),
                    container: container.to_owned(),
                    ifname: record.map_or("eth0".to_owned(), |record| record.spec.endpoint.clone()),
                    pod: says("namespace").zip(says("pod")),
                })
            })
            .collect()
    }

    /// Handles of allocations that say that they are a workload's of this node.
    pub(super) fn own_handles(&self) -> impl Iterator<Item = (&str, &Attribute)> {
        let given = self.blocks.values().flat_map(Block::allocated);
        given.filter_map(|(_, holder)| {
            let is_own = holder.secondary.get("node") == Some(&self.settings.node)
                && !holder.secondary.contains_key("type");
            is_own.then_some((holder.handle.as_deref()?, holder))
        })
    }
}
