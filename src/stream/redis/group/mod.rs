//! One consumer group on one adapter: what its handlers have claimed, and what happens when they end.
//!
//! The [`member`] task reads from Redis over a connection of its own, as reads block, and only what the group's mailbox has
//! room for. Handled messages are acknowledged; failed ones are delivered again, to any member, until they are parked.
//! Claims are renewed while a handler runs, so that it keeps its message, and taken over from members that are gone.
//!
//! Leaving has two steps: queued messages are released to other members at once, and handlers that run get
//! [`GroupOptions::drain_timeout`] to end, and are acknowledged.

mod member;

pub(super) use member::run;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use ::redis::{Cmd, Value, cmd};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::config::GroupOptions;
use super::shared::Shared;
use crate::error::{Error, Result};
use crate::event::EventId;
use crate::fanout::{Gap, GapReason, Mailbox};
use crate::latch::Latch;
use crate::redis::{Request, reply};
use crate::stream::{Ack, Incoming, SubscribeSpec, TypeFilter};
use crate::sync::lock;
use crate::topic::{Glob, is_pattern};

/// A message in a topic.
type EntryRef = (Arc<str>, EventId);

/// The state of a message that this member has claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// In the mailbox, or its handler is running.
    Delivered,
    /// To be delivered again.
    RetryAt(Instant),
    /// Handled; the acknowledgement has not been sent.
    Handled,
}

#[derive(Default)]
struct State {
    /// The last ids of the topics when the group was joined; None until they are known.
    starts: Option<HashMap<String, String>>,
    claims: HashMap<EntryRef, Claim>,
    failures: HashMap<EntryRef, u32>,
    /// Set when the group is left: until when handlers may run.
    drain_until: Option<Instant>,
}

/// The members of one group on this adapter.
pub(super) struct Group {
    pub(super) topic: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) mailbox: Arc<Mailbox<Incoming>>,
    glob: Glob,
    member: String,
    filter: Option<TypeFilter>,
    from_beginning: bool,
    shared: Arc<Shared>,
    state: Mutex<State>,
    changed: Notify,
    /// Queued messages have been released.
    released: Latch,
    /// The member has left.
    left: Latch,
}

