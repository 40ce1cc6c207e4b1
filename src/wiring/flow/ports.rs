//! The traits through which flow wiring reaches stores and queues.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::event::{Event, NewEvent};
use crate::fanout::Mailbox;
use crate::json::{Json, Object, check_depth};
use crate::name::{EntryId, Key, Subject};
use crate::op::Op;
use crate::queue::{EventKind, JobOptions, JobState, NewJob, Queue, QueueEvent};
use crate::store::{Announce, Claims, EventQuery, Expected, IndexEntry, IndexQuery, StoreBackend};

/// Jobs read at a time.
const JOBS_PAGE: u64 = 500;

/// How long flow wiring waits for an answer of an application's own store or queue. Without a bound a call that is never
/// answered holds up its run, and as many as runs are processed at a time all others.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A store of runs and their index.
pub trait FlowStore: Send + Sync + 'static {
    /// Appends an event. Fails with [`crate::error::Code::Conflict`] where `after` is given and is not the id of the
    /// subject's last event.
    fn append(&self, subject: &str, event: NewEvent, after: Option<&str>) -> Op<Event>;
    /// Reads the records of a subject after an id, or all, in order.
    fn read(&self, subject: &str, after: Option<&str>) -> Op<Vec<Json>>;
    /// Returns whether its ids are `<ms>-<seq>` and any such id can be read after.
    fn has_ordered_ids(&self) -> bool {
        false
    }
    /// Returns its claims, where several processes can work on it.
    fn claims(&self) -> Option<&dyn Claims> {
        None
    }
    /// Adds or replaces an index entry.
    fn index_add(&self, key: &str, id: &str, score: f64, metadata: Object) -> Op<()>;
    /// Merges into an index entry. Returns false where there is none.
    fn index_update(&self, key: &str, id: &str, patch: Object) -> Op<bool>;
    /// Reads a page of an index.
    fn index_read(&self, key: &str, query: IndexQuery) -> Op<Vec<IndexEntry>>;
}

/// A queue of steps.
pub trait FlowQueue: Send + Sync + 'static {
    /// Adds a job whose id is in the options. Does nothing if there is a job with this id.
    fn enqueue(&self, queue: &str, name: &str, data: Json, opts: Json) -> Op<String>;

    /// Reads a job. Returns None where there is none, or the queue cannot read jobs.
    fn job(&self, _queue: &str, _id: &str) -> Op<Option<FlowJob>> {
        Op::ok(None)
    }

    /// Removes a job. Returns whether there was one.
    fn remove(&self, _queue: &str, _id: &str) -> Op<bool> {
        Op::ok(false)
    }

    /// Reads the newest jobs that have ended, at most `limit` of each outcome.
    fn ended_jobs(&self, _queue: &str, _limit: u64) -> Op<Vec<FlowJob>> {
        Op::ok(Vec::new())
    }

    /// Reads the jobs that have not ended.
    fn pending_jobs(&self, _queue: &str) -> Op<Vec<FlowJob>> {
        Op::ok(Vec::new())
    }

    /// Returns what identifies the jobs, after a restart too if they are still there. None: every process that uses the
    /// store has the same queue.
    fn identity(&self) -> Op<Option<Arc<str>>> {
        Op::ok(None)
    }

    /// Returns whether a job ends only after the events that its handler published have been stored.
    fn ends_after_events(&self) -> bool {
        false
    }

    /// Delivers the permanent failures of a queue's jobs to a mailbox. Returns the id for [`FlowQueue::unwatch`], or None
    /// where the queue does not report failures here.
    fn watch_failures(&self, _queue: &str, _mailbox: Arc<Mailbox<QueueEvent>>) -> Op<Option<u64>> {
        Op::ok(None)
    }

    /// Ends a delivery of failures.
    fn unwatch(&self, _id: u64) {}
}

/// A job of a step.
#[derive(Debug, Clone)]
pub struct FlowJob {
    /// Its id.
    pub id: String,
    /// Its name, which is that of the step.
    pub name: String,
    /// Its data.
    pub data: Json,
    /// Its options.
    pub opts: Object,
    /// How it ended. None while it has not.
    pub end: Option<JobEnd>,
    /// Whether its worker went away while it ran.
    pub stalled: bool,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEnd {
    /// Its handler succeeded.
    Completed,
    /// It failed permanently, for this reason.
    Failed(Option<String>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawJob<'a> {
    id: String,
    name: String,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    opts: Option<Object>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    failed_reason: Option<String>,
    #[serde(default)]
    stalled_counter: u32,
}

impl FlowJob {
    /// Parses a job as a queue returns it: `{ id, name, data, opts, state, failedReason }`.
    ///
    /// # Errors
    /// [`crate::error::Code::Invalid`] where the text is no such object.
    pub fn parse(job: &str) -> Result<Self> {
        check_depth("job", job)?;
        let raw: RawJob<'_> =
            serde_json::from_str(job).map_err(|e| Error::invalid(format!("the queue returned no usable job: {e}")))?;
        let end = match raw.state.as_deref() {
            Some("completed") => Some(JobEnd::Completed),
            Some("failed") => Some(JobEnd::Failed(raw.failed_reason)),
            _ => None,
        };
        let data = raw.data.map_or("null", RawValue::get).into();
        Ok(Self {
            id: raw.id,
            name: raw.name,
            data,
            opts: raw.opts.unwrap_or_default(),
            end,
            stalled: raw.stalled_counter > 0,
        })
    }

    /// Returns the run that the job belongs to, and its flow where the data has it.
    pub fn run(&self) -> Option<(String, Option<String>)> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Data {
            flow_id: String,
            #[serde(default)]
            flow_name: Option<String>,
        }
        let data: Data = serde_json::from_str(&self.data).ok()?;
        (!data.flow_id.is_empty()).then_some((data.flow_id, data.flow_name))
    }
}

impl FlowQueue for Arc<Queue> {
    fn enqueue(&self, queue: &str, name: &str, data: Json, opts: Json) -> Op<String> {
        match JobOptions::parse("opts", &opts) {
            Ok(options) => {
                Queue::enqueue(self, queue, NewJob { name: name.into(), data, options }).map(|id| id.to_string())
            }
            Err(error) => Op::err(error),
        }
    }

