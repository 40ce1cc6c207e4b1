//! The thread that writes: whatever waits goes into one transaction, and is acknowledged together.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::calls::gone;
use super::engine::Engine;
use super::queue::{Job, Next, Step};
use super::registry::{self, Ended};
use super::view::{Memory, Purge, Tx};
use super::{events, fault, import, kv, schema, upkeep};
use crate::disk::DirLock;
use crate::error::{Error, Result};
use crate::wake;

const LOCK_FILE: &str = "nvent.lock";

/// Most jobs in one transaction.
const MAX_GROUP: usize = 4_096;

/// Of so many it is told together that they are over.
const WOKEN_TOGETHER: usize = 256;

/// How long a transaction takes in more jobs: large ones come into several.
const MAX_GROUP_TIME: Duration = Duration::from_millis(50);

/// Pages in the WAL from which on they are moved into the database: less often costs latency, more often throughput.
const CHECKPOINT_PAGES: u64 = 4_000;

/// What writing needs. Whoever has locked it is the one that writes.
pub(super) struct Core {
    pub(super) conn: Connection,
    pub(super) memory: Memory,
    pub(super) upkeep: upkeep::Schedule,
    wal_pages: Arc<AtomicU64>,
    /// How many there were at the last checkpoint.
    checkpointed: u64,
    /// Whether a commit waits for the disk.
    syncs: bool,
    failed: Option<Error>,
    // Last, so that it is released last.
    _lock: DirLock,
}

/// Starts the writer's thread, which opens the store (once `previous` has ended) and ends with it.
pub(super) fn start(engine: Arc<Engine>, previous: Option<Arc<Ended>>) -> Result<()> {
    let name = "nvent-writer".to_owned();
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        let _end = End(&engine);
        if let Some(previous) = previous {
            previous.wait();
        }
        match Core::open(&engine) {
            Ok(core) => {
                *engine.core.lock().unwrap_or_else(PoisonError::into_inner) = Some(core);
                engine.set_open(true);
                run(&engine);
            }
            Err(error) => {
                for job in engine.queue.die(error.clone()) {
                    refuse(job, &error);
                }
            }
        }
    });
    thread.map(|_| ()).map_err(|e| Error::io(format!("cannot start the writer's thread: {e}")))
}

/// Leaves nothing behind, however the thread ends.
struct End<'e>(&'e Arc<Engine>);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let engine = self.0;
        let ended = || if std::thread::panicking() { gone() } else { Error::closed("the store") };
        let error = engine.queue.dead().unwrap_or_else(ended);
        for job in engine.queue.die(error.clone()) {
            refuse(job, &error);
        }
        engine.set_open(false);
        engine.hub.close();
        engine.readers.close();
        // The last connection moves the WAL into the database; then the lock goes.
        drop(engine.core.lock().unwrap_or_else(PoisonError::into_inner).take());
        registry::forget(&engine.dir, engine);
        engine.ended.set();
    }
}

fn refuse(job: Job, error: &Error) {
    if let Step::Done(finish) = (job.work)(Err(error)) {
        finish(&Err(error.clone()));
    }
}

fn run(engine: &Arc<Engine>) {
    let mut patience = Some(Duration::ZERO);
    loop {
        let next = engine.queue.next(patience, MAX_GROUP);
        let mut core = engine.core.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(core) = core.as_mut() else { return };
        match next {
            Next::Jobs(jobs) => {
                engine.pace.saw(jobs.len());
                core.run(engine, jobs);
            }
            Next::Nothing => {}
            Next::End => {
                core.finish_clears(engine);
                return;
            }
        }
        patience = core.maintain(engine);
    }
}

impl Core {
    fn open(engine: &Engine) -> Result<Self> {
        let lock = DirLock::take(&engine.dir, LOCK_FILE)?;
        let mut conn = schema::open_writer(&engine.dir)?;
        let wal_pages = Arc::new(AtomicU64::new(0));
        let pages = wal_pages.clone();
        conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, count: i32| {
            pages.store(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))
        .map_err(|e| fault::sql(&engine.dir, &e))?;
        let mut core = Self {
            conn,
            memory: Memory::default(),
            upkeep: upkeep::Schedule::default(),
            wal_pages,
            checkpointed: 0,
            syncs: true,
            failed: None,
            _lock: lock,
        };
        if let Some(report) = import::run(&core.conn, &engine.dir)? {
            engine.set_notice(report);
        }
        core.recall(engine)?;
        Ok(core)
    }

