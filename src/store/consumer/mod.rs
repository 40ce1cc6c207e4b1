//! Durable consumers: a loop over the feed with a cursor in the store, retries, and parked events.
//!
//! | file | what it does |
//! |---|---|
//! | this one | the consumer as its user sees it: options, handler, statistics |
//! | `worker` | the task: waits for the lease; while it holds it, reads the feed, calls the handler, stores the cursor |
//! | `live` | what is appended once everything was read: taken without reading it |
//! | `partitions` | events on their way to the handler, in order within a subject |
//! | `lease` | one consumer of a name is at work at a time |
//! | `state` | what a store keeps of a consumer |
//!
//! **At least once.** The cursor is stored after the handler has succeeded, at the latest after [`CURSOR_DELAY`] or a few
//! hundred events. After a crash the events since the stored cursor are delivered again.

mod lease;
mod live;
mod partitions;
mod state;
mod worker;

pub use lease::Lease;
pub(crate) use lease::LocalLeases;
pub use state::{ConsumerChange, ConsumerFilter, ConsumerInfo, ConsumerState, ParkedEvent};

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use self::worker::{Command, Worker};
use super::StoreBackend;
use super::feed::{Appended, Origin, Position};
use crate::error::{Code, Error, Result};
use crate::json::{self, Json};
use crate::name::ConsumerName;
use crate::op::{BoxFuture, Completer, Op, completion};
use crate::sync::lock;
use crate::time::SharedClock;

/// How long the cursor of handled events may wait to be stored together with that of later ones.
pub const CURSOR_DELAY: Duration = Duration::from_millis(200);

/// The cursor is stored at once when it has moved over so many events.
const MAX_UNSAVED: usize = 256;

/// Where a consumer of a new name begins. One that is known goes on after its cursor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StartAt {
    /// With the oldest event that is stored.
    Beginning,
    /// With the first event that is stored from now on.
    #[default]
    Now,
    /// After this position.
    Position(Position),
}

/// The pause before an event is delivered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum RetryDelay {
    /// Always the same.
    Fixed {
        /// Before each further delivery.
        #[serde(deserialize_with = "json::milliseconds")]
        delay: Duration,
    },
    /// Doubled with each attempt.
    Exponential {
        /// Before the second delivery.
        #[serde(deserialize_with = "json::milliseconds")]
        delay: Duration,
        /// The longest, or `delay` where that is longer.
        #[serde(deserialize_with = "json::milliseconds", default = "default_max_delay")]
        max_delay: Duration,
    },
}

fn default_max_delay() -> Duration {
    Duration::from_secs(30)
}

impl Default for RetryDelay {
    fn default() -> Self {
        Self::Exponential { delay: Duration::from_millis(200), max_delay: default_max_delay() }
    }
}

impl RetryDelay {
    /// Returns the pause after this attempt, which counts from 1.
    pub fn after(self, attempt: u32) -> Duration {
        match self {
            Self::Fixed { delay } => delay,
            Self::Exponential { delay, max_delay } => {
                let factor = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
                delay.saturating_mul(factor).min(max_delay.max(delay))
            }
        }
    }
}

/// The options of a consumer.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumerOptions {
    /// Which events it consumes.
    pub filter: ConsumerFilter,
    /// Where it begins if its name is new.
    pub from: StartAt,
    /// Deliveries before an event is parked, at least 1.
    pub attempts: u32,
    /// The pause before the next delivery.
    #[serde(rename = "backoff")]
    pub retry_delay: RetryDelay,
    /// It goes on after this position if its own is before it, or its name is new.
    #[serde(skip)]
    pub not_before: Option<Position>,
    /// Subjects handled at a time, at least 1. With 1 all events are handled in the order of the feed.
    pub concurrency: usize,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            filter: ConsumerFilter::default(),
            from: StartAt::default(),
            not_before: None,
            attempts: 5,
            retry_delay: RetryDelay::default(),
            concurrency: 1,
        }
    }
}

/// An event as it is delivered.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsumerEvent {
    /// Where it was stored.
    pub subject: Arc<str>,
    /// Where it is in the feed.
    pub position: Position,
    /// The record.
    pub event: Json,
    /// Who appended it.
    pub origin: Origin,
    /// Which delivery this is, from 1.
    pub attempt: u32,
}

/// Events to handle one after the other.
#[derive(Debug)]
pub struct Batch {
    /// Events that retention or trimming removed before this consumer had them, to be reported before the first event.
    pub missed: Option<u64>,
    /// The events. None: there is only a gap to report.
    pub events: Vec<ConsumerEvent>,
    /// Becomes true when the consumer stops or loses its lease: no further event of the batch should be begun.
    pub stopping: watch::Receiver<bool>,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BatchOutcome {
    /// How many events, from the first on, were handled.
    pub handled: usize,
    /// Why the event after those failed. None: it was not begun, or there is none.
    pub failure: Option<String>,
}

/// What a handler made of an event that it was offered.
pub enum Offer {
    /// It was not begun: it comes in a batch.
    Declined,
    /// It was handled.
    Handled,
    /// It was begun; this is the outcome, as that of a batch of one. If it fails the event comes again, in a batch.
    Started(BoxFuture<BatchOutcome>),
}

/// Handles the events of a consumer.
pub trait ConsumerHandler: Send + Sync + 'static {
    /// Handles the events of a batch in their order, and ends at the first that fails. Events that it did not begin are
    /// delivered again. An error counts as a failure of the first event.
    fn handle(&self, batch: Batch) -> BoxFuture<BatchOutcome>;

