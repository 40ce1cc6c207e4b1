//! Queues: jobs with priorities, delays, attempts and schedules, in memory or on disk.
//!
//! The state machine is one engine for all backends; a backend is a storage and a driver that calls the engine: in
//! memory under a lock, in a directory on a thread of its own that commits many calls together.
//!
//! | promise | memory | file |
//! |---|---|---|
//! | an acknowledged job survives | nothing | the process being killed; power loss too with [`Durability::Disk`] |
//! | a job runs | once, and again after a failure if it has attempts left | likewise, and again if the process died while it ran |
//! | workers and listeners receive a change | after it was made | after it was committed |
//!
//! A job that was with a worker when the process died runs again. That counts as an attempt if its handler had started,
//! but the last attempt may be repeated: a crash loses no job, except one that was running in each of several crashes.

mod calendar;
mod delivery;
mod driver;
mod engine;
mod events;
mod file;
mod job;
mod memory;
mod metrics;
mod options;
mod parse;
mod schedule;
mod state;
mod storage;
mod worker;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::fanout::{Mailbox, next_id};
use crate::json::{Json, check_depth};
use crate::op::Op;
use crate::sync::lock;
use crate::time::SharedClock;
use crate::topic::check_name;

use driver::{Driver, call};
use engine::{Engine, Outcome};

pub use calendar::{Calendar, Repeat};
pub use delivery::{CancelReason, Cancellation, JobDelivery, worker_mailbox};
pub use events::{EventKind, QueueEvent};
pub use file::{Durability, FileQueueOptions, QueueReader};
pub use job::{JobCounts, JobState};
pub use memory::MemoryQueueOptions;
pub use options::{Backoff, JobOptions, Keep, NewJob, ScheduleOptions, WorkerOptions};

/// The usual timeout of [`Queue::close`].
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// The life of a [`Queue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// Every call is taken.
    Open,
    /// Waiting for handlers: nothing starts, everything else is taken.
    Draining,
    /// Every call fails.
    Closed,
}

struct PhaseCell(AtomicU8);

impl PhaseCell {
    fn is(&self, phase: Phase) -> bool {
        self.0.load(Ordering::Acquire) == phase as u8
    }

