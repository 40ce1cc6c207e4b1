//! Deliveries: jobs on their way from the engine to a worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tokio::sync::Notify;

use crate::fanout::{Mailbox, Overflow};
use crate::json::Json;

/// One attempt of a job, for a worker to run.
#[derive(Debug, Clone)]
pub struct JobDelivery {
    /// Names the attempt in [`super::Queue::complete`], [`super::Queue::fail`] and [`super::Queue::progress`].
    pub token: u64,
    /// What [`super::Queue::register_worker`] returned.
    pub worker: u64,
    /// The queue.
    pub queue: Arc<str>,
    /// The job: `{ id, name, data, opts, state, attemptsMade, timestamp, processedOn, … }`.
    pub job: Json,
    pub(super) claim: Arc<ClaimCell>,
}

impl JobDelivery {
    /// Resolves when the attempt is to be given up: it timed out, its job was removed, or the queue closes.
    pub async fn cancelled(&self) {
        let notified = self.claim.cancelled.notified();
        if !self.claim.is_cancelled.load(Ordering::Acquire) {
            notified.await;
        }
    }
}

/// Why an attempt is to be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReason {
    /// It took longer than its timeout.
    TimedOut,
    /// Its job was removed.
    Removed,
    /// The queue has closed.
    Closed,
    /// It ignored its timeout for so long that its place was given to another.
    Abandoned,
}

impl CancelReason {
    /// Returns the name that JavaScript uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TimedOut => "timed-out",
            Self::Removed => "removed",
            Self::Closed => "closed",
            Self::Abandoned => "abandoned",
        }
    }
}

/// A request to the worker of an attempt to give it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cancellation {
    /// The attempt.
    pub token: u64,
    /// Why.
    pub reason: CancelReason,
}

/// Creates the mailbox of a worker. It has no bound of its own: the concurrency of the queues is one.
pub fn worker_mailbox() -> Arc<Mailbox<JobDelivery>> {
    Arc::new(Mailbox::new(usize::MAX, Overflow::DropNewest))
}

/// Who has a delivered job.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
enum Claim {
    /// In the worker's mailbox.
    Open,
    /// The worker called the handler.
    Started,
    /// The engine took the job back.
    Revoked,
}

/// Decides once between a worker that starts a job and an engine that takes it back.
#[derive(Debug)]
pub(super) struct ClaimCell {
    claim: AtomicU8,
    is_cancelled: AtomicBool,
    cancelled: Notify,
}

impl Default for ClaimCell {
    fn default() -> Self {
        let claim = AtomicU8::new(Claim::Open as u8);
        Self { claim, is_cancelled: AtomicBool::new(false), cancelled: Notify::new() }
    }
}

impl ClaimCell {
    /// Claims the job for the worker. Returns false where it was revoked, or started before.
    pub(super) fn start(&self) -> bool {
        self.set(Claim::Started)
    }

    /// Claims the job for the engine. Returns false where its handler was called.
    pub(super) fn revoke(&self) -> bool {
        self.set(Claim::Revoked)
    }

    pub(super) fn is_open(&self) -> bool {
        self.claim.load(Ordering::Acquire) == Claim::Open as u8
    }

    pub(super) fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Release);
        self.cancelled.notify_waiters();
    }

    fn set(&self, claim: Claim) -> bool {
        self.claim.compare_exchange(Claim::Open as u8, claim as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_job_is_claimed_once_and_a_cancellation_wakes_who_waits_for_it() {
        let claim = ClaimCell::default();
        assert!(claim.is_open() && claim.start() && !claim.is_open());
        assert!(!claim.start() && !claim.revoke(), "its handler was called");
        let revoked = ClaimCell::default();
        assert!(revoked.revoke() && !revoked.start());
        let mut waiting = Box::pin(claim.cancelled.notified());
        assert!((&mut waiting).now_or_never().is_none() && !claim.is_cancelled.load(Ordering::Acquire));
        claim.cancel();
        assert!(claim.is_cancelled.load(Ordering::Acquire) && waiting.now_or_never().is_some());
    }
}
