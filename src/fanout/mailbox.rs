//! A bounded mailbox, its overflow policy, and the gaps that it reports.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::sync::lock;

/// What happens to an event for which a mailbox has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overflow {
    /// Drops the oldest queued event.
    #[default]
    DropOldest,
    /// Drops the new event.
    DropNewest,
    /// Makes the publisher wait for capacity ([`Push::Full`]). Events that it publishes before it waits are kept, up to
    /// [`BLOCK_SLACK`] beyond the capacity; further ones are dropped as by `DropNewest`.
    Block,
}

/// Why events may have been missed. Of two gaps that are reported as one, the greater reason is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GapReason {
    /// The subscriber was too slow for its buffer.
    Overflow,
    /// A publish failed, so the stream never had the events.
    PublishFailed,
    /// The broker removed retained events before the subscriber had them.
    Trimmed,
    /// The connection to the broker was lost for a while.
    Reconnect,
}

impl GapReason {
    /// Parses the text of a reason. Reasons of other versions count as [`GapReason::Reconnect`].
    pub fn parse(text: &str) -> Self {
        let known = [Self::Overflow, Self::PublishFailed, Self::Trimmed];
        known.into_iter().find(|reason| reason.as_str() == text).unwrap_or(Self::Reconnect)
    }

    /// Returns the reason as it stands in a `stream.gap` message.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reconnect => "reconnect",
            Self::Overflow => "overflow",
            Self::PublishFailed => "publish-failed",
            Self::Trimmed => "trimmed",
        }
    }
}

/// Events may have been missed at this place. Reported once, before the next item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Why they may have been missed.
    pub reason: GapReason,
    /// The number of missed events, if known.
    pub missed: Option<u64>,
}

/// What a subscriber receives from its mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery<T> {
    /// An item, in the order of publication.
    Item(T),
    /// Events may be missing between the item before and the one after.
    Gap(Gap),
}

/// The outcome of a push.
#[derive(Debug)]
pub enum Push {
    /// The item is queued.
    Queued,
    /// The item, or an older one, was dropped; the subscriber receives a gap.
    Dropped,
    /// The item is queued, but the mailbox is full: a publisher that respects [`Overflow::Block`] awaits
    /// [`Mailbox::wait_for_capacity`].
    Full,
    /// The mailbox is closed.
    Closed,
}

/// Events that may be pushed beyond the capacity of a blocking mailbox before its publisher waits, as `Promise.all` over
/// publishes does.
pub const BLOCK_SLACK: usize = 10_000;

/// Wakes the consumer of a mailbox. Called under the mailbox's lock: it must neither block nor access the mailbox.
pub type OnReady = Arc<dyn Fn() + Send + Sync>;

struct State<T> {
    items: VecDeque<T>,
    gap: Option<Gap>,
    wakes: Vec<(u64, OnReady)>,
    closed: bool,
}

impl<T> State<T> {
    fn wake(&self) {
        self.wakes.iter().for_each(|(_, wake)| wake());
    }
}

/// The queue of one subscriber, or of a group whose members share it.
///
/// ```
/// use nvent_native::fanout::{Delivery, GapReason, Mailbox, Overflow};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let mailbox = Mailbox::new(2, Overflow::DropOldest);
/// for n in 1..=3 {
///     mailbox.push(n);
/// }
/// // The subscriber learns that something is missing before it gets what follows.
/// match mailbox.recv().await {
///     Some(Delivery::Gap(gap)) => assert_eq!((gap.reason, gap.missed), (GapReason::Overflow, Some(1))),
///     other => panic!("{other:?}"),
/// }
/// assert!(matches!(mailbox.recv().await, Some(Delivery::Item(2))));
/// # }
/// ```
pub struct Mailbox<T> {
    state: Mutex<State<T>>,
    capacity: usize,
    overflow: Overflow,
    arrival: Notify,
    capacity_freed: Notify,
    dropped: AtomicU64,
}

