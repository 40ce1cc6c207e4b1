//! The engine: which job is where, who runs what, and what comes next.
//!
//! It is synchronous and knows no thread: a driver (see `memory.rs` and `file/`) calls it, one step at a time. A step is
//! some commands, then [`Engine::finish_step`], which starts what can be started and commits. Jobs and events leave for
//! workers and listeners only after the commit, so nobody hears of what might be undone.

mod clock;
mod work;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::events::{EventKind, Listeners, QueueEvent, Run, Ticket};
use super::job::{Job, JobCounts, JobState, State};
use super::lane::Lane;
use super::options::NewJob;
use super::schedule::{Calendar, Schedule};
use super::storage::JobStorage;
use crate::error::{Code, Error, Result};
use crate::fanout::{Mailbox, Push};
use crate::json::{Json, push_string};
use crate::time::SharedClock;

/// Opens the storage, when it is first needed.
pub(in crate::queue) type Opener = Box<dyn FnMut() -> Result<Box<dyn JobStorage>> + Send>;

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
    /// An owner that closes has nothing running any more, and its listeners have been told of it.
    Drained(oneshot::Sender<()>),
}

/// How an attempt ended.
pub(in crate::queue) enum Outcome {
    Completed(Json),
    Failed(Arc<str>),
}

pub(in crate::queue) struct Engine {
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
    pub(in crate::queue) fn new(clock: SharedClock, opener: Opener) -> Self {
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
    pub(in crate::queue) fn open(&mut self) -> Result<()> {
        self.db().map(|_| ())
    }

    /// From now on a commit survives power loss.
    pub(in crate::queue) fn survive_power_loss(&mut self) -> Result<()> {
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
                self.outbox.clear();
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
    pub(in crate::queue) fn finish_step(&mut self) -> Result<()> {
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
                    if !matches!(mailbox.push(run.clone()), Push::Queued | Push::Full) {
                        bounced.push(run);
                    }
                }
                // Whoever closed may have stopped waiting.
                Outgoing::Drained(sender) => _ = sender.send(()),
            }
        }
        bounced
    }

    /// A storage that failed once is not trusted again: what was not committed is gone, and every call says so.
    pub(in crate::queue) fn note_failure(&mut self, error: &Error) {
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

    pub(in crate::queue) fn set_paused(&mut self, owner: u64, queue: &Arc<str>, paused: bool) -> Result<()> {
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

    pub(in crate::queue) fn is_paused(&mut self, queue: &str) -> Result<bool> {
        Ok(self.stored(queue)?.is_some_and(|(lane, _)| self.lanes[lane].paused()))
    }

    pub(in crate::queue) fn counts(&mut self, queue: &str) -> Result<JobCounts> {
        let found = self.stored(queue)?;
        let row = found.and_then(|(lane, _)| self.lanes[lane].row.as_ref());
        Ok(row.map_or_else(JobCounts::default, |row| JobCounts(row.counts, row.paused)))
    }

    // ── jobs in and out ──

    pub(in crate::queue) fn enqueue(&mut self, queue: &Arc<str>, new: NewJob) -> Result<Arc<str>> {
        let (lane, key) = self.ensure(queue)?;
        let now = self.clock.now_ms();
        if let Some(id) = &new.options.job_id
            && self.db()?.find(key, id)?.is_some()
        {
            return Ok(id.clone());
        }
        let mut place = self.next_number(lane);
        let id = match new.options.job_id.clone() {
            Some(id) => id,
            None => loop {
                let id = format!("{now}-{place}");
                if self.db()?.find(key, &id)?.is_none() {
                    break id.into();
                }
                // Somebody chose for a job of theirs what we would have given.
                place = self.next_number(lane);
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

    pub(in crate::queue) fn job(&mut self, queue: &str, id: &str) -> Result<Option<Json>> {
        let Some((lane, key)) = self.stored(queue)? else { return Ok(None) };
        let Some(job) = self.db()?.find(key, id)? else { return Ok(None) };
        let data = self.db()?.data(job.seq)?;
        Ok(Some(job.to_json(&data, self.lanes[lane].paused())))
    }

    /// Jobs of these states, one state after the other.
    pub(in crate::queue) fn jobs(
        &mut self,
        queue: &str,
        states: &[JobState],
        offset: u64,
        limit: u64,
    ) -> Result<Vec<Json>> {
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

    pub(in crate::queue) fn remove_job(&mut self, queue: &str, id: &str) -> Result<bool> {
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

    // ── events ──

    pub(in crate::queue) fn listen(
        &mut self,
        owner: u64,
        queue: &Arc<str>,
        kind: EventKind,
        mailbox: Arc<Mailbox<QueueEvent>>,
    ) -> u64 {
        self.listeners.add(owner, queue, kind, mailbox)
    }

    pub(in crate::queue) fn unlisten(&mut self, id: u64) {
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

/// A time as orders keep it.
fn time(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
