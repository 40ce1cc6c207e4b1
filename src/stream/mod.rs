//! Streams: publish and subscribe. One contract, one folder per backend.

mod filter;
mod memory;
mod message;
mod redis;
mod regexp;

pub use filter::TypeFilter;
pub use memory::{MemoryStream, MemoryStreamOptions, Retain};
pub use message::Message;
pub use redis::{GroupOptions, MAX_PARKED, RedisStream, RedisStreamOptions, RetainTopics};

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::fanout::{Gap, Mailbox, OnReady, Overflow, check_buffer};
use crate::op::Op;
use crate::topic::{Glob, check_name, is_pattern};

pub use crate::health::{Health, Stats};

/// The options of a subscription.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SubscribeSpec {
    /// Each event goes to exactly one member of a group, which belongs to one topic or pattern.
    pub group: Option<Arc<str>>,
    /// Only messages of matching types.
    pub filter: Option<TypeFilter>,
    /// Starts with what is retained.
    pub from_beginning: bool,
    /// Excludes what this adapter published itself.
    pub ignore_own: bool,
    /// Capacity of the mailbox in events.
    pub buffer: usize,
    /// Applies when the mailbox is full.
    pub overflow: Overflow,
}

impl SubscribeSpec {
    /// Rejects what is out of range, and options that contradict each other.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(group) = &self.group {
            check_name("options.group", group)?;
        }
        check_buffer(self.buffer)?;
        if self.group.is_some() && self.ignore_own {
            return Err(Error::invalid(
                "options.ignoreOwn: not usable with options.group, where each event goes to one member, its publisher included",
            ));
        }
        Ok(())
    }
}

impl Default for SubscribeSpec {
    fn default() -> Self {
        Self {
            group: None,
            filter: None,
            from_beginning: false,
            ignore_own: false,
            buffer: crate::fanout::DEFAULT_BUFFER,
            overflow: Overflow::default(),
        }
    }
}

/// One message in a mailbox, with what a group on Redis needs to acknowledge it.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The message.
    pub message: Message,
    /// Called when its handler has ended. None if nothing is acknowledged. Dropping it without a call means that the message
    /// was not handled.
    pub ack: Option<Ack>,
}

/// Acknowledges one delivery: whether the handler succeeded.
#[derive(Clone)]
pub struct Ack(pub Arc<dyn Fn(bool) + Send + Sync>);

impl std::fmt::Debug for Ack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ack")
    }
}

impl From<Message> for Incoming {
    fn from(message: Message) -> Self {
        Self { message, ack: None }
    }
}

/// A live subscription, whose deliveries are taken from the mailbox until it is closed.
#[derive(Clone)]
pub struct Subscription {
    /// Identifies it for `unsubscribe`; unique in the process.
    pub id: u64,
    /// The topic or pattern.
    pub topic: Arc<str>,
    /// Queues its events. Members of a group on one adapter may share it, and then take one event at a time.
    pub mailbox: Arc<Mailbox<Incoming>>,
    /// Whether the mailbox is shared with other members of a group.
    pub shared: bool,
}

/// A message whose handlers in a group failed too often.
#[derive(Debug, Clone, Serialize)]
pub struct Parked {
    /// Its id in its topic.
    pub id: String,
    /// How often it was delivered.
    pub deliveries: u64,
    /// The message, as it was published.
    pub event: Box<RawValue>,
}

/// What a stream whose groups acknowledge can do with messages that failed too often.
pub trait Parking {
    /// Returns the messages of a topic whose handlers in a group failed too often, oldest first, at most [`MAX_PARKED`].
    fn parked(&self, topic: &str, group: &str) -> Op<Vec<Parked>>;
    /// Publishes what is [parked](Self::parked) again, to every subscriber, and removes it. Returns the number of messages,
    /// at most 1,000 at a time.
    fn replay_parked(&self, topic: &str, group: &str) -> Op<u64>;
}

