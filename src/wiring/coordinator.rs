//! The stream coordinator: tells the channels of a stream what was persisted.
//!
//! It listens to a bus with a bounded queue of its own and publishes from a task of its own, so a slow, failing or
//! hanging stream never slows or fails an append: the lag grows, up to its bound, and what comes then is dropped and
//! told to its topics as a `stream.gap`.
//!
//! **Order.** What belongs to one subject waits in one lane: the next batch of a lane is started when the one before has
//! ended, all of it at once where the stream keeps the order of calls, message by message elsewhere. Lanes do not wait
//! for each other.
//!
//! **Failures.** A publish that failed, surely without effect, and may succeed later ([`Error::is_retryable`]) is tried
//! [`MAX_ATTEMPTS`] times, in its place: never when a later message of its lane has already arrived. What is lost after
//! that is counted as failed and told as a gap; what the stream refuses for good is counted only.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::bus::{Bus, BusEvent, Listener};
use crate::error::{Error, Result};
use crate::event::AnyEvent;
use crate::fanout::{Delivery, Gap, GapReason, Mailbox, Overflow, Push};
use crate::op::Op;
use crate::stream::{BLOCK_TIMEOUT, Message};
use crate::time::SharedClock;
use crate::wiring::channels::{ChannelOptions, Router, Statuses};
use crate::wiring::{Publisher, Wiring};

/// How often a publish is tried.
pub const MAX_ATTEMPTS: u32 = 5;
/// The pause before the second attempt; it doubles each time.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// Events taken from the queue that may be under way at a time.
const WINDOW: usize = 256;
/// A publish that takes longer has failed, perhaps with an effect.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(BLOCK_TIMEOUT.as_secs() + 5);

/// How a coordinator works.
#[derive(Debug, Clone)]
pub struct CoordinatorOptions {
    /// Which channels there are.
    pub channels: ChannelOptions,
    /// How many events may wait. As many topics are remembered to be told a gap.
    pub max_lag: usize,
    /// How long `stop` waits for what is under way.
    pub drain: Duration,
}

impl CoordinatorOptions {
    /// The defaults, for these channels.
    pub fn new(channels: ChannelOptions) -> Self {
        Self { channels, max_lag: 10_000, drain: Duration::from_secs(5) }
    }
}

/// What a coordinator has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CoordinatorStats {
    /// Messages that the stream took, for each channel, in the order of the table.
    pub routed: Vec<(Arc<str>, u64)>,
    /// Times that a row took an event but could not name its topic, a field being missing.
    pub skipped: u64,
    /// Messages that the stream did not take.
    pub failed: u64,
    /// Persisted events that wait or are under way.
    pub lag: u64,
    /// Persisted events that found no room, or were left when the time to stop was over.
    pub dropped: u64,
    /// Further attempts to publish a message.
    pub retries: u64,
    /// Gaps told.
    pub gaps: u64,
}

/// See the [module](self).
pub struct StreamCoordinator {
    bus: Arc<Bus>,
    core: Arc<Core>,
    runtime: Handle,
    drain: Duration,
    run: Mutex<Run>,
}

/// The run that is on, and how the last one ended.
#[derive(Default)]
struct Run {
    on: Option<Running>,
    /// True when the task of the last run is over.
    ended: Option<watch::Receiver<bool>>,
}

struct Running {
    listener: u64,
    stop: watch::Sender<bool>,
}

impl StreamCoordinator {
    /// A coordinator between a bus and a stream, to run on this runtime. Fails where the channels are not usable.
    pub fn new(
        bus: Arc<Bus>,
        stream: Arc<dyn Publisher>,
        options: CoordinatorOptions,
        runtime: Handle,
        clock: SharedClock,
    ) -> Result<Self> {
        let router = Router::new(&options.channels)?;
        let routed = router.channels().iter().map(|_| AtomicU64::new(0)).collect();
        let core = Core {
            router,
            stream,
            clock,
            max_lag: options.max_lag.max(1),
            routed,
            skipped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            lag: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            told: AtomicU64::new(0),
            gaps: Mutex::default(),
            gaps_due: AtomicBool::new(false),
            quiet: Notify::new(),
        };
        Ok(Self { bus, core: Arc::new(core), runtime, drain: options.drain, run: Mutex::default() })
    }

    /// What it has done so far.
    pub fn stats(&self) -> CoordinatorStats {
        self.core.stats()
    }

