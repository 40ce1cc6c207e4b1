//! What flow wiring needs of others.

use std::sync::Arc;

use crate::event::{Event, NewEvent};
use crate::json::{Json, Object};
use crate::name::{EntryId, Key, Subject};
use crate::op::Op;
use crate::queue::{JobOptions, NewJob, Queue};
use crate::store::{Announce, EventQuery, Expected, IndexEntry, IndexQuery, StoreBackend};

/// Where runs are persisted and indexed.
pub trait FlowStore: Send + Sync + 'static {
    /// Appends an event, if the subject ends with the event `after` where one is given, else
    /// [`crate::error::Code::Conflict`].
    fn append(&self, subject: &str, event: NewEvent, after: Option<&str>) -> Op<Event>;
    /// The records of a subject after this id, or all, in order.
    fn read(&self, subject: &str, after: Option<&str>) -> Op<Vec<Json>>;
    /// Adds or replaces an index entry.
    fn index_add(&self, key: &str, id: &str, score: f64, metadata: Object) -> Op<()>;
    /// Merges into an index entry. False where there is none.
    fn index_update(&self, key: &str, id: &str, patch: Object) -> Op<bool>;
    /// A page of an index.
    fn index_read(&self, key: &str, query: IndexQuery) -> Op<Vec<IndexEntry>>;
}

/// Where steps are enqueued.
pub trait FlowQueue: Send + Sync + 'static {
    /// Adds a job, whose id is in the options. A job with this id that is there already is left alone.
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

/// A native store, and where it announces what is appended.
pub struct NativeStore {
    backend: Arc<dyn StoreBackend>,
    announce: Option<Announce>,
}

impl NativeStore {
    /// Appends to this backend are announced like all others to it.
    pub fn new(backend: Arc<dyn StoreBackend>, announce: Option<Announce>) -> Self {
        Self { backend, announce }
    }
}

impl FlowStore for NativeStore {
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
