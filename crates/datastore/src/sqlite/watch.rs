//! A watch: a place in the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use buoy_core::store::{Prefix, Revision, StoreError};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::Shared;
use super::connection;
use super::read::{bytes, known_key, newest, record, revision};
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
    interest: Vec<Range>,
    /// Everything up to here was looked at.
    seen: Revision,
    /// What the caller was told last.
    told: Revision,
    /// As it was when everything up to `seen` was looked at.
    data_version: i64,
}

impl SqliteWatch {
    pub(super) fn begin(
        shared: Arc<Shared>,
        interest: &[Prefix],
        from: Revision,
    ) -> Result<Self, WatchError> {
        let mut ranges = Vec::new();
        for prefix in interest {
            ranges.extend(codec::ranges(prefix).map_err(|bad| shared.invalid(&bad.reason))?);
        }
        // The listener before the first look: what is written in between rings.
        let listener = shared.bell.listen();
        let mut connection = connection::open(&shared.path, shared.options.busy_timeout)?;
        if shared
            .patiently(Instant::now(), || look(&mut connection, &[], from))?
            .is_none()
        {
            return Err(WatchError::Compacted);
        }
        Ok(Self {
            shared,
            connection,
            listener,
            interest: ranges,
            seen: from,
            told: from,
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
                if let Some(last) = events.last() {
                    self.told = last.revision();
                    return Ok(events);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            look = self.listener.wait(left.min(self.listener.patience())) || self.is_changed()?;
        }
        if self.told == self.seen {
            return Ok(Vec::new());
        }
        self.told = self.seen;
        Ok(vec![Event::Progress(self.seen)])
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
fn look(connection: &mut Connection, interest: &[Range], after: Revision) -> rusqlite::Result<Option<Look>> {
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

fn event(row: &Row<'_>, interest: &[Range], revision: Revision) -> rusqlite::Result<Option<Event>> {
    let path = row.get_ref(2)?;
    let text = path.as_str().unwrap_or_default();
    if !interest.iter().any(|range| range.contains(text)) {
        return Ok(None);
    }
    let is_deleted = row.get_ref(0)? == ValueRef::Null;
    Ok(match known_key(path) {
        Some(key) if is_deleted => Some(Event::Deleted(key, revision)),
        Some(key) => Some(Event::Put(record(key, bytes(row, 0)?, revision))),
        None => None,
    })
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(DATA_VERSION)?
        .query_row([], |row| row.get(0))
}
