//! The engine: which job is where, who runs what, and what comes next.
//!
//! It is synchronous and knows no thread: a driver (see `memory.rs` and `file/`) calls it, one step at a time. A step is
//! some commands, then [`Engine::finish_step`], which starts what can be started and commits. Jobs and events leave for
//! workers and listeners only after the commit, so nobody hears of what might be undone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::events::{EventKind, Listeners, QueueEvent, Run, Ticket};
use super::job::{Job, JobCounts, JobState, State};
use super::lane::{Lane, Worker};
use super::options::{Keep, NewJob, ScheduleOptions, WorkerOptions};
use super::schedule::{Calendar, Schedule};
use super::storage::JobStorage;
use crate::error::{Code, Error, Result};
use crate::fanout::{Mailbox, Push};
use crate::json::{Json, push_string};
use crate::time::SharedClock;

/// How often a job may be running when its process or adapter goes away, once its attempts are used up. A job that
/// takes the process down with it would do so forever.
const MAX_STALLS: u32 = 3;
/// Delayed jobs that one step moves, so that commands need not wait for a thousand of them.
const DUE_PER_STEP: u64 = 500;
/// Old jobs that the end of one job removes. Where more are too many, the next ends remove them.
const TRIM_PER_STEP: u64 = 1_000;

/// Opens the storage, when it is first needed.
pub(super) type Opener = Box<dyn FnMut() -> Result<Box<dyn JobStorage>> + Send>;

/// A job with a worker.
struct Active {
    job: Job,
    lane: usize,
    owner: u64,
    ticket: Arc<Ticket>,
    deadline: Option<u64>,
    /// It was removed meanwhile: its outcome changes nothing, its slot is taken until then.
    removed: bool,
}

/// What leaves after the commit.
enum Outgoing {
    Event(Arc<Mailbox<QueueEvent>>, QueueEvent),
    Run(Arc<Mailbox<Run>>, Run),
}

/// How an attempt ended.
pub(super) enum Outcome {
    Completed(Json),
    Failed(Arc<str>),
}

pub(super) struct Engine {
    opener: Opener,
    storage: Option<Box<dyn JobStorage>>,
    /// Why the storage cannot be used any more.
    failed: Option<Error>,
    clock: SharedClock,
    lanes: Vec<Lane>,
    by_name: HashMap<Arc<str>, usize>,
    by_key: HashMap<i64, usize>,
    /// Lanes that may have something to start.
    ready: BTreeSet<usize>,
    /// Lanes whose row has changed.
    dirty: BTreeSet<usize>,
    active: HashMap<u64, Active>,
    deadlines: BTreeSet<(u64, u64)>,
    /// When the next delayed job is due; None where that must be asked again.
    next_due: Option<Option<u64>>,
    schedules: BTreeMap<Arc<str>, (Schedule, Calendar)>,
    listeners: Listeners,
    /// Owners that close, and who waits for their last handler.
    closing: HashMap<u64, oneshot::Sender<()>>,
    outbox: Vec<Outgoing>,
}

impl Engine {
    pub(super) fn new(clock: SharedClock, opener: Opener) -> Self {
        Self {
            opener,
            storage: None,
            failed: None,
            clock,
            lanes: Vec::new(),
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
            outbox: Vec::new(),
        }
    }

    // ── the storage and its steps ──

    /// Opens the storage if that has not happened yet.
    pub(super) fn open(&mut self) -> Result<()> {
        self.db().map(|_| ())
    }

    /// From now on a commit survives power loss.
    pub(super) fn survive_power_loss(&mut self) -> Result<()> {
        self.db()?.survive_power_loss()
    }

