//! The engine: the state machine of jobs.
//!
//! It is synchronous and owns no thread: a driver (see `memory/` and `file/`) calls it, one step at a time. A step is
//! some commands, then [`Engine::commit_step`], which dispatches jobs to workers and commits. Deliveries and events are
//! pushed to their mailboxes after the commit, so nothing is published that could be rolled back.

mod clock;
mod events;
mod jobs;
mod work;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::Durability;
use super::calendar::Calendar;
use super::delivery::{Cancellation, ClaimCell, JobDelivery};
use super::events::{Listeners, QueueEvent};
use super::job::{Job, State};
use super::schedule::Schedule;
use super::state::QueueState;
use super::storage::JobStorage;
use crate::error::{Code, Error, Result};
use crate::fanout::{Mailbox, Push};
use crate::json::Json;
use crate::time::SharedClock;

/// Opens the storage on first use.
pub(in crate::queue) type Opener = Box<dyn FnMut() -> Result<Box<dyn JobStorage>> + Send>;

/// A job with a worker.
struct Active {
    job: Job,
    index: usize,
    owner: u64,
    worker: u64,
    claim: Arc<ClaimCell>,
    /// When it times out, or when its place is given up after that; on the monotonic clock.
    deadline: Option<u64>,
    /// How long its handler may ignore its timeout, in ms.
    abandon_after: u64,
    timed_out: bool,
    phase: AttemptPhase,
    /// Whether its handler still counts against the concurrency of the queue.
    has_place: bool,
    /// When its handler was called; None before, and after it has settled.
    started_at: Option<Instant>,
}

/// How far an attempt is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum AttemptPhase {
    /// Its handler may still decide its outcome.
    Running,
    /// It timed out and its job will be tried again, with this failure, when its handler has settled.
    TimedOut(Arc<str>),
    /// Its job has ended, was removed or waits again: the outcome changes nothing.
    Over,
    /// The same, and the failed job is to be tried again when the handler has settled.
    RetryRequested,
}

/// Side effects that are carried out after the commit.
enum Effect {
    Event(Arc<Mailbox<QueueEvent>>, QueueEvent),
    Deliver(Arc<Mailbox<JobDelivery>>, JobDelivery),
    Cancel(Arc<ClaimCell>, Option<Arc<Mailbox<Cancellation>>>, Cancellation),
    /// The last handler of a closing owner has settled.
    Drained(oneshot::Sender<()>),
}

/// How an attempt ended.
pub(in crate::queue) enum Outcome {
    Completed(Json),
    Failed(Arc<str>),
}

pub(in crate::queue) struct Engine {
    /// `memory` or `file`.
    backend: &'static str,
    opener: Opener,
    storage: Option<Box<dyn JobStorage>>,
    durability: Durability,
    /// The failure after which the storage is not used any more.
    failed: Option<Error>,
    clock: SharedClock,
    queues: Vec<QueueState>,
    by_name: HashMap<Arc<str>, usize>,
    by_key: HashMap<i64, usize>,
    /// Queues that may have jobs to dispatch.
    ready: BTreeSet<usize>,
    /// Queues whose row has changed.
    dirty: BTreeSet<usize>,
    active: HashMap<u64, Active>,
    deadlines: BTreeSet<(u64, u64)>,
    /// When the next delayed job is due; the outer None where the storage must be asked.
    next_due: Option<Option<u64>>,
    schedules: BTreeMap<Arc<str>, (Schedule, Calendar)>,
    /// How far the wall clock was ahead of the monotonic clock when it was last compared.
    clock_offset: i64,
    listeners: Listeners,
    /// Owners that close, with the sender to notify when their last handler has settled.
    closing: HashMap<u64, oneshot::Sender<()>>,
    /// Where the workers of an owner receive cancellations.
    cancellations: HashMap<u64, Arc<Mailbox<Cancellation>>>,
    effects: Vec<Effect>,
}

