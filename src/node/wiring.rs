//! Wiring, as JavaScript calls it. Native adapters are called directly, JavaScript objects through the bridge.

use std::collections::BTreeMap;
use std::sync::Arc;

use napi_derive::napi;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::bus::Bus;
use crate::error::{Error, Result};
use crate::event::{Event, NewEvent};
use crate::json::{self, Json, Object, parse, push_string, to_json};
use crate::node::bridge::{Bridge, Reply, Returns, Shared, guard, reply};
use crate::node::bus::NativeBus;
use crate::node::queue::NativeQueue;
use crate::node::runtime;
use crate::node::store::{NativeStore, nothing};
use crate::node::stream::NativeStream;
use crate::op::Op;
use crate::store::{IndexEntry, IndexQuery};
use crate::stream::Message;
use crate::time::system_clock;
use crate::topic::check_name;
use crate::wiring::channels::{ChannelOptions, Router};
use crate::wiring::coordinator::{CONSUMER, CoordinatorOptions, CoordinatorStats, FeedCoordinator, StreamCoordinator};
use crate::wiring::flow::reducer::snapshot_of;
use crate::wiring::flow::{self, FlowJob, FlowOptions, FlowParts, FlowQueue, FlowStore, FlowWiring};
use crate::wiring::{Publisher, Wiring};

/// A JavaScript object whose methods are called through the bridge. Calls start in order and may complete in any order.
struct JsObject {
    bridge: Arc<Shared>,
    target: u32,
    /// Whether what it publishes reaches the subscribers of other processes.
    is_shared: bool,
}

impl JsObject {
    /// Calls a method whose result is not read.
    fn run(&self, method: &'static str, args: &[&str]) -> Op<()> {
        let result = self.bridge.call(self.target, method, format!("[{}]", args.join(",")), Returns::Nothing);
        Op::pending(async move { result.await.map(drop) })
    }

    /// Calls a method and parses its result. The call fails if it is not answered in time.
    fn call<T: Send + 'static>(
        &self,
        method: &'static str,
        args: &[&str],
        read: impl FnOnce(&str) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        let result = self.bridge.call(self.target, method, format!("[{}]", args.join(",")), Returns::Value);
        answered(method, Op::pending(async move { read(&result.await?) }))
    }
}

fn text(value: &str) -> String {
    let mut out = String::new();
    push_string(&mut out, value);
    out
}

/// Bounds a call of flow wiring.
fn answered<T: Send + 'static>(method: &'static str, op: Op<T>) -> Op<T> {
    op.within(flow::ANSWER_TIMEOUT, format!("{method}()"))
}

/// Parses the result of a JavaScript method, which may be anything.
fn result<T: DeserializeOwned>(method: &'static str, text: &str) -> Result<T> {
    serde_json::from_value(parse("result", text)?).map_err(|e| unexpected(method, &e))
}

/// Parses the rows that a JavaScript method returned. They stay as they came, so that each can be read, or fail, alone.
fn rows<'a>(method: &'static str, text: &'a str) -> Result<Vec<&'a RawValue>> {
    json::check_depth("result", text)?;
    serde_json::from_str(text).map_err(|e| unexpected(method, &e))
}

fn unexpected(method: &'static str, error: &serde_json::Error) -> Error {
    Error::invalid(format!("{method}() of the JavaScript object returned an unexpected value: {error}"))
}

impl Publisher for JsObject {
    fn publish(&self, message: Message) -> Op<()> {
        self.run("publish", &[&text(message.topic()), message.json()])
    }

    fn keeps_order(&self) -> bool {
        false
    }

    fn is_shared(&self) -> bool {
        self.is_shared
    }
}

/// An entry of an index. One that has no usable id keeps its place in the page.
#[derive(Deserialize, Default)]
struct Entry<'a> {
    id: String,
    #[serde(default)]
    score: f64,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
}

impl FlowStore for JsObject {
    fn append(&self, subject: &str, event: NewEvent, after: Option<&str>) -> Op<Event> {
        let opts = after.map_or("null".into(), |id| json!({ "expectedLastId": id }).to_string());
        self.call("append", &[&text(subject), event.json(), &opts], Event::parse)
    }

    fn read(&self, subject: &str, after: Option<&str>) -> Op<Vec<Json>> {
        let opts = json!({ "after": after }).to_string();
        self.call("read", &[&text(subject), &opts], |records| {
            Ok(rows("read", records)?.into_iter().map(|record| record.get().into()).collect())
        })
    }

    fn index_add(&self, key: &str, id: &str, score: f64, metadata: Object) -> Op<()> {
        let args = [&*text(key), &text(id), &score.to_string(), &to_json(&metadata)];
        answered("indexAdd", self.run("indexAdd", &args))
    }

    fn index_update(&self, key: &str, id: &str, patch: Object) -> Op<bool> {
        self.call("indexUpdate", &[&text(key), &text(id), &to_json(&patch)], |updated| result("indexUpdate", updated))
    }