    fn db(&mut self) -> Result<&mut dyn JobStorage> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.storage.is_none() {
            self.storage = Some((self.opener)()?);
            if let Err(error) = self.recover() {
                self.storage = None;
                return Err(error);
            }
        }
        // Just made sure of; an absent storage is an error all the same, not a panic.
        let storage = self.storage.as_mut().ok_or_else(|| Error::closed("the queue"))?;
        storage.begin_step()?;
        Ok(storage.as_mut())
    }

    /// Takes up what an earlier process left behind: whatever was active then is not any more.
    fn recover(&mut self) -> Result<()> {
        for row in self.db()?.queues()? {
            let lane = self.lane(&row.name.clone());
            self.by_key.insert(row.key, lane);
            let (key, active) = (row.key, row.counts[State::Active as usize]);
            self.lanes[lane].row = Some(row);
            for job in self.db()?.page(key, State::Active, false, 0, active)? {
                self.interrupted(lane, job)?;
            }
        }
        for schedule in self.db()?.schedules()? {
            let calendar = Calendar::new(&schedule.repeat)?;
            self.schedules.insert(schedule.id.clone(), (schedule, calendar));
        }
        self.ready.extend(0..self.lanes.len());
        Ok(())
    }

    /// Ends a step: does what is due, starts what can be started, commits, and lets jobs and events go. An error means
    /// that nothing of the step counts.
    pub(super) fn finish_step(&mut self) -> Result<()> {
        let result = self.tick().and_then(|()| {
            loop {
                self.settle()?;
                let bounced = self.deliver();
                if bounced.is_empty() {
                    return Ok(());
                }
                for Run { token, worker, queue, .. } in bounced {
                    // Its mailbox is closed, so it will not take the next job either.
                    if let Some(lane) = self.by_name.get(&queue) {
                        self.lanes[*lane].dismiss(worker);
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
        while let Some(lane) = self.ready.pop_first() {
            self.dispatch(lane)?;
        }
        while let Some(lane) = self.dirty.pop_first() {
            if let Some(row) = self.lanes[lane].row.clone() {
                self.db()?.save_queue(&row)?;
            }
        }
        self.storage.as_mut().map_or(Ok(()), |storage| storage.commit())
    }

    /// Hands jobs and events over; which jobs nobody took.
    fn deliver(&mut self) -> Vec<Run> {
        let mut bounced = Vec::new();
        for outgoing in self.outbox.drain(..) {
            match outgoing {
                Outgoing::Event(mailbox, event) => _ = mailbox.push(event),
                Outgoing::Run(mailbox, run) => {
                    if !matches!(mailbox.push(run.clone()), Push::Stored | Push::Wait) {
                        bounced.push(run);
                    }
                }
            }
        }
        bounced
    }

    /// A storage that failed once is not trusted again: what was not committed is gone, and every call says so.
    pub(super) fn note_failure(&mut self, error: &Error) {
        if self.storage.is_some() && matches!(error.code(), Code::Io | Code::Corrupt) {
            self.storage = None;
            self.outbox.clear();
            let message = format!(
                "the queue stopped after a failure: {}; what was acknowledged is safe: repair the cause, then create the adapter again",
                error.message()
            );
            self.failed = Some(Error::new(error.code(), message));
        }
    }

    // ── queues ──

    fn lane(&mut self, name: &Arc<str>) -> usize {
        if let Some(lane) = self.by_name.get(name) {
            return *lane;
        }
        self.lanes.push(Lane::new(name.clone()));
        self.by_name.insert(name.clone(), self.lanes.len() - 1);
        self.lanes.len() - 1
    }

    /// The lane and key of a queue that is stored; None where nothing was ever stored in it.
    fn stored(&mut self, queue: &str) -> Result<Option<(usize, i64)>> {
        self.db()?;
        let lane = self.by_name.get(queue).copied();
        Ok(lane.and_then(|lane| self.lanes[lane].row.as_ref().map(|row| (lane, row.key))))
    }

    /// The lane and key of a queue, which is stored from now on.
    fn ensure(&mut self, queue: &Arc<str>) -> Result<(usize, i64)> {
        if let Some(found) = self.stored(queue)? {
            return Ok(found);
        }
        let row = self.db()?.add_queue(queue)?;
        let (lane, key) = (self.lane(queue), row.key);
        self.lanes[lane].row = Some(row);
        self.by_key.insert(key, lane);
        Ok((lane, key))
    }

    /// The next number of a queue.
    fn next_number(&mut self, lane: usize) -> i64 {
        self.dirty.insert(lane);
        self.lanes[lane].row.as_mut().map_or(0, |row| {
            row.next += 1;
            row.next - 1
        })
    }

    fn count(&mut self, lane: usize, state: State, by: i64) {
        self.dirty.insert(lane);
        if let Some(row) = &mut self.lanes[lane].row {
            let count = &mut row.counts[state as usize];
            *count = count.saturating_add_signed(by);
        }
        match state {
            State::Delayed => self.next_due = None,
            State::Waiting => _ = self.ready.insert(lane),
            State::Active | State::Completed | State::Failed => {}
        }
    }

    pub(super) fn set_paused(&mut self, owner: u64, queue: &Arc<str>, paused: bool) -> Result<()> {
        let (lane, _) = self.ensure(queue)?;
        if !paused {
            self.lanes[lane].lift_hold(owner);
        }
        if let Some(row) = &mut self.lanes[lane].row
            && row.paused != paused
        {
            row.paused = paused;
            if paused {
                self.emit(lane, EventKind::Paused, |out| push_field(out, "queue", |out| push_string(out, queue)));
            }
        }
        self.dirty.insert(lane);
        self.ready.insert(lane);
        Ok(())
    }

    pub(super) fn is_paused(&mut self, queue: &str) -> Result<bool> {
        Ok(self.stored(queue)?.is_some_and(|(lane, _)| self.lanes[lane].paused()))
    }

    pub(super) fn counts(&mut self, queue: &str) -> Result<JobCounts> {
        let found = self.stored(queue)?;
        let row = found.and_then(|(lane, _)| self.lanes[lane].row.as_ref());
        Ok(row.map_or_else(JobCounts::default, |row| JobCounts(row.counts, row.paused)))
    }

    // ── jobs in and out ──

    pub(super) fn enqueue(&mut self, queue: &Arc<str>, new: NewJob) -> Result<Arc<str>> {
        let (lane, key) = self.ensure(queue)?;
        let now = self.clock.now_ms();
        let place = self.next_number(lane);
        let id = match new.options.job_id.clone() {
            Some(id) => id,
            None => format!("{now}-{place}").into(),
        };
        if self.db()?.find(key, &id)?.is_some() {
            return Ok(id);
        }
        let delay = new.options.delay.unwrap_or(0);
        let mut job = Job {
            seq: 0,
            queue: key,
            id: id.clone(),
            name: new.name,
            options: Arc::new(new.options),
            state: if delay > 0 { State::Delayed } else { State::Waiting },
            order: (time(now.saturating_add(delay)), place),
            timestamp: now,
            processed_on: None,
            finished_on: None,
            attempts_made: 0,
            begun: false,
            stalls: 0,
            progress: None,
            returnvalue: None,
            failed_reason: None,
        };
        if job.state == State::Waiting {
            job.order = job.waiting_order(place);
        }
        job.seq = self.db()?.insert(&job, &new.data)?;
        self.count(lane, job.state, 1);
        self.emit_entered(lane, &job, delay);
        Ok(id)
    }

    pub(super) fn job(&mut self, queue: &str, id: &str) -> Result<Option<Json>> {
        let Some((lane, key)) = self.stored(queue)? else { return Ok(None) };
        let Some(job) = self.db()?.find(key, id)? else { return Ok(None) };
        let data = self.db()?.data(job.seq)?;
        Ok(Some(job.to_json(&data, self.lanes[lane].paused())))
    }

    /// Jobs of these states, one state after the other.
    pub(super) fn jobs(&mut self, queue: &str, states: &[JobState], offset: u64, limit: u64) -> Result<Vec<Json>> {
        let Some((lane, key)) = self.stored(queue)? else { return Ok(Vec::new()) };
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
                out.push(job.to_json(&data, self.lanes[lane].paused()));
            }
            skip = skip.saturating_sub(counts.get(*state));
        }
        Ok(out)
    }

    pub(super) fn remove_job(&mut self, queue: &str, id: &str) -> Result<bool> {
        let Some((lane, key)) = self.stored(queue)? else { return Ok(false) };
        let Some(job) = self.db()?.find(key, id)? else { return Ok(false) };
        if let Some(active) = self.active.values_mut().find(|active| active.job.seq == job.seq && !active.removed) {
            active.removed = true;
        }
        self.delete(lane, &job, job.state)?;
        Ok(true)
    }

    fn delete(&mut self, lane: usize, job: &Job, from: State) -> Result<()> {
        self.db()?.delete(job)?;
        self.count(lane, from, -1);
        Ok(())
    }

    fn update(&mut self, lane: usize, job: &Job, from: State) -> Result<()> {
        self.db()?.update(job)?;
        self.count(lane, from, -1);
        self.count(lane, job.state, 1);
        Ok(())
    }

    // ── workers ──

    pub(super) fn register(
        &mut self,
        owner: u64,
        queue: &Arc<str>,
        name: &Arc<str>,
        options: WorkerOptions,
        mailbox: Arc<Mailbox<Run>>,
    ) -> u64 {
        let lane = self.lane(queue);
        self.ready.insert(lane);
        self.lanes[lane].register(owner, name, options, mailbox)
    }

    pub(super) fn start(&mut self, owner: u64, queue: &Arc<str>) -> Result<()> {
        let lane = self.lane(queue);
        self.lanes[lane].start(owner);
        self.ready.insert(lane);
        self.open()
    }

    /// Gives jobs to workers while there are both.
    fn dispatch(&mut self, lane: usize) -> Result<()> {
        let names = self.lanes[lane].names();
        while self.lanes[lane].has_room()
            && let Some(key) = self.lanes[lane].row.as_ref().map(|row| row.key)
            && let Some(job) = self.first_for(key, &names)?
            && let Some(worker) = self.lanes[lane].worker(&job.name)
        {
            self.hand_over(lane, job, worker)?;
        }
        Ok(())
    }

    /// The first waiting job that has one of these names.
    fn first_for(&mut self, key: i64, names: &[Arc<str>]) -> Result<Option<Job>> {
        if names.is_empty() {
            return Ok(None);
        }
        // Mostly the first in the line has a worker.
        let first = self.db()?.page(key, State::Waiting, false, 0, 1)?.pop();
        if first.as_ref().is_none_or(|job| names.contains(&job.name)) {
            return Ok(first);
        }
        let mut best: Option<Job> = None;
        for name in names {
            let job = self.db()?.first_waiting(key, name)?;
            best = best.into_iter().chain(job).min_by_key(|job| job.order);
        }
        Ok(best)
    }

    fn hand_over(&mut self, lane: usize, mut job: Job, worker: Worker) -> Result<()> {
        let now = self.clock.now_ms();
        job.state = State::Active;
        job.order = (time(now), job.order.1);
        job.processed_on = Some(now);
        job.begun = false;
        self.update(lane, &job, State::Waiting)?;
        let data = self.db()?.data(job.seq)?;
        let token = crate::fanout::next_id();
        let ticket = Arc::new(Ticket::default());
        let queue = self.lanes[lane].name.clone();
        let run = Run { token, worker: worker.id, queue, job: job.to_json(&data, false), ticket: ticket.clone() };
        self.emit_about(lane, EventKind::Active, &job, |_| {});
        self.outbox.push(Outgoing::Run(worker.mailbox, run));
        self.lanes[lane].active += 1;
        self.active.insert(token, Active { job, lane, owner: worker.owner, ticket, deadline: None, removed: false });
        Ok(())
    }

    /// The handler of an active job was called at this time: the attempt counts, and its time runs.
    pub(super) fn begun(&mut self, token: u64, now: u64) -> Result<()> {
        let Some(active) = self.active.get_mut(&token).filter(|active| !active.job.begun) else { return Ok(()) };
        active.job.begun = true;
        if let Some(timeout) = active.job.options.timeout {
            let deadline = now.saturating_add(timeout);
            active.deadline = Some(deadline);
            self.deadlines.insert((deadline, token));
        }
        let (job, removed) = (active.job.clone(), active.removed);
        if removed { Ok(()) } else { self.db()?.begin(&job) }
    }

    /// Whether the token was still good.
    pub(super) fn progress(&mut self, token: u64, progress: Json) -> Result<bool> {
        let Some(active) = self.active.get_mut(&token).filter(|active| !active.removed) else { return Ok(false) };
        active.job.progress = Some(progress.clone());
        let (job, lane) = (active.job.clone(), active.lane);
        self.db()?.update(&job)?;
        self.emit_about(lane, EventKind::Progress, &job, |out| {
            push_field(out, "progress", |out| out.push_str(&progress));
        });
        Ok(true)
    }

    /// Ends an attempt. Whether the token was still good: after a timeout or a removal it is not.
    pub(super) fn outcome(&mut self, token: u64, outcome: Outcome) -> Result<bool> {
        let Some(Active { mut job, lane, removed, .. }) = self.take_active(token) else { return Ok(false) };
        if removed {
            return Ok(false);
        }
        match outcome {
            Outcome::Completed(result) if asks_to_await(&result) => self.delete(lane, &job, State::Active)?,
            Outcome::Completed(result) => {
                job.attempts_made += 1;
                job.failed_reason = None;
                job.returnvalue = Some(result);
                self.end(lane, job, State::Completed)?;
            }
            Outcome::Failed(reason) => {
                job.attempts_made += 1;
                job.failed_reason = Some(reason);
                if job.attempts_made < job.options.attempts() {
                    self.retry(lane, job)?;
                } else {
                    self.end(lane, job, State::Failed)?;
                }
            }
        }
        Ok(true)
    }

    fn take_active(&mut self, token: u64) -> Option<Active> {
        let active = self.active.remove(&token)?;
        if let Some(deadline) = active.deadline {
            self.deadlines.remove(&(deadline, token));
        }
        self.lanes[active.lane].active -= 1;
        self.ready.insert(active.lane);
        if self.closing.contains_key(&active.owner)
            && !self.active.values().any(|other| other.owner == active.owner)
            && let Some(drained) = self.closing.remove(&active.owner)
        {
            // Whoever closed may have stopped waiting.
            _ = drained.send(());
        }
        Some(active)
    }

    fn retry(&mut self, lane: usize, mut job: Job) -> Result<()> {
        let delay = job.options.backoff.map_or(0, |backoff| backoff.delay(job.attempts_made));
        let place = self.next_number(lane);
        job.begun = false;
        if delay > 0 {
            job.state = State::Delayed;
            job.order = (time(self.clock.now_ms().saturating_add(delay)), place);
        } else {
            job.state = State::Waiting;
            job.order = job.waiting_order(place);
        }
        self.update(lane, &job, State::Active)?;
        self.emit_entered(lane, &job, delay);
        Ok(())
    }

    fn end(&mut self, lane: usize, mut job: Job, state: State) -> Result<()> {
        job.state = state;
        job.finished_on = Some(self.clock.now_ms());
        job.order = (self.next_number(lane), 0);
        let (kind, keep) = match state {
            State::Completed => (EventKind::Completed, job.options.remove_on_complete),
            _ => (EventKind::Failed, job.options.remove_on_fail),
        };
        match keep.unwrap_or_default() {
            Keep::Last(0) => self.delete(lane, &job, State::Active)?,
            Keep::Last(count) => {
                self.update(lane, &job, State::Active)?;
                self.trim(lane, job.queue, state, count)?;
            }
            Keep::All => self.update(lane, &job, State::Active)?,
        }
        self.emit_about(lane, kind, &job, |out| match (&job.returnvalue, &job.failed_reason) {
            (Some(value), _) => push_field(out, "returnvalue", |out| out.push_str(value)),
            (None, Some(reason)) => push_field(out, "failedReason", |out| push_string(out, reason)),
            (None, None) => {}
        });
        Ok(())
    }

    fn trim(&mut self, lane: usize, key: i64, state: State, keep: u64) -> Result<()> {
        let count = self.lanes[lane].row.as_ref().map_or(0, |row| row.counts[state as usize]);
        let excess = count.saturating_sub(keep).min(TRIM_PER_STEP);
        if excess > 0 {
            for job in self.db()?.page(key, state, false, 0, excess)? {
                self.delete(lane, &job, state)?;
            }
        }
        Ok(())
    }

    /// A job whose worker is gone: it runs again, ahead of those that came after it.
    fn interrupted(&mut self, lane: usize, mut job: Job) -> Result<()> {
        if job.begun {
            job.begun = false;
            job.attempts_made += 1;
            job.stalls += 1;
            self.emit_about(lane, EventKind::Stalled, &job, |_| {});
            if job.attempts_made >= job.options.attempts() && job.stalls > MAX_STALLS {
                let reason = format!("stalled {} times: each time its worker went away while it ran", job.stalls);
                job.failed_reason = Some(reason.into());
                return self.end(lane, job, State::Failed);
            }
        }
        job.state = State::Waiting;
        job.order = job.waiting_order(job.order.1);
        self.update(lane, &job, State::Active)?;
        self.emit_entered(lane, &job, 0);
        Ok(())
    }

    /// Puts an active job back.
    fn release(&mut self, token: u64) -> Result<()> {
        match self.take_active(token) {
            Some(active) if !active.removed => self.interrupted(active.lane, active.job),
            _ => Ok(()),
        }
    }

    // ── time ──

    /// When [`Engine::tick`] has something to do; None while nothing waits for a time.
    pub(super) fn next_wake(&mut self) -> Option<u64> {
        self.storage.as_ref()?;
        if self.next_due.is_none() {
            // A storage that fails here fails in `tick` as well, which reports it.
            self.next_due = Some(self.db().and_then(|db| db.next_due()).unwrap_or(Some(0)));
        }
        let due = self.next_due.flatten();
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        let schedule = self.schedules.values().map(|(schedule, _)| schedule.next).min();
        [due, deadline, schedule].into_iter().flatten().min()
    }

    /// Does what is due by now.
    fn tick(&mut self) -> Result<()> {
        let now = self.clock.now_ms();
        if self.storage.is_none() || self.next_wake().is_none_or(|wake| wake > now) {
            return Ok(());
        }
        while let Some((deadline, token)) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now) {
            self.deadlines.remove(&(deadline, token));
            let timeout = self.active.get(&token).and_then(|active| active.job.options.timeout).unwrap_or(0);
            self.outcome(token, Outcome::Failed(format!("timed out after {timeout} ms").into()))?;
        }
        for mut job in self.db()?.due(now, DUE_PER_STEP)? {
            let Some(lane) = self.by_key.get(&job.queue).copied() else { continue };
            job.state = State::Waiting;
            let place = self.next_number(lane);
            job.order = job.waiting_order(place);
            self.update(lane, &job, State::Delayed)?;
            self.emit_entered(lane, &job, 0);
        }
        let due = self.schedules.values().filter(|(schedule, _)| schedule.next <= now);
        for id in due.map(|(schedule, _)| schedule.id.clone()).collect::<Vec<_>>() {
            self.fire(&id, now)?;
        }
        Ok(())
    }

    // ── schedules ──

    pub(super) fn schedule(&mut self, queue: &Arc<str>, mut new: NewJob, when: ScheduleOptions) -> Result<Arc<str>> {
        let Some(repeat) = when.repeat else {
            new.options.delay = when.delay.or(new.options.delay);
            return self.enqueue(queue, new);
        };
        let calendar = Calendar::new(&repeat)?;
        let id = new.options.job_id.take().unwrap_or_else(|| Schedule::derived_id(queue, &new.name, &repeat));
        self.ensure(queue)?;
        let unchanged =
            self.schedules.get(&id).map(|(old, _)| old).filter(|old| old.repeat == repeat && old.queue == *queue);
        let (fired, next) = match unchanged {
            Some(old) => (old.fired, old.next),
            None => {
                let next = calendar
                    .next_after(self.clock.now_ms())
                    .ok_or_else(|| Error::invalid(format!("repeat.pattern: {:?} never comes", repeat.pattern)))?;
                (0, next)
            }
        };
        let queue = queue.clone();
        let schedule = Schedule {
            id: id.clone(),
            queue,
            name: new.name,
            data: new.data,
            options: new.options,
            repeat,
            fired,
            next,
        };
        self.db()?.save_schedule(&schedule)?;
        self.schedules.insert(id.clone(), (schedule, calendar));
        Ok(id)
    }

    /// Enqueues one job for all times that have passed, and finds the next one.
    fn fire(&mut self, id: &Arc<str>, now: u64) -> Result<()> {
        let Some((schedule, calendar)) = self.schedules.get_mut(id) else { return Ok(()) };
        let mut options = schedule.options.clone();
        options.job_id = Some(format!("{id}:{}", schedule.next).into());
        let new = NewJob { name: schedule.name.clone(), data: schedule.data.clone(), options };
        schedule.fired += 1;
        let over = schedule.repeat.limit.is_some_and(|limit| schedule.fired >= limit);
        let next = calendar.next_after(now).filter(|_| !over);
        if let Some(next) = next {
            schedule.next = next;
        }
        let schedule = schedule.clone();
        self.enqueue(&schedule.queue, new)?;
        if next.is_some() { self.db()?.save_schedule(&schedule) } else { self.remove_schedule(id).map(|_| ()) }
    }

    pub(super) fn scheduled(&mut self, queue: &str) -> Result<Vec<Json>> {
        self.db()?;
        let of_queue = self.schedules.values().filter(|(schedule, _)| *schedule.queue == *queue);
        Ok(of_queue.map(|(schedule, _)| schedule.to_json()).collect())
    }

    pub(super) fn remove_schedule(&mut self, id: &str) -> Result<bool> {
        self.db()?;
        if self.schedules.remove(id).is_none() {
            return Ok(false);
        }
        self.db()?.delete_schedule(id)?;
        Ok(true)
    }

    // ── owners ──

    /// An adapter stops: it gets no more jobs, and those it has not begun go back. The receiver ends with its last handler.
    pub(super) fn begin_close(&mut self, owner: u64) -> Result<oneshot::Receiver<()>> {
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].forget(owner) {
                // Another adapter's worker may take over.
                self.ready.insert(lane);
            }
        }
        let own = self.active.iter().filter(|(_, active)| active.owner == owner);
        let not_begun: Vec<u64> = own.filter(|(_, active)| active.ticket.recall()).map(|(token, _)| *token).collect();
        not_begun.into_iter().try_for_each(|token| self.release(token))?;
        let (drained, wait) = oneshot::channel();
        if self.active.values().any(|active| active.owner == owner) {
            self.closing.insert(owner, drained);
        } else {
            _ = drained.send(());
        }
        Ok(wait)
    }

    /// An adapter is gone: what it still runs counts as interrupted, what it reports later is ignored. How many those were.
    pub(super) fn end_close(&mut self, owner: u64) -> Result<usize> {
        self.closing.remove(&owner);
        self.listeners.forget(owner);
        let own = self.active.iter().filter(|(_, active)| active.owner == owner);
        let left: Vec<u64> = own.map(|(token, _)| *token).collect();
        left.iter().try_for_each(|token| self.release(*token))?;
        Ok(left.len())
    }

    // ── events ──

    pub(super) fn listen(
        &mut self,
        owner: u64,
        queue: &Arc<str>,
        kind: EventKind,
        mailbox: Arc<Mailbox<QueueEvent>>,
    ) -> u64 {
        self.listeners.add(owner, queue, kind, mailbox)
    }

    pub(super) fn unlisten(&mut self, id: u64) {
        self.listeners.remove(id);
    }

    fn emit(&mut self, lane: usize, kind: EventKind, payload: impl FnOnce(&mut String)) {
        let queue = &self.lanes[lane].name;
        let mailboxes = self.listeners.of(queue, kind);
        if mailboxes.is_empty() {
            return;
        }
        let mut out = String::from("{");
        payload(&mut out);
        out.push('}');
        let event = QueueEvent { queue: queue.clone(), kind, payload: out.into() };
        self.outbox.extend(mailboxes.into_iter().map(|mailbox| Outgoing::Event(mailbox, event.clone())));
    }

    fn emit_about(&mut self, lane: usize, kind: EventKind, job: &Job, more: impl FnOnce(&mut String)) {
        self.emit(lane, kind, |out| {
            push_field(out, "jobId", |out| push_string(out, &job.id));
            push_field(out, "name", |out| push_string(out, &job.name));
            push_field(out, "attemptsMade", |out| out.push_str(&job.attempts_made.to_string()));
            more(out);
        });
    }

    fn emit_entered(&mut self, lane: usize, job: &Job, delay: u64) {
        match job.state {
            State::Delayed => self.emit_about(lane, EventKind::Delayed, job, |out| {
                push_field(out, "delay", |out| out.push_str(&delay.to_string()));
            }),
            _ => self.emit_about(lane, EventKind::Waiting, job, |_| {}),
        }
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

/// Whether a handler's result says that the job will be enqueued again under its id.
fn asks_to_await(result: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Awaiting {
        #[serde(default)]
        awaiting: bool,
    }
    // Anything that is no such object, or has something else there, is a plain result.
    result.contains("\"awaiting\"") && serde_json::from_str::<Awaiting>(result).is_ok_and(|found| found.awaiting)
}

/// A time as orders keep it.
fn time(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
