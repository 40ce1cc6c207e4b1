//! The Redis stream: pub/sub between processes, and topics that are also kept.
//!
//! Channels are named like topics and carry the event's JSON, as with nvent's own adapter, so old and new instances hear
//! each other. Topics that match [`RetainTopics::topics`] are also kept in a Redis stream, and on those nothing is lost:
//! subscribers catch up after an outage, can begin at the beginning, and groups get each message once and acknowledge it.
//! That holds for what native instances with the same `retain` publish; others publish without keeping.
//!
//! | | not retained | retained |
//! |---|---|---|
//! | after an outage | a gap, told before the next message | what was missed; a gap only where it is not there any more |
//! | the message on the wire | the event (see [`wire`]) | one field more, which native subscribers take out |

mod group;
mod keys;
mod scripts;
mod subscriber;
mod wire;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use ::redis::cmd;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

pub use self::group::GroupOptions;

use self::group::Group;
use self::keys::Keys;
use self::subscriber::Sub;
use super::{BLOCK_TIMEOUT, Health, Message, Stats, StreamBackend, SubscribeSpec, Subscription};
use crate::error::{Error, Result};
use crate::fanout::{OnReady, Overflow, next_id};
use crate::op::Op;
use crate::redis::client;
use crate::redis::pubsub::{Channel, PubSub, Receiver};
use crate::redis::{Client, RedisConfig, Request, random_u64, reply};
use crate::topic::{Glob, is_pattern};

/// Largest message of a retained topic, so that a number of messages is a bound on memory.
const MAX_RETAINED_BYTES: usize = 1 << 20;

/// A publish that is sent again looks for itself among so many of the newest messages of its topic.
const LOOK_AMONG: usize = 1_000;

/// Which topics are kept.
#[derive(Debug, Clone)]
pub struct RetainTopics {
    /// Globs.
    pub topics: Vec<String>,
    /// About how many messages each topic keeps.
    pub max_len: u64,
}

impl RetainTopics {
    /// How many messages a topic keeps unless told otherwise.
    pub const DEFAULT_MAX_LEN: u64 = 10_000;
}

/// How to make a [`RedisStream`].
#[derive(Debug, Clone)]
pub struct RedisStreamOptions {
    /// Where the server is.
    pub connection: RedisConfig,
    /// What the stream's own keys begin with. Topics are used as they are given.
    pub prefix: String,
    /// Which topics are kept; None keeps nothing.
    pub retain: Option<RetainTopics>,
    /// How groups deal with failure.
    pub groups: GroupOptions,
}

impl Default for RedisStreamOptions {
    fn default() -> Self {
        Self {
            connection: RedisConfig::default(),
            prefix: "nvent".into(),
            retain: None,
            groups: GroupOptions::default(),
        }
    }
}

/// What subscribers and groups need.
struct Shared {
    config: Arc<RedisConfig>,
    client: Client,
    keys: Keys,
    groups: GroupOptions,
    /// This adapter, as it signs what it publishes.
    origin: String,
    subs: RwLock<HashMap<Channel, Vec<Arc<Sub>>>>,
    runtime: Handle,
    gaps: AtomicU64,
}

impl Shared {
    fn count_gap(&self) {
        self.gaps.fetch_add(1, Ordering::Relaxed);
    }

    fn subs_of(&self, channel: &Channel) -> Vec<Arc<Sub>> {
        self.subs.read().unwrap_or_else(PoisonError::into_inner).get(channel).cloned().unwrap_or_default()
    }

    /// Subscribers that a message on this topic is for.
    fn matching(&self, topic: &str, wanted: impl Fn(&Sub) -> bool) -> Vec<Arc<Sub>> {
        let subs = self.subs.read().unwrap_or_else(PoisonError::into_inner);
        subs.values().flatten().filter(|sub| wanted(sub) && sub.matches(topic)).cloned().collect()
    }
}

struct Ear(Weak<Shared>);

impl Receiver for Ear {
    fn message(&self, channel: &Channel, topic: &str, payload: &[u8]) {
        let Some(shared) = self.0.upgrade() else { return };
        let received = String::from_utf8_lossy(payload);
        let received = wire::read(&received);
        // What is no JSON object was not published by an adapter.
        let Ok(message) = Message::parse(topic, &received.json) else { return };
        let own = received.origin == Some(&shared.origin);
        for sub in shared.subs_of(channel) {
            sub.hear(&message, received.id, own);
        }
    }

