//! Queues: jobs that wait, run on workers, are tried again, repeat, and, on disk, survive.
//!
//! One [`engine`](self) decides everything; what differs is where jobs are kept and how calls get there: in memory,
//! at once and under a lock, or in a directory, by a thread of its own that commits many calls together.
//!
//! | promise | memory | file |
//! |---|---|---|
//! | an acknowledged job survives | nothing | the process being killed; power loss too with [`Durability::Disk`] |
//! | a job runs | once, and again after a failure if it has attempts left | likewise, and again if the process died while it ran |
//! | workers and listeners hear of a change | after it was made | after it was committed |
//!
//! A job that was with a worker when the process died runs again. That counts as an attempt if its handler had begun,
//! but the last attempt may be repeated: a job is not lost to a crash, unless it was there each time of several.

mod driver;
mod engine;
mod events;
mod file;
mod job;
mod lane;
mod memory;
mod options;
mod schedule;
mod storage;
mod worker;

#[cfg(test)]
mod conformance;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::fanout::{Mailbox, next_id};
use crate::json::{Json, check_depth};
use crate::op::Op;
use crate::time::SharedClock;
use crate::topic::check_name;

use driver::{Driver, call};
use engine::{Engine, Outcome};

pub use events::{EventKind, QueueEvent, Run, worker_mailbox};
pub use file::Durability;
pub use job::{JobCounts, JobState};
pub use options::{Backoff, JobOptions, Keep, NewJob, Repeat, ScheduleOptions, WorkerOptions};

/// How long [`Queue::close`] usually waits for handlers.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// One adapter's queues.
///
/// Every method starts its work before it returns, so calls take effect in the order in which they are made; the first
/// opens the backend. After [`Queue::close`] every method fails with [`crate::error::Code::Closed`].
pub struct Queue {
    name: &'static str,
    driver: Arc<dyn Driver>,
    /// Tells this adapter's workers and listeners from those of others on the same directory.
    owner: u64,
    defaults: JobOptions,
    clock: SharedClock,
    runtime: Handle,
    closing: AtomicBool,
    closed: watch::Sender<bool>,
}

impl Queue {
    /// Queues in memory. `defaults` are for options that a job does not have.
    pub fn memory(defaults: JobOptions, clock: SharedClock, runtime: Handle) -> Self {
        let driver = memory::MemoryDriver::start(&runtime, clock.clone());
        Self::new("memory", driver, defaults, clock, runtime)
    }

    /// Queues in a directory, which is created when it is first needed. Queues of one process on one directory share
    /// it (and the clock of the first); another process gets [`crate::error::Code::Locked`].
    pub fn file(
        dir: impl Into<PathBuf>,
        durability: Durability,
        defaults: JobOptions,
        clock: SharedClock,
        runtime: Handle,
    ) -> Self {
        let driver = file::FileDriver::new(dir.into(), durability, clock.clone());
        Self::new("file", driver, defaults, clock, runtime)
    }

    fn new(
        name: &'static str,
        driver: Arc<dyn Driver>,
        defaults: JobOptions,
        clock: SharedClock,
        runtime: Handle,
    ) -> Self {
        let (closing, closed) = (AtomicBool::new(false), watch::Sender::new(false));
        Self { name, driver, owner: next_id(), defaults, clock, runtime, closing, closed }
    }

