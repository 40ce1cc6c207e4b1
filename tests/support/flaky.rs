//! A store whose calls fail now and then.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};

use nvent_native::error::{Error, Result};
use nvent_native::event::{Event, NewEvent};
use nvent_native::fanout::Mailbox;
use nvent_native::health::Health;
use nvent_native::json::{Filter, Json, Object};
use nvent_native::name::{Collection, ConsumerName, DocId, EntryId, FieldPath, Key, Pattern, Subject};
use nvent_native::op::Op;
use nvent_native::store::{
    Announce, ConsumerChange, ConsumerInfo, ConsumerState, DocQuery, EventQuery, Expected, FeedFollower, FeedPage,
    FeedQuery, IndexEntry, IndexQuery, Lease, MemoryStore, ParkedEvent, Position, Stats, StoreBackend, Stored,
    SubjectPage,
};
use nvent_native::time::ManualClock;
use tokio::sync::{oneshot, watch};

/// A store of which the next calls of a method fail with these errors.
pub(crate) struct Flaky {
    inner: Arc<dyn StoreBackend>,
    faults: Mutex<HashMap<&'static str, VecDeque<Fault>>>,
}

/// An error, and what it waits for.
struct Fault {
    error: Error,
    released: Option<oneshot::Receiver<()>>,
}

impl Flaky {
    /// Wraps a store in memory.
    pub(crate) fn new() -> Arc<Self> {
        Self::around(Arc::new(MemoryStore::new(ManualClock::at(1_000))))
    }

    pub(crate) fn around(inner: Arc<dyn StoreBackend>) -> Arc<Self> {
        Arc::new(Self { inner, faults: Mutex::default() })
    }

    /// Lets the next call of a method fail, after those that fail already.
    pub(crate) fn fail(&self, method: &'static str, error: Error) {
        self.add(method, Fault { error, released: None });
    }

    /// Lets the next call of a method fail when what is returned is dropped.
    pub(crate) fn fail_later(&self, method: &'static str, error: Error) -> oneshot::Sender<()> {
        let (release, released) = oneshot::channel();
        self.add(method, Fault { error, released: Some(released) });
        release
    }

    fn add(&self, method: &'static str, fault: Fault) {
        self.faults.lock().unwrap().entry(method).or_default().push_back(fault);
    }

    fn fault(&self, method: &'static str) -> Option<Fault> {
        self.faults.lock().unwrap().get_mut(method)?.pop_front()
    }

    /// Returns whether every call that fails has been made.
    pub(crate) fn has_failed(&self) -> bool {
        self.faults.lock().unwrap().values().all(VecDeque::is_empty)
    }
}

/// Methods that call the store, unless a fault is due.
macro_rules! methods {
    ($($method:ident($($argument:ident: $kind:ty),*) -> $value:ty;)*) => {
        $(
            fn $method(&self, $($argument: $kind),*) -> Op<$value> {
                match self.fault(stringify!($method)) {
                    Some(Fault { error, released }) => Op::pending(async {
                        if let Some(released) = released {
                            _ = released.await;
                        }
                        Err(error)
                    }),
                    None => self.inner.$method($($argument),*),
                }
            }
        )*
    };
}

impl StoreBackend for Flaky {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn stats(&self) -> Stats {
        self.inner.stats()
    }

    fn feed_watch(&self) -> Result<watch::Receiver<u64>> {
        self.inner.feed_watch()
    }

    fn feed_follow(&self, consumer: &ConsumerName, follower: Weak<dyn FeedFollower>) -> Result<()> {
        self.inner.feed_follow(consumer, follower)
    }

    methods! {
        open() -> ();
        close() -> ();
        health() -> Health;
        append(subject: &Subject, event: NewEvent, expected: Option<Expected>, announce: Option<Announce>) -> Event;
        read(subject: &Subject, query: EventQuery) -> Vec<Json>;
        subscribe(pattern: &Pattern, mailbox: Arc<Mailbox<Stored>>) -> u64;
        unsubscribe(id: u64) -> ();
        delete_subject(subject: &Subject) -> bool;
        subjects(pattern: &Pattern, cursor: Option<&str>) -> SubjectPage;
        feed_read(query: FeedQuery) -> FeedPage;
        feed_head() -> Option<Position>;
        consumer_acquire(name: &ConsumerName) -> Lease;
        consumer_try_acquire(name: &ConsumerName) -> Option<Lease>;
        consumer_load(name: &ConsumerName) -> Option<ConsumerState>;
        consumer_save(name: &ConsumerName, lease: &Lease, change: ConsumerChange) -> ();
        consumer_list() -> Vec<ConsumerInfo>;
        consumer_delete(name: &ConsumerName) -> bool;
        consumer_parked(name: &ConsumerName, after: Option<Position>, limit: usize) -> Vec<ParkedEvent>;
        consumer_request_replay(name: &ConsumerName, positions: Option<Vec<Position>>) -> u64;
        consumer_replays(name: &ConsumerName) -> Vec<Position>;
        kv_get(key: &Key) -> Option<Json>;
        kv_set(key: &Key, value: Json, ttl_ms: Option<u64>) -> ();
        kv_delete(key: &Key) -> ();
        kv_clear(pattern: &Pattern) -> u64;
        kv_increment(key: &Key, by: f64) -> serde_json::Number;
        index_add(key: &Key, id: &EntryId, score: f64, metadata: Object) -> ();
        index_get(key: &Key, id: &EntryId) -> Option<IndexEntry>;
        index_read(key: &Key, query: IndexQuery) -> Vec<IndexEntry>;
        index_count(key: &Key, filter: Filter) -> u64;
        index_update(key: &Key, id: &EntryId, patch: Object, expected_version: Option<i64>) -> bool;
        index_increment(key: &Key, id: &EntryId, field: &FieldPath, by: f64) -> serde_json::Number;
        index_delete(key: &Key, id: &EntryId) -> bool;
        doc_save(collection: &Collection, id: &DocId, doc: Json) -> ();
        doc_get(collection: &Collection, id: &DocId) -> Option<Json>;
        doc_list(collection: &Collection, query: DocQuery) -> Vec<(Arc<str>, Json)>;
        doc_delete(collection: &Collection, id: &DocId) -> ();
    }
}
