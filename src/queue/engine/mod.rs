//! The engine: the state machine of jobs.
//!
//! It is synchronous and owns no thread: a driver (see `memory/` and `file/`) calls it, one step at a time. A step is
//! some commands, then [`Engine::commit_step`], which dispatches jobs to workers and commits. Deliveries and events are
//! pushed to their mailboxes after the commit, so nothing is published that could be rolled back.

mod clock;
mod work;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::Durability;
use super::calendar::Calendar;
use super::delivery::{CancelReason, Cancellation, ClaimCell, JobDelivery};
use super::events::{EventKind, Listeners, QueueEvent};
use super::job::{Job, JobCounts, JobState, State};
use super::options::NewJob;
use super::schedule::Schedule;
use super::state::QueueState;
use super::storage::JobStorage;
use crate::error::{Code, Error, Result};
use crate::fanout::{Mailbox, Push};
use crate::json::{Json, push_string};
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

    /// TestWorker jobs and events over; which jobs nobody took.
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
                "the queue stopped after a failure: {}; what was acknowledged is safe: repair the cause, then create the adapter again",
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

    pub(in crate::queue) fn set_paused(&mut self, owner: u64, queue: &Arc<str>, paused: bool) -> Result<()> {
        let (index, _) = self.ensure(queue)?;
        if !paused {
            self.queues[index].clear_hold(owner);
        }
        if let Some(row) = &mut self.queues[index].row
            && row.paused != paused
        {
            row.paused = paused;
            if paused {
                self.revoke_unstarted(|active| active.index == index)?;
                self.emit(index, EventKind::Paused, |out| push_field(out, "queue", |out| push_string(out, queue)));
            }
        }
        self.dirty.insert(index);
        self.ready.insert(index);
        Ok(())
    }

    pub(in crate::queue) fn is_paused(&mut self, queue: &str) -> Result<bool> {
        Ok(self.stored(queue)?.is_some_and(|(index, _)| self.queues[index].paused()))
    }

    pub(in crate::queue) fn counts(&mut self, queue: &str) -> Result<JobCounts> {
        let found = self.stored(queue)?;
        let row = found.and_then(|(index, _)| self.queues[index].row.as_ref());
        Ok(row.map_or_else(JobCounts::default, |row| JobCounts(row.counts, row.paused)))
    }

    // ── jobs in and out ──

    pub(in crate::queue) fn enqueue(&mut self, queue: &Arc<str>, new: NewJob) -> Result<Arc<str>> {
        let (index, key) = self.ensure(queue)?;
        let now = self.clock.now_ms();
        if let Some(id) = &new.options.job_id
            && self.db()?.find(key, id)?.is_some()
        {
            return Ok(id.clone());
        }
        let mut number = self.next_number(index);
        let id = match new.options.job_id.clone() {
            Some(id) => id,
            None => loop {
                let id = format!("{now}-{number}");
                if self.db()?.find(key, &id)?.is_none() {
                    break id.into();
                }
                // A caller chose this id for a job.

                number = self.next_number(index);
            },
        };
        let delay = new.options.delay.unwrap_or(0);
        let mut job = Job {
            seq: 0,
            queue: key,
            id: id.clone(),
            name: new.name,
            options: Arc::new(new.options),
            state: if delay > 0 { State::Delayed } else { State::Waiting },
            order: (i64_from(now.saturating_add(delay)), number),
            timestamp: now,
            processed_on: None,
            finished_on: None,
            attempts_made: 0,
            started: false,
            stalls: 0,
            progress: None,
            returnvalue: None,
            failed_reason: None,
        };
        if job.state == State::Waiting {
            job.order = job.waiting_order(number);
        }
        job.seq = self.db()?.insert(&job, &new.data)?;
        self.count(index, job.state, 1);
        self.emit_entered(index, &job, delay)?;
        Ok(id)
    }

    pub(in crate::queue) fn job(&mut self, queue: &str, id: &str) -> Result<Option<Json>> {
        let Some((index, key)) = self.stored(queue)? else { return Ok(None) };
        let Some(job) = self.db()?.find(key, id)? else { return Ok(None) };
        let data = self.db()?.data(job.seq)?;
        Ok(Some(job.to_json(&data, self.queues[index].paused())))
    }

    /// Reads a page of the jobs of these states, one state after the other.
    pub(in crate::queue) fn jobs(
        &mut self,
        queue: &str,
        states: &[JobState],
        offset: u64,
        limit: u64,
    ) -> Result<Vec<Json>> {
        let Some((index, key)) = self.stored(queue)? else { return Ok(Vec::new()) };
        let counts = self.counts(queue)?;
        let (mut skip, mut out) = (offset, Vec::new());
        for (at, state) in states.iter().enumerate() {
            let left = limit - out.len() as u64;
            let Some(stored) = state.stored(counts.1).filter(|_| left > 0 && !states[..at].contains(state)) else {
                continue;
            };
            let newest_first = matches!(stored, State::Completed | State::Failed);
            for job in self.db()?.page(key, stored, newest_first, skip, left)? {
                let data = self.db()?.data(job.seq)?;
                out.push(job.to_json(&data, self.queues[index].paused()));
            }
            skip = skip.saturating_sub(counts.get(*state));
        }
        Ok(out)
    }

    pub(in crate::queue) fn remove_job(&mut self, queue: &str, id: &str) -> Result<bool> {
        let Some((index, key)) = self.stored(queue)? else { return Ok(false) };
        let Some(job) = self.db()?.find(key, id)? else { return Ok(false) };
        if let Some((token, active)) = self.active.iter_mut().find(|(_, active)| active.job.seq == job.seq) {
            active.phase = AttemptPhase::Over;
            let token = *token;
            self.cancel(token, CancelReason::Removed);
        }
        self.delete(index, &job, job.state)?;
        Ok(true)
    }

    /// Makes a failed job wait for one more attempt. Returns false where it has not failed.
    pub(in crate::queue) fn retry_job(&mut self, queue: &str, id: &str) -> Result<bool> {
        let Some((index, key)) = self.stored(queue)? else { return Ok(false) };
        let Some(job) = self.db()?.find(key, id)?.filter(|job| job.state == State::Failed) else { return Ok(false) };
        // A handler that timed out and has not settled: attempts of a job never overlap.
        if let Some(active) = self.active.values_mut().find(|active| active.job.seq == job.seq) {
            active.phase = AttemptPhase::RetryRequested;
        } else {
            self.retry_failed(index, job)?;
        }
        Ok(true)
    }

    fn retry_failed(&mut self, index: usize, mut job: Job) -> Result<()> {
        let number = self.next_number(index);
        job.state = State::Waiting;
        job.order = job.waiting_order(number);
        job.started = false;
        job.stalls = 0;
        (job.processed_on, job.finished_on, job.failed_reason) = (None, None, None);
        self.update(index, &job, State::Failed)?;
        self.emit_entered(index, &job, 0)
    }

    fn delete(&mut self, index: usize, job: &Job, from: State) -> Result<()> {
        self.db()?.delete(job)?;
        self.count(index, from, -1);
        Ok(())
    }

    fn update(&mut self, index: usize, job: &Job, from: State) -> Result<()> {
        self.db()?.update(job)?;
        self.count(index, from, -1);
        self.count(index, job.state, 1);
        Ok(())
    }

    // ── events ──

    pub(in crate::queue) fn subscribe(
        &mut self,
        owner: u64,
        queue: &Arc<str>,
        kind: EventKind,
        mailbox: Arc<Mailbox<QueueEvent>>,
    ) -> u64 {
        self.listeners.add(owner, queue, kind, mailbox)
    }

    pub(in crate::queue) fn unsubscribe(&mut self, id: u64) {
        self.listeners.remove(id);
    }

    fn emit(&mut self, index: usize, kind: EventKind, payload: impl FnOnce(&mut String)) {
        let queue = &self.queues[index].name;
        let mailboxes = self.listeners.of(queue, kind);
        if mailboxes.is_empty() {
            return;
        }
        let mut out = String::from("{");
        payload(&mut out);
        out.push('}');
        let event = QueueEvent { queue: queue.clone(), kind, payload: out.into() };
        self.effects.extend(mailboxes.into_iter().map(|mailbox| Effect::Event(mailbox, event.clone())));
    }

    fn emit_about(&mut self, index: usize, kind: EventKind, job: &Job, more: impl FnOnce(&mut String)) {
        self.emit(index, kind, |out| {
            push_field(out, "jobId", |out| push_string(out, &job.id));
            push_field(out, "name", |out| push_string(out, &job.name));
            push_field(out, "attemptsMade", |out| out.push_str(&job.attempts_made.to_string()));
            more(out);
        });
    }

    /// Publishes that a job waits, or will after a delay, with the job itself.
    fn emit_entered(&mut self, index: usize, job: &Job, delay: u64) -> Result<()> {
        let kind = if job.state == State::Delayed { EventKind::Delayed } else { EventKind::Waiting };
        if self.listeners.of(&self.queues[index].name, kind).is_empty() {
            return Ok(());
        }
        let data = self.db()?.data(job.seq)?;
        let json = job.to_json(&data, self.queues[index].paused());
        self.emit_about(index, kind, job, |out| {
            if kind == EventKind::Delayed {
                push_field(out, "delay", |out| out.push_str(&delay.to_string()));
            }
            push_field(out, "job", |out| out.push_str(&json));
        });
        Ok(())
    }
}

fn push_field(out: &mut String, key: &str, value: impl FnOnce(&mut String)) {
    if out.len() > 1 {
        out.push(',');
    }
    push_string(out, key);
    out.push(':');
    value(out);
}

/// Converts a time in ms for differences and for [`Job::order`].
fn i64_from(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
