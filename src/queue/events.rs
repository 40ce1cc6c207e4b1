//! Events of queues, and who is subscribed to them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::fanout::{Mailbox, next_id};
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

    /// Returns the name that JavaScript uses.
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

    /// Parses the name of a kind; `path` is the argument's in the error.
    pub fn parse(path: &str, name: &str) -> crate::Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            crate::Error::invalid(format!("{path}: {name:?} is no event of a queue (known: {known})"))
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

struct Listener {
    id: u64,
    owner: u64,
    mailbox: Arc<Mailbox<QueueEvent>>,
}

/// Mailboxes by queue and kind of event.
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
        self.remove_where(|listener| listener.id == id, Mailbox::close);
    }

    /// Removes an owner's listeners. Events that are in their mailboxes can still be taken.
    pub(super) fn remove_owner(&mut self, owner: u64) {
        self.remove_where(|listener| listener.owner == owner, Mailbox::close_gracefully);
    }

    fn remove_where(&mut self, is_removed: impl Fn(&Listener) -> bool, end: impl Fn(&Mailbox<QueueEvent>)) {
        self.0.retain(|_, listeners| {
            for listener in listeners.extract_if(.., |listener| is_removed(listener)) {
                end(&listener.mailbox);
            }
            !listeners.is_empty()
        });
    }

    pub(super) fn of(&self, queue: &Arc<str>, kind: EventKind) -> Vec<Arc<Mailbox<QueueEvent>>> {
        let listeners = self.0.get(&(queue.clone(), kind));
        listeners.into_iter().flatten().map(|listener| listener.mailbox.clone()).collect()
    }
}
