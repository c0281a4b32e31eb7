//! What SQLite reports, as what a person can act on.

use std::io;
use std::path::Path;

use buoy_core::store::{FailureKind, StoreError};
use rusqlite::{Error, ErrorCode};

pub(super) fn is_busy(error: &Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// An error of an operation on the store at this path.
pub(super) fn failure(path: &Path, error: &Error) -> StoreError {
    if is_busy(error) {
        return locked(path);
    }
    let path = path.display();
    let (kind, message) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => (
            FailureKind::Refused,
            format!(
                "no space left for the store: {path}\nfree some on its file system; nothing that was written is lost"
            ),
        ),
        Some(ErrorCode::ReadOnly) => (
            FailureKind::Refused,
            format!(
                "store is read-only: {path}\nmount its file system writable, or let this user write it and its directory"
            ),
        ),
        Some(ErrorCode::CannotOpen) => (
            FailureKind::Refused,
            format!("store cannot be opened: {path}\nlet this user read and write it and its directory"),
        ),
        Some(ErrorCode::SystemIoFailure) => (
            FailureKind::Refused,
            format!(
                "input/output error in the store: {path}: {error}\nlook for free space on its file system and for disk errors in the kernel's log"
            ),
        ),
        Some(ErrorCode::DatabaseCorrupt) => (
            FailureKind::Refused,
            format!(
                "store is damaged: {path}\nmove it away together with its -wal and -shm files, and restore a copy"
            ),
        ),
        Some(ErrorCode::NotADatabase) => return not_a_store(&path),
        _ => (
            FailureKind::Refused,
            format!(
                "store cannot be used: {path}: {error}\nif it was replaced or altered by hand, restore it"
            ),
        ),
    };
    StoreError { kind, message }
}

/// Somebody has held the lock for longer than the busy timeout.
pub(super) fn locked(path: &Path) -> StoreError {
    StoreError {
        kind: FailureKind::Unavailable,
        message: format!(
            "store is locked by another process: {0}\ntry again; `fuser {0}` shows who has it open",
            path.display()
        ),
    }
}

pub(super) fn not_a_store(path: &dyn std::fmt::Display) -> StoreError {
    StoreError {
        kind: FailureKind::Invalid,
        message: format!(
            "file is not a store of this program: {path}\nmove it away, or set datastore to another path"
        ),
    }
}

pub(super) fn newer_schema(path: &Path, found: i32, known: i32) -> StoreError {
    StoreError {
        kind: FailureKind::Invalid,
        message: format!(
            "store has a newer schema: {}: version {found}, this program knows {known}\nuse the newer program that wrote it, or restore a copy from before",
            path.display()
        ),
    }
}

/// The directory or the file could not be made.
pub(super) fn cannot_make(path: &Path, error: &io::Error) -> StoreError {
    StoreError {
        kind: FailureKind::Refused,
        message: format!(
            "store cannot be made: {}: {error}\nsee that its directory is on a writable file system with space left, and that this user may write it",
            path.display()
        ),
    }
}

/// The file at the path is no longer the one that was opened.
pub(super) fn replaced(path: &Path) -> StoreError {
    StoreError {
        kind: FailureKind::Refused,
        message: format!(
            "store was removed or replaced while in use: {}\nput it back, or start this program again to use what is there now",
            path.display()
        ),
    }
}
