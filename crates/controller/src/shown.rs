//! What a controller shows: metrics, and whether it is well.
//!
//! `/healthz`: the loop turns. `/readyz`: it is in contact with the datastore, whether it works or stands by.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use buoy_core::cluster::Chore;
use buoy_core::time::Mono;
use buoy_daemon::clock;
use buoy_daemon::http::{Answer, Listen, Pages, serve};
use buoy_daemon::measured::Operations;
use buoy_daemon::metrics::{Counters, register, registry, whole};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tracing::warn;

/// How long the loop may be at one thing before it counts as standing still: longer than any operation on a datastore.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause before a place that is taken is tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// What is shown. Clones show the same.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    registry: Arc<Registry>,
    state: Arc<Mutex<State>>,
    /// What is asked of the store.
    pub(crate) operations: Operations,
    works: Gauge,
    synced: Gauge,
    looks: Counter,
    chores: Counters<2>,
    freed: Counter,
    waiting: Gauge,
    contested: Gauge,
}

#[derive(Debug)]
struct State {
    turned: Mono,
    /// Why it is not in contact.
    unready: Option<String>,
}

impl Shown {
    /// Of a controller that has done nothing yet.
    pub(crate) fn new() -> Self {
        let mut registry = registry();
        let r = &mut registry;
        Self {
            state: Arc::new(Mutex::new(State {
                turned: clock::mono(),
                unready: Some("not everything in the datastore was read yet".to_owned()),
            })),
            operations: Operations::register(r),
            works: register(
                r,
                "controller_works",
                "Whether this controller works; of several, one does",
                Gauge::default(),
            ),
            synced: register(
                r,
                "controller_synced",
                "Whether this controller is in contact with the datastore",
                Gauge::default(),
            ),
            looks: register(
                r,
                "controller_looks",
                "Times that the controller looked at what stands",
                Counter::default(),
            ),
            chores: register(
                r,
                "controller_chores",
                "Things that were done, or failed",
                Counters::default(),
            ),
            freed: register(
                r,
                "controller_freed_addresses",
                "Addresses that were freed because nobody has them any more",
                Counter::default(),
            ),
            waiting: register(
                r,
                "controller_chores_waiting",
                "Things that are to be done once they have stood for long enough, or are tried again",
                Gauge::default(),
            ),
            contested: register(
                r,
                "controller_contested_floating_ips",
                "Floating IPs that a node without an agent may serve, too",
                Gauge::default(),
            ),
            registry: Arc::new(registry),
        }
    }

    /// The loop turned.
    pub(crate) fn turned(&self, now: Mono) {
        self.with(|state| state.turned = now);
    }

    /// The loop looked.
    pub(crate) fn looked(&self, now: Mono, works: bool) {
        self.turned(now);
        self.looks.inc();
        self.works.set(i64::from(works));
    }

    /// So many things stand, and so many floating IPs are contested.
    pub(crate) fn stand(&self, waiting: usize, contested: usize) {
        self.waiting.set(whole(waiting));
        self.contested.set(whole(contested));
    }

    /// Contact is there, or was lost.
    pub(crate) fn contact(&self, lost: Option<&str>) {
        self.synced.set(i64::from(lost.is_none()));
        let unready = lost.map(|error| format!("no contact with the datastore: {error}"));
        self.with(|state| state.unready = unready);
    }

    /// Something was done, or failed.
    pub(crate) fn did(&self, chore: &Chore, is_done: bool) {
        let outcome = if is_done { "done" } else { "failed" };
        let labels = [("kind", chore.kind().into()), ("outcome", outcome.into())];
        self.chores.get_or_create(&labels).inc();
        if is_done {
            self.freed.inc_by(chore.frees() as u64);
        }
    }

    /// Serves it for as long as the process lives. Of two controllers on one node the other does so once the place is free.
    pub(crate) fn serve(self, listen: Listen) -> std::io::Result<()> {
        let serving = move || {
            let mut is_said = false;
            while let Err(error) = serve(&listen, self.clone()) {
                if !std::mem::replace(&mut is_said, true) {
                    warn!("metrics and health are not served yet: {error:#}");
                }
                thread::sleep(PAUSE);
            }
        };
        thread::Builder::new().name("listen".to_owned()).spawn(serving)?;
        Ok(())
    }

    fn with<T>(&self, of: impl FnOnce(&mut State) -> T) -> T {
        of(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn health(&self, now: Mono) -> Answer {
        let turned = self.with(|state| state.turned);
        if now.since(turned) > PATIENCE {
            let time = now.since(turned).as_secs();
            return Answer::plain(503, format!("the controller's loop has not turned for {time} s"));
        }
        Answer::plain(200, "ok")
    }

    fn readiness(&self) -> Answer {
        match self.with(|state| state.unready.clone()) {
            Some(why) => Answer::plain(503, why),
            None => Answer::plain(200, "ready"),
        }
    }
}

impl Pages for Shown {
    async fn answer(&self, path: &str) -> Answer {
        match path {
            "/metrics" => Answer::metrics(&self.registry),
            "/healthz" => self.health(clock::mono()),
            "/readyz" => self.readiness(),
            other => Answer::elsewhere(other),
        }
    }
}

#[cfg(test)]
#[path = "shown_tests.rs"]
mod tests;
