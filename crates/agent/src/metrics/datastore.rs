//! Contact with the datastore: operations on it, what comes of them, and duties.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use buoy_core::store::Delta;
use buoy_daemon::measured::Operations;
use buoy_daemon::metrics::{Counters, Gauges, Histograms, histograms, register, seconds, slow, whole};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::inputs::Outcome;
use crate::inspect::Glance;

/// A gauge of seconds.
type Seconds = Gauge<f64, AtomicU64>;

/// What is counted of the datastore.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    /// Operations on it.
    pub(crate) operations: Operations,
    changes: Counters<1>,
    /// Contact was lost.
    pub(crate) losses: Counter,
    /// It was restored from a copy.
    pub(crate) restores: Counter,
    duties: Counters<2>,
    duty_seconds: Histograms<1>,
    up: Gauge,
    synced: Gauge,
    sync_age: Seconds,
    hold: Seconds,
    refusing: Gauge,
    unreadable: Gauge,
    owed: Gauges<1>,
}

impl Counts {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let r = registry;
        Self {
            operations: Operations::register(r),
            changes: register(
                r,
                "datastore_watch_events",
                "Changes of records that were followed",
                Counters::default(),
            ),
            losses: register(
                r,
                "datastore_contact_losses",
                "Times that contact with the datastore was lost",
                Counter::default(),
            ),
            restores: register(
                r,
                "datastore_restores",
                "Times that the datastore was found to have been restored from a copy",
                Counter::default(),
            ),
            duties: register(
                r,
                "duties",
                "Pieces of work on the datastore, by what came of them",
                Counters::default(),
            ),
            duty_seconds: register(
                r,
                "duty_duration_seconds",
                "How long pieces of work on the datastore took",
                histograms(slow),
            ),
            up: register(
                r,
                "datastore_up",
                "Whether the datastore answers",
                Gauge::default(),
            ),
            synced: register(
                r,
                "datastore_synced",
                "Whether all records were read at least once",
                Gauge::default(),
            ),
            sync_age: register(
                r,
                "datastore_sync_age_seconds",
                "How long what is known of the datastore may be out of date; 0 in contact",
                Seconds::default(),
            ),
            hold: register(
                r,
                "datastore_hold_seconds",
                "For how long nothing is allocated yet because the datastore was restored from a copy",
                Seconds::default(),
            ),
            refusing: register(
                r,
                "datastore_writes_failing",
                "Whether writes fail, and have for some seconds",
                Gauge::default(),
            ),
            unreadable: register(
                r,
                "records_unreadable",
                "Records that do not decode",
                Gauge::default(),
            ),
            owed: register(
                r,
                "duties_owed",
                "Pieces of work on the datastore that are under way, or that failed and are tried again",
                Gauges::default(),
            ),
        }
    }

    /// Counts a change of a record.
    pub(crate) fn changed(&self, delta: &Delta) {
        let change = match &delta.value {
            Some(Ok(_)) => "put",
            Some(Err(_)) => "unreadable",
            None => "delete",
        };
        self.changes.get_or_create(&[("change", change.into())]).inc();
    }

    /// Counts a duty that ended.
    pub(crate) fn performed(&self, kind: &'static str, outcome: &Outcome, took: Duration) {
        let outcome = match outcome {
            Outcome::Failed(_) | Outcome::Assigned(Err(_)) => "failed",
            _ => "done",
        };
        let labels = [("kind", kind.into()), ("outcome", outcome.into())];
        self.duties.get_or_create(&labels).inc();
        let of_kind = [("kind", kind.into())];
        self.duty_seconds.get_or_create(&of_kind).observe(seconds(took));
    }

    pub(super) fn show(&self, glance: &Glance) {
        self.up.set(i64::from(glance.lost.is_none() && glance.synced));
        self.synced.set(i64::from(glance.synced));
        self.sync_age.set(seconds(glance.sync_age));
        self.hold.set(seconds(glance.hold));
        self.refusing.set(i64::from(glance.refused.is_some()));
        self.unreadable.set(whole(glance.unreadable));
        let states = [
            ("running", glance.duties_running),
            ("failed", glance.duties_failed),
        ];
        for (state, number) in states {
            let labels = [("state", state.into())];
            self.owed.get_or_create(&labels).set(whole(number));
        }
    }
}
