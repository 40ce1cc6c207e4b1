//! Transactions: queued jobs are committed in groups, and acknowledged together.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::config::DB_FILE;
use super::shared::Shared;
use super::view::{Purge, Tx, WriterCache};
use super::write_queue::{Step, WriteJob};
use super::{errors, events, feed, import, kv, schema};
use crate::disk::{self, DirLock, FileId};
use crate::error::{Error, Result};
use crate::wake;

const LOCK_FILE: &str = "nvent.lock";

/// Jobs that are acknowledged in one batch of wake-ups.
const MAX_COALESCED_WAKES: usize = 256;

/// How long a transaction takes in more jobs; then the next one begins.
const GROUP_TIMEOUT: Duration = Duration::from_millis(50);

/// Pages in the WAL at which they are moved into the database. More make a checkpoint slower, fewer make it more frequent.
const CHECKPOINT_PAGE_LIMIT: u64 = 4_000;

/// The value of `PRAGMA auto_vacuum` for [`WriterState::vacuum_step`].
const INCREMENTAL: i64 = 2;

/// Free pages that are kept to be used again: this many (4 MB), or one of so many pages of the file.
const MIN_FREE_PAGES: i64 = 1_000;
const MAX_FREE_SHARE: i64 = 4;

/// The connection that writes, and what it needs. The holder of its lock is the only one that writes.
pub(super) struct WriterState {
    pub(super) conn: Connection,
    pub(super) cache: WriterCache,
    wal_pages: Arc<AtomicU64>,
    /// Pages in the WAL at the last checkpoint.
    checkpointed: u64,
    /// Commits wait for the disk.
    syncs: bool,
    failed: Option<Error>,
    path: PathBuf,
    file: FileId,
    // After the connection, see `DirLock::take_data`. None where the store is only read.
    #[cfg(unix)]
    _data_lock: Option<DirLock>,
    // Last, so that it is released last.
    _lock: Option<DirLock>,
}

impl WriterState {
    /// Locks the directory, opens the database and imports what an older store left.
    pub(super) fn open(shared: &Shared) -> Result<Self> {
        let is_written = !shared.is_read_only();
        let lock = is_written.then(|| DirLock::take(&shared.dir, LOCK_FILE)).transpose()?;
        if is_written {
            disk::check_log(&shared.dir, DB_FILE)?;
        }
        #[cfg(unix)]
        let data_lock = is_written.then(|| DirLock::take_data(&shared.dir, DB_FILE)).transpose()?;
        let mut conn = if is_written { schema::open_writer(&shared.dir) } else { schema::open_to_read(&shared.dir) }?;
        let path = shared.dir.join(DB_FILE);
        let file = FileId::of(&path).map_err(|e| disk::failed("find the database", &path, &e))?;
        let wal_pages = Arc::new(AtomicU64::new(0));
        let pages = wal_pages.clone();
        conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, count: i32| {
            pages.store(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))
        .map_err(|e| errors::sql(&shared.dir, &e))?;
        let mut state = Self {
            conn,
            cache: WriterCache::default(),
            wal_pages,
            checkpointed: 0,
            syncs: true,
            // Every write is refused.
            failed: (!is_written).then(|| errors::read_only(&shared.dir)),
            path,
            file,
            #[cfg(unix)]
            _data_lock: data_lock,
            _lock: lock,
        };
        if is_written && let Some(report) = import::run(&state.conn, &shared.dir, shared.clock.now_ms())? {
            shared.set_notice(report);
        }
        state.load_unfinished(shared)?;
        Ok(state)
    }

    /// Loads the unfinished work of the last process.
    fn load_unfinished(&mut self, shared: &Shared) -> Result<()> {
        let view = shared.view(&self.conn);
        let (clears, epoch) = kv::unfinished(&view)?;
        let next_expiry = kv::next_expiry(&view)?;
        self.cache.id_floor = events::id_floor(&view)?;
        self.cache.has_future_floors = events::has_future_floors(&view)?;
        self.cache.newest = feed::newest(&view)?;
        shared.feed.notify(self.cache.newest);
        self.cache.kv_epoch = epoch;
        self.cache.next_expiry = next_expiry;
        self.cache.clears = clears.iter().cloned().map(Purge::resumed).collect();
        // The first purge finds out whether there are deleted subjects.
        self.cache.purging = true;
        shared.set_clears(Arc::new(clears));
        Ok(())
    }

    /// Runs jobs in order, in as few transactions as possible.
    pub(super) fn run(&mut self, shared: &Shared, mut jobs: VecDeque<WriteJob>) {
        while !jobs.is_empty() {
            match self.failed.clone() {
                Some(cause) => self.run_without(shared, &mut jobs, &errors::refused(&cause)),
                None => self.run_group(shared, &mut jobs),
            }
            self.checkpoint_if_due(shared);
        }
    }

