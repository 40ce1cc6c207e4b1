//! Parts for flow wiring: a store with faults on demand, and a queue that remembers.

#[path = "../support/name.rs"]
mod name;

use std::sync::{Arc, Mutex};

use name::name;
use nvent_native::bus::Bus;
use nvent_native::error::Error;
use nvent_native::event::{Event, NewEvent};
use nvent_native::json::{Json, Object, parse_object};
use nvent_native::op::Op;
use nvent_native::store::{Announce, EventQuery, IndexEntry, IndexQuery, MemoryStore, StoreBackend};
use nvent_native::time::ManualClock;
use nvent_native::wiring::flow::{ANSWER_TIMEOUT, BackendFlowStore, FlowQueue, FlowStore};
use serde_json::Value;

/// What a fault does with a call.
pub(crate) enum Fault {
    /// Nothing.
    No,
    /// The call fails without effect.
    Fail(Error),
    /// The call succeeds, but its answer is lost.
    LoseAnswer,
    /// The call never ends.
    Hang,
    /// The call of an application's own store succeeds, and is never answered.
    Unanswered,
}

type Faults = Box<dyn Fn(&str) -> Fault + Send + Sync>;

/// A real store that several processes share, and what a test asks about it.
pub(crate) struct Ledger(Arc<dyn StoreBackend>);

impl Ledger {
    pub(crate) fn new() -> Self {
        Self(Arc::new(MemoryStore::new(ManualClock::at(1_000))))
    }

    pub(crate) fn events(&self, subject: &str) -> Vec<Value> {
        let records = now(self.0.read(name(subject), EventQuery::default()));
        records.iter().map(|record| serde_json::from_str(record).unwrap()).collect()
    }

    pub(crate) fn kinds(&self, subject: &str) -> Vec<String> {
        self.events(subject).iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn entry(&self, key: &str, id: &str) -> Option<(f64, Value)> {
        let entry = now(self.0.index_get(name(key), name(id)))?;
        Some((entry.score, serde_json::from_str(&entry.metadata).unwrap()))
    }

    /// Returns a process's view of the store, which announces what it appends on this bus.
    pub(crate) fn announcing(&self, bus: &Arc<Bus>) -> Arc<View> {
        self.view(Some(announce(bus)), |_| Fault::No)
    }

    pub(crate) fn view(
        &self,
        announce: Option<Announce>,
        faults: impl Fn(&str) -> Fault + Send + Sync + 'static,
    ) -> Arc<View> {
        Arc::new(View {
            store: BackendFlowStore::new(self.0.clone(), announce),
            silent: BackendFlowStore::new(self.0.clone(), None),
            faults: Box::new(faults),
        })
    }
}

/// Returns the result of an operation that ends at once.
fn now<T>(op: Op<T>) -> T {
    match op {
        Op::Ready(result) => result.unwrap(),
        Op::Completion(_) | Op::Pending(_) => panic!("the memory store ends its operations at once"),
    }
}

pub(crate) fn announce(bus: &Arc<Bus>) -> Announce {
    let bus = bus.clone();
    Arc::new(move |subject, event| bus.announce(subject, event))
}

/// One process's way to a store, with faults on it.
pub(crate) struct View {
    store: BackendFlowStore,
    /// The same store, for a call whose answer is lost: what is not known to be stored is not announced.
    silent: BackendFlowStore,
    faults: Faults,
}

impl View {
    fn call<T: Send + 'static>(&self, what: &str, work: impl FnOnce(&BackendFlowStore) -> Op<T>) -> Op<T> {
        match (self.faults)(what) {
            Fault::No => work(&self.store),
            Fault::Fail(error) => Op::err(error),
            Fault::LoseAnswer => {
                drop(work(&self.silent));
                Op::err(Error::unavailable("no answer").maybe_applied())
            }
            Fault::Hang => Op::pending(std::future::pending()),
            Fault::Unanswered => {
                drop(work(&self.silent));
                Op::pending(std::future::pending()).within(ANSWER_TIMEOUT, "the store")
            }
        }
    }
}

impl FlowStore for View {
    fn append(&self, subject: &str, event: NewEvent, after: Option<&str>) -> Op<Event> {
        self.call(&format!("append {}", event.kind()), |store| store.append(subject, event.clone(), after))
    }

    fn read(&self, subject: &str, after: Option<&str>) -> Op<Vec<Json>> {
        self.call("read", |store| store.read(subject, after))
    }

    fn has_ordered_ids(&self) -> bool {
        true
    }

    fn index_add(&self, key: &str, id: &str, score: f64, metadata: Object) -> Op<()> {
        self.call("index_add", |store| store.index_add(key, id, score, metadata))
    }

    fn index_update(&self, key: &str, id: &str, patch: Object) -> Op<bool> {
        self.call("index_update", |store| store.index_update(key, id, patch))
    }

    fn index_read(&self, key: &str, query: IndexQuery) -> Op<Vec<IndexEntry>> {
        self.call("index_read", |store| store.index_read(key, query))
    }
}

/// A job as it was enqueued.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Job {
    pub(crate) queue: String,
    pub(crate) name: String,
    pub(crate) data: Object,
    pub(crate) id: String,
}

/// A queue that remembers every job and every call, and passes each new job to a worker.
pub(crate) struct Jobs {
    seen: Mutex<Vec<Job>>,
    calls: Mutex<usize>,
    faults: Box<dyn Fn(usize) -> Option<Error> + Send + Sync>,
    worker: Box<dyn Fn(&Job) + Send + Sync>,
}

impl Jobs {
    pub(crate) fn new() -> Arc<Self> {
        Self::with(|_| {}, |_| None)
    }

    pub(crate) fn with(
        worker: impl Fn(&Job) + Send + Sync + 'static,
        faults: impl Fn(usize) -> Option<Error> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            seen: Mutex::default(),
            calls: Mutex::new(0),
            faults: Box::new(faults),
            worker: Box::new(worker),
        })
    }

    pub(crate) fn all(&self) -> Vec<Job> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.all().into_iter().map(|job| job.id).collect()
    }

    pub(crate) fn calls(&self) -> usize {
        *self.calls.lock().unwrap()
    }
}

impl FlowQueue for Jobs {
    fn enqueue(&self, queue: &str, name: &str, data: Json, opts: Json) -> Op<String> {
        let call = {
            let mut calls = self.calls.lock().unwrap();
            *calls += 1;
            *calls
        };
        if let Some(error) = (self.faults)(call) {
            return Op::err(error);
        }
        let opts = parse_object("opts", &opts).unwrap();
        let id = opts["jobId"].as_str().unwrap().to_owned();
        let data = parse_object("data", &data).unwrap();
        let job = Job { queue: queue.into(), name: name.into(), data, id: id.clone() };
        {
            let mut seen = self.seen.lock().unwrap();
            if seen.iter().any(|other| other.id == id) {
                return Op::ok(id);
            }
            seen.push(job.clone());
        }
        (self.worker)(&job);
        Op::ok(id)
    }
}