    fn job(&self, queue: &str, id: &str) -> Op<Option<FlowJob>> {
        Queue::job(self, queue, id).and_then(|job| job.map(|job| FlowJob::parse(&job)).transpose())
    }

    fn remove(&self, queue: &str, id: &str) -> Op<bool> {
        Queue::remove_job(self, queue, id)
    }

    fn ended_jobs(&self, queue: &str, limit: u64) -> Op<Vec<FlowJob>> {
        jobs_in(self, queue, &[JobState::Completed, JobState::Failed], limit)
    }

    fn pending_jobs(&self, queue: &str) -> Op<Vec<FlowJob>> {
        // A job may pass from one state to another while pages are read, so the states are read in that order.
        let states = [JobState::Delayed, JobState::Waiting, JobState::Paused, JobState::Active];
        jobs_in(self, queue, &states, u64::MAX)
    }

    fn identity(&self) -> Op<Option<Arc<str>>> {
        Queue::identity(self).map(Some)
    }

    fn ends_after_events(&self) -> bool {
        true
    }

    fn watch_failures(&self, queue: &str, mailbox: Arc<Mailbox<QueueEvent>>) -> Op<Option<u64>> {
        Queue::on(self, queue, EventKind::Failed, mailbox).map(Some)
    }

    fn unwatch(&self, id: u64) {
        drop(Queue::off(self, id));
    }
}

/// Reads jobs of these states, at most `limit` of each.
fn jobs_in(queue: &Arc<Queue>, name: &str, states: &[JobState], limit: u64) -> Op<Vec<FlowJob>> {
    let (queue, name, states) = (queue.clone(), name.to_owned(), states.to_vec());
    Op::pending(async move {
        let mut found = Vec::new();
        for state in states {
            let mut offset = 0;
            while offset < limit {
                let page = Queue::jobs(&queue, &name, &[state], offset, Some(JOBS_PAGE.min(limit - offset))).await?;
                offset += JOBS_PAGE;
                let is_last = (page.len() as u64) < JOBS_PAGE;
                found.extend(page.iter().filter_map(|job| FlowJob::parse(job).ok()));
                if is_last {
                    break;
                }
            }
        }
        Ok(found)
    })
}

/// A native store and its announcements.
pub struct BackendFlowStore {
    backend: Arc<dyn StoreBackend>,
    announce: Option<Announce>,
}

impl BackendFlowStore {
    /// Creates a flow store whose appends are announced with `announce`.
    pub fn new(backend: Arc<dyn StoreBackend>, announce: Option<Announce>) -> Self {
        Self { backend, announce }
    }
}

impl FlowStore for BackendFlowStore {
    fn append(&self, subject: &str, event: NewEvent, after: Option<&str>) -> Op<Event> {
        let append = || {
            let expected = after.map(|id| id.parse().map(Expected::Last)).transpose()?;
            Ok(self.backend.append(Subject::new(subject)?, event, expected, self.announce.clone()))
        };
        append().unwrap_or_else(Op::err)
    }

    fn read(&self, subject: &str, after: Option<&str>) -> Op<Vec<Json>> {
        let read = || {
            let after = after.map(str::parse).transpose()?;
            Ok(self.backend.read(Subject::new(subject)?, EventQuery { after, ..EventQuery::default() }))
        };
        read().unwrap_or_else(Op::err)
    }

    fn has_ordered_ids(&self) -> bool {
        true
    }

    fn claims(&self) -> Option<&dyn Claims> {
        self.backend.claims()
    }

    fn index_add(&self, key: &str, id: &str, score: f64, metadata: Object) -> Op<()> {
        let add = || Ok(self.backend.index_add(Key::new(key)?, EntryId::new(id)?, score, metadata));
        add().unwrap_or_else(Op::err)
    }

    fn index_update(&self, key: &str, id: &str, patch: Object) -> Op<bool> {
        let update = || Ok(self.backend.index_update(Key::new(key)?, EntryId::new(id)?, patch, None));
        update().unwrap_or_else(Op::err)
    }

    fn index_read(&self, key: &str, query: IndexQuery) -> Op<Vec<IndexEntry>> {
        let read = || Ok(self.backend.index_read(Key::new(key)?, query));
        read().unwrap_or_else(Op::err)
    }
}