    /// Commits one write on the thread of its caller. Returns the job if that would have to wait for a lock.
    pub(super) fn run_now(&mut self, shared: &Shared, job: WriteJob) -> Option<WriteJob> {
        let begin = || {
            self.conn.busy_timeout(Duration::ZERO)?;
            let begun = self.execute("BEGIN IMMEDIATE");
            self.conn.busy_timeout(schema::BUSY_TIMEOUT)?;
            begun
        };
        if begin().is_err() {
            // The writer's thread can wait for the lock, and reports an error.
            return Some(job);
        }
        self.run_begun(shared, &mut [job].into(), false);
        None
    }

    /// Returns whether a commit would neither sync anything nor be refused.
    pub(super) fn is_quick(&mut self) -> bool {
        if self.was_replaced() {
            return false;
        }
        // The first commit after a checkpoint begins the WAL anew, and syncs its header.
        let begins_wal = self.wal_pages.load(Ordering::Relaxed) == self.checkpointed;
        self.failed.is_none() && !self.syncs && !begins_wal && !self.checkpoint_is_due()
    }

    /// Commits one transaction, up to the first job that cannot run in it.
    fn run_group(&mut self, shared: &Shared, jobs: &mut VecDeque<WriteJob>) {
        let durable = jobs.iter().any(|job| job.durable && job.writes);
        match self.begin(shared, durable) {
            Ok(()) => self.run_begun(shared, jobs, durable),
            Err(error) => self.run_without(shared, jobs, &error),
        }
    }

    fn run_begun(&mut self, shared: &Shared, jobs: &mut VecDeque<WriteJob>, durable: bool) {
        let started = Instant::now();
        let mut finishes = Vec::with_capacity(jobs.len());
        let mut detached = None;
        let outcome = self.commit(shared, durable, |tx| {
            while tx.broken.is_none()
                && (finishes.is_empty() || started.elapsed() < GROUP_TIMEOUT)
                && let Some(job) = jobs.pop_front()
            {
                match (job.work)(Ok(tx)) {
                    Step::Done(finish) => finishes.push(finish),
                    Step::Detach(read) => {
                        detached = Some(read);
                        break;
                    }
                }
            }
        });
        let count = finishes.len() as u64;
        shared.gauges.groups.fetch_add(1, Ordering::Relaxed);
        shared.gauges.grouped.fetch_add(count, Ordering::Relaxed);
        shared.gauges.largest_group.fetch_max(count, Ordering::Relaxed);
        shared.queue.finished(count);
        let mut finishes = finishes.into_iter().peekable();
        while finishes.peek().is_some() {
            wake::coalesce_wakes(|| finishes.by_ref().take(MAX_COALESCED_WAKES).for_each(|finish| finish(&outcome)));
        }
        if let Some(read) = detached {
            let reader = shared.readers.get().and_then(|reader| reader.begin_snapshot().map(|()| reader));
            shared.queue.finished(1);
            read(reader);
        }
    }

    /// Runs jobs without a transaction: reads run, writes are refused.
    fn run_without(&mut self, shared: &Shared, jobs: &mut VecDeque<WriteJob>, error: &Error) {
        while let Some(job) = jobs.pop_front() {
            let step = if job.writes {
                (job.work)(Err(error))
            } else {
                let mut tx = Tx { view: shared.view(&self.conn), cache: &mut self.cache, broken: None };
                (job.work)(Ok(&mut tx))
            };
            shared.queue.finished(1);
            match step {
                Step::Done(finish) => finish(&Ok(())),
                Step::Detach(read) => read(shared.readers.get()),
            }
        }
    }