    /// What must be known of the last process's unfinished work.
    fn recall(&mut self, engine: &Engine) -> Result<()> {
        let view = engine.view(&self.conn);
        let (clears, epoch) = kv::unfinished(&view)?;
        let next_expiry = kv::next_expiry(&view)?;
        self.memory.id_floor = events::id_floor(&view)?;
        self.memory.kv_epoch = epoch;
        self.memory.next_expiry = next_expiry;
        self.memory.clears = clears.iter().cloned().map(Purge::resumed).collect();
        // Whether subjects wait to be purged is found out by trying.
        self.memory.purging = true;
        engine.set_clears(Arc::new(clears));
        Ok(())
    }

    /// Runs jobs in order, in as few transactions as it takes.
    pub(super) fn run(&mut self, engine: &Arc<Engine>, mut jobs: VecDeque<Job>) {
        while !jobs.is_empty() {
            match self.failed.clone() {
                Some(cause) => self.run_without(engine, &mut jobs, &fault::refused(&cause)),
                None => self.run_group(engine, &mut jobs),
            }
            self.checkpoint_if_due(engine);
        }
    }

    /// Runs one write at once, on the thread of its caller, unless that would have to wait for a lock or the disk: then
    /// it comes back.
    pub(super) fn run_now(&mut self, engine: &Arc<Engine>, job: Job) -> Option<Job> {
        let begin = || {
            self.conn.busy_timeout(Duration::ZERO)?;
            let begun = self.execute("BEGIN IMMEDIATE");
            self.conn.busy_timeout(schema::BUSY_TIMEOUT)?;
            begun
        };
        if begin().is_err() {
            // The writer will meet the same, and can wait or tell.
            return Some(job);
        }
        self.run_begun(engine, &mut [job].into(), false);
        None
    }

    /// Whether a commit would neither sync anything nor be refused.
    pub(super) fn is_quick(&self) -> bool {
        // The first commit after a checkpoint begins the WAL anew, and syncs its header.
        let begins_wal = self.wal_pages.load(Ordering::Relaxed) == self.checkpointed;
        self.failed.is_none() && !self.syncs && !begins_wal && !self.checkpoint_is_due()
    }

    /// One transaction, up to the first job that cannot go on in it.
    fn run_group(&mut self, engine: &Arc<Engine>, jobs: &mut VecDeque<Job>) {
        let durable = jobs.iter().any(|job| job.durable && job.writes);
        match self.begin(engine, durable) {
            Ok(()) => self.run_begun(engine, jobs, durable),
            Err(error) => self.run_without(engine, jobs, &error),
        }
    }

    fn run_begun(&mut self, engine: &Arc<Engine>, jobs: &mut VecDeque<Job>, durable: bool) {
        let started = Instant::now();
        let mut finishes = Vec::with_capacity(jobs.len());
        let mut long = None;
        let outcome = self.finish(engine, durable, |tx| {
            while tx.broken.is_none()
                && (finishes.is_empty() || started.elapsed() < MAX_GROUP_TIME)
                && let Some(job) = jobs.pop_front()
            {
                match (job.work)(Ok(tx)) {
                    Step::Done(finish) => finishes.push(finish),
                    Step::Long(read) => {
                        long = Some(read);
                        break;
                    }
                }
            }
        });
        let count = finishes.len() as u64;
        engine.gauges.groups.fetch_add(1, Ordering::Relaxed);
        engine.gauges.grouped.fetch_add(count, Ordering::Relaxed);
        engine.gauges.largest_group.fetch_max(count, Ordering::Relaxed);
        engine.queue.finished(count);
        // Who waits is woken once for many.
        let mut finishes = finishes.into_iter().peekable();
        while finishes.peek().is_some() {
            wake::coalesce_wakes(|| finishes.by_ref().take(WOKEN_TOGETHER).for_each(|finish| finish(&outcome)));
        }
        if let Some(read) = long {
            let reader = engine.readers.get().and_then(|reader| reader.freeze().map(|()| reader));
            engine.queue.finished(1);
            read(reader);
        }
    }

