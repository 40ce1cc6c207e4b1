//! Attempts: jobs are dispatched to workers, and end as completed, failed or interrupted.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::events::push_field;
use super::{Active, AttemptPhase, Effect, Engine, Outcome, i64_from};
use crate::error::Result;
use crate::fanout::Mailbox;
use crate::json::{Json, push_string};
use crate::queue::delivery::{CancelReason, Cancellation, ClaimCell, JobDelivery};
use crate::queue::events::EventKind;
use crate::queue::job::{Job, State};
use crate::queue::options::{Keep, WorkerOptions};
use crate::queue::state::Worker;

/// How often a job may be interrupted by the end of its process or adapter once its attempts are used up. Without a
/// bound, a job that crashes its process would do so forever.
const MAX_STALLS: u32 = 3;
/// How many ended jobs of a queue are kept of each kind, where their options do not say.
const DEFAULT_KEPT_JOBS: u64 = 10_000;
/// How many old jobs are removed when a job ends, so that no step takes long. The next ends remove the rest.
const TRIM_PER_STEP: u64 = 1_000;
/// Characters of a job's failure in a warning.
const REPORTED_REASON: usize = 500;

impl Engine {
    pub(in crate::queue) fn register(
        &mut self,
        owner: u64,
        queue: &Arc<str>,
        name: &Arc<str>,
        options: WorkerOptions,
        is_held: bool,
        mailbox: Arc<Mailbox<JobDelivery>>,
    ) -> Result<u64> {
        let index = self.index(queue);
        self.ready.insert(index);
        let (worker, replaced) = self.queues[index].register(owner, name, options, is_held, mailbox);
        if let Some(replaced) = replaced {
            self.revoke_unstarted(|active| active.worker == replaced.id)?;
            replaced.mailbox.close();
        }
        Ok(worker)
    }

    /// Sets where the workers of an owner receive cancellations.
    pub(in crate::queue) fn set_cancellations(&mut self, owner: u64, mailbox: Arc<Mailbox<Cancellation>>) {
        self.cancellations.insert(owner, mailbox);
    }

    /// Asks the worker of an attempt to give it up.
    pub(super) fn cancel(&mut self, token: u64, reason: CancelReason) {
        let Some(active) = self.active.get(&token) else { return };
        let mailbox = self.cancellations.get(&active.owner).cloned();
        self.effects.push(Effect::Cancel(active.claim.clone(), mailbox, Cancellation { token, reason }));
    }

    /// Takes back delivered jobs whose handlers have not been called.
    pub(super) fn revoke_unstarted(&mut self, is_meant: impl Fn(&Active) -> bool) -> Result<()> {
        let meant = self.active.iter().filter(|(_, active)| is_meant(active));
        let mut revoked: Vec<_> = meant
            .filter(|(_, active)| active.claim.revoke())
            .map(|(token, active)| (active.job.order, *token))
            .collect();
        revoked.sort_unstable();
        revoked.into_iter().try_for_each(|(_, token)| self.release(token))
    }

    pub(in crate::queue) fn start(&mut self, owner: u64, queue: &Arc<str>) -> Result<()> {
        let index = self.index(queue);
        self.queues[index].start(owner);
        self.ready.insert(index);
        self.open()
    }

    /// Dispatches waiting jobs while there are workers with room.
    pub(super) fn dispatch_ready(&mut self, index: usize) -> Result<()> {
        let names = self.queues[index].names();
        while self.queues[index].has_room()
            && let Some(key) = self.queues[index].row.as_ref().map(|row| row.key)
            && let Some(job) = self.first_for(key, &names)?
            && let Some(worker) = self.queues[index].worker(&job.name)
        {
            self.dispatch(index, job, worker)?;
        }
        Ok(())
    }