    /// `memory` or `file`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    fn call<T: Send + 'static>(&self, work: impl FnOnce(&mut Engine) -> Result<T> + Send + 'static) -> Op<T> {
        if self.closing.load(Ordering::Acquire) {
            return Op::err(Error::closed("the queue"));
        }
        call(&self.driver, work)
    }

    /// Calls something on a queue, if it can be the name of one.
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

    /// Calls something on a job, if there can be one of that id.
    fn on_job<T: Send + 'static>(
        &self,
        queue: &str,
        what: &str,
        id: &str,
        work: impl FnOnce(&mut Engine, &str, &str) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        if let Err(error) = check_name(what, id) {
            return Op::err(error);
        }
        let id: Arc<str> = id.into();
        self.on_queue(queue, move |engine, queue| work(engine, &queue, &id))
    }

    /// Makes it usable. Every other method does so on first use.
    pub fn open(&self) -> Op<()> {
        self.call(Engine::open)
    }

    /// Adds a job; the id that it has. A job that is there already under its id, in whatever state, is left as it is.
    pub fn enqueue(&self, queue: &str, mut job: NewJob) -> Op<Arc<str>> {
        job.options = job.options.or(&self.defaults);
        self.on_queue(queue, move |engine, queue| engine.enqueue(&queue, job))
    }

    /// Adds a job that runs later, or again and again: the id of the job, or of the schedule. A schedule has the
    /// `jobId`, or an id made of queue, name and pattern; scheduling under an id again replaces what is there, and keeps
    /// the count and the next time where queue and pattern are the same. Times missed while nothing ran fire once.
    pub fn schedule(&self, queue: &str, mut job: NewJob, when: ScheduleOptions) -> Op<Arc<str>> {
        job.options = job.options.or(&self.defaults);
        self.on_queue(queue, move |engine, queue| engine.schedule(&queue, job, when))
    }

    /// One job: `{ id, name, data, opts, state, attemptsMade, timestamp, … }`.
    pub fn job(&self, queue: &str, id: &str) -> Op<Option<Json>> {
        self.on_job(queue, "id", id, |engine, queue, id| engine.job(queue, id))
    }

    /// A page of jobs of these states (all of them where none is named), one state after the other: what runs next
    /// comes first, of what has ended the newest.
    pub fn jobs(&self, queue: &str, states: &[JobState], offset: u64, limit: Option<u64>) -> Op<Vec<Json>> {
        let states = if states.is_empty() { JobState::ALL.to_vec() } else { states.to_vec() };
        let limit = limit.unwrap_or(u64::MAX);
        self.on_queue(queue, move |engine, queue| engine.jobs(&queue, &states, offset, limit))
    }

    /// How many jobs there are in each state, without counting them.
    pub fn counts(&self, queue: &str) -> Op<JobCounts> {
        self.on_queue(queue, |engine, queue| engine.counts(&queue))
    }

    /// The schedules of a queue: `{ id, jobName, queueName, pattern, cron, tz?, limit?, repeatCount, nextRun }`, with
    /// `nextRun` in ms.
    pub fn scheduled(&self, queue: &str) -> Op<Vec<Json>> {
        self.on_queue(queue, |engine, queue| engine.scheduled(&queue))
    }

    /// Ends a schedule; whether it was there. Jobs that it made stay.
    pub fn remove_scheduled(&self, id: &str) -> Op<bool> {
        if let Err(error) = check_name("scheduleId", id) {
            return Op::err(error);
        }
        let id: Arc<str> = id.into();
        self.call(move |engine| engine.remove_schedule(&id))
    }

    /// Removes a job; whether it was there. If it runs, its outcome changes nothing, and it keeps its slot until then.
    pub fn remove_job(&self, queue: &str, id: &str) -> Op<bool> {
        self.on_job(queue, "jobId", id, |engine, queue, id| engine.remove_job(queue, id))
    }

    /// Whether the queue is paused.
    pub fn is_paused(&self, queue: &str) -> Op<bool> {
        self.on_queue(queue, |engine, queue| engine.is_paused(&queue))
    }

    /// No job of the queue starts until it is resumed, on file also after a restart.
    pub fn pause(&self, queue: &str) -> Op<()> {
        let owner = self.owner;
        self.on_queue(queue, move |engine, queue| engine.set_paused(owner, &queue, true))
    }

    /// Goes on, and starts workers that were registered with `autorun: false`.
    pub fn resume(&self, queue: &str) -> Op<()> {
        let owner = self.owner;
        self.on_queue(queue, move |engine, queue| engine.set_paused(owner, &queue, false))
    }

    /// Puts events of a queue into a mailbox, from now on. The id is for [`Queue::off`].
    pub fn on(&self, queue: &str, kind: EventKind, mailbox: Arc<Mailbox<QueueEvent>>) -> Op<u64> {
        let owner = self.owner;
        self.on_queue(queue, move |engine, queue| Ok(engine.listen(owner, &queue, kind, mailbox)))
    }

    /// Ends what [`Queue::on`] began, and closes its mailbox.
    pub fn off(&self, id: u64) -> Op<()> {
        self.call(move |engine| {
            engine.unlisten(id);
            Ok(())
        })
    }

    /// Registers who runs the jobs of a name in a queue: they come into the mailbox (see [`worker_mailbox`]), once
    /// [`Queue::start`] was called. The first worker of a queue decides how many of its jobs run at the same time.
    /// Registering a name again replaces its worker. A job whose name has no worker waits.
    ///
    /// Whoever takes a [`Run`] calls [`Queue::begin`], then the handler, then [`Queue::complete`] or [`Queue::fail`].
    pub fn register_worker(
        &self,
        queue: &str,
        job_name: &str,
        options: WorkerOptions,
        mailbox: Arc<Mailbox<Run>>,
    ) -> Op<u64> {
        if let Err(error) = check_name("jobName", job_name) {
            return Op::err(error);
        }
        let (owner, name): (u64, Arc<str>) = (self.owner, job_name.into());
        self.on_queue(queue, move |engine, queue| Ok(engine.register(owner, &queue, &name, options, mailbox)))
    }

    /// Lets the workers of a queue work.
    pub fn start(&self, queue: &str) -> Op<()> {
        let owner = self.owner;
        self.on_queue(queue, move |engine, queue| engine.start(owner, &queue))
    }

    /// Says that the handler of a job is called now: the attempt counts, and its timeout runs. False: it must not be
    /// called, the job was taken back. Its storage is not waited for.
    pub fn begin(&self, run: &Run) -> bool {
        if !run.ticket.claim() {
            return false;
        }
        let (token, now) = (run.token, self.clock.now_ms());
        // An error here is one of the storage, which the outcome will meet as well.
        drop(call(&self.driver, move |engine| engine.begun(token, now)));
        true
    }

    /// The handler succeeded with this result. An object with `awaiting: true` makes the job forgotten, so that its id
    /// can be used again. False: the attempt was over already, after its timeout or because the job was removed.
    pub fn complete(&self, token: u64, result: Json) -> Op<bool> {
        if let Err(error) = check_depth("the job's result", &result) {
            return self.fail(token, error.message());
        }
        call(&self.driver, move |engine| engine.outcome(token, Outcome::Completed(result)))
    }

    /// The handler failed. The result is like that of [`Queue::complete`].
    pub fn fail(&self, token: u64, reason: &str) -> Op<bool> {
        let reason: Arc<str> = reason.into();
        call(&self.driver, move |engine| engine.outcome(token, Outcome::Failed(reason)))
    }

    /// The handler tells how far it is; any JSON will do. False: the attempt was over already.
    pub fn progress(&self, token: u64, progress: Json) -> Op<bool> {
        if let Err(error) = check_depth("progress", &progress) {
            return Op::err(error);
        }
        call(&self.driver, move |engine| engine.progress(token, progress))
    }

    /// Does what is due by the clock, at once. For tests with a clock of their own: timers do so by themselves.
    pub fn tick(&self) -> Op<()> {
        self.open()
    }

    /// Ends it: nothing starts any more, jobs that have not begun go back, handlers have until the limit. What still
    /// runs then counts as interrupted, and what it reports is ignored. How many those were; on a second call 0.
    /// When it resolves nothing is left behind.
    pub fn close(&self, limit: Duration) -> Op<usize> {
        if self.closing.swap(true, Ordering::AcqRel) {
            let mut closed = self.closed.subscribe();
            return Op::pending(async move {
                // The sender lives in the closing task or in the queue: an error means that both are gone, and it with them.
                _ = closed.wait_for(|closed| *closed).await;
                Ok(0)
            });
        }
        let (driver, owner, closed) = (self.driver.clone(), self.owner, self.closed.clone());
        let closing = call(&driver, move |engine| engine.begin_close(owner));
        let task = self.runtime.spawn(async move {
            // A storage that failed has told everybody; what is left to do is to let go.
            if let Ok(drained) = closing.await {
                _ = tokio::time::timeout(limit, drained).await;
            }
            let interrupted = call(&driver, move |engine| engine.end_close(owner)).await.unwrap_or(0);
            let ended = driver.end().await;
            closed.send_replace(true);
            ended.map(|()| interrupted)
        });
        Op::pending(async move { task.await.unwrap_or_else(|_| Err(Error::closed("the runtime of the queue"))) })
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if !self.closing.load(Ordering::Acquire) {
            let owner = self.owner;
            drop(call(&self.driver, move |engine| engine.begin_close(owner).map(|_| ())));
            drop(call(&self.driver, move |engine| engine.end_close(owner)));
            drop(self.driver.end());
        }
    }
}
