//! Streams: publish and subscribe. One contract, one file per backend.

mod memory;
mod redis;

pub use memory::{MemoryStream, Retain};
pub use redis::{GroupOptions, MAX_PARKED, Parked, RedisStream, RedisStreamOptions, RetainTopics};

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::fanout::{Gap, Mailbox, OnReady, Overflow};
use crate::json::{Json, check_depth, push_string};
use crate::op::Op;
use crate::topic::Glob;

pub use crate::health::{Health, Stats};

/// A message as it goes to subscribers: any JSON object, whole. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Message(Arc<MessageParts>);

#[derive(Debug)]
struct MessageParts {
    topic: Arc<str>,
    kind: Option<Box<str>>,
    json: Json,
}

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
}

impl Message {
    /// Reads a JSON object that somebody publishes on a topic.
    pub fn parse(topic: &str, json: &str) -> Result<Self> {
        check_depth("event", json)?;
        let json = json.trim();
        if !json.starts_with('{') {
            return Err(Error::invalid("event: expected an object"));
        }
        let header: Header<'_> =
            serde_json::from_str(json).map_err(|e| Error::invalid(format!("event: not usable as JSON: {e}")))?;
        let kind = header.kind.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        Ok(Self(Arc::new(MessageParts { topic: topic.into(), kind: kind.map(Into::into), json: json.into() })))
    }

    /// A message of a known type.
    pub fn new(topic: &str, kind: &str, json: Json) -> Self {
        Self(Arc::new(MessageParts { topic: topic.into(), kind: Some(kind.into()), json }))
    }

    /// The message that tells a subscriber of `topic` (a name or pattern) about a gap.
    pub fn gap(topic: &str, gap: Gap, now_ms: u64) -> Self {
        let mut json = String::from("{\"type\":\"stream.gap\",\"data\":{\"reason\":\"");
        json.push_str(gap.reason.as_str());
        json.push_str("\",\"topic\":");
        push_string(&mut json, topic);
        if let Some(missed) = gap.missed {
            json.push_str(&format!(",\"missed\":{missed}"));
        }
        json.push_str(&format!("}},\"timestamp\":{now_ms}}}"));
        Self::new(topic, "stream.gap", json.into())
    }

    /// The topic it was published on.
    pub fn topic(&self) -> &Arc<str> {
        &self.0.topic
    }

    /// Its `type`, where it has one.
    pub fn kind(&self) -> Option<&str> {
        self.0.kind.as_deref()
    }

    /// The whole message as JSON text.
    pub fn json(&self) -> &Json {
        &self.0.json
    }

    /// Whether both are the same published message.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Matched against a message's type. A message without a type matches no filter.
#[derive(Debug, Clone)]
pub enum TypeFilter {
    /// The whole type matches the glob.
    Glob(Glob),
    /// The expression is found in the type.
    Regex(regex::Regex),
}

impl TypeFilter {
    /// A glob.
    pub fn glob(pattern: &str) -> Self {
        Self::Glob(Glob::new(pattern))
    }

    /// A JavaScript RegExp, by its source and flags. What the regex crate cannot do (look-around, back-references) is
    /// [`crate::error::Code::Invalid`].
    pub fn regex(source: &str, flags: &str) -> Result<Self> {
        let mut builder = regex::RegexBuilder::new(source);
        for flag in flags.chars() {
            match flag {
                'i' => _ = builder.case_insensitive(true),
                's' => _ = builder.dot_matches_new_line(true),
                'm' => _ = builder.multi_line(true),
                // Global, sticky, unicode and indices change nothing for a test from the start.
                'g' | 'u' | 'v' | 'd' => {}
                other => {
                    return Err(Error::invalid(format!(
                        "options.filter: the RegExp flag {other:?} is not supported; i, s, m, g and u are"
                    )));
                }
            }
        }
        let regex = builder.build().map_err(|e| {
            Error::invalid(format!(
                "options.filter: /{source}/ cannot be matched natively (look-around and back-references are not supported): {e}"
            ))
        })?;
        Ok(Self::Regex(regex))
    }

    /// Whether a message of this type passes.
    pub fn matches(&self, kind: Option<&str>) -> bool {
        match (self, kind) {
            (_, None) => false,
            (Self::Glob(glob), Some(kind)) => glob.matches(kind),
            (Self::Regex(regex), Some(kind)) => regex.is_match(kind),
        }
    }
}

/// How a subscriber wants its events.
#[derive(Clone)]
pub struct SubscribeSpec {
    /// Members of one group (of one topic or pattern) share its events: each goes to exactly one of them.
    pub group: Option<Arc<str>>,
    /// Only messages of matching types.
    pub filter: Option<TypeFilter>,
    /// First what is retained.
    pub from_beginning: bool,
    /// Not what this adapter published itself.
    pub ignore_own: bool,
    /// How many may wait.
    pub buffer: usize,
    /// What happens when more come.
    pub overflow: Overflow,
}

impl SubscribeSpec {
    /// Refuses options that contradict each other.
    pub(crate) fn check(&self) -> Result<()> {
        if self.group.is_some() && self.ignore_own {
            return Err(Error::invalid(
                "options.ignoreOwn: not usable with options.group, where each event goes to one member, whoever published it",
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
    /// Called when its handler is done, with whether it succeeded. Absent where nothing is acknowledged.
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

/// A live subscription: take deliveries from the mailbox until it is closed.
#[derive(Clone)]
pub struct Subscription {
    /// For `unsubscribe`; unique in the process.
    pub id: u64,
    /// The topic or pattern.
    pub topic: Arc<str>,
    /// Where its events wait. Members of a group on one adapter may share it: take one at a time there.
    pub mailbox: Arc<Mailbox<Incoming>>,
    /// Whether the mailbox is shared with other members of a group.
    pub shared: bool,
}

/// A broker. Every method starts its work before it returns. Topics have passed [`crate::topic::check_name`].
pub trait StreamBackend: Send + Sync + 'static {
    /// `memory` or `redis`.
    fn name(&self) -> &'static str;
    /// Makes it usable. Idempotent; every other method does it on first use.
    fn open(&self) -> Op<()>;
    /// Ends it: all mailboxes are closed, nothing is left behind. Idempotent.
    fn close(&self) -> Op<()>;
    /// Whether it is usable now.
    fn health(&self) -> Op<Health>;
    /// Its counters: `published`, `delivered`, `dropped`, `gaps`, `reconnects`, and what it has of its own.
    fn stats(&self) -> Stats;
    /// Ends when the broker has the message, and every subscriber with [`Overflow::Block`] has room again
    /// (at most [`BLOCK_TIMEOUT`]).
    fn publish(&self, message: Message) -> Op<()>;
    /// Subscribes to a topic or pattern. `wake` is called when the mailbox has something; None for a consumer that
    /// awaits [`Mailbox::recv`].
    fn subscribe(&self, topic: &str, spec: SubscribeSpec, wake: Option<OnReady>) -> Op<Subscription>;
    /// Ends a subscription. Unknown ids are ignored.
    fn unsubscribe(&self, id: u64) -> Op<()>;
    /// Topics and patterns with subscribers on this adapter, each once, sorted.
    fn topics(&self) -> Vec<Arc<str>>;
    /// Subscribers of exactly this topic or pattern on this adapter.
    fn subscription_count(&self, topic: &str) -> usize;
}

/// How long a publish waits for subscribers with [`Overflow::Block`].
pub const BLOCK_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
