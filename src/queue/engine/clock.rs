//! Time: what is due, and jobs that repeat.

use std::sync::Arc;

use super::{Engine, Outcome};
use crate::error::{Error, Result};
use crate::json::Json;
use crate::queue::calendar::Calendar;
use crate::queue::job::State;
use crate::queue::options::{NewJob, ScheduleOptions};
use crate::queue::schedule::Schedule;
use crate::topic::check_name;

/// How many delayed jobs one step moves, so that no step takes long.
const DUE_PER_STEP: u64 = 500;

impl Engine {
    /// Returns when [`Engine::tick`] is due next; None while nothing waits for a time.
    pub(in crate::queue) fn next_wake(&mut self) -> Option<u64> {
        self.storage.as_ref()?;
        if self.next_due.is_none() {
            // A failure of the storage is met again, and reported, by `tick`.
            self.next_due = Some(self.db().and_then(|db| db.next_due()).unwrap_or(Some(0)));
        }
        let due = self.next_due.flatten();
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        let schedule = self.schedules.values().map(|(schedule, _)| schedule.next).min();
        [due, deadline, schedule].into_iter().flatten().min()
    }

    /// Fails attempts that timed out, and makes delayed jobs and schedules that are due wait.
    pub(super) fn tick(&mut self) -> Result<()> {
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
            let Some(index) = self.by_key.get(&job.queue).copied() else { continue };
            job.state = State::Waiting;
            let number = self.next_number(index);
            job.order = job.waiting_order(number);
            self.update(index, &job, State::Delayed)?;
            self.emit_entered(index, &job, 0);
        }
        let due = self.schedules.values().filter(|(schedule, _)| schedule.next <= now);
        for id in due.map(|(schedule, _)| schedule.id.clone()).collect::<Vec<_>>() {
            self.fire(&id, now)?;
        }
        Ok(())
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
        let id = new.options.job_id.take().unwrap_or_else(|| Schedule::derived_id(queue, &new.name, &repeat));
        // The ids of its jobs begin with it.
        check_name("the id of the schedule", &job_id(&id, u64::MAX))?;
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

    /// Enqueues one job for all times that have passed, and computes the next time.
    fn fire(&mut self, id: &Arc<str>, now: u64) -> Result<()> {
        let Some((schedule, calendar)) = self.schedules.get_mut(id) else { return Ok(()) };
        let mut options = schedule.options.clone();
        options.job_id = Some(job_id(id, schedule.next).into());
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

    pub(in crate::queue) fn scheduled(&mut self, queue: &str) -> Result<Vec<Json>> {
        self.db()?;
        let of_queue = self.schedules.values().filter(|(schedule, _)| *schedule.queue == *queue);
        Ok(of_queue.map(|(schedule, _)| schedule.to_json()).collect())
    }

    pub(in crate::queue) fn remove_schedule(&mut self, id: &str) -> Result<bool> {
        self.db()?;
        if self.schedules.remove(id).is_none() {
            return Ok(false);
        }
        self.db()?.delete_schedule(id)?;
        Ok(true)
    }
}

/// Returns the id of the job that a schedule enqueues for this time.
fn job_id(schedule: &str, at: u64) -> String {
    format!("{schedule}:{at}")
}
