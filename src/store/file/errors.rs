//! Errors: what SQLite reports as errors of this crate, and the store's own.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::error::{Code, Error};

/// Returns the error for a failed statement on the database in `dir`.
pub(super) fn sql(dir: &Path, error: &rusqlite::Error) -> Error {
    let db = dir.join(super::schema::DB_FILE);
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
        format!(
            "the store is read-only after a failed write: close every adapter on this directory, then open it again. The cause was: {cause}"
        ),
    )
}

/// Returns the error for a row whose text does not match its checksum.
pub(super) fn checksum_mismatch(table: &str, row: &str) -> Error {
    Error::corrupt(format!(
        "the row {row} of table {table} in {} does not match its checksum, so it was damaged on disk or changed from \
         outside: restore it from a backup (after a change of your own, set its column \"sum\" to NULL)",
        super::schema::DB_FILE
    ))
}

/// Returns the error of an operation whose writer's thread has ended before it.
pub(super) fn writer_died() -> Error {
    Error::io("the store's thread ended before the operation did: close the store and open it again").maybe_applied()
}
