//! Time: what is due, and jobs that repeat.

use std::sync::Arc;

use super::{Engine, i64_from};
use crate::error::{Error, Result};
use crate::json::Json;
use crate::queue::calendar::{Calendar, Repeat};
use crate::queue::job::State;
use crate::queue::options::{NewJob, ScheduleOptions};
use crate::queue::schedule::Schedule;
use crate::time::SharedClock;
use crate::topic::check_name;

/// Differences of the wall clock and the monotonic clock from which on the wall clock was set, in ms. Smaller ones are
/// corrections of its speed.
const MIN_CLOCK_STEP: i64 = 1_000;
/// How many delayed jobs one step moves, so that no step takes long.
const DUE_PER_STEP: u64 = 500;

impl Engine {
    /// Returns when [`Engine::tick`] is due next, on the monotonic clock; None while nothing waits for a time.
    pub(in crate::queue) fn next_wake(&mut self) -> Option<u64> {
        self.storage.as_ref()?;
        if self.next_due.is_none() {
            // A failure of the storage is met again, and reported, by `tick`.
            self.next_due = Some(self.db().and_then(|db| db.next_due()).unwrap_or(Some(0)));
        }
        let due = self.next_due.flatten();
        let schedule = self.schedules.values().map(|(schedule, _)| schedule.next).min();
        let wall = [due, schedule].into_iter().flatten().min();
        let wall = wall.map(|time| u64::try_from(i64_from(time).saturating_sub(self.clock_offset)).unwrap_or(0));
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        [wall, deadline].into_iter().flatten().min()
    }

