//! The stream coordinator: publishes persisted events to the channels of a stream.
//!
//! It subscribes to a bus with a bounded queue and publishes from its own task, so a slow, failing or hanging stream never
//! slows or fails an append: the lag grows up to its limit, and events beyond it are dropped and reported on their topics as
//! a `stream.gap`. A stream that accepts messages at once gets them in the call, while nothing is queued.
//!
//! | file | job |
//! |---|---|
//! | `mod.rs` | the public type: options, counters, start and stop |
//! | `routing.rs` | the task: takes events from the queue, orders them by partition |
//! | `feed.rs` | the coordinator at least once: follows the feed of a store instead of the bus |
//! | `publishing.rs` | publishes batches: retries, failures, gaps, counters |

mod feed;
mod publishing;
mod routing;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::bus::{Bus, BusEvent, Listener};
use crate::error::Result;
use crate::event::AnyEvent;
use crate::fanout::{Mailbox, Overflow};
use crate::op::Op;
use crate::sync::lock;
use crate::time::SharedClock;
use crate::wiring::channels::{ChannelOptions, Router};
use crate::wiring::run_status::RunStatusTracker;
use crate::wiring::{Publisher, Wiring};

pub use feed::{CONSUMER, FeedCoordinator};
use publishing::Channels;
pub use publishing::MAX_ATTEMPTS;
use routing::RoutingTask;

/// Options of a coordinator.
#[derive(Debug, Clone)]
pub struct CoordinatorOptions {
    /// The channels.
    pub channels: ChannelOptions,
    /// Limit of events that wait. Gaps are kept for as many topics.
    pub max_lag: usize,
    /// How long `stop` waits for events that are queued or in flight.
    pub drain_timeout: Duration,
}

impl CoordinatorOptions {
    /// Returns the defaults for these channels.
    pub fn new(channels: ChannelOptions) -> Self {
        Self { channels, max_lag: 10_000, drain_timeout: Duration::from_secs(5) }
    }
}

/// Counters of a coordinator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CoordinatorStats {
    /// Messages that the stream accepted, per channel, in the order of the table.
    pub routed: Vec<(Arc<str>, u64)>,
    /// Rows that matched an event whose topic could not be rendered because a field was missing.
    pub skipped: u64,
    /// Messages that the stream did not accept.
    pub failed: u64,
    /// Persisted events that are queued or in flight.
    pub lag: u64,
    /// Persisted events that exceeded the lag limit, or remained when the drain timeout passed.
    pub dropped: u64,
    /// Repeated attempts to publish a message.
    pub retries: u64,
    /// Gaps published.
    pub gaps: u64,
}

/// Publishes persisted events to the channels of a stream. See the [module](self).
///
/// ```
/// use std::sync::Arc;
///
/// use nvent_native::bus::Bus;
/// use nvent_native::event::NewEvent;
/// use nvent_native::fanout::Delivery;
/// use nvent_native::name::Subject;
/// use nvent_native::store::{Announce, MemoryStore, StoreBackend};
/// use nvent_native::stream::{MemoryStream, StreamBackend, SubscribeSpec};
/// use nvent_native::time::system_clock;
/// use nvent_native::wiring::Wiring;
/// use nvent_native::wiring::channels::ChannelOptions;
/// use nvent_native::wiring::coordinator::{CoordinatorOptions, StreamCoordinator};
/// use tokio::runtime::Handle;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> nvent_native::Result<()> {
/// let bus = Bus::new();
/// let stream: Arc<dyn StreamBackend> = Arc::new(MemoryStream::new(None, system_clock()));
/// let options = CoordinatorOptions::new(ChannelOptions::new("this instance"));
/// let coordinator =
///     StreamCoordinator::new(bus.clone(), Arc::new(stream.clone()), options, Handle::current(), system_clock())?;
/// coordinator.start().await?;
///
/// let events = stream.subscribe("flow:event:r1", SubscribeSpec::default(), None).await?;
/// let announce: Announce = Arc::new(move |subject, event| bus.announce(subject, event));
/// let completed = NewEvent::parse(r#"{"type":"flow.completed","runId":"r1","flowName":"order"}"#)?;
/// MemoryStore::new(system_clock()).append(Subject::new("nq:flow:r1")?, completed, None, Some(announce)).await?;
/// match events.mailbox.recv().await {
///     Some(Delivery::Item(incoming)) => assert_eq!(incoming.message.kind(), Some("flow.completed")),
///     other => panic!("{other:?}"),
/// }
/// coordinator.stop().await?;
/// # Ok(())
/// # }
/// ```
pub struct StreamCoordinator {
    bus: Arc<Bus>,
    channels: Arc<Channels>,
    runtime: Handle,
    drain_timeout: Duration,
    lifecycle: Mutex<Lifecycle>,
}