    /// Waits until nothing waits and nothing is under way.
    pub async fn idle(&self) {
        loop {
            let quiet = self.core.quiet.notified();
            tokio::pin!(quiet);
            quiet.as_mut().enable();
            if self.core.is_quiet() {
                return;
            }
            quiet.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wiring for StreamCoordinator {
    fn start(&self) -> Op<()> {
        let mut run = self.lock();
        if run.on.is_none() {
            let queue = Arc::new(Mailbox::new(self.core.max_lag, Overflow::DropNewest));
            let listener = self.bus.subscribe(Arc::new(Ear { core: self.core.clone(), queue: queue.clone() }));
            let (stop, stopped) = watch::channel(false);
            let (over, ended) = watch::channel(false);
            let before = run.ended.replace(ended);
            self.runtime.spawn({
                let (core, drain) = (self.core.clone(), self.drain);
                async move {
                    // What the run before still publishes is older than what this one will.
                    if let Some(mut before) = before {
                        _ = before.wait_for(|over| *over).await;
                    }
                    Worker::new(core, queue).run(stopped, drain).await;
                    over.send_replace(true);
                }
            });
            run.on = Some(Running { listener, stop });
        }
        Op::ok(())
    }

    fn stop(&self) -> Op<()> {
        let mut run = self.lock();
        if let Some(on) = run.on.take() {
            self.bus.unsubscribe(on.listener);
            on.stop.send_replace(true);
        }
        match run.ended.clone() {
            Some(mut ended) => Op::pending(async move {
                // The sender is only dropped without a word when the runtime goes, and the task with it.
                _ = ended.wait_for(|over| *over).await;
                Ok(())
            }),
            None => Op::ok(()),
        }
    }
}

impl Drop for StreamCoordinator {
    fn drop(&mut self) {
        drop(self.stop());
    }
}

/// What hears the bus.
struct Ear {
    core: Arc<Core>,
    queue: Arc<Mailbox<BusEvent>>,
}

impl Listener for Ear {
    fn on_event(&self, event: &BusEvent) {
        if !matches!(event.event, AnyEvent::Stored(_)) {
            return;
        }
        self.core.lag.fetch_add(1, Ordering::Relaxed);
        if !matches!(self.queue.push(event.clone()), Push::Queued) {
            self.core.dropped.fetch_add(1, Ordering::Relaxed);
            for topic in self.core.router.topics(event) {
                self.core.note_gap(topic.into(), GapReason::Overflow, 1);
            }
            self.core.gaps_due.store(true, Ordering::Relaxed);
            self.core.done(1);
        }
    }
}

/// What is missing on a topic that has not been told so yet.
struct Missing {
    reason: GapReason,
    count: u64,
}

/// A message on its way.
struct Item {
    message: Message,
    what: What,
    /// Whether its event is done with it.
    last: bool,
}

enum What {
    /// A message of this channel.
    Event(usize),
    /// Tells what is missing.
    Gap(Missing),
}

struct Core {
    router: Router,
    stream: Arc<dyn Publisher>,
    clock: SharedClock,
    max_lag: usize,
    routed: Box<[AtomicU64]>,
    skipped: AtomicU64,
    failed: AtomicU64,
    lag: AtomicU64,
    dropped: AtomicU64,
    retries: AtomicU64,
    told: AtomicU64,
    gaps: Mutex<HashMap<Arc<str>, Missing>>,
    /// Whether there are gaps to tell now, rather than with the next message of their topic.
    gaps_due: AtomicBool,
    quiet: Notify,
}

impl Core {
    fn stats(&self) -> CoordinatorStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CoordinatorStats {
            routed: self.router.channels().iter().cloned().zip(self.routed.iter().map(read)).collect(),
            skipped: read(&self.skipped),
            failed: read(&self.failed),
            lag: read(&self.lag),
            dropped: read(&self.dropped),
            retries: read(&self.retries),
            gaps: read(&self.told),
        }
    }

    fn is_quiet(&self) -> bool {
        self.lag.load(Ordering::Acquire) == 0 && !self.gaps_due.load(Ordering::Acquire)
    }

    /// So many events are over.
    fn done(&self, events: u64) {
        if events > 0 && self.lag.fetch_sub(events, Ordering::AcqRel) == events {
            self.quiet.notify_waiters();
        }
    }

    fn lock_gaps(&self) -> MutexGuard<'_, HashMap<Arc<str>, Missing>> {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_gap(&self, topic: Arc<str>, reason: GapReason, count: u64) {
        let mut gaps = self.lock_gaps();
        let room = gaps.len() < self.max_lag;
        match gaps.entry(topic) {
            Entry::Occupied(mut entry) => {
                let missing = entry.get_mut();
                missing.count += count;
                if missing.reason != reason {
                    missing.reason = GapReason::Reconnect;
                }
            }
            Entry::Vacant(entry) if room => _ = entry.insert(Missing { reason, count }),
            // So many topics at once: this one is not told, only counted among the dropped.
            Entry::Vacant(_) => {}
        }
    }

    fn gap_item(&self, topic: &str, missing: Missing) -> Item {
        let gap = Gap { reason: missing.reason, missed: Some(missing.count) };
        Item { message: Message::gap(topic, gap, self.clock.now_ms()), what: What::Gap(missing), last: false }
    }

    fn publish(&self, items: Vec<Item>) -> Vec<(Item, Op<()>)> {
        items
            .into_iter()
            .map(|item| {
                let op = self.stream.publish(item.message.clone());
                (item, op)
            })
            .collect()
    }

    fn delivered(&self, item: &Item) {
        match item.what {
            What::Event(channel) => _ = self.routed[channel].fetch_add(1, Ordering::Relaxed),
            What::Gap(_) => _ = self.told.fetch_add(1, Ordering::Relaxed),
        }
    }

    fn lost(&self, item: &Item, error: &Error) {
        let topic = item.message.topic();
        match &item.what {
            What::Event(_) => {
                if self.failed.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::warn!(%topic, code = %error.code(), "a message could not be published: {error} (told once, see stats().failed)");
                }
                if error.is_retryable() || error.is_maybe_applied() {
                    self.note_gap(topic.clone(), GapReason::Reconnect, 1);
                }
            }
            // It is told before the topic's next message.
            What::Gap(missing) => self.note_gap(topic.clone(), missing.reason, missing.count),
        }
    }

