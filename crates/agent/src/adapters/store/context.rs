//! What the protocols of a duty need to know, as the view has it when the duty is handed over.

use std::sync::Arc;

use buoy_api::binding::Term;
use buoy_api::ip::FloatingIp;
use buoy_core::duty::Duty;
use buoy_core::ipam::{Asker, Snapshot};
use buoy_core::store::{Key, Record, Revision, Value};
use buoy_core::time::Now;
use buoy_core::view::View;
use ipnet::IpNet;

/// What is known.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) asker: Asker,
    pub(super) cached: Vec<Record>,
    /// The WorkloadEndpoint in the attachment's place.
    pub(super) endpoint: Option<(Value, Revision)>,
    /// How often the datastore was restored by then.
    pub(super) restores: u64,
    pub(super) identity: String,
    pub(super) term_floor: Term,
    pub(super) now: Now,
}

impl Context {
    pub(super) fn of(duty: &Duty, view: &View, now: Now) -> Self {
        let namespace = match duty {
            Duty::Allocate(attachment) | Duty::Reallocate(attachment) => Some(&attachment.endpoint.namespace),
            _ => None,
        };
        let needs_pools = matches!(
            duty,
            Duty::Allocate(_)
                | Duty::Reallocate(_)
                | Duty::FirstClaim { .. }
                | Duty::Claim { .. }
                | Duty::Reassert { .. }
        );
        let snapshot = if needs_pools {
            snapshot(view)
        } else {
            Snapshot::default()
        };
        let node = view.nodes.get(view.settings.node.as_str());
        Self {
            snapshot: Arc::new(snapshot),
            asker: Asker {
                host: view.settings.node.clone(),
                node_labels: node.map(|node| node.metadata.labels.clone()).unwrap_or_default(),
                namespace_labels: namespace.map(|n| view.namespace_labels(n)).unwrap_or_default(),
            },
            cached: cached(duty, view),
            endpoint: endpoint(duty, view),
            restores: view.restores(),
            identity: view.settings.identity.clone(),
            term_floor: view.term_floor(),
            now,
        }
    }
}

fn snapshot(view: &View) -> Snapshot {
    Snapshot {
        pools: view.pools.values().cloned().collect(),
        reserved: view
            .reservations
            .values()
            .flat_map(|r| r.spec.reserved_cidrs.clone())
            .collect(),
        config: view.ipam.get(&()).cloned().unwrap_or_default(),
    }
}

/// Blocks that an assignment may begin with.
fn cached(duty: &Duty, view: &View) -> Vec<Record> {
    match duty {
        Duty::Allocate(_) => own_blocks(view),
        Duty::FirstClaim { floating, .. }
        | Duty::Claim { floating, .. }
        | Duty::Reassert { floating, .. } => block_of(view, *floating).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// Blocks of this node as the view has them.
fn own_blocks(view: &View) -> Vec<Record> {
    let blocks = view.affinities.iter();
    blocks.filter_map(|(cidr, _)| block(view, cidr)).collect()
}

/// The block of an address, whoever has it.
fn block_of(view: &View, floating: FloatingIp) -> Option<Record> {
    block(view, &view.block_of(floating.addr())?.cidr)
}

fn block(view: &View, cidr: &IpNet) -> Option<Record> {
    let (block, revision) = view.blocks.versioned(cidr)?;
    Some(Record {
        key: Key::Block(*cidr),
        revision,
        value: Ok(Value::Block(block.clone())),
    })
}

/// The WorkloadEndpoint in the place of an attachment's, whoever's it is.
fn endpoint(duty: &Duty, view: &View) -> Option<(Value, Revision)> {
    let Duty::Publish(attachment) = duty else {
        return None;
    };
    let (endpoint, revision) = view.endpoints.versioned(&attachment.endpoint)?;
    Some((Value::Endpoint(endpoint.clone()), revision))
}
