//! Looks after a cluster's records: what should be done is said by [`buoy_core::cluster`], and done here, once it has stood
//! for a while.
//!
//! Invariants: nothing is done on the word of a watch alone; everything is read again first. Nothing is done right after
//! contact was lost, after a restore, or by a controller that does not hold the lease.

mod chores;
mod election;
mod inputs;
mod keeper;
mod settings;
mod shown;

use std::sync::Arc;

use anyhow::Result;
use buoy_daemon::measured::Measured;
use buoy_datastore::Datastore;
use crossbeam_channel::bounded;

pub use crate::settings::{Given, Settings};

/// Changes that wait for the loop.
const QUEUE: usize = 4096;

/// Runs a controller until it is told to stop.
pub fn run(settings: &Settings) -> Result<()> {
    let shown = shown::Shown::new();
    let store = buoy_datastore::open(&settings.datastore)?;
    let store: Arc<dyn Datastore> = Arc::new(Measured::new(store, shown.operations.clone()));
    tracing::info!("looks after {}", store.name());
    let (inputs, queue) = bounded(QUEUE);
    inputs::signals(inputs.clone())?;
    let standing = election::Standing::default();
    let election = inputs::election(store.clone(), standing.clone())?;
    inputs::watch(store.clone(), inputs)?;
    if let Some(listen) = &settings.listen {
        shown.clone().serve(listen.clone())?;
    }
    keeper::Keeper::new(settings.cluster.clone(), store, standing, shown).run(&queue);
    election.end();
    Ok(())
}
