//! One subscriber: its live messages, its position in retained topics, and how the two are joined.
//!
//! On a topic that is not retained a message is delivered when it arrives, and an outage is reported as a gap when the
//! subscription is live again. On retained topics the position in each topic is known: while the subscriber is behind (at
//! the beginning, and after an outage), live messages are buffered, missed ones are read, and then the buffered messages
//! that are newer follow.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::error::Result;
use crate::event::EventId;
use crate::fanout::{Gap, GapReason, Mailbox, Overflow};
use crate::redis::pubsub::Channel;
use crate::stream::{Incoming, Message, SubscribeSpec, TypeFilter};
use crate::sync::lock;
use crate::topic::Glob;

/// Live messages that are buffered while a subscriber catches up. Further ones are read from the retained topic.
const MAX_BUFFERED: usize = 10_000;
/// The gap that an outage leaves.
pub(super) const OUTAGE: Gap = Gap { reason: GapReason::Reconnect, missed: None };

struct Buffered {
    message: Message,
    id: Option<EventId>,
    own: bool,
}

/// What a subscription is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Retained: its start position has been requested. `subscribed` says that the server has confirmed the channel.
    Starting { subscribed: bool },
    /// The server sends no messages of its channel. `missed` says that some may have been published meanwhile.
    Offline { missed: bool },
    /// Retained: missed messages are being read. `subscribed` is false if the connection broke meanwhile; `restart` says
    /// that more has to be read, because the subscription was interrupted or the buffer overflowed.
    CatchingUp { subscribed: bool, restart: bool },
    /// Messages are delivered when they arrive.
    Live,
}

/// What has to be done when the messages of a subscriber arrive again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resumption {
    /// Nothing.
    Complete,
    /// An outage was reported as a gap, which has to be counted.
    WithGap,
    /// What it missed has to be read.
    Behind,
}

struct Progress {
    phase: Phase,
    /// Retained: the last delivered message of each topic. None: not known yet, it starts where the topics end.
    positions: Option<HashMap<Arc<str>, EventId>>,
    /// Retained: live messages that arrived while it was not live.
    buffer: Vec<Buffered>,
}

pub(super) struct Subscriber {
    pub(super) id: u64,
    pub(super) topic: Arc<str>,
    pub(super) channel: Channel,
    pub(super) mailbox: Arc<Mailbox<Incoming>>,
    pub(super) overflow: Overflow,
    pub(super) ignore_own: bool,
    glob: Glob,
    filter: Option<TypeFilter>,
    is_retained: bool,
    progress: Mutex<Progress>,
    closed: AtomicBool,
}