    /// Sees started publishes through, further attempts included.
    async fn settle(self: Arc<Self>, mut started: Vec<(Item, Op<()>)>) {
        let events = started.iter().filter(|(item, _)| item.last).count() as u64;
        let mut backoff = FIRST_BACKOFF;
        for attempt in 1.. {
            let results = join_all(started.into_iter().map(|(item, op)| async move {
                let result = match op {
                    Op::Ready(result) => result,
                    op => tokio::time::timeout(PUBLISH_TIMEOUT, op.into_future()).await.unwrap_or_else(|_| {
                        let secs = PUBLISH_TIMEOUT.as_secs();
                        Err(Error::unavailable(format!("the stream did not answer within {secs} s")).maybe_applied())
                    }),
                };
                (item, result)
            }))
            .await;
            let arrived = results.iter().rposition(|(_, result)| result.is_ok());
            let mut again = Vec::new();
            for (i, (item, result)) in results.into_iter().enumerate() {
                match result {
                    Ok(()) => self.delivered(&item),
                    Err(error) => {
                        let in_place = arrived.is_none_or(|arrived| arrived < i);
                        let harmless = error.is_retryable() && !error.is_maybe_applied();
                        if harmless && in_place && attempt < MAX_ATTEMPTS {
                            again.push(item);
                        } else {
                            self.lost(&item, &error);
                        }
                    }
                }
            }
            if again.is_empty() {
                break;
            }
            self.retries.fetch_add(again.len() as u64, Ordering::Relaxed);
            tokio::time::sleep(backoff).await;
            backoff *= 2;
            started = self.publish(again);
        }
        self.done(events);
    }
}

/// A batch of a lane under way; ends with the lane's name and the events that were in the batch.
type Batch = Pin<Box<dyn Future<Output = (Arc<str>, usize)> + Send>>;

/// The task of one run.
struct Worker {
    core: Arc<Core>,
    queue: Arc<Mailbox<BusEvent>>,
    statuses: Statuses,
    /// What waits behind the batch that is under way, for each lane that has one.
    lanes: HashMap<Arc<str>, VecDeque<Item>>,
    batches: FuturesUnordered<Batch>,
    /// Events in lanes.
    held: usize,
}