    fn index_read(&self, key: &str, query: IndexQuery) -> Op<Vec<IndexEntry>> {
        let filter: serde_json::Map<_, _> = query.filter.fields().map(|(k, v)| (k.to_owned(), v.clone())).collect();
        let opts = json!({ "offset": query.offset, "limit": query.limit, "filter": filter }).to_string();
        self.call("indexRead", &[&text(key), &opts], |entries| {
            Ok(rows("indexRead", entries)?
                .into_iter()
                .map(|entry| serde_json::from_str::<Entry<'_>>(entry.get()).unwrap_or_default())
                .map(|entry| IndexEntry {
                    id: entry.id.into(),
                    score: entry.score,
                    metadata: entry.metadata.map_or("{}", RawValue::get).into(),
                })
                .collect())
        })
    }
}

impl FlowQueue for JsObject {
    fn enqueue(&self, queue: &str, name: &str, data: Json, opts: Json) -> Op<String> {
        let job = format!("{{\"name\":{},\"data\":{data},\"opts\":{opts}}}", text(name));
        self.call("enqueue", &[&text(queue), &job], |id| result("enqueue", id))
    }

    fn job(&self, queue: &str, id: &str) -> Op<Option<FlowJob>> {
        self.call("job", &[&text(queue), &text(id)], |job| (job != "null").then(|| FlowJob::parse(job)).transpose())
    }

    fn ended_jobs(&self, queue: &str, limit: u64) -> Op<Vec<FlowJob>> {
        self.call("endedJobs", &[&text(queue), &limit.to_string()], |jobs| {
            Ok(rows("getJobs", jobs)?.into_iter().filter_map(|job| FlowJob::parse(job.get()).ok()).collect())
        })
    }
}

/// What a coordinator is made with.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Coordinator {
    /// Whether what a JavaScript stream publishes reaches the subscribers of other processes.
    is_shared: bool,
    /// The name of the cursor in a feed.
    consumer: Option<String>,
    channels: ChannelOptions,
}

/// A coordinator of either delivery.
enum Coordination {
    AtMostOnce(StreamCoordinator),
    AtLeastOnce(FeedCoordinator),
}

impl Coordination {
    fn start(&self) -> Op<()> {
        match self {
            Self::AtMostOnce(coordinator) => coordinator.start(),
            Self::AtLeastOnce(coordinator) => coordinator.start(),
        }
    }

    fn stop(&self) -> Op<()> {
        match self {
            Self::AtMostOnce(coordinator) => coordinator.stop(),
            Self::AtLeastOnce(coordinator) => coordinator.stop(),
        }
    }

    fn stats(&self) -> CoordinatorStats {
        match self {
            Self::AtMostOnce(coordinator) => coordinator.stats(),
            Self::AtLeastOnce(coordinator) => coordinator.stats(),
        }
    }
}

/// The stream coordinator.
#[napi]
pub struct NativeCoordinator {
    wiring: Coordination,
    bridge: Arc<Shared>,
}

#[napi]
impl NativeCoordinator {
    /// Creates a coordinator between a bus, or the feed of a store, and a native stream, or the JavaScript object `target`.
    #[napi(constructor)]
    pub fn new(
        bridge: &Bridge,
        bus: &NativeBus,
        store: Option<&NativeStore>,
        stream: Option<&NativeStream>,
        target: u32,
        options: String,
    ) -> napi::Result<Self> {
        guard(|| {
            let Coordinator { is_shared, consumer, channels } = json::options("", &options)?;
            let options = CoordinatorOptions::new(channels);
            let publisher: Arc<dyn Publisher> = match stream {
                Some(stream) => Arc::new(stream.stream.clone()),
                None => Arc::new(JsObject { bridge: bridge.shared.clone(), target, is_shared }),
            };
            let name = consumer.unwrap_or_else(|| CONSUMER.to_owned());
            let clock = system_clock();
            let wiring = match store {
                Some(store) => {
                    let store = store.store.clone();
                    Coordination::AtLeastOnce(FeedCoordinator::new(store, publisher, &name, options, runtime(), clock)?)
                }
                None => {
                    let coordinator = StreamCoordinator::new(bus.bus.clone(), publisher, options, runtime(), clock)?;
                    Coordination::AtMostOnce(coordinator)
                }
            };
            Ok(Self { wiring, bridge: bridge.shared.clone() })
        })
    }

    /// Checks the options of a coordinator. `at` is their path in messages.
    #[napi]
    pub fn check(at: String, options: String) -> napi::Result<()> {
        guard(|| {
            let Coordinator { consumer, channels, .. } = json::options("", &options)?;
            let check = || {
                consumer.as_deref().map_or(Ok(()), |name| check_name("consumer", name))?;
                Router::new(&channels).map(|_| ())
            };
            check().map_err(|e| if at.is_empty() { e } else { Error::invalid(format!("{at}.{e}")) })
        })
    }

    /// Starts routing.
    #[napi]
    pub fn start(&self) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.wiring.start()), nothing)
    }

    /// Drains pending work within a timeout.
    #[napi]
    pub fn stop(&self) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.wiring.stop()), nothing)
    }

    /// Returns the counters.
    #[napi]
    pub fn stats(&self) -> napi::Result<String> {
        guard(|| {
            let stats = self.wiring.stats();
            let stats = CoordinatorCounters {
                routed: stats.routed.iter().map(|(name, count)| (&**name, *count)).collect(),
                skipped: stats.skipped,
                failed: stats.failed,
                lag: stats.lag,
                dropped: stats.dropped,
                retries: stats.retries,
                gaps: stats.gaps,
            };
            Ok(to_json(&stats).to_string())
        })
    }
}

