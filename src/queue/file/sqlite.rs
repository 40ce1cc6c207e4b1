//! The storage of queues in SQLite: one file, opened by one process.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Params, Row, params};

use super::super::calendar::Repeat;
use super::super::job::{Job, State};
use super::super::options::JobOptions;
use super::super::schedule::Schedule;
use super::super::storage::{JobStorage, QueueRow};
use super::{Durability, import};
use crate::backoff::random_name;
use crate::disk::{self, DirLock, FileId};
use crate::error::{Error, Result};
use crate::json::Json;
use crate::metrics::{Histogram, QUEUE_COMMIT};

const DB_FILE: &str = "queue.db";

/// The version of the schema, in `user_version`.
const VERSION: i64 = 1;

/// Job data lives apart: it can be large, and a job changes several times while its data never does.
const SCHEMA: &str = "
CREATE TABLE queues (
  key INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, paused INTEGER NOT NULL, next INTEGER NOT NULL,
  waiting INTEGER NOT NULL, delayed INTEGER NOT NULL, active INTEGER NOT NULL, completed INTEGER NOT NULL,
  failed INTEGER NOT NULL
) STRICT;
CREATE TABLE jobs (
  seq INTEGER PRIMARY KEY, queue INTEGER NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, options TEXT NOT NULL,
  timestamp INTEGER NOT NULL, state INTEGER NOT NULL, order1 INTEGER NOT NULL, order2 INTEGER NOT NULL,
  processed_on INTEGER, finished_on INTEGER, attempts_made INTEGER NOT NULL, begun INTEGER NOT NULL,
  stalls INTEGER NOT NULL, progress TEXT, returnvalue TEXT, failed_reason TEXT
) STRICT;
CREATE UNIQUE INDEX jobs_by_id ON jobs (queue, id);
CREATE INDEX jobs_by_state ON jobs (queue, state, order1, order2);
CREATE INDEX jobs_waiting ON jobs (queue, name, order1, order2) WHERE state = 0;
CREATE INDEX jobs_delayed ON jobs (order1, order2) WHERE state = 1;
CREATE TABLE job_data (seq INTEGER PRIMARY KEY, data TEXT NOT NULL) STRICT;
CREATE TABLE schedules (
  id TEXT PRIMARY KEY, queue TEXT NOT NULL, name TEXT NOT NULL, data TEXT NOT NULL, options TEXT NOT NULL,
  pattern TEXT NOT NULL, tz TEXT, repeat_limit INTEGER, fired INTEGER NOT NULL, next INTEGER NOT NULL
) STRICT;
";

const JOB: &str = "seq, queue, id, name, options, timestamp, state, order1, order2, processed_on, finished_on, \
                   attempts_made, begun, stalls, progress, returnvalue, failed_reason";

pub(in crate::queue) struct SqliteStorage {
    connection: Connection,
    in_step: bool,
    commit_seconds: Arc<Histogram>,
    path: Arc<Path>,
    /// The file that the connection has open. None where it is only read.
    file: Option<FileId>,
    // After the connection, see `DirLock::take_data`. None where it is only read.
    #[cfg(unix)]
    _data_lock: Option<DirLock>,
    /// Held while the storage is open. The system releases it when the process ends. None where it is only read.
    _lock: Option<DirLock>,
}

