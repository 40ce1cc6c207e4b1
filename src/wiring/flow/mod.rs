//! Flow wiring: persists what happens in runs of flows, keeps their index, triggers their steps and tells their end.
//!
//! An event on the bus that has a `runId` and no id is *ingress*: it is appended to the run's subject once. Every
//! persisted event of a run, whoever appended it, is folded into the run's state ([`reducer`]), from which follows what
//! to do. The state is only ever a fold of the log, so it can be forgotten and found again, and several processes can
//! work on one store:
//!
//! - Whatever is decided is decided on the whole log: after each write the log is read on, until nothing is new.
//! - The event that ends a run is appended on the condition that the log still ends where it was read, so there is one.
//! - Jobs have the id `<run>__<step>`, index entries are absolute values: doing either twice changes nothing.
//!
//! **What is on its way.** An end that an event on its way could still change (a failed step without a word about a
//! retry, a branch that was not taken) waits for [`FlowOptions::settle`]; a run that did everything ends at once.
//!
//! **Failures.** What may succeed later is tried until it does, in its place in the run; what cannot is given up, counted
//! in [`FlowStats`] and reported. An append that may have been applied is looked up in the log before it is repeated.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use crate::bus::{Bus, BusEvent, Listener};
use crate::error::{Error, Result};
use crate::event::{AnyEvent, Event};
use crate::op::Op;
use crate::store::Announce;
use crate::wiring::Wiring;
use crate::wiring::template::Template;

pub mod definition;
mod ports;
pub mod reducer;
mod runner;
mod runs;

pub use ports::{FlowQueue, FlowStore, NativeStore};

use definition::parse_flows;
use runner::{Core, Counters};
use runs::{News, Runs, Told};

/// How flow wiring works.
#[derive(Debug, Clone)]
pub struct FlowOptions {
    /// The subject of a run; it needs a place for `{runId}`.
    pub run_subject: String,
    /// The index of a flow's runs.
    pub run_index: String,
    /// How long an end that may still change waits for what is on its way.
    pub settle: Duration,
    /// Ingress events that may wait to be persisted. What comes then is lost, counted and reported.
    pub max_ingress: usize,
    /// States that are remembered of runs with nothing to do.
    pub max_resting: usize,
    /// Runs that are worked on at a time.
    pub concurrency: usize,
    /// How long `stop` waits for what is under way.
    pub drain: Duration,
}

impl Default for FlowOptions {
    fn default() -> Self {
        Self {
            run_subject: super::RUN_SUBJECT.into(),
            run_index: "nq:flows:{flowName}".into(),
            settle: Duration::from_millis(500),
            max_ingress: 100_000,
            max_resting: 1_000,
            concurrency: 64,
            drain: Duration::from_secs(5),
        }
    }
}

/// What flow wiring has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowStats {
    /// Ingress events persisted.
    pub persisted: u64,
    /// Steps enqueued.
    pub triggered: u64,
    /// Runs that it ended as completed.
    pub completed: u64,
    /// Runs that it ended as failed.
    pub failed: u64,
    /// Further attempts to do something.
    pub retries: u64,
    /// Ingress events that wait to be persisted.
    pub lag: u64,
    /// Ingress events that were given up.
    pub lost: u64,
    /// Other things that were given up: a step not enqueued, an index entry not written, a log not read.
    pub errors: u64,
}

/// The parts that flow wiring connects.
pub struct FlowParts {
    /// Where events come from.
    pub bus: Arc<Bus>,
    /// Where runs are persisted.
    pub store: Arc<dyn FlowStore>,
    /// Tells the bus about an event that was appended here.
    pub announce: Announce,
    /// Whether the store does that itself, so that it is not to be told twice.
    pub store_announces: bool,
    /// Where steps are enqueued. None: the wiring triggers nothing.
    pub queue: Option<Arc<dyn FlowQueue>>,
}

/// See the [module](self).
pub struct FlowWiring {
    core: Arc<Core>,
    bus: Arc<Bus>,
    drain: Duration,
    life: Mutex<Life>,
}

#[derive(Default)]
struct Life {
    listener: Option<u64>,
    /// Counts the starts, so that the end of an old run does not cut off a new one.
    starts: u64,
    /// True when the last stop is over.
    ended: Option<watch::Receiver<bool>>,
}

