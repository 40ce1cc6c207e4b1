//! Fan-out: who is subscribed to what, and a bounded mailbox for each.
//!
//! A publisher only ever pushes, so no subscriber can hold it up; what a full mailbox means is its own overflow policy.
//! Both streams and store subscriptions deliver through here, on every backend.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::Notify;

use crate::error::{Error, Result};
use crate::topic::{Glob, is_pattern};

/// What happens to an event for which a mailbox has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The oldest one waiting goes.
    #[default]
    DropOldest,
    /// The new one goes.
    DropNewest,
    /// The publisher is told to wait for room ([`Push::Full`]). What it published before it waits is kept, up to
    /// [`BLOCK_SLACK`] beyond the capacity; what comes then meets `DropNewest`.
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
    /// As `stream.gap` tells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reconnect => "reconnect",
            Self::Overflow => "overflow",
            Self::PublishFailed => "publish-failed",
            Self::Trimmed => "trimmed",
        }
    }
}

/// Told once, before the next item: something may have been missed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// How many, where that is known.
    pub missed: Option<u64>,
}

/// What a subscriber takes out of its mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery<T> {
    /// An item, in the order of publication.
    Item(T),
    /// Something may be missing between the item before and the one after.
    Gap(Gap),
}

/// How a push went.
#[derive(Debug)]
pub enum Push {
    /// It waits for the subscriber.
    Queued,
    /// It, or an older one, was dropped; the subscriber will be told.
    Dropped,
    /// It waits, but the mailbox is full: a publisher that respects [`Overflow::Block`] awaits [`Mailbox::wait_for_capacity`].
    Full,
    /// The subscriber is gone.
    Closed,
}

/// How many events a publisher that is to wait may have under way before it does, as `Promise.all` over publishes has.
pub const BLOCK_SLACK: usize = 10_000;

/// Called when a mailbox has something to take, under its lock: it must not block and must not touch the mailbox. It
/// wakes whoever takes.
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

/// What waits for one subscriber, or for a group whose members share it.
pub struct Mailbox<T> {
    state: Mutex<State<T>>,
    capacity: usize,
    overflow: Overflow,
    arrival: Notify,
    room: Notify,
    dropped: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these locks; if it ever did, plain data is left behind, not a broken one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Mailbox<T> {
    /// An empty mailbox for at most `capacity` items (at least one).
    pub fn new(capacity: usize, overflow: Overflow) -> Self {
        Self {
            state: Mutex::new(State { items: VecDeque::new(), gap: None, wakes: Vec::new(), closed: false }),
            capacity: capacity.max(1),
            overflow,
            arrival: Notify::new(),
            room: Notify::new(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Adds a wake-up under an id of the caller's, one for each member of a group.
    pub fn add_wake(&self, id: u64, wake: OnReady) {
        lock(&self.state).wakes.push((id, wake));
    }

    /// Removes a wake-up; how many are left.
    pub fn remove_wake(&self, id: u64) -> usize {
        let mut state = lock(&self.state);
        state.wakes.retain(|(other, _)| *other != id);
        state.wakes.len()
    }

    /// Puts an item in, or does what the overflow policy says.
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
            // A mailbox that has just got its first delivery wakes its subscribers; a filled one already did. With several
            // members each arrival wakes them all, as any of them may be busy.
            if state.items.len() <= 1 || state.wakes.len() > 1 {
                state.wake();
            }
            outcome
        };
        self.arrival.notify_one();
        outcome
    }

    /// Puts an item in whatever the capacity is: for items whose number is bounded elsewhere, as by a log in memory.
    pub fn push_unbounded(&self, item: T) {
        {
            let mut state = lock(&self.state);
            if state.closed {
                return;
            }
            state.items.push_back(item);
            if state.items.len() == 1 {
                state.wake();
            }
        }
        self.arrival.notify_one();
    }

    /// Puts items in before the subscriber is told of its mailbox. They are bounded by where they come from (what is
    /// retained), so the capacity does not count: a replay is whole.
    pub fn extend_unbounded(&self, items: impl IntoIterator<Item = T>) {
        lock(&self.state).items.extend(items);
    }

    /// Tells the subscriber, before its next item, that something may have been missed. Told once, however often noted.
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

    /// Takes up to `max` deliveries into `out`, a gap first. Returns whether more is waiting.
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
        let room = state.items.len() < self.capacity;
        drop(state);
        if count > 0 && room {
            self.room.notify_waiters();
        }
        more
    }

    /// Waits for the next delivery. None once the mailbox is closed and empty.
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

    /// Waits until there is room again, or the mailbox is closed.
    pub async fn wait_for_capacity(&self) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            {
                let state = lock(&self.state);
                if state.closed || state.items.len() < self.capacity {
                    return;
                }
            }
            room.await;
        }
    }

    /// How many items may wait.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Items that wait.
    pub fn len(&self) -> usize {
        lock(&self.state).items.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Items dropped since the beginning.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Ends it: nothing more goes in, what waited is gone, waiting publishers go on.
    pub fn close(&self) {
        self.finish();
        let mut state = lock(&self.state);
        state.items.clear();
        state.gap = None;
    }

    /// Ends it: nothing more goes in, what waits can still be taken, waiting publishers go on.
    pub fn finish(&self) {
        {
            let mut state = lock(&self.state);
            state.closed = true;
            state.wakes.clear();
        }
        self.arrival.notify_one();
        self.room.notify_waiters();
    }
}

