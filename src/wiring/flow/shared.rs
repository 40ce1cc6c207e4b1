//! What all runs of a flow wiring share, and what is kept of each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::backoff::RetryBackoff;
use crate::error::{Error, Result};
use crate::event::NewEvent;
use crate::json::Object;
use crate::op::{Completion, Op};
use crate::store::Announce;
use crate::sync::read;
use crate::wiring::flow::definition::Flows;
use crate::wiring::flow::reducer::{Outcome, RunState};
use crate::wiring::flow::{FlowQueue, FlowStats, FlowStore, Runs, Subjects};

/// The delay before the second attempt.
pub(super) const RETRY_DELAY: Duration = Duration::from_millis(50);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(5);

/// Returns the delays between attempts of an effect.
pub(super) fn retry_backoff() -> RetryBackoff {
    RetryBackoff::new(RETRY_DELAY, MAX_RETRY_DELAY)
}

/// What every run of a flow wiring shares.
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

/// What is known of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holder {
    /// Nothing yet: steps wait.
    Unknown,
    /// Every process uses the same queue, or the same process every queue: nothing is claimed.
    Shared,
    /// The identity of the queue.
    Own(Arc<str>),
}

/// Counters of a flow wiring.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) persisted: AtomicU64,
    pub(super) triggered: AtomicU64,
    pub(super) completed: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) errors: AtomicU64,
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
    pub(super) enqueued: BTreeSet<String>,
    /// The metadata last written to the index.
    pub(super) indexed: Option<Object>,
    /// An outcome that may still change, and when it is final.
    pub(super) pending_outcome: Option<(Outcome, Instant)>,
    /// When an enqueue that failed is repeated, and the delays after that.
    pub(super) retry: Option<(Instant, RetryBackoff)>,
    /// Whether the state was idle before this work: its log may have been deleted meanwhile.
    pub(super) is_cached: bool,
    /// Whether the log was deleted after it had been folded.
    pub(super) deleted: bool,
    /// Whether the log was started again after it had been deleted, so that jobs of the earlier run may be left.
    pub(super) restarted: bool,
    /// Whether the terminal event may have been appended without a confirmation.
    pub(super) terminal_unconfirmed: bool,
}

impl Run {
    pub(super) fn new(id: Arc<str>) -> Self {
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

    /// Returns when the run must be applied although nothing new happens.
    pub(super) fn due(&self) -> Option<Instant> {
        let outcome = self.pending_outcome.as_ref().map(|(_, due)| *due);
        let retry = self.retry.as_ref().map(|(due, _)| *due);
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

    pub(super) fn drop_event(&self, event: &NewEvent, why: &str) {
        count(&self.counters.lost);
        let (kind, run) = (event.kind(), event.run_id().unwrap_or_default());
        tracing::error!(code = "NVENT_EVENT_LOST", kind, run, "an event was not persisted: {why}");
    }

    pub(super) fn report_failure(&self, what: &str, run: &str, error: &Error) {
        count(&self.counters.errors);
        tracing::error!(run, code = %error.code(), "{what}: {error}");
    }

    pub(super) async fn abort(&self) {
        _ = self.aborted.subscribe().wait_for(|aborted| *aborted).await;
    }

    /// Repeats idempotent work until it succeeds or fails permanently.
    pub(super) async fn attempt<T: Send + 'static>(&self, mut work: impl FnMut() -> Op<T>) -> Result<T> {
        let mut backoff = retry_backoff();
        loop {
            match self.once(work()).await {
                Err(error) if error.is_retryable() => self.pause(&mut backoff, &error).await?,
                result => return result,
            }
        }
    }

    /// Returns the result of an operation, or [`crate::error::Code::Closed`] when pending work is cancelled.
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

    /// Waits before work that failed is repeated. The first failure of a series is reported.
    pub(super) async fn pause(&self, backoff: &mut RetryBackoff, error: &Error) -> Result<()> {
        count(&self.counters.retries);
        if backoff.is_first() {
            tracing::warn!(code = %error.code(), "flow wiring tries again: {error}");
        }
        self.sleep(backoff.next_delay()).await
    }

    /// Waits, or returns [`crate::error::Code::Closed`] when pending work is cancelled.
    pub(super) async fn sleep(&self, time: Duration) -> Result<()> {
        self.once(Op::pending(async move {
            tokio::time::sleep(time).await;
            Ok(())
        }))
        .await
    }
}