impl SqliteStorage {
    pub(in crate::queue) fn open(dir: &Path) -> Result<Self> {
        let dir = disk::prepare_dir(dir)?;
        let lock = DirLock::take(&dir, "queue.lock")?;
        let path: Arc<Path> = dir.join(DB_FILE).into();
        disk::check_log(&dir, DB_FILE)?;
        // SQLite would create it readable by everyone; its WAL takes the permissions over from here.
        disk::private_file().open(&path).map_err(|e| disk::failed("open the database", &path, &e))?;
        #[cfg(unix)]
        let data_lock = DirLock::take_data(&dir, DB_FILE)?;
        let file = FileId::of(&path).map_err(|e| disk::failed("find the database", &path, &e))?;
        let opened = || -> rusqlite::Result<(Connection, i64)> {
            let connection = Connection::open(&path)?;
            connection.busy_timeout(Duration::from_secs(5))?;
            connection.set_prepared_statement_cache_capacity(64);
            connection.pragma_update(None, "journal_mode", "wal")?;
            // What is committed survives the process, and the file stays whole whatever happens.
            connection.pragma_update(None, "synchronous", "normal")?;
            let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            Ok((connection, version))
        };
        let (connection, version) = opened().map_err(|e| failure(&path, &e))?;
        let mut storage = Self {
            connection,
            in_step: false,
            commit_seconds: QUEUE_COMMIT.with(&["file"]),
            path,
            file: Some(file),
            #[cfg(unix)]
            _data_lock: Some(data_lock),
            _lock: Some(lock),
        };
        match version {
            0 => {
                // In one transaction, so that nothing is imported twice or not at all.
                storage.begin_step()?;
                storage.connection.execute_batch(SCHEMA).map_err(|e| failure(&storage.path, &e))?;
                import::import(&mut storage, &dir)?;
                storage.execute(&format!("PRAGMA user_version = {VERSION}"), [])?;
                storage.commit()?;
            }
            VERSION => {}
            newer => {
                return Err(Error::corrupt(format!(
                    "{} has version {newer}, this package knows up to {VERSION}: update the package",
                    storage.path.display()
                )));
            }
        }
        Ok(storage)
    }

    /// Opens what is there without the lock, to be read.
    pub(in crate::queue) fn open_read_only(dir: &Path) -> Result<Self> {
        let dir = disk::existing_dir(dir)?;
        let path: Arc<Path> = dir.join(DB_FILE).into();
        if !path.exists() {
            return Err(Error::not_found(format!("{}: there are no queues in this directory", path.display())));
        }
        let opened = || -> rusqlite::Result<(Connection, i64)> {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&path, flags)?;
            connection.busy_timeout(Duration::from_secs(5))?;
            let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            Ok((connection, version))
        };
        let (connection, version) = opened().map_err(|e| failure(&path, &e))?;
        if version != VERSION {
            return Err(Error::invalid(format!(
                "{} has version {version}, this package reads version {VERSION}",
                path.display()
            )));
        }
        let commit_seconds = QUEUE_COMMIT.with(&["file"]);
        Ok(Self {
            connection,
            in_step: false,
            commit_seconds,
            path,
            file: None,
            #[cfg(unix)]
            _data_lock: None,
            _lock: None,
        })
    }

    fn execute(&mut self, sql: &str, params: impl Params) -> Result<()> {
        let done = self.connection.prepare_cached(sql).and_then(|mut statement| statement.execute(params));
        done.map(|_| ()).map_err(|e| failure(&self.path, &e))
    }

    fn rows<T>(
        &mut self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let rows = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_map(params, read)?.collect::<rusqlite::Result<Vec<T>>>());
        rows.map_err(|e| failure(&self.path, &e))
    }

    fn row<T>(
        &mut self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        let row =
            self.connection.prepare_cached(sql).and_then(|mut statement| statement.query_row(params, read).optional());
        row.map_err(|e| failure(&self.path, &e))
    }
}

fn failure(path: &Path, error: &rusqlite::Error) -> Error {
    let message = format!("{}: {error}", path.display());
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::corrupt(message),
        Some(_) => Error::io(message),
        // No error of SQLite itself: a value that cannot be what is stored there.
        None => Error::corrupt(message),
    }
}

fn invalid<E: std::error::Error + Send + Sync + 'static>(column: usize, error: E) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

fn options(column: usize, row: &Row<'_>) -> rusqlite::Result<JobOptions> {
    let text = row.get_ref(column)?.as_str()?;
    JobOptions::parse("options", text).map_err(|e| invalid(column, e))
}