    /// Fails attempts that timed out, and makes delayed jobs and schedules that are due wait.
    pub(super) fn tick(&mut self) -> Result<()> {
        if self.storage.is_none() {
            return Ok(());
        }
        self.follow_wall_clock()?;
        let (now, monotonic) = (self.clock.now_ms(), self.clock.monotonic_ms());
        if self.next_wake().is_none_or(|wake| wake > monotonic) {
            return Ok(());
        }
        while let Some((deadline, token)) =
            self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= monotonic)
        {
            self.deadlines.remove(&(deadline, token));
            self.pass_deadline(token, monotonic)?;
        }
        for mut job in self.db()?.due(now, DUE_PER_STEP)? {
            let Some(index) = self.by_key.get(&job.queue).copied() else { continue };
            job.state = State::Waiting;
            let number = self.next_number(index);
            job.order = job.waiting_order(number);
            self.update(index, &job, State::Delayed)?;
            self.emit_entered(index, &job, 0)?;
        }
        let due = self.schedules.values().filter(|(schedule, _)| schedule.next <= now);
        for id in due.map(|(schedule, _)| schedule.id.clone()).collect::<Vec<_>>() {
            self.fire(&id, now)?;
        }
        Ok(())
    }

    /// Recomputes due times where the wall clock was set: delays are durations and keep what is left of them, schedules
    /// follow the new time.
    fn follow_wall_clock(&mut self) -> Result<()> {
        let offset = clock_offset(&self.clock);
        let step = offset - std::mem::replace(&mut self.clock_offset, offset);
        if step.abs() < MIN_CLOCK_STEP {
            return Ok(());
        }
        self.db()?.shift_delayed(step)?;
        self.next_due = None;
        self.reschedule()
    }

    /// Moves schedules back whose next time is later than their pattern says: it was computed by a clock that ran ahead.
    /// A time that has passed stays, and fires.
    pub(super) fn reschedule(&mut self) -> Result<()> {
        let now = self.clock.now_ms();
        let mut changed = Vec::new();
        for (schedule, calendar) in self.schedules.values_mut() {
            if let Some(next) = calendar.next_after(now).filter(|next| *next < schedule.next) {
                schedule.next = next;
                changed.push(schedule.clone());
            }
        }
        changed.iter().try_for_each(|schedule| self.db()?.save_schedule(schedule))
    }

    pub(in crate::queue) fn schedule(
        &mut self,
        queue: &Arc<str>,
        mut new: NewJob,
        when: ScheduleOptions,
    ) -> Result<Arc<str>> {
        let Some(repeat) = when.repeat else {
            new.options.delay = when.delay.or(new.options.delay);
            return self.enqueue(queue, new);
        };
        let calendar = Calendar::new(&repeat)?;
        let id = self.schedule_id(queue, &mut new, &repeat);
        // The ids of its jobs begin with it.
        check_name("the id of the schedule", &job_id(&id, u64::MAX))?;
        self.ensure(queue)?;
        let unchanged = self.schedules.get(&id).map(|(old, _)| old).filter(|old| old.repeat == repeat);
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

    /// Chooses the id of a schedule: its `jobId`, or one derived from queue, name and pattern. Where another queue or name
    /// has that already, the queue is appended.
    fn schedule_id(&self, queue: &Arc<str>, new: &mut NewJob, repeat: &Repeat) -> Arc<str> {
        let (given, name) = (new.options.job_id.take(), new.name.clone());
        let base = given.clone().unwrap_or_else(|| Schedule::derived_id(queue, &name, repeat));
        let is_own = |other: &Schedule| other.queue == *queue && (given.is_some() || other.name == name);
        let of = |id: &Arc<str>| self.schedules.get(id).map(|(schedule, _)| schedule);
        let mut candidates = vec![base.clone(), format!("{base}@{queue}").into()];
        while candidates.last().and_then(of).is_some_and(|other| !is_own(other)) {
            candidates.push(format!("{base}@{queue}~{}", candidates.len()).into());
        }
        // What is there already under a later candidate is replaced, also where an earlier one is free.
        let own = candidates.iter().find(|id| of(id).is_some_and(is_own));
        own.or_else(|| candidates.iter().find(|id| of(id).is_none())).cloned().unwrap_or(base)
    }

    /// Enqueues one job for all times that have passed, and computes the next time.
    fn fire(&mut self, id: &Arc<str>, now: u64) -> Result<()> {
        let Some((schedule, calendar)) = self.schedules.get_mut(id) else { return Ok(()) };
        let (mut options, at) = (schedule.options.clone(), schedule.next);
        schedule.fired += 1;
        let over = schedule.repeat.limit.is_some_and(|limit| schedule.fired >= limit);
        let next = calendar.next_after(now).filter(|_| !over);
        if let Some(next) = next {
            schedule.next = next;
        }
        let schedule = schedule.clone();
        let mut job_id = job_id(id, at);
        let (_, key) = self.ensure(&schedule.queue)?;
        // A clock that was set back shows its times again.
        while self.db()?.find(key, &job_id)?.is_some() {
            job_id.push('+');
        }
        options.job_id = Some(job_id.into());
        let new = NewJob { name: schedule.name.clone(), data: schedule.data.clone(), options };
        self.enqueue(&schedule.queue, new)?;
        if next.is_some() { self.db()?.save_schedule(&schedule) } else { self.remove_schedule(id).map(|_| ()) }
    }

    pub(in crate::queue) fn scheduled(&mut self, queue: &str) -> Result<Vec<Json>> {
        self.db()?;
        let of_queue = self.schedules.values().filter(|(schedule, _)| *schedule.queue == *queue);
        Ok(of_queue.map(|(schedule, _)| schedule.to_json()).collect())
    }

    pub(in crate::queue) fn remove_schedule(&mut self, id: &str) -> Result<bool> {
        self.db()?;
        if self.schedules.remove(id).is_some() {
            self.db()?.delete_schedule(id)?;
            return Ok(true);
        }
        // A schedule with a delay is a job that has not been tried yet.
        let keys: Vec<_> = self.by_key.iter().map(|(key, index)| (*key, *index)).collect();
        let mut delayed = Vec::new();
        for (key, index) in keys {
            let job = self.db()?.find(key, id)?;
            delayed.extend(
                job.filter(|job| job.state == State::Delayed && job.attempts_made == 0).map(|job| (index, job)),
            );
        }
        match delayed.as_slice() {
            [] => Ok(false),
            [(index, job)] => self.delete(*index, job, State::Delayed).map(|()| true),
            [(first, _), (second, _), ..] => Err(Error::invalid(format!(
                "scheduleId: {id:?} is a delayed job of the queues {:?} and {:?}: use removeJob",
                self.queues[*first].name, self.queues[*second].name
            ))),
        }
    }
}

/// Returns how far the wall clock is ahead of the monotonic clock, in ms.
pub(super) fn clock_offset(clock: &SharedClock) -> i64 {
    i64_from(clock.now_ms()) - i64_from(clock.monotonic_ms())
}

/// Returns the id of the job that a schedule enqueues for this time.
fn job_id(schedule: &str, at: u64) -> String {
    format!("{schedule}:{at}")
}
