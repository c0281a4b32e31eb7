//! A store that counts what it is asked.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use buoy_core::news::Note;
use buoy_core::store::{FailureKind, Prefix, Reply, Revision, StoreError, StoreOp};
use buoy_core::time::Mono;
use buoy_datastore::{Datastore, History, Requests, Watch, WatchError};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;

use crate::metrics::{Counters, Histograms, histograms, register, seconds, slow};

/// What is counted of operations on a store.
#[derive(Clone, Debug)]
pub struct Operations {
    requests: Counters<3>,
    request_seconds: Histograms<2>,
    sent: Sent,
}

/// What the store has asked its server, counted by itself and read when somebody wants to know.
#[derive(Clone, Debug, Default)]
struct Sent(Arc<OnceLock<Arc<dyn Datastore>>>);

impl Collector for Sent {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let sent = self.0.get().map(|store| store.requests()).unwrap_or_default();
        if sent.is_empty() {
            return Ok(());
        }
        let name = "datastore_server_requests";
        let help = "Requests to the datastore's server, by verb and resource.";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for ((verb, resource), count) in sent {
            let labels = [("verb", verb), ("resource", &resource)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl Operations {
    /// Nothing is counted yet.
    pub fn register(registry: &mut Registry) -> Self {
        let sent = Sent::default();
        registry.register_collector(Box::new(sent.clone()));
        Self {
            sent,
            requests: register(
                registry,
                "datastore_requests",
                "Operations on the datastore, by what came of them",
                Counters::default(),
            ),
            request_seconds: register(
                registry,
                "datastore_request_duration_seconds",
                "How long operations on the datastore took",
                histograms(slow),
            ),
        }
    }

    /// Counts an operation.
    pub fn ran(&self, backend: &'static str, verb: &'static str, result: &'static str, took: Duration) {
        let request = [("backend", backend.into()), ("verb", verb.into())];
        let [backend, verb] = request.clone();
        let labels = [backend, verb, ("result", result.into())];
        self.requests.get_or_create(&labels).inc();
        self.request_seconds
            .get_or_create(&request)
            .observe(seconds(took));
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
pub struct Measured {
    store: Arc<dyn Datastore>,
    backend: &'static str,
    counts: Operations,
    failing: Arc<Mutex<Option<Failing>>>,
}

/// How long writes must have failed to be worth telling.
const WORTH_TELLING: Duration = Duration::from_secs(5);
/// Failures are forgotten after this time without another: what failed may not be owed any more. Longer than the longest
/// pause of a duty that fails.
const FORGOTTEN: Duration = Duration::from_secs(60);

impl Measured {
    /// Measures a store.
    pub fn new(store: Arc<dyn Datastore>, counts: Operations) -> Self {
        let backend = match store.name().split_once(':') {
            Some(("sqlite", _)) => "sqlite",
            Some(("etcd", _)) => "etcd",
            Some(("kubernetes", _)) => "kubernetes",
            _ => "other",
        };
        counts.sent.0.get_or_init(|| store.clone());
        Self {
            store,
            backend,
            counts,
            failing: Arc::default(),
        }
    }

    /// Why writes fail, if they have for a while and none succeeded since.
    pub fn refuses(&self, now: Mono) -> Option<String> {
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let told = failing.as_ref().filter(|failing| {
            failing.last.since(failing.since) >= WORTH_TELLING && now.since(failing.last) < FORGOTTEN
        });
        told.map(|failing| failing.error.clone())
    }

    fn note(&self, verb: &'static str, result: &'static str, begun: Instant) {
        self.counts.ran(self.backend, verb, result, begun.elapsed());
    }

    fn note_write(&self, reply: &Reply) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match reply {
            // One that is wrong in itself says nothing of the store.
            Reply::Failed(error) if error.kind != FailureKind::Invalid => {
                let now = crate::clock::mono();
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

    fn history(&self) -> Option<&History> {
        self.store.history()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that has sent requests.
    #[derive(Debug)]
    struct Asked(Requests);

    impl Datastore for Asked {
        fn name(&self) -> &str {
            "kubernetes:/a"
        }

        fn run(&self, _: &StoreOp) -> Reply {
            Reply::Unknown
        }

        fn watch(&self, _: &[(Prefix, Revision)]) -> Result<Box<dyn Watch>, WatchError> {
            Err(WatchError::Compacted)
        }

        fn requests(&self) -> Requests {
            self.0.clone()
        }
    }

    fn shown(requests: Requests) -> String {
        let mut registry = crate::metrics::registry();
        let operations = Operations::register(&mut registry);
        let _measured = Measured::new(Arc::new(Asked(requests)), operations);
        crate::metrics::text(&registry).unwrap()
    }

    #[test]
    fn what_a_store_sent_is_shown_with_one_line_for_each_resource() {
        let text = shown(Requests::from([
            (("get", "pods".to_owned()), 3),
            (("update", "ipamblocks".to_owned()), 2),
        ]));
        for line in [
            r#"buoy_datastore_server_requests_total{verb="get",resource="pods"} 3"#,
            r#"buoy_datastore_server_requests_total{verb="update",resource="ipamblocks"} 2"#,
        ] {
            assert!(text.lines().any(|said| said == line), "{text}");
        }
        let types = text.matches("# TYPE buoy_datastore_server_requests_total counter");
        assert_eq!(types.count(), 1, "{text}");
    }

    #[test]
    fn a_store_without_a_server_shows_none() {
        assert!(!shown(Requests::new()).contains("server_requests"));
    }
}
