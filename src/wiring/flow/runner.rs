//! The part of flow wiring that acts: one task for each run that has something to do.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::error::{Code, Error, Result};
use crate::event::{Event, NewEvent};
use crate::json::{Filter, Object, parse_object};
use crate::op::Op;
use crate::store::{Announce, IndexQuery};
use crate::wiring::flow::definition::{FlowDefinition, Flows};
use crate::wiring::flow::reducer::{Outcome, RunState, Status, Trigger};
use crate::wiring::flow::{FlowQueue, FlowStats, FlowStore, News, Runs, Subjects, Told};

/// The pause before the second attempt; it doubles each time, up to [`MAX_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// Index entries that are read at a time to find runs that are under way. Large, as pages shift when runs end meanwhile.
const PAGE: usize = 10_000;

pub(super) struct Core {
    pub(super) store: Arc<dyn FlowStore>,
    pub(super) queue: Option<Arc<dyn FlowQueue>>,
    pub(super) announce: Announce,
    pub(super) store_announces: bool,
    pub(super) runtime: Handle,
    pub(super) subjects: Subjects,
    pub(super) settle: Duration,
    pub(super) flows: RwLock<Arc<Flows>>,
    pub(super) runs: Runs<Run>,
    pub(super) permits: Semaphore,
    /// True: nothing is tried any more.
    pub(super) aborted: watch::Sender<bool>,
    /// How many tasks look for runs that are under way.
    pub(super) recovering: watch::Sender<usize>,
    pub(super) counters: Counters,
}

#[derive(Default)]
pub(super) struct Counters {
    persisted: AtomicU64,
    triggered: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    retries: AtomicU64,
    lost: AtomicU64,
    errors: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What is known of a run.
pub(super) struct Run {
    id: Arc<str>,
    state: RunState,
    /// Steps that were enqueued from here.
    enqueued: BTreeSet<String>,
    /// What the index entry was last given.
    indexed: Option<Object>,
    /// An end that may still change, and when it no longer may.
    settling: Option<(Outcome, Instant)>,
    /// The event that ends the run may have been appended, without an answer.
    unsure_end: bool,
}

impl Run {
    fn new(id: Arc<str>) -> Self {
        Self {
            id,
            state: RunState::default(),
            enqueued: BTreeSet::new(),
            indexed: None,
            settling: None,
            unsure_end: false,
        }
    }
}

impl Core {
    pub(super) fn flows(&self) -> Arc<Flows> {
        self.flows.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn stats(&self) -> FlowStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FlowStats {
            persisted: read(&self.counters.persisted),
            triggered: read(&self.counters.triggered),
            completed: read(&self.counters.completed),
            failed: read(&self.counters.failed),
            retries: read(&self.counters.retries),
            lag: self.runs.ingress() as u64,
            lost: read(&self.counters.lost),
            errors: read(&self.counters.errors),
        }
    }

    pub(super) async fn quiet(&self) {
        // A search that is over has told its runs, so this order misses nothing.
        _ = self.recovering.subscribe().wait_for(|searches| *searches == 0).await;
        self.runs.quiet().await;
    }

    pub(super) fn ingress(self: &Arc<Self>, event: &NewEvent) {
        let Some(run_id) = event.run_id().filter(|id| !id.is_empty()) else { return };
        match self.subjects.run(run_id, event.flow_name()) {
            Some(subject) => self.tell(&subject, run_id.into(), News::Ingress(event.clone())),
            None => self.lose(event, "its run has no usable subject"),
        }
    }

    pub(super) fn persisted(self: &Arc<Self>, subject: Option<&Arc<str>>, event: &Event) {
        if let Some((subject, run_id)) = self.subjects.of(subject, event) {
            self.tell(&subject, run_id, News::Persisted(event.id().into()));
        }
    }

    fn tell(self: &Arc<Self>, subject: &Arc<str>, run_id: Arc<str>, news: News) {
        let event = match &news {
            News::Ingress(event) => Some(event.clone()),
            News::Persisted(_) | News::Look => None,
        };
        match self.runs.tell(subject, news) {
            Told::Waiting => {}
            Told::NeedsTask => _ = self.runtime.spawn(self.clone().tend(subject.clone(), run_id)),
            Told::Full => {
                if let Some(event) = event {
                    self.lose(&event, "too many events wait to be persisted");
                }
            }
        }
    }