    /// Offers an event in the call that appended it, which has all events before it handled and none under way. It may be
    /// called under a store's lock: it neither blocks nor calls the store.
    fn offer(&self, appended: &Appended<'_>) -> Offer {
        let _ = appended;
        Offer::Declined
    }
}

/// The numbers of a consumer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConsumerStats {
    /// Every event up to here was handled or parked.
    pub position: Option<Position>,
    /// Events stored after that position, whether or not its globs match them.
    pub lag: u64,
    /// Events handled by this process.
    pub delivered: u64,
    /// Deliveries that failed in this process.
    pub failed: u64,
    /// Parked events of the consumer.
    pub parked: u64,
    /// Whether this process works for the name. Otherwise it stands by.
    pub active: bool,
}

/// A durable consumer at work, or standing by until the one at work ends. When it is dropped it stops.
///
/// ```
/// use std::sync::Arc;
///
/// use nvent_native::event::NewEvent;
/// use nvent_native::name::{ConsumerName, Subject};
/// use nvent_native::op::BoxFuture;
/// use nvent_native::store::consumer::{Batch, BatchOutcome, Consumer, ConsumerHandler, ConsumerOptions};
/// use nvent_native::store::{MemoryStore, StoreBackend};
/// use nvent_native::time::system_clock;
/// use tokio::sync::mpsc;
///
/// /// Passes on the subjects of the events that it handles.
/// struct Subjects(mpsc::UnboundedSender<Arc<str>>);
///
/// impl ConsumerHandler for Subjects {
///     fn handle(&self, batch: Batch) -> BoxFuture<BatchOutcome> {
///         batch.events.iter().for_each(|event| _ = self.0.send(event.subject.clone()));
///         let outcome = BatchOutcome { handled: batch.events.len(), failure: None };
///         Box::pin(async { Ok(outcome) })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> nvent_native::Result<()> {
/// let store: Arc<dyn StoreBackend> = Arc::new(MemoryStore::new(system_clock()));
/// let (sender, mut subjects) = mpsc::unbounded_channel();
/// let consumer = Consumer::start(
///     store.clone(),
///     ConsumerName::new("mails")?,
///     ConsumerOptions::default(),
///     Arc::new(Subjects(sender)),
///     system_clock(),
///     &tokio::runtime::Handle::current(),
/// )
/// .await?;
/// store.append(Subject::new("orders")?, NewEvent::parse(r#"{"type":"paid"}"#)?, None, None).await?;
/// assert_eq!(subjects.recv().await.as_deref(), Some("orders"));
/// consumer.stop().await?;
/// # Ok(())
/// # }
/// ```
pub struct Consumer {
    store: Arc<dyn StoreBackend>,
    name: Arc<str>,
    stats: Arc<Mutex<ConsumerStats>>,
    newest: watch::Receiver<u64>,
    commands: mpsc::UnboundedSender<Command>,
    stop: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
}

impl Consumer {
    /// Starts a consumer. The operation completes when its cursor is stored: from then on it misses nothing.
    pub fn start(
        store: Arc<dyn StoreBackend>,
        name: &ConsumerName,
        options: ConsumerOptions,
        handler: Arc<dyn ConsumerHandler>,
        clock: SharedClock,
        runtime: &Handle,
    ) -> Op<Self> {
        Self::start_with(None, store, name, options, handler, clock, runtime)
    }

