//! Reading one record, and a set of them at one revision.

use buoy_core::store::{Key, Prefix, Record, Reply, Revision, StoreError};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row};

use super::Shared;
use crate::codec::{self, Range};

const GET: &str = "SELECT value, modified FROM kv WHERE key = ?1";
const LIST: &str = "SELECT value, modified, key FROM kv WHERE key >= ?1 AND key < ?2";
const NEWEST: &str = "SELECT max(revision) FROM log";

impl Shared {
    pub(super) fn get(&self, key: &Key) -> Result<Reply, StoreError> {
        let path = codec::path(key).map_err(|bad| self.invalid(&bad.reason))?;
        let found = self.read(|connection| stored(connection, &path))?;
        Ok(Reply::Record(found.map(|(bytes, revision)| {
            codec::record(key.clone(), &bytes, revision)
        })))
    }

    pub(super) fn list(&self, prefix: &Prefix) -> Result<Reply, StoreError> {
        let ranges = codec::ranges(prefix).map_err(|bad| self.invalid(&bad.reason))?;
        let began = self.history.begin();
        let (mut records, revision) = self.read(|connection| list(connection, &ranges))?;
        self.history.heard(self.cluster().as_deref(), revision, began);
        // Paths sort as text, keys as what they mean.
        records.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Reply::List(records, revision))
    }
}

/// Bytes and revision of the record at a path.
pub(super) fn stored(connection: &Connection, path: &str) -> rusqlite::Result<Option<(Vec<u8>, Revision)>> {
    connection
        .prepare_cached(GET)?
        .query_row([path], |row| Ok((bytes(row, 0)?.to_vec(), revision(row, 1)?)))
        .optional()
}

fn list(connection: &mut Connection, ranges: &[Range]) -> rusqlite::Result<(Vec<Record>, Revision)> {
    // One transaction: everything is read as it was at one moment.
    let transaction = connection.transaction()?;
    let newest = newest(&transaction)?;
    let mut records = Vec::new();
    let mut statement = transaction.prepare_cached(LIST)?;
    for range in ranges {
        let mut rows = statement.query([&range.start, &range.end])?;
        while let Some(row) = rows.next()? {
            if let Some(key) = known_key(row.get_ref(2)?) {
                records.push(codec::record(key, bytes(row, 0)?, revision(row, 1)?));
            }
        }
    }
    Ok((records, newest))
}

/// The revision of the store.
pub(super) fn newest(connection: &Connection) -> rusqlite::Result<Revision> {
    connection.prepare_cached(NEWEST)?.query_row([], |row| {
        Ok(Revision(
            row.get::<_, Option<i64>>(0)?.unwrap_or(0).cast_unsigned(),
        ))
    })
}

/// The key at a path.
pub(super) fn known_key(path: ValueRef<'_>) -> Option<Key> {
    codec::known_key(path.as_str().unwrap_or_default())
}

/// The bytes of a column, whatever its type: what cannot be read as bytes is a record that does not decode.
pub(super) fn bytes<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<&'a [u8]> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => b"\0",
    })
}

pub(super) fn revision(row: &Row<'_>, column: usize) -> rusqlite::Result<Revision> {
    Ok(Revision(row.get::<_, i64>(column)?.cast_unsigned()))
}
