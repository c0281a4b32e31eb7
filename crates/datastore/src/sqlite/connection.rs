//! Connections and the tables behind them.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use buoy_core::store::StoreError;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::error::{cannot_make, failure, newer_schema, not_a_store};
use super::{SCHEMA, retry_busy};

/// `Buoy` in ASCII: tells a store from another program's database.
const APPLICATION: i32 = 0x4275_6f79;

const TABLES: &str = "
    CREATE TABLE kv (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL,
        created INTEGER NOT NULL,
        modified INTEGER NOT NULL
    );
    CREATE TABLE log (
        revision INTEGER PRIMARY KEY,
        key TEXT NOT NULL,
        value TEXT
    );
";

/// Opens a store for the first time in this process.
pub(super) fn create_or_open(path: &Path, timeout: Duration) -> Result<Connection, StoreError> {
    create_file(path).map_err(|error| cannot_make(path, &error))?;
    let mut connection = open(path, timeout)?;
    let found = retry_busy(Instant::now() + timeout, || {
        // One transaction: another process may make the tables at this moment.
        identify(&*connection.transaction()?)
    })
    .map_err(|error| failure(path, &error))?;
    let found = match found {
        Identity::Empty => retry_busy(Instant::now() + timeout, || create_tables(&mut connection))
            .map_err(|error| failure(path, &error))?,
        found => found,
    };
    match found {
        Identity::Store(SCHEMA) => Ok(connection),
        Identity::Store(version) if version > SCHEMA => Err(newer_schema(path, version, SCHEMA)),
        Identity::Store(_) | Identity::Empty | Identity::Foreign => Err(not_a_store(&path.display())),
    }
}

/// Opens one more connection to a store that is there.
pub(super) fn open(path: &Path, timeout: Duration) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let result = Connection::open_with_flags(path, flags).and_then(|connection| {
        retry_busy(Instant::now() + timeout, || configure(&connection)).map(|()| connection)
    });
    result.map_err(|error| failure(path, &error))
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    // Waiting is done by `retry_busy`.
    connection.busy_timeout(Duration::ZERO)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "journal_size_limit", 16 << 20)
}

fn create_file(path: &Path) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    // SQLite would make it with the mode that the umask leaves; -wal and -shm take theirs from it.
    let created = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match created {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

enum Identity {
    /// Nothing in it yet.
    Empty,
    /// A store with this schema version.
    Store(i32),
    /// Somebody else's.
    Foreign,
}

fn identify(connection: &Connection) -> rusqlite::Result<Identity> {
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (application, tables) {
        (APPLICATION, _) => Identity::Store(version),
        (0, 0) if version == 0 => Identity::Empty,
        _ => Identity::Foreign,
    })
}

/// Makes the tables, unless another process has done so in the meantime.
fn create_tables(connection: &mut Connection) -> rusqlite::Result<Identity> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if let found @ (Identity::Store(_) | Identity::Foreign) = identify(&transaction)? {
        return Ok(found);
    }
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", SCHEMA)?;
    transaction.commit()?;
    Ok(Identity::Store(SCHEMA))
}