    /// Returns the first waiting job that has one of these names.
    fn first_for(&mut self, key: i64, names: &[Arc<str>]) -> Result<Option<Job>> {
        if names.is_empty() {
            return Ok(None);
        }
        // The first job usually has a worker.
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

    fn dispatch(&mut self, index: usize, mut job: Job, worker: Worker) -> Result<()> {
        let now = self.clock.now_ms();
        job.state = State::Active;
        job.order = (i64_from(now), job.order.1);
        job.processed_on = Some(now);
        job.started = false;
        self.update(index, &job, State::Waiting)?;
        let data = self.db()?.data(job.seq)?;
        let token = crate::fanout::next_id();
        let claim = Arc::new(ClaimCell::default());
        let queue = self.queues[index].name.clone();
        let delivery =
            JobDelivery { token, worker: worker.id, queue, job: job.to_json(&data, false), claim: claim.clone() };
        self.emit_about(index, EventKind::Active, &job, |_| {});
        self.effects.push(Effect::Deliver(worker.mailbox, delivery));
        self.queues[index].active += 1;
        let active = Active {
            job,
            index,
            owner: worker.owner,
            worker: worker.id,
            claim,
            deadline: None,
            abandon_after: worker.abandon_after,
            timed_out: false,
            phase: AttemptPhase::Running,
            has_place: true,
            started_at: None,
        };
        self.active.insert(token, active);
        Ok(())
    }

    /// Records that the handler of an active job was called, at this time and this monotonic time: the attempt counts, and
    /// its timeout runs.
    pub(in crate::queue) fn mark_started(&mut self, token: u64, at: Instant, now: u64) -> Result<()> {
        let wall_ms = self.clock.now_ms();
        let Some(active) = self.active.get_mut(&token).filter(|active| !active.job.started) else { return Ok(()) };
        active.job.started = true;
        active.started_at = Some(at);
        let job = &active.job;
        if job.attempts_made == 0 && job.stalls == 0 {
            let runnable_ms = job.timestamp.saturating_add(job.options.delay.unwrap_or(0));
            self.queues[active.index].metrics.waited(wall_ms.saturating_sub(runnable_ms));
        }
        if let Some(timeout) = active.job.options.timeout.filter(|timeout| *timeout > 0) {
            let deadline = now.saturating_add(timeout);
            active.deadline = Some(deadline);
            self.deadlines.insert((deadline, token));
        }
        let (job, is_over) = (active.job.clone(), !matches!(active.phase, AttemptPhase::Running));
        if is_over { Ok(()) } else { self.db()?.mark_started(&job) }
    }

    /// Stores progress. Returns false where the attempt is over.
    pub(in crate::queue) fn progress(&mut self, token: u64, progress: Json) -> Result<bool> {
        let Some(active) = self.active.get_mut(&token).filter(|active| active.phase == AttemptPhase::Running) else {
            return Ok(false);
        };
        active.job.progress = Some(progress.clone());
        let (job, index) = (active.job.clone(), active.index);
        self.db()?.update(&job)?;
        self.emit_about(index, EventKind::Progress, &job, |out| {
            push_field(out, "progress", |out| out.push_str(&progress));
        });
        Ok(true)
    }

    /// Ends an attempt. Returns false where it was over before, by its timeout or because the job was removed.
    pub(in crate::queue) fn outcome(&mut self, token: u64, outcome: Outcome) -> Result<bool> {
        let Some(Active { mut job, index, phase, .. }) = self.take_active(token) else { return Ok(false) };
        let is_running = phase == AttemptPhase::Running;
        let outcome = match phase {
            AttemptPhase::Running => outcome,
            AttemptPhase::TimedOut(reason) => Outcome::Failed(reason),
            AttemptPhase::Over => return Ok(false),
            AttemptPhase::RetryRequested => {
                let failed = self.db()?.find(job.queue, &job.id)?.filter(|found| found.seq == job.seq);
                failed.map_or(Ok(()), |job| self.retry_failed(index, job))?;
                return Ok(false);
            }
        };
        let metrics = &self.queues[index].metrics;
        match &outcome {
            Outcome::Completed(_) => metrics.completed.increment(),
            // What timed out was counted then.
            Outcome::Failed(_) if is_running => metrics.failed.increment(),
            Outcome::Failed(_) => {}
        }
        match outcome {
            Outcome::Completed(result) if asks_to_await(&result) => self.delete(index, &job, State::Active)?,
            Outcome::Completed(result) => {
                job.attempts_made += 1;
                job.failed_reason = None;
                job.returnvalue = Some(result);
                self.end(index, job, State::Completed)?;
            }
            Outcome::Failed(reason) => {
                job.attempts_made += 1;
                job.failed_reason = Some(reason);
                if job.attempts_made < job.options.attempts() {
                    self.retry(index, job)?;
                } else {
                    self.end(index, job, State::Failed)?;
                }
            }
        }
        Ok(is_running)
    }

    /// Fails an attempt that has reached its deadline. Its handler keeps its place until it settles: a job that has no
    /// attempt left ends now, another one is tried again then. A second deadline later the place is given up.
    pub(super) fn pass_deadline(&mut self, token: u64, monotonic: u64) -> Result<()> {
        let Some(active) = self.active.get_mut(&token) else { return Ok(()) };
        active.deadline = None;
        if active.timed_out {
            self.cancel(token, CancelReason::Abandoned);
            let abandoned: Arc<str> = "abandoned".into();
            return self.outcome(token, Outcome::Failed(abandoned)).map(|_| ());
        }
        active.timed_out = true;
        if active.phase == AttemptPhase::Running {
            self.queues[active.index].metrics.timed_out.increment();
        }
        let deadline = monotonic.saturating_add(active.abandon_after);
        active.deadline = Some(deadline);
        self.deadlines.insert((deadline, token));
        let timeout = active.job.options.timeout.unwrap_or(0);
        let reason: Arc<str> = format!("timed out after {timeout} ms").into();
        let (mut job, index) = (active.job.clone(), active.index);
        let is_last = job.attempts_made + 1 >= job.options.attempts();
        match active.phase {
            AttemptPhase::Running if is_last => {
                active.phase = AttemptPhase::Over;
                job.attempts_made += 1;
                job.failed_reason = Some(reason);
                self.end(index, job, State::Failed)?;
            }
            AttemptPhase::Running => active.phase = AttemptPhase::TimedOut(reason),
            AttemptPhase::TimedOut(_) | AttemptPhase::Over | AttemptPhase::RetryRequested => {}
        }
        self.cancel(token, CancelReason::TimedOut);
        Ok(())
    }

    /// Records that the handler of an attempt has settled, and makes room for the next job.
    pub(in crate::queue) fn handler_settled(&mut self, token: u64, at: Instant) {
        if let Some(active) = self.active.get_mut(&token)
            && let Some(started) = active.started_at.take()
        {
            self.queues[active.index].metrics.ran(&active.job.name, started, at);
        }
        self.free_place(token);
    }

    /// Ends the timeout of an attempt and makes room for the next job.
    fn free_place(&mut self, token: u64) {
        let Some(active) = self.active.get_mut(&token) else { return };
        if let Some(deadline) = active.deadline.take() {
            self.deadlines.remove(&(deadline, token));
        }
        if std::mem::take(&mut active.has_place) {
            self.queues[active.index].active -= 1;
            self.ready.insert(active.index);
        }
    }

    fn take_active(&mut self, token: u64) -> Option<Active> {
        self.free_place(token);
        let active = self.active.remove(&token)?;
        if self.closing.contains_key(&active.owner)
            && !self.active.values().any(|other| other.owner == active.owner)
            && let Some(drained) = self.closing.remove(&active.owner)
        {
            self.effects.push(Effect::Drained(drained));
        }
        Some(active)
    }

    fn retry(&mut self, index: usize, mut job: Job) -> Result<()> {
        let seed = RandomState::new().hash_one(job.seq);
        let delay = job.options.backoff.map_or(0, |backoff| backoff.delay(job.attempts_made, seed));
        let number = self.next_number(index);
        job.started = false;
        if delay > 0 {
            job.state = State::Delayed;
            job.order = (i64_from(self.clock.now_ms().saturating_add(delay)), number);
        } else {
            job.state = State::Waiting;
            job.order = job.waiting_order(number);
        }
        self.update(index, &job, State::Active)?;
        self.emit_entered(index, &job, delay)
    }

    fn end(&mut self, index: usize, mut job: Job, state: State) -> Result<()> {
        job.state = state;
        let now = self.clock.now_ms();
        job.finished_on = Some(now);
        job.order = (self.next_number(index), 0);
        let (kind, keep) = match state {
            State::Completed => (EventKind::Completed, job.options.remove_on_complete),
            _ => (EventKind::Failed, job.options.remove_on_fail),
        };
        if state == State::Failed {
            let reason: String =
                job.failed_reason.iter().flat_map(|reason| reason.chars()).take(REPORTED_REASON).collect();
            tracing::warn!(
                code = "NVENT_JOB_FAILED",
                "job {:?} of queue {:?} has failed for good (attempts: {}, id {:?}): {reason}",
                job.name,
                self.queues[index].name,
                job.attempts_made,
                job.id
            );
        }
        let keep = keep.unwrap_or(Keep::last(DEFAULT_KEPT_JOBS));
        if keep.count == Some(0) {
            self.delete(index, &job, State::Active)?;
        } else {
            self.update(index, &job, State::Active)?;
            self.trim(index, job.queue, state, keep, now)?;
        }
        self.emit_about(index, kind, &job, |out| match (&job.returnvalue, &job.failed_reason) {
            (Some(value), _) => push_field(out, "returnvalue", |out| out.push_str(value)),
            (None, Some(reason)) => {
                push_field(out, "maxAttempts", |out| out.push_str(&job.options.attempts().to_string()));
                push_field(out, "failedReason", |out| push_string(out, reason));
            }
            (None, None) => {}
        });
        Ok(())
    }

    fn trim(&mut self, index: usize, key: i64, state: State, keep: Keep, now: u64) -> Result<()> {
        let count = self.queues[index].row.as_ref().map_or(0, |row| row.counts[state as usize]);
        let excess = keep.count.map_or(0, |keep| count.saturating_sub(keep)).min(TRIM_PER_STEP);
        if excess > 0 {
            for job in self.db()?.page(key, state, false, 0, excess)? {
                self.delete(index, &job, state)?;
            }
        }
        let Some(oldest) = keep.age.map(|age| now.saturating_sub(age)) else { return Ok(()) };
        for _ in excess..TRIM_PER_STEP {
            match self.db()?.page(key, state, false, 0, 1)?.pop() {
                Some(job) if job.finished_on.is_some_and(|ended| ended < oldest) => self.delete(index, &job, state)?,
                _ => break,
            }
        }
        Ok(())
    }

    /// Makes a job whose worker is gone wait again, at its old place.
    pub(super) fn interrupted(&mut self, index: usize, mut job: Job) -> Result<()> {
        if job.started {
            job.started = false;
            job.attempts_made += 1;
            job.stalls += 1;
            self.emit_about(index, EventKind::Stalled, &job, |_| {});
            if job.attempts_made >= job.options.attempts() && job.stalls > MAX_STALLS {
                let reason = format!("stalled {} times: each time its worker went away while it ran", job.stalls);
                job.failed_reason = Some(reason.into());
                return self.end(index, job, State::Failed);
            }
        }
        job.state = State::Waiting;
        job.order = job.waiting_order(job.order.1);
        self.update(index, &job, State::Active)?;
        self.emit_entered(index, &job, 0)
    }

    /// Releases an active job.
    pub(super) fn release(&mut self, token: u64) -> Result<()> {
        match self.take_active(token) {
            Some(Active { index, mut job, phase: AttemptPhase::TimedOut(reason), .. }) => {
                job.attempts_made += 1;
                job.failed_reason = Some(reason);
                self.retry(index, job)
            }
            Some(Active { index, job, phase: AttemptPhase::Running, .. }) => self.interrupted(index, job),
            Some(Active { index, job, phase: AttemptPhase::RetryRequested, .. }) => {
                let failed = self.db()?.find(job.queue, &job.id)?.filter(|found| found.seq == job.seq);
                failed.map_or(Ok(()), |job| self.retry_failed(index, job))
            }
            _ => Ok(()),
        }
    }

    /// Removes the workers of an owner and revokes the jobs they have not started. The receiver resolves when the
    /// owner's last handler has settled.
    pub(in crate::queue) fn begin_close(&mut self, owner: u64) -> Result<oneshot::Receiver<()>> {
        for index in 0..self.queues.len() {
            if self.queues[index].remove_owner(owner) {
                // The worker of another owner may take over.
                self.ready.insert(index);
            }
        }
        self.revoke_unstarted(|active| active.owner == owner)?;
        let (drained, wait) = oneshot::channel();
        if self.active.values().any(|active| active.owner == owner) {
            self.closing.insert(owner, drained);
        } else {
            self.effects.push(Effect::Drained(drained));
        }
        Ok(wait)
    }

    /// Removes the listeners of an owner and interrupts the jobs it still runs; their outcomes are ignored. Returns how
    /// many those were.
    pub(in crate::queue) fn force_close(&mut self, owner: u64) -> Result<usize> {
        self.closing.remove(&owner);
        self.listeners.remove_owner(owner);
        let own = self.active.iter().filter(|(_, active)| active.owner == owner);
        let left: Vec<u64> = own.map(|(token, _)| *token).collect();
        for token in &left {
            self.cancel(*token, CancelReason::Closed);
            self.release(*token)?;
        }
        self.cancellations.remove(&owner);
        Ok(left.len())
    }
}

/// Returns whether a handler's result asks to remove the job, so that its id can be enqueued again.
fn asks_to_await(result: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Awaiting {
        #[serde(default)]
        awaiting: bool,
    }
    // Anything that is no such object, or has something else there, is a plain result.
    result.contains("\"awaiting\"") && serde_json::from_str::<Awaiting>(result).is_ok_and(|found| found.awaiting)
}
