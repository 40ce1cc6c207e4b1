//! What the subscribers and groups of one Redis stream share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::config::GroupOptions;
use super::keys::Keys;
use super::scripts;
use super::subscriber::Subscriber;
use crate::error::{Error, Result};
use crate::event::EventId;
use crate::fanout::{Gap, GapReason};
use crate::op::Op;
use crate::redis::pubsub::Channel;
use crate::redis::{Client, RedisConfig, Request, reply};
use crate::stream::{Message, gap_for};
use crate::sync::read;

pub(super) struct Shared {
    pub(super) config: Arc<RedisConfig>,
    pub(super) client: Arc<Client>,
    pub(super) keys: Keys,
    pub(super) groups: GroupOptions,
    /// Identifies this adapter in the messages that it publishes, and as a member of groups.
    pub(super) origin: String,
    /// The same for the instances that use this adapter, see [`origin_of`].
    pub(super) instances: RwLock<Vec<String>>,
    pub(super) subscribers: RwLock<HashMap<Channel, Vec<Arc<Subscriber>>>>,
    pub(super) runtime: Handle,
    gaps: AtomicU64,
    /// Where gaps of topics are reported.
    pub(super) gaps_channel: Channel,
}

/// A report of a gap, as it is sent.
#[derive(Serialize, Deserialize)]
pub(super) struct GapReport {
    pub(super) topics: Vec<Arc<str>>,
    pub(super) reason: String,
    pub(super) missed: Option<u64>,
}

/// An entry of a retained topic.
pub(super) struct Entry {
    pub(super) id: EventId,
    /// None if the entry was deleted, or is not a message of this package.
    pub(super) message: Option<Message>,
    /// Whether this adapter published it.
    pub(super) own: bool,
    /// Its number in the topic. None if an earlier version added it.
    pub(super) number: Option<u64>,
}

/// Returns what identifies an instance in messages that others publish for it: 64 bits of FNV-1a, the same in every process.
pub(super) fn origin_of(instance: &str) -> String {
    let hash = instance
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}

impl Shared {
    pub(super) fn new(
        config: Arc<RedisConfig>,
        client: Arc<Client>,
        keys: Keys,
        groups: GroupOptions,
        runtime: Handle,
    ) -> Self {
        let gaps_channel = Channel::Exact(keys.gaps().into());
        Self {
            config,
            client,
            gaps_channel,
            keys,
            groups,
            origin: format!("{:016x}", crate::backoff::random_u64()),
            instances: RwLock::default(),
            subscribers: RwLock::default(),
            runtime,
            gaps: AtomicU64::new(0),
        }
    }

    pub(super) fn count_gap(&self) {
        self.gaps.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn gaps(&self) -> u64 {
        self.gaps.load(Ordering::Relaxed)
    }

    /// Returns whether this adapter published what has this origin, or another one for an instance that uses this adapter.
    pub(super) fn is_own(&self, origin: &str) -> bool {
        self.origin == origin || read(&self.instances).iter().any(|instance| instance == origin)
    }

    /// Returns the subscribers of a channel.
    pub(super) fn of_channel(&self, channel: &Channel) -> Vec<Arc<Subscriber>> {
        read(&self.subscribers).get(channel).cloned().unwrap_or_default()
    }

    /// Returns the subscribers for which `selects` holds and whose topic or pattern matches.
    pub(super) fn matching(&self, topic: &str, selects: impl Fn(&Subscriber) -> bool) -> Vec<Arc<Subscriber>> {
        let subscribers = read(&self.subscribers);
        subscribers.values().flatten().filter(|one| selects(one) && one.matches(topic)).cloned().collect()
    }

    /// Returns the ids of the last entries of retained topics: of one, or of all if `topic` is empty.
    pub(super) fn tail_ids(&self, topic: &str) -> Op<Vec<(String, String)>> {
        let mut call = scripts::TAIL_IDS.call(&[&self.keys.topics()]);
        call.arg(self.keys.retained_prefix()).arg(topic);
        self.client.call(Request::read("subscribe", call).of(&scripts::TAIL_IDS), reply::pairs)
    }

    /// Passes on the report of a gap.
    pub(super) fn on_gap(&self, payload: &[u8]) {
        let Ok(GapReport { topics, reason, missed }) = serde_json::from_slice(payload) else { return };
        let gap = Gap { reason: GapReason::parse(&reason), missed };
        for subscriber in read(&self.subscribers).values().flatten() {
            if let Some(gap) = gap_for(&subscriber.topic, &topics, gap) {
                subscriber.mailbox.note_gap(gap);
            }
        }
    }

    /// Reads an entry of a retained topic.
    pub(super) fn entry(&self, topic: &str, entry: ::redis::Value) -> Result<Entry> {
        let mut parts = reply::list(entry)?.into_iter();
        let (Some(id), Some(fields)) = (parts.next(), parts.next()) else {
            return Err(Error::corrupt("Redis sent a stream entry without id or fields"));
        };
        let mut entry = Entry { id: reply::text(id)?.parse()?, message: None, own: false, number: None };
        // A deleted entry that is still pending has no fields.
        for (name, text) in reply::pairs(fields)? {
            match name.as_str() {
                "message" => entry.message = Message::parse(topic, &text).ok(),
                "origin" => entry.own = self.is_own(&text),
                "s" => entry.number = text.parse().ok(),
                _ => {}
            }
        }
        Ok(entry)
    }
}
