//! The routing daemon BIRD: a process beside the agent that outlives it, driven by a file and a control socket.
//!
//! One thread has it: it loads configurations, looks every moment whether the daemon answers, starts it again where it is
//! gone, and tells the loop how it is. Nothing here knows what a configuration says.

mod control;
mod process;
mod remove;
mod report;
mod supervisor;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::Result;
use crossbeam_channel::{Sender, bounded};

pub(crate) use remove::remove;
pub use remove::stop;
pub(crate) use report::{Condition, Report, Session};

use crate::inputs::{Input, OpError};
use crate::metrics::Metrics;
use supervisor::{Order, Supervisor};

/// Configurations that may wait: the loop has one plan under way at a time.
const QUEUE: usize = 4;

/// Where the daemon's files are.
#[derive(Clone, Debug)]
pub(crate) struct Place(PathBuf);

impl Place {
    /// In a run directory.
    pub(crate) fn new(run_dir: &Path) -> Self {
        Self(run_dir.to_owned())
    }

    fn directory(&self) -> &Path {
        &self.0
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn config(&self) -> PathBuf {
        self.file("bird.conf")
    }

    fn control(&self) -> PathBuf {
        self.file("bird.ctl")
    }

    fn pid(&self) -> PathBuf {
        self.file("bird.pid")
    }
}

/// What the daemon was given last, shared with whoever reads the node back.
#[derive(Clone, Debug, Default)]
struct Loaded(Arc<Mutex<Option<String>>>);

impl Loaded {
    fn locked(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle on the thread that has the daemon.
#[derive(Clone, Debug)]
pub(crate) struct Bird {
    orders: Sender<Order>,
    loaded: Loaded,
}

impl Bird {
    /// Starts the thread. A daemon that runs is taken over as it is.
    pub(crate) fn start(place: Place, metrics: &Metrics, inputs: &Sender<Input>) -> Result<Self> {
        let (orders, queue) = bounded(QUEUE);
        let loaded = Loaded(Arc::new(Mutex::new(std::fs::read_to_string(place.config()).ok())));
        let supervisor = Supervisor::new(
            place,
            loaded.clone(),
            metrics.node.bird_starts.clone(),
            inputs.clone(),
        );
        thread::Builder::new()
            .name("bird".to_owned())
            .spawn(move || supervisor.work(&queue))?;
        Ok(Self { orders, loaded })
    }

    /// Has the daemon take a configuration, or keep the one it has.
    pub(crate) fn load(&self, text: &str) -> Result<(), OpError> {
        let (reply, answer) = bounded(1);
        let order = Order {
            text: text.to_owned(),
            reply,
        };
        let gone = || OpError {
            message: "the thread that looks after BIRD ended".to_owned(),
            namespace_gone: false,
        };
        self.orders.send(order).map_err(|_| gone())?;
        let result = answer.recv().map_err(|_| gone())?;
        result.map_err(|message| OpError {
            message,
            namespace_gone: false,
        })
    }

    /// Configurations that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.orders.len()
    }

    /// What it was given last.
    pub(crate) fn loaded(&self) -> Option<String> {
        self.loaded.locked().clone()
    }
}
