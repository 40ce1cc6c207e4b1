//! Jobs in and out: they are enqueued, read, removed and retried, and their queues paused.

use std::sync::Arc;

use super::events::push_field;
use super::{AttemptPhase, Engine, i64_from};
use crate::error::Result;
use crate::json::{Json, push_string};
use crate::queue::delivery::CancelReason;
use crate::queue::events::EventKind;
use crate::queue::job::{Job, JobCounts, JobState, State};
use crate::queue::options::NewJob;

impl Engine {
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
            let (token, is_revoked) = (*token, active.claim.revoke());
            if is_revoked {
                // Its handler will not be called.
                self.release(token)?;
            } else {
                self.cancel(token, CancelReason::Removed);
            }
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

    pub(super) fn retry_failed(&mut self, index: usize, mut job: Job) -> Result<()> {
        let number = self.next_number(index);
        job.state = State::Waiting;
        job.order = job.waiting_order(number);
        job.started = false;
        job.stalls = 0;
        (job.processed_on, job.finished_on, job.failed_reason) = (None, None, None);
        self.update(index, &job, State::Failed)?;
        self.emit_entered(index, &job, 0)
    }

    pub(super) fn delete(&mut self, index: usize, job: &Job, from: State) -> Result<()> {
        self.db()?.delete(job)?;
        self.count(index, from, -1);
        Ok(())
    }

    pub(super) fn update(&mut self, index: usize, job: &Job, from: State) -> Result<()> {
        self.db()?.update(job)?;
        self.count(index, from, -1);
        self.count(index, job.state, 1);
        Ok(())
    }
}
