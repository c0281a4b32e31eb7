//! The loop, the kernel and the routing daemon.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use buoy_kernel::Family;
use buoy_kernel::nft::Counter as Packets;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::inputs::Applied;
use crate::inspect::Glance;
use buoy_daemon::metrics::{Counters, Gauges, fast, register, seconds, slow, whole};

/// What is counted of this node.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    ready: Gauge,
    answers: Gauge,
    turns: Histogram,
    queued: Gauges<1>,
    plans: Histogram,
    applies: Histogram,
    operations: Counters<2>,
    rows_failed: Gauge,
    resyncs: Counters<1>,
    /// Somebody else changed what this agent programs.
    pub(crate) foreign: Counter,
    packets: Counters<2>,
    bird_up: Gauge,
    /// BIRD was started.
    pub(crate) bird_starts: Counter,
    sessions: Gauges<1>,
}

impl Counts {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let r = registry;
        let version = [("version", crate::VERSION)];
        r.register("build", "The agent's version", Info::new(version));
        Self {
            ready: register(
                r,
                "ready",
                "Whether the agent is ready, as /readyz says",
                Gauge::default(),
            ),
            answers: register(
                r,
                "loop_answers",
                "Whether the agent's loop answers; while it does not, gauges are as they were",
                Gauge::default(),
            ),
            turns: register(
                r,
                "loop_turn_duration_seconds",
                "How long turns of the agent's loop took",
                fast(),
            ),
            queued: register(r, "queue_depth", "What waits in a queue", Gauges::default()),
            plans: register(
                r,
                "plan_duration_seconds",
                "How long it took to find what the kernel lacks",
                fast(),
            ),
            applies: register(
                r,
                "apply_duration_seconds",
                "How long it took to carry out a plan",
                slow(),
            ),
            operations: register(
                r,
                "operations",
                "Operations on the kernel and on BIRD, by what came of them",
                Counters::default(),
            ),
            rows_failed: register(
                r,
                "rows_failed",
                "What should be in the kernel and could not be programmed",
                Gauge::default(),
            ),
            resyncs: register(
                r,
                "kernel_resyncs",
                "Times that the kernel was read back whole",
                Counters::default(),
            ),
            foreign: register(
                r,
                "kernel_foreign_changes",
                "Times that somebody else changed what this agent programs",
                Counter::default(),
            ),
            packets: register(
                r,
                "dropped_packets",
                "Packets that were dropped: from an address that is not the workload's, or to a floating IP untranslated",
                Counters::default(),
            ),
            bird_up: register(
                r,
                "bird_up",
                "Whether BIRD answers and announces; 1 where somebody else announces",
                Gauge::default(),
            ),
            bird_starts: register(
                r,
                "bird_starts",
                "Times that BIRD was started",
                Counter::default(),
            ),
            sessions: register(
                r,
                "bgp_sessions",
                "BGP sessions that BIRD has, by state",
                Gauges::default(),
            ),
        }
    }

    /// Notes whether the loop answered.
    pub(crate) fn answered(&self, does: bool) {
        self.answers.set(i64::from(does));
    }

    /// Counts a turn of the loop.
    pub(crate) fn turned(&self, took: Duration) {
        self.turns.observe(seconds(took));
    }

    /// Counts a plan that was calculated.
    pub(crate) fn planned(&self, took: Duration) {
        self.plans.observe(seconds(took));
    }

    /// Counts a plan that was carried out.
    pub(crate) fn applied(&self, results: &[Applied], took: Duration) {
        self.applies.observe(seconds(took));
        for Applied { op, result } in results {
            let outcome = if result.is_ok() { "done" } else { "failed" };
            let labels = [("kind", op.kind().into()), ("outcome", outcome.into())];
            self.operations.get_or_create(&labels).inc();
        }
    }

    /// Counts that the kernel was read back, or could not be.
    pub(crate) fn read(&self, is_read: bool) {
        let outcome = if is_read { "done" } else { "failed" };
        self.resyncs.get_or_create(&[("outcome", outcome.into())]).inc();
    }

    /// Takes over what the packet filter counted.
    pub(crate) fn dropped(&self, counters: &BTreeMap<(Family, String), Packets>) {
        for ((family, name), counter) in counters {
            let family = match family {
                Family::V4 => "ipv4",
                Family::V6 => "ipv6",
            };
            let labels = [("family", family.into()), ("reason", name.clone().into())];
            let packets = self.packets.get_or_create(&labels);
            packets.inner().store(counter.packets, Ordering::Relaxed);
        }
    }

    pub(super) fn show(&self, glance: &Glance) {
        self.ready.set(i64::from(glance.unready.is_empty()));
        self.rows_failed.set(whole(glance.rows_failed));
        for (queue, depth) in &glance.queues {
            let labels = [("queue", (*queue).into())];
            self.queued.get_or_create(&labels).set(whole(*depth));
        }
        self.bird_up.set(i64::from(glance.can_announce));
        let established = glance.sessions_established;
        let states = [
            ("established", established),
            ("down", glance.sessions.saturating_sub(established)),
        ];
        for (state, number) in states {
            let labels = [("state", state.into())];
            self.sessions.get_or_create(&labels).set(whole(number));
        }
    }
}
