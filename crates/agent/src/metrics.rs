//! What the agent counts, in Prometheus' terms.
//!
//! Counters and durations are kept where things happen, and cost no more than an atomic addition. What is so at a moment
//! is read from the loop when somebody asks ([`Glance`](crate::inspect::Glance)).
//!
//! Names have the prefix `buoy_` and base units. No label has an address or the name of a workload, a peer or a record:
//! there is no bound to how many there may be.

pub(crate) mod attachments;
pub(crate) mod datastore;
mod floating;
mod node;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use crate::inspect::Glance;

pub(crate) use datastore::Measured;

/// Labels of a metric, always the same names in the same order.
type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Gauges<const N: usize> = Family<Labels<N>, Gauge>;
type Histograms<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// Bounds of what takes microseconds to seconds in this process and in the kernel.
const FAST: [f64; 10] = [0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];
/// Bounds of what goes over a network, or waits for others.
const SLOW: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Type of the text, for whoever gets it.
pub(crate) const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// All metrics of an agent. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    pub(crate) datastore: datastore::Counts,
    pub(crate) attachments: attachments::Counts,
    pub(crate) floating: floating::Counts,
    pub(crate) node: node::Counts,
}

impl Metrics {
    /// Metrics of an agent that has done nothing yet.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("buoy");
        Self {
            datastore: datastore::Counts::register(&mut registry),
            attachments: attachments::Counts::register(&mut registry),
            floating: floating::Counts::register(&mut registry),
            node: node::Counts::register(&mut registry),
            registry: Arc::new(registry),
        }
    }

    /// Takes over what is so now.
    pub(crate) fn show(&self, glance: &Glance) {
        self.datastore.show(glance);
        self.attachments.show(glance);
        self.floating.show(glance);
        self.node.show(glance);
    }

    /// Everything, as Prometheus reads it.
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Registers a metric and keeps a handle on it. The library ends the help with a full stop, and the name of a counter
/// with `_total`.
fn register<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

fn histogram(bounds: &'static [f64]) -> Histogram {
    Histogram::new(bounds.iter().copied())
}

fn fast() -> Histogram {
    histogram(&FAST)
}

fn slow() -> Histogram {
    histogram(&SLOW)
}

fn histograms<const N: usize>(new: fn() -> Histogram) -> Histograms<N>
where
    Labels<N>: EncodeLabelSet,
{
    Family::new_with_constructor(new)
}

/// A number for a gauge.
fn whole(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
