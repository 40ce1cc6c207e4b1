//! Flow wiring: persists the events of flow runs, maintains their index, triggers their steps and ends them.
//!
//! An event on the bus that has a `runId` and no id is *ingress*: it is appended to the run's subject once. Every
//! persisted event of a run, from any process, is folded into the run's state ([`reducer`]), which determines the
//! effects. The state is always a fold of the log, so it can be evicted and rebuilt, and several processes can work on
//! one store:
//!
//! - Decisions are made on the whole log: after each write the log is read until nothing is new.
//! - The terminal event is appended on the condition that the log still ends where it was read, so there is only one.
//! - A step is enqueued by the process that claims it ([`ownership`]), where processes have queues of their own.
//! - Jobs have the id `<run>__<step>` and index entries are absolute values, so both effects are idempotent.
//!
//! **Events in flight.** An outcome that an event in flight could still change (a failed step whose event does not say
//! whether a retry follows, a branch that was not taken) waits for [`FlowOptions::settle_delay`]; a run in which every
//! step completed ends at once.
//!
//! **Failures.** Retryable failures are repeated in order until they succeed; permanent ones are counted in [`FlowStats`]
//! and logged. An append that may have been applied is looked up in the log before it is repeated.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinHandle;

use crate::bus::{Bus, BusEvent, Listener};
use crate::error::{Error, Result};
use crate::event::{AnyEvent, Event};
use crate::op::{Completion, Op};
use crate::store::Announce;
use crate::sync::{lock, write};
use crate::wiring::Wiring;
use crate::wiring::template::Template;

pub mod definition;
mod effects;
pub mod ownership;
mod ports;
mod reconcile;
pub mod reducer;
mod runner;
mod runs;
mod shared;

pub use ports::{ANSWER_TIMEOUT, BackendFlowStore, FlowJob, FlowQueue, FlowStore, JobEnd};

use definition::{Flows, parse_flows};
use runs::{Admission, Runs, Signal};
use shared::{Core, Counters, Holder};

/// Options of flow wiring.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowOptions {
    /// The template of a run's subject, which must contain `{runId}`.
    #[serde(rename = "run")]
    pub run_subject: String,
    /// The template of the key of a flow's run index.
    #[serde(rename = "runIndex")]
    pub run_index: String,
    /// How long an outcome that may still change waits for events in flight.
    #[serde(skip)]
    pub settle_delay: Duration,
    /// Limit of ingress events that wait to be persisted. Events beyond it are dropped, counted and logged.
    #[serde(skip)]
    pub max_ingress: usize,
    /// Limit of cached states of idle runs.
    #[serde(skip)]
    pub max_idle: usize,
    /// Limit of runs processed at a time.
    #[serde(skip)]
    pub concurrency: usize,
    /// How long `stop` waits for active runs.
    #[serde(skip)]
    pub drain_timeout: Duration,
}

