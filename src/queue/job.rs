//! Jobs and their states.

use std::sync::Arc;

use super::options::JobOptions;
use crate::json::{Json, push_string};

/// The stored state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum State {
    /// Ready to run.
    Waiting,
    /// Ready at a later time.
    Delayed,
    /// With a worker.
    Active,
    /// Ended well.
    Completed,
    /// Out of attempts.
    Failed,
}

impl State {
    pub(super) const ALL: [Self; 5] = [Self::Waiting, Self::Delayed, Self::Active, Self::Completed, Self::Failed];
}

/// A state as callers see it: jobs that wait in a paused queue are `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Ready to run.
    Waiting,
    /// With a worker.
    Active,
    /// Ended well.
    Completed,
    /// Out of attempts.
    Failed,
    /// Ready at a later time.
    Delayed,
    /// Ready to run once the queue is resumed.
    Paused,
}

impl JobState {
    /// Every state, in the order of [`super::Queue::jobs`] without states.
    pub const ALL: [Self; 6] =
        [Self::Active, Self::Waiting, Self::Paused, Self::Delayed, Self::Completed, Self::Failed];

    /// Returns the name that JavaScript uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Active => "active",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Paused => "paused",
        }
    }

    /// Parses the name of a state; `path` is the argument's in the error.
    pub fn parse(path: &str, name: &str) -> crate::Result<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            crate::Error::invalid(format!("{path}: {name:?} is no state of a job (known: {known})"))
        })
    }

    pub(super) fn of(state: State, paused: bool) -> Self {
        match state {
            State::Waiting if paused => Self::Paused,
            State::Waiting => Self::Waiting,
            State::Delayed => Self::Delayed,
            State::Active => Self::Active,
            State::Completed => Self::Completed,
            State::Failed => Self::Failed,
        }
    }

    /// Returns the stored state whose jobs are in this one; None where there is none.
    pub(super) fn stored(self, paused: bool) -> Option<State> {
        State::ALL.into_iter().find(|state| Self::of(*state, paused) == self)
    }
}

/// How many jobs a queue has in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobCounts(pub(super) [u64; 5], pub(super) bool);

impl JobCounts {
    /// Returns how many jobs are in this state.
    pub fn get(&self, state: JobState) -> u64 {
        state.stored(self.1).map_or(0, |stored| self.0[stored as usize])
    }

    /// Serialises as `{ waiting, active, … }`.
    pub fn to_json(&self) -> Json {
        let fields = JobState::ALL.map(|state| format!("\"{}\":{}", state.as_str(), self.get(state)));
        format!("{{{}}}", fields.join(",")).into()
    }
}

/// Everything about a job but its data, which may be large and never changes.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// Chosen by the storage, unique in it.
    pub(super) seq: i64,
    /// The key of its queue.
    pub(super) queue: i64,
    pub(super) id: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) options: Arc<JobOptions>,
    pub(super) state: State,
    /// The sort key among the jobs of a state. Waiting: priority and place in the line; delayed: when it is due and the
    /// place; active: since when and the place; completed and failed: the order in which they ended.
    pub(super) order: (i64, i64),
    pub(super) timestamp: u64,
    pub(super) processed_on: Option<u64>,
    pub(super) finished_on: Option<u64>,
    /// Attempts that are over.
    pub(super) attempts_made: u32,
    /// Whether the handler of the current attempt has been called.
    pub(super) started: bool,
    /// How often its handler was interrupted by the end of the process or of its adapter.
    pub(super) stalls: u32,
    pub(super) progress: Option<Json>,
    pub(super) returnvalue: Option<Json>,
    pub(super) failed_reason: Option<Arc<str>>,
}

impl Job {
    /// Returns the order of the job while it waits: with `lifo`, before the older ones.
    pub(super) fn waiting_order(&self, number: i64) -> (i64, i64) {
        let place = if self.options.lifo == Some(true) { -number.abs() } else { number };
        (i64::from(self.options.priority.unwrap_or(0)), place)
    }

    /// Serialises the job for callers and handlers.
    pub(super) fn to_json(&self, data: &str, paused: bool) -> Json {
        let mut out = String::with_capacity(data.len() + 256);
        out.push_str("{\"id\":");
        push_string(&mut out, &self.id);
        out.push_str(",\"name\":");
        push_string(&mut out, &self.name);
        out.push_str(",\"data\":");
        out.push_str(data);
        out.push_str(",\"opts\":");
        out.push_str(&self.options.to_json());
        out.push_str(",\"state\":\"");
        out.push_str(JobState::of(self.state, paused).as_str());
        out.push_str(&format!("\",\"attemptsMade\":{},\"timestamp\":{}", self.attempts_made, self.timestamp));
        let mut put = |key: &str, value: Option<&str>| {
            if let Some(value) = value {
                out.push_str(&format!(",\"{key}\":{value}"));
            }
        };
        put("processedOn", self.processed_on.map(|ms| ms.to_string()).as_deref());
        put("finishedOn", self.finished_on.map(|ms| ms.to_string()).as_deref());
        put("stalledCounter", (self.stalls > 0).then(|| self.stalls.to_string()).as_deref());
        put("progress", self.progress.as_deref());
        put("returnvalue", self.returnvalue.as_deref());
        if let Some(reason) = &self.failed_reason {
            out.push_str(",\"failedReason\":");
            push_string(&mut out, reason);
        }
        out.push('}');
        out.into()
    }
}
