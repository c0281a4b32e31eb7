//! Requests of the container runtime.

use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::inspect::Glance;
use buoy_daemon::metrics::{Counters, Histograms, histograms, register, seconds, slow, whole};

/// Label of a request that was answered without an error.
const NO_ERROR: u32 = 0;

/// What is counted of requests and workloads.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    requests: Counters<2>,
    request_seconds: Histograms<1>,
    waiting: Gauge,
    workloads: Gauge,
}

impl Counts {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let r = registry;
        Self {
            requests: register(
                r,
                "cni_requests",
                "Requests of CNI plugins and of buoyctl, by the CNI error code that was answered; 0 is success",
                Counters::default(),
            ),
            request_seconds: register(
                r,
                "cni_request_duration_seconds",
                "How long requests of CNI plugins and of buoyctl took",
                histograms(slow),
            ),
            waiting: register(
                r,
                "cni_requests_waiting",
                "Requests of CNI plugins that are not answered yet",
                Gauge::default(),
            ),
            workloads: register(
                r,
                "workloads",
                "Interfaces of workloads that this node has or makes",
                Gauge::default(),
            ),
        }
    }

    /// Counts a request that was answered: with an error of this code, or without.
    pub(crate) fn answered(&self, command: &'static str, code: Option<u32>, took: Duration) {
        let code = code.unwrap_or(NO_ERROR).to_string();
        let labels = [("command", command.into()), ("code", code.into())];
        self.requests.get_or_create(&labels).inc();
        let of_command = [("command", command.into())];
        self.request_seconds
            .get_or_create(&of_command)
            .observe(seconds(took));
    }

    pub(super) fn show(&self, glance: &Glance) {
        self.waiting.set(whole(glance.waiting));
        self.workloads.set(whole(glance.workloads));
    }
}