    fn lose(&self, event: &NewEvent, why: &str) {
        count(&self.counters.lost);
        let (kind, run) = (event.kind(), event.run_id().unwrap_or_default());
        tracing::error!(kind, run, "an event was not persisted: {why}");
    }

    fn give_up(&self, what: &str, run: &str, error: &Error) {
        count(&self.counters.errors);
        tracing::error!(run, code = %error.code(), "{what}: {error}");
    }

    /// Looks for runs that the index has as running.
    pub(super) fn recover(self: &Arc<Self>, flows: Vec<String>) {
        self.recovering.send_modify(|searches| *searches += 1);
        let core = self.clone();
        self.runtime.spawn(async move {
            for flow in flows {
                if let Err(error) = core.recover_flow(&flow).await {
                    core.give_up("runs under way could not be looked for", &flow, &error);
                }
            }
            core.recovering.send_modify(|searches| *searches -= 1);
        });
    }

    async fn recover_flow(self: &Arc<Self>, flow: &str) -> Result<()> {
        let Some(key) = self.subjects.index(flow) else { return Ok(()) };
        let running = Filter::new(Object::from_iter([("status".into(), Value::from("running"))]));
        let mut found = Vec::new();
        loop {
            let query = IndexQuery { offset: found.len(), limit: PAGE, filter: running.clone() };
            let page = self.attempt(|| self.store.index_read(&key, query.clone())).await?;
            let is_last = page.len() < PAGE;
            found.extend(page.into_iter().map(|entry| entry.id));
            if is_last {
                break;
            }
        }
        for run_id in found {
            if let Some(subject) = self.subjects.run(&run_id, Some(flow)) {
                self.tell(&subject, run_id, News::Look);
            }
        }
        Ok(())
    }

    /// The task of one run: until there is nothing to do.
    async fn tend(self: Arc<Self>, subject: Arc<str>, run_id: Arc<str>) {
        let mut run = self.runs.recall(&subject);
        let wake = self.runs.wake(&subject);
        loop {
            if let Some(work) = self.runs.take(&subject) {
                let known = run.take().unwrap_or_else(|| Run::new(run_id.clone()));
                // The semaphore is never closed.
                let _permit = self.permits.acquire().await;
                run = self.work(&subject, known, work.ingress, work.noticed.as_deref(), work.look).await;
                continue;
            }
            if let Some((_, due)) = run.as_ref().and_then(|run| run.settling.as_ref()) {
                let due = *due;
                tokio::select! {
                    () = wake.notified() => {}
                    () = tokio::time::sleep_until(due) => { self.runs.tell(&subject, News::Look); }
                    _ = self.abort() => run = None,
                }
                continue;
            }
            if self.runs.rest(&subject, &mut run) {
                return;
            }
        }
    }

    async fn abort(&self) {
        _ = self.aborted.subscribe().wait_for(|aborted| *aborted).await;
    }

    /// Persists, folds and acts. The run is forgotten where that fails: the log knows more than we do.
    async fn work(
        &self,
        subject: &str,
        mut run: Run,
        ingress: Vec<NewEvent>,
        noticed: Option<&str>,
        look: bool,
    ) -> Option<Run> {
        let news = noticed.is_some_and(|id| !run.state.has_seen(id)) || look || !ingress.is_empty();
        let mut known = Vec::new();
        for event in ingress {
            match self.persist(subject, &run, &event, &known).await {
                Ok(record) => {
                    count(&self.counters.persisted);
                    known.push(record.id().to_owned());
                }
                Err(error) => self.lose(&event, error.message()),
            }
            self.runs.settled();
        }
        if news && let Err(error) = self.advance(subject, &mut run).await {
            self.give_up("a run could not be followed", &run.id, &error);
            return None;
        }
        Some(run)
    }

    /// Does something until it succeeds, or fails for good. It must be harmless to do twice.
    async fn attempt<T: Send + 'static>(&self, mut work: impl FnMut() -> Op<T>) -> Result<T> {
        let mut backoff = FIRST_BACKOFF;
        loop {
            match self.once(work()).await {
                Err(error) if error.is_retryable() => self.pause(&mut backoff).await?,
                result => return result,
            }
        }
    }