impl Worker {
    fn new(core: Arc<Core>, queue: Arc<Mailbox<BusEvent>>) -> Self {
        Self {
            core,
            queue,
            statuses: Statuses::default(),
            lanes: HashMap::new(),
            batches: FuturesUnordered::new(),
            held: 0,
        }
    }

    async fn run(mut self, mut stopped: watch::Receiver<bool>, drain: Duration) {
        let mut deadline = None;
        let mut taken = Vec::new();
        loop {
            if self.queue.is_empty() {
                self.tell_gaps();
                if deadline.is_some() && self.batches.is_empty() {
                    break;
                }
            }
            tokio::select! {
                biased;
                // Stopping, or the coordinator is gone.
                _ = stopped.wait_for(|stop| *stop), if deadline.is_none() => deadline = Some(Instant::now() + drain),
                () = until(deadline) => break,
                Some((lane, events)) = self.batches.next() => {
                    self.held -= events;
                    self.next_batch(lane);
                }
                delivery = self.queue.recv(), if self.held < WINDOW => {
                    taken.extend(delivery);
                    self.queue.take(WINDOW - self.held, &mut taken);
                    for delivery in taken.drain(..) {
                        // The queue's own gap is told by topic instead.
                        if let Delivery::Item(event) = delivery {
                            self.route(&event);
                        }
                    }
                }
            }
        }
        let left = (self.queue.len() + self.held) as u64;
        if left > 0 {
            tracing::warn!(events = left, "the stream coordinator stopped before the stream took everything");
            self.core.dropped.fetch_add(left, Ordering::Relaxed);
            self.core.done(left);
        }
        self.queue.close();
        self.core.gaps_due.store(false, Ordering::Release);
        self.core.quiet.notify_waiters();
    }

    fn route(&mut self, event: &BusEvent) {
        let core = self.core.clone();
        let (routed, skipped) = core.router.route(event, &mut self.statuses, core.clock.now_ms());
        core.skipped.fetch_add(skipped, Ordering::Relaxed);
        let Some(lane) = core.router.lane(event).filter(|_| !routed.is_empty()) else {
            return core.done(1);
        };
        let mut items = Vec::with_capacity(routed.len());
        {
            let mut gaps = core.lock_gaps();
            for routed in routed {
                if let Some(missing) = gaps.remove(routed.message.topic()) {
                    items.push(core.gap_item(routed.message.topic(), missing));
                }
                items.push(Item { message: routed.message, what: What::Event(routed.channel), last: false });
            }
        }
        if let Some(item) = items.last_mut() {
            item.last = true;
        }
        self.held += 1;
        self.send(lane, items);
    }

    /// Tells what is missing on topics that have had no message since.
    fn tell_gaps(&mut self) {
        if self.core.gaps_due.swap(false, Ordering::AcqRel) {
            let gaps = std::mem::take(&mut *self.core.lock_gaps());
            let items = gaps.into_iter().map(|(topic, missing)| self.core.gap_item(&topic, missing)).collect();
            self.send("".into(), items);
            if self.core.is_quiet() {
                self.core.quiet.notify_waiters();
            }
        }
    }

    /// Publishes, after what the lane has under way.
    fn send(&mut self, lane: Arc<str>, items: Vec<Item>) {
        match self.lanes.get_mut(&lane) {
            Some(waiting) => waiting.extend(items),
            None => {
                self.lanes.insert(lane.clone(), items.into());
                self.next_batch(lane);
            }
        }
    }

    /// Starts the next batch of a lane that has nothing under way, or forgets the lane.
    fn next_batch(&mut self, lane: Arc<str>) {
        while let Some(waiting) = self.lanes.get_mut(&lane).filter(|waiting| !waiting.is_empty()) {
            let size = if self.core.stream.keeps_order() { waiting.len() } else { 1 };
            let batch: Vec<Item> = waiting.drain(..size).collect();
            let events = batch.iter().filter(|item| item.last).count();
            let started = self.core.publish(batch);
            if started.iter().all(|(_, op)| matches!(op, Op::Ready(Ok(())))) {
                started.iter().for_each(|(item, _)| self.core.delivered(item));
                self.held -= events;
                self.core.done(events as u64);
                continue;
            }
            let settled = self.core.clone().settle(started);
            self.batches.push(Box::pin(async move {
                settled.await;
                (lane, events)
            }));
            return;
        }
        self.lanes.remove(&lane);
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
