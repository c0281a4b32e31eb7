//! The Kubernetes API: Calico's custom resources, Buoy's own, and what Kubernetes has anyway.
//!
//! Invariants: a write is one request, on the `resourceVersion` that it was meant for; where its answer is lost the reply
//! says so; a list is of one revision, however many pages it takes; one object that cannot be read hides no other; nothing is
//! written into a store that turned out to be restored from a copy, until whoever follows it knows.
//! Revisions are those of the store behind the API server, and rise through all kinds of objects.
//!
//! What is special: an update that changes nothing is no write, and answers with the revision that stands; what happened
//! before the first list is not to be had by a watch.
//!
//! Not here: what objects look like (`codec::objects`), trying again, custom resources' definitions (`deploy/crds`).

mod api;
mod events;
mod pace;
mod proxies;
mod read;
mod seen;
mod settings;
mod standing;
mod survey;
mod trouble;
mod watch;
mod write;

use std::sync::Arc;
use std::time::Duration;

use buoy_core::news::Note;
use buoy_core::store::{FailureKind, Key, Prefix, Reply, Revision, StoreError, StoreOp};

use crate::cause::Cause;
use crate::codec::objects::Layout;
use crate::history::History;
use crate::threads::Threads;
use crate::{Datastore, Requests, Watch, WatchError, answer};
use api::Api;
use seen::Seen;
use settings::Settings;
use standing::Standing;
pub use survey::Policies;
use trouble::Trouble;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long the API server has to answer.
    pub timeout: Duration,
    /// Silence after which a watch is given up; longer than the minute in which the server says once how far it is.
    pub silence: Duration,
    /// Lists and watches of endpoints leave out those of other nodes: there are many, and an agent needs none of them.
    pub node: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            silence: Duration::from_secs(100),
            node: None,
        }
    }
}

/// A store in the Kubernetes API.
#[derive(Debug)]
pub struct Kubernetes {
    shared: Arc<Shared>,
}

/// What a store and its watches have in common.
#[derive(Debug)]
struct Shared {
    name: String,
    layout: Layout,
    api: Api,
    standing: Standing,
    seen: Seen,
    threads: Threads,
}

impl Kubernetes {
    /// Prepares a client for the API server that a URL names, with what it leaves out from the environment. Does not
    /// connect yet: a client may begin before its store.
    pub fn open(
        url: &str,
        env: impl Fn(&str) -> Option<String>,
        options: Options,
    ) -> Result<Self, StoreError> {
        let settings = Settings::parse(url, env).map_err(|message| StoreError {
            kind: FailureKind::Invalid,
            message,
        })?;
        let threads = Threads::start("kubernetes").map_err(|error| StoreError {
            kind: FailureKind::Unavailable,
            message: format!(
                "no threads for the client of Kubernetes: {error}\nraise the limit on this user's processes"
            ),
        })?;
        Ok(Self {
            shared: Arc::new(Shared {
                name: settings.name.clone(),
                layout: Layout {
                    calico: settings.calico,
                    namespace: settings.namespace.clone(),
                    node: options.node,
                },
                api: Api::new(settings, options.timeout, options.silence),
                standing: Standing::default(),
                seen: Seen::default(),
                threads,
            }),
        })
    }
}

impl Datastore for Kubernetes {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn run(&self, op: &StoreOp) -> Reply {
        let shared = &self.shared;
        let write = |key: &Key, op: &StoreOp| shared.write(key, op);
        answer(op, |key| shared.get(key), |prefix| shared.list(prefix), write)
    }

    fn tell(&self, note: &Note) -> Result<(), StoreError> {
        self.shared.tell(note)
    }

    fn watch(&self, interest: &[(Prefix, Revision)]) -> Result<Box<dyn Watch>, WatchError> {
        Ok(Box::new(watch::KubernetesWatch::begin(
            Arc::clone(&self.shared),
            interest,
        )?))
    }

    fn history(&self) -> Option<&History> {
        Some(&self.shared.standing.history)
    }

    fn accept(&self, replaced: u64) {
        self.shared.seen.clear();
        self.shared.standing.history.accept(replaced);
    }

    fn requests(&self) -> Requests {
        self.shared.api.sent()
    }
}

impl Shared {
    fn error(&self, trouble: Trouble) -> StoreError {
        trouble.cause().of(&self.name)
    }

    fn watch_error(&self, trouble: Trouble) -> WatchError {
        match trouble {
            Trouble::Gone => WatchError::Compacted,
            trouble => WatchError::Store(self.error(trouble)),
        }
    }

    fn invalid(&self, reason: &dyn std::fmt::Display) -> StoreError {
        Cause::invalid(reason).of(&self.name)
    }
}
