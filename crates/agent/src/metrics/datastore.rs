//! Contact with the datastore: requests to it, what comes of them, and duties.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use buoy_core::news::Note;
use buoy_core::store::{Delta, FailureKind, Prefix, Reply, Revision, StoreError, StoreOp};
use buoy_core::time::Mono;
use buoy_datastore::{Datastore, Requests, Watch, WatchError};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Counters, Gauges, Histograms, histograms, register, seconds, slow, whole};
use crate::clock;
use crate::inputs::Outcome;
use crate::inspect::Glance;

/// A gauge of seconds.
type Seconds = Gauge<f64, AtomicU64>;

/// What is counted of the datastore.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    requests: Counters<3>,
    request_seconds: Histograms<2>,
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
            requests: register(
                r,
                "datastore_requests",
                "Operations on the datastore, by what came of them",
                Counters::default(),
            ),
            request_seconds: register(
                r,
                "datastore_request_duration_seconds",
                "How long operations on the datastore took",
                histograms(slow),
            ),
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

    /// Counts an operation on the store.
    pub(super) fn requested(
        &self,
        backend: &'static str,
        verb: &'static str,
        result: &'static str,
        took: Duration,
    ) {
        let request = [("backend", backend.into()), ("verb", verb.into())];
        let [backend, verb] = request.clone();
        let labels = [backend, verb, ("result", result.into())];
        self.requests.get_or_create(&labels).inc();
        self.request_seconds
            .get_or_create(&request)
            .observe(seconds(took));
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

/// Since when no write has succeeded, if one failed.
#[derive(Clone, Debug)]
struct Failing {
    since: Mono,
    last: Mono,
    error: String,
}

/// A store that counts what it is asked, and remembers whether writes succeed.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    store: Arc<dyn Datastore>,
    backend: &'static str,
    counts: Counts,
    failing: Arc<Mutex<Option<Failing>>>,
}

/// How long writes must have failed to be worth telling.
const WORTH_TELLING: Duration = Duration::from_secs(5);
/// Failures are forgotten after this time without another: what failed may not be owed any more. Longer than the longest
/// pause of a duty that fails.
const FORGOTTEN: Duration = Duration::from_secs(60);

impl Measured {
    /// Measures a store.
    pub(crate) fn new(store: Arc<dyn Datastore>, counts: Counts) -> Self {
        let backend = match store.name().split_once(':') {
            Some(("sqlite", _)) => "sqlite",
            Some(("etcd", _)) => "etcd",
            Some(("kubernetes", _)) => "kubernetes",
            _ => "other",
        };
        Self {
            store,
            backend,
            counts,
            failing: Arc::default(),
        }
    }

    /// Why writes fail, if they have for a while and none succeeded since.
    pub(crate) fn refuses(&self, now: Mono) -> Option<String> {
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let told = failing.as_ref().filter(|failing| {
            failing.last.since(failing.since) >= WORTH_TELLING && now.since(failing.last) < FORGOTTEN
        });
        told.map(|failing| failing.error.clone())
    }

    fn note(&self, verb: &'static str, result: &'static str, begun: Instant) {
        self.counts.requested(self.backend, verb, result, begun.elapsed());
    }

    fn note_write(&self, reply: &Reply) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match reply {
            // One that is wrong in itself says nothing of the store.
            Reply::Failed(error) if error.kind != FailureKind::Invalid => {
                let now = clock::mono();
                let since = failing
                    .as_ref()
                    .filter(|failing| now.since(failing.last) < FORGOTTEN)
                    .map_or(now, |failing| failing.since);
                *failing = Some(Failing {
                    since,
                    last: now,
                    error: error.to_string(),
                });
            }
            Reply::Written(_) | Reply::Deleted => *failing = None,
            _ => {}
        }
    }
}

impl Datastore for Measured {
    fn name(&self) -> &str {
        self.store.name()
    }

    fn run(&self, op: &StoreOp) -> Reply {
        let begun = Instant::now();
        let reply = self.store.run(op);
        let verb = verb(op);
        self.note(verb, result(&reply), begun);
        if !matches!(op, StoreOp::Get(_) | StoreOp::List(_)) {
            self.note_write(&reply);
        }
        reply
    }

    fn watch(&self, interest: &[(Prefix, Revision)]) -> Result<Box<dyn Watch>, WatchError> {
        let begun = Instant::now();
        let watch = self.store.watch(interest);
        let result = if watch.is_ok() { "ok" } else { "failed" };
        self.note("watch", result, begun);
        watch
    }

    fn tell(&self, note: &Note) -> Result<(), StoreError> {
        self.store.tell(note)
    }

    fn replaced(&self) -> u64 {
        self.store.replaced()
    }

    fn accept(&self, replaced: u64) {
        self.store.accept(replaced);
    }

    fn requests(&self) -> Requests {
        self.store.requests()
    }
}

fn verb(op: &StoreOp) -> &'static str {
    match op {
        StoreOp::Get(_) => "get",
        StoreOp::List(_) => "list",
        StoreOp::Create(..) => "create",
        StoreOp::Update(..) => "update",
        StoreOp::Delete(..) => "delete",
        StoreOp::Apply(..) => "apply",
    }
}

fn result(reply: &Reply) -> &'static str {
    match reply {
        Reply::Conflict => "conflict",
        Reply::Unknown => "unknown",
        Reply::Failed(_) => "failed",
        Reply::Start | Reply::Record(_) | Reply::List(..) | Reply::Written(_) | Reply::Deleted => "ok",
    }
}
