//! The effects of a run: its events are appended, its steps enqueued, its end and its index entry written.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::backoff::RetryBackoff;
use crate::error::{Code, Error, Result};
use crate::event::{Event, NewEvent, parseable};
use crate::json::parse_object;
use crate::store::Claim;
use crate::wiring::flow::FlowQueue;
use crate::wiring::flow::definition::FlowDefinition;
use crate::wiring::flow::reducer::{Outcome, Trigger};
use crate::wiring::flow::shared::{Core, RETRY_DELAY, Run, count, retry_backoff};

/// Attempts to enqueue a step in a row. Later ones follow after a delay of up to [`MAX_ENQUEUE_DELAY`], in which other runs
/// are processed.
const ENQUEUE_ATTEMPTS: u32 = 5;
const MAX_ENQUEUE_DELAY: Duration = Duration::from_secs(30);

/// What follows after applying a state.
pub(super) enum Next {
    /// Nothing unless the log has grown.
    Done,
    /// Apply again.
    Again,
    /// The log had grown, so the terminal event was not appended.
    Conflict(Error),
}

impl Core {
    /// Claims the entry step of a run that is started in this process, whose caller enqueues it.
    pub(super) async fn claim_start(&self, run: &Run, event: &NewEvent) -> Result<()> {
        let flow = event.flow_name().and_then(|name| self.flows().get(name).cloned());
        if let Some(flow) = flow
            && let Some(entry) = &flow.entry
            && let Some(subject) = self.subjects.run(&run.id, Some(&flow.id))
        {
            self.claim(&subject, &run.state.job_id(&run.id, entry), true).await?;
        }
        Ok(())
    }

    /// Appends an ingress event exactly once. `known` are the ids of events appended since the run was folded.
    pub(super) async fn persist(&self, subject: &str, run: &Run, event: &NewEvent, known: &[String]) -> Result<Event> {
        let mut backoff = retry_backoff();
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
                    self.pause(&mut backoff, &error).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the record of an event whose append was not confirmed, if it is in the log.
    async fn find(&self, subject: &str, run: &Run, event: &NewEvent, known: &[String]) -> Result<Option<Event>> {
        let after = run.state.last_id().cloned();
        let records = self.attempt(|| self.store.read(subject, after.as_deref())).await?;
        let expected = parse_object("event", &parseable(event.json()))?;
        let is_match = |text: &str| {
            let mut found = parse_object("event", &parseable(text)).unwrap_or_default();
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

    /// Enqueues a step, if this process claims it. Returns whether the log has grown, so that the state must be applied again.
    pub(super) async fn trigger(
        &self,
        subject: &str,
        run: &mut Run,
        flow: &FlowDefinition,
        trigger: Trigger,
    ) -> Result<bool> {
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
        let mut backoff = retry_backoff();
        for attempt in 1.. {
            match self.once(enqueue()).await {
                Ok(_) => {
                    count(&self.counters.triggered);
                    run.enqueued.insert(trigger.job_id);
                    run.retry = None;
                    break;
                }
                Err(error) if *self.aborted.borrow() => return Err(error),
                Err(error) if error.is_retryable() && attempt < ENQUEUE_ATTEMPTS => {
                    self.pause(&mut backoff, &error).await?
                }
                Err(error) => {
                    tracing::warn!(
                        code = "NVENT_ENQUEUE",
                        "step {:?} of run {:?} could not be enqueued: {error}",
                        trigger.step,
                        run.id
                    );
                    self.report_failure("a step could not be enqueued", &run.id, &error);
                    if error.is_retryable() {
                        let first = || RetryBackoff::new(RETRY_DELAY * 20, MAX_ENQUEUE_DELAY);
                        let mut backoff = run.retry.take().map_or_else(first, |(_, backoff)| backoff);
                        run.retry = Some((Instant::now() + backoff.next_delay(), backoff));
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

    /// Appends the terminal event on the condition that the log still ends where it was read.
    pub(super) async fn end(
        &self,
        subject: &str,
        run: &mut Run,
        flow: &str,
        outcome: &Outcome,
        backoff: &mut RetryBackoff,
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
                self.pause(backoff, &error).await?;
                Ok(Next::Again)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn index(&self, run: &mut Run, name: &str, flow: Option<&FlowDefinition>) -> Result<()> {
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