    /// Moves from one phase to the next. Returns false where it was in another phase.
    fn advance(&self, from: Phase, to: Phase) -> bool {
        self.0.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// The queues of one adapter.
///
/// Every method starts its work before it returns, so calls take effect in the order in which they are made; the first
/// opens the backend. While [`Queue::close`] waits for handlers, jobs are still enqueued and read; no worker is
/// registered. When it has resolved every method fails with [`crate::error::Code::Closed`].
///
/// ```
/// use std::time::Duration;
///
/// use nvent_native::fanout::Delivery;
/// use nvent_native::queue::{MemoryQueueOptions, NewJob, Queue, WorkerOptions, worker_mailbox};
/// use nvent_native::time::system_clock;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> nvent_native::Result<()> {
/// let queue = Queue::memory(MemoryQueueOptions::default(), system_clock(), tokio::runtime::Handle::current());
/// let mailbox = worker_mailbox();
/// queue.register_worker("mails", "welcome", WorkerOptions::default(), mailbox.clone()).await?;
/// let job = NewJob::parse("job", r#"{"name":"welcome","data":{"to":"ada"},"opts":{"attempts":3}}"#)?;
/// let id = queue.enqueue("mails", job).await?;
///
/// let Some(Delivery::Item(delivery)) = mailbox.recv().await else { unreachable!("the queue is open") };
/// assert!(queue.start_attempt(&delivery), "nothing has revoked the job");
/// assert!(queue.complete(delivery.token, r#"{"sent":true}"#.into()).await?);
/// assert!(queue.job("mails", &id).await?.is_some_and(|job| job.contains(r#""state":"completed""#)));
/// queue.close(Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
pub struct Queue {
    name: &'static str,
    driver: Arc<dyn Driver>,
    /// Identifies the workers and listeners of this adapter among those on the same directory.
    owner: u64,
    defaults: JobOptions,
    clock: SharedClock,
    runtime: Handle,
    phase: Arc<PhaseCell>,
    /// Jobs whose handlers are called by token, with [`Queue::start_accepted`].
    accepted: Mutex<HashMap<u64, JobDelivery>>,
    /// Whether workers of further queues wait for [`Queue::start`].
    holds_workers: AtomicBool,
    closed: watch::Sender<bool>,
}

impl Queue {
    /// Creates queues in memory.
    pub fn memory(options: MemoryQueueOptions, clock: SharedClock, runtime: Handle) -> Self {
        let driver = memory::MemoryDriver::start(&runtime, clock.clone());
        Self::new("memory", driver, options.default_job_options, clock, runtime)
    }

    /// Creates queues in a directory, which is created on first use. Queues of one process on one directory share it
    /// (and the clock of the first); another process gets [`crate::error::Code::Locked`].
    pub fn file(options: FileQueueOptions, clock: SharedClock, runtime: Handle) -> Self {
        let driver = file::FileDriver::new(options.data_dir, options.durability, clock.clone());
        Self::new("file", driver, options.default_job_options, clock, runtime)
    }

    fn new(
        name: &'static str,
        driver: Arc<dyn Driver>,
        defaults: JobOptions,
        clock: SharedClock,
        runtime: Handle,
    ) -> Self {
        let (phase, closed) = (Arc::new(PhaseCell(AtomicU8::new(Phase::Open as u8))), watch::Sender::new(false));
        Self {
            name,
            driver,
            owner: next_id(),
            defaults,
            clock,
            runtime,
            phase,
            accepted: Mutex::default(),
            holds_workers: AtomicBool::new(false),
            closed,
        }
    }

    /// Returns `memory` or `file`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    fn call<T: Send + 'static>(&self, work: impl FnOnce(&mut Engine) -> Result<T> + Send + 'static) -> Op<T> {
        if self.phase.is(Phase::Closed) {
            return Op::err(Error::closed("the queue"));
        }
        call(&self.driver, work)
    }

    /// Checks the name of a queue and calls the engine.
    fn on_queue<T: Send + 'static>(
        &self,
        queue: &str,
        work: impl FnOnce(&mut Engine, Arc<str>) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        if let Err(error) = check_name("queue", queue) {
            return Op::err(error);
        }
        let queue: Arc<str> = queue.into();
        self.call(move |engine| work(engine, queue))
    }

