//! The effects of flow wiring: one task for each active run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::error::{Code, Error, Result};
use crate::event::{Event, EventId, NewEvent};
use crate::json::{Object, parse_object};
use crate::op::{Completion, Op};
use crate::store::{Announce, Claim};
use crate::sync::read;
use crate::wiring::flow::definition::{FlowDefinition, Flows};
use crate::wiring::flow::ownership::Holder;
use crate::wiring::flow::reducer::{Outcome, RunState, Status, Trigger};
use crate::wiring::flow::runs::Work;
use crate::wiring::flow::{Admission, FlowQueue, FlowStats, FlowStore, Runs, Signal, Subjects};

/// The delay before the second attempt; it doubles each time, up to [`MAX_RETRY_DELAY`].
pub(super) const RETRY_DELAY: Duration = Duration::from_millis(50);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(5);
/// Attempts to enqueue a step in a row. Later ones follow after a delay of up to [`MAX_ENQUEUE_DELAY`], in which other runs
/// are processed.
const ENQUEUE_ATTEMPTS: u32 = 5;
const MAX_ENQUEUE_DELAY: Duration = Duration::from_secs(30);
pub(super) struct Core {
    pub(super) store: Arc<dyn FlowStore>,
    pub(super) queue: Option<Arc<dyn FlowQueue>>,
    pub(super) announce: Announce,
    pub(super) store_announces: bool,
    pub(super) runtime: Handle,
    pub(super) subjects: Subjects,
    pub(super) settle_delay: Duration,
    pub(super) flows: RwLock<Arc<Flows>>,
    pub(super) runs: Runs<Run>,
    pub(super) permits: Semaphore,
    /// True: pending work is cancelled.
    pub(super) aborted: watch::Sender<bool>,
    /// Who holds the queue.
    pub(super) holder: watch::Sender<Holder>,
    /// The number of recovery tasks.
    pub(super) recovering: watch::Sender<usize>,
    /// The queues whose failures are observed, with the id of the subscription once it is known.
    pub(super) watched: Mutex<BTreeMap<String, Option<u64>>>,
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
    pub(super) recovered: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The state of a run and of its effects.
pub(super) struct Run {
    pub(super) id: Arc<str>,
    pub(super) state: RunState,
    /// Ids of jobs that this process has enqueued.
    enqueued: BTreeSet<String>,
    /// The metadata last written to the index.
    indexed: Option<Object>,
    /// An outcome that may still change, and when it is final.
    pending_outcome: Option<(Outcome, Instant)>,
    /// When an enqueue that failed is repeated, and the delay before the next repetition.
    retry: Option<(Instant, Duration)>,
    /// Whether the state was idle before this work: its log may have been deleted meanwhile.
    is_cached: bool,
    /// Whether the log was deleted after it had been folded.
    deleted: bool,
    /// Whether the log was started again after it had been deleted, so that jobs of the earlier run may be left.
    restarted: bool,
    /// Whether the terminal event may have been appended without a confirmation.
    terminal_unconfirmed: bool,
}

impl Run {
    fn new(id: Arc<str>) -> Self {
        Self {
            id,
            state: RunState::default(),
            enqueued: BTreeSet::new(),
            indexed: None,
            pending_outcome: None,
            retry: None,
            is_cached: false,
            deleted: false,
            restarted: false,
            terminal_unconfirmed: false,
        }
    }
}

impl Run {
    /// Returns when the run must be applied although nothing new happens.
    fn due(&self) -> Option<Instant> {
        let outcome = self.pending_outcome.as_ref().map(|(_, due)| *due);
        let retry = self.retry.map(|(due, _)| due);
        outcome.into_iter().chain(retry).min()
    }
}

impl Core {
    pub(super) fn flows(&self) -> Arc<Flows> {
        read(&self.flows).clone()
    }

    pub(super) fn stats(&self) -> FlowStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FlowStats {
            persisted: load(&self.counters.persisted),
            triggered: load(&self.counters.triggered),
            completed: load(&self.counters.completed),
            failed: load(&self.counters.failed),
            retries: load(&self.counters.retries),
            lag: self.runs.ingress() as u64,
            lost: load(&self.counters.lost),
            errors: load(&self.counters.errors),
            recovered: load(&self.counters.recovered),
        }
    }

