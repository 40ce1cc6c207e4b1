//! The traits through which flow wiring reaches stores and queues.

use std::sync::Arc;

use crate::event::{Event, NewEvent};
use crate::json::{Json, Object};
use crate::name::{EntryId, Key, Subject};
use crate::op::Op;
use crate::queue::{JobOptions, NewJob, Queue};
use crate::store::{Announce, EventQuery, Expected, IndexEntry, IndexQuery, StoreBackend};

/// A store of runs and their index.
pub trait FlowStore: Send + Sync + 'static {
    /// Appends an event. Fails with [`crate::error::Code::Conflict`] where `after` is given and is not the id of the
    /// subject's last event.
    fn append(&self, subject: &str, event: NewEvent, after: Option<&str>) -> Op<Event>;
    /// Reads the records of a subject after an id, or all, in order.
    fn read(&self, subject: &str, after: Option<&str>) -> Op<Vec<Json>>;
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