impl FlowWiring {
    /// Flow wiring between these parts, to run on this runtime. Fails where the options are not usable.
    pub fn new(parts: FlowParts, options: &FlowOptions, runtime: Handle) -> Result<Self> {
        let core = Core {
            store: parts.store,
            queue: parts.queue,
            announce: parts.announce,
            store_announces: parts.store_announces,
            runtime,
            subjects: Subjects::new(options)?,
            settle: options.settle,
            flows: RwLock::default(),
            runs: Runs::new(options.max_ingress.max(1), options.max_resting.max(1)),
            permits: Semaphore::new(options.concurrency.max(1)),
            aborted: watch::channel(false).0,
            recovering: watch::channel(0).0,
            counters: Counters::default(),
        };
        Ok(Self { core: Arc::new(core), bus: parts.bus, drain: options.drain, life: Mutex::default() })
    }

    /// Replaces the definitions of flows: a JSON array. Runs of flows that were not known before are looked at.
    pub fn set_flows(&self, json: &str) -> Result<()> {
        let flows = Arc::new(parse_flows(json)?);
        let before =
            std::mem::replace(&mut *self.core.flows.write().unwrap_or_else(PoisonError::into_inner), flows.clone());
        if self.lock().listener.is_some() {
            self.core.recover(flows.keys().filter(|id| !before.contains_key(*id)).cloned().collect());
        }
        Ok(())
    }

    /// What it has done so far.
    pub fn stats(&self) -> FlowStats {
        self.core.stats()
    }

    /// Waits until no run has anything to do.
    pub async fn idle(&self) {
        self.core.quiet().await;
    }

    fn lock(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wiring for FlowWiring {
    /// Listens, and looks at every run that the index has as running.
    fn start(&self) -> Op<()> {
        let mut life = self.lock();
        if life.listener.is_none() {
            life.starts += 1;
            life.ended = None;
            self.core.aborted.send_replace(false);
            life.listener = Some(self.bus.subscribe(Arc::new(Ear(self.core.clone()))));
            self.core.recover(self.core.flows().keys().cloned().collect());
        }
        Op::ok(())
    }

    fn stop(&self) -> Op<()> {
        let mut life = self.lock();
        if let Some(listener) = life.listener.take() {
            self.bus.unsubscribe(listener);
            let (over, ended) = watch::channel(false);
            life.ended = Some(ended);
            let (core, drain) = (self.core.clone(), self.drain);
            self.core.runtime.spawn(async move {
                if tokio::time::timeout(drain, core.quiet()).await.is_err() {
                    tracing::warn!("flow wiring stopped before the store and the queue took everything");
                    core.aborted.send_replace(true);
                    core.quiet().await;
                }
                over.send_replace(true);
            });
        }
        match life.ended.clone() {
            Some(mut ended) => Op::pending(async move {
                // The sender is only dropped without a word when the runtime goes, and the task with it.
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

/// What hears the bus.
struct Ear(Arc<Core>);

impl Listener for Ear {
    fn on_event(&self, event: &BusEvent) {
        match &event.event {
            AnyEvent::New(new) => self.0.ingress(new),
            AnyEvent::Stored(stored) => self.0.persisted(event.subject.as_ref(), stored),
        }
    }
}

/// Where runs are: the subject of each, and the index of each flow.
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
                    "{what}: {{{field}}} has no value here, only {} has",
                    known.iter().map(|known| format!("{{{known}}}")).collect::<Vec<_>>().join(" or ")
                )));
            }
        }
        if !run.fields().any(|field| field == "runId") {
            return Err(Error::invalid("subjects.run: runs need a subject each: put {runId} into it"));
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

    /// The subject and the run of a persisted event, if it belongs to a run.
    fn of(&self, subject: Option<&Arc<str>>, event: &Event) -> Option<(Arc<str>, Arc<str>)> {
        let told = event.run_id().and_then(|run| Some((self.run(run, event.flow_name())?, Arc::from(run))));
        match subject {
            None => told,
            Some(subject) => told
                .filter(|(expected, _)| expected == subject)
                .or_else(|| Some((subject.clone(), self.run.extract(subject)?.into()))),
        }
    }
}
