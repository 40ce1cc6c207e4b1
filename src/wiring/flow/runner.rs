//! One task for each active run: it persists what was received, folds the log and applies the state.

use std::sync::Arc;

use tokio::time::Instant;

use crate::backoff::RetryBackoff;
use crate::error::Result;
use crate::event::{Event, EventId, NewEvent};
use crate::wiring::flow::effects::Next;
use crate::wiring::flow::reducer::{Outcome, RunState, Status};
use crate::wiring::flow::runs::Work;
use crate::wiring::flow::shared::{Core, Run, count, retry_backoff};
use crate::wiring::flow::{Admission, Signal};

impl Core {
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

    /// Applies the state and reads the log until nothing is new. So the last process to write an index entry has read
    /// everything that the others wrote before.
    async fn advance(&self, subject: &str, run: &mut Run) -> Result<()> {
        let mut backoff = retry_backoff();
        let mut next = Next::Again;
        loop {
            match (self.catch_up(subject, run).await?, next) {
                (false, Next::Done) => return Ok(()),
                // The log does not end as expected although nothing is new: it is not the log that was folded.
                (false, Next::Conflict(error)) => return Err(error),
                (true, _) | (false, Next::Again) => next = self.apply(subject, run, &mut backoff).await?,
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
    async fn apply(&self, subject: &str, run: &mut Run, backoff: &mut RetryBackoff) -> Result<Next> {
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
                let next = self.end(subject, run, &name, &outcome, backoff).await?;
                if !matches!(next, Next::Done) {
                    return Ok(next);
                }
            }
        }
        self.index(run, &name, flow.as_deref()).await?;
        Ok(Next::Done)
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
}