impl Default for FlowOptions {
    fn default() -> Self {
        Self {
            run_subject: super::RUN_SUBJECT.into(),
            run_index: "nq:flows:{flowName}".into(),
            settle_delay: Duration::from_millis(500),
            max_ingress: 100_000,
            max_idle: 1_000,
            concurrency: 64,
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// Counters of flow wiring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FlowStats {
    /// Ingress events persisted.
    pub persisted: u64,
    /// Steps enqueued.
    pub triggered: u64,
    /// Runs that it ended as completed.
    pub completed: u64,
    /// Runs that it ended as failed.
    pub failed: u64,
    /// Repeated attempts of any effect.
    pub retries: u64,
    /// Ingress events waiting to be persisted.
    pub lag: u64,
    /// Ingress events that were dropped.
    pub lost: u64,
    /// Other permanent failures: a step not enqueued, an index entry not written, a log not read.
    pub errors: u64,
    /// Steps that were run once more because the events of their handler were lost.
    pub recovered: u64,
}

/// The parts that flow wiring connects.
pub struct FlowParts {
    /// The source of events.
    pub bus: Arc<Bus>,
    /// The store of the runs.
    pub store: Arc<dyn FlowStore>,
    /// Announces on the bus an event that was appended here.
    pub announce: Announce,
    /// Whether the store announces its appends on the bus itself.
    pub store_announces: bool,
    /// Where steps are enqueued. None: steps are not triggered.
    pub queue: Option<Arc<dyn FlowQueue>>,
}

/// Flow wiring. See the [module](self).
///
/// ```
/// use std::sync::Arc;
///
/// use nvent_native::bus::{Bus, BusEvent};
/// use nvent_native::event::parse_any;
/// use nvent_native::name::Key;
/// use nvent_native::json::Filter;
/// use nvent_native::queue::{MemoryQueueOptions, Queue};
/// use nvent_native::store::{Announce, MemoryStore, StoreBackend};
/// use nvent_native::time::system_clock;
/// use nvent_native::wiring::Wiring;
/// use nvent_native::wiring::flow::{BackendFlowStore, FlowOptions, FlowParts, FlowWiring};
/// use tokio::runtime::Handle;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> nvent_native::Result<()> {
/// let (bus, runtime) = (Bus::new(), Handle::current());
/// let store: Arc<dyn StoreBackend> = Arc::new(MemoryStore::new(system_clock()));
/// let queue = Arc::new(Queue::memory(MemoryQueueOptions::default(), system_clock(), runtime.clone()));
/// let announce: Announce = Arc::new({
///     let bus = bus.clone();
///     move |subject, event| bus.announce(subject, event)
/// });
/// let parts = FlowParts {
///     bus: bus.clone(),
///     store: Arc::new(BackendFlowStore::new(store.clone(), Some(announce.clone()))),
///     announce,
///     store_announces: true,
///     queue: Some(Arc::new(queue.clone())),
/// };
/// let wiring = FlowWiring::new(parts, &FlowOptions::default(), runtime)?;
/// wiring.set_flows(r#"[{ "id": "order", "entry": { "step": "check", "emits": ["checked"] },
///     "steps": { "ship": { "subscribes": ["checked"], "queue": "shipping" } } }]"#)?;
/// wiring.start().await?;
///
/// // What the handler of the entry step publishes.
/// for event in [
///     r#"{"type":"flow.start","runId":"r1","flowName":"order"}"#,
///     r#"{"type":"emit","runId":"r1","flowName":"order","stepName":"check","data":{"name":"checked"}}"#,
///     r#"{"type":"step.completed","runId":"r1","flowName":"order","stepName":"check"}"#,
/// ] {
///     bus.publish(&BusEvent { subject: None, event: parse_any(event)? });
/// }
/// wiring.idle().await;
/// assert!(queue.job("shipping", "r1__ship").await?.is_some(), "the next step is enqueued");
/// assert_eq!(store.index_count(Key::new("nq:flows:order")?, Filter::default()).await?, 1);
/// wiring.stop().await?;
/// # Ok(())
/// # }
/// ```
pub struct FlowWiring {
    core: Arc<Core>,
    bus: Arc<Bus>,
    drain_timeout: Duration,
    lifecycle: Mutex<Lifecycle>,
}

#[derive(Default)]
struct Lifecycle {
    listener: Option<u64>,
    /// Renews the lease of the queue.
    holding: Option<JoinHandle<()>>,
    /// Becomes true when the last stop has completed.
    ended: Option<watch::Receiver<bool>>,
}

impl FlowWiring {
    /// Creates flow wiring between these parts that runs on `runtime`.
    ///
    /// # Errors
    /// [`crate::error::Code::Invalid`] where an option is not usable.
    pub fn new(parts: FlowParts, options: &FlowOptions, runtime: Handle) -> Result<Self> {
        let core = Core {
            store: parts.store,
            queue: parts.queue,
            announce: parts.announce,
            store_announces: parts.store_announces,
            runtime,
            subjects: Subjects::new(options)?,
            settle_delay: options.settle_delay,
            flows: RwLock::default(),
            runs: Runs::new(options.max_ingress.max(1), options.max_idle.max(1)),
            permits: Semaphore::new(options.concurrency.max(1)),
            aborted: watch::channel(false).0,
            holder: watch::channel(Holder::Unknown).0,
            recovering: watch::channel(0).0,
            watched: Mutex::default(),
            counters: Counters::default(),
        };
        Ok(Self {
            core: Arc::new(core),
            bus: parts.bus,
            drain_timeout: options.drain_timeout,
            lifecycle: Mutex::default(),
        })
    }

    /// Replaces the flow definitions with those of a JSON array, and recovers the runs of flows that are new.
    pub fn set_flows(&self, json: &str) -> Result<()> {
        let flows = Arc::new(parse_flows(json)?);
        let before = std::mem::replace(&mut *write(&self.core.flows), flows.clone());
        if self.lock().listener.is_some() {
            self.core.watch(queues(&flows));
            self.core.recover(flows.keys().filter(|id| !before.contains_key(*id)).cloned().collect(), Vec::new());
        }
        Ok(())
    }

    /// Checks a JSON array of flow definitions.
    ///
    /// # Errors
    /// [`crate::error::Code::Invalid`], naming the path of the unusable value.
    pub fn check_flows(json: &str) -> Result<()> {
        parse_flows(json).map(|_| ())
    }

    /// Checks options.
    ///
    /// # Errors
    /// [`crate::error::Code::Invalid`] where one is not usable.
    pub fn check_options(options: &FlowOptions) -> Result<()> {
        Subjects::new(options).map(|_| ())
    }

    /// Returns the queues of the flows.
    pub fn queues(&self) -> BTreeSet<String> {
        queues(&self.core.flows())
    }

    /// Records that a job has failed permanently, where its queue does not report failures to a mailbox
    /// ([`FlowQueue::watch_failures`]).
    pub fn job_failed(&self, queue: String, job_id: String, name: String, reason: Option<String>) {
        let core = self.core.clone();
        self.core.runtime.spawn(async move { core.job_failed(&queue, &job_id, &name, reason).await });
    }

    /// Claims the entry step of a run for this process, before the run is started. Returns false where another process has
    /// it. The call takes effect before later calls on the store.
    pub fn claim_entry(&self, flow: &str, run_id: &str) -> Op<bool> {
        match self.core.flows().get(flow) {
            Some(flow) => self.core.claim_entry(flow, run_id),
            None => Op::ok(true),
        }
    }

    /// Continues a run that is stored, where no process may know of it: those that worked on it were killed before they had
    /// written its index entry, which recovery starts from.
    pub fn take_up(&self, flow: &str, run_id: &str) {
        if self.core.flows().contains_key(flow) {
            self.core.signal_reconcile(run_id, &flow.into());
        }
    }

    /// Returns the counters.
    pub fn stats(&self) -> FlowStats {
        self.core.stats()
    }

    /// Resolves when no run is active.
    pub async fn idle(&self) {
        self.core.wait_idle().await;
    }

    fn lock(&self) -> MutexGuard<'_, Lifecycle> {
        lock(&self.lifecycle)
    }
}

impl Wiring for FlowWiring {
    /// Subscribes to the bus and recovers every run that the index has as running. Where steps are claimed it resolves when
    /// the queue has no job any more that another process has taken over, or the store has not answered for a few seconds.
    fn start(&self) -> Op<()> {
        let mut lifecycle = self.lock();
        if lifecycle.listener.is_none() {
            lifecycle.ended = None;
            self.core.aborted.send_replace(false);
            lifecycle.listener = Some(self.bus.subscribe(Arc::new(FlowListener(self.core.clone()))));
            self.core.watch(queues(&self.core.flows()));
            if self.core.may_claim() {
                self.core.holder.send_replace(Holder::Unknown);
                let (ready, holding) = oneshot::channel();
                lifecycle.holding = Some(self.core.runtime.spawn(self.core.clone().hold(ready)));
                return ownership::ready(holding);
            }
            self.core.recover(self.core.flows().keys().cloned().collect(), Vec::new());
        }
        Op::ok(())
    }

