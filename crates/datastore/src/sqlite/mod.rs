//! The embedded store: one SQLite file, any number of processes on it.
//!
//! Two tables. `kv` holds each record as it is, `log` every change with its revision; a write puts a row into both in
//! one transaction, and the revision is the row's number in the log. So revisions have no gaps and one order in all
//! processes, a watch is a place in the log, and what has been compacted is what the log no longer begins with.
//!
//! Invariants: a write that was answered survives the death of any process (not a power cut:
//! `docs/decisions/0005-sqlite-synchronous.md`); readers never wait for writers.

mod connection;
mod error;
mod read;
mod seat;
mod wake;
mod watch;
mod write;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io};

use buoy_core::store::{FailureKind, Key, Prefix, Reply, Revision, StoreError, StoreOp};
use rusqlite::Connection;

use crate::cause::Cause;
use crate::history::History;
use crate::{Datastore, Watch, WatchError, answer};
use error::{cannot_make, failure, is_busy, replaced};
use seat::Seat;
use wake::Bell;

/// Version of the tables. A store of a higher one is refused.
pub const SCHEMA: i32 = 1;

/// How a store behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long an operation waits for a lock before it fails as unavailable.
    pub busy_timeout: Duration,
    /// Number of newest changes that are kept for watches; at least 1.
    pub keep: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            busy_timeout: Duration::from_secs(2),
            keep: 10_000,
        }
    }
}

/// A store in an SQLite file.
#[derive(Debug)]
pub struct Sqlite {
    shared: Arc<Shared>,
}

/// What a store and its watches have in common.
#[derive(Debug)]
struct Shared {
    path: PathBuf,
    name: String,
    /// Known once the file was found to be a store.
    place: OnceLock<Place>,
    options: Options,
    writer: Seat<Option<Connection>>,
    readers: Mutex<Vec<Connection>>,
    bell: Bell,
    history: History,
}

/// Idle connections that are kept for readers.
const IDLE_READERS: usize = 4;

impl Sqlite {
    /// Opens the store, and makes it (and its directory) if it is not there. If others have it locked all the while, the
    /// next operation opens it: whoever can wait for a store goes on as with any other that does not answer yet.
    pub fn open(path: &Path, options: Options) -> Result<Self, StoreError> {
        let shared = Shared {
            path: path.to_owned(),
            name: format!("sqlite://{}", path.display()),
            place: OnceLock::new(),
            writer: Seat::new(None),
            readers: Mutex::new(Vec::new()),
            bell: Bell::beside(path),
            history: History::default(),
            options,
        };
        match shared.check_place() {
            Err(error) if error.kind != FailureKind::Unavailable => Err(error),
            _ => Ok(Self {
                shared: Arc::new(shared),
            }),
        }
    }
}

impl Datastore for Sqlite {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn run(&self, op: &StoreOp) -> Reply {
        let shared = &self.shared;
        let write = |key: &Key, op: &StoreOp| shared.write(key, op);
        answer(op, |key| shared.get(key), |prefix| shared.list(prefix), write)
    }

    fn watch(&self, interest: &[(Prefix, Revision)]) -> Result<Box<dyn Watch>, WatchError> {
        Ok(Box::new(watch::SqliteWatch::begin(
            Arc::clone(&self.shared),
            interest,
        )?))
    }

    fn history(&self) -> Option<&History> {
        Some(&self.shared.history)
    }
}

impl Shared {
    /// Runs a query on a connection of its own, so that reads wait neither for each other nor for a writer.
    fn read<T>(
        &self,
        mut query: impl FnMut(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.check_place()?;
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => connection::open(&self.path, self.options.busy_timeout)?,
        };
        let result = self.patiently(Instant::now(), || query(&mut connection));
        self.keep_for_readers(connection);
        result
    }

    fn keep_for_readers(&self, connection: Connection) {
        let mut idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_READERS {
            idle.push(connection);
        }
    }

    /// Tries again while the store is locked, until the busy timeout has passed since `begun`.
    fn patiently<T>(
        &self,
        begun: Instant,
        attempt: impl FnMut() -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        retry_busy(begun + self.options.busy_timeout, attempt).map_err(|error| failure(&self.path, &error))
    }

    /// Fails if the file was removed or replaced. The open connections would go on with a file that nobody else sees,
    /// and a new file in its place may lack everything that is in force.
    fn check_place(&self) -> Result<(), StoreError> {
        let Some(known) = self.place.get() else {
            return self.settle();
        };
        match Place::of(&self.path) {
            Ok(place) if place == *known => Ok(()),
            _ => Err(replaced(&self.path)),
        }
    }

    /// Makes the store or finds it there, and remembers which file it is.
    fn settle(&self) -> Result<(), StoreError> {
        let connection = connection::create_or_open(&self.path, self.options.busy_timeout)?;
        let place = Place::of(&self.path).map_err(|error| cannot_make(&self.path, &error))?;
        self.place.get_or_init(|| place);
        self.keep_for_readers(connection);
        Ok(())
    }

    /// Which of all stores this is, for the next process: a copy that was put in its place is another file.
    fn cluster(&self) -> Option<String> {
        let place = self.place.get()?;
        Some(format!("sqlite:{}", place.inode))
    }

    fn invalid(&self, reason: &dyn std::fmt::Display) -> StoreError {
        Cause::invalid(reason).of(&self.name)
    }
}

/// Which file a path led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    device: u64,
    inode: u64,
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

/// SQLite's own waiting sleeps for up to 100 ms between two looks; a write here takes a tenth of one.
fn retry_busy<T>(deadline: Instant, mut attempt: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    const LONGEST: Duration = Duration::from_millis(2);
    let mut pause = Duration::from_micros(50);
    loop {
        match attempt() {
            Err(error) if is_busy(&error) && Instant::now() < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(LONGEST);
            }
            result => return result,
        }
    }
}
