//! What reads and writes run on: a consistent view of the database, and the transaction that changes it.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{CachedStatement, Connection, Params, Row};

use super::fault;
use super::schema::checksum;
use crate::error::{Code, Error, Result};
use crate::event::EventId;
use crate::op::Completer;
use crate::topic::Glob;

/// A cleared pattern whose keys are still being removed: values written before `epoch` are dead.
#[derive(Clone)]
pub(super) struct Clear {
    pub(super) epoch: i64,
    pub(super) glob: Glob,
    /// When it was called for.
    pub(super) at_ms: u64,
}

impl Clear {
    /// Whether it clears the value that this key got in this epoch.
    pub(super) fn concerns(&self, key: &str, epoch: i64) -> bool {
        epoch < self.epoch && self.glob.matches(key)
    }
}

/// A clear that is being finished in the background.
pub(super) struct Purge {
    pub(super) clear: Clear,
    /// Keys up to this one are done.
    pub(super) after: Arc<str>,
    /// Live values removed so far.
    pub(super) removed: u64,
    /// Who wants to know the number. Nobody, if the process that cleared has ended.
    pub(super) caller: Option<Completer<u64>>,
}

impl Purge {
    pub(super) fn new(clear: Clear, caller: Completer<u64>) -> Self {
        Self { clear, after: "".into(), removed: 0, caller: Some(caller) }
    }

    /// One that an earlier process did not finish.
    pub(super) fn resumed(clear: Clear) -> Self {
        Self { clear, after: "".into(), removed: 0, caller: None }
    }

    /// Tells the caller how it ended.
    pub(super) fn reply(self, outcome: Result<u64>) {
        if let Some(caller) = self.caller {
            caller.complete(outcome);
        }
    }
}

/// How long a read may take before it has to go on elsewhere.
#[derive(Clone, Copy)]
pub(super) struct Budget(Option<Instant>);

impl Budget {
    /// What the thread of the caller, or the writer's, can spare.
    const SHORT: Duration = Duration::from_micros(500);

    /// Rows that can be passed over in that time.
    const SHORT_OFFSET: usize = 2_000;

    /// For a thread that others wait for.
    pub(super) fn short() -> Self {
        Self(Some(Instant::now() + Self::SHORT))
    }

    /// For a thread that may take its time.
    pub(super) fn unlimited() -> Self {
        Self(None)
    }

    /// Whether nothing long may begin.
    pub(super) fn is_short(self) -> bool {
        self.0.is_some()
    }

    /// Whether the read may look at another row.
    pub(super) fn lasts(self) -> bool {
        self.0.is_none_or(|end| Instant::now() < end)
    }

    /// Whether the read may pass over so many rows in one statement.
    pub(super) fn lasts_for(self, offset: usize) -> bool {
        self.0.is_none() || offset <= Self::SHORT_OFFSET
    }
}

/// The database as it is at one moment.
pub(super) struct View<'a> {
    pub(super) conn: &'a Connection,
    pub(super) dir: &'a Path,
    pub(super) now_ms: u64,
    /// Taken before the moment of the view: a clear that has ended since leaves nothing that it would hide.
    pub(super) clears: Arc<Vec<Clear>>,
}

impl View<'_> {
    pub(super) fn fail(&self, error: &rusqlite::Error) -> Error {
        fault::sql(self.dir, error)
    }

    pub(super) fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>> {
        self.conn.prepare_cached(sql).map_err(|e| self.fail(&e))
    }

    /// The first row, if there is one.
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

    /// Whether a value written in this epoch has been cleared.
    pub(super) fn is_cleared(&self, key: &str, epoch: i64) -> bool {
        self.clears.iter().any(|clear| clear.concerns(key, epoch))
    }

    pub(super) fn now(&self) -> i64 {
        to_sql(self.now_ms)
    }
}

/// SQLite's integers are signed. No clock gets there.
pub(super) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The other way round.
pub(super) fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// The text of a row, checked against its checksum. `table` and `row` name it in the error.
pub(super) fn checked<'r>(
    text: &'r str,
    sum: Option<i64>,
    table: &str,
    row: impl FnOnce() -> String,
) -> Result<&'r str> {
    match sum {
        Some(sum) if sum != i64::from(checksum(text)) => Err(fault::rotten(table, &row())),
        _ => Ok(text),
    }
}

/// What the writer remembers of a subject.
#[derive(Clone, Copy)]
pub(super) struct SubjectState {
    pub(super) row: i64,
    /// Its last event.
    pub(super) last: Option<EventId>,
}

/// What the writer remembers between transactions.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) subjects: HashMap<Arc<str>, SubjectState>,
    /// The greatest id of any deleted subject: one that is begun anew goes on from there.
    pub(super) id_floor: Option<EventId>,
    /// The epoch that values are written in.
    pub(super) kv_epoch: i64,
    /// There may be deleted subjects to purge.
    pub(super) purging: bool,
    /// Clears to finish.
    pub(super) clears: VecDeque<Purge>,
    /// There is work in the background that the writer did not know of when it went to sleep.
    pub(super) news: bool,
    /// When the next key expires, as far as is known.
    pub(super) next_expiry: Option<u64>,
}

impl Memory {
    const SUBJECTS: usize = 65_536;

    /// Remembers a subject. When there are too many, all are forgotten: each costs two look-ups to remember again.
    pub(super) fn remember(&mut self, subject: &str, state: SubjectState) {
        match self.subjects.get_mut(subject) {
            Some(known) => *known = state,
            None => {
                if self.subjects.len() >= Self::SUBJECTS {
                    self.subjects.clear();
                }
                self.subjects.insert(subject.into(), state);
            }
        }
    }

    /// A key expires at this time.
    pub(super) fn expires(&mut self, at_ms: u64) {
        if self.next_expiry.is_none_or(|known| at_ms < known) {
            self.next_expiry = Some(at_ms);
            self.news = true;
        }
    }
}

/// The writer's transaction.
pub(super) struct Tx<'a> {
    pub(super) view: View<'a>,
    pub(super) memory: &'a mut Memory,
    /// The statement that failed so that the transaction must not be committed.
    pub(super) broken: Option<Error>,
}

impl Tx<'_> {
    /// Executes a statement; how many rows it changed.
    pub(super) fn execute(&mut self, sql: &str, params: impl Params) -> Result<i64> {
        let changed = self.view.conn.prepare_cached(sql).and_then(|mut statement| statement.execute(params));
        let changed = changed.map(|rows| i64::try_from(rows).unwrap_or(i64::MAX)).map_err(|e| self.view.fail(&e));
        self.note(changed)
    }

    /// Notes a failure of SQLite: whatever the transaction did may be half done.
    pub(super) fn note<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && matches!(error.code(), Code::Io | Code::Corrupt)
        {
            self.broken.get_or_insert_with(|| error.clone());
        }
        result
    }
}