impl Group {
    pub(super) fn new(topic: &str, name: Arc<str>, spec: &SubscribeSpec, shared: Arc<Shared>) -> Self {
        Self {
            topic: topic.into(),
            name,
            mailbox: Arc::new(Mailbox::new(spec.buffer, spec.overflow)),
            glob: Glob::new(topic),
            member: shared.origin.clone(),
            filter: spec.filter.clone(),
            from_beginning: spec.from_beginning,
            shared,
            state: Mutex::default(),
            changed: Notify::new(),
            released: Latch::default(),
            left: Latch::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Sets where the group starts in the topics that exist, unless that is known. In later topics it gets every message.
    pub(super) fn start_at(&self, tail_ids: Vec<(String, String)>) {
        self.state().starts.get_or_insert_with(|| tail_ids.into_iter().collect());
    }

    /// Creates the group in every topic that exists.
    pub(super) async fn create(&self) -> Result<()> {
        let topics: Vec<_> = match &self.state().starts {
            None => return Ok(()),
            Some(_) if !is_pattern(&self.topic) => vec![self.topic.to_string()],
            Some(starts) => starts.keys().filter(|topic| self.glob.matches(topic)).cloned().collect(),
        };
        for topic in topics {
            let create = Request::write("subscribe", self.create_command(&topic));
            self.shared.client.call(create, |_| Ok(())).await.or_else(ignore_existing)?;
        }
        Ok(())
    }

    fn create_command(&self, topic: &str) -> Cmd {
        let key = self.shared.keys.retained(topic);
        let start = self.state().starts.as_ref().and_then(|starts| starts.get(topic).cloned());
        let start = start.filter(|_| !self.from_beginning).unwrap_or_else(|| "0".into());
        cmd("XGROUP").arg("CREATE").arg(key).arg(&*self.name).arg(start).arg("MKSTREAM").take()
    }

    /// Leaves the group. Resolves when queued messages have been released; handlers that run are waited for in the
    /// background.
    pub(super) fn leave(&self) -> impl Future<Output = ()> + Send + use<> {
        let released = self.released.waiter();
        self.stop(self.shared.groups.drain_timeout);
        released
    }

    /// Leaves the group. Resolves when its handlers have ended, or [`GroupOptions::drain_timeout`] has passed.
    pub(super) fn leave_and_drain(&self) -> impl Future<Output = ()> + Send + use<> {
        let left = self.left.waiter();
        self.stop(self.shared.groups.drain_timeout);
        left
    }

    /// Stops reading, discards the mailbox, and lets the member's task end when its handlers have, or after `timeout`.
    pub(super) fn stop(&self, timeout: Duration) {
        self.state().drain_until.get_or_insert(Instant::now() + timeout);
        // What was queued is dropped and so marked for others.
        self.mailbox.close();
        self.changed.notify_one();
    }

    /// Returns until when handlers may run, if the group is being left.
    fn drain_until(&self) -> Option<Instant> {
        self.state().drain_until
    }

    /// Returns whether a handler is running, after the mailbox was discarded.
    fn has_running_handlers(&self) -> bool {
        self.state().claims.values().any(|claim| *claim == Claim::Delivered)
    }

    /// Returns how many messages may be claimed. Those that wait for a retry count, as they return to the mailbox.
    fn capacity(&self) -> usize {
        self.mailbox.capacity().saturating_sub(self.state().claims.len())
    }

    /// Queues an entry of a retained topic for a handler, or acknowledges it if the filter rejects it.
    fn deliver(self: &Arc<Self>, topic: &Arc<str>, entry: Value) -> Result<()> {
        let entry = self.shared.entry(topic, entry)?;
        let claimed = (topic.clone(), entry.id);
        let passed = entry.message.filter(|m| self.filter.as_ref().is_none_or(|filter| filter.matches(m.kind())));
        let Some(message) = passed else {
            self.state().claims.insert(claimed, Claim::Handled);
            return Ok(());
        };
        self.state().claims.insert(claimed.clone(), Claim::Delivered);
        let acknowledger = Acknowledger { group: Arc::downgrade(self), claimed, is_settled: AtomicBool::new(false) };
        let ack = Ack(Arc::new(move |succeeded| acknowledger.settle(succeeded)));
        // The claims are bounded by the mailbox's capacity, so this is as well; a claimed message is never dropped.
        self.mailbox.push_unbounded(Incoming { message, ack: Some(ack) });
        Ok(())
    }

    /// Reports messages that this group has missed because they were trimmed.
    fn report_trimmed(&self, count: u64) {
        if count > 0 {
            tracing::warn!(
                code = "NVENT_TRIMMED",
                topic = %self.topic,
                group = %self.name,
                "a group was too far behind, and {count} messages were removed before it had them: raise retain.maxLen"
            );
            self.mailbox.note_gap(Gap { reason: GapReason::Trimmed, missed: Some(count) });
            self.shared.count_gap();
        }
    }

    fn on_handled(&self, claimed: EntryRef, succeeded: bool) {
        let mut state = self.state();
        if !state.claims.contains_key(&claimed) {
            return;
        }
        let claim = if succeeded {
            state.failures.remove(&claimed);
            Claim::Handled
        } else {
            let failures = state.failures.entry(claimed.clone()).or_default();
            *failures += 1;
            let GroupOptions { retry_delay, max_deliveries, .. } = self.shared.groups;
            // After the last failure there is nothing to wait for: the message is parked.
            let is_retried = *failures < max_deliveries;
            let delay =
                if is_retried { retry_delay * 2_u32.saturating_pow((*failures - 1).min(10)) } else { Duration::ZERO };
            Claim::RetryAt(Instant::now() + delay)
        };
        state.claims.insert(claimed, claim);
        drop(state);
        self.changed.notify_one();
    }

    /// Notes that a delivery was dropped without having been handled.
    fn on_discarded(&self, claimed: &EntryRef) {
        if let Some(claim) = self.state().claims.get_mut(claimed)
            && *claim == Claim::Delivered
        {
            *claim = Claim::RetryAt(Instant::now());
        }
        self.changed.notify_one();
    }
}

/// Settles one delivery, once. If it is dropped before, the message is delivered again.
struct Acknowledger {
    group: Weak<Group>,
    claimed: EntryRef,
    is_settled: AtomicBool,
}

impl Acknowledger {
    fn settle(&self, succeeded: bool) {
        if !self.is_settled.swap(true, Ordering::AcqRel)
            && let Some(group) = self.group.upgrade()
        {
            group.on_handled(self.claimed.clone(), succeeded);
        }
    }
}

impl Drop for Acknowledger {
    fn drop(&mut self) {
        if !*self.is_settled.get_mut()
            && let Some(group) = self.group.upgrade()
        {
            group.on_discarded(&self.claimed);
        }
    }
}

/// Treats a group that exists already as created.
fn ignore_existing(error: Error) -> Result<()> {
    if reply::server_code(&error) == Some("BUSYGROUP") { Ok(()) } else { Err(error) }
}
