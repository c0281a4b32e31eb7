//! What the long-running programs have in common: the clocks that the core is told of, what is logged and how, values of
//! settings, and metrics, health and readiness over HTTP.
//!
//! Not here: what a program does.

pub mod clock;
pub mod http;
mod logging;
pub mod measured;
pub mod metrics;

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::SignedDuration;

pub use crate::logging::{LogFormat, log_to_stderr};

/// A duration as settings write it, such as `10m` or `30s`.
pub fn duration(text: &str) -> Result<Duration> {
    let parsed = text.parse::<SignedDuration>().ok();
    let positive = parsed.and_then(|parsed| Duration::try_from(parsed).ok());
    positive.with_context(|| format!("not a duration: {text}\nwrite it as 10m or 30s"))
}
