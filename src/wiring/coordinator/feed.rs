//! The coordinator that loses nothing: it follows the feed of a store with a durable consumer.
//!
//! While the consumer has published everything, an event is published in the call that appended it ([`ConsumerHandler::offer`]).
//!
//! The log is the buffer. A message that the stream does not accept is published again until it does, in its place in its
//! subject, and after a crash the consumer goes on after its cursor. A message may be published more than once, which
//! `metadata.eventId` and `metadata.position` show.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::bus::BusEvent;
use crate::error::{Error, Result};
use crate::event::{AnyEvent, Event};
use crate::name::ConsumerName;
use crate::op::{BoxFuture, Op};
use crate::store::consumer::{
    Batch, BatchOutcome, Consumer, ConsumerEvent, ConsumerHandler, ConsumerOptions, Offer, RetryDelay, StartAt,
};
use crate::store::{Appended, ConsumerInfo, Lease, Origin, Position, StoreBackend};
use crate::sync::lock;
use crate::time::SharedClock;
use crate::wiring::channels::{FeedEvent, Router};
use crate::wiring::coordinator::publishing::{Channels, Item, outcome};
use crate::wiring::coordinator::{CoordinatorOptions, CoordinatorStats};
use crate::wiring::run_status::RunStatusTracker;
use crate::wiring::{Publisher, Wiring};

/// The default name of the consumer.
pub const CONSUMER: &str = "stream-coordinator";
/// Subjects whose events are published at a time.
const CONCURRENCY: usize = 64;
/// The delays before a message is published again.
const RETRY: RetryDelay =
    RetryDelay::Exponential { delay: Duration::from_millis(100), max_delay: Duration::from_secs(5) };
/// How long `start` tries again while the store cannot be reached.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const START_RETRY_DELAY: Duration = Duration::from_millis(200);
/// How often `stop` looks whether the consumer has caught up.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(5);

/// Publishes every event of a store's feed to the channels of a stream, at least once: after a crash it goes on after its
/// cursor.
pub struct FeedCoordinator {
    store: Arc<dyn StoreBackend>,
    name: Arc<str>,
    routing: Arc<FeedRouting>,
    clock: SharedClock,
    runtime: Handle,
    drain_timeout: Duration,
    consumer: Arc<Mutex<Option<Consumer>>>,
}

impl FeedCoordinator {
    /// Creates a coordinator between a store with a feed and a stream that runs on `runtime`. Its cursor is kept in the
    /// store under `name`.
    ///
    /// # Errors
    /// [`crate::error::Code::Invalid`] where a channel or the name is not usable.
    pub fn new(
        store: Arc<dyn StoreBackend>,
        stream: Arc<dyn Publisher>,
        name: &str,
        options: CoordinatorOptions,
        runtime: Handle,
        clock: SharedClock,
    ) -> Result<Self> {
        let name: Arc<str> = ConsumerName::new(name)?.into();
        let router = Router::new(&options.channels)?;
        let channels = Arc::new(Channels::new(router, stream, clock.clone(), options.max_lag));
        let routing = Arc::new(FeedRouting { channels, statuses: Mutex::default() });
        let drain_timeout = options.drain_timeout;
        Ok(Self { store, name, routing, clock, runtime, drain_timeout, consumer: Arc::default() })
    }

