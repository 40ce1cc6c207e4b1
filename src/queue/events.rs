//! What leaves the engine: jobs for workers, events for listeners.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::fanout::{Mailbox, Overflow, next_id};
use crate::json::Json;

/// What happens to jobs and queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A job can run.
    Waiting,
    /// A job is with a worker.
    Active,
    /// A handler reported progress.
    Progress,
    /// A job ended well.
    Completed,
    /// A job ended without success, after its last attempt.
    Failed,
    /// A job can run later.
    Delayed,
    /// A queue was paused.
    Paused,
    /// A job's worker went away while it ran.
    Stalled,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Waiting,
        Self::Active,
        Self::Progress,
        Self::Completed,
        Self::Failed,
        Self::Delayed,
        Self::Paused,
        Self::Stalled,
    ];

    /// As JavaScript writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Active => "active",
            Self::Progress => "progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Paused => "paused",
            Self::Stalled => "stalled",
        }
    }

    /// The kind of this name.
    pub fn parse(what: &str, name: &str) -> crate::Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            crate::Error::invalid(format!("{what}: {name:?} is no event of a queue (known: {known})"))
        })
    }
}

/// An event of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueEvent {
    /// The queue.
    pub queue: Arc<str>,
    /// What happened.
    pub kind: EventKind,
    /// `{ jobId, name, attemptsMade, … }` with `returnvalue`, `failedReason`, `progress` or `delay`; `{ queue }` where
    /// a queue was paused.
    pub payload: Json,
}

/// A job for a worker to run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Names this attempt in [`super::Queue::complete`], [`super::Queue::fail`] and [`super::Queue::progress`].
    pub token: u64,
    /// What [`super::Queue::register_worker`] returned.
    pub worker: u64,
    /// The queue.
    pub queue: Arc<str>,
    /// The job: `{ id, name, data, opts, state, attemptsMade, timestamp, processedOn, … }`.
    pub job: Json,
    pub(super) ticket: Arc<Ticket>,
}

/// Where jobs for workers wait to be taken. It has no bound of its own: the concurrency of the queues is one.
pub fn worker_mailbox() -> Arc<Mailbox<Run>> {
    Arc::new(Mailbox::new(usize::MAX, Overflow::DropNewest))
}

/// Decides between a worker that begins a job and an engine that takes it back.
#[derive(Debug, Default)]
pub(super) struct Ticket(AtomicU8);

const OPEN: u8 = 0;
const BEGUN: u8 = 1;
const RECALLED: u8 = 2;

impl Ticket {
    /// Whether the job may begin. Once: a second claim is refused.
    pub(super) fn claim(&self) -> bool {
        self.0.compare_exchange(OPEN, BEGUN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether the job has not begun, and will not.
    pub(super) fn recall(&self) -> bool {
        self.0.compare_exchange(OPEN, RECALLED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

struct Listener {
    id: u64,
    owner: u64,
    mailbox: Arc<Mailbox<QueueEvent>>,
}

/// Who listens to what.
#[derive(Default)]
pub(super) struct Listeners(HashMap<(Arc<str>, EventKind), Vec<Listener>>);

impl Listeners {
    pub(super) fn add(
        &mut self,
        owner: u64,
        queue: &Arc<str>,
        kind: EventKind,
        mailbox: Arc<Mailbox<QueueEvent>>,
    ) -> u64 {
        let id = next_id();
        self.0.entry((queue.clone(), kind)).or_default().push(Listener { id, owner, mailbox });
        id
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.end(|listener| listener.id == id, Mailbox::close);
    }

    /// What an owner's listeners were told before can still be taken.
    pub(super) fn forget(&mut self, owner: u64) {
        self.end(|listener| listener.owner == owner, Mailbox::finish);
    }

    fn end(&mut self, whose: impl Fn(&Listener) -> bool, how: impl Fn(&Mailbox<QueueEvent>)) {
        self.0.retain(|_, listeners| {
            for listener in listeners.extract_if(.., |listener| whose(listener)) {
                how(&listener.mailbox);
            }
            !listeners.is_empty()
        });
    }

    pub(super) fn of(&self, queue: &Arc<str>, kind: EventKind) -> Vec<Arc<Mailbox<QueueEvent>>> {
        let listeners = self.0.get(&(queue.clone(), kind));
        listeners.into_iter().flatten().map(|listener| listener.mailbox.clone()).collect()
    }
}
