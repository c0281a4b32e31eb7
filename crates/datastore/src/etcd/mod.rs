//! An etcd of version 3: keys and values as Calico keeps them there.
//!
//! Invariants: a write is one transaction on the revision that it was meant for; where its answer is lost the reply says
//! so; what is read is what the quorum knows; a list is of one revision, however many pages it takes; nothing is written into
//! a cluster that turned out to be restored from a copy, until whoever follows it knows.
//!
//! Not here: trying again. Where a member fails the next one is asked, once each, and then the caller is told.

mod members;
mod read;
mod settings;
mod trouble;
mod watch;
mod write;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use buoy_core::store::{FailureKind, Key, Prefix, Reply, Revision, StoreError, StoreOp};
use etcd_client::ResponseHeader;

use crate::cause::Cause;
use crate::history::History;
use crate::threads::Threads;
use crate::{Datastore, Watch, WatchError, answer};
use members::Members;
use settings::Settings;
use trouble::Trouble;

/// How a client behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long a member has to answer. A request takes at most twice as long, however many members are asked; a list of several
    /// pages is several requests.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(3),
        }
    }
}

/// A store in an etcd.
#[derive(Debug)]
pub struct Etcd {
    shared: Arc<Shared>,
}

/// What a store and its watches have in common.
#[derive(Debug)]
struct Shared {
    name: String,
    options: Options,
    members: Members,
    history: History,
    threads: Threads,
}

impl Etcd {
    /// Prepares a client for the etcd that a URL names, with what it leaves out from Calico's environment variables.
    /// Does not connect yet: a client may begin before its store.
    pub fn open(
        url: &str,
        env: impl Fn(&str) -> Option<String>,
        options: Options,
    ) -> Result<Self, StoreError> {
        let settings = Settings::parse(url, env).map_err(|message| StoreError {
            kind: FailureKind::Invalid,
            message,
        })?;
        let threads = Threads::start("etcd").map_err(|error| StoreError {
            kind: FailureKind::Unavailable,
            message: format!(
                "no threads for the client of etcd: {error}\nraise the limit on this user's processes"
            ),
        })?;
        let first = RandomState::new().hash_one(()) % 1024;
        Ok(Self {
            shared: Arc::new(Shared {
                name: settings.name(),
                options,
                members: Members::new(settings, options, usize::try_from(first).unwrap_or(0)),
                history: History::default(),
                threads,
            }),
        })
    }
}

impl Datastore for Etcd {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn run(&self, op: &StoreOp) -> Reply {
        let shared = &self.shared;
        let write = |key: &Key, op: &StoreOp| shared.write(key, op);
        answer(op, |key| shared.get(key), |prefix| shared.list(prefix), write)
    }

    fn watch(&self, interest: &[(Prefix, Revision)]) -> Result<Box<dyn Watch>, WatchError> {
        Ok(Box::new(watch::EtcdWatch::begin(
            Arc::clone(&self.shared),
            interest,
        )?))
    }

    fn history(&self) -> Option<&History> {
        Some(&self.shared.history)
    }
}

impl Shared {
    /// Takes in what an answer says of the store. The request began when that was there.
    fn heard(&self, header: Option<&ResponseHeader>, began: Revision) {
        if let Some(header) = header {
            let at = read::revision(header.revision());
            let cluster = format!("{:x}", header.cluster_id());
            self.history.heard(Some(&cluster), at, began);
        }
    }

    fn error(&self, trouble: Trouble) -> StoreError {
        trouble.cause().of(&self.name)
    }

    fn watch_error(&self, trouble: Trouble) -> WatchError {
        match trouble {
            Trouble::Compacted => WatchError::Compacted,
            trouble => WatchError::Store(self.error(trouble)),
        }
    }

    fn invalid(&self, reason: &dyn std::fmt::Display) -> StoreError {
        Cause::invalid(reason).of(&self.name)
    }
}
