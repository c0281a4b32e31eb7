//! What a controller hears of: records, its election, signals.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use buoy_core::cluster::Cluster;
use buoy_core::floating::lease::RENEWAL;
use buoy_core::store::Delta;
use buoy_datastore::{Datastore, Feed, follow};
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::warn;

use crate::election::{Election, Standing};

/// One thing that happened.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are deltas")]
pub(crate) enum Input {
    /// A record changed.
    Delta(Delta),
    /// Everything was heard.
    Synced,
    /// The datastore does not answer.
    Lost(String),
    /// It was restored from a copy.
    Restored,
    /// The end.
    Stop,
}

/// Follows the datastore for as long as the process lives.
pub(crate) fn watch(store: Arc<dyn Datastore>, inputs: Sender<Input>) -> Result<()> {
    thread::Builder::new().name("watch".to_owned()).spawn(move || {
        let stop = AtomicBool::new(false);
        follow(store.as_ref(), &Cluster::interest(), &stop, &mut |feed| {
            let input = match feed {
                Feed::Delta(delta) => Input::Delta(delta),
                Feed::Synced(_) => Input::Synced,
                Feed::Lost(error) => Input::Lost(error.to_string()),
                Feed::Restored => Input::Restored,
            };
            match inputs.send(input) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
    })?;
    Ok(())
}

/// Turns signals into the end.
pub(crate) fn signals(inputs: Sender<Input>) -> Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("signals")?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for _ in signals.forever() {
            if inputs.send(Input::Stop).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// The thread of an election.
#[derive(Debug)]
pub(crate) struct Turns {
    end: Sender<()>,
    thread: JoinHandle<()>,
}

impl Turns {
    /// Leaves the lease to others.
    pub(crate) fn end(self) {
        drop(self.end);
        if self.thread.join().is_err() {
            warn!("the thread of the election ended before its time");
        }
    }
}

/// Takes part in the election: a renewal waits for nothing else.
pub(crate) fn election(store: Arc<dyn Datastore>, standing: Standing) -> Result<Turns> {
    let (end, ended) = bounded::<()>(0);
    let mut election = Election::new(uuid::Uuid::new_v4().simple().to_string());
    let thread = thread::Builder::new()
        .name("election".to_owned())
        .spawn(move || {
            loop {
                match election.turn(store.as_ref()) {
                    Ok(elected) => standing.set(elected),
                    // What was won before lasts as long as it does.
                    Err(error) => warn!("no part in the election: {error}"),
                }
                if ended.recv_timeout(RENEWAL) != Err(RecvTimeoutError::Timeout) {
                    election.leave(store.as_ref());
                    return;
                }
            }
        })?;
    Ok(Turns { end, thread })
}
