//! Recovery and job failures: keeps the log of a run and the state of its jobs consistent.
//!
//! The log decides what happened; a queue only knows how its jobs ended. Where the two differ the log is completed:
//!
//! - a job that **failed** permanently, whose step has no end in the log, is recorded as `step.failed`, also where its
//!   run has no log if processes ended while it ran: none stored an event;
//! - a job that **completed**, whose step has no end in the log, lost the events of its handler in a crash: the step runs
//!   once more, as the job `<run>__<step>__recovered`. If the log has no end after that either, the handler publishes
//!   none, and the step is recorded as `step.completed`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Code, Result};
use crate::event::NewEvent;
use crate::fanout::{Delivery, Mailbox, Overflow};
use crate::json::{Filter, Json, Object, to_json};
use crate::queue::QueueEvent;
use crate::store::IndexQuery;
use crate::wiring::flow::definition::{FlowDefinition, Step};
use crate::wiring::flow::reducer::Status;
use crate::wiring::flow::runs::FailedJob;
use crate::wiring::flow::shared::{Core, Run, count, retry_backoff};
use crate::wiring::flow::{FlowJob, FlowQueue, JobEnd, Signal};

/// Index entries read at a time during recovery. Large, because pages shift when runs end meanwhile.
const PAGE_LIMIT: usize = 10_000;
/// Limit of ended jobs that recovery compares with the log, of each outcome and queue.
const MAX_ENDED_JOBS: u64 = 10_000;
/// Limit of failures that wait to be recorded.
const MAX_FAILURES: usize = 100_000;

impl Core {
    /// Signals the runs of these flows that have not ended, or whose end is missing. Then forgets holders of claims that
    /// are gone.
    pub(super) fn recover(self: &Arc<Self>, flows: Vec<String>, gone: Vec<Arc<str>>) {
        self.recovering.send_modify(|tasks| *tasks += 1);
        let core = self.clone();
        self.runtime.spawn(async move {
            let mut all_signalled = true;
            for flow in flows {
                if let Err(error) = core.recover_flow(&flow).await {
                    all_signalled = false;
                    core.report_failure("running runs could not be recovered", &flow, &error);
                }
            }
            if let Some(claims) = core.store.claims().filter(|_| all_signalled && !gone.is_empty()) {
                // Holders that are not forgotten are reported again.
                _ = core.once(claims.forget(&gone)).await;
            }
            core.recovering.send_modify(|tasks| *tasks -= 1);
        });
    }

    async fn recover_flow(self: &Arc<Self>, flow: &str) -> Result<()> {
        let Some(key) = self.subjects.index(flow) else { return Ok(()) };
        let flow: Arc<str> = flow.into();
        let running = Filter::new(Object::from_iter([("status".into(), Value::from("running"))]));
        let mut found = HashSet::new();
        let mut offset = 0;
        loop {
            let query = IndexQuery { after: None, offset, limit: PAGE_LIMIT, filter: running.clone() };
            let page = self.attempt(|| self.store.index_read(&key, query.clone())).await?;
            offset += page.len();
            let (is_last, known) = (page.len() < PAGE_LIMIT, found.len());
            for entry in page {
                if found.insert(entry.id.to_string()) && !entry.id.is_empty() {
                    self.signal_reconcile(&entry.id, &flow);
                }
            }
            // A store that takes no notice of the offset returns the same page again and again.
            if is_last || found.len() == known {
                break;
            }
        }
        self.recover_unindexed(&key, &flow, found).await
    }

    /// Signals the runs of ended jobs that the index does not know: the process ended between the append and the index, or
    /// before the append.
    async fn recover_unindexed(self: &Arc<Self>, key: &str, flow: &Arc<str>, mut known: HashSet<String>) -> Result<()> {
        let (Some(queue), Some(definition)) = (&self.queue, self.flows().get(&**flow).cloned()) else { return Ok(()) };
        let query = IndexQuery { after: None, offset: 0, limit: PAGE_LIMIT, filter: Filter::default() };
        let newest = self.attempt(|| self.store.index_read(key, query.clone())).await?;
        known.extend(newest.into_iter().map(|entry| entry.id.to_string()));
        for queue_name in definition.queues() {
            for job in self.attempt(|| queue.ended_jobs(queue_name, MAX_ENDED_JOBS)).await? {
                let Some((run_id, flow_name)) = job.run() else { continue };
                let is_of_flow = flow_name.is_none_or(|name| *name == **flow) && definition.step(&job.name).is_some();
                if !is_of_flow || !known.insert(run_id.clone()) {
                    continue;
                }
                match job.end {
                    // Its processes may have ended before an event was stored. Other runs without a log were deleted.
                    Some(JobEnd::Failed(reason)) if job.stalled => {
                        if let Some(subject) = self.subjects.run(&run_id, Some(flow)) {
                            let failed = FailedJob { id: job.id, step: job.name, reason, unlogged: Some(flow.clone()) };
                            self.signal(&subject, run_id.into(), Signal::JobFailed(failed));
                        }
                    }
                    _ => self.signal_reconcile(&run_id, flow),
                }
            }
        }
        Ok(())
    }

