//! One trait over every datastore, and its backends.
//!
//! Invariants: an operation happens whole or not at all; every write has a revision of its own, higher than all before
//! it; a watch gives every change of a prefix after its revision once, in order, or says that it cannot. A record that
//! does not decode is handed on as such and hides no other. Nothing here retries for its caller beyond a short wait for
//! a lock.
//!
//! Not here: what is written and when (`buoy-core`). Keys and JSON are known to [`codec`] alone.

mod ask;
mod backoff;
mod cause;
mod certificate;
pub mod codec;
mod environment;
pub mod etcd;
mod follow;
mod history;
pub mod kubernetes;
mod moment;
mod open;
mod redact;
pub mod sqlite;
mod threads;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use buoy_core::news::Note;
use buoy_core::store::{Key, Next, Prefix, Record, Reply, Revision, Steps, StoreError, StoreOp};

pub use ask::{get, list};
pub use follow::{Feed, follow};
pub use history::{History, Mark};
pub use open::{default_url, open, open_for};

/// A store of records with compare-and-swap and watches. Shared by threads; every call blocks.
pub trait Datastore: Send + Sync + Debug {
    /// How messages call it, for example `sqlite:///var/lib/buoy/buoy.db`.
    fn name(&self) -> &str;

    /// Runs one operation. Never answers [`Reply::Start`].
    fn run(&self, op: &StoreOp) -> Reply;

    /// Begins to watch: every change of a record of each prefix with a revision above the one beside it.
    fn watch(&self, interest: &[(Prefix, Revision)]) -> Result<Box<dyn Watch>, WatchError>;

    /// Tells people what happened to a workload, where they look for it. A store that has no place for that does nothing.
    fn tell(&self, _note: &Note) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whether it is the store that it was; nothing where nobody can tell.
    fn history(&self) -> Option<&History> {
        None
    }

    /// How often it was found to be another than before: restored from a copy, or made anew in its place. Nothing is written
    /// into another one before it was [accepted](Self::accept).
    fn replaced(&self) -> u64 {
        self.history().map_or(0, History::replaced)
    }

    /// It is known that it was replaced so often.
    fn accept(&self, replaced: u64) {
        if let Some(history) = self.history() {
            history.accept(replaced);
        }
    }

    /// Which store it is, as far as that is known: what the next process should [recall](Self::recall).
    fn mark(&self) -> Option<Mark> {
        self.history()?.mark()
    }

    /// An earlier process knew it to be this. To be said before anything is asked: one that was restored since is then found
    /// to be another.
    fn recall(&self, mark: &Mark) {
        if let Some(history) = self.history() {
            history.recall(mark);
        }
    }

    /// What was asked of a server so far; nothing where nobody counts.
    fn requests(&self) -> Requests {
        Requests::new()
    }
}

/// How many requests were sent, by verb and resource.
pub type Requests = BTreeMap<(&'static str, String), u64>;

/// Changes as they come.
pub trait Watch: Send + Debug {
    /// The next changes; a bounded number at a time. Those of one prefix come in order of their revisions; between
    /// prefixes there is no order. Waits at most `timeout` for the first of them, and then answers with nothing.
    ///
    /// After an error the watch is of no more use; another one may begin at what was [reached](Watch::reached).
    fn next(&mut self, timeout: Duration) -> Result<Vec<Event>, WatchError>;

    /// Up to where the changes of each prefix have been given, in the order of the interest. Also rises while nothing
    /// changes, where the store tells.
    fn reached(&self) -> Vec<Revision>;
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are records")]
pub enum Event {
    /// A record was written.
    Put(Record),
    /// A record was deleted, by the write of this revision.
    Deleted(Key, Revision),
}

impl Event {
    /// Revision of the change.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(record) => record.revision,
            Self::Deleted(_, revision) => *revision,
        }
    }
}

/// Why a watch ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The store does not know what happened since that revision: list again.
    #[error("the changes since this revision are no longer kept")]
    Compacted,
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl WatchError {
    /// Whether the records must be listed again.
    pub fn is_compacted(&self) -> bool {
        matches!(self, Self::Compacted)
    }
}

/// What comes of an operation, by the three things that every store can do.
fn answer(
    op: &StoreOp,
    get: impl FnOnce(&Key) -> Result<Reply, StoreError>,
    list: impl FnOnce(&Prefix) -> Result<Reply, StoreError>,
    write: impl FnOnce(&Key, &StoreOp) -> Result<Reply, StoreError>,
) -> Reply {
    let result = match op {
        StoreOp::Get(key) => get(key),
        StoreOp::List(prefix) => list(prefix),
        StoreOp::Create(key, _)
        | StoreOp::Update(key, ..)
        | StoreOp::Delete(key, _)
        | StoreOp::Apply(key, ..) => write(key, op),
    };
    result.unwrap_or_else(Reply::Failed)
}

/// Runs a protocol to its end.
pub fn drive<S: Steps>(store: &dyn Datastore, mut machine: S) -> S::Out {
    let mut reply = Reply::Start;
    loop {
        match machine.step(reply) {
            Next::Do(op) => reply = store.run(&op),
            Next::Done(out) => return out,
        }
    }
}