    fn live(&self, channel: &Channel) {
        let Some(shared) = self.0.upgrade() else { return };
        shared.subs_of(channel).iter().for_each(|sub| sub.live(&shared));
    }

    fn interrupted(&self) {
        let Some(shared) = self.0.upgrade() else { return };
        shared.matching_all().iter().for_each(|sub| sub.interrupted());
    }
}

impl Shared {
    fn matching_all(&self) -> Vec<Arc<Sub>> {
        self.subs.read().unwrap_or_else(PoisonError::into_inner).values().flatten().cloned().collect()
    }
}

type GroupKey = (Arc<str>, Arc<str>);

enum Member {
    Alone(Arc<Sub>),
    OfGroup(Arc<Group>),
}

#[derive(Default)]
struct Members {
    members: HashMap<u64, Member>,
    /// By topic and name, with how many members there are here.
    groups: HashMap<GroupKey, (Arc<Group>, usize)>,
}

impl Members {
    /// Removes a member: itself, and whether it was the last of its group.
    fn remove(&mut self, id: u64) -> Option<(Member, bool)> {
        let member = self.members.remove(&id)?;
        let Member::OfGroup(group) = &member else { return Some((member, false)) };
        group.mailbox.remove_wake(id);
        let key = (group.topic.clone(), group.name.clone());
        let count = &mut self.groups.get_mut(&key)?.1;
        *count -= 1;
        let last = *count == 0;
        if last {
            self.groups.remove(&key);
        }
        Some((member, last))
    }
}

/// How many messages a group has parked on one topic at most; older ones go.
pub const MAX_PARKED: usize = 10_000;

/// A message that a group failed at too often.
#[derive(Debug, Clone, Serialize)]
pub struct Parked {
    /// Where it was in its topic.
    pub id: String,
    /// How often it was delivered.
    pub deliveries: u64,
    /// The message, as it was published.
    pub event: Box<RawValue>,
}

impl Parked {
    fn from_entry(entry: ::redis::Value) -> Result<Self> {
        let odd = || Error::corrupt("Redis sent a parked message with something missing");
        let fields = reply::list(entry)?.into_iter().nth(1).ok_or_else(odd)?;
        let mut fields: HashMap<_, _> = reply::pairs(fields)?.into_iter().collect();
        let mut field = |name| fields.remove(name).ok_or_else(odd);
        Ok(Self {
            id: field("id")?,
            deliveries: field("deliveries")?.parse().map_err(|_| odd())?,
            event: RawValue::from_string(field("message")?).map_err(|_| odd())?,
        })
    }
}

/// A stream on a Redis server.
pub struct RedisStream {
    shared: Arc<Shared>,
    pubsub: Arc<PubSub>,
    retain: Vec<Glob>,
    max_len: u64,
    members: Arc<Mutex<Members>>,
    closed: AtomicBool,
    published: AtomicU64,
    dropped_before: AtomicU64,
}