    /// Checks the names of a queue and a job and calls the engine.
    fn on_job<T: Send + 'static>(
        &self,
        queue: &str,
        path: &str,
        id: &str,
        work: impl FnOnce(&mut Engine, &str, &str) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        if let Err(error) = check_name(path, id) {
            return Op::err(error);
        }
        let id: Arc<str> = id.into();
        self.on_queue(queue, move |engine, queue| work(engine, &queue, &id))
    }

    /// Opens the backend. Every other method does so on first use.
    pub fn open(&self) -> Op<()> {
        self.call(Engine::open)
    }

    /// Adds a job. Returns its id. If a job of the same id exists, in whatever state, nothing changes.
    pub fn enqueue(&self, queue: &str, mut job: NewJob) -> Op<Arc<str>> {
        job.options = job.options.or(&self.defaults);
        self.on_queue(queue, move |engine, queue| engine.enqueue(&queue, job))
    }

    /// Adds a delayed or repeating job. Returns the id of the job, or of the schedule. A schedule has the `jobId`, or an
    /// id made of queue, name and pattern (with the queue appended where another queue has that id); scheduling it again
    /// in its queue replaces the schedule, and keeps the count and
    /// the next time where queue and pattern are the same. Times missed while nothing ran fire once.
    pub fn schedule(&self, queue: &str, mut job: NewJob, when: ScheduleOptions) -> Op<Arc<str>> {
        job.options = job.options.or(&self.defaults);
        self.on_queue(queue, move |engine, queue| engine.schedule(&queue, job, when))
    }

    /// Reads a job: `{ id, name, data, opts, state, attemptsMade, timestamp, … }`.
    pub fn job(&self, queue: &str, id: &str) -> Op<Option<Json>> {
        self.on_job(queue, "id", id, |engine, queue, id| engine.job(queue, id))
    }

    /// Reads a page of jobs of these states (all states where none is named), one state after the other: the job that
    /// runs next comes first, of ended jobs the newest.
    pub fn jobs(&self, queue: &str, states: &[JobState], offset: u64, limit: Option<u64>) -> Op<Vec<Json>> {
        let states = if states.is_empty() { JobState::ALL.to_vec() } else { states.to_vec() };
        let limit = limit.unwrap_or(u64::MAX);
        self.on_queue(queue, move |engine, queue| engine.jobs(&queue, &states, offset, limit))
    }

    /// Returns the number of jobs in each state, in constant time.
    pub fn counts(&self, queue: &str) -> Op<JobCounts> {
        self.on_queue(queue, |engine, queue| engine.counts(&queue))
    }

    /// Lists the schedules of a queue: `{ id, jobName, queueName, pattern, cron, tz?, limit?, repeatCount, nextRun }`, with
    /// `nextRun` in ms.
    pub fn scheduled(&self, queue: &str) -> Op<Vec<Json>> {
        self.on_queue(queue, |engine, queue| engine.scheduled(&queue))
    }

    /// Removes a schedule, or a delayed job that has not been tried. Returns whether it existed. Jobs that a schedule
    /// enqueued stay.
    pub fn remove_scheduled(&self, id: &str) -> Op<bool> {
        if let Err(error) = check_name("scheduleId", id) {
            return Op::err(error);
        }
        let id: Arc<str> = id.into();
        self.call(move |engine| engine.remove_schedule(&id))
    }

    /// Removes a job. Returns whether it existed. The outcome of a running job is ignored; its slot is free once its
    /// handler settles.
    pub fn remove_job(&self, queue: &str, id: &str) -> Op<bool> {
        self.on_job(queue, "jobId", id, |engine, queue, id| engine.remove_job(queue, id))
    }

    /// Returns whether the queue is paused.
    pub fn is_paused(&self, queue: &str) -> Op<bool> {
        self.on_queue(queue, |engine, queue| engine.is_paused(&queue))
    }

    /// Pauses a queue: no job starts until it is resumed, on file also after a restart.
    pub fn pause(&self, queue: &str) -> Op<()> {
        let owner = self.owner;
        self.on_queue(queue, move |engine, queue| engine.set_paused(owner, &queue, true))
    }

    /// Resumes a queue, and starts workers that were registered with `autorun: false`.
    pub fn resume(&self, queue: &str) -> Op<()> {
        let owner = self.owner;
        self.on_queue(queue, move |engine, queue| engine.set_paused(owner, &queue, false))
    }

    /// Subscribes a mailbox to the events of a queue. Returns the id for [`Queue::off`].
    pub fn on(&self, queue: &str, kind: EventKind, mailbox: Arc<Mailbox<QueueEvent>>) -> Op<u64> {
        let owner = self.owner;
        self.on_queue(queue, move |engine, queue| Ok(engine.subscribe(owner, &queue, kind, mailbox)))
    }

    /// Removes a subscription of [`Queue::on`] and closes its mailbox.
    pub fn off(&self, id: u64) -> Op<()> {
        self.call(move |engine| {
            engine.unsubscribe(id);
            Ok(())
        })
    }

    /// Registers a worker for the jobs of a name in a queue. They are pushed to the mailbox (see [`worker_mailbox`]); while
    /// [`Queue::hold_workers`] is set, once [`Queue::start`] was called. The first worker of a queue decides how many of its jobs run at the same time.
    /// Registering a name again replaces its worker. A job whose name has no worker waits.
    ///
    /// The receiver of a [`JobDelivery`] calls [`Queue::start_attempt`], then the handler, then [`Queue::complete`] or [`Queue::fail`].
    pub fn register_worker(
        &self,
        queue: &str,
        job_name: &str,
        options: WorkerOptions,
        mailbox: Arc<Mailbox<JobDelivery>>,
    ) -> Op<u64> {
        if let Err(error) = check_name("jobName", job_name) {
            return Op::err(error);
        }
        if !self.phase.is(Phase::Open) {
            return Op::err(Error::closed("the queue"));
        }
        let (owner, name): (u64, Arc<str>) = (self.owner, job_name.into());
        let is_held = self.holds_workers.load(Ordering::Acquire);
        self.on_queue(queue, move |engine, queue| engine.register(owner, &queue, &name, options, is_held, mailbox))
    }

    /// Sets whether the workers of queues that have none yet wait for [`Queue::start`]. A caller that registers many
    /// handlers sets it, so that no job meets a queue without its handler.
    pub fn hold_workers(&self, is_held: bool) {
        self.holds_workers.store(is_held, Ordering::Release);
    }

    /// Makes a failed job wait for one more attempt. Returns false where it has not failed.
    pub fn retry_job(&self, queue: &str, id: &str) -> Op<bool> {
        self.on_job(queue, "jobId", id, |engine, queue, id| engine.retry_job(queue, id))
    }

    /// Returns what an acknowledged change survives: the most that an adapter on the directory asked for.
    pub fn durability(&self) -> Op<Durability> {
        self.call(Engine::durability)
    }

    /// Returns a random text that identifies the jobs: on file it stays the same for a directory, also after a restart; in
    /// memory it is new for each adapter.
    pub fn identity(&self) -> Op<Arc<str>> {
        self.call(Engine::identity)
    }

    /// Copies all queues, as they are at this moment, into a new file; an existing one is not replaced. Other calls wait
    /// meanwhile. To restore, put the copy into an empty directory under the name `queue.db`.
    pub fn backup(&self, path: &Path) -> Op<()> {
        let path = path.to_owned();
        self.call(move |engine| engine.backup(&path)).and_then(|copied| copied)
    }

    /// Reads everything. Returns what is wrong, in words. Other calls wait meanwhile.
    pub fn verify(&self) -> Op<Vec<String>> {
        self.call(Engine::verify).and_then(|found| found)
    }

    /// Starts the workers of a queue that are held.
    pub fn start(&self, queue: &str) -> Op<()> {
        if !self.phase.is(Phase::Open) {
            return Op::err(Error::closed("the queue"));
        }
        let owner = self.owner;
        self.on_queue(queue, move |engine, queue| engine.start(owner, &queue))
    }

    /// Sets the mailbox that receives the cancellations of this adapter's attempts: timed out, removed, closed.
    pub fn set_cancellations(&self, mailbox: Arc<Mailbox<Cancellation>>) -> Op<()> {
        let owner = self.owner;
        self.call(move |engine| {
            engine.set_cancellations(owner, mailbox);
            Ok(())
        })
    }

    /// Keeps a delivery whose handler will be called by token. Returns false where it was revoked.
    pub fn accept(&self, delivery: JobDelivery) -> bool {
        let is_open = delivery.claim.is_open();
        if is_open {
            lock(&self.accepted).insert(delivery.token, delivery);
        }
        is_open
    }

    /// Starts the attempt of an accepted delivery, as [`Queue::start_attempt`] does.
    pub fn start_accepted(&self, token: u64) -> bool {
        let delivery = lock(&self.accepted).remove(&token);
        delivery.is_some_and(|delivery| self.start_attempt(&delivery))
    }

    /// Records that the handler of a job is called now: the attempt counts, and its timeout runs. Returns false where the
    /// job was revoked, and the handler must not be called. Does not wait for the storage.
    pub fn start_attempt(&self, delivery: &JobDelivery) -> bool {
        if !delivery.claim.start() {
            return false;
        }
        let (token, at, now) = (delivery.token, Instant::now(), self.clock.monotonic_ms());
        // A failure of the storage is reported by the outcome as well.
        drop(call(&self.driver, move |engine| engine.mark_started(token, at, now)));
        true
    }

    /// Frees the place of an attempt whose handler has settled. Its outcome follows with [`Queue::complete`] or
    /// [`Queue::fail`], when what the handler wrote is stored: the timeout has ended, and the next job may start.
    pub fn handler_settled(&self, token: u64) -> Op<()> {
        let at = Instant::now();
        call(&self.driver, move |engine| {
            engine.handler_settled(token, at);
            Ok(())
        })
    }

    /// Completes an attempt with the handler's result. An object with `awaiting: true` removes the job, so that its id
    /// can be enqueued again. Returns false where the attempt was over: timed out, or its job removed.
    pub fn complete(&self, token: u64, result: Json) -> Op<bool> {
        if let Err(error) = check_depth("the job's result", &result) {
            return self.fail(token, error.message());
        }
        self.settle(token, Outcome::Completed(result))
    }

    /// Fails an attempt. Returns the same as [`Queue::complete`].
    pub fn fail(&self, token: u64, reason: &str) -> Op<bool> {
        let reason: Arc<str> = reason.into();
        self.settle(token, Outcome::Failed(reason))
    }

    fn settle(&self, token: u64, outcome: Outcome) -> Op<bool> {
        let at = Instant::now();
        call(&self.driver, move |engine| {
            engine.handler_settled(token, at);
            engine.outcome(token, outcome)
        })
    }

    /// Stores the progress of an attempt, any JSON. Returns false where the attempt was over.
    pub fn progress(&self, token: u64, progress: Json) -> Op<bool> {
        if let Err(error) = check_depth("progress", &progress) {
            return Op::err(error);
        }
        call(&self.driver, move |engine| engine.progress(token, progress))
    }

    /// Runs what is due by the clock now. For tests with a manual clock: timers call it otherwise.
    pub fn tick(&self) -> Op<()> {
        self.open()
    }

    /// Stops the workers of this adapter: no further job starts, and jobs that have not started wait again. Resolves when
    /// the running handlers have ended, at the latest after `timeout`. Every other call goes on: what is enqueued is
    /// stored for the next start. Followed by [`Queue::close`].
    pub fn drain(&self, timeout: Duration) -> Op<()> {
        let owner = self.owner;
        let drained = self.call(move |engine| engine.begin_close(owner));
        Op::pending(async move {
            _ = tokio::time::timeout(timeout, drained.await?).await;
            Ok(())
        })
    }

    /// Closes the queues: no job starts any more, jobs that have not started wait again, and handlers have until the
    /// timeout. Jobs that are enqueued meanwhile are stored. Jobs that still run at the timeout are interrupted, and their outcomes ignored. Returns how many those were, 0 on a
    /// second call. Resolves when every resource is released.
    pub fn close(&self, timeout: Duration) -> Op<usize> {
        if !self.phase.advance(Phase::Open, Phase::Draining) {
            let mut closed = self.closed.subscribe();
            return Op::pending(async move {
                // The sender lives in the closing task or in the queue: an error means that both ended.
                _ = closed.wait_for(|closed| *closed).await;
                Ok(0)
            });
        }
        let (driver, owner, closed) = (self.driver.clone(), self.owner, self.closed.clone());
        let phase = self.phase.clone();
        let closing = call(&driver, move |engine| engine.begin_close(owner));
        let task = self.runtime.spawn(async move {
            // A failure of the storage was reported by the calls that met it.
            if let Ok(drained) = closing.await {
                _ = tokio::time::timeout(timeout, drained).await;
            }
            phase.advance(Phase::Draining, Phase::Closed);
            let interrupted = call(&driver, move |engine| engine.force_close(owner)).await.unwrap_or(0);
            let ended = driver.end().await;
            closed.send_replace(true);
            ended.map(|()| interrupted)
        });
        Op::pending(async move { task.await.unwrap_or_else(|_| Err(Error::closed("the runtime of the queue"))) })
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if self.phase.is(Phase::Open) {
            let owner = self.owner;
            drop(call(&self.driver, move |engine| engine.begin_close(owner).map(|_| ())));
            drop(call(&self.driver, move |engine| engine.force_close(owner)));
            drop(self.driver.end());
        }
    }
}
