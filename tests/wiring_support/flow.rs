//! Parts for flow wiring: a store with faults on demand, and a queue that remembers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use nvent_native::bus::Bus;
use nvent_native::error::{Code, Error};
use nvent_native::event::{Event, EventId, NewEvent};
use nvent_native::json::{Json, Object, fresh_metadata, parse_object, update_metadata};
use nvent_native::op::Op;
use nvent_native::store::{Announce, IndexEntry, IndexQuery};
use nvent_native::wiring::flow::{FlowQueue, FlowStore};
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
}

type Faults = Box<dyn Fn(&str) -> Fault + Send + Sync>;

/// A store between two processes: each wiring has its own view of one ledger.
#[derive(Default)]
pub(crate) struct Ledger {
    log: Mutex<BTreeMap<String, Vec<Event>>>,
    index: Mutex<BTreeMap<(String, String), (f64, Object)>>,
}

/// One process's view of a [`Ledger`].
pub(crate) struct View {
    ledger: Arc<Ledger>,
    announce: Option<Announce>,
    faults: Faults,
}

impl Ledger {
    pub(crate) fn kinds(&self, subject: &str) -> Vec<String> {
        let log = self.log.lock().unwrap();
        log.get(subject).into_iter().flatten().map(|event| event.kind().to_owned()).collect()
    }

    pub(crate) fn events(&self, subject: &str) -> Vec<Value> {
        let log = self.log.lock().unwrap();
        log.get(subject).into_iter().flatten().map(|event| serde_json::from_str(event.json()).unwrap()).collect()
    }

    pub(crate) fn entry(&self, key: &str, id: &str) -> Option<(f64, Value)> {
        let index = self.index.lock().unwrap();
        index.get(&(key.into(), id.into())).map(|(score, metadata)| (*score, Value::Object(metadata.clone())))
    }

    /// A view that announces what it appends on this bus.
    pub(crate) fn announcing(self: &Arc<Self>, bus: &Arc<Bus>) -> Arc<View> {
        self.view(Some(announce(bus)), |_| Fault::No)
    }

    pub(crate) fn view(
        self: &Arc<Self>,
        announce: Option<Announce>,
        faults: impl Fn(&str) -> Fault + Send + Sync + 'static,
    ) -> Arc<View> {
        Arc::new(View { ledger: self.clone(), announce, faults: Box::new(faults) })
    }
}

pub(crate) fn announce(bus: &Arc<Bus>) -> Announce {
    let bus = bus.clone();
    Arc::new(move |subject, event| bus.announce(subject, event))
}

impl View {
    /// Does the work, or what the fault says. It is told whether its answer arrives.
    fn call<T: Send + 'static>(&self, what: &str, work: impl FnOnce(bool) -> Result<T, Error>) -> Op<T> {
        match (self.faults)(what) {
            Fault::No => Op::run(|| work(true)),
            Fault::Fail(error) => Op::err(error),
            Fault::LoseAnswer => {
                _ = work(false);
                Op::err(Error::unavailable("no answer").maybe_applied())
            }
            Fault::Hang => Op::pending(std::future::pending()),
        }
    }
}

impl FlowStore for View {
    fn append(&self, subject: &str, event: NewEvent, after: Option<&str>) -> Op<Event> {
        self.call(&format!("append {}", event.kind()), |answered| {
            let mut log = self.ledger.log.lock().unwrap();
            let events = log.entry(subject.into()).or_default();
            let last = events.last().map(|event| event.id().parse::<EventId>().unwrap());
            if after.is_some_and(|after| Some(after.parse().unwrap()) != last) {
                return Err(Error::new(Code::Conflict, "it ends with something else"));
            }
            let id = EventId::next(last, 1_000);
            let event = event.persist(id, id.ms + id.seq);
            events.push(event.clone());
            if let (Some(announce), true) = (&self.announce, answered) {
                announce(&subject.into(), &event);
            }
            Ok(event)
        })
    }

    fn read(&self, subject: &str, after: Option<&str>) -> Op<Vec<Json>> {
        self.call("read", |_| {
            let log = self.ledger.log.lock().unwrap();
            let after = after.map(|after| after.parse::<EventId>().unwrap());
            let is_new = |event: &&Event| after.is_none_or(|after| event.id().parse::<EventId>().unwrap() > after);
            Ok(log.get(subject).into_iter().flatten().filter(is_new).map(|event| event.json().clone()).collect())
        })
    }

    fn index_add(&self, key: &str, id: &str, score: f64, metadata: Object) -> Op<()> {
        self.call("index_add", |_| {
            self.ledger.index.lock().unwrap().insert((key.into(), id.into()), (score, fresh_metadata(metadata)));
            Ok(())
        })
    }

    fn index_update(&self, key: &str, id: &str, patch: Object) -> Op<bool> {
        self.call("index_update", |_| {
            let mut index = self.ledger.index.lock().unwrap();
            let entry = index.get_mut(&(key.into(), id.into()));
            Ok(entry.is_some_and(|(_, metadata)| update_metadata(metadata, patch, None)))
        })
    }

    fn index_read(&self, key: &str, query: IndexQuery) -> Op<Vec<IndexEntry>> {
        self.call("index_read", |_| {
            let index = self.ledger.index.lock().unwrap();
            let of_key =
                index.iter().filter(|((other, _), (_, metadata))| other == key && query.filter.matches(metadata));
            let page = of_key.skip(query.offset).take(query.limit);
            Ok(page
                .map(|((_, id), (score, metadata))| IndexEntry {
                    id: id.as_str().into(),
                    score: *score,
                    metadata: nvent_native::json::to_json(metadata),
                })
                .collect())
        })
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

/// A queue that remembers every job and every call, and tells a worker of each new job.
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