impl RedisStream {
    /// A stream whose connections live on `runtime`. It connects with the first call.
    pub fn new(options: RedisStreamOptions, runtime: Handle) -> Self {
        let config = Arc::new(options.connection);
        let client = Client::new(config.clone(), scripts::all(), "the Redis stream", &runtime);
        let shared = Arc::new(Shared {
            config: config.clone(),
            client,
            keys: Keys::new(&options.prefix),
            groups: options.groups,
            origin: format!("{:016x}", random_u64()),
            subs: RwLock::default(),
            runtime: runtime.clone(),
            gaps: AtomicU64::new(0),
        });
        let pubsub = Arc::new(PubSub::new(config, Arc::new(Ear(Arc::downgrade(&shared))), &runtime));
        let (topics, max_len) = options.retain.map_or((Vec::new(), 0), |retain| (retain.topics, retain.max_len));
        Self {
            shared,
            pubsub,
            retain: topics.iter().map(|glob| Glob::new(glob)).collect(),
            max_len,
            members: Arc::default(),
            closed: AtomicBool::new(false),
            published: AtomicU64::new(0),
            dropped_before: AtomicU64::new(0),
        }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        lock(&self.members)
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::closed("the Redis stream")) } else { Ok(()) }
    }

    /// Whether all messages on a topic, or on every topic of a pattern, are kept.
    fn is_retained(&self, topic: &str) -> bool {
        self.retain.iter().any(|glob| glob.as_str() == topic || glob.matches(topic))
    }

    fn check_spec(&self, topic: &str, spec: &SubscribeSpec) -> Result<()> {
        spec.check()?;
        let option = match spec {
            SubscribeSpec { group: Some(_), .. } => "group",
            SubscribeSpec { from_beginning: true, .. } => "fromBeginning",
            _ => return Ok(()),
        };
        self.check_retained(&format!("options.{option}"), topic)
    }

    fn check_retained(&self, what: &str, topic: &str) -> Result<()> {
        if self.is_retained(topic) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{what}: {topic:?} is not retained; create the adapter with retain: {{ topics: [{topic:?}] }}"
        )))
    }

    fn check_parked(&self, topic: &str) -> Result<()> {
        self.check_open()?;
        if is_pattern(topic) {
            return Err(Error::invalid(format!("topic: {topic:?} is a pattern; messages are parked by topic")));
        }
        self.check_retained("topic", topic)
    }

    /// What a group failed at too often on a topic, oldest first, at most [`MAX_PARKED`].
    pub fn parked(&self, topic: &str, group: &str) -> Op<Vec<Parked>> {
        if let Err(error) = self.check_parked(topic) {
            return Op::err(error);
        }
        let range = cmd("XRANGE").arg(self.shared.keys.parked(topic, group)).arg("-").arg("+").take();
        self.shared.client.call(Request::read("parked", range), |entries| {
            reply::list(entries)?.into_iter().map(Parked::from_entry).collect()
        })
    }

    /// Takes what is [parked](Self::parked) and publishes it again, to everyone who is subscribed. The number of messages,
    /// at most 1,000 at a time.
    pub fn replay_parked(&self, topic: &str, group: &str) -> Op<u64> {
        if let Err(error) = self.check_parked(topic) {
            return Op::err(error);
        }
        let keys = &self.shared.keys;
        let (parked, stream, topics) = (keys.parked(topic, group), keys.retained(topic), keys.topics());
        let mut call = scripts::REPLAY.call(&[&parked, &stream, &topics]);
        call.arg(topic).arg(self.max_len);
        self.shared.client.call(Request::write("replay", call).of(&scripts::REPLAY), |n| {
            reply::int(n).map(|n| u64::try_from(n).unwrap_or(0))
        })
    }

    fn subscribe_group(
        &self,
        topic: &str,
        name: Arc<str>,
        spec: &SubscribeSpec,
        wake: Option<OnReady>,
    ) -> Op<Subscription> {
        let (id, topic): (u64, Arc<str>) = (next_id(), topic.into());
        let mut members = self.members();
        let (group, count) = members.groups.entry((topic.clone(), name.clone())).or_insert_with(|| {
            let group = Arc::new(Group::new(&topic, name, spec, self.shared.clone()));
            (group, 0)
        });
        *count += 1;
        let (group, first) = (group.clone(), *count == 1);
        members.members.insert(id, Member::OfGroup(group.clone()));
        drop(members);
        if let Some(wake) = wake {
            group.mailbox.add_wake(id, wake.clone());
            if !group.mailbox.is_empty() {
                wake();
            }
        }
        let subscription = Subscription { id, topic, mailbox: group.mailbox.clone(), shared: true };
        if !first {
            return Op::ok(subscription);
        }
        // Where it begins is asked here, in the order of the calls.
        let ends = self.shared.ends(if is_pattern(&group.topic) { "" } else { &group.topic });
        let (sender, receiver) = oneshot::channel();
        let members = self.members.clone();
        self.shared.runtime.spawn(async move {
            let created = match ends.await {
                Ok(ends) => {
                    group.begin_at(ends);
                    group.create().await
                }
                Err(error) => Err(error),
            };
            match created {
                Err(error) if !error.is_retryable() => {
                    lock(&members).remove(id);
                    _ = sender.send(Err(error));
                }
                // Where the server cannot be asked now, the member asks when it can.
                _ => {
                    _ = sender.send(Ok(subscription));
                    group::run(group).await;
                }
            }
        });
        Op::pending(async move { receiver.await.unwrap_or_else(|_| Err(Error::closed("the Redis stream"))) })
    }

    fn subscribe_alone(&self, topic: &str, spec: &SubscribeSpec, wake: Option<OnReady>) -> Op<Subscription> {
        let sub = Arc::new(Sub::new(next_id(), topic, spec, self.is_retained(topic)));
        if let Some(wake) = wake {
            sub.mailbox.add_wake(sub.id, wake);
        }
        self.members().members.insert(sub.id, Member::Alone(sub.clone()));
        // Where it begins is asked here, in the order of the calls, and then the channel is wanted.
        let exact = matches!(sub.channel, Channel::Exact(_));
        let ends = sub.needs_ends().then(|| self.shared.ends(if exact { topic } else { "" }));
        let confirmed = {
            let mut subs = self.shared.subs.write().unwrap_or_else(PoisonError::into_inner);
            subs.entry(sub.channel.clone()).or_default().push(sub.clone());
            self.pubsub.want(sub.channel.clone())
        };
        let (sender, receiver) = oneshot::channel();
        let (shared, members, pubsub) = (self.shared.clone(), self.members.clone(), self.pubsub.clone());
        self.shared.runtime.spawn(async move {
            if let Some(ends) = ends {
                // Where they cannot be had, the position stays unknown, which is told as a gap.
                _ = ends.await.and_then(|ends| sub.begin_at(ends));
            }
            sub.begun(&shared);
            let result = match confirmed.await {
                Ok(true) => {
                    sub.live(&shared);
                    Ok(())
                }
                Ok(false) => {
                    sub.accepted_blindly();
                    Ok(())
                }
                Err(error) => {
                    lock(&members).members.remove(&sub.id);
                    forget(&shared, &pubsub, &sub);
                    Err(error)
                }
            };
            let subscription =
                Subscription { id: sub.id, topic: sub.topic.clone(), mailbox: sub.mailbox.clone(), shared: false };
            _ = sender.send(result.map(|()| subscription));
        });
        Op::pending(async move { receiver.await.unwrap_or_else(|_| Err(Error::closed("the Redis stream"))) })
    }
}