/// The current session and the end of the last one.
#[derive(Default)]
struct Lifecycle {
    session: Option<Session>,
    /// Becomes true when the task of the last session has ended.
    ended: Option<watch::Receiver<bool>>,
}

/// From a start to its stop.
struct Session {
    listener: u64,
    stop: watch::Sender<bool>,
}

impl StreamCoordinator {
    /// Creates a coordinator between a bus and a stream that runs on `runtime`.
    ///
    /// # Errors
    /// [`crate::error::Code::Invalid`] where a channel is not usable.
    pub fn new(
        bus: Arc<Bus>,
        stream: Arc<dyn Publisher>,
        options: CoordinatorOptions,
        runtime: Handle,
        clock: SharedClock,
    ) -> Result<Self> {
        let router = Router::new(&options.channels)?;
        let channels = Channels::new(router, stream, clock, options.max_lag);
        Ok(Self {
            bus,
            channels: Arc::new(channels),
            runtime,
            drain_timeout: options.drain_timeout,
            lifecycle: Mutex::default(),
        })
    }

    /// Returns the counters.
    pub fn stats(&self) -> CoordinatorStats {
        self.channels.stats()
    }

    /// Resolves when no event is queued or in flight.
    pub async fn idle(&self) {
        self.channels.wait_idle().await;
    }

    fn lock(&self) -> MutexGuard<'_, Lifecycle> {
        lock(&self.lifecycle)
    }
}

impl Wiring for StreamCoordinator {
    fn start(&self) -> Op<()> {
        let mut lifecycle = self.lock();
        if lifecycle.session.is_none() {
            let queue = Arc::new(Mailbox::new(self.channels.max_lag(), Overflow::DropNewest));
            let statuses = Arc::new(Mutex::new(RunStatusTracker::default()));
            let listener = CoordinatorListener {
                channels: self.channels.clone(),
                queue: queue.clone(),
                statuses: statuses.clone(),
                runtime: self.runtime.clone(),
            };
            let listener = self.bus.subscribe(Arc::new(listener));
            let (stop, stopped) = watch::channel(false);
            let (over, ended) = watch::channel(false);
            let previous = lifecycle.ended.replace(ended);
            self.runtime.spawn({
                let (channels, drain_timeout) = (self.channels.clone(), self.drain_timeout);
                async move {
                    // The previous session's remaining events are older than this one's.
                    if let Some(mut previous) = previous {
                        _ = previous.wait_for(|over| *over).await;
                    }
                    RoutingTask::new(channels, queue, statuses).run(stopped, drain_timeout).await;
                    over.send_replace(true);
                }
            });
            lifecycle.session = Some(Session { listener, stop });
        }
        Op::ok(())
    }

    fn stop(&self) -> Op<()> {
        let mut lifecycle = self.lock();
        if let Some(session) = lifecycle.session.take() {
            self.bus.unsubscribe(session.listener);
            session.stop.send_replace(true);
        }
        match lifecycle.ended.clone() {
            Some(mut ended) => Op::pending(async move {
                // The sender is dropped without a value only when the runtime shuts down.
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

/// Queues the persisted events of a bus.
struct CoordinatorListener {
    channels: Arc<Channels>,
    queue: Arc<Mailbox<BusEvent>>,
    statuses: Arc<Mutex<RunStatusTracker>>,
    runtime: Handle,
}

impl Listener for CoordinatorListener {
    fn on_event(&self, event: &BusEvent) {
        let is_stored = matches!(event.event, AnyEvent::Stored(_));
        if is_stored && !self.channels.publish_inline(event, &self.statuses, &self.runtime) {
            self.channels.enqueue(&self.queue, event);
        }
    }
}
