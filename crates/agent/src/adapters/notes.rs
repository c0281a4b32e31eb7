//! Hands notes to the datastore, which writes them where people look, if it has such a place. They are a courtesy: what
//! cannot be written now is dropped and counted, and nothing waits for it.

use std::sync::Arc;
use std::thread;

use anyhow::Result;
use buoy_core::news::Note;
use buoy_datastore::Datastore;
use crossbeam_channel::{Sender, bounded};
use tracing::debug;

use crate::metrics::Metrics;

/// Notes that may wait.
const QUEUE: usize = 256;

/// A handle on the thread that writes notes.
#[derive(Debug)]
pub(crate) struct Notes {
    queue: Sender<Note>,
    metrics: Metrics,
}

impl Notes {
    /// Starts the thread, which ends when this value goes.
    pub(crate) fn start(store: &Arc<dyn Datastore>, metrics: &Metrics) -> Result<Self> {
        let (queue, notes) = bounded::<Note>(QUEUE);
        let (store, counts) = (Arc::clone(store), metrics.floating.clone());
        thread::Builder::new().name("notes".to_owned()).spawn(move || {
            for note in notes {
                match store.tell(&note) {
                    Ok(()) => counts.told("told"),
                    Err(error) => {
                        debug!("a note is lost: {error}");
                        counts.told("failed");
                    }
                }
            }
        })?;
        Ok(Self {
            queue,
            metrics: metrics.clone(),
        })
    }

    /// Has a note written, unless too many wait.
    pub(crate) fn offer(&self, note: Note) {
        if self.queue.try_send(note).is_err() {
            self.metrics.floating.told("dropped");
        }
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }
}
