//! Each datastore, by the same measurements: what a client of it gets done, and what an agent on it takes.
//!
//! One bed for each: a node, and beside it whatever the store needs. The members of an etcd share the cores with all else.

mod agent;
mod ipam;
mod leases;
mod records;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use buoy_core::store::{Key, Reply, Revision, StoreOp, Value};
use buoy_datastore::Datastore;

use super::family::Family;
use super::report::Report;
use super::{bed, progress};
use crate::lab::Lab;
use crate::store::{Kind, Store};

/// The datastores that are measured. Another one is another entry.
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

/// One store, and a lab on it.
struct Ground {
    kind: Kind,
    scale: Scale,
    lab: Lab,
    store: Arc<dyn Datastore>,
}

/// Everything about each of them.
pub(super) fn measure(scale: Scale, report: &mut Report) -> Result<()> {
    for kind in KINDS {
        progress(&format!("  the datastore {kind}"))?;
        let lab = Lab::bare_on(kind)?;
        let store = lab.node.store().open()?;
        let ground = Ground {
            kind,
            scale,
            lab,
            store,
        };
        let measured = ground.measure(report);
        measured
            .inspect_err(|_| ground.lab.run().keep_directory())
            .with_context(|| ground.lab.evidence())
            .with_context(|| format!("the datastore {kind}"))?;
    }
    Ok(())
}

impl Ground {
    fn measure(&self, report: &mut Report) -> Result<()> {
        records::measure(self, report)?;
        watches::measure(self, report)?;
        ipam::measure(self, report)?;
        leases::measure(self, report)?;
        self.lab.node.start_agent()?;
        self.lab.node.apply(&bed::pools(Family::V4))?;
        agent::measure(self, report)
    }

    /// The name of a row.
    fn row(&self, what: &str) -> String {
        format!("store/{}/{what}", self.kind)
    }

    /// Another client of the store.
    fn open(&self) -> Result<Arc<dyn Datastore>> {
        self.lab.node.store().open()
    }

    /// Processes that are the store, whose time it costs; none, where it is in its clients.
    fn processes(&self) -> Vec<u32> {
        match self.lab.node.store() {
            Store::File(_) => Vec::new(),
            Store::Etcd(etcd) => etcd
                .members()
                .iter()
                .filter_map(|member| member.pid().ok())
                .collect(),
        }
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