impl Engine {
    pub(in crate::queue) fn new(backend: &'static str, clock: SharedClock, opener: Opener) -> Self {
        Self {
            backend,
            opener,
            storage: None,
            durability: Durability::default(),
            failed: None,
            clock_offset: clock::clock_offset(&clock),
            clock,
            queues: Vec::new(),
            by_name: HashMap::new(),
            by_key: HashMap::new(),
            ready: BTreeSet::new(),
            dirty: BTreeSet::new(),
            active: HashMap::new(),
            deadlines: BTreeSet::new(),
            next_due: None,
            schedules: BTreeMap::new(),
            listeners: Listeners::default(),
            closing: HashMap::new(),
            cancellations: HashMap::new(),
            effects: Vec::new(),
        }
    }

    // ── the storage and its steps ──

    /// Opens the storage unless it is open.
    pub(in crate::queue) fn open(&mut self) -> Result<()> {
        self.db().map(|_| ())
    }

    /// Sets what the following commits survive.
    pub(in crate::queue) fn set_durability(&mut self, durability: Durability) -> Result<()> {
        self.durability = durability;
        // A storage that cannot be opened yet gets it when it is.
        self.db().and_then(|db| db.set_durability(durability))
    }

    /// Returns what an acknowledged change survives.
    pub(in crate::queue) fn durability(&mut self) -> Result<Durability> {
        self.db()?.durability()
    }

    /// Returns what identifies the storage.
    pub(in crate::queue) fn identity(&mut self) -> Result<Arc<str>> {
        self.db()?.identity()
    }

    /// Copies all queues into a new file. The outer error is one of the engine, the inner one of the copy.
    pub(in crate::queue) fn backup(&mut self, path: &Path) -> Result<Result<()>> {
        self.save_dirty()?;
        Ok(self.db()?.backup(path))
    }

    /// Reads everything. Returns what is wrong, in words.
    pub(in crate::queue) fn verify(&mut self) -> Result<Result<Vec<String>>> {
        self.save_dirty()?;
        Ok(self.db()?.verify())
    }

    fn save_dirty(&mut self) -> Result<()> {
        while let Some(index) = self.dirty.pop_first() {
            if let Some(row) = self.queues[index].row.clone() {
                self.queues[index].metrics.set_row(&row);
                self.db()?.save_queue(&row)?;
            }
        }
        Ok(())
    }