    /// Has a run compared with its jobs and continued by its log, whether the index knows it or not.
    pub(super) fn signal_reconcile(self: &Arc<Self>, run_id: &str, flow: &Arc<str>) {
        if let Some(subject) = self.subjects.run(run_id, Some(flow)) {
            self.signal(&subject, run_id.into(), Signal::Reconcile(flow.clone()));
        }
    }

    /// Compares the log of a run with the state of its jobs, and completes the log where an end is missing.
    pub(super) async fn reconcile(&self, subject: &str, run: &mut Run, flow: &str) -> Result<()> {
        let (Some(queue), Some(flow)) = (&self.queue, self.flows().get(flow).cloned()) else { return Ok(()) };
        self.catch_up(subject, run).await?;
        for step in &flow.steps {
            // A subject without events is no run: it may have been deleted.
            if run.state.last_id().is_none() || !run.state.is_open(&flow, step) {
                continue;
            }
            let id = run.state.job_id(&run.id, &step.name);
            let read = |id: &str| queue.job(&step.queue, id);
            let Some(job) = self.attempt(|| read(&id)).await? else {
                self.adopt(subject, run, &flow, step, &id).await?;
                continue;
            };
            let Some(end) = job.end.clone() else { continue };
            if !queue.ends_after_events() {
                // The events of the handler may be in flight.
                self.sleep(self.settle_delay).await?;
            }
            // Read after the job's state: a job ends after its events have been stored.
            self.catch_up(subject, run).await?;
            if !run.state.is_open(&flow, step) {
                continue;
            }
            let end = match end {
                JobEnd::Failed(reason) => JobEnd::Failed(reason),
                JobEnd::Completed => {
                    let again = recovered_id(&id);
                    match self.attempt(|| read(&again)).await? {
                        None => {
                            self.run_again(queue.as_ref(), run, step, job, &again).await?;
                            continue;
                        }
                        Some(FlowJob { end: None, .. }) => continue,
                        Some(FlowJob { end: Some(end), .. }) => end,
                    }
                }
            };
            let (kind, data) = match end {
                JobEnd::Completed => ("step.completed", json!({ "recovered": true })),
                JobEnd::Failed(reason) => ("step.failed", failure(reason)),
            };
            self.append_step(subject, run, &flow, step, kind, data).await?;
        }
        Ok(())
    }

    /// Enqueues the job of a step once more, under another id.
    async fn run_again(&self, queue: &dyn FlowQueue, run: &Run, step: &Step, job: FlowJob, id: &str) -> Result<()> {
        let mut opts = job.opts;
        opts.shift_remove("delay");
        opts.insert("jobId".into(), id.into());
        let opts: Json = to_json(&opts);
        self.attempt(|| queue.enqueue(&step.queue, &step.name, job.data.clone(), opts.clone())).await?;
        count(&self.counters.recovered);
        tracing::warn!(
            code = "NVENT_RECOVERED",
            run = &*run.id,
            step = step.name,
            "the job of step {:?} of run {:?} had ended without the events of its handler; it runs again",
            step.name,
            run.id
        );
        Ok(())
    }

    /// Records a permanent failure of a step's job that the log does not have.
    pub(super) async fn record_job_failure(&self, subject: &str, run: &mut Run, job: FailedJob) -> Result<()> {
        self.catch_up(subject, run).await?;
        if run.state.is_superseded(&run.id, &job.step, &job.id) {
            return Ok(());
        }
        let unlogged = job.unlogged.filter(|_| run.state.last_id().is_none() && !run.deleted);
        let Some(flow) =
            run.state.flow_name().or(unlogged.as_ref()).and_then(|name| self.flows().get(&**name).cloned())
        else {
            return Ok(());
        };
        match flow.step(&job.step) {
            Some(step) => self.append_step(subject, run, &flow, step, "step.failed", failure(job.reason)).await,
            None => Ok(()),
        }
    }