fn job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let state: usize = row.get(6)?;
    let state = State::ALL.get(state).copied().ok_or(rusqlite::Error::IntegralValueOutOfRange(6, state as i64))?;
    Ok(Job {
        seq: row.get(0)?,
        queue: row.get(1)?,
        id: row.get(2)?,
        name: row.get(3)?,
        options: Arc::new(options(4, row)?),
        timestamp: row.get(5)?,
        state,
        order: (row.get(7)?, row.get(8)?),
        processed_on: row.get(9)?,
        finished_on: row.get(10)?,
        attempts_made: row.get(11)?,
        started: row.get(12)?,
        stalls: row.get(13)?,
        progress: row.get(14)?,
        returnvalue: row.get(15)?,
        failed_reason: row.get(16)?,
    })
}

fn queue(row: &Row<'_>) -> rusqlite::Result<QueueRow> {
    let counts = [row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?, row.get(8)?];
    Ok(QueueRow { key: row.get(0)?, name: row.get(1)?, paused: row.get(2)?, next: row.get(3)?, counts })
}

fn schedule(row: &Row<'_>) -> rusqlite::Result<Schedule> {
    Ok(Schedule {
        id: row.get(0)?,
        queue: row.get(1)?,
        name: row.get(2)?,
        data: row.get(3)?,
        options: options(4, row)?,
        repeat: Repeat { pattern: row.get(5)?, tz: row.get(6)?, limit: row.get(7)? },
        fired: row.get(8)?,
        next: row.get(9)?,
    })
}

impl JobStorage for SqliteStorage {
    fn queues(&mut self) -> Result<Vec<QueueRow>> {
        let sql = "SELECT key, name, paused, next, waiting, delayed, active, completed, failed FROM queues";
        self.rows(sql, [], queue)
    }

    fn add_queue(&mut self, name: &Arc<str>) -> Result<QueueRow> {
        self.execute("INSERT INTO queues VALUES (NULL, ?1, 0, 1, 0, 0, 0, 0, 0)", [name])?;
        let key = self.connection.last_insert_rowid();
        Ok(QueueRow { key, name: name.clone(), paused: false, counts: [0; 5], next: 1 })
    }

    fn save_queue(&mut self, queue: &QueueRow) -> Result<()> {
        let [waiting, delayed, active, completed, failed] = queue.counts;
        self.execute(
            "UPDATE queues SET paused = ?2, next = ?3, waiting = ?4, delayed = ?5, active = ?6, completed = ?7, \
             failed = ?8 WHERE key = ?1",
            params![queue.key, queue.paused, queue.next, waiting, delayed, active, completed, failed],
        )
    }

    fn insert(&mut self, job: &Job, data: &Json) -> Result<i64> {
        self.execute(
            "INSERT INTO jobs VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, NULL, NULL, 0, 0, 0, NULL, NULL, NULL)",
            params![
                job.queue,
                job.id,
                job.name,
                job.options.to_json(),
                job.timestamp,
                job.state as i64,
                job.order.0,
                job.order.1
            ],
        )?;
        let seq = self.connection.last_insert_rowid();
        self.execute("INSERT INTO job_data VALUES (?1, ?2)", params![seq, data])?;
        Ok(seq)
    }

    fn update(&mut self, job: &Job) -> Result<()> {
        self.execute(
            "UPDATE jobs SET state = ?2, order1 = ?3, order2 = ?4, processed_on = ?5, finished_on = ?6, \
             attempts_made = ?7, begun = ?8, stalls = ?9, progress = ?10, returnvalue = ?11, failed_reason = ?12 \
             WHERE seq = ?1",
            params![
                job.seq,
                job.state as i64,
                job.order.0,
                job.order.1,
                job.processed_on,
                job.finished_on,
                job.attempts_made,
                job.started,
                job.stalls,
                job.progress,
                job.returnvalue,
                job.failed_reason
            ],
        )
    }

    fn mark_started(&mut self, job: &Job) -> Result<()> {
        self.execute("UPDATE jobs SET begun = 1 WHERE seq = ?1", [job.seq])
    }

    fn delete(&mut self, job: &Job) -> Result<()> {
        self.execute("DELETE FROM jobs WHERE seq = ?1", [job.seq])?;
        self.execute("DELETE FROM job_data WHERE seq = ?1", [job.seq])
    }

