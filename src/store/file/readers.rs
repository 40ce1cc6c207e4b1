//! Connections that only read, kept for the next reader.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::errors;
use super::schema;
use crate::error::{Error, Result};
use crate::sync::lock;

/// Idle connections that are kept open.
const KEPT: usize = 4;

struct State {
    idle: Vec<Connection>,
    out: usize,
    closed: bool,
}

/// The readers of an open database.
pub(super) struct Readers {
    dir: PathBuf,
    state: Mutex<State>,
    returned: Condvar,
}

impl Readers {
    pub(super) fn new(dir: PathBuf) -> Arc<Self> {
        let state = Mutex::new(State { idle: Vec::new(), out: 0, closed: false });
        Arc::new(Self { dir, state, returned: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Returns a connection for one read.
    pub(super) fn get(self: &Arc<Self>) -> Result<Reader> {
        let idle = {
            let mut state = self.lock();
            if state.closed {
                return Err(Error::closed("the store"));
            }
            state.out += 1;
            state.idle.pop()
        };
        // From here on its drop counts it back.
        let mut reader = Reader { conn: idle, home: self.clone() };
        if reader.conn.is_none() {
            reader.conn = Some(schema::open_reader(&self.dir).map_err(|e| errors::sql(&self.dir, &e))?);
        }
        Ok(reader)
    }

    /// Waits until all connections are back, and closes them.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        while state.out > 0 {
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle.clear();
    }
}

/// A borrowed connection. When it is dropped its transaction ends and it goes back.
pub(super) struct Reader {
    conn: Option<Connection>,
    home: Arc<Readers>,
}

impl Reader {
    pub(super) fn conn(&self) -> Result<&Connection> {
        self.conn.as_ref().ok_or_else(|| Error::closed("the reader"))
    }

    /// Begins a transaction that sees the database as it is now.
    pub(super) fn begin_snapshot(&self) -> Result<()> {
        let conn = self.conn()?;
        let begin = || {
            conn.prepare_cached("BEGIN")?.execute([])?;
            conn.prepare_cached("SELECT 1 FROM meta LIMIT 1")?.exists([])
        };
        begin().map(|_| ()).map_err(|e| errors::sql(&self.home.dir, &e))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let usable = self.conn.take().filter(|conn| {
            conn.is_autocommit() || conn.prepare_cached("ROLLBACK").and_then(|mut end| end.execute([])).is_ok()
        });
        let mut state = self.home.lock();
        state.out -= 1;
        if let Some(conn) = usable
            && !state.closed
            && state.idle.len() < KEPT
        {
            state.idle.push(conn);
        }
        drop(state);
        self.home.returned.notify_all();
    }
}
