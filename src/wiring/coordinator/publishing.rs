//! Publishing to the stream: batches, retries, failures, gaps and counters.
//!
//! **Failures.** A publish that failed without effect and may succeed later ([`Error::is_retryable`]) is attempted
//! [`MAX_ATTEMPTS`] times, in its place: never after a later message of its partition has arrived. A message that still
//! fails is counted and reported as a gap; one that the stream refuses for good is only counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::backoff::RetryBackoff;
use crate::bus::BusEvent;
use crate::error::{Error, Result};
use crate::event::{AnyEvent, EventId};
use crate::fanout::{Gap, GapReason, Mailbox, Push};
use crate::metrics::{CHANNEL_LAG, Histogram};
use crate::op::Op;
use crate::stream::{BLOCK_TIMEOUT, Message};
use crate::sync::lock;
use crate::time::SharedClock;
use crate::wiring::Publisher;
use crate::wiring::channels::{Routed, Router};
use crate::wiring::coordinator::CoordinatorStats;
use crate::wiring::run_status::RunStatusTracker;

/// Attempts to publish a message.
pub const MAX_ATTEMPTS: u32 = 5;
/// The delay before the second attempt; it doubles each time.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// The longest delay.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);
/// A publish that takes longer has failed, possibly with an effect.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(BLOCK_TIMEOUT.as_secs() + 5);

/// A gap of a topic that has not been published yet.
pub(super) struct PendingGap {
    reason: GapReason,
    count: u64,
}

/// A message to publish.
pub(super) struct Item {
    message: Message,
    payload: Payload,
    /// When its event was stored, Unix time in ms. 0: unknown.
    stored_ms: u64,
    /// Whether this is the last message of its event.
    pub(super) last: bool,
}

enum Payload {
    /// A message of the channel with this index.
    Event(usize),
    /// Reports a gap.
    Gap(PendingGap),
}

/// The channels of a stream: the routing table, the stream, and the state that outlives a session.
pub(super) struct Channels {
    router: Router,
    stream: Arc<dyn Publisher>,
    clock: SharedClock,
    max_lag: usize,
    routed: Box<[AtomicU64]>,
    lag_seconds: Box<[Arc<Histogram>]>,
    skipped: AtomicU64,
    failed: AtomicU64,
    lag: AtomicU64,
    dropped: AtomicU64,
    retries: AtomicU64,
    gaps_published: AtomicU64,
    gaps: Mutex<HashMap<Arc<str>, PendingGap>>,
    /// Whether gaps are due now, rather than with the next message of their topic.
    gaps_due: AtomicBool,
    idle: Notify,
}

impl Channels {
    pub(super) fn new(router: Router, stream: Arc<dyn Publisher>, clock: SharedClock, max_lag: usize) -> Self {
        let routed = router.channels().iter().map(|_| AtomicU64::new(0)).collect();
        let lag_seconds = router.channels().iter().map(|name| CHANNEL_LAG.with(&[name])).collect();
        Self {
            router,
            stream,
            clock,
            max_lag: max_lag.max(1),
            routed,
            lag_seconds,
            skipped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            lag: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            gaps_published: AtomicU64::new(0),
            gaps: Mutex::default(),
            gaps_due: AtomicBool::new(false),
            idle: Notify::new(),
        }
    }

    pub(super) fn router(&self) -> &Router {
        &self.router
    }

    pub(super) fn max_lag(&self) -> usize {
        self.max_lag
    }

    pub(super) fn keeps_order(&self) -> bool {
        self.stream.keeps_order()
    }

    pub(super) fn is_shared(&self) -> bool {
        self.stream.is_shared()
    }

    /// Sets the instance that uses the stream.
    pub(super) fn add_instance(&self) {
        self.stream.add_instance(self.router.instance());
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(super) fn stats(&self) -> CoordinatorStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CoordinatorStats {
            routed: self.router.channels().iter().cloned().zip(self.routed.iter().map(read)).collect(),
            skipped: read(&self.skipped),
            failed: read(&self.failed),
            lag: read(&self.lag),
            dropped: read(&self.dropped),
            retries: read(&self.retries),
            gaps: read(&self.gaps_published),
        }
    }

