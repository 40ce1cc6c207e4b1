//! Errors: what SQLite reports as errors of this crate, and the store's own.

use std::path::Path;

use rusqlite::ErrorCode;

use super::config::DB_FILE;
use crate::error::{Code, Error};

/// Returns the error for a failed statement on the database in `dir`.
pub(super) fn sql(dir: &Path, error: &rusqlite::Error) -> Error {
    let db = dir.join(DB_FILE);
    let db = db.display();
    let code = match error {
        rusqlite::Error::SqliteFailure(failure, _) => failure.code,
        // A column of another type than the schema's: the file was changed from outside, or is damaged.
        _ => ErrorCode::DatabaseCorrupt,
    };
    match code {
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Error::corrupt(format!(
            "{db} is damaged ({error}): stop the process, keep a copy of the directory, then restore a backup, or save \
             what is readable with `sqlite3 nvent.db .recover | sqlite3 new.db` and put new.db in its place"
        )),
        ErrorCode::TooBig => Error::invalid(format!("the value is too large to be stored: {error}")),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Error::io(format!(
            "{db}: another program holds a lock on the database ({error}): end its transaction and try again"
        )),
        ErrorCode::DiskFull => {
            Error::io(format!("{db}: the disk is full: make room, then close the store and open it again"))
        }
        _ => Error::io(format!("{db}: {error}: check the disk, then close the store and open it again")),
    }
}

/// Returns whether another program holds a lock.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Returns the error for writes after one that failed.
pub(super) fn refused(cause: &Error) -> Error {
    Error::new(
        if cause.code() == Code::Corrupt { Code::Corrupt } else { Code::Io },
        format!("the store is read-only after a failed write: close it and open it again. The cause was: {cause}"),
    )
}

/// Returns the error for a row whose text does not match its checksum.
pub(super) fn checksum_mismatch(table: &str, row: &str) -> Error {
    Error::corrupt(format!(
        "the row {row} of table {table} in {} does not match its checksum, so it was damaged on disk or changed from \
         outside: restore it from a backup (after a change of your own, set its column \"sum\" to NULL)",
        DB_FILE
    ))
}

/// Returns the error of an operation whose writer's thread has ended before it.
pub(super) fn writer_died() -> Error {
    Error::io("the store's thread ended before the operation did: close the store and open it again").maybe_applied()
}

/// Returns the error for a row without a checksum whose text is no JSON.
pub(super) fn no_json(table: &str, row: &str, why: &Error) -> Error {
    Error::corrupt(format!(
        "the row {row} of table {table} in {} was changed from outside and is no JSON ({why}): correct it there, or delete it",
        DB_FILE
    ))
}

/// Returns the error for writes to a database that is no longer in its directory.
pub(super) fn replaced(path: &Path) -> Error {
    Error::io(format!(
        "{}: the database was deleted, replaced or emptied while it was open: close the store, restore the file, and open it again",
        path.display()
    ))
}

/// Returns the error for an adapter whose retention differs from that of those that have the directory open.
pub(super) fn other_retention(dir: &Path) -> Error {
    Error::invalid(format!(
        "retention: {} is open in this process with another retention: give every adapter on it the same",
        dir.display()
    ))
}

/// Returns the error for a write to a store that was opened to be read.
pub(super) fn read_only(dir: &Path) -> Error {
    Error::invalid(format!("{}: was opened with readOnly: what writes needs the directory for itself", dir.display()))
}

/// Returns the error for a subscription to a store that was opened to be read.
pub(super) fn no_subscriptions(dir: &Path) -> Error {
    Error::invalid(format!(
        "{}: was opened with readOnly, and does not receive what another process appends: read after the last id instead",
        dir.display()
    ))
}