    /// Commits a transaction of background work. It need not survive power loss, because it would be done again.
    pub(super) fn transaction(&mut self, shared: &Shared, body: impl FnOnce(&mut Tx<'_>)) -> Result<()> {
        self.begin(shared, false)?;
        self.commit(shared, false, body)
    }

    /// Returns whether the database was deleted, replaced or emptied: what is written would be in no file that can be read.
    fn was_replaced(&mut self) -> bool {
        !self.file.is_still_at(&self.path)
    }

    fn begin(&mut self, shared: &Shared, durable: bool) -> Result<()> {
        if self.was_replaced() {
            let error = errors::replaced(&self.path);
            self.fail(shared, &error);
            return Err(error);
        }
        let begun = self.set_syncs(durable).and_then(|()| self.execute("BEGIN IMMEDIATE"));
        begun.map_err(|e| {
            let error = errors::sql(&shared.dir, &e);
            // Another program's lock does not fail the store: nothing was written.
            if !errors::is_busy(&e) {
                self.fail(shared, &error);
            }
            error
        })
    }

    /// Runs `body` in the transaction that has begun, and commits it. If a statement in it failed it is rolled back; then,
    /// and if the commit fails, the store takes no more writes.
    fn commit(&mut self, shared: &Shared, durable: bool, body: impl FnOnce(&mut Tx<'_>)) -> Result<()> {
        let mut tx = Tx { view: shared.view(&self.conn), cache: &mut self.cache, broken: None };
        body(&mut tx);
        let Tx { view, broken, .. } = tx;
        let clears = view.clears;
        let started = Instant::now();
        let outcome = match broken {
            Some(error) => Err(error),
            None => self.execute("COMMIT").map_err(|e| errors::sql(&shared.dir, &e).maybe_applied()),
        };
        match &outcome {
            Ok(()) => {
                shared.set_clears(clears);
                if durable {
                    let took = micros(started);
                    shared.gauges.syncs.fetch_add(1, Ordering::Relaxed);
                    shared.gauges.sync_us.fetch_add(took, Ordering::Relaxed);
                    shared.gauges.slowest_sync_us.fetch_max(took, Ordering::Relaxed);
                    shared.gauges.sync_seconds.observe(Duration::from_micros(took));
                }
            }
            Err(error) => {
                if !self.conn.is_autocommit()
                    && let Err(e) = self.execute("ROLLBACK")
                {
                    tracing::warn!(code = "NVENT_IO", dir = %shared.dir.display(), "rolling back failed: {e}");
                }
                self.fail(shared, error);
            }
        }
        outcome
    }

    fn fail(&mut self, shared: &Shared, error: &Error) {
        shared.set_failed(error);
        self.failed.get_or_insert_with(|| error.clone());
        self.cache.subjects.clear();
        for purge in self.cache.clears.drain(..) {
            purge.reply(Err(error.clone()));
        }
    }

    /// Sets whether the next commits wait for the disk.
    fn set_syncs(&mut self, durable: bool) -> rusqlite::Result<()> {
        if self.syncs != durable {
            self.conn.execute_batch(if durable {
                "PRAGMA synchronous = FULL"
            } else {
                "PRAGMA synchronous = NORMAL"
            })?;
            self.syncs = durable;
        }
        Ok(())
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute([]).map(|_| ())
    }

    /// Returns whether the WAL has grown enough to be moved into the database.
    pub(super) fn checkpoint_is_due(&self) -> bool {
        let pages = self.wal_pages.load(Ordering::Relaxed);
        // Fewer than at the last checkpoint: the WAL has started anew. It does not while a reader needs its old part.
        pages.checked_sub(self.checkpointed).unwrap_or(pages) >= CHECKPOINT_PAGE_LIMIT
    }

    fn checkpoint_if_due(&mut self, shared: &Shared) {
        let pages = self.wal_pages.load(Ordering::Relaxed);
        shared.gauges.wal_pages.store(pages, Ordering::Relaxed);
        if self.checkpoint_is_due() && self.failed.is_none() {
            self.checkpoint(shared);
        }
    }

    /// Gives free pages back to the file system, at most `limit`, if they are many. Returns whether there are more.
    pub(super) fn vacuum_step(&mut self, shared: &Shared, limit: i64) -> bool {
        let vacuum = || {
            let pragma = |name: &str| self.conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            let (pages, free) = (pragma("page_count")?, pragma("freelist_count")?);
            if pragma("auto_vacuum")? != INCREMENTAL || free < MIN_FREE_PAGES.max(pages / MAX_FREE_SHARE) {
                return Ok(false);
            }
            let mut statement = self.conn.prepare(&format!("PRAGMA incremental_vacuum({limit})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(true)
        };
        match vacuum() {
            Ok(true) => true,
            Ok(false) => {
                // The file shrinks when the pages are moved into it.
                if self.wal_pages.load(Ordering::Relaxed) != self.checkpointed {
                    self.checkpoint(shared);
                }
                false
            }
            Err(e) => {
                let error: rusqlite::Error = e;
                tracing::warn!(code = "NVENT_IO", dir = %shared.dir.display(), "free pages could not be given back: {error}");
                false
            }
        }
    }

    fn checkpoint(&mut self, shared: &Shared) {
        let pages = self.wal_pages.load(Ordering::Relaxed);
        let started = Instant::now();
        // Passive: it does not wait for readers. What one still needs is moved by the next checkpoint.
        let moved = self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(0));
        match moved.map_err(|e| errors::sql(&shared.dir, &e)) {
            Ok(_) => {
                self.checkpointed = pages;
                shared.gauges.checkpoints.fetch_add(1, Ordering::Relaxed);
                shared.gauges.slowest_checkpoint_us.fetch_max(micros(started), Ordering::Relaxed);
            }
            Err(error) => self.fail(shared, &error),
        }
    }

    /// Returns whether writes are refused.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