impl<T> Mailbox<T> {
    /// Creates an empty mailbox for at most `capacity` items (at least one).
    pub fn new(capacity: usize, overflow: Overflow) -> Self {
        Self {
            state: Mutex::new(State { items: VecDeque::new(), gap: None, wakes: Vec::new(), closed: false }),
            capacity: capacity.max(1),
            overflow,
            arrival: Notify::new(),
            capacity_freed: Notify::new(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Registers a wake callback under the caller's id, one for each member of a group.
    pub fn add_wake(&self, id: u64, wake: OnReady) {
        lock(&self.state).wakes.push((id, wake));
    }

    /// Removes a wake callback. Returns how many are left.
    pub fn remove_wake(&self, id: u64) -> usize {
        let mut state = lock(&self.state);
        state.wakes.retain(|(other, _)| *other != id);
        state.wakes.len()
    }

    /// Queues an item, or applies the overflow policy if the mailbox is full.
    pub fn push(&self, item: T) -> Push {
        let outcome = {
            let mut state = lock(&self.state);
            if state.closed {
                return Push::Closed;
            }
            let full = state.items.len() >= self.capacity;
            let outcome = match self.overflow {
                _ if !full => Push::Queued,
                Overflow::DropOldest => {
                    state.items.pop_front();
                    Push::Dropped
                }
                Overflow::Block if state.items.len() < self.capacity + BLOCK_SLACK => Push::Full,
                Overflow::DropNewest | Overflow::Block => Push::Dropped,
            };
            let keep = matches!(outcome, Push::Queued | Push::Full) || self.overflow == Overflow::DropOldest;
            if matches!(outcome, Push::Dropped) {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                note_gap(&mut state.gap, Gap { reason: GapReason::Overflow, missed: Some(1) });
            }
            if keep {
                state.items.push_back(item);
            }
            // The first item wakes the subscriber; further ones need not. With several members each item wakes them all, as
            // any of them may be busy.
            if state.items.len() <= 1 || state.wakes.len() > 1 {
                state.wake();
            }
            outcome
        };
        self.arrival.notify_one();
        outcome
    }

    /// Queues an item regardless of the capacity, for a caller that bounds its items itself. Drops it if the mailbox is
    /// closed.
    pub fn push_unbounded(&self, item: T) {
        {
            let mut state = lock(&self.state);
            if state.closed {
                return;
            }
            state.items.push_back(item);
            if state.items.len() == 1 || state.wakes.len() > 1 {
                state.wake();
            }
        }
        self.arrival.notify_one();
    }

    /// Queues items regardless of the capacity, before the subscriber receives its mailbox. They are bounded by their source
    /// (what is retained), so that a replay is complete.
    pub fn extend_unbounded(&self, items: impl IntoIterator<Item = T>) {
        lock(&self.state).items.extend(items);
    }

    /// Records a gap, which the subscriber receives before its next item. Gaps that were not received yet become one.
    pub fn note_gap(&self, gap: Gap) {
        {
            let mut state = lock(&self.state);
            if state.closed {
                return;
            }
            note_gap(&mut state.gap, gap);
            state.wake();
        }
        self.arrival.notify_one();
    }

    /// Moves up to `max` deliveries into `out`, a gap first. Returns whether more are queued.
    pub fn take(&self, max: usize, out: &mut Vec<Delivery<T>>) -> bool {
        let mut state = lock(&self.state);
        let mut left = max;
        if left > 0
            && let Some(gap) = state.gap.take()
        {
            out.push(Delivery::Gap(gap));
            left -= 1;
        }
        let count = left.min(state.items.len());
        out.extend(state.items.drain(..count).map(Delivery::Item));
        let more = !state.items.is_empty() || state.gap.is_some();
        let has_capacity = state.items.len() < self.capacity;
        drop(state);
        if count > 0 && has_capacity {
            self.capacity_freed.notify_waiters();
        }
        more
    }

    /// Waits for the next delivery. Returns None once the mailbox is closed and empty.
    pub async fn recv(&self) -> Option<Delivery<T>> {
        loop {
            let arrival = self.arrival.notified();
            let mut out = Vec::with_capacity(1);
            if self.take(1, &mut out) {
                self.arrival.notify_one();
            }
            if let Some(delivery) = out.pop() {
                return Some(delivery);
            }
            if lock(&self.state).closed {
                return None;
            }
            arrival.await;
        }
    }

    /// Waits until the mailbox has free capacity or is closed.
    pub async fn wait_for_capacity(&self) {
        loop {
            let freed = self.capacity_freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            {
                let state = lock(&self.state);
                if state.closed || state.items.len() < self.capacity {
                    return;
                }
            }
            freed.await;
        }
    }

    /// Returns the capacity in items.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns the number of queued items.
    pub fn len(&self) -> usize {
        lock(&self.state).items.len()
    }

    /// Returns whether no item is queued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of items dropped since the mailbox was created.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Closes the mailbox for further items and releases waiting publishers. Queued items can still be received.
    pub fn close_gracefully(&self) {
        {
            let mut state = lock(&self.state);
            state.closed = true;
            state.wakes.clear();
        }
        self.arrival.notify_one();
        self.capacity_freed.notify_waiters();
    }

    /// Closes the mailbox: discards what is queued, rejects further items and releases waiting publishers.
    pub fn close(&self) {
        self.close_gracefully();
        let discarded = {
            let mut state = lock(&self.state);
            state.gap = None;
            std::mem::take(&mut state.items)
        };
        // Not under the lock: items may report that they were dropped.
        drop(discarded);
    }
}

fn note_gap(slot: &mut Option<Gap>, gap: Gap) {
    *slot = Some(slot.map_or(gap, |old| Gap {
        reason: old.reason.max(gap.reason),
        missed: old.missed.zip(gap.missed).map(|(a, b)| a + b),
    }));
}

/// The default capacity of a subscriber's mailbox, in events.
pub const DEFAULT_BUFFER: usize = 10_000;

/// The largest capacity that a subscriber may request.
pub const MAX_BUFFER: usize = 10_000_000;

/// Checks the option `buffer`.
pub(crate) fn check_buffer(buffer: usize) -> Result<()> {
    if (1..=MAX_BUFFER).contains(&buffer) {
        return Ok(());
    }
    Err(Error::invalid(format!("options.buffer: expected a whole number from 1 to {MAX_BUFFER}, got {buffer}")))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn drain(mailbox: &Mailbox<u32>) -> Vec<Delivery<u32>> {
        let mut out = Vec::new();
        mailbox.take(usize::MAX, &mut out);
        out
    }

    /// A future that has been polled and waits.
    fn waiting<F: Future>(future: F) -> std::pin::Pin<Box<F>> {
        let mut future = Box::pin(future);
        assert!(future.as_mut().now_or_never().is_none());
        future
    }

    fn gap(missed: u64) -> Delivery<u32> {
        Delivery::Gap(Gap { reason: GapReason::Overflow, missed: Some(missed) })
    }

    #[test]
    fn drop_oldest_keeps_the_newest_and_reports_how_many_were_dropped() {
        let mailbox = Mailbox::new(2, Overflow::DropOldest);
        (0..5).for_each(|n| _ = mailbox.push(n));
        assert_eq!(drain(&mailbox), [gap(3), Delivery::Item(3), Delivery::Item(4)]);
        assert_eq!(mailbox.dropped(), 3);
    }

    #[test]
    fn drop_newest_keeps_the_oldest_and_reports_how_many_were_dropped() {
        let mailbox = Mailbox::new(2, Overflow::DropNewest);
        (0..5).for_each(|n| _ = mailbox.push(n));
        assert_eq!(drain(&mailbox), [gap(3), Delivery::Item(0), Delivery::Item(1)]);
    }

    #[tokio::test]
    async fn block_makes_the_publisher_wait_for_capacity_and_bounds_one_that_does_not() {
        let mailbox = Arc::new(Mailbox::new(1, Overflow::Block));
        assert!(matches!(mailbox.push(0), Push::Queued));
        for _ in 0..BLOCK_SLACK {
            assert!(matches!(mailbox.push(1), Push::Full));
        }
        assert!(matches!(mailbox.push(0), Push::Dropped));
        let waiting = tokio::spawn({
            let mailbox = mailbox.clone();
            async move { mailbox.wait_for_capacity().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert_eq!(drain(&mailbox).len(), 1 + BLOCK_SLACK + 1, "the gap is one more");
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn closing_releases_waiting_publishers_and_receivers() {
        let mailbox = Arc::new(Mailbox::new(1, Overflow::Block));
        _ = mailbox.push(0);
        _ = mailbox.push(1);
        let publisher = tokio::spawn({
            let mailbox = mailbox.clone();
            async move { mailbox.wait_for_capacity().await }
        });
        tokio::task::yield_now().await;
        mailbox.close();
        publisher.await.unwrap();
        assert_eq!(mailbox.recv().await, None);
        assert!(matches!(mailbox.push(3), Push::Closed));
    }

    #[tokio::test]
    async fn a_publisher_waits_until_there_is_room_again() {
        let mailbox = Mailbox::new(2, Overflow::Block);
        (0..4).for_each(|n| _ = mailbox.push(n));
        let mut waiting = std::pin::pin!(mailbox.wait_for_capacity());
        let mut out = Vec::new();
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(mailbox.take(2, &mut out), "two more are queued");
        assert!(waiting.as_mut().now_or_never().is_none(), "it is full");
        assert!(mailbox.take(1, &mut out) && waiting.now_or_never().is_some());
        assert_eq!((out.len(), mailbox.len(), mailbox.capacity()), (3, 1, 2));
        assert_eq!(Mailbox::<u32>::new(0, Overflow::Block).capacity(), 1);
    }

    #[tokio::test]
    async fn what_is_queued_is_received_after_a_graceful_close_and_nothing_is_added() {
        let mailbox = Mailbox::new(2, Overflow::DropOldest);
        _ = mailbox.push(1);
        mailbox.push_unbounded(2);
        mailbox.push_unbounded(3);
        mailbox.close_gracefully();
        assert!(matches!(mailbox.push(4), Push::Closed));
        mailbox.push_unbounded(4);
        mailbox.note_gap(Gap { reason: GapReason::Reconnect, missed: None });
        for n in 1..=3 {
            assert_eq!(mailbox.recv().await, Some(Delivery::Item(n)));
        }
        assert_eq!((mailbox.recv().await, mailbox.dropped()), (None, 0));
    }

    #[tokio::test]
    async fn a_receiver_that_waits_gets_whatever_comes() {
        let mailbox = Mailbox::new(2, Overflow::DropOldest);
        let reconnect = Gap { reason: GapReason::Reconnect, missed: None };
        let (push, push_unbounded, note) =
            (|| _ = mailbox.push(1), || mailbox.push_unbounded(1), || mailbox.note_gap(reconnect));
        let comings: [(&dyn Fn(), _); 3] =
            [(&push, Delivery::Item(1)), (&push_unbounded, Delivery::Item(1)), (&note, Delivery::Gap(reconnect))];
        for (come, expected) in comings {
            let mut received = waiting(mailbox.recv());
            come();
            assert_eq!(received.as_mut().now_or_never(), Some(Some(expected)));
        }
        let mut received = waiting(mailbox.recv());
        mailbox.close_gracefully();
        assert_eq!(received.as_mut().now_or_never(), Some(None));
    }

    #[test]
    fn a_subscriber_is_woken_by_its_first_item_and_several_members_by_each() {
        let mailbox = Mailbox::new(10, Overflow::DropOldest);
        let woken = Arc::new(AtomicU64::new(0));
        let wake = || -> OnReady {
            let woken = woken.clone();
            Arc::new(move || _ = woken.fetch_add(1, Ordering::Relaxed))
        };
        let wakes = || woken.swap(0, Ordering::Relaxed);
        mailbox.add_wake(1, wake());
        mailbox.extend_unbounded([0]);
        assert_eq!(wakes(), 0, "its subscriber does not have the mailbox yet");
        drain(&mailbox);
        mailbox.push(1);
        mailbox.push(2);
        mailbox.push_unbounded(3);
        assert_eq!(wakes(), 1);
        drain(&mailbox);
        mailbox.push_unbounded(4);
        assert_eq!(wakes(), 1);
        mailbox.note_gap(Gap { reason: GapReason::Reconnect, missed: None });
        assert_eq!(wakes(), 1);
        mailbox.add_wake(2, wake());
        mailbox.push(5);
        mailbox.push_unbounded(6);
        assert_eq!(wakes(), 4, "any of them may be busy");
        assert_eq!((mailbox.remove_wake(1), mailbox.remove_wake(3)), (1, 1));
        mailbox.push(7);
        assert_eq!(wakes(), 0);
        mailbox.close_gracefully();
        assert_eq!(mailbox.remove_wake(2), 0, "a closed mailbox wakes no one");
    }

    #[test]
    fn a_gap_is_the_first_delivery_and_counts_as_one() {
        let mailbox = Mailbox::new(1, Overflow::DropOldest);
        (0..3).for_each(|n| _ = mailbox.push(n));
        let mut out = Vec::new();
        assert!(mailbox.take(0, &mut out) && out.is_empty());
        assert!(mailbox.take(1, &mut out));
        assert_eq!(out, [gap(2)]);
        assert!(!mailbox.take(5, &mut out));
        assert_eq!(out, [gap(2), Delivery::Item(2)]);
    }

    #[test]
    fn reasons_and_buffers_are_checked_at_their_bounds() {
        for reason in [GapReason::Overflow, GapReason::PublishFailed, GapReason::Trimmed, GapReason::Reconnect] {
            assert_eq!(GapReason::parse(reason.as_str()), reason);
        }
        assert_eq!(GapReason::parse("of a later version"), GapReason::Reconnect);
        assert!(check_buffer(1).is_ok() && check_buffer(MAX_BUFFER).is_ok());
        assert!(check_buffer(0).is_err() && check_buffer(MAX_BUFFER + 1).is_err());
    }

    #[test]
    fn a_reconnect_and_an_overflow_make_one_gap_of_unknown_size() {
        let mailbox = Mailbox::new(1, Overflow::DropOldest);
        (0..3).for_each(|n| _ = mailbox.push(n));
        mailbox.note_gap(Gap { reason: GapReason::Reconnect, missed: None });
        let gap = Delivery::Gap(Gap { reason: GapReason::Reconnect, missed: None });
        assert_eq!(drain(&mailbox), [gap, Delivery::Item(2)]);
    }
}
