//! Which process runs a step, where several work on one store and each has a queue of its own.
//!
//! A process *holds* its queue: while it runs it renews a lease in the store. Before it enqueues a step it claims it, and
//! only the first one to claim a step enqueues it. When a lease has ended, because its process was killed, any other
//! process takes over what the holder had claimed and not ended; [`LEASE`] and [`RENEW_INTERVAL`] bound how late. A queue on
//! disk keeps its identity: its process goes on with its jobs when it is back, without those that were taken over.
//!
//! Stores that only one process can open have no claims, and a queue that processes share needs none.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::backoff::RetryBackoff;
use crate::error::{Code, Error, Result};
use crate::op::Op;
use crate::store::Claim;
use crate::wiring::flow::definition::{FlowDefinition, Step};
use crate::wiring::flow::reconcile::RECOVERED;
use crate::wiring::flow::shared::{Core, Holder, RETRY_DELAY, Run, count, retry_backoff};
use crate::wiring::flow::{FlowJob, queues};

/// How long a process is taken for alive after it has renewed its lease.
pub const LEASE: Duration = Duration::from_secs(10);
/// Time between two renewals.
pub const RENEW_INTERVAL: Duration = Duration::from_secs(3);
/// How long a start waits for the store before steps are claimed in the background.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stop waits for the end of the lease.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
/// Claims made at a time.
const CLAIMS_AT_A_TIME: usize = 256;

impl Core {
    /// Returns whether steps may have to be claimed.
    pub(super) fn may_claim(&self) -> bool {
        self.queue.is_some() && self.store.claims().is_some()
    }

