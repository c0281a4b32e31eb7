//! Writing: one operation, one transaction, one row in the log.

use std::time::Instant;

use buoy_core::store::{Bad, Key, Reply, Revision, StoreError, StoreOp};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::error::locked;
use super::read::stored;
use super::{Shared, connection, read};
use crate::cause::Cause;
use crate::codec::{self, Change};
use crate::history;
use crate::moment::moment;

const PUT: &str = "INSERT INTO kv (key, value, created, modified) VALUES (?1, ?2, ?3, ?3)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, modified = excluded.modified";
const DELETE: &str = "DELETE FROM kv WHERE key = ?1";
const LOG: &str = "INSERT INTO log (revision, key, value) VALUES (?1, ?2, ?3)";
const COMPACT: &str = "DELETE FROM log WHERE revision <= ?1";

/// Largest record, in bytes: what fits here fits into an etcd or a Kubernetes as well, as these come.
const LARGEST: usize = 1 << 20;

/// Every so many writes the log is cut, so that no single write has much to cut.
const COMPACT_EVERY: u64 = 64;

impl Shared {
    pub(super) fn write(&self, key: &Key, op: &StoreOp) -> Result<Reply, StoreError> {
        let path = codec::path(key).map_err(|bad| self.invalid(&bad.reason))?;
        self.check_place()?;
        if !self.history.is_accepted() {
            return Err(history::replaced().of(&self.name));
        }
        let begun = Instant::now();
        let Some(mut seat) = self.writer.take(begun + self.options.busy_timeout) else {
            return Err(locked(&self.path));
        };
        let connection = match &mut *seat {
            Some(connection) => connection,
            none => none.insert(connection::open(&self.path, self.options.busy_timeout)?),
        };
        let outcome = self.patiently(begun, || transact(connection, &path, op, self.options.keep))?;
        drop(seat);
        match outcome.map_err(|bad| self.invalid(&format!("{path}: {bad}")))? {
            Outcome::Put(revision) => {
                self.history.came_to(revision);
                self.bell.ring();
                Ok(Reply::Written(revision))
            }
            Outcome::Deleted => {
                self.bell.ring();
                Ok(Reply::Deleted)
            }
            Outcome::Nothing(revision) => Ok(Reply::Written(revision)),
            Outcome::Conflict => Ok(Reply::Conflict),
            Outcome::TooLarge(bytes) => {
                let reason = format!("{path}: {bytes} bytes, of {LARGEST} at most");
                Err(Cause::too_large(reason).of(&self.name))
            }
        }
    }
}

enum Outcome {
    Put(Revision),
    Deleted,
    Nothing(Revision),
    Conflict,
    TooLarge(usize),
}

/// Reads, decides and writes. Dropping the transaction undoes it.
fn transact(
    connection: &mut Connection,
    path: &str,
    op: &StoreOp,
    keep: u64,
) -> rusqlite::Result<Result<Outcome, Bad>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let before = stored(&transaction, path)?;
    let before = before
        .as_ref()
        .map(|(bytes, revision)| (bytes.as_slice(), *revision));
    let bytes = match codec::change(op, before, moment) {
        Ok(Change::Put(bytes)) if bytes.len() > LARGEST => return Ok(Ok(Outcome::TooLarge(bytes.len()))),
        Ok(Change::Put(bytes)) => Some(bytes),
        Ok(Change::Delete) => None,
        Ok(Change::Nothing(revision)) => return Ok(Ok(Outcome::Nothing(revision))),
        Ok(Change::Conflict) => return Ok(Ok(Outcome::Conflict)),
        Err(bad) => return Ok(Err(bad)),
    };
    let revision = Revision(read::newest(&transaction)?.0 + 1);
    record_change(&transaction, path, bytes.as_deref(), revision)?;
    compact(&transaction, revision, keep)?;
    transaction.commit()?;
    Ok(Ok(bytes.map_or(Outcome::Deleted, |_| Outcome::Put(revision))))
}

fn record_change(
    transaction: &Transaction<'_>,
    path: &str,
    bytes: Option<&[u8]>,
    revision: Revision,
) -> rusqlite::Result<()> {
    let number = revision.0.cast_signed();
    // JSON is text, and to a person with the sqlite3 shell it should look like it.
    let text = bytes.map(String::from_utf8_lossy);
    match &text {
        Some(text) => transaction
            .prepare_cached(PUT)?
            .execute(params![path, text, number])?,
        None => transaction.prepare_cached(DELETE)?.execute([path])?,
    };
    transaction
        .prepare_cached(LOG)?
        .execute(params![number, path, text])?;
    Ok(())
}

/// Forgets all but the newest changes. The newest itself always stays: it is the revision of the store.
fn compact(transaction: &Transaction<'_>, revision: Revision, keep: u64) -> rusqlite::Result<()> {
    if !revision.0.is_multiple_of(COMPACT_EVERY) {
        return Ok(());
    }
    let cut = revision.0.saturating_sub(keep.max(1));
    transaction
        .prepare_cached(COMPACT)?
        .execute([cut.cast_signed()])?;
    Ok(())
}