/// `CoordinatorStats` of lib/types.ts.
#[derive(Serialize)]
struct CoordinatorCounters<'a> {
    routed: BTreeMap<&'a str, u64>,
    skipped: u64,
    failed: u64,
    lag: u64,
    dropped: u64,
    retries: u64,
    gaps: u64,
}

impl Drop for NativeCoordinator {
    /// Stops without waiting: the environment has ended.
    fn drop(&mut self) {
        drop(self.wiring.stop());
    }
}

/// The flow wiring.
#[napi]
pub struct NativeFlowWiring {
    wiring: FlowWiring,
    bridge: Arc<Shared>,
}

#[napi]
impl NativeFlowWiring {
    /// Creates flow wiring between a bus, a store and a queue. A target other than 0 is a JavaScript object.
    #[napi(constructor)]
    pub fn new(
        bridge: &Bridge,
        bus: &NativeBus,
        store: Option<&NativeStore>,
        store_target: u32,
        queue: Option<&NativeQueue>,
        queue_target: u32,
        subjects: String,
    ) -> napi::Result<Self> {
        guard(|| {
            let object = |target| Arc::new(JsObject { bridge: bridge.shared.clone(), target, is_shared: false });
            let native_bus: Arc<Bus> = bus.bus.clone();
            let announces = store.is_some_and(|store| store.announces_on(&native_bus));
            let flow_store: Arc<dyn FlowStore> = match store {
                Some(store) => Arc::new(flow::BackendFlowStore::new(store.store.clone(), store.announce())),
                None => object(store_target),
            };
            let options: FlowOptions = json::options("subjects", &subjects)?;
            let announce_on = native_bus.clone();
            let parts = FlowParts {
                bus: native_bus,
                store: flow_store,
                announce: Arc::new(move |subject, event| announce_on.announce(subject, event)),
                store_announces: announces,
                queue: match queue {
                    Some(queue) => Some(Arc::new(queue.queue.clone())),
                    None => (queue_target > 0).then(|| object(queue_target) as Arc<dyn FlowQueue>),
                },
            };
            Ok(Self { wiring: FlowWiring::new(parts, &options, runtime())?, bridge: bridge.shared.clone() })
        })
    }

    /// Checks flow definitions, a JSON array.
    #[napi]
    pub fn check_flows(flows: String) -> napi::Result<()> {
        guard(|| FlowWiring::check_flows(&flows))
    }

    /// Checks the templates of subjects.
    #[napi]
    pub fn check_subjects(subjects: String) -> napi::Result<()> {
        guard(|| FlowWiring::check_options(&json::options("subjects", &subjects)?))
    }

    /// Returns the state of a run after events, a JSON array, as JSON.
    #[napi]
    pub fn state_of(flow: Option<String>, events: String) -> napi::Result<String> {
        guard(|| Ok(to_json(&snapshot_of(flow.as_deref(), &events)?).to_string()))
    }

    /// Replaces the flow definitions with those of a JSON array.
    #[napi]
    pub fn set_flows(&self, flows: String) -> napi::Result<()> {
        guard(|| self.wiring.set_flows(&flows))
    }

    /// Returns the queues of the flows, as a JSON array.
    #[napi]
    pub fn queues(&self) -> napi::Result<String> {
        guard(|| Ok(to_json(&self.wiring.queues()).to_string()))
    }

    /// Reports that a job of a JavaScript queue has failed permanently.
    #[napi]
    pub fn job_failed(&self, queue: String, job_id: String, name: String, reason: Option<String>) {
        self.wiring.job_failed(queue, job_id, name, reason);
    }

    /// Claims the entry step of a run that is about to be started. Resolves with false where another process has it.
    #[napi]
    pub fn claim_entry(&self, flow: String, run_id: String) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || Ok(self.wiring.claim_entry(&flow, &run_id)),
            |claimed| Some(to_json(&claimed).to_string()),
        )
    }

    /// Continues a run that is stored and perhaps known to no process.
    #[napi]
    pub fn take_up(&self, flow: String, run_id: String) -> napi::Result<()> {
        guard(|| {
            self.wiring.take_up(&flow, &run_id);
            Ok(())
        })
    }

    /// Starts, and recovers the runs that the index has as running.
    #[napi]
    pub fn start(&self) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.wiring.start()), nothing)
    }

    /// Drains pending work within a timeout.
    #[napi]
    pub fn stop(&self) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.wiring.stop()), nothing)
    }

    /// Returns the counters.
    #[napi]
    pub fn stats(&self) -> napi::Result<String> {
        guard(|| Ok(to_json(&self.wiring.stats()).to_string()))
    }
}

impl Drop for NativeFlowWiring {
    fn drop(&mut self) {
        drop(self.wiring.stop());
    }
}