    /// Waits for an operation, unless nothing is to be waited for any more.
    async fn once<T: Send + 'static>(&self, op: Op<T>) -> Result<T> {
        match op {
            Op::Ready(result) => result,
            op => tokio::select! {
                biased;
                result = op.into_future() => result,
                () = self.abort() => Err(Error::closed("flow wiring")),
            },
        }
    }

    async fn pause(&self, backoff: &mut Duration) -> Result<()> {
        count(&self.counters.retries);
        let pause = std::mem::replace(backoff, (*backoff * 2).min(MAX_BACKOFF));
        self.once(Op::pending(async move {
            tokio::time::sleep(pause).await;
            Ok(())
        }))
        .await
    }

    /// Appends an ingress event once. `known` are the ids of events that were appended since the run was folded.
    async fn persist(&self, subject: &str, run: &Run, event: &NewEvent, known: &[String]) -> Result<Event> {
        let mut backoff = FIRST_BACKOFF;
        let mut unsure = false;
        loop {
            if unsure && let Some(record) = self.find(subject, run, event, known).await? {
                // The store never heard that it was stored, so it has not announced it.
                (self.announce)(&subject.into(), &record);
                return Ok(record);
            }
            match self.once(self.store.append(subject, event.clone(), None)).await {
                Ok(record) => {
                    self.announce(subject, &record);
                    return Ok(record);
                }
                Err(error) if error.is_retryable() => {
                    unsure |= error.is_maybe_applied();
                    self.pause(&mut backoff).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The record of an event whose append was not answered, if it is in the log.
    async fn find(&self, subject: &str, run: &Run, event: &NewEvent, known: &[String]) -> Result<Option<Event>> {
        let after = run.state.last_id().cloned();
        let records = self.attempt(|| self.store.read(subject, after.as_deref())).await?;
        let wanted = parse_object("event", event.json())?;
        let is_it = |text: &str| {
            let mut found = parse_object("event", text).unwrap_or_default();
            let is_new = found.shift_remove("id").is_some_and(|id| !known.iter().any(|known| id == **known));
            found.shift_remove("ts");
            is_new && found == wanted
        };
        records.iter().find(|text| is_it(text)).map(|text| Event::parse(text)).transpose()
    }

    fn announce(&self, subject: &str, record: &Event) {
        if !self.store_announces {
            (self.announce)(&subject.into(), record);
        }
    }

    /// Does what follows from the log, and reads on until nothing is new. So the last one to write an index entry,
    /// here or in another process, has read what the others wrote before.
    async fn advance(&self, subject: &str, run: &mut Run) -> Result<()> {
        let mut backoff = FIRST_BACKOFF;
        let mut next = Next::Again;
        loop {
            match (self.catch_up(subject, run).await?, next) {
                (false, Next::Done) => return Ok(()),
                // It does not end as expected, and nothing came: this is no longer the log that was folded.
                (false, Next::Conflict(error)) => return Err(error),
                (true, _) | (false, Next::Again) => next = self.act(subject, run, &mut backoff).await?,
            }
        }
    }

    /// Folds what is new in the log; whether anything was.
    async fn catch_up(&self, subject: &str, run: &mut Run) -> Result<bool> {
        let after = run.state.last_id().cloned();
        let records = self.attempt(|| self.store.read(subject, after.as_deref())).await?;
        // A store of someone else's that knows no `after` gives the whole log: folding it again changes nothing.
        for record in &records {
            let was_running = run.state.status() == Status::Running;
            if let Err(error) = run.state.fold(record) {
                self.give_up("a stored event was passed over", &run.id, &error);
            }
            if was_running && run.state.status() != Status::Running && std::mem::take(&mut run.unsure_end) {
                (self.announce)(&subject.into(), &Event::parse(record)?);
            }
        }
        Ok(run.state.last_id() != after.as_ref())
    }

    /// Enqueues steps, ends the run and writes its index entry, as the state says.
    async fn act(&self, subject: &str, run: &mut Run, backoff: &mut Duration) -> Result<Next> {
        let Some(name) = run.state.flow_name().cloned() else { return Ok(Next::Done) };
        let flow = self.flows().get(&*name).cloned();
        if run.indexed.is_none() {
            // A run that is not in the index is not found again after a crash, so this comes before all else.
            self.index(run, &name, flow.as_deref()).await?;
        }
        if let Some(flow) = &flow {
            let decision = run.state.decide(&run.id, flow);
            for trigger in decision.triggers {
                self.trigger(run, trigger).await?;
            }
            if let Some(outcome) = self.settled(subject, run, decision.outcome) {
                let next = self.end(subject, run, &name, &outcome, backoff).await?;
                if !matches!(next, Next::Done) {
                    return Ok(next);
                }
            }
        }
        self.index(run, &name, flow.as_deref()).await?;
        Ok(Next::Done)
    }

    async fn trigger(&self, run: &mut Run, trigger: Trigger) -> Result<()> {
        let Some(queue) = self.queue.as_ref().filter(|_| !run.enqueued.contains(&trigger.step)) else { return Ok(()) };
        let enqueue = || queue.enqueue(&trigger.queue, &trigger.step, trigger.data.clone(), trigger.opts.clone());
        match self.attempt(enqueue).await {
            Ok(_) => {
                count(&self.counters.triggered);
                run.enqueued.insert(trigger.step);
            }
            Err(error) if *self.aborted.borrow() => return Err(error),
            // The next event of the run tries again.
            Err(error) => self.give_up(&format!("step {:?} could not be enqueued", trigger.step), &run.id, &error),
        }
        Ok(())
    }

    /// The outcome, if nothing on its way can change it any more.
    fn settled(&self, subject: &str, run: &mut Run, outcome: Option<Outcome>) -> Option<Outcome> {
        let before = run.settling.take();
        let outcome = outcome?;
        let now = Instant::now();
        let due = match before {
            Some((held, due)) if held == outcome => due,
            _ if outcome.is_certain() => now,
            _ => now + self.settle,
        };
        // What waits to be persisted comes first; it brings us back here.
        if now < due || self.runs.has_ingress(subject) {
            run.settling = Some((outcome, due));
            return None;
        }
        Some(outcome)
    }

    /// Appends the event that ends the run, if the log still ends where it was read.
    async fn end(
        &self,
        subject: &str,
        run: &mut Run,
        flow: &str,
        outcome: &Outcome,
        backoff: &mut Duration,
    ) -> Result<Next> {
        let (kind, data, counter) = match outcome {
            Outcome::Completed { .. } => ("flow.completed", json!({}), &self.counters.completed),
            Outcome::Failed { step, error: Some(error), .. } => {
                ("flow.failed", json!({ "stepName": step, "error": error }), &self.counters.failed)
            }
            Outcome::Failed { step, error: None, .. } => {
                ("flow.failed", json!({ "stepName": step }), &self.counters.failed)
            }
        };
        let event = json!({ "type": kind, "runId": &*run.id, "flowName": flow, "data": data });
        let event = NewEvent::parse(&event.to_string())?;
        let after = run.state.last_id().cloned();
        match self.once(self.store.append(subject, event, after.as_deref())).await {
            Ok(record) => {
                count(counter);
                run.state.fold(record.json())?;
                self.announce(subject, &record);
                Ok(Next::Done)
            }
            Err(error) if error.code() == Code::Conflict => Ok(Next::Conflict(error)),
            Err(error) if error.is_retryable() => {
                run.unsure_end |= error.is_maybe_applied();
                self.pause(backoff).await?;
                Ok(Next::Again)
            }
            Err(error) => Err(error),
        }
    }

    async fn index(&self, run: &mut Run, name: &str, flow: Option<&FlowDefinition>) -> Result<()> {
        let (Some(key), Some(score)) = (self.subjects.index(name), run.state.started_at()) else { return Ok(()) };
        let metadata = run.state.metadata(flow);
        if run.indexed.as_ref() == Some(&metadata) {
            return Ok(());
        }
        if !self.attempt(|| self.store.index_update(&key, &run.id, metadata.clone())).await? {
            self.attempt(|| self.store.index_add(&key, &run.id, score, metadata.clone())).await?;
        }
        run.indexed = Some(metadata);
        Ok(())
    }
}

/// What comes after acting on a state.
enum Next {
    /// Nothing, unless the log has grown.
    Done,
    /// The same again.
    Again,
    /// Nothing could be done, as the log had grown.
    Conflict(Error),
}