impl Subscriber {
    pub(super) fn new(id: u64, topic: &str, spec: &SubscribeSpec, is_retained: bool) -> Self {
        let phase = if is_retained { Phase::Starting { subscribed: false } } else { Phase::Offline { missed: false } };
        let positions = spec.from_beginning.then(HashMap::new);
        Self {
            id,
            topic: topic.into(),
            channel: channel(topic),
            mailbox: Arc::new(Mailbox::new(spec.buffer, spec.overflow)),
            overflow: spec.overflow,
            ignore_own: spec.ignore_own,
            glob: Glob::new(topic),
            filter: spec.filter.clone(),
            is_retained,
            progress: Mutex::new(Progress { phase, positions, buffer: Vec::new() }),
            closed: AtomicBool::new(false),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        lock(&self.progress)
    }

    pub(super) fn matches(&self, topic: &str) -> bool {
        self.glob.matches(topic)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Returns whether it has to know where its topics end before it starts.
    pub(super) fn needs_start(&self) -> bool {
        self.is_retained && self.progress().positions.is_none()
    }

    /// Sets where its topics end, unless its start is known.
    pub(super) fn start_at(&self, tail_ids: Vec<(String, String)>) -> Result<()> {
        let mut positions = HashMap::new();
        for (topic, id) in tail_ids {
            if self.matches(&topic) {
                positions.insert(topic.into(), id.parse()?);
            }
        }
        self.progress().positions.get_or_insert(positions);
        Ok(())
    }

    /// Receives a live message.
    pub(super) fn on_message(&self, message: &Message, id: Option<EventId>, own: bool) {
        let mut progress = self.progress();
        if !self.is_retained || progress.phase == Phase::Live {
            return self.deliver(&mut progress, message, id, own);
        }
        if progress.buffer.len() < MAX_BUFFERED {
            progress.buffer.push(Buffered { message: message.clone(), id, own });
            return;
        }
        // Messages with an id are read again; the others are lost.
        progress.buffer.clear();
        if let Phase::CatchingUp { restart, .. } = &mut progress.phase {
            *restart = true;
        }
        self.mailbox.note_gap(Gap { reason: GapReason::Overflow, missed: None });
    }

    /// Delivers a message that is new and passes the filters. The caller holds the lock, so that order and position agree.
    fn deliver(&self, progress: &mut Progress, message: &Message, id: Option<EventId>, own: bool) {
        if let (true, Some(id)) = (self.is_retained, id) {
            let last = progress.positions.get_or_insert_default().entry(message.topic().clone()).or_default();
            if *last >= id {
                return;
            }
            *last = id;
        }
        if (own && self.ignore_own) || self.filter.as_ref().is_some_and(|filter| !filter.matches(message.kind())) {
            return;
        }
        _ = self.mailbox.push(message.clone().into());
    }

    /// Delivers an entry of a retained topic.
    pub(super) fn deliver_retained(&self, topic: &str, id: EventId, message: Option<&Message>, own: bool) {
        let mut progress = self.progress();
        match message {
            Some(message) => self.deliver(&mut progress, message, Some(id), own),
            None => _ = progress.positions.get_or_insert_default().insert(topic.into(), id),
        }
    }

    /// Returns the id of the last delivered message of a retained topic.
    pub(super) fn position(&self, topic: &str) -> Option<EventId> {
        self.progress().positions.as_ref().and_then(|positions| positions.get(topic).copied())
    }

    /// Notes that the subscription was accepted although the server could not be reached yet.
    pub(super) fn accepted_offline(&self) {
        if let Phase::Offline { missed } = &mut self.progress().phase {
            *missed = true;
        }
    }

    /// Notes that the start position is known, or cannot be determined now.
    pub(super) fn on_started(&self) -> Resumption {
        let mut progress = self.progress();
        let Phase::Starting { subscribed } = progress.phase else { return Resumption::Complete };
        progress.phase = Phase::Offline { missed: false };
        drop(progress);
        if subscribed { self.on_subscribed() } else { Resumption::Complete }
    }

    /// Notes that messages arrive from now on.
    pub(super) fn on_subscribed(&self) -> Resumption {
        let mut progress = self.progress();
        match &mut progress.phase {
            Phase::Live | Phase::CatchingUp { subscribed: true, .. } => {}
            Phase::Starting { subscribed } => *subscribed = true,
            Phase::CatchingUp { subscribed, restart } => (*subscribed, *restart) = (true, true),
            Phase::Offline { .. } if self.is_retained => {
                progress.phase = Phase::CatchingUp { subscribed: true, restart: false };
                return Resumption::Behind;
            }
            Phase::Offline { missed } => {
                let missed = *missed;
                progress.phase = Phase::Live;
                if missed {
                    // Before any message that arrives from now on.
                    self.mailbox.note_gap(OUTAGE);
                    return Resumption::WithGap;
                }
            }
        }
        Resumption::Complete
    }

    /// Notes that no messages arrive from now on.
    pub(super) fn on_disconnected(&self) {
        let phase = &mut self.progress().phase;
        match phase {
            Phase::Starting { subscribed } | Phase::CatchingUp { subscribed, .. } => *subscribed = false,
            Phase::Offline { .. } | Phase::Live => *phase = Phase::Offline { missed: true },
        }
    }

    /// Begins a pass over the retained topics.
    pub(super) fn begin_pass(&self) {
        if let Phase::CatchingUp { restart, .. } = &mut self.progress().phase {
            *restart = false;
        }
    }

    /// Ends a pass over the retained topics, which has read everything. Returns whether the subscriber has caught up; if not, another
    /// pass is needed.
    pub(super) fn end_pass(&self) -> bool {
        let mut progress = self.progress();
        match progress.phase {
            Phase::CatchingUp { restart: true, .. } => false,
            Phase::CatchingUp { subscribed: true, .. } => {
                progress.phase = Phase::Live;
                for Buffered { message, id, own } in std::mem::take(&mut progress.buffer) {
                    self.deliver(&mut progress, &message, id, own);
                }
                true
            }
            // Interrupted again: the next connection continues from here.
            _ => {
                progress.phase = Phase::Offline { missed: true };
                true
            }
        }
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.mailbox.close();
    }
}

/// Returns the channel of a topic or pattern.
fn channel(topic: &str) -> Channel {
    if crate::topic::is_pattern(topic) { Channel::Pattern(topic.into()) } else { Channel::Exact(topic.into()) }
}
