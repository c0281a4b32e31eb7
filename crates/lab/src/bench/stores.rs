//! Each datastore, by the same measurements: what a client of it gets done, and what an agent on it takes.
//!
//! One bed for each: a node, and beside it whatever the store needs. The members of an etcd share the cores with all else,
//! and so do an API server and its etcd. Pods as kubelets start them, and an agent's memory beside many, are measured on
//! whole nodes, in the part `kubernetes`.

mod agent;
mod ipam;
mod kubernetes;
mod leases;
mod records;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use buoy_core::store::{Key, Reply, Revision, StoreOp, Value};
use buoy_datastore::Datastore;

use super::family::Family;
use super::report::{Aim, Report};
use super::{bed, progress};
use crate::lab::Lab;
use crate::store::{Kind, Store};

/// The datastores that agents are measured on, too.
const KINDS: [Kind; 2] = [Kind::Sqlite, Kind::Etcd];

/// How much is done to each store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// Updates of one record.
    updates: usize,
    /// Records in a list.
    listed: usize,
    /// Changes that watchers are told of.
    changes: usize,
    /// Addresses that one node assigns, and that six together do.
    addresses: usize,
    /// ADDs, one after the other.
    adds: usize,
    /// Workloads on the node when its agent starts.
    endpoints: usize,
    /// Endpoints of other nodes.
    others: usize,
    /// Nodes that hold leases, and for how long they are watched.
    leases: (usize, Duration),
}

pub(super) const FULL: Scale = Scale {
    updates: 3_000,
    listed: 10_000,
    changes: 300,
    addresses: 600,
    adds: 200,
    endpoints: 1_000,
    others: 10_000,
    leases: (500, Duration::from_secs(10)),
};

pub(super) const QUICK: Scale = Scale {
    updates: 60,
    listed: 200,
    changes: 5,
    addresses: 18,
    adds: 3,
    endpoints: 4,
    others: 100,
    leases: (20, Duration::from_secs(1)),
};

/// Tells a store of workloads with these names.
type Announce = dyn Fn(&[String]) -> Result<()> + Sync;

/// One store, and how clients come to it.
struct Ground {
    name: String,
    scale: Scale,
    store: Arc<dyn Datastore>,
    opens: Box<dyn Fn() -> Result<Arc<dyn Datastore>> + Sync>,
    /// For a store that wants to know of workloads before they are attached.
    announces: Box<Announce>,
    /// Processes that are the store, whose time it costs; none, where it is in its clients.
    processes: Vec<u32>,
}

/// Everything about each of them.
pub(super) fn measure(scale: Scale, report: &mut Report) -> Result<()> {
    for kind in KINDS {
        progress(&format!("  the datastore {kind}"))?;
        let lab = Lab::bare_on(kind)?;
        let measured = Ground::of_lab(&lab, kind, scale).and_then(|ground| {
            ground.measure(report)?;
            lab.node.start_agent()?;
            lab.node.apply(&bed::pools(Family::V4))?;
            agent::adds(&ground, &lab.node, aim(kind), report)?;
            agent::starts(&ground, &lab.node, report)?;
            agent::memory(&ground, &lab.node, report)
        });
        measured
            .inspect_err(|_| lab.run().keep_directory())
            .with_context(|| lab.evidence())
            .with_context(|| format!("the datastore {kind}"))?;
    }
    progress("  the datastore kubernetes")?;
    kubernetes::measure(scale, report).context("the datastore kubernetes")
}

/// What an ADD shall take.
fn aim(kind: Kind) -> Option<Aim> {
    (kind == Kind::Etcd).then_some(Aim::P50(15.0))
}

impl Ground {
    fn of_lab(lab: &Lab, kind: Kind, scale: Scale) -> Result<Self> {
        let store = lab.node.store().clone();
        let processes = match &store {
            Store::Etcd(etcd) => {
                let members = etcd.members().iter();
                members.filter_map(|member| member.pid().ok()).collect()
            }
            _ => Vec::new(),
        };
        Ok(Self {
            name: kind.to_string(),
            scale,
            store: store.open()?,
            opens: Box::new(move || store.open()),
            announces: Box::new(|_| Ok(())),
            processes,
        })
    }

    /// What clients get done.
    fn measure(&self, report: &mut Report) -> Result<()> {
        records::measure(self, report)?;
        watches::measure(self, report)?;
        ipam::measure(self, report)?;
        leases::measure(self, report)
    }

    /// The name of a row.
    fn row(&self, what: &str) -> String {
        format!("store/{}/{what}", self.name)
    }

    /// Another client of the store.
    fn open(&self) -> Result<Arc<dyn Datastore>> {
        (self.opens)()
    }
}

/// Writes a record that is not there.
fn create(store: &dyn Datastore, key: Key, value: Value) -> Result<Revision> {
    written(store.run(&StoreOp::Create(key, value)))
}

fn written(reply: Reply) -> Result<Revision> {
    match reply {
        Reply::Written(revision) => Ok(revision),
        other => bail!("not written: {other:?}"),
    }
}
