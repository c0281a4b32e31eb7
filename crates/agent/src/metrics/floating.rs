//! Floating IPs of this node, and the lease that they rest on.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::inspect::Glance;
use buoy_daemon::metrics::{Counters, Gauges, register, seconds, whole};

/// What is counted of floating IPs and leases.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    requests: Gauges<1>,
    changes: Counters<1>,
    events: Counters<1>,
    lease_held: Gauge,
    lease_age: Gauge<f64, AtomicU64>,
    lease_term: Gauge<u64, AtomicU64>,
    /// Leases of other nodes that this agent revoked.
    pub(crate) revocations: Counter,
    /// Times that this node's lease was revoked by others.
    pub(crate) revoked: Counter,
}

impl Counts {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let r = registry;
        Self {
            requests: register(
                r,
                "floating_ips",
                "Requests of this node's workloads for floating IPs, by how they stand",
                Gauges::default(),
            ),
            changes: register(
                r,
                "floating_ip_changes",
                "Changes of how requests for floating IPs stand",
                Counters::default(),
            ),
            events: register(
                r,
                "events",
                "What was to be told to the people of workloads, by what came of it",
                Counters::default(),
            ),
            lease_held: register(
                r,
                "lease_held",
                "Whether this node holds its lease and nobody can have revoked it",
                Gauge::default(),
            ),
            lease_age: register(
                r,
                "lease_age_seconds",
                "Time since this node's lease was renewed; 0 without one",
                Gauge::default(),
            ),
            lease_term: register(
                r,
                "lease_term",
                "Term of this node's lease; 0 without one",
                Gauge::default(),
            ),
            revocations: register(
                r,
                "lease_revocations",
                "Leases of other nodes that this node revoked because nobody renewed them",
                Counter::default(),
            ),
            revoked: register(
                r,
                "lease_losses",
                "Times that this node's lease was revoked by another",
                Counter::default(),
            ),
        }
    }

    /// Counts that a request stands differently now.
    pub(crate) fn changed(&self, change: &'static str) {
        self.changes.get_or_create(&[("change", change.into())]).inc();
    }

    /// Counts that something was told, or was not.
    pub(crate) fn told(&self, outcome: &'static str) {
        self.events.get_or_create(&[("outcome", outcome.into())]).inc();
    }

    pub(super) fn show(&self, glance: &Glance) {
        let requests = glance.floating;
        let states = [
            ("owned", requests.owned - requests.unconfirmed),
            ("unconfirmed", requests.unconfirmed),
            ("standby", requests.standby),
            ("refused", requests.refused),
            ("undecided", requests.undecided),
        ];
        for (state, number) in states {
            let labels = [("state", state.into())];
            self.requests.get_or_create(&labels).set(whole(number));
        }
        self.lease_held.set(i64::from(glance.lease.is_live));
        self.lease_age.set(seconds(glance.lease.age));
        self.lease_term.set(glance.lease.term);
    }
}