fn lock(members: &Mutex<Members>) -> MutexGuard<'_, Members> {
    members.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes a subscriber, and its channel with the last of them.
fn forget(shared: &Shared, pubsub: &PubSub, sub: &Sub) {
    sub.close();
    let mut subs = shared.subs.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(list) = subs.get_mut(&sub.channel) {
        list.retain(|other| other.id != sub.id);
        if list.is_empty() {
            subs.remove(&sub.channel);
            pubsub.unwant(&sub.channel);
        }
    }
}

impl Drop for RedisStream {
    fn drop(&mut self) {
        // Connections end with their handles; groups read on until told.
        self.members().groups.values().for_each(|(group, _)| group.end());
    }
}

impl StreamBackend for RedisStream {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn open(&self) -> Op<()> {
        if let Err(error) = self.check_open() {
            return Op::err(error);
        }
        self.shared.client.call(Request::read("PING", cmd("PING")), |_| Ok(()))
    }

    fn close(&self) -> Op<()> {
        self.closed.store(true, Ordering::Release);
        let Members { members, groups } = std::mem::take(&mut *self.members());
        for member in members.into_values() {
            if let Member::Alone(sub) = member {
                forget(&self.shared, &self.pubsub, &sub);
            }
        }
        let leaving: Vec<_> = groups.into_values().map(|(group, _)| self.shared.runtime.spawn(group.leave())).collect();
        let (pubsub, shared) = (self.pubsub.close(), self.shared.clone());
        Op::pending(async move {
            for left in leaving {
                // Only a runtime that ends cancels it.
                _ = left.await;
            }
            pubsub.await?;
            shared.client.close().await
        })
    }

    fn health(&self) -> Op<Health> {
        client::health(&self.shared.client).map(|(ok, detail)| Health { ok, detail: Some(detail) })
    }

