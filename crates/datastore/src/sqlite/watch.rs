//! A watch: a place in the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use buoy_core::store::{Prefix, Revision, StoreError};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::Shared;
use super::connection;
use super::read::{bytes, known_key, newest, revision};
use super::wake::Listener;
use crate::codec::{self, Range};
use crate::{Event, Watch, WatchError};

/// Most rows of the log that one look takes in: what bounds the memory of a slow watcher.
const BATCH: i64 = 512;

const OLDEST: &str = "SELECT min(revision) FROM log";
const AFTER: &str = "SELECT value, revision, key FROM log WHERE revision > ?1 ORDER BY revision LIMIT ?2";
/// Changes when somebody else commits.
const DATA_VERSION: &str = "PRAGMA data_version";

/// A watch on a store in a file.
#[derive(Debug)]
pub(super) struct SqliteWatch {
    shared: Arc<Shared>,
    connection: Connection,
    listener: Listener,
    interest: Vec<Interest>,
    /// Everything up to here was looked at.
    seen: Revision,
    /// As it was when everything up to `seen` was looked at.
    data_version: i64,
}

/// A prefix that is watched.
#[derive(Debug)]
struct Interest {
    ranges: Vec<Range>,
    /// What came before this is known already.
    after: Revision,
}

impl SqliteWatch {
    pub(super) fn begin(shared: Arc<Shared>, prefixes: &[(Prefix, Revision)]) -> Result<Self, WatchError> {
        let mut interest = Vec::with_capacity(prefixes.len());
        for (prefix, after) in prefixes {
            interest.push(Interest {
                ranges: codec::ranges(prefix).map_err(|bad| shared.invalid(&bad.reason))?,
                after: *after,
            });
        }
        let begins = || interest.iter().map(|interest| interest.after);
        let (from, last) = (
            begins().min().unwrap_or_default(),
            begins().max().unwrap_or_default(),
        );
        shared.check_place()?;
        // The listener before the first look: what is written in between rings.
        let listener = shared.bell.listen();
        let mut connection = connection::open(&shared.path, shared.options.busy_timeout)?;
        for revision in [from, last] {
            let look = shared.patiently(Instant::now(), || look(&mut connection, &[], revision))?;
            if look.is_none() {
                return Err(WatchError::Compacted);
            }
        }
        Ok(Self {
            shared,
            connection,
            listener,
            interest,
            seen: from,
            // None yet, so the first look is not left out.
            data_version: -1,
        })
    }

    /// Takes in the next rows of the log.
    fn advance(&mut self) -> Result<Vec<Event>, WatchError> {
        let Self {
            shared,
            connection,
            interest,
            seen,
            ..
        } = self;
        loop {
            let look = shared.patiently(Instant::now(), || look(connection, interest, *seen))?;
            let look = look.ok_or(WatchError::Compacted)?;
            *seen = look.seen;
            shared.history.came_to(look.seen);
            if look.is_all {
                self.data_version = look.data_version;
            }
            if look.is_all || !look.events.is_empty() {
                return Ok(look.events);
            }
        }
    }

    fn is_changed(&mut self) -> Result<bool, StoreError> {
        let Self {
            shared, connection, ..
        } = self;
        shared.check_place()?;
        let version = shared.patiently(Instant::now(), || data_version(connection))?;
        Ok(version != self.data_version)
    }
}

impl Watch for SqliteWatch {
    fn next(&mut self, timeout: Duration) -> Result<Vec<Event>, WatchError> {
        let deadline = Instant::now() + timeout;
        let mut look = self.is_changed()?;
        loop {
            if look {
                let events = self.advance()?;
                if !events.is_empty() {
                    return Ok(events);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Vec::new());
            }
            look = self.listener.wait(left.min(self.listener.patience())) || self.is_changed()?;
        }
    }

    fn reached(&self) -> Vec<Revision> {
        let known = self.interest.iter().map(|interest| interest.after.max(self.seen));
        known.collect()
    }
}

/// What one look at the log found.
struct Look {
    events: Vec<Event>,
    seen: Revision,
    is_all: bool,
    data_version: i64,
}

/// Looks at the log after a revision; `None` if what came next is no longer there, or the store has never come so far
/// (somebody restored an older copy).
fn look(
    connection: &mut Connection,
    interest: &[Interest],
    after: Revision,
) -> rusqlite::Result<Option<Look>> {
    let transaction = connection.transaction()?;
    let oldest: Option<i64> = transaction
        .prepare_cached(OLDEST)?
        .query_row([], |row| row.get(0))?;
    let oldest = oldest.map_or(0, i64::cast_unsigned);
    if oldest > after.0 + 1 || newest(&transaction)? < after {
        return Ok(None);
    }
    let mut statement = transaction.prepare_cached(AFTER)?;
    let mut rows = statement.query([after.0.cast_signed(), BATCH])?;
    let mut look = Look {
        events: Vec::new(),
        seen: after,
        is_all: true,
        data_version: data_version(&transaction)?,
    };
    let mut count = 0;
    while let Some(row) = rows.next()? {
        count += 1;
        look.seen = revision(row, 1)?;
        look.events.extend(event(row, interest, look.seen)?);
    }
    look.is_all = count < BATCH;
    Ok(Some(look))
}

fn event(row: &Row<'_>, interest: &[Interest], revision: Revision) -> rusqlite::Result<Option<Event>> {
    let path = row.get_ref(2)?;
    let text = path.as_str().unwrap_or_default();
    let wanted = |interest: &Interest| {
        interest.after < revision && interest.ranges.iter().any(|range| range.contains(text))
    };
    if !interest.iter().any(wanted) {
        return Ok(None);
    }
    let is_deleted = row.get_ref(0)? == ValueRef::Null;
    Ok(match known_key(path) {
        Some(key) if is_deleted => Some(Event::Deleted(key, revision)),
        Some(key) => Some(Event::Put(codec::record(key, bytes(row, 0)?, revision))),
        None => None,
    })
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(DATA_VERSION)?
        .query_row([], |row| row.get(0))
}