    /// Queues an event. Where there is no room it is dropped, and a gap recorded for each of its topics.
    pub(super) fn enqueue(&self, queue: &Mailbox<BusEvent>, event: &BusEvent) {
        self.lag.fetch_add(1, Ordering::Relaxed);
        if !matches!(queue.push(event.clone()), Push::Queued) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            for topic in self.router.topics(event) {
                self.record_gap(topic.into(), GapReason::Overflow, 1);
            }
            self.gaps_due.store(true, Ordering::Relaxed);
            self.complete_events(1);
        }
    }

    /// Publishes an event in the call, where nothing is under way and the stream accepts it at once. Returns false, and does
    /// nothing, where not: it has to be queued.
    pub(super) fn publish_inline(
        self: &Arc<Self>,
        event: &BusEvent,
        statuses: &Mutex<RunStatusTracker>,
        runtime: &Handle,
    ) -> bool {
        let is_due = self.stream.is_immediate() && !self.gaps_due.load(Ordering::Acquire);
        // While this event is counted, others are queued.
        if !is_due || self.lag.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return false;
        }
        let (routed, skipped) = self.router.route(event, &mut lock(statuses), self.now_ms());
        self.record_skipped(skipped);
        let started = self.publish(self.event_items(event, routed));
        if started.iter().all(|(_, op)| matches!(op, Op::Ready(Ok(())))) {
            started.iter().for_each(|(item, _)| self.record_delivery(item));
            self.complete_events(1);
        } else {
            runtime.spawn(self.clone().complete_batch(started));
        }
        true
    }

    fn is_idle(&self) -> bool {
        self.lag.load(Ordering::Acquire) == 0 && !self.gaps_due.load(Ordering::Acquire)
    }

    pub(super) async fn wait_idle(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.is_idle() {
                return;
            }
            idle.await;
        }
    }

    /// Counts events that are neither queued nor in flight any more.
    pub(super) fn complete_events(&self, events: u64) {
        if events > 0 && self.lag.fetch_sub(events, Ordering::AcqRel) == events {
            self.idle.notify_waiters();
        }
    }

    /// Reports to the subscribers of every channel that events were removed from the log before they were published.
    pub(super) fn note_trimmed(&self, missed: u64) -> Op<()> {
        let gap = Gap { reason: GapReason::Trimmed, missed: Some(missed) };
        self.stream.note_gap(&self.router.topic_globs(), gap, self.now_ms())
    }

    pub(super) fn record_gap_published(&self) {
        self.gaps_published.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn record_dropped(&self, events: u64) {
        self.dropped.fetch_add(events, Ordering::Relaxed);
    }

    /// Counts the result of a publish. Returns why it must be repeated, if it must.
    pub(super) fn record_outcome(&self, item: &Item, result: Result<()>) -> Option<String> {
        match result {
            Ok(()) => self.record_delivery(item),
            Err(error) if error.is_retryable() || error.is_maybe_applied() => {
                self.retries.fetch_add(1, Ordering::Relaxed);
                return Some(error.message().to_owned());
            }
            Err(error) => self.record_failure(item, &error),
        }
        None
    }

    pub(super) fn record_skipped(&self, rows: u64) {
        self.skipped.fetch_add(rows, Ordering::Relaxed);
    }

    /// Ends a session in which `remaining` events were not published.
    pub(super) fn end_session(&self, remaining: u64) {
        if remaining > 0 {
            tracing::warn!(
                code = "NVENT_GAP",
                events = remaining,
                "the stream coordinator stopped before the stream accepted every event"
            );
            self.dropped.fetch_add(remaining, Ordering::Relaxed);
            self.complete_events(remaining);
        }
        self.gaps_due.store(false, Ordering::Release);
        self.idle.notify_waiters();
    }

    fn lock_gaps(&self) -> MutexGuard<'_, HashMap<Arc<str>, PendingGap>> {
        lock(&self.gaps)
    }

    fn record_gap(&self, topic: Arc<str>, reason: GapReason, count: u64) {
        let mut gaps = self.lock_gaps();
        let has_room = gaps.len() < self.max_lag;
        match gaps.entry(topic) {
            Entry::Occupied(mut entry) => {
                let gap = entry.get_mut();
                gap.count += count;
                gap.reason = gap.reason.max(reason);
            }
            Entry::Vacant(entry) if has_room => _ = entry.insert(PendingGap { reason, count }),
            // Too many topics at once: this gap is only counted among the dropped events.
            Entry::Vacant(_) => {}
        }
    }

    fn gap_item(&self, topic: &str, gap: PendingGap) -> Item {
        let report = Gap { reason: gap.reason, missed: Some(gap.count) };
        Item {
            message: Message::gap(topic, report, self.now_ms()),
            payload: Payload::Gap(gap),
            stored_ms: 0,
            last: false,
        }
    }

    /// Returns the messages of an event, each after a pending gap of its topic.
    pub(super) fn event_items(&self, event: &BusEvent, routed: Vec<Routed>) -> Vec<Item> {
        let stored_ms = stored_ms(event);
        let mut items = Vec::with_capacity(routed.len());
        let mut gaps = self.lock_gaps();
        for routed in routed {
            if let Some(gap) = gaps.remove(routed.message.topic()) {
                items.push(self.gap_item(routed.message.topic(), gap));
            }
            let payload = Payload::Event(routed.channel);
            items.push(Item { message: routed.message, payload, stored_ms, last: false });
        }
        if let Some(item) = items.last_mut() {
            item.last = true;
        }
        items
    }

    /// Takes the pending gaps if they are due.
    pub(super) fn take_due_gaps(&self) -> Option<Vec<Item>> {
        if !self.gaps_due.swap(false, Ordering::AcqRel) {
            return None;
        }
        let gaps = std::mem::take(&mut *self.lock_gaps());
        Some(gaps.into_iter().map(|(topic, gap)| self.gap_item(&topic, gap)).collect())
    }

    /// Notifies waiters if nothing is queued or in flight.
    pub(super) fn notify_if_idle(&self) {
        if self.is_idle() {
            self.idle.notify_waiters();
        }
    }

    /// Starts publishing each item, in order.
    pub(super) fn publish(&self, items: Vec<Item>) -> Vec<(Item, Op<()>)> {
        items
            .into_iter()
            .map(|item| {
                let op = self.stream.publish(item.message.clone());
                (item, op)
            })
            .collect()
    }

    /// Returns whether a message need not be made, which counts as its delivery.
    pub(super) fn skip(&self, channel: usize, topic: &str, event: &BusEvent) -> bool {
        let skipped = self.stream.skip(topic);
        if skipped {
            self.count_delivery(channel, stored_ms(event));
        }
        skipped
    }

    fn count_delivery(&self, channel: usize, stored_ms: u64) {
        self.routed[channel].fetch_add(1, Ordering::Relaxed);
        if stored_ms > 0 {
            let lag = self.now_ms().saturating_sub(stored_ms);
            self.lag_seconds[channel].observe(Duration::from_millis(lag));
        }
    }

    pub(super) fn record_delivery(&self, item: &Item) {
        match item.payload {
            Payload::Event(channel) => self.count_delivery(channel, item.stored_ms),
            Payload::Gap(_) => _ = self.gaps_published.fetch_add(1, Ordering::Relaxed),
        }
    }

    fn record_failure(&self, item: &Item, error: &Error) {
        let topic = item.message.topic();
        match &item.payload {
            Payload::Event(_) => {
                if self.failed.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::warn!(%topic, code = %error.code(), "a message could not be published: {error} (reported once; see stats().failed)");
                }
                if error.is_retryable() || error.is_maybe_applied() {
                    self.record_gap(topic.clone(), GapReason::PublishFailed, 1);
                }
            }
            // It is published before the topic's next message.
            Payload::Gap(gap) => self.record_gap(topic.clone(), gap.reason, gap.count),
        }
    }

    /// Waits for publishes that have been started, and repeats those that may be repeated.
    pub(super) async fn complete_batch(self: Arc<Self>, mut started: Vec<(Item, Op<()>)>) {
        let events = started.iter().filter(|(item, _)| item.last).count() as u64;
        let mut backoff = RetryBackoff::new(RETRY_DELAY, MAX_RETRY_DELAY);
        for attempt in 1.. {
            let results =
                join_all(started.into_iter().map(|(item, op)| async move { (item, outcome(op).await) })).await;
            let arrived = results.iter().rposition(|(_, result)| result.is_ok());
            let mut repeat = Vec::new();
            for (i, (item, result)) in results.into_iter().enumerate() {
                match result {
                    Ok(()) => self.record_delivery(&item),
                    Err(error) => {
                        let is_in_place = arrived.is_none_or(|arrived| arrived < i);
                        let is_safe = error.is_retryable() && !error.is_maybe_applied();
                        if is_safe && is_in_place && attempt < MAX_ATTEMPTS {
                            if backoff.is_first() && repeat.is_empty() {
                                tracing::warn!(code = %error.code(), "the coordinator publishes again: {error}");
                            }
                            repeat.push(item);
                        } else {
                            self.record_failure(&item, &error);
                        }
                    }
                }
            }
            if repeat.is_empty() {
                break;
            }
            self.retries.fetch_add(repeat.len() as u64, Ordering::Relaxed);
            tokio::time::sleep(backoff.next_delay()).await;
            started = self.publish(repeat);
        }
        self.complete_events(events);
    }
}