    fn db(&mut self) -> Result<&mut dyn JobStorage> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.storage.is_none() {
            let mut storage = (self.opener)()?;
            if self.durability != Durability::default() {
                storage.set_durability(self.durability)?;
            }
            self.storage = Some(storage);
            if let Err(error) = self.recover() {
                self.storage = None;
                self.effects.clear();
                return Err(error);
            }
        }
        // Opened above; an absent storage is an error all the same, not a panic.
        let storage = self.storage.as_mut().ok_or_else(|| Error::closed("the queue"))?;
        storage.begin_step()?;
        Ok(storage.as_mut())
    }

    /// Loads queues and schedules, and releases the jobs that were active when an earlier process ended.
    fn recover(&mut self) -> Result<()> {
        for row in self.db()?.queues()? {
            let index = self.index(&row.name.clone());
            self.by_key.insert(row.key, index);
            let (key, active) = (row.key, row.counts[State::Active as usize]);
            self.queues[index].metrics.set_row(&row);
            self.queues[index].row = Some(row);
            for job in self.db()?.page(key, State::Active, false, 0, active)? {
                self.interrupted(index, job)?;
            }
        }
        for schedule in self.db()?.schedules()? {
            let calendar = Calendar::new(&schedule.repeat)?;
            self.schedules.insert(schedule.id.clone(), (schedule, calendar));
        }
        self.clock_offset = clock::clock_offset(&self.clock);
        let now = self.clock.now_ms();
        self.db()?.rebase_delayed(now)?;
        self.reschedule()?;
        self.ready.extend(0..self.queues.len());
        Ok(())
    }

    /// Ends a step: does what is due, dispatches jobs, commits, and carries out the effects. After an error nothing of
    /// the step was stored or published.
    pub(in crate::queue) fn commit_step(&mut self) -> Result<()> {
        let result = self.tick().and_then(|()| {
            loop {
                self.settle()?;
                let rejected = self.deliver();
                if rejected.is_empty() {
                    return Ok(());
                }
                for JobDelivery { token, worker, queue, .. } in rejected {
                    // The mailbox is closed and will refuse the next job as well.
                    if let Some(index) = self.by_name.get(&queue) {
                        self.queues[*index].remove_worker(worker);
                    }
                    self.release(token)?;
                }
            }
        });
        if let Err(error) = &result {
            self.note_failure(error);
        }
        self.failed.clone().map_or(result, Err)
    }

    fn settle(&mut self) -> Result<()> {
        if self.storage.is_none() {
            return Ok(());
        }
        while let Some(index) = self.ready.pop_first() {
            self.dispatch_ready(index)?;
        }
        self.save_dirty()?;
        self.storage.as_mut().map_or(Ok(()), |storage| storage.commit())
    }

    /// Carries out the effects of a committed step. Returns the jobs that no worker took.
    fn deliver(&mut self) -> Vec<JobDelivery> {
        let mut rejected = Vec::new();
        for outgoing in self.effects.drain(..) {
            match outgoing {
                Effect::Event(mailbox, event) => _ = mailbox.push(event),
                Effect::Deliver(mailbox, delivery) => {
                    if !matches!(mailbox.push(delivery.clone()), Push::Queued | Push::Full) {
                        rejected.push(delivery);
                    }
                }
                Effect::Cancel(claim, mailbox, cancellation) => {
                    claim.cancel();
                    if let Some(mailbox) = mailbox {
                        _ = mailbox.push(cancellation);
                    }
                }
                // The receiver is gone where `close` timed out.
                Effect::Drained(sender) => _ = sender.send(()),
            }
        }
        rejected
    }

    /// Stops the engine after a failure of the storage: the step is dropped, and every later call returns the failure.
    pub(in crate::queue) fn note_failure(&mut self, error: &Error) {
        if self.storage.is_some() && matches!(error.code(), Code::Io | Code::Corrupt) {
            self.storage = None;
            self.effects.clear();
            let message = format!(
                "the queue stopped after a failure: {}; repair the cause, then create the adapter again",
                error.message()
            );
            self.failed = Some(Error::new(error.code(), message));
        }
    }

    // ── queues ──

    fn index(&mut self, name: &Arc<str>) -> usize {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        self.queues.push(QueueState::new(self.backend, name.clone()));
        self.by_name.insert(name.clone(), self.queues.len() - 1);
        self.queues.len() - 1
    }

    /// Returns the index and key of a stored queue; None where nothing was ever stored in it.
    fn stored(&mut self, queue: &str) -> Result<Option<(usize, i64)>> {
        self.db()?;
        let index = self.by_name.get(queue).copied();
        Ok(index.and_then(|index| self.queues[index].row.as_ref().map(|row| (index, row.key))))
    }

    /// Returns the index and key of a queue. Stores the queue if it is new.
    fn ensure(&mut self, queue: &Arc<str>) -> Result<(usize, i64)> {
        if let Some(found) = self.stored(queue)? {
            return Ok(found);
        }
        let row = self.db()?.add_queue(queue)?;
        let (index, key) = (self.index(queue), row.key);
        self.queues[index].row = Some(row);
        self.by_key.insert(key, index);
        Ok((index, key))
    }

    /// Takes the next number of a queue.
    fn next_number(&mut self, index: usize) -> i64 {
        self.dirty.insert(index);
        self.queues[index].row.as_mut().map_or(0, |row| {
            row.next += 1;
            row.next - 1
        })
    }

    fn count(&mut self, index: usize, state: State, by: i64) {
        self.dirty.insert(index);
        if let Some(row) = &mut self.queues[index].row {
            let count = &mut row.counts[state as usize];
            *count = count.saturating_add_signed(by);
        }
        match state {
            State::Delayed => self.next_due = None,
            State::Waiting => _ = self.ready.insert(index),
            State::Active | State::Completed | State::Failed => {}
        }
    }
}

/// Converts a time in ms for differences and for [`Job::order`].
fn i64_from(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
