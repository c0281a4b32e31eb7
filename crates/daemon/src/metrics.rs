//! Metrics in Prometheus' terms: what all programs write them with.
//!
//! Names have the prefix `buoy_` and base units. No label has an address or the name of a workload, a peer or a record:
//! there is no bound to how many there may be.

use std::borrow::Cow;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

/// Labels of a metric, always the same names in the same order.
pub type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];
/// Counters that labels tell apart.
pub type Counters<const N: usize> = Family<Labels<N>, Counter>;
/// Gauges that labels tell apart.
pub type Gauges<const N: usize> = Family<Labels<N>, Gauge>;
/// Histograms that labels tell apart.
pub type Histograms<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// Bounds of what takes microseconds to seconds in this process and in the kernel.
const FAST: [f64; 10] = [0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];
/// Bounds of what goes over a network, or waits for others.
const SLOW: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Type of the text, for whoever gets it.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// A registry for the metrics of a program.
pub fn registry() -> Registry {
    Registry::with_prefix("buoy")
}

/// Everything in a registry, as Prometheus reads it.
pub fn text(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    prometheus_text::encode(&mut text, registry)?;
    Ok(text)
}

/// Registers a metric and keeps a handle on it. The library ends the help with a full stop, and the name of a counter
/// with `_total`.
pub fn register<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// A histogram of what takes microseconds to seconds.
pub fn fast() -> Histogram {
    Histogram::new(FAST.iter().copied())
}

/// A histogram of what goes over a network, or waits for others.
pub fn slow() -> Histogram {
    Histogram::new(SLOW.iter().copied())
}

/// Histograms that are made when they are first needed.
pub fn histograms<const N: usize>(new: fn() -> Histogram) -> Histograms<N>
where
    Labels<N>: EncodeLabelSet,
{
    Family::new_with_constructor(new)
}

/// A number for a gauge.
pub fn whole(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A time for a gauge or a histogram.
pub fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
