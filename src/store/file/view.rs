//! What reads and writes run on: a consistent view of the database, and the transaction that changes it.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{CachedStatement, Connection, Params, Row};
use serde::Deserialize;

use super::errors;
use super::schema::checksum;
use crate::error::{Code, Error, Result};
use crate::event::EventId;
use crate::json;
use crate::op::Completer;
use crate::topic::Glob;

/// A cleared pattern whose keys are still being removed: values written before `epoch` are dead.
#[derive(Clone)]
pub(super) struct Clear {
    pub(super) epoch: i64,
    pub(super) glob: Glob,
    /// When it was called.
    pub(super) at_ms: u64,
}

impl Clear {
    /// Returns whether it clears a value of this key that was written in this epoch.
    pub(super) fn concerns(&self, key: &str, epoch: i64) -> bool {
        epoch < self.epoch && self.glob.matches(key)
    }
}

/// A clear that is being finished in the background.
pub(super) struct Purge {
    pub(super) clear: Clear,
    /// The last key that was processed.
    pub(super) after: Arc<str>,
    /// Live values removed so far.
    pub(super) removed: u64,
    /// Completed with the number. None if another process called it.
    pub(super) caller: Option<Completer<u64>>,
}

impl Purge {
    pub(super) fn new(clear: Clear, caller: Completer<u64>) -> Self {
        Self { clear, after: "".into(), removed: 0, caller: Some(caller) }
    }

    /// Resumes a clear of an earlier process.
    pub(super) fn resumed(clear: Clear) -> Self {
        Self { clear, after: "".into(), removed: 0, caller: None }
    }

    /// Completes the operation of the caller.
    pub(super) fn reply(self, outcome: Result<u64>) {
        if let Some(caller) = self.caller {
            caller.complete(outcome);
        }
    }
}

/// How long a read may take before it continues on a thread for blocking work.
#[derive(Clone, Copy)]
pub(super) struct Budget(Option<Instant>);

impl Budget {
    /// On the thread of the caller or of the writer.
    const SHORT_TIMEOUT: Duration = Duration::from_micros(500);

    /// Rows that can be skipped in that time.
    const MAX_SHORT_OFFSET: usize = 2_000;

    /// Returns the budget of a thread that others wait for.
    pub(super) fn short() -> Self {
        Self(Some(Instant::now() + Self::SHORT_TIMEOUT))
    }

    /// Returns the budget of a thread for blocking work.
    pub(super) fn unlimited() -> Self {
        Self(None)
    }

    /// Returns whether nothing long may begin.
    pub(super) fn is_short(self) -> bool {
        self.0.is_some()
    }

    /// Returns whether the read may read another row.
    pub(super) fn lasts(self) -> bool {
        self.0.is_none_or(|end| Instant::now() < end)
    }

    /// Returns whether the read may skip this many rows in one statement.
    pub(super) fn lasts_for(self, offset: usize) -> bool {
        self.0.is_none() || offset <= Self::MAX_SHORT_OFFSET
    }
}

/// The database as it is at one moment.
pub(super) struct View<'a> {
    pub(super) conn: &'a Connection,
    pub(super) dir: &'a Path,
    pub(super) now_ms: u64,
    /// Read before the view began: what a clear that finished since would hide is already removed.
    pub(super) clears: Arc<Vec<Clear>>,
}

impl View<'_> {
    pub(super) fn fail(&self, error: &rusqlite::Error) -> Error {
        errors::sql(self.dir, error)
    }

    pub(super) fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>> {
        self.conn.prepare_cached(sql).map_err(|e| self.fail(&e))
    }

    /// Returns the first row, if there is one.
    pub(super) fn first<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        let mut statement = self.prepare(sql)?;
        let mut rows = statement.query(params).map_err(|e| self.fail(&e))?;
        match rows.next().map_err(|e| self.fail(&e))? {
            Some(row) => read(row).map(Some).map_err(|e| self.fail(&e)),
            None => Ok(None),
        }
    }

    /// Returns whether a value written in this epoch was cleared.
    pub(super) fn is_cleared(&self, key: &str, epoch: i64) -> bool {
        self.clears.iter().any(|clear| clear.concerns(key, epoch))
    }

    pub(super) fn now(&self) -> i64 {
        to_sql(self.now_ms)
    }
}