/// Returns when an event was stored, in ms of Unix time, or 0.
fn stored_ms(event: &BusEvent) -> u64 {
    match &event.event {
        AnyEvent::Stored(event) => event.id().parse().map_or(0, |id: EventId| id.ms),
        AnyEvent::New(_) => 0,
    }
}

/// Returns the result of a publish; without one in time it has failed, possibly with an effect.
pub(super) async fn outcome(op: Op<()>) -> Result<()> {
    match op {
        Op::Ready(result) => result,
        op => op.within(PUBLISH_TIMEOUT, "the stream").await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{MemoryStream, StreamBackend};
    use crate::time::ManualClock;
    use crate::wiring::channels::ChannelOptions;

    #[test]
    fn gaps_are_kept_for_so_many_topics_each_with_its_worst_reason_and_the_sum() {
        let clock = ManualClock::at(1);
        let router = Router::new(&ChannelOptions::new("me")).unwrap();
        let stream: Arc<dyn StreamBackend> = Arc::new(MemoryStream::new(None, clock.clone()));
        let channels = Channels::new(router, Arc::new(stream), clock, 2);
        let unavailable = || Error::unavailable("away");
        let gap = |topic: &str, reason, count| channels.gap_item(topic, PendingGap { reason, count });
        channels.record_gap("a".into(), GapReason::Overflow, 1);
        // A gap that could not be published is kept as it was, however it failed.
        channels.record_failure(&gap("a", GapReason::PublishFailed, 2), &unavailable());
        channels.record_failure(&gap("b", GapReason::PublishFailed, 1), &Error::invalid("no"));
        channels.record_gap("b".into(), GapReason::Overflow, 3);
        channels.record_gap("c".into(), GapReason::Overflow, 1);
        assert_eq!(channels.stats().failed, 0);
        assert!(channels.take_due_gaps().is_none() && !channels.lock_gaps().is_empty());
        channels.gaps_due.store(true, Ordering::Relaxed);
        let mut gaps: Vec<_> =
            channels.lock_gaps().iter().map(|(t, gap)| (t.to_string(), gap.reason, gap.count)).collect();
        gaps.sort_by(|a, b| a.0.cmp(&b.0));
        let worst = GapReason::Overflow.max(GapReason::PublishFailed);
        assert_eq!(gaps, [("a".into(), worst, 3), ("b".into(), worst, 4)]);
        assert_eq!(channels.take_due_gaps().unwrap().len(), 2);
        assert!(channels.lock_gaps().is_empty());
        // Of a message, what may not have arrived is a gap, and what was refused is not.
        let item = |topic: &str| Item { payload: Payload::Event(0), ..gap(topic, GapReason::Overflow, 1) };
        channels.record_failure(&item("a"), &unavailable());
        channels.record_failure(&item("b"), &Error::invalid("no"));
        channels.record_failure(&item("c"), &Error::invalid("may be").maybe_applied());
        let gaps = channels.lock_gaps();
        assert_eq!((gaps.len(), gaps["a"].reason, gaps["c"].count), (2, GapReason::PublishFailed, 1));
        assert_eq!(channels.stats().failed, 3);
    }
}
