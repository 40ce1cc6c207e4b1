//! Attempts: jobs go to workers, and come back as done, failed or interrupted.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Active, Engine, Outcome, Outgoing, push_field, time};
use crate::error::Result;
use crate::fanout::Mailbox;
use crate::json::{Json, push_string};
use crate::queue::events::{EventKind, Run, Ticket};
use crate::queue::job::{Job, State};
use crate::queue::lane::Worker;
use crate::queue::options::{Keep, WorkerOptions};

/// How often a job may be running when its process or adapter goes away, once its attempts are used up. A job that
/// takes the process down with it would do so forever.
const MAX_STALLS: u32 = 3;
/// Old jobs that the end of one job removes. Where more are too many, the next ends remove them.
const TRIM_PER_STEP: u64 = 1_000;

impl Engine {
    pub(in crate::queue) fn register(
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

    pub(in crate::queue) fn start(&mut self, owner: u64, queue: &Arc<str>) -> Result<()> {
        let lane = self.lane(queue);
        self.lanes[lane].start(owner);
        self.ready.insert(lane);
        self.open()
    }

    /// Gives jobs to workers while there are both.
    pub(super) fn dispatch(&mut self, lane: usize) -> Result<()> {
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
    pub(in crate::queue) fn begun(&mut self, token: u64, now: u64) -> Result<()> {
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
    pub(in crate::queue) fn progress(&mut self, token: u64, progress: Json) -> Result<bool> {
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
    pub(in crate::queue) fn outcome(&mut self, token: u64, outcome: Outcome) -> Result<bool> {
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
            self.outbox.push(Outgoing::Drained(drained));
        }
        Some(active)
    }

    fn retry(&mut self, lane: usize, mut job: Job) -> Result<()> {
        let dice = RandomState::new().hash_one(job.seq);
        let delay = job.options.backoff.map_or(0, |backoff| backoff.delay(job.attempts_made, dice));
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
        let keep = keep.unwrap_or_default();
        if keep.count == Some(0) {
            self.delete(lane, &job, State::Active)?;
        } else {
            self.update(lane, &job, State::Active)?;
            self.trim(lane, job.queue, state, keep)?;
        }
        self.emit_about(lane, kind, &job, |out| match (&job.returnvalue, &job.failed_reason) {
            (Some(value), _) => push_field(out, "returnvalue", |out| out.push_str(value)),
            (None, Some(reason)) => push_field(out, "failedReason", |out| push_string(out, reason)),
            (None, None) => {}
        });
        Ok(())
    }

    fn trim(&mut self, lane: usize, key: i64, state: State, keep: Keep) -> Result<()> {
        let count = self.lanes[lane].row.as_ref().map_or(0, |row| row.counts[state as usize]);
        let excess = keep.count.map_or(0, |keep| count.saturating_sub(keep)).min(TRIM_PER_STEP);
        if excess > 0 {
            for job in self.db()?.page(key, state, false, 0, excess)? {
                self.delete(lane, &job, state)?;
            }
        }
        let Some(oldest) = keep.age.map(|age| self.clock.now_ms().saturating_sub(age)) else { return Ok(()) };
        for _ in excess..TRIM_PER_STEP {
            match self.db()?.page(key, state, false, 0, 1)?.pop() {
                Some(job) if job.finished_on.is_some_and(|ended| ended < oldest) => self.delete(lane, &job, state)?,
                _ => break,
            }
        }
        Ok(())
    }

    /// A job whose worker is gone: it runs again, ahead of those that came after it.
    pub(super) fn interrupted(&mut self, lane: usize, mut job: Job) -> Result<()> {
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
    pub(super) fn release(&mut self, token: u64) -> Result<()> {
        match self.take_active(token) {
            Some(active) if !active.removed => self.interrupted(active.lane, active.job),
            _ => Ok(()),
        }
    }

    /// An adapter stops: it gets no more jobs, and those it has not begun go back. The receiver ends with its last handler.
    pub(in crate::queue) fn begin_close(&mut self, owner: u64) -> Result<oneshot::Receiver<()>> {
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
            self.outbox.push(Outgoing::Drained(drained));
        }
        Ok(wait)
    }

    /// An adapter is gone: what it still runs counts as interrupted, what it reports later is ignored. How many those were.
    pub(in crate::queue) fn end_close(&mut self, owner: u64) -> Result<usize> {
        self.closing.remove(&owner);
        self.listeners.forget(owner);
        let own = self.active.iter().filter(|(_, active)| active.owner == owner);
        let left: Vec<u64> = own.map(|(token, _)| *token).collect();
        left.iter().try_for_each(|token| self.release(*token))?;
        Ok(left.len())
    }
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