    /// Holds the queue until the task is aborted, and recovers the runs of every flow. `ready` is sent when no job is left
    /// in the queue that another process has taken over.
    pub(super) async fn hold(self: Arc<Self>, ready: oneshot::Sender<()>) {
        let mut ready = Some(ready);
        let mut backoff = RetryBackoff::new(RETRY_DELAY, RENEW_INTERVAL);
        let mut renewed = None;
        loop {
            match self.renew(&mut renewed).await {
                Ok(holder) => {
                    if let Some(ready) = ready.take() {
                        // The caller may have timed out.
                        _ = ready.send(());
                    }
                    if holder == Holder::Shared {
                        return;
                    }
                    backoff.reset();
                    sleep(RENEW_INTERVAL).await;
                }
                Err(error) if error.code() == Code::Closed => return,
                Err(error) => {
                    tracing::debug!(code = %error.code(), "the claims of flow wiring could not be renewed: {error}");
                    sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    /// Renews the lease, and recovers the runs of holders whose leases have ended.
    async fn renew(self: &Arc<Self>, renewed: &mut Option<Instant>) -> Result<Holder> {
        let (Some(queue), Some(claims)) = (&self.queue, self.store.claims()) else { return Ok(Holder::Shared) };
        let Some(name) = queue.identity().await? else {
            self.holder.send_replace(Holder::Shared);
            self.recover(self.flows().keys().cloned().collect(), Vec::new());
            return Ok(Holder::Shared);
        };
        let began = Instant::now();
        let gone = claims.renew(&name, LEASE).await?;
        let is_first = renewed.is_none();
        if renewed.is_none_or(|last| began - last > LEASE) {
            self.remove_foreign(&name).await?;
        }
        *renewed = Some(began);
        self.holder.send_if_modified(|holder| {
            let own = Holder::Own(name.clone());
            std::mem::replace(holder, own.clone()) != own
        });
        // Holders whose runs are being recovered are forgotten after that; others are in the next answer again.
        if is_first || !gone.is_empty() && *self.recovering.borrow() == 0 {
            tracing::debug!("flow wiring takes over the runs of {} queues whose processes have ended", gone.len());
            self.recover(self.flows().keys().cloned().collect(), gone);
        }
        Ok(Holder::Own(name))
    }

    /// Removes jobs of steps that another process has taken over, and claims the others.
    async fn remove_foreign(&self, holder: &str) -> Result<()> {
        let (Some(queue), Some(claims)) = (&self.queue, self.store.claims()) else { return Ok(()) };
        for name in queues(&self.flows()) {
            let jobs = queue.pending_jobs(&name).await?;
            for jobs in jobs.chunks(CLAIMS_AT_A_TIME) {
                let claimed = jobs.iter().filter_map(|job| {
                    let subject = self.subject_of(job)?;
                    let id = job.id.strip_suffix(RECOVERED).unwrap_or(&job.id);
                    let claim = claims.claim(&subject, id, holder, true);
                    Some(async move { (job, claim.await) })
                });
                for (job, claim) in join_all(claimed).await {
                    if claim? == Claim::Other {
                        queue.remove(&name, &job.id).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the subject of the run whose step a job runs.
    fn subject_of(&self, job: &FlowJob) -> Option<Arc<str>> {
        let (run_id, flow) = job.run()?;
        let flows = self.flows();
        let is_step = |flow: &FlowDefinition| flow.step(&job.name).is_some();
        let flow = flow.or_else(|| flows.values().find(|flow| is_step(flow)).map(|flow| flow.id.clone()))?;
        flows.get(&*flow).filter(|flow| is_step(flow))?;
        self.subjects.run(&run_id, Some(&flow))
    }

    /// Ends the lease if the queue is closed, so that others need not wait for its end. Otherwise its handlers may be at
    /// work.
    pub(super) async fn release(&self) {
        let (Some(queue), Some(claims)) = (&self.queue, self.store.claims()) else { return };
        let Holder::Own(name) = self.holder.borrow().clone() else { return };
        if queue.identity().await.is_err_and(|error| error.code() == Code::Closed) {
            // A lease that is not ended ends by itself.
            _ = tokio::time::timeout(RELEASE_TIMEOUT, claims.release(&name).into_future()).await;
        }
    }

    /// Waits until it is known who holds the queue. None: nothing is claimed.
    async fn holder(&self) -> Result<Option<Arc<str>>> {
        if !self.may_claim() {
            return Ok(None);
        }
        let known = known(self.holder.subscribe());
        self.once(Op::pending(known)).await
    }

    /// Claims a step's job; unless `is_new`, only if it has been claimed before. Where nothing is claimed it is the
    /// process's own.
    pub(super) async fn claim(&self, subject: &str, job_id: &str, is_new: bool) -> Result<Claim> {
        let Some(holder) = self.holder().await? else { return Ok(Claim::Own) };
        let Some(claims) = self.store.claims() else { return Ok(Claim::Own) };
        let (mut backoff, mut repeated) = (retry_backoff(), false);
        loop {
            match self.once(claims.claim(subject, job_id, &holder, is_new)).await {
                // It may have been taken over by the call whose answer was lost.
                Ok(Claim::Own) if repeated => return Ok(Claim::TakenOver),
                Err(error) if error.is_retryable() => {
                    repeated = true;
                    self.pause(&mut backoff, &error).await?;
                }
                result => return result,
            }
        }
    }

    /// Claims the job of a run's entry step for this process. Returns false where another process has it.
    pub(super) fn claim_entry(self: &Arc<Self>, flow: &FlowDefinition, run_id: &str) -> Op<bool> {
        let (Some(entry), Some(claims)) = (&flow.entry, self.store.claims()) else { return Op::ok(true) };
        let Some(subject) = self.subjects.run(run_id, Some(&flow.id)).filter(|_| self.may_claim()) else {
            return Op::ok(true);
        };
        let id = format!("{run_id}__{entry}");
        let holder = self.holder.borrow().clone();
        match holder {
            Holder::Shared => Op::ok(true),
            Holder::Own(holder) => claims.claim(&subject, &id, &holder, true).map(|claim| claim != Claim::Other),
            Holder::Unknown => {
                let core = self.clone();
                Op::pending(async move { Ok(core.claim(&subject, &id, true).await? != Claim::Other) })
            }
        }
    }

    /// Enqueues an open step that has no job here, if the process that had claimed it has ended.
    pub(super) async fn adopt(
        &self,
        subject: &str,
        run: &mut Run,
        flow: &FlowDefinition,
        step: &Step,
        job_id: &str,
    ) -> Result<()> {
        if self.holder().await?.is_none() {
            return Ok(());
        }
        let is_lost = match self.claim(subject, job_id, false).await? {
            Claim::TakenOver => true,
            // Taken over before, in a process that ended before it had enqueued it.
            Claim::Own => run.state.is_active(step),
            Claim::Other => false,
        };
        if !is_lost {
            return Ok(());
        }
        // Read after the claim and after the job: it may have ended meanwhile.
        self.catch_up(subject, run).await?;
        if run.state.is_open(flow, step)
            && let Some(trigger) = run.state.trigger_again(&run.id, flow, step)
        {
            count(&self.counters.recovered);
            self.enqueue(run, trigger).await?;
        }
        Ok(())
    }
}

/// Resolves when it is known who holds a queue.
async fn known(mut holder: tokio::sync::watch::Receiver<Holder>) -> Result<Option<Arc<str>>> {
    let holder =
        holder.wait_for(|holder| *holder != Holder::Unknown).await.map_err(|_| Error::closed("flow wiring"))?;
    Ok(match &*holder {
        Holder::Own(name) => Some(name.clone()),
        Holder::Shared | Holder::Unknown => None,
    })
}

/// Resolves when a holder is ready, or the store has not answered in time.
pub(super) fn ready(holding: oneshot::Receiver<()>) -> Op<()> {
    Op::pending(async move {
        _ = tokio::time::timeout(START_TIMEOUT, holding).await;
        Ok(())
    })
}