    /// Appends the end of a step unless the log has one.
    async fn append_step(
        &self,
        subject: &str,
        run: &mut Run,
        flow: &FlowDefinition,
        step: &Step,
        kind: &str,
        data: Value,
    ) -> Result<()> {
        let event = json!({
            "type": kind, "runId": &*run.id, "flowName": flow.id, "stepName": step.name, "data": data,
        });
        let event = NewEvent::parse(&event.to_string())?;
        let mut backoff = retry_backoff();
        while run.state.status() == Status::Running && run.state.is_open(flow, step) {
            let after = run.state.last_id().cloned();
            match self.once(self.store.append(subject, event.clone(), after.as_deref())).await {
                Ok(record) => {
                    run.state.fold(record.json())?;
                    self.announce(subject, &record);
                    return Ok(());
                }
                Err(error) if error.code() == Code::Conflict => {
                    if !self.catch_up(subject, run).await? {
                        return Err(error);
                    }
                }
                Err(error) if error.is_retryable() => {
                    self.pause(&mut backoff, &error).await?;
                    self.catch_up(subject, run).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Subscribes to the permanent failures of queues. Each subscription ends when [`Core::unwatch`] is called.
    pub(super) fn watch(self: &Arc<Self>, queues: impl IntoIterator<Item = String>) {
        let Some(queue) = self.queue.clone() else { return };
        for name in queues {
            let mailbox = Arc::new(Mailbox::new(MAX_FAILURES, Overflow::DropOldest));
            let mut watched = self.watched();
            if watched.contains_key(&name) {
                continue;
            }
            watched.insert(name.clone(), None);
            drop(watched);
            let op = queue.watch_failures(&name, mailbox.clone());
            let (core, queue) = (self.clone(), queue.clone());
            self.runtime.spawn(async move {
                match op.await {
                    Ok(Some(id)) => {
                        let is_watched = core.watched().get_mut(&name).map(|slot| *slot = Some(id)).is_some();
                        if !is_watched {
                            // Stopped meanwhile.
                            queue.unwatch(id);
                        }
                        core.receive_failures(&name, &mailbox).await;
                    }
                    Ok(None) => {}
                    Err(error) => core.report_failure("failures of jobs cannot be observed", &name, &error),
                }
            });
        }
    }

    /// Ends the subscriptions to failures.
    pub(super) fn unwatch(&self) {
        let watched = std::mem::take(&mut *self.watched());
        if let Some(queue) = &self.queue {
            watched.into_values().flatten().for_each(|id| queue.unwatch(id));
        }
    }

    async fn receive_failures(self: &Arc<Self>, queue: &str, mailbox: &Mailbox<QueueEvent>) {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Failure {
            job_id: String,
            name: String,
            #[serde(default)]
            failed_reason: Option<String>,
        }
        while let Some(delivery) = mailbox.recv().await {
            let Delivery::Item(event) = delivery else { continue };
            if let Ok(failure) = serde_json::from_str::<Failure>(&event.payload) {
                self.job_failed(queue, &failure.job_id, &failure.name, failure.failed_reason).await;
            }
        }
    }

    /// Signals the run of a job that has failed permanently.
    pub(super) async fn job_failed(self: &Arc<Self>, queue: &str, job_id: &str, name: &str, reason: Option<String>) {
        let Some(jobs) = &self.queue else { return };
        let job = match self.once(jobs.job(queue, job_id)).await {
            Ok(job) => job,
            Err(error) => return self.report_failure("a failed job could not be read", job_id, &error),
        };
        let (run, reason) = match job {
            // It will be attempted again.
            Some(FlowJob { end: None | Some(JobEnd::Completed), .. }) => return,
            Some(job) => {
                let reason = match &job.end {
                    Some(JobEnd::Failed(stored)) => stored.clone().or(reason),
                    _ => reason,
                };
                (job.run(), reason)
            }
            // It was removed when it failed: its id has the run.
            None => {
                let run = job_id.rfind(&format!("__{name}")).map(|end| job_id[..end].to_owned());
                (run.map(|run| (run, None)), reason)
            }
        };
        let Some((run_id, flow)) = run else { return };
        let is_step = |flow: &FlowDefinition| flow.step(name).is_some_and(|step| step.queue == queue);
        let flows = self.flows();
        let flow = flow.or_else(|| flows.values().find(|flow| is_step(flow)).map(|flow| flow.id.clone()));
        if flow.as_ref().is_some_and(|flow| flows.contains_key(flow))
            && let Some(subject) = self.subjects.run(&run_id, flow.as_deref())
        {
            let failed = FailedJob { id: job_id.to_owned(), step: name.to_owned(), reason, unlogged: None };
            self.signal(&subject, run_id.into(), Signal::JobFailed(failed));
        }
    }

    fn watched(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Option<u64>>> {
        crate::sync::lock(&self.watched)
    }
}

/// Ends the id of a job that runs a step once more.
pub(super) const RECOVERED: &str = "__recovered";

fn recovered_id(id: &str) -> String {
    format!("{id}{RECOVERED}")
}

/// Returns the data of a `step.failed` that no retry follows.
fn failure(reason: Option<String>) -> Value {
    json!({ "error": reason.unwrap_or_else(|| "the job failed".into()), "willRetry": false })
}