    fn stats(&self) -> Stats {
        let members = self.members();
        let (mut dropped, mut waiting) = (self.dropped_before.load(Ordering::Relaxed), 0);
        let groups = members.groups.values().map(|(group, _)| group.mailbox.clone());
        let alone = members.members.values().filter_map(|member| match member {
            Member::Alone(sub) => Some(sub.mailbox.clone()),
            Member::OfGroup(_) => None,
        });
        for mailbox in groups.chain(alone) {
            dropped += mailbox.dropped();
            waiting += mailbox.len();
        }
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        vec![
            ("published", count(&self.published)),
            ("dropped", dropped as f64),
            ("outages", count(&self.shared.gaps)),
            ("reconnects", (self.pubsub.reconnects() + self.shared.client.reconnects()) as f64),
            ("waiting", waiting as f64),
            ("subscriptions", members.members.len() as f64),
            ("pending", self.shared.client.pending() as f64),
        ]
    }

    fn publish(&self, message: Message) -> Op<()> {
        if let Err(error) = self.check_open() {
            return Op::err(error);
        }
        let (topic, json) = (message.topic().clone(), message.json());
        let request = if self.is_retained(&topic) {
            if json.len() > MAX_RETAINED_BYTES {
                return Op::err(Error::invalid(format!(
                    "event: {} bytes on the retained topic {topic:?} are too many, at most {MAX_RETAINED_BYTES} are kept",
                    json.len()
                )));
            }
            let (shared, max_len, n) = (self.shared.clone(), self.max_len, next_id());
            let call = move |message: &Message, look_among: usize| {
                let (topic, json) = (message.topic(), message.json());
                let mut call = scripts::PUBLISH.call(&[&shared.keys.retained(topic), &shared.keys.topics()]);
                call.arg(&**topic).arg(&**json).arg(max_len).arg(&shared.origin).arg(wire::tail(json));
                call.arg(n).arg(look_among).take()
            };
            let first = call(&message, 0);
            Request::write("publish", first).of(&scripts::PUBLISH).or_again(move || call(&message, LOOK_AMONG))
        } else {
            let mut publish = cmd("PUBLISH");
            publish.arg(&*topic);
            match self.shared.matching(&topic, |sub| sub.ignore_own).is_empty() {
                true => publish.arg(&**json),
                false => publish.arg(wire::with_origin(json, &self.shared.origin)),
            };
            Request::write("publish", publish)
        };
        self.published.fetch_add(1, Ordering::Relaxed);
        let sent = self.shared.client.call(request, |_| Ok(()));
        let full = self.shared.matching(&topic, |sub| sub.overflow == Overflow::Block);
        if full.is_empty() {
            return sent;
        }
        Op::pending(async move {
            sent.await?;
            // The message is with the broker: running out of time loses nothing.
            _ = tokio::time::timeout(BLOCK_TIMEOUT, async {
                for sub in full {
                    sub.mailbox.wait_for_capacity().await;
                }
            })
            .await;
            Ok(())
        })
    }

    fn subscribe(&self, topic: &str, spec: SubscribeSpec, wake: Option<OnReady>) -> Op<Subscription> {
        if let Err(error) = self.check_open().and_then(|()| self.check_spec(topic, &spec)) {
            return Op::err(error);
        }
        match spec.group.clone() {
            Some(group) => self.subscribe_group(topic, group, &spec, wake),
            None => self.subscribe_alone(topic, &spec, wake),
        }
    }

    fn unsubscribe(&self, id: u64) -> Op<()> {
        let removed = self.members().remove(id);
        match removed {
            Some((Member::Alone(sub), _)) => {
                self.dropped_before.fetch_add(sub.mailbox.dropped(), Ordering::Relaxed);
                forget(&self.shared, &self.pubsub, &sub);
                Op::ok(())
            }
            Some((Member::OfGroup(group), true)) => {
                self.dropped_before.fetch_add(group.mailbox.dropped(), Ordering::Relaxed);
                let left = self.shared.runtime.spawn(group.leave());
                Op::pending(async move {
                    // Only a runtime that ends cancels it.
                    _ = left.await;
                    Ok(())
                })
            }
            _ => Op::ok(()),
        }
    }

    fn topics(&self) -> Vec<Arc<str>> {
        let members = self.members();
        let mut topics: Vec<_> = members.members.values().map(|member| member.topic().clone()).collect();
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    fn subscription_count(&self, topic: &str) -> usize {
        self.members().members.values().filter(|member| **member.topic() == *topic).count()
    }
}

impl Member {
    fn topic(&self) -> &Arc<str> {
        match self {
            Self::Alone(sub) => &sub.topic,
            Self::OfGroup(group) => &group.topic,
        }
    }
}