    fn find(&mut self, queue: i64, id: &str) -> Result<Option<Job>> {
        self.row(&format!("SELECT {JOB} FROM jobs WHERE queue = ?1 AND id = ?2"), params![queue, id], job)
    }

    fn data(&mut self, seq: i64) -> Result<Json> {
        let data = self.row("SELECT data FROM job_data WHERE seq = ?1", [seq], |row| row.get(0))?;
        data.ok_or_else(|| Error::corrupt(format!("{}: job {seq} has no data", self.path.display())))
    }

    fn page(&mut self, queue: i64, state: State, newest_first: bool, offset: u64, limit: u64) -> Result<Vec<Job>> {
        let order = if newest_first { "order1 DESC, order2 DESC, seq DESC" } else { "order1, order2, seq" };
        let sql = format!("SELECT {JOB} FROM jobs WHERE queue = ?1 AND state = ?2 ORDER BY {order} LIMIT ?3 OFFSET ?4");
        let bound = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.rows(&sql, params![queue, state as i64, bound(limit), bound(offset)], job)
    }

    fn first_waiting(&mut self, queue: i64, name: &str) -> Result<Option<Job>> {
        let sql = format!(
            "SELECT {JOB} FROM jobs WHERE queue = ?1 AND name = ?2 AND state = 0 ORDER BY order1, order2 LIMIT 1"
        );
        self.row(&sql, params![queue, name], job)
    }

    fn due(&mut self, now_ms: u64, limit: u64) -> Result<Vec<Job>> {
        let sql = format!("SELECT {JOB} FROM jobs WHERE state = 1 AND order1 <= ?1 ORDER BY order1, order2 LIMIT ?2");
        self.rows(&sql, params![now_ms, limit], job)
    }

    fn shift_delayed(&mut self, by_ms: i64) -> Result<()> {
        self.execute("UPDATE jobs SET order1 = max(0, order1 + ?1) WHERE state = 1", [by_ms])
    }

    fn rebase_delayed(&mut self, now_ms: u64) -> Result<()> {
        // A delay that ends before it began was shifted already.
        self.execute(
            "UPDATE jobs SET order1 = max(0, order1 - (max(timestamp, coalesce(processed_on, 0)) - ?1)) \
             WHERE state = 1 AND max(timestamp, coalesce(processed_on, 0)) BETWEEN ?1 + 1 AND order1",
            [now_ms],
        )
    }

    fn next_due(&mut self) -> Result<Option<u64>> {
        self.row("SELECT order1 FROM jobs WHERE state = 1 ORDER BY order1 LIMIT 1", [], |row| row.get(0))
    }

    fn schedules(&mut self) -> Result<Vec<Schedule>> {
        let sql = "SELECT id, queue, name, data, options, pattern, tz, repeat_limit, fired, next FROM schedules";
        self.rows(sql, [], schedule)
    }

