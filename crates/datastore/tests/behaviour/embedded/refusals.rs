//! Files that are not stores, or not ours.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use buoy_core::store::{FailureKind, Prefix, Reply, StoreError, StoreOp};
use buoy_datastore::sqlite::{Options, SCHEMA, Sqlite};
use buoy_datastore::{Datastore, WatchError};

use crate::tools::{create, get, key, list, number, update};

fn refused(path: &Path) -> StoreError {
    let error = Sqlite::open(path, Options::default()).unwrap_err();
    assert!(error.message.contains(&path.display().to_string()), "{error}");
    assert!(error.message.contains('\n'), "says what to do: {error}");
    error
}

#[test]
fn a_newer_schema_is_refused_with_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("buoy.db");
    create(&Sqlite::open(&path, Options::default()).unwrap(), "a", 1);
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.pragma_update(None, "user_version", SCHEMA + 41).unwrap();
    let error = refused(&path);
    assert_eq!(error.kind, FailureKind::Invalid);
    assert!(
        error.message.contains(&format!("version {}", SCHEMA + 41)),
        "{error}"
    );
    assert!(error.message.contains(&format!("knows {SCHEMA}")), "{error}");

    raw.pragma_update(None, "user_version", SCHEMA).unwrap();
    let store = Sqlite::open(&path, Options::default()).unwrap();
    assert_eq!(
        list(&store, Prefix::Reservations).0.len(),
        1,
        "nothing was touched"
    );
}

#[test]
fn what_is_no_store_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("notes.txt");
    fs::write(
        &text,
        "not a database, but more than a hundred bytes long. ".repeat(40),
    )
    .unwrap();
    let before = fs::read(&text).unwrap();
    assert_eq!(refused(&text).kind, FailureKind::Invalid);
    assert_eq!(fs::read(&text).unwrap(), before);

    let foreign = dir.path().join("other.db");
    let raw = rusqlite::Connection::open(&foreign).unwrap();
    raw.execute_batch("CREATE TABLE kv (mine)").unwrap();
    assert_eq!(refused(&foreign).kind, FailureKind::Invalid);
    let tables: u32 = raw
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 1);
}

#[test]
fn a_file_that_was_replaced_is_neither_read_nor_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("buoy.db");
    let store = Sqlite::open(&path, Options::default()).unwrap();
    let at = create(&store, "a", 1);
    let mut watch = store.watch(&[(Prefix::Reservations, at)]).unwrap();
    fs::rename(dir.path(), dir.path().with_extension("away")).unwrap();
    let other = Sqlite::open(&path, Options::default()).unwrap();
    create(&other, "b", 2);

    let is_refused = |error: &StoreError| {
        error.kind == FailureKind::Refused && error.message.contains(&path.display().to_string())
    };
    for op in [
        StoreOp::Get(key("a")),
        StoreOp::List(Prefix::Reservations),
        StoreOp::Delete(key("a"), at),
    ] {
        assert!(
            matches!(store.run(&op), Reply::Failed(error) if is_refused(&error)),
            "{op:?}"
        );
    }
    let ended = watch.next(Duration::from_secs(10));
    assert!(matches!(ended, Err(WatchError::Store(error)) if is_refused(&error)));

    drop(other);
    fs::remove_dir_all(dir.path()).unwrap();
    fs::rename(dir.path().with_extension("away"), dir.path()).unwrap();
    assert_eq!(
        number(&get(&store, &key("a")).unwrap()),
        1,
        "put back, it goes on"
    );
    update(&store, "a", 2, at);
}

#[test]
fn a_directory_that_cannot_be_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let error = refused(&dir.path().join("file/buoy.db"));
    assert_eq!(error.kind, FailureKind::Refused);
    assert_eq!(refused(dir.path()).kind, FailureKind::Refused);
}

#[test]
fn only_its_user_reads_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made/for/it/buoy.db");
    let store = Sqlite::open(&path, Options::default()).unwrap();
    create(&store, "a", 1);
    let directory = path.parent().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(directory), 0o700);
    let mut files = 0;
    for file in fs::read_dir(directory).unwrap() {
        let file = file.unwrap().path();
        assert_eq!(mode(&file), 0o600, "{}", file.display());
        files += 1;
    }
    assert!(files >= 3, "the file, its log and its index at least");
}
