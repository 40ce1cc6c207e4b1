//! Options of jobs, workers and schedules. [`super::parse`] reads them from JSON.

use std::sync::Arc;

use serde_json::{Value, json};

use super::calendar::Repeat;
use crate::json::{Json, Object, to_json};

/// The longest time that an option may name: ten years, in milliseconds.
pub(super) const MAX_DURATION: f64 = 10.0 * 366.0 * 24.0 * 3_600_000.0;

/// How long to wait before the next attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// Whether the wait is twice as long after each attempt, rather than always the same.
    pub exponential: bool,
    /// The (first) wait, in ms.
    pub delay: u64,
    /// The part of a wait that chance may take away: 0 for none of it, 1 for all.
    pub jitter: f64,
}

impl Backoff {
    /// Returns a constant wait.
    pub const fn fixed(delay: u64) -> Self {
        Self { exponential: false, delay, jitter: 0.0 }
    }

    /// Returns the wait after so many attempts, in ms. `seed` is a random number.
    pub fn delay(self, attempts_made: u32, seed: u64) -> u64 {
        let factor = match self.exponential {
            true => 1_u64.checked_shl(attempts_made.saturating_sub(1)).unwrap_or(u64::MAX),
            false => 1,
        };
        let whole = self.delay.saturating_mul(factor).min(MAX_DURATION as u64);
        whole - (whole as f64 * self.jitter * (seed as f64 / u64::MAX as f64)) as u64
    }
}

/// Which of the jobs of a queue that ended in one way are kept. Applied when a job ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// The last so many; None keeps all of them.
    pub count: Option<u64>,
    /// Those that ended at most so many ms before the job that ends now.
    pub age: Option<u64>,
}

impl Keep {
    /// Keeps the last so many.
    pub const fn last(count: u64) -> Self {
        Self { count: Some(count), age: None }
    }

    fn to_value(self) -> Value {
        match self {
            Self { count: None, age: None } => false.into(),
            Self { count: Some(count), age: None } => count.into(),
            Self { count: None, age: Some(age) } => json!({"age": age as f64 / 1000.0}),
            Self { count: Some(count), age: Some(age) } => json!({"age": age as f64 / 1000.0, "count": count}),
        }
    }
}

/// Options of a job. None is the default of the adapter, or else of the engine.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobOptions {
    /// The id; a job that has it already makes the enqueue a no-op.
    pub job_id: Option<Arc<str>>,
    /// How many attempts there are in all. One unless given.
    pub attempts: Option<u32>,
    /// The wait between attempts. None unless given.
    pub backoff: Option<Backoff>,
    /// Milliseconds before it may run.
    pub delay: Option<u64>,
    /// Lower numbers run first, jobs without one (or with 0) before them.
    pub priority: Option<u32>,
    /// Runs before the jobs of its priority that are there already.
    pub lifo: Option<bool>,
    /// Milliseconds after which an attempt has failed.
    pub timeout: Option<u64>,
    /// What to keep of completed jobs.
    pub remove_on_complete: Option<Keep>,
    /// What to keep of failed jobs.
    pub remove_on_fail: Option<Keep>,
    /// The W3C trace context of its enqueue, which its attempts continue.
    pub traceparent: Option<Arc<str>>,
}

impl JobOptions {
    /// Fills missing options in from `defaults`, except the id and the trace context.
    #[must_use]
    pub fn or(self, defaults: &Self) -> Self {
        Self {
            job_id: self.job_id,
            traceparent: self.traceparent,
            attempts: self.attempts.or(defaults.attempts),
            backoff: self.backoff.or(defaults.backoff),
            delay: self.delay.or(defaults.delay),
            priority: self.priority.or(defaults.priority),
            lifo: self.lifo.or(defaults.lifo),
            timeout: self.timeout.or(defaults.timeout),
            remove_on_complete: self.remove_on_complete.or(defaults.remove_on_complete),
            remove_on_fail: self.remove_on_fail.or(defaults.remove_on_fail),
        }
    }

    /// Serialises the options for handlers and for the storage. `attempts` is always there.
    pub fn to_json(&self) -> Json {
        let mut object = Object::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                object.insert(key.into(), value);
            }
        };
        put("jobId", self.job_id.as_deref().map(Into::into));
        put("attempts", Some(self.attempts().into()));
        put(
            "backoff",
            self.backoff.map(|Backoff { exponential, delay, jitter }| {
                let kind = if exponential { "exponential" } else { "fixed" };
                let mut backoff = json!({"type": kind, "delay": delay});
                if jitter > 0.0 {
                    backoff["jitter"] = jitter.into();
                }
                backoff
            }),
        );
        put("delay", self.delay.map(Into::into));
        put("priority", self.priority.map(Into::into));
        put("lifo", self.lifo.map(Into::into));
        put("timeout", self.timeout.map(Into::into));
        put("removeOnComplete", self.remove_on_complete.map(Keep::to_value));
        put("removeOnFail", self.remove_on_fail.map(Keep::to_value));
        put("traceparent", self.traceparent.as_deref().map(Into::into));
        to_json(&object)
    }

    /// Returns the number of attempts in all.
    pub fn attempts(&self) -> u32 {
        self.attempts.unwrap_or(1)
    }
}

/// A job to enqueue.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// The name of the worker that runs it.
    pub name: Arc<str>,
    /// The payload, as it was given.
    pub data: Json,
    /// Its options.
    pub options: JobOptions,
}

/// Options of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerOptions {
    /// How many jobs of the queue may run at the same time. The first worker of a queue decides for all of them.
    pub concurrency: usize,
    /// Whether the worker runs by itself. If not, it waits for [`super::Queue::resume`].
    pub autorun: bool,
    /// How long a handler may go on after its timeout before its place is given to another job, in ms.
    pub abandon_after: u64,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self { concurrency: 1, autorun: true, abandon_after: 30_000 }
    }
}

/// When a job runs: after a delay, or again and again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScheduleOptions {
    /// Once, after so many ms.
    pub delay: Option<u64>,
    /// When it repeats.
    pub repeat: Option<Repeat>,
}