    fn stop(&self) -> Op<()> {
        let mut lifecycle = self.lock();
        if let Some(listener) = lifecycle.listener.take() {
            self.bus.unsubscribe(listener);
            self.core.unwatch();
            let (over, ended) = watch::channel(false);
            lifecycle.ended = Some(ended);
            let (core, drain_timeout, holding) = (self.core.clone(), self.drain_timeout, lifecycle.holding.take());
            self.core.runtime.spawn(async move {
                if tokio::time::timeout(drain_timeout, core.wait_idle()).await.is_err() {
                    tracing::warn!(
                        code = "NVENT_TIMEOUT",
                        "flow wiring stopped with active runs, which it will recover at the next start"
                    );
                    core.aborted.send_replace(true);
                    core.wait_idle().await;
                }
                if let Some(holding) = holding {
                    holding.abort();
                    core.release().await;
                }
                over.send_replace(true);
            });
        }
        match lifecycle.ended.clone() {
            Some(mut ended) => Op::pending(async move {
                // The sender is dropped without a value only when the runtime shuts down.
                _ = ended.wait_for(|over| *over).await;
                Ok(())
            }),
            None => Op::ok(()),
        }
    }
}

impl Drop for FlowWiring {
    fn drop(&mut self) {
        drop(self.stop());
    }
}

/// Returns the queues of flows.
fn queues(flows: &Flows) -> BTreeSet<String> {
    flows.values().flat_map(|flow| flow.queues()).map(str::to_owned).collect()
}

/// Passes the events of a bus to their runs.
struct FlowListener(Arc<Core>);

impl Listener for FlowListener {
    fn on_event(&self, event: &BusEvent) {
        match &event.event {
            AnyEvent::New(new) => self.0.ingress(new),
            AnyEvent::Stored(stored) => self.0.persisted(event.subject.as_ref(), stored),
        }
    }