fn note_gap(slot: &mut Option<Gap>, gap: Gap) {
    *slot = Some(slot.map_or(gap, |old| Gap {
        reason: old.reason.max(gap.reason),
        missed: old.missed.zip(gap.missed).map(|(a, b)| a + b),
    }));
}

/// What a hub keeps per subscriber besides the mailbox: for a stream its filter, for a store nothing.
pub struct Subscriber<T, M> {
    /// Unique in the process.
    pub id: u64,
    /// The topic or pattern as it was given.
    pub topic: Arc<str>,
    /// Where its events wait.
    pub mailbox: Arc<Mailbox<T>>,
    /// What the owner of the hub wants to know about it.
    pub meta: M,
}

/// A number that no other call in this process returns.
pub fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

type Subscribers<T, M> = Vec<Arc<Subscriber<T, M>>>;

struct Routes<T, M> {
    exact: HashMap<Arc<str>, Subscribers<T, M>>,
    /// By text, so that a thousand subscribers of one pattern cost one match.
    patterns: BTreeMap<Arc<str>, (Glob, Subscribers<T, M>)>,
}

/// Who is subscribed to what. Matching never blocks matching.
pub struct TopicRegistry<T, M = ()> {
    routes: RwLock<Routes<T, M>>,
}

impl<T, M> Default for TopicRegistry<T, M> {
    fn default() -> Self {
        Self { routes: RwLock::new(Routes { exact: HashMap::new(), patterns: BTreeMap::new() }) }
    }
}

impl<T, M> TopicRegistry<T, M> {
    /// Adds a subscriber. Whether it is the first of its topic or pattern.
    pub fn add(&self, subscriber: Arc<Subscriber<T, M>>) -> bool {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let topic = subscriber.topic.clone();
        let list = if is_pattern(&topic) {
            &mut routes.patterns.entry(topic.clone()).or_insert_with(|| (Glob::new(&topic), Vec::new())).1
        } else {
            routes.exact.entry(topic).or_default()
        };
        list.push(subscriber);
        list.len() == 1
    }

    /// Removes a subscriber: itself, and whether it was the last of its topic or pattern. None if it was not there.
    pub fn remove(&self, topic: &str, id: u64) -> Option<(Arc<Subscriber<T, M>>, bool)> {
        fn take<T, M>(list: &mut Subscribers<T, M>, id: u64) -> Option<(Arc<Subscriber<T, M>>, bool)> {
            let at = list.iter().position(|subscriber| subscriber.id == id)?;
            Some((list.remove(at), list.is_empty()))
        }
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        if is_pattern(topic) {
            let removed = take(&mut routes.patterns.get_mut(topic)?.1, id)?;
            if removed.1 {
                routes.patterns.remove(topic);
            }
            Some(removed)
        } else {
            let removed = take(routes.exact.get_mut(topic)?, id)?;
            if removed.1 {
                routes.exact.remove(topic);
            }
            Some(removed)
        }
    }

    /// Calls `each` for every subscriber that a message on this topic is for.
    pub fn for_each_match(&self, topic: &str, mut each: impl FnMut(&Arc<Subscriber<T, M>>)) {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = routes.exact.get(topic) {
            list.iter().for_each(&mut each);
        }
        for (glob, list) in routes.patterns.values() {
            if glob.matches(topic) {
                list.iter().for_each(&mut each);
            }
        }
    }

    /// Calls `each` for every subscriber.
    pub fn for_each(&self, each: impl FnMut(&Arc<Subscriber<T, M>>)) {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        routes.exact.values().chain(routes.patterns.values().map(|(_, list)| list)).flatten().for_each(each);
    }

