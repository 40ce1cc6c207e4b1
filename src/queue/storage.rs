//! What the engine needs of a place that keeps jobs.

use std::sync::Arc;

use super::job::{Job, State};
use super::schedule::Schedule;
use crate::error::Result;
use crate::json::Json;

/// A queue as it is stored.
#[derive(Debug, Clone)]
pub(super) struct QueueRow {
    /// Given by the storage.
    pub(super) key: i64,
    pub(super) name: Arc<str>,
    pub(super) paused: bool,
    /// Jobs per [`State`].
    pub(super) counts: [u64; 5],
    /// The next place in the line, and the next number for ids and for the order of endings. Never goes back.
    pub(super) next: i64,
}

/// Keeps jobs, queues and schedules. Changes belong together until [`JobStorage::commit`]; after an error, nothing
/// that came since the last commit counts, and the storage is not used again.
///
/// Nothing here walks over all jobs: each method costs what it returns, plus a logarithm (a page also costs its offset).
pub(super) trait JobStorage: Send {
    fn queues(&mut self) -> Result<Vec<QueueRow>>;
    /// Adds a queue and gives it a key.
    fn add_queue(&mut self, name: &Arc<str>) -> Result<QueueRow>;
    /// Stores what may have changed: paused, counts, next.
    fn save_queue(&mut self, queue: &QueueRow) -> Result<()>;

    /// Adds a job and its data; returns its seq.
    fn insert(&mut self, job: &Job, data: &Json) -> Result<i64>;
    /// Stores everything that changes in a job.
    fn update(&mut self, job: &Job) -> Result<()>;
    /// Stores that the handler was called. Less work than [`JobStorage::update`].
    fn begin(&mut self, job: &Job) -> Result<()>;
    fn delete(&mut self, job: &Job) -> Result<()>;
    fn find(&mut self, queue: i64, id: &str) -> Result<Option<Job>>;
    fn data(&mut self, seq: i64) -> Result<Json>;
    /// Jobs of a state in its order, or the other way round.
    fn page(&mut self, queue: i64, state: State, newest_first: bool, offset: u64, limit: u64) -> Result<Vec<Job>>;
    /// The waiting job of this name that is first in the line.
    fn first_waiting(&mut self, queue: i64, name: &str) -> Result<Option<Job>>;
    /// Delayed jobs of any queue that are due, earliest first.
    fn due(&mut self, now_ms: u64, limit: u64) -> Result<Vec<Job>>;
    /// When the next delayed job of any queue is due.
    fn next_due(&mut self) -> Result<Option<u64>>;

    fn schedules(&mut self) -> Result<Vec<Schedule>>;
    /// Adds or replaces a schedule.
    fn save_schedule(&mut self, schedule: &Schedule) -> Result<()>;
    fn delete_schedule(&mut self, id: &str) -> Result<()>;

    /// Begins a step, if none has begun.
    fn begin_step(&mut self) -> Result<()>;
    /// Makes everything since the last commit last.
    fn commit(&mut self) -> Result<()>;
    /// From now on a commit survives power loss.
    fn survive_power_loss(&mut self) -> Result<()>;
}