    fn save_schedule(&mut self, schedule: &Schedule) -> Result<()> {
        self.execute(
            "INSERT OR REPLACE INTO schedules VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                schedule.id,
                schedule.queue,
                schedule.name,
                schedule.data,
                schedule.options.to_json(),
                schedule.repeat.pattern,
                schedule.repeat.tz,
                schedule.repeat.limit,
                schedule.fired,
                schedule.next
            ],
        )
    }

    fn delete_schedule(&mut self, id: &str) -> Result<()> {
        self.execute("DELETE FROM schedules WHERE id = ?1", [id])
    }

    fn begin_step(&mut self) -> Result<()> {
        if !self.in_step {
            self.execute("BEGIN", [])?;
            self.in_step = true;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        if self.in_step {
            // What is committed would be in no file that can be read.
            if self.file.as_mut().is_some_and(|file| !file.is_still_at(&self.path)) {
                return Err(Error::io(format!(
                    "{}: the database was deleted, replaced or emptied while it was open",
                    self.path.display()
                )));
            }
            let started = Instant::now();
            self.execute("COMMIT", [])?;
            self.commit_seconds.observe_since(started);
            self.in_step = false;
        }
        Ok(())
    }

    fn set_durability(&mut self, durability: Durability) -> Result<()> {
        // The setting takes effect between transactions only.
        self.commit()?;
        match durability {
            Durability::Os => self.execute("PRAGMA synchronous = normal", []),
            Durability::Disk => self.execute("PRAGMA synchronous = full", []),
        }
    }

    fn durability(&mut self) -> Result<Durability> {
        let level: i64 = self.row("PRAGMA synchronous", [], |row| row.get(0))?.unwrap_or(0);
        Ok(if level >= 2 { Durability::Disk } else { Durability::Os })
    }

    fn identity(&mut self) -> Result<Arc<str>> {
        self.execute("CREATE TABLE IF NOT EXISTS identity (id TEXT NOT NULL) STRICT", [])?;
        if let Some(id) = self.row("SELECT id FROM identity", [], |row| row.get::<_, String>(0))? {
            return Ok(id.into());
        }
        let id = random_name();
        self.execute("INSERT INTO identity (id) VALUES (?1)", [&id])?;
        Ok(id.into())
    }

    fn backup(&mut self, path: &Path) -> Result<()> {
        let failed = |e: &std::io::Error| disk::failed("write the backup", path, e);
        if path.symlink_metadata().is_ok() {
            return Err(Error::invalid(format!("path: {} is there already: choose a new name", path.display())));
        }
        let name = path.file_name().ok_or_else(|| Error::invalid("path: expected the name of a new file"))?;
        let mut partial = name.to_owned();
        partial.push(".partial");
        let partial = path.with_file_name(partial);
        // What an interrupted backup left behind; a link is removed, not followed.
        _ = std::fs::remove_file(&partial);
        let file = disk::private_file().create_new(true).open(&partial).map_err(|e| failed(&e))?;
        self.commit()?;
        let copied = self.execute("VACUUM INTO ?1", [partial.to_string_lossy()]).and_then(|()| {
            let publish = || {
                file.sync_all()?;
                std::fs::rename(&partial, path)?;
                disk::sync_entry(path)
            };
            publish().map_err(|e| failed(&e))
        });
        if copied.is_err() {
            // The first error is the one that is returned.
            _ = std::fs::remove_file(&partial);
        }
        copied
    }

    fn verify(&mut self) -> Result<Vec<String>> {
        let text = |row: &Row<'_>| row.get::<_, String>(0);
        let mut problems = self.rows("PRAGMA integrity_check", [], text)?;
        problems.retain(|line| line != "ok");
        for sql in [
            "SELECT 'job ' || id || ': its data is missing' FROM jobs WHERE seq NOT IN (SELECT seq FROM job_data)",
            "SELECT 'job ' || jobs.id || ': its data is no JSON' FROM jobs JOIN job_data USING (seq) \
             WHERE NOT json_valid(data)",
            "SELECT 'job ' || id || ': its options or its result are no JSON' FROM jobs \
             WHERE NOT json_valid(options) OR NOT json_valid(coalesce(returnvalue, 'null'))",
            "SELECT 'queue ' || name || ': its counts are not those of its jobs' FROM queues \
             WHERE waiting <> (SELECT count(*) FROM jobs WHERE queue = key AND state = 0) \
                OR delayed <> (SELECT count(*) FROM jobs WHERE queue = key AND state = 1) \
                OR active <> (SELECT count(*) FROM jobs WHERE queue = key AND state = 2) \
                OR completed <> (SELECT count(*) FROM jobs WHERE queue = key AND state = 3) \
                OR failed <> (SELECT count(*) FROM jobs WHERE queue = key AND state = 4)",
            "SELECT 'schedule ' || id || ': its data is no JSON' FROM schedules WHERE NOT json_valid(data)",
        ] {
            problems.extend(self.rows(&format!("{sql} LIMIT 100"), [], text)?);
        }
        Ok(problems)
    }
}