    /// Topics and patterns that have subscribers, each once, sorted.
    pub fn topics(&self) -> Vec<Arc<str>> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let mut topics: Vec<_> = routes.exact.keys().chain(routes.patterns.keys()).cloned().collect();
        topics.sort_unstable();
        topics
    }

    /// Subscribers of exactly this topic or pattern.
    pub fn count(&self, topic: &str) -> usize {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        if is_pattern(topic) {
            routes.patterns.get(topic).map_or(0, |(_, list)| list.len())
        } else {
            routes.exact.get(topic).map_or(0, Vec::len)
        }
    }

    /// Whether nobody is subscribed to anything.
    pub fn is_empty(&self) -> bool {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        routes.exact.is_empty() && routes.patterns.is_empty()
    }

    /// Closes every mailbox and forgets everyone.
    pub fn close(&self) {
        self.for_each(|subscriber| subscriber.mailbox.close());
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        routes.exact.clear();
        routes.patterns.clear();
    }
}

/// The default number of events that may wait for a subscriber.
pub const DEFAULT_BUFFER: usize = 10_000;

/// The largest buffer that a subscriber may ask for.
pub const MAX_BUFFER: usize = 10_000_000;

/// Checks a `buffer` option.
pub fn check_buffer(buffer: f64) -> Result<usize> {
    if buffer.fract() == 0.0 && (1.0..=MAX_BUFFER as f64).contains(&buffer) {
        Ok(buffer as usize)
    } else {
        Err(Error::invalid(format!("options.buffer: expected a whole number from 1 to {MAX_BUFFER}, got {buffer}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(mailbox: &Mailbox<u32>) -> Vec<Delivery<u32>> {
        let mut out = Vec::new();
        mailbox.take(usize::MAX, &mut out);
        out
    }

    fn gap(missed: u64) -> Delivery<u32> {
        Delivery::Gap(Gap { reason: GapReason::Overflow, missed: Some(missed) })
    }

    #[test]
    fn drop_oldest_keeps_the_newest_and_tells_how_many_went() {
        let mailbox = Mailbox::new(2, Overflow::DropOldest);
        (0..5).for_each(|n| _ = mailbox.push(n));
        assert_eq!(drain(&mailbox), [gap(3), Delivery::Item(3), Delivery::Item(4)]);
        assert_eq!(mailbox.dropped(), 3);
    }

    #[test]
    fn drop_newest_keeps_the_oldest_and_tells_how_many_went() {
        let mailbox = Mailbox::new(2, Overflow::DropNewest);
        (0..5).for_each(|n| _ = mailbox.push(n));
        assert_eq!(drain(&mailbox), [gap(3), Delivery::Item(0), Delivery::Item(1)]);
    }

    #[tokio::test]
    async fn block_makes_the_publisher_wait_for_room_and_bounds_one_that_does_not() {
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
    async fn closing_lets_waiting_publishers_and_receivers_go() {
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

    #[test]
    fn a_reconnect_and_an_overflow_make_one_gap_of_unknown_size() {
        let mailbox = Mailbox::new(1, Overflow::DropOldest);
        (0..3).for_each(|n| _ = mailbox.push(n));
        mailbox.note_gap(Gap { reason: GapReason::Reconnect, missed: None });
        let told = Delivery::Gap(Gap { reason: GapReason::Reconnect, missed: None });
        assert_eq!(drain(&mailbox), [told, Delivery::Item(2)]);
    }

    #[test]
    fn a_hub_finds_exact_topics_and_patterns_and_forgets_them() {
        let hub: TopicRegistry<u32> = TopicRegistry::default();
        let subscribe = |topic: &str| {
            let mailbox = Arc::new(Mailbox::new(8, Overflow::DropOldest));
            let subscriber = Arc::new(Subscriber { id: next_id(), topic: topic.into(), mailbox, meta: () });
            (subscriber.id, hub.add(subscriber))
        };
        let (exact, first) = subscribe("a:b");
        let (glob, _) = subscribe("a:*");
        assert!(first && !subscribe("a:*").1);
        let matches = |topic: &str| {
            let mut n = 0;
            hub.for_each_match(topic, |_| n += 1);
            n
        };
        assert_eq!((matches("a:b"), matches("a:c"), matches("b")), (3, 2, 0));
        assert_eq!((hub.topics().len(), hub.count("a:*")), (2, 2));
        let remove = |topic: &str, id| hub.remove(topic, id).map(|(_, last)| last);
        assert_eq!(remove("a:b", exact), Some(true));
        assert_eq!(remove("a:*", glob), Some(false));
        assert_eq!(remove("a:*", glob), None);
    }
}