/// Converts to the signed integers of SQLite.
pub(super) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Converts from the signed integers of SQLite.
pub(super) fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Checks that a text is JSON, and not deeper than what can be read.
pub(super) fn check_json(text: &str) -> Result<()> {
    json::check_depth("text", text)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.disable_recursion_limit();
    let parsed = serde::de::IgnoredAny::deserialize(&mut deserializer).and_then(|_| deserializer.end());
    parsed.map_err(|e| Error::corrupt(e.to_string()))
}

/// Returns the text of a row, checked against its checksum. `table` and `row` name it in the error.
pub(super) fn checked<'r>(
    text: &'r str,
    sum: Option<i64>,
    table: &str,
    row: impl FnOnce() -> String,
) -> Result<&'r str> {
    match sum {
        Some(sum) if sum != i64::from(checksum(text)) => Err(errors::checksum_mismatch(table, &row())),
        Some(_) => Ok(text),
        // Written by another program: nothing is known of it.
        None => match check_json(text) {
            Ok(()) => Ok(text),
            Err(error) => Err(errors::no_json(table, &row(), &error)),
        },
    }
}

/// What the writer caches of a subject.
#[derive(Clone, Copy)]
pub(super) struct SubjectState {
    pub(super) row: i64,
    /// Its last event.
    pub(super) last: Option<EventId>,
}

/// What the writer caches between transactions.
#[derive(Default)]
pub(super) struct WriterCache {
    pub(super) subjects: HashMap<Arc<str>, SubjectState>,
    /// The greatest id of any deleted subject: ids of new subjects are greater.
    pub(super) id_floor: Option<EventId>,
    /// There are deleted subjects whose ids were far in the future.
    pub(super) has_future_floors: bool,
    /// Number of the newest event in the feed.
    pub(super) newest: u64,
    /// The newest number that is stored apart from the events.
    pub(super) stored_newest: u64,
    /// Rows changed by background work that it did not remove.
    pub(super) bookkeeping: u64,
    /// The epoch of new values.
    pub(super) kv_epoch: i64,
    /// Deleted subjects may have events to purge.
    pub(super) purging: bool,
    /// Clears to finish.
    pub(super) clears: VecDeque<Purge>,
    /// Background work is due that the sleeping writer does not know of.
    pub(super) background_work: bool,
    /// When the next key expires, or earlier.
    pub(super) next_expiry: Option<u64>,
}

impl WriterCache {
    const MAX_SUBJECTS: usize = 65_536;

    /// Caches a subject. When there are too many, all are evicted: loading one again costs two look-ups.
    pub(super) fn cache_subject(&mut self, subject: &str, state: SubjectState) {
        match self.subjects.get_mut(subject) {
            Some(known) => *known = state,
            None => {
                if self.subjects.len() >= Self::MAX_SUBJECTS {
                    self.subjects.clear();
                }
                self.subjects.insert(subject.into(), state);
            }
        }
    }

    /// Records that a key expires at this time.
    pub(super) fn note_expiry(&mut self, at_ms: u64) {
        if self.next_expiry.is_none_or(|known| at_ms < known) {
            self.next_expiry = Some(at_ms);
            self.background_work = true;
        }
    }
}

/// The writer's transaction.
pub(super) struct Tx<'a> {
    pub(super) view: View<'a>,
    pub(super) cache: &'a mut WriterCache,
    /// The statement that failed so that the transaction must not be committed.
    pub(super) broken: Option<Error>,
}

impl Tx<'_> {
    /// Executes a statement. Returns the number of rows it changed.
    pub(super) fn execute(&mut self, sql: &str, params: impl Params) -> Result<i64> {
        let changed = self.view.conn.prepare_cached(sql).and_then(|mut statement| statement.execute(params));
        let changed = changed.map(|rows| i64::try_from(rows).unwrap_or(i64::MAX)).map_err(|e| self.view.fail(&e));
        self.check(changed)
    }

    /// Records a failure of SQLite, after which the transaction must be rolled back.
    pub(super) fn check<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && matches!(error.code(), Code::Io | Code::Corrupt)
        {
            self.broken.get_or_insert_with(|| error.clone());
        }
        result
    }
}