    pub(super) async fn wait_idle(&self) {
        // A recovery task signals its runs before it ends, so this order misses none.
        _ = self.recovering.subscribe().wait_for(|tasks| *tasks == 0).await;
        self.runs.all_idle().await;
    }

    pub(super) fn flush(&self) -> Option<Completion<()>> {
        self.runs.flush()
    }

    pub(super) fn ingress(self: &Arc<Self>, event: &NewEvent) {
        let Some(run_id) = event.run_id().filter(|id| !id.is_empty()) else { return };
        match self.subjects.run(run_id, event.flow_name()) {
            Some(subject) => self.signal(&subject, run_id.into(), Signal::Ingress(event.clone())),
            None => self.drop_event(event, "its runId or flowName makes no usable subject"),
        }
    }

    pub(super) fn persisted(self: &Arc<Self>, subject: Option<&Arc<str>>, event: &Event) {
        if let Some((subject, run_id)) = self.subjects.of(subject, event) {
            self.signal(&subject, run_id, Signal::Persisted(event.id().into()));
        }
    }

    pub(super) fn signal(self: &Arc<Self>, subject: &Arc<str>, run_id: Arc<str>, signal: Signal) {
        let event = match &signal {
            Signal::Ingress(event) => Some(event.clone()),
            _ => None,
        };
        match self.runs.signal(subject, signal) {
            Admission::Queued => {}
            Admission::Spawn => _ = self.runtime.spawn(self.clone().drive(subject.clone(), run_id)),
            Admission::Rejected => {
                if let Some(event) = event {
                    self.drop_event(&event, "too many events are waiting to be persisted");
                }
            }
        }
    }

    fn drop_event(&self, event: &NewEvent, why: &str) {
        count(&self.counters.lost);
        let (kind, run) = (event.kind(), event.run_id().unwrap_or_default());
        tracing::error!(code = "NVENT_EVENT_LOST", kind, run, "an event was not persisted: {why}");
    }

    pub(super) fn report_failure(&self, what: &str, run: &str, error: &Error) {
        count(&self.counters.errors);
        tracing::error!(run, code = %error.code(), "{what}: {error}");
    }

    /// Drives one run until there is no work.
    async fn drive(self: Arc<Self>, subject: Arc<str>, run_id: Arc<str>) {
        let mut run = self.runs.take_idle(&subject);
        let mut is_cached = run.is_some();
        let wake = self.runs.wake(&subject);
        loop {
            if let Some(work) = self.runs.take(&subject) {
                let mut known = run.take().unwrap_or_else(|| Run::new(run_id.clone()));
                known.is_cached = std::mem::take(&mut is_cached);
                // The semaphore is never closed.
                let _permit = self.permits.acquire().await;
                run = self.work(&subject, known, work).await;
                continue;
            }
            if let Some(due) = run.as_ref().and_then(Run::due) {
                tokio::select! {
                    () = wake.notified() => {}
                    () = tokio::time::sleep_until(due) => { self.runs.signal(&subject, Signal::Refresh); }
                    _ = self.abort() => run = None,
                }
                continue;
            }
            if self.runs.park_idle(&subject, &mut run) {
                return;
            }
        }
    }

    async fn abort(&self) {
        _ = self.aborted.subscribe().wait_for(|aborted| *aborted).await;
    }

    /// Persists, folds and applies. Returns None where that fails: the state must then be folded from the log again.
    async fn work(&self, subject: &str, mut run: Run, work: Work) -> Option<Run> {
        let is_stale = work.last_persisted.is_some_and(|id| !run.state.has_seen(&id))
            || work.refresh
            || work.reconcile.is_some()
            || !work.ingress.is_empty()
            || !work.failed_jobs.is_empty();
        let mut known = Vec::new();
        if run.is_cached
            && !work.ingress.is_empty()
            && let Err(error) = self.catch_up(subject, &mut run).await
        {
            // The events are persisted all the same.
            self.report_failure("a run could not be processed", &run.id, &error);
        }
        for (number, event) in work.ingress {
            if run.deleted && run.state.last_id().is_none() && event.kind() != "flow.start" {
                tracing::debug!(run = &*run.id, kind = event.kind(), "a late event of a deleted run was dropped");
                count(&self.counters.lost);
                self.runs.complete_ingress(number);
                continue;
            }
            let is_start = event.kind() == "flow.start";
            if is_start && let Err(error) = self.claim_start(&run, &event).await {
                self.report_failure("a run could not be claimed", &run.id, &error);
            }
            match self.persist(subject, &run, &event, &known).await {
                Ok(record) => {
                    count(&self.counters.persisted);
                    known.push(record.id().to_owned());
                    if is_start {
                        run.deleted = false;
                    }
                }
                Err(error) => self.drop_event(&event, error.message()),
            }
            self.runs.complete_ingress(number);
        }
        let result = async {
            for job in work.failed_jobs {
                self.record_job_failure(subject, &mut run, job).await?;
            }
            if let Some(flow) = work.reconcile {
                self.reconcile(subject, &mut run, &flow).await?;
            }
            if is_stale { self.advance(subject, &mut run).await } else { Ok(()) }
        }
        .await;
        if let Err(error) = result {
            self.report_failure("a run could not be processed", &run.id, &error);
            return None;
        }
        Some(run)
    }