/// A broker. Every method starts its work before it returns. Topics have passed [`crate::topic::check_name`].
///
/// ```
/// use nvent_native::fanout::Delivery;
/// use nvent_native::stream::{MemoryStream, Message, StreamBackend, SubscribeSpec};
/// use nvent_native::time::system_clock;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> nvent_native::Result<()> {
/// let stream = MemoryStream::new(None, system_clock());
/// let subscription = stream.subscribe("order:*", SubscribeSpec::default(), None).await?;
/// stream.publish(Message::parse("order:7", r#"{"type":"paid","data":{"total":40}}"#)?).await?;
/// match subscription.mailbox.recv().await {
///     Some(Delivery::Item(incoming)) => assert_eq!(&**incoming.message.topic(), "order:7"),
///     other => panic!("{other:?}"),
/// }
/// stream.close().await?;
/// assert!(subscription.mailbox.recv().await.is_none(), "its mailboxes are closed");
/// # Ok(())
/// # }
/// ```
pub trait StreamBackend: Send + Sync + 'static {
    /// Returns `memory` or `redis`.
    fn name(&self) -> &'static str;
    /// Connects. Idempotent; every other method does it on first use.
    fn open(&self) -> Op<()>;
    /// Closes all mailboxes and disconnects. Waits for the handlers of groups that acknowledge, for a bounded time.
    /// Idempotent.
    fn close(&self) -> Op<()>;
    /// Returns whether it is usable now.
    fn health(&self) -> Op<Health>;
    /// Returns its counters: `published`, `delivered`, `dropped`, `gaps`, `reconnects`, and the backend's own.
    fn stats(&self) -> Stats;
    /// Returns whether subscribers of other processes receive what is published.
    fn is_shared(&self) -> bool {
        false
    }
    /// Returns whether a publish takes microseconds and is done when it returns, unless a subscriber with [`Overflow::Block`] is
    /// full.
    fn is_immediate(&self) -> bool {
        false
    }
    /// Returns its parked messages, if its groups acknowledge.
    fn parking(&self) -> Option<&dyn Parking> {
        None
    }
    /// Records that an instance uses this adapter: what others publish for it ([`Message::on_behalf_of`]) is its own.
    fn add_instance(&self, instance: &str) {
        let _ = instance;
    }
    /// Resolves when the broker has the message, and every subscriber with [`Overflow::Block`] has free capacity (at most
    /// [`BLOCK_TIMEOUT`]).
    fn publish(&self, message: Message) -> Op<()>;
    /// Counts a message on this topic as published and returns true, if it is known that it would reach nothing: it need not
    /// be made.
    fn skip(&self, topic: &str) -> bool {
        let _ = topic;
        false
    }
    /// Reports to the subscribers of all processes that messages may be missing on topics that one of these globs matches.
    /// Where a subscriber gets all of these topics, the number in the gap is at most what it has missed; the others get
    /// none. Groups are not notified.
    fn note_gap(&self, topics: &[Arc<str>], gap: Gap) -> Op<()>;
    /// Subscribes to a topic or pattern. `wake` is called when the mailbox has deliveries; None for a consumer that awaits
    /// [`Mailbox::recv`].
    fn subscribe(&self, topic: &str, spec: SubscribeSpec, wake: Option<OnReady>) -> Op<Subscription>;
    /// Ends a subscription. Unknown ids are ignored.
    fn unsubscribe(&self, id: u64) -> Op<()>;
    /// Returns the topics and patterns with subscribers on this adapter, each once, sorted.
    fn topics(&self) -> Vec<Arc<str>>;
    /// Returns the number of subscribers of exactly this topic or pattern on this adapter.
    fn subscription_count(&self, topic: &str) -> usize;
}

/// Returns the gap that a subscriber gets where messages may be missing on topics that one of the globs matches. None: it
/// receives no such topic.
pub(crate) fn gap_for(subscribed: &str, topics: &[Arc<str>], gap: Gap) -> Option<Gap> {
    let own = Glob::new(subscribed);
    let mut found = None;
    for topic in topics {
        let glob = Glob::new(topic);
        if own.matches(topic) {
            return Some(gap);
        }
        // Of two patterns with one beginning it is not excluded that a topic matches both.
        let (one, other) = (own.literal_prefix(), glob.literal_prefix());
        let overlaps = if is_pattern(subscribed) {
            one.starts_with(other) || other.starts_with(one)
        } else {
            glob.matches(subscribed)
        };
        if overlaps {
            found = Some(Gap { missed: None, ..gap });
        }
    }
    found
}

/// Limit of a publish's wait for subscribers with [`Overflow::Block`].
pub const BLOCK_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
