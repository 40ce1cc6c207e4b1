//! Deliveries: jobs on their way from the engine to a worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

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
pub(super) struct ClaimCell(AtomicU8);

impl Default for ClaimCell {
    fn default() -> Self {
        Self(AtomicU8::new(Claim::Open as u8))
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

    fn set(&self, claim: Claim) -> bool {
        self.0.compare_exchange(Claim::Open as u8, claim as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
