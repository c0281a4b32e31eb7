//! The agent of a node: inputs, one loop, adapters.
//!
//! Inputs (datastore, clients, kernel events, signals) come from threads of their own into one bounded queue. One loop
//! owns all that is known, calculates what follows from it by the functions of `buoy-core`, and hands operations and
//! duties to adapters, whose results come back as inputs.
//!
//! Invariants: only the loop changes state; an adapter decides nothing and repeats nothing; start and resync are the
//! same as every other turn.
//!
//! Not here: what should be (`buoy-core`), how it is done (`buoy-kernel`, `buoy-datastore`).

mod adapters;
mod agent;
mod answers;
mod attachments;
mod check;
mod cleanup;
mod files;
mod http;
mod identity;
mod inputs;
mod inspect;
mod mark;
mod metrics;
mod network;
mod node_ip;
mod preflight;
mod request;
mod secrets;
mod settings;
mod spool;

use std::sync::Arc;

use anyhow::{Context, Result};
use buoy_core::view::Routing;
use buoy_daemon::clock;
use buoy_daemon::measured::Measured;
use buoy_datastore::Datastore;
use buoy_kernel::netlink::OwnPorts;
use crossbeam_channel::bounded;

use crate::adapters::bird::{Bird, Place};
use crate::adapters::kernel::KernelAdapter;
use crate::adapters::notes::Notes;
use crate::adapters::store::StoreAdapter;
use crate::agent::{Agent, Parts};
use crate::attachments::Files;
use crate::inputs::{QUEUE, kernel, listener, signals, store};
use crate::mark::Marks;
use crate::metrics::Metrics;

pub use crate::adapters::bird::stop as stop_bird;
pub use crate::cleanup::cleanup;
pub use crate::preflight::{Preflight, preflight};
pub use crate::settings::{Given, Settings};

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
// The core tells the routing daemon by which number it knows our routes.
const _: () = assert!(buoy_core::desired::ROUTE_PROTOCOL == buoy_kernel::ROUTE_PROTOCOL);
/// Name and version of this program.
pub(crate) const PROGRAM: &str = concat!("buoy-agent ", env!("CARGO_PKG_VERSION"));

/// Runs an agent until it is told to stop. What it programmed stays.
pub fn run(given: Given, settings: Settings) -> Result<()> {
    for dir in [&settings.state_dir, &settings.run_dir] {
        std::fs::create_dir_all(dir).with_context(|| format!("make directory: {}", dir.display()))?;
    }
    let _held = files::hold(&settings.state_dir)?;
    let datastore = buoy_datastore::open_for(&settings.datastore, Some(&settings.node_name))?;
    let settings = Settings {
        // What is shown to people: without a password.
        datastore: datastore.name().to_owned(),
        ..settings
    };
    let metrics = Metrics::new();
    let measured = Measured::new(datastore, metrics.datastore.operations.clone());
    let datastore: Arc<dyn Datastore> = Arc::new(measured.clone());
    let (inputs, queue) = bounded(QUEUE);
    let own = OwnPorts::default();
    signals::watch(inputs.clone())?;
    let place = Place::new(&settings.run_dir);
    let bird = match settings.routing {
        Routing::Bird => Some(Bird::start(place, &metrics, &inputs)?),
        // Nobody shall announce what an earlier agent's daemon still knows.
        Routing::Kernel => {
            adapters::bird::remove(&place)?;
            None
        }
    };
    let parts = Parts {
        files: Files::open(&settings.state_dir)?,
        kernel: KernelAdapter::start(&settings.state_dir, bird, &own, &metrics, &inputs)?,
        marks: Marks::recall(Arc::clone(&datastore), &settings.state_dir),
        store: StoreAdapter::start(&datastore, &metrics, &inputs)?,
        given,
        settings: settings.clone(),
        identity: identity::of(&settings.state_dir)?,
        metrics: metrics.clone(),
        measured,
        notes: Notes::start(&datastore, &metrics)?,
    };
    // Clients may come before the spool is drained: who finds no agent looks once more after it wrote there.
    listener::listen(&settings.socket, metrics.attachments.clone(), inputs.clone())?;
    http::serve(&settings.listen, metrics, inputs.clone())?;
    kernel::watch(&own, settings.routing, &inputs)?;
    let agent = Agent::new(parts)?;
    store::watch(datastore, &settings.node_name, inputs)?;
    agent.run(&queue);
    Ok(())
}
