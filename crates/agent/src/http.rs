//! Metrics, health and readiness over HTTP, for Prometheus and for probes.
//!
//! `/healthz`: the loop turns. `/readyz`: the first full comparison is applied, the datastore answers and takes writes, the
//! routing daemon announces; else why not. `/metrics`: what is counted.
//!
//! Nobody who asks, or pretends to, costs the loop more than a glance every moment.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use buoy_daemon::http::{Answer, Listen, Pages};
use buoy_kernel::nft::Nft;
use crossbeam_channel::{Sender, TrySendError};
use tokio::sync::oneshot;
use tracing::debug;

use crate::inputs::Input;
use crate::inspect::Glance;
use crate::metrics::Metrics;

/// How long the loop may take to answer before it counts as standing still.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pause before an input is offered again to a loop that has its hands full.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a glance is good enough for the next who asks.
const FRESH: Duration = Duration::from_millis(250);

/// Serves for as long as the process lives. Error: the place is taken, or cannot be had.
pub(crate) fn serve(listen: &Listen, metrics: Metrics, inputs: Sender<Input>) -> Result<()> {
    buoy_daemon::http::serve(listen, Answers::new(metrics, inputs, PATIENCE))
}

/// What answers are made from.
struct Answers {
    metrics: Metrics,
    inputs: Sender<Input>,
    patience: Duration,
    /// The last glance, and when it was. Whoever holds it asks for all that wait.
    seen: tokio::sync::Mutex<Option<(Instant, Arc<Glance>)>>,
    /// For reading counters; opened when first needed.
    nft: Mutex<Option<Nft>>,
}

impl Answers {
    fn new(metrics: Metrics, inputs: Sender<Input>, patience: Duration) -> Self {
        Self {
            metrics,
            inputs,
            patience,
            seen: tokio::sync::Mutex::new(None),
            nft: Mutex::new(None),
        }
    }

    fn stands_still(&self) -> Answer {
        let time = self.patience.as_secs_f64();
        Answer::plain(503, format!("the agent's loop has not turned for {time} s"))
    }

    async fn counted(&self) -> Answer {
        let glance = self.glance().await;
        self.metrics.node.answered(glance.is_some());
        if let Some(glance) = glance {
            self.metrics.show(&glance);
        }
        self.read_packets();
        Answer::metrics(self.metrics.registry())
    }

    /// Reads what the packet filter counted. Where that fails the numbers stay as they are.
    fn read_packets(&self) {
        let mut nft = self.nft.lock().unwrap_or_else(PoisonError::into_inner);
        let open = nft.take().map_or_else(Nft::open, Ok);
        match open.and_then(|mut open| Ok((open.counters()?, open))) {
            Ok((counters, open)) => {
                self.metrics.node.dropped(&counters);
                *nft = Some(open);
            }
            // It is opened anew next time.
            Err(error) => debug!("read the counters of the packet filter: {error}"),
        }
    }

    /// How things are now, or were a moment ago; nothing, if the loop does not answer in time.
    async fn glance(&self) -> Option<Arc<Glance>> {
        let asked = async {
            let mut seen = self.seen.lock().await;
            if let Some((at, glance)) = &*seen
                && at.elapsed() < FRESH
            {
                return Some(Arc::clone(glance));
            }
            let glance = Arc::new(self.ask().await?);
            *seen = Some((Instant::now(), Arc::clone(&glance)));
            Some(glance)
        };
        tokio::time::timeout(self.patience, asked).await.ok().flatten()
    }

    async fn ask(&self) -> Option<Glance> {
        let (reply, answer) = oneshot::channel();
        let mut input = Input::Glance(reply);
        loop {
            match self.inputs.try_send(input) {
                Ok(()) => return answer.await.ok(),
                Err(TrySendError::Full(again)) => input = again,
                Err(TrySendError::Disconnected(_)) => return None,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Pages for Answers {
    async fn answer(&self, path: &str) -> Answer {
        match path {
            "/metrics" => self.counted().await,
            "/healthz" => match self.glance().await {
                Some(_) => Answer::plain(200, "ok"),
                None => self.stands_still(),
            },
            "/readyz" => match self.glance().await {
                Some(glance) if glance.unready.is_empty() => Answer::plain(200, "ready"),
                Some(glance) => Answer::plain(503, glance.unready.join("\n")),
                None => self.stands_still(),
            },
            other => Answer::elsewhere(other),
        }
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
