//! The storage of jobs, queues and schedules.

use std::path::Path;
use std::sync::Arc;

use super::file::Durability;
use super::job::{Job, State};
use super::schedule::Schedule;
use crate::error::Result;
use crate::json::Json;

/// A queue as it is stored.
#[derive(Debug, Clone)]
pub(super) struct QueueRow {
    /// Chosen by the storage.
    pub(super) key: i64,
    pub(super) name: Arc<str>,
    pub(super) paused: bool,
    /// Jobs per [`State`].
    pub(super) counts: [u64; 5],
    /// The next number for places in line, ids and the order of ends. Only increases.
    pub(super) next: i64,
}

/// Stores jobs, queues and schedules. Changes since the last [`JobStorage::commit`] form one transaction; after an error
/// it is dropped, and the storage is not used again.
///
/// No method scans all jobs: each costs what it returns, plus a logarithm (a page also costs its offset).
pub(super) trait JobStorage: Send {
    fn queues(&mut self) -> Result<Vec<QueueRow>>;
    /// Adds a queue and gives it a key.
    fn add_queue(&mut self, name: &Arc<str>) -> Result<QueueRow>;
    /// Stores paused, counts and next.
    fn save_queue(&mut self, queue: &QueueRow) -> Result<()>;

    /// Adds a job and its data; returns its seq.
    fn insert(&mut self, job: &Job, data: &Json) -> Result<i64>;
    /// Stores the fields of a job that change.
    fn update(&mut self, job: &Job) -> Result<()>;
    /// Stores that the handler was called. Cheaper than [`JobStorage::update`].
    fn mark_started(&mut self, job: &Job) -> Result<()>;
    fn delete(&mut self, job: &Job) -> Result<()>;
    fn find(&mut self, queue: i64, id: &str) -> Result<Option<Job>>;
    fn data(&mut self, seq: i64) -> Result<Json>;
    /// Returns jobs of a state in its order, or in reverse.
    fn page(&mut self, queue: i64, state: State, newest_first: bool, offset: u64, limit: u64) -> Result<Vec<Job>>;
    /// Returns the first waiting job of this name.
    fn first_waiting(&mut self, queue: i64, name: &str) -> Result<Option<Job>>;
    /// Returns delayed jobs of any queue that are due, earliest first.
    fn due(&mut self, now_ms: u64, limit: u64) -> Result<Vec<Job>>;
    /// Moves the due times of all delayed jobs by so many ms.
    fn shift_delayed(&mut self, by_ms: i64) -> Result<()>;
    /// Moves delayed jobs whose delay began later than now so that it begins now: their clock ran ahead.
    fn rebase_delayed(&mut self, now_ms: u64) -> Result<()>;
    /// Returns when the next delayed job of any queue is due.
    fn next_due(&mut self) -> Result<Option<u64>>;

    fn schedules(&mut self) -> Result<Vec<Schedule>>;
    /// Adds or replaces a schedule.
    fn save_schedule(&mut self, schedule: &Schedule) -> Result<()>;
    fn delete_schedule(&mut self, id: &str) -> Result<()>;

    /// Begins a step, if none has started.
    fn begin_step(&mut self) -> Result<()>;
    /// Commits all changes since the last commit.
    fn commit(&mut self) -> Result<()>;
    /// Sets what the following commits survive.
    fn set_durability(&mut self, durability: Durability) -> Result<()>;
    /// Returns what commits survive now.
    fn durability(&mut self) -> Result<Durability>;
    /// Returns what identifies the storage as long as it exists: a random text.
    fn identity(&mut self) -> Result<Arc<str>>;
    /// Copies everything that is committed into a new file.
    fn backup(&mut self, path: &Path) -> Result<()>;
    /// Reads everything. Returns what is wrong, in words.
    fn verify(&mut self) -> Result<Vec<String>>;
}
