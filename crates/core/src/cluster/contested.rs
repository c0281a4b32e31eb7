//! Addresses that nodes without an agent of ours serve, too: a Calico node programs every request that it sees.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use buoy_api::annotations::AGENT;
use buoy_api::binding::{CONTESTED, Condition};
use buoy_api::ip::FloatingIp;

use super::{Chore, Cluster};

/// How long it must be so: an agent that begins marks its node in a moment.
const GRACE: Duration = Duration::from_secs(5);

pub(super) fn standing(cluster: &Cluster) -> BTreeMap<Chore, Duration> {
    let mut foreign = BTreeMap::<FloatingIp, BTreeSet<&str>>::new();
    for (floating, node) in cluster.endpoints.requests() {
        if is_foreign(cluster, node) {
            foreign.entry(floating).or_default().insert(node);
        }
    }
    let bindings = cluster.bindings.iter();
    let wrong = bindings.filter_map(|(floating, binding)| {
        let nodes: Vec<String> = foreign
            .get(floating)
            .into_iter()
            .flatten()
            .map(|node| (*node).to_owned())
            .collect();
        let should = condition(&nodes);
        let is = binding.status.conditions.iter().find(|is| is.kind == CONTESTED);
        // What cannot be read takes nothing away.
        let is_sure = is.is_none() || !cluster.endpoints.are_unreadable();
        (is_sure && is != should.as_ref()).then_some(Chore::Contest {
            floating: *floating,
            nodes,
        })
    });
    wrong.map(|chore| (chore, GRACE)).collect()
}

/// A node that is gone serves nobody.
fn is_foreign(cluster: &Cluster, node: &str) -> bool {
    let record = cluster.nodes.get(node);
    record.is_some_and(|node| !node.metadata.annotations.contains_key(AGENT))
}

/// What a binding should say; nothing, if there are no such nodes.
pub fn condition(nodes: &[String]) -> Option<Condition> {
    (!nodes.is_empty()).then(|| Condition {
        kind: CONTESTED.to_owned(),
        status: "True".to_owned(),
        reason: "NodeWithoutAgent".to_owned(),
        message: format!(
            "workloads on nodes without an agent ask for it: {}",
            nodes.join(", ")
        ),
    })
}