    fn stores_new_events(&self) -> bool {
        true
    }

    fn flush(&self) -> Option<Completion<()>> {
        self.0.flush()
    }
}

/// The templates of subjects and index keys.
struct Subjects {
    run: Template,
    index: Template,
}

impl Subjects {
    fn new(options: &FlowOptions) -> Result<Self> {
        let run = Template::parse("subjects.run", &options.run_subject)?;
        let index = Template::parse("subjects.runIndex", &options.run_index)?;
        for (what, template, known) in
            [("subjects.run", &run, &["runId", "flowName"][..]), ("subjects.runIndex", &index, &["flowName"][..])]
        {
            if let Some(field) = template.fields().find(|field| !known.contains(field)) {
                return Err(Error::invalid(format!(
                    "{what}: {{{field}}} is not available here; use {}",
                    known.iter().map(|known| format!("{{{known}}}")).collect::<Vec<_>>().join(" or ")
                )));
            }
        }
        if !run.fields().any(|field| field == "runId") {
            return Err(Error::invalid("subjects.run: must contain {runId}"));
        }
        Ok(Self { run, index })
    }

    fn run(&self, run_id: &str, flow_name: Option<&str>) -> Option<Arc<str>> {
        let subject = self.run.render(|field| match field {
            "runId" => Some(run_id.into()),
            _ => flow_name.map(Into::into),
        })?;
        Some(subject.into())
    }

    fn index(&self, flow_name: &str) -> Option<String> {
        self.index.render(|_| Some(flow_name.into()))
    }

    /// Returns the subject and the run of a persisted event, if it belongs to a run.
    fn of(&self, subject: Option<&Arc<str>>, event: &Event) -> Option<(Arc<str>, Arc<str>)> {
        let stated = event.run_id().and_then(|run| Some((self.run(run, event.flow_name())?, Arc::from(run))));
        match subject {
            None => stated,
            Some(subject) => stated
                .filter(|(expected, _)| expected == subject)
                .or_else(|| Some((subject.clone(), self.run.extract(subject)?.into()))),
        }
    }
}