    /// Returns the counters.
    pub fn stats(&self) -> CoordinatorStats {
        let lag = self.lock().as_ref().map_or(0, |consumer| consumer.stats().lag);
        CoordinatorStats { lag, ..self.routing.channels.stats() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Consumer>> {
        lock(&self.consumer)
    }
}

impl Wiring for FeedCoordinator {
    fn start(&self) -> Op<()> {
        if self.lock().is_some() {
            return Op::ok(());
        }
        let channels = &self.routing.channels;
        self.store.set_instance(channels.router().instance());
        channels.add_instance();
        let opening = self.store.open();
        // Before anything is appended after this call.
        let head = self.store.feed_head();
        let (store, name, clock, runtime) =
            (self.store.clone(), self.name.clone(), self.clock.clone(), self.runtime.clone());
        let (handler, slot, is_shared) = (self.routing.clone(), self.consumer.clone(), channels.is_shared());
        Op::pending(async move {
            opening.await?;
            let from = head.await?.map_or(StartAt::Beginning, StartAt::Position);
            let begin = async || {
                let mut options = ConsumerOptions {
                    from: from.clone(),
                    // An event is never parked: what the stream refuses permanently is counted and skipped.
                    attempts: u32::MAX,
                    retry_delay: RETRY,
                    concurrency: CONCURRENCY,
                    ..ConsumerOptions::default()
                };
                let (mut name, mut lease) = (name.to_string(), None);
                if !is_shared {
                    let reserved = reserve(&store, &name).await?;
                    if reserved.not_before.is_none() && !reserved.is_first {
                        // Those that ran before have published nothing.
                        options.from = StartAt::Beginning;
                    }
                    options.not_before = reserved.not_before;
                    (name, lease) = (reserved.name, Some(reserved.lease));
                }
                let (name, handler) = (ConsumerName::new(&name)?, handler.clone());
                Consumer::start_with(lease, store.clone(), name, options, handler, clock.clone(), &runtime).await
            };
            let deadline = Instant::now() + START_TIMEOUT;
            let consumer = loop {
                match begin().await {
                    // The connection broke meanwhile.
                    Err(error) if error.is_retryable() && Instant::now() < deadline => {
                        tokio::time::sleep(START_RETRY_DELAY).await;
                    }
                    result => break result?,
                }
            };
            *lock(&slot) = Some(consumer);
            Ok(())
        })
    }

    /// Publishes what was stored before, within a timeout. What is left is published after the next start.
    fn stop(&self) -> Op<()> {
        let Some(consumer) = self.lock().take() else { return Op::ok(()) };
        let (drain_timeout, store, name) = (self.drain_timeout, self.store.clone(), self.name.clone());
        Op::pending(async move {
            let caught_up = async {
                while consumer.stats().active && consumer.stats().lag > 0 {
                    tokio::time::sleep(CATCH_UP_INTERVAL).await;
                }
            };
            let is_caught_up = tokio::select! {
                result = tokio::time::timeout(drain_timeout, caught_up) => result.is_ok(),
                // Its store was closed.
                () = consumer.ended() => consumer.stats().lag == 0,
            };
            if !is_caught_up {
                tracing::debug!(
                    "the stream coordinator stopped before the stream accepted every event; it will go on there"
                );
            }
            consumer.stop().await?;
            // A name with a number is only of use while several coordinators run.
            if consumer.name() != &*name
                && let Ok(name) = ConsumerName::new(consumer.name())
            {
                store.consumer_delete(name).await?;
            }
            Ok(())
        })
    }
}

/// A name of a coordinator whose stream only reaches subscribers of its own.
struct Reserved {
    name: String,
    lease: Lease,
    /// Where the newest of the coordinators on the store is: what is before has been published by it.
    not_before: Option<Position>,
    /// Whether there never was a coordinator on the store.
    is_first: bool,
}

/// Reserves the first name that is free: the given one, then with a number behind it.
async fn reserve(store: &Arc<dyn StoreBackend>, base: &str) -> Result<Reserved> {
    for number in 1.. {
        let name = if number == 1 { base.to_owned() } else { format!("{base}:{number}") };
        let Some(lease) = store.consumer_try_acquire(ConsumerName::new(&name)?).await? else { continue };
        let (mut newest, mut is_first): (Option<(u64, Position)>, bool) = (None, true);
        for ConsumerInfo { name, position, .. } in store.consumer_list().await? {
            let is_slot = name.strip_prefix(base).is_some_and(|rest| {
                rest.is_empty() || rest.strip_prefix(':').is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
            });
            is_first &= !is_slot;
            if let Some(position) = position.filter(|_| is_slot) {
                let number = store.feed_number(&position)?;
                if newest.as_ref().is_none_or(|(other, _)| *other < number) {
                    newest = Some((number, position));
                }
            }
        }
        return Ok(Reserved { name, lease, not_before: newest.map(|(_, position)| position), is_first });
    }
    Err(Error::closed("the store"))
}

struct FeedRouting {
    channels: Arc<Channels>,
    statuses: Mutex<RunStatusTracker>,
}

impl FeedRouting {
    /// Returns the messages of an event of the feed.
    fn route(&self, subject: &Arc<str>, position: &Position, origin: &Origin, event: Event) -> Vec<Item> {
        let channels = &self.channels;
        let appended_by = match origin {
            Origin::Instance(instance) => Some(instance),
            // Its program publishes to the same broker.
            Origin::OtherWriter if channels.is_shared() => return Vec::new(),
            Origin::Unknown | Origin::OtherWriter => None,
        };
        let event = BusEvent { subject: Some(subject.clone()), event: AnyEvent::Stored(event) };
        let at = FeedEvent { event: &event, position: position.as_str(), appended_by };
        let (routed, skipped) =
            channels.router().route_at(&at, &mut lock(&self.statuses), channels.now_ms(), |channel, topic| {
                channels.skip(channel, topic, &event)
            });
        channels.record_skipped(skipped);
        channels.event_items(&event, routed)
    }
}

impl ConsumerHandler for FeedRouting {
    fn handle(&self, batch: Batch) -> BoxFuture<BatchOutcome> {
        let channels = self.channels.clone();
        let Batch { missed, events, mut stopping } = batch;
        let items = |event: ConsumerEvent| match Event::parse(&event.event) {
            Ok(record) => self.route(&event.subject, &event.position, &event.origin, record),
            Err(error) => {
                tracing::warn!(code = %error.code(), subject = %event.subject, "an event cannot be read and was not published: {error}");
                Vec::new()
            }
        };
        let events: Vec<_> = events.into_iter().map(items).collect();
        Box::pin(async move {
            if let Some(missed) = missed {
                report_gap(&channels, missed, &mut stopping).await;
            }
            let mut outcome = BatchOutcome::default();
            // A stream that keeps the order of calls takes the whole batch at once.
            let mut started = Vec::new();
            let mut waiting = events.into_iter();
            if channels.keeps_order() {
                started.extend(waiting.by_ref().map(|items| channels.publish(items)));
            }
            let mut started = started.into_iter();
            loop {
                let published = match (started.next(), waiting.len()) {
                    (Some(ops), _) => complete(&channels, ops).await,
                    (None, 0) => break,
                    _ if *stopping.borrow() => break,
                    _ => publish_in_order(&channels, waiting.next().unwrap_or_default()).await,
                };
                if let Err(failure) = published {
                    outcome.failure = Some(failure);
                    break;
                }
                outcome.handled += 1;
            }
            Ok(outcome)
        })
    }

    fn offer(&self, appended: &Appended<'_>) -> Offer {
        let channels = self.channels.clone();
        let mut items = self.route(appended.subject, &appended.position, &appended.origin, appended.event.clone());
        let rest = if channels.keeps_order() || items.is_empty() { Vec::new() } else { items.split_off(1) };
        let ops = channels.publish(items);
        if rest.is_empty() && ops.iter().all(|(_, op)| matches!(op, Op::Ready(Ok(())))) {
            ops.iter().for_each(|(item, _)| channels.record_delivery(item));
            return Offer::Handled;
        }
        Offer::Started(Box::pin(async move {
            let published = async {
                complete(&channels, ops).await?;
                publish_in_order(&channels, rest).await
            };
            Ok(match published.await {
                Ok(()) => BatchOutcome { handled: 1, failure: None },
                Err(failure) => BatchOutcome { handled: 0, failure: Some(failure) },
            })
        }))
    }
}

/// Reports that events were removed from the log before they were published, to the subscribers of every channel: which
/// topics they were for is not known any more. Tries until the stream accepts it, or the consumer stops.
async fn report_gap(channels: &Channels, missed: u64, stopping: &mut watch::Receiver<bool>) {
    tracing::warn!(
        code = "NVENT_GAP",
        "{missed} events were removed from the log before the stream coordinator had published them"
    );
    channels.record_dropped(missed);
    for attempt in 1.. {
        let Err(error) = outcome(channels.note_trimmed(missed)).await else { return channels.record_gap_published() };
        if !error.is_retryable() && !error.is_maybe_applied() {
            tracing::warn!(code = %error.code(), "a gap could not be published: {error}");
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY.after(attempt)) => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
    }
}

/// Waits for publishes that have been started. Returns why one must be repeated.
async fn complete(channels: &Channels, started: Vec<(Item, Op<()>)>) -> std::result::Result<(), String> {
    for (item, op) in started {
        let result = outcome(op).await;
        if let Some(failure) = channels.record_outcome(&item, result) {
            return Err(failure);
        }
    }
    Ok(())
}

/// Publishes the messages of an event one after the other.
async fn publish_in_order(channels: &Channels, items: Vec<Item>) -> std::result::Result<(), String> {
    for item in items {
        complete(channels, channels.publish(vec![item])).await?;
    }
    Ok(())
}