    /// Starts a consumer whose name has been reserved with a lease, if there is one.
    pub fn start_with(
        lease: Option<Lease>,
        store: Arc<dyn StoreBackend>,
        name: &ConsumerName,
        options: ConsumerOptions,
        handler: Arc<dyn ConsumerHandler>,
        clock: SharedClock,
        runtime: &Handle,
    ) -> Op<Self> {
        let opening = store.open();
        // Before anything is appended after this call.
        let head = store.feed_head();
        let name: Arc<str> = name.into();
        let runtime = runtime.clone();
        Op::pending(async move {
            opening.await?;
            let head = head.await?;
            let newest = store.feed_watch()?;
            let (commands, receiver) = mpsc::unbounded_channel();
            let (stop, stopping) = watch::channel(false);
            let (end, ended) = watch::channel(false);
            let (ready, started) = completion(|| Error::closed("the consumer"));
            let stats = Arc::new(Mutex::new(ConsumerStats::default()));
            let worker = Worker {
                lease,
                store: store.clone(),
                name: name.clone(),
                options,
                handler,
                clock,
                head,
                stats: stats.clone(),
                commands: receiver,
                stop: stopping,
            };
            runtime.spawn(async move {
                worker.run(ready).await;
                end.send_replace(true);
            });
            let consumer = Self { store, name, stats, newest, commands, stop, ended };
            started.await?;
            Ok(consumer)
        })
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its numbers.
    pub fn stats(&self) -> ConsumerStats {
        let mut stats = lock(&self.stats).clone();
        let position = stats.position.as_ref().map_or(Ok(0), |position| self.store.feed_number(position)).unwrap_or(0);
        stats.lag = self.newest.borrow().saturating_sub(position);
        stats
    }

    /// Returns its parked events after a position.
    pub fn parked(&self, after: Option<Position>, limit: usize) -> Op<Vec<ParkedEvent>> {
        match ConsumerName::new(&self.name) {
            Ok(name) => self.store.consumer_parked(name, after, limit),
            Err(error) => Op::err(error),
        }
    }

    /// Delivers parked events again, these or all. Completes with their number when each was handled or parked again.
    /// Fails with [`Code::Locked`] while another process works for the name.
    pub fn replay(&self, positions: Option<Vec<Position>>) -> Op<u64> {
        let (reply, completion) = completion(|| Error::closed("the consumer"));
        // If the worker has ended the command is dropped, which completes it.
        drop(self.commands.send(Command::Replay { positions, reply }));
        Op::Completion(completion)
    }

    /// Waits for the handler at work, stores the cursor and stops.
    pub fn stop(&self) -> Op<()> {
        self.stop.send_replace(true);
        let mut ended = self.ended.clone();
        Op::pending(async move {
            // The sender is dropped without a value only when the runtime shuts down.
            let _ = ended.wait_for(|ended| *ended).await;
            Ok(())
        })
    }

    /// Returns a future that resolves when the consumer has ended: it was stopped, or its store was closed.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut ended = self.ended.clone();
        async move {
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// A consumer in a list, with its lag.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedConsumer {
    /// What is stored of it.
    pub info: ConsumerInfo,
    /// Events stored after its position, whether or not its globs match them.
    pub lag: u64,
}

/// Returns all consumers of a store, by name.
pub fn list(store: &Arc<dyn StoreBackend>) -> Op<Vec<ListedConsumer>> {
    let (store, listed, head) = (store.clone(), store.consumer_list(), store.feed_head());
    Op::pending(async move {
        let number = |position: &Option<Position>| -> Result<u64> {
            position.as_ref().map_or(Ok(0), |position| store.feed_number(position))
        };
        let (listed, newest) = (listed.await?, number(&head.await?)?);
        let with_lag = |info: ConsumerInfo| {
            let lag = newest.saturating_sub(number(&info.position)?);
            Ok(ListedConsumer { info, lag })
        };
        listed.into_iter().map(with_lag).collect()
    })
}

/// Returns the error for a command to a consumer that stands by.
fn stands_by(name: &str) -> Error {
    Error::new(
        Code::Locked,
        format!("consumer {name:?}: another one works for this name: replay there, or stop it and try again"),
    )
}

/// Completes a reply with an error.
fn refuse<T>(reply: Completer<T>, error: Error) {
    reply.complete(Err(error));
}

/// Resolves when the value is true, or can not become so any more.
async fn is_set(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|set| *set).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Result<ConsumerOptions> {
        json::options("options", text)
    }

    #[test]
    fn the_pause_doubles_up_to_its_bound_which_is_30_s_or_the_first_pause() {
        let pauses = |backoff: &str| {
            let options = options(&format!("{{\"backoff\":{backoff}}}")).unwrap();
            [1, 2, 3, 40].map(|attempt| options.retry_delay.after(attempt).as_millis())
        };
        assert_eq!(pauses(r#"{"type":"fixed","delay":70}"#), [70; 4]);
        assert_eq!(pauses(r#"{"type":"exponential","delay":200}"#), [200, 400, 800, 30_000]);
        assert_eq!(pauses(r#"{"type":"exponential","delay":200,"maxDelay":500}"#), [200, 400, 500, 500]);
        assert_eq!(pauses(r#"{"type":"exponential","delay":60000}"#), [60_000; 4]);
        assert_eq!(pauses(r#"{"type":"exponential","delay":0}"#), [0; 4]);
        assert_eq!(RetryDelay::default().after(1), Duration::from_millis(200));
    }

    #[test]
    fn a_new_consumer_begins_at_the_position_that_is_given() {
        let from = |text: &str| options(&format!("{{\"from\":{text}}}")).map(|options| options.from);
        assert_eq!(from(r#""beginning""#).unwrap(), StartAt::Beginning);
        assert_eq!(from(r#"{"position":"17"}"#).unwrap(), StartAt::Position(Position::new("17").unwrap()));
        assert_eq!(options("{}").unwrap().from, StartAt::Now);
        let error = from(r#"{"position":""}"#).unwrap_err();
        assert_eq!(error.code(), Code::Invalid);
        assert!(error.message().starts_with("options.from"), "{}", error.message());
    }
}