    /// Claims the entry step of a run that is started in this process, whose caller enqueues it.
    async fn claim_start(&self, run: &Run, event: &NewEvent) -> Result<()> {
        let flow = event.flow_name().and_then(|name| self.flows().get(name).cloned());
        if let Some(flow) = flow
            && let Some(entry) = &flow.entry
            && let Some(subject) = self.subjects.run(&run.id, Some(&flow.id))
        {
            self.claim(&subject, &run.state.job_id(&run.id, entry), true).await?;
        }
        Ok(())
    }

    /// Repeats idempotent work until it succeeds or fails permanently.
    pub(super) async fn attempt<T: Send + 'static>(&self, mut work: impl FnMut() -> Op<T>) -> Result<T> {
        let mut delay = RETRY_DELAY;
        loop {
            match self.once(work()).await {
                Err(error) if error.is_retryable() => self.pause(&mut delay).await?,
                result => return result,
            }
        }
    }

    /// Returns the result of an operation, or [`Code::Closed`] when pending work is cancelled.
    pub(super) async fn once<T: Send + 'static>(&self, op: Op<T>) -> Result<T> {
        match op {
            Op::Ready(result) => result,
            op => tokio::select! {
                biased;
                result = op.into_future() => result,
                () = self.abort() => Err(Error::closed("flow wiring")),
            },
        }
    }

    pub(super) async fn pause(&self, delay: &mut Duration) -> Result<()> {
        count(&self.counters.retries);
        let pause = std::mem::replace(delay, (*delay * 2).min(MAX_RETRY_DELAY));
        self.sleep(pause).await
    }

    /// Waits, or returns [`Code::Closed`] when pending work is cancelled.
    pub(super) async fn sleep(&self, time: Duration) -> Result<()> {
        self.once(Op::pending(async move {
            tokio::time::sleep(time).await;
            Ok(())
        }))
        .await
    }

    /// Appends an ingress event exactly once. `known` are the ids of events appended since the run was folded.
    async fn persist(&self, subject: &str, run: &Run, event: &NewEvent, known: &[String]) -> Result<Event> {
        let mut delay = RETRY_DELAY;
        let mut unconfirmed = false;
        loop {
            if unconfirmed && let Some(record) = self.find(subject, run, event, known).await? {
                // The store could not confirm the append, so it has not announced it.
                (self.announce)(&subject.into(), &record);
                return Ok(record);
            }
            match self.once(self.store.append(subject, event.clone(), None)).await {
                Ok(record) => {
                    self.announce(subject, &record);
                    return Ok(record);
                }
                Err(error) if error.is_retryable() => {
                    unconfirmed |= error.is_maybe_applied();
                    self.pause(&mut delay).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the record of an event whose append was not confirmed, if it is in the log.
    async fn find(&self, subject: &str, run: &Run, event: &NewEvent, known: &[String]) -> Result<Option<Event>> {
        let after = run.state.last_id().cloned();
        let records = self.attempt(|| self.store.read(subject, after.as_deref())).await?;
        let expected = parse_object("event", event.json())?;
        let is_match = |text: &str| {
            let mut found = parse_object("event", text).unwrap_or_default();
            let is_new = found.shift_remove("id").is_some_and(|id| !known.iter().any(|known| id == **known));
            found.shift_remove("ts");
            is_new && found == expected
        };
        records.iter().find(|text| is_match(text)).map(|text| Event::parse(text)).transpose()
    }

    pub(super) fn announce(&self, subject: &str, record: &Event) {
        if !self.store_announces {
            (self.announce)(&subject.into(), record);
        }
    }

    /// Applies the state and reads the log until nothing is new. So the last process to write an index entry has read
    /// everything that the others wrote before.
    async fn advance(&self, subject: &str, run: &mut Run) -> Result<()> {
        let mut delay = RETRY_DELAY;
        let mut next = Next::Again;
        loop {
            match (self.catch_up(subject, run).await?, next) {
                (false, Next::Done) => return Ok(()),
                // The log does not end as expected although nothing is new: it is not the log that was folded.
                (false, Next::Conflict(error)) => return Err(error),
                (true, _) | (false, Next::Again) => next = self.apply(subject, run, &mut delay).await?,
            }
        }
    }

    /// Folds new records of the log. Returns whether there were any.
    pub(super) async fn catch_up(&self, subject: &str, run: &mut Run) -> Result<bool> {
        let after = run.state.last_id().cloned();
        let last = after.as_deref().and_then(|id| id.parse::<EventId>().ok()).filter(|_| self.store.has_ordered_ids());
        // From the last folded event on: where it is missing, the log was deleted.
        let from = last.map(|id| id.before().to_string()).or(after.as_deref().map(str::to_owned));
        let mut records = self.attempt(|| self.store.read(subject, from.as_deref())).await?;
        if let Some(last) = last
            && !records
                .first()
                .is_some_and(|record| Event::parse(record).is_ok_and(|event| *event.id() == *last.to_string()))
        {
            run.state = RunState::default();
            run.enqueued.clear();
            run.indexed = None;
            run.pending_outcome = None;
            (run.deleted, run.restarted) = (true, true);
            records = self.attempt(|| self.store.read(subject, None)).await?;
        }
        // A foreign store that ignores `after` returns the whole log: folding it again changes nothing.
        for record in &records {
            let was_running = run.state.status() == Status::Running;
            if let Err(error) = run.state.fold(record) {
                self.report_failure("a stored event was skipped", &run.id, &error);
            }
            if was_running && run.state.status() != Status::Running && std::mem::take(&mut run.terminal_unconfirmed) {
                (self.announce)(&subject.into(), &Event::parse(record)?);
            }
        }
        Ok(run.state.last_id() != after.as_ref())
    }

    /// Enqueues steps, ends the run and writes its index entry, according to the state.
    async fn apply(&self, subject: &str, run: &mut Run, delay: &mut Duration) -> Result<Next> {
        let Some(name) = run.state.flow_name().cloned() else { return Ok(Next::Done) };
        if run.deleted && !run.state.has_start() {
            // Late events of a deleted run do not revive it.
            return Ok(Next::Done);
        }
        run.deleted = false;
        let flow = self.flows().get(&*name).cloned();
        if run.indexed.is_none() {
            // Recovery finds only indexed runs, so this comes before all other effects.
            self.index(run, &name, flow.as_deref()).await?;
        }
        if let Some(flow) = &flow {
            let decision = run.state.decide(&run.id, flow);
            for trigger in decision.triggers {
                if self.trigger(subject, run, flow, trigger).await? {
                    return Ok(Next::Again);
                }
            }
            if let Some(outcome) = self.confirmed(subject, run, decision.outcome) {
                let next = self.end(subject, run, &name, &outcome, delay).await?;
                if !matches!(next, Next::Done) {
                    return Ok(next);
                }
            }
        }
        self.index(run, &name, flow.as_deref()).await?;
        Ok(Next::Done)
    }

    /// Enqueues a step, if this process claims it. Returns whether the log has grown, so that the state must be applied again.
    async fn trigger(&self, subject: &str, run: &mut Run, flow: &FlowDefinition, trigger: Trigger) -> Result<bool> {
        let Some(queue) = self.queue.as_ref().filter(|_| !run.enqueued.contains(&trigger.job_id)) else {
            return Ok(false);
        };
        if run.restarted && !self.remove_ended(queue.as_ref(), &trigger).await? {
            return Ok(false);
        }
        match self.claim(subject, &trigger.job_id, true).await? {
            Claim::Own => {}
            Claim::Other => return Ok(false),
            // The process that had it may have run it after the log was read.
            Claim::TakenOver => {
                let has_grown = self.catch_up(subject, run).await?;
                if !flow.step(&trigger.step).is_some_and(|step| run.state.is_open(flow, step)) {
                    return Ok(has_grown);
                }
                self.enqueue(run, trigger).await?;
                return Ok(has_grown);
            }
        }
        self.enqueue(run, trigger).await.map(|()| false)
    }

    pub(super) async fn enqueue(&self, run: &mut Run, trigger: Trigger) -> Result<()> {
        let Some(queue) = &self.queue else { return Ok(()) };
        let enqueue = || queue.enqueue(&trigger.queue, &trigger.step, trigger.data.clone(), trigger.opts.clone());
        let mut delay = RETRY_DELAY;
        for attempt in 1.. {
            match self.once(enqueue()).await {
                Ok(_) => {
                    count(&self.counters.triggered);
                    run.enqueued.insert(trigger.job_id);
                    run.retry = None;
                    break;
                }
                Err(error) if *self.aborted.borrow() => return Err(error),
                Err(error) if error.is_retryable() && attempt < ENQUEUE_ATTEMPTS => self.pause(&mut delay).await?,
                Err(error) => {
                    tracing::warn!(
                        code = "NVENT_ENQUEUE",
                        "step {:?} of run {:?} could not be enqueued: {error}",
                        trigger.step,
                        run.id
                    );
                    self.report_failure("a step could not be enqueued", &run.id, &error);
                    if error.is_retryable() {
                        let pause = run.retry.map_or(RETRY_DELAY * 20, |(_, delay)| delay);
                        run.retry = Some((Instant::now() + pause, (pause * 2).min(MAX_ENQUEUE_DELAY)));
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    /// Removes the job that an earlier run of this id left behind. Returns false where it is still at work.
    async fn remove_ended(&self, queue: &dyn FlowQueue, trigger: &Trigger) -> Result<bool> {
        match self.attempt(|| queue.job(&trigger.queue, &trigger.job_id)).await? {
            None => Ok(true),
            Some(job) if job.end.is_none() => Ok(false),
            Some(_) => self.attempt(|| queue.remove(&trigger.queue, &trigger.job_id)).await.map(|_| true),
        }
    }

    /// Returns the outcome if no event in flight can change it any more.
    fn confirmed(&self, subject: &str, run: &mut Run, outcome: Option<Outcome>) -> Option<Outcome> {
        let before = run.pending_outcome.take();
        let outcome = outcome?;
        let now = Instant::now();
        let due = match before {
            Some((pending, due)) if pending == outcome => due,
            _ if outcome.is_certain() => now,
            _ => now + self.settle_delay,
        };
        // Queued ingress is persisted first, after which the outcome is confirmed again.
        if now < due || self.runs.has_ingress(subject) {
            run.pending_outcome = Some((outcome, due));
            return None;
        }
        Some(outcome)
    }

    /// Appends the terminal event on the condition that the log still ends where it was read.
    async fn end(
        &self,
        subject: &str,
        run: &mut Run,
        flow: &str,
        outcome: &Outcome,
        delay: &mut Duration,
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
                if self.may_claim()
                    && let Some(claims) = self.store.claims()
                {
                    drop(claims.expire(subject));
                }
                Ok(Next::Done)
            }
            Err(error) if error.code() == Code::Conflict => Ok(Next::Conflict(error)),
            Err(error) if error.is_retryable() => {
                run.terminal_unconfirmed |= error.is_maybe_applied();
                self.pause(delay).await?;
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
        let mut patch = metadata.clone();
        if run.state.is_retried() {
            // What the failure left behind.
            for stale in ["completedAt", "error"] {
                patch.entry(stale).or_insert(Value::Null);
            }
        }
        if !self.attempt(|| self.store.index_update(&key, &run.id, patch.clone())).await? {
            self.attempt(|| self.store.index_add(&key, &run.id, score, metadata.clone())).await?;
        }
        run.indexed = Some(metadata);
        Ok(())
    }
}

/// What follows after applying a state.
enum Next {
    /// Nothing unless the log has grown.
    Done,
    /// Apply again.
    Again,
    /// The log had grown, so the terminal event was not appended.
    Conflict(Error),
}