    /// Runs jobs without a transaction: reads go on, writes are refused.
    fn run_without(&mut self, engine: &Arc<Engine>, jobs: &mut VecDeque<Job>, refused: &Error) {
        while let Some(job) = jobs.pop_front() {
            let step = if job.writes {
                (job.work)(Err(refused))
            } else {
                let mut tx = Tx { view: engine.view(&self.conn), memory: &mut self.memory, broken: None };
                (job.work)(Ok(&mut tx))
            };
            engine.queue.finished(1);
            match step {
                Step::Done(finish) => finish(&Ok(())),
                Step::Long(read) => read(engine.readers.get()),
            }
        }
    }

    /// A transaction of the writer's own, for upkeep. It need not survive power loss: it would be done again.
    pub(super) fn transaction(&mut self, engine: &Engine, body: impl FnOnce(&mut Tx<'_>)) -> Result<()> {
        self.begin(engine, false)?;
        self.finish(engine, false, body)
    }

    fn begin(&mut self, engine: &Engine, durable: bool) -> Result<()> {
        let begun = self.set_syncs(durable).and_then(|()| self.execute("BEGIN IMMEDIATE"));
        begun.map_err(|e| {
            let error = fault::sql(&engine.dir, &e);
            // Another program's lock is no reason to give up for good: nothing was written.
            if !fault::is_busy(&e) {
                self.fail(engine, &error);
            }
            error
        })
    }

    /// What `body` does in the transaction that has begun. It is not committed if a statement in it broke; then, and if
    /// the commit fails, the store takes no more writes.
    fn finish(&mut self, engine: &Engine, durable: bool, body: impl FnOnce(&mut Tx<'_>)) -> Result<()> {
        let mut tx = Tx { view: engine.view(&self.conn), memory: &mut self.memory, broken: None };
        body(&mut tx);
        let Tx { view, broken, .. } = tx;
        let clears = view.clears;
        let started = Instant::now();
        let outcome = match broken {
            Some(error) => Err(error),
            None => self.execute("COMMIT").map_err(|e| fault::sql(&engine.dir, &e).maybe_applied()),
        };
        match &outcome {
            Ok(()) => {
                engine.set_clears(clears);
                if durable {
                    let took = micros(started);
                    engine.gauges.syncs.fetch_add(1, Ordering::Relaxed);
                    engine.gauges.sync_us.fetch_add(took, Ordering::Relaxed);
                    engine.gauges.slowest_sync_us.fetch_max(took, Ordering::Relaxed);
                }
            }
            Err(error) => {
                if !self.conn.is_autocommit()
                    && let Err(e) = self.execute("ROLLBACK")
                {
                    tracing::warn!(dir = %engine.dir.display(), "rolling back failed: {e}");
                }
                self.fail(engine, error);
            }
        }
        outcome
    }

    fn fail(&mut self, engine: &Engine, error: &Error) {
        engine.set_failed(error);
        self.failed.get_or_insert_with(|| error.clone());
        self.memory.subjects.clear();
        for purge in self.memory.clears.drain(..) {
            purge.reply(Err(error.clone()));
        }
    }

    /// Whether the next commits wait for the disk.
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

    /// Whether the WAL has grown enough to be moved into the database.
    pub(super) fn checkpoint_is_due(&self) -> bool {
        let pages = self.wal_pages.load(Ordering::Relaxed);
        // Fewer than at the last checkpoint: the WAL has started anew. It does not while a reader needs its old part.
        pages.checked_sub(self.checkpointed).unwrap_or(pages) >= CHECKPOINT_PAGES
    }

    fn checkpoint_if_due(&mut self, engine: &Engine) {
        let pages = self.wal_pages.load(Ordering::Relaxed);
        engine.gauges.wal_pages.store(pages, Ordering::Relaxed);
        if !self.checkpoint_is_due() || self.failed.is_some() {
            return;
        }
        let started = Instant::now();
        // Passive: it waits for nobody. What a reader still needs is left for the next time.
        let moved = self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(0));
        match moved.map_err(|e| fault::sql(&engine.dir, &e)) {
            Ok(_) => {
                self.checkpointed = pages;
                engine.gauges.checkpoints.fetch_add(1, Ordering::Relaxed);
                engine.gauges.slowest_checkpoint_us.fetch_max(micros(started), Ordering::Relaxed);
            }
            Err(error) => self.fail(engine, &error),
        }
    }

    /// Whether writes are refused.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
