//! The stream on Redis: publishes, and registers subscribers and groups.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ::redis::cmd;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::config::{RedisStreamOptions, RetainTopics};
use super::group::{self, Group};
use super::keys::Keys;
use super::live::{SubscriberHandler, resume};
use super::parked;
use super::shared::{GapReport, Shared, origin_of};
use super::subscriber::Subscriber;
use super::{scripts, wire};
use crate::error::{Error, Result};
use crate::fanout::{Gap, OnReady, Overflow, next_id};
use crate::json::to_json;
use crate::metrics::{Histogram, PUBLISH};
use crate::op::Op;
use crate::redis::client;
use crate::redis::pubsub::{Channel, PubSub};
use crate::redis::{Client, Request};
use crate::stream::{
    BLOCK_TIMEOUT, Health, Message, Parked, Parking, Stats, StreamBackend, SubscribeSpec, Subscription,
};
use crate::sync::{lock, write};
use crate::topic::{Glob, is_pattern};

/// Largest message of a retained topic, so that a limit on messages is a limit on memory.
const MAX_RETAINED_BYTES: usize = 1 << 20;

/// A publish that is sent again searches for itself among so many of the newest messages of its topic.
const MAX_SEARCHED: usize = 1_000;

type GroupKey = (Arc<str>, Arc<str>);

enum Member {
    Single(Arc<Subscriber>),
    OfGroup(Arc<Group>),
}

#[derive(Default)]
struct Members {
    members: HashMap<u64, Member>,
    /// By topic and name, with the number of members on this adapter.
    groups: HashMap<GroupKey, (Arc<Group>, usize)>,
}

impl Members {
    /// Removes a member. Returns it, and whether it was the last of its group.
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

/// A stream on a Redis server.
pub struct RedisStream {
    shared: Arc<Shared>,
    pubsub: Arc<PubSub>,
    retain: Vec<Glob>,
    /// How many messages of a retained topic are kept, and how many more for groups.
    limits: (u64, u64),
    members: Arc<Mutex<Members>>,
    closed: AtomicBool,
    published: AtomicU64,
    publish_seconds: Arc<Histogram>,
    /// Events dropped from mailboxes that are closed.
    dropped_before: AtomicU64,
}

impl RedisStream {
    /// Creates a stream whose connections are served by `runtime`. It connects with the first call.
    pub fn new(options: RedisStreamOptions, runtime: Handle) -> Self {
        let config = Arc::new(options.connection);
        let client = Arc::new(Client::new(config.clone(), scripts::all(), "the Redis stream", &runtime));
        let keys = Keys::new(&options.prefix);
        let shared = Arc::new(Shared::new(config.clone(), client, keys, options.groups, runtime.clone()));
        let handler = Arc::new(SubscriberHandler(Arc::downgrade(&shared)));
        let pubsub = Arc::new(PubSub::new(config, handler, &runtime));
        let limits = options.retain.as_ref().map_or((0, 0), |retain| (retain.max_len, retain.backlog()));
        let topics = options.retain.map_or_else(Vec::new, |RetainTopics { topics, .. }| topics);
        Self {
            shared,
            pubsub,
            retain: topics.iter().map(|glob| Glob::new(glob)).collect(),
            limits,
            members: Arc::default(),
            closed: AtomicBool::new(false),
            published: AtomicU64::new(0),
            publish_seconds: PUBLISH.with(&["redis"]),
            dropped_before: AtomicU64::new(0),
        }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        lock(&self.members)
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::closed("the Redis stream")) } else { Ok(()) }
    }

    /// Returns whether all messages on a topic, or on every topic of a pattern, are retained.
    fn is_retained(&self, topic: &str) -> bool {
        let topic = Glob::new(topic);
        self.retain.iter().any(|glob| glob.covers(&topic))
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
        let subject = if is_pattern(topic) { "not every topic that matches is" } else { "it is not" };
        Err(Error::invalid(format!(
            "{what}: {topic:?} needs retained topics, and {subject}: create the adapter with retain: {{ topics: [{topic:?}] }}"
        )))
    }

    fn check_parked(&self, topic: &str) -> Result<()> {
        self.check_open()?;
        if is_pattern(topic) {
            return Err(Error::invalid(format!(
                "topic: {topic:?} is a pattern: expected one topic, as messages are parked by topic"
            )));
        }
        self.check_retained("topic", topic)
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
        // Where it starts is requested now, in the order of the calls.
        let tail_ids = self.shared.tail_ids(if is_pattern(&group.topic) { "" } else { &group.topic });
        let (sender, receiver) = oneshot::channel();
        let members = self.members.clone();
        self.shared.runtime.spawn(async move {
            let created = match tail_ids.await {
                Ok(tail_ids) => {
                    group.start_at(tail_ids);
                    group.create().await
                }
                Err(error) => Err(error),
            };
            match created {
                Err(error) if !error.is_retryable() => {
                    lock(&members).remove(id);
                    _ = sender.send(Err(error));
                }
                // If the server cannot be reached now, the member's task asks when it can.
                _ => {
                    _ = sender.send(Ok(subscription));
                    group::run(group).await;
                }
            }
        });
        Op::pending(async move { receiver.await.unwrap_or_else(|_| Err(Error::closed("the Redis stream"))) })
    }

    fn subscribe_single(&self, topic: &str, spec: &SubscribeSpec, wake: Option<OnReady>) -> Op<Subscription> {
        let subscriber = Arc::new(Subscriber::new(next_id(), topic, spec, self.is_retained(topic)));
        if let Some(wake) = wake {
            subscriber.mailbox.add_wake(subscriber.id, wake);
        }
        self.members().members.insert(subscriber.id, Member::Single(subscriber.clone()));
        // Where it starts is requested now, in the order of the calls, before the channel is subscribed to.
        let is_exact = matches!(subscriber.channel, Channel::Exact(_));
        let tail_ids = subscriber.needs_start().then(|| self.shared.tail_ids(if is_exact { topic } else { "" }));
        let confirmed = {
            let mut subscribers = write(&self.shared.subscribers);
            subscribers.entry(subscriber.channel.clone()).or_default().push(subscriber.clone());
            // Where it is forbidden, no gaps are reported by others.
            drop(self.pubsub.subscribe(self.shared.gaps_channel.clone()));
            self.pubsub.subscribe(subscriber.channel.clone())
        };
        let (sender, receiver) = oneshot::channel();
        let (shared, members, pubsub) = (self.shared.clone(), self.members.clone(), self.pubsub.clone());
        self.shared.runtime.spawn(async move {
            if let Some(tail_ids) = tail_ids {
                // If they cannot be read, the position stays unknown, which is reported as a gap.
                _ = tail_ids.await.and_then(|tail_ids| subscriber.start_at(tail_ids));
            }
            resume(&subscriber, subscriber.on_started(), &shared);
            let result = match confirmed.await {
                Ok(true) => {
                    resume(&subscriber, subscriber.on_subscribed(), &shared);
                    Ok(())
                }
                Ok(false) => {
                    subscriber.accepted_offline();
                    Ok(())
                }
                Err(error) => {
                    lock(&members).members.remove(&subscriber.id);
                    remove(&shared, &pubsub, &subscriber);
                    Err(error)
                }
            };
            let subscription = Subscription {
                id: subscriber.id,
                topic: subscriber.topic.clone(),
                mailbox: subscriber.mailbox.clone(),
                shared: false,
            };
            _ = sender.send(result.map(|()| subscription));
        });
        Op::pending(async move { receiver.await.unwrap_or_else(|_| Err(Error::closed("the Redis stream"))) })
    }
}

/// Removes a subscriber, and unsubscribes from its channel if it was the last.
fn remove(shared: &Shared, pubsub: &PubSub, subscriber: &Subscriber) {
    subscriber.close();
    let mut subscribers = write(&shared.subscribers);
    if let Some(list) = subscribers.get_mut(&subscriber.channel) {
        list.retain(|other| other.id != subscriber.id);
        if list.is_empty() {
            subscribers.remove(&subscriber.channel);
            pubsub.unsubscribe(&subscriber.channel);
            if subscribers.is_empty() {
                pubsub.unsubscribe(&shared.gaps_channel);
            }
        }
    }
}

impl Drop for RedisStream {
    fn drop(&mut self) {
        // Connections end with their handles; the tasks of groups have to be stopped.
        self.members().groups.values().for_each(|(group, _)| group.stop(Duration::ZERO));
    }
}

impl Parking for RedisStream {
    fn parked(&self, topic: &str, group: &str) -> Op<Vec<Parked>> {
        if let Err(error) = self.check_parked(topic) {
            return Op::err(error);
        }
        parked::list(&self.shared, topic, group)
    }

    fn replay_parked(&self, topic: &str, group: &str) -> Op<u64> {
        if let Err(error) = self.check_parked(topic) {
            return Op::err(error);
        }
        parked::replay(&self.shared, topic, group, self.limits)
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
            if let Member::Single(subscriber) = member {
                remove(&self.shared, &self.pubsub, &subscriber);
            }
        }
        let leaving: Vec<_> = groups.into_values().map(|(group, _)| group.leave_and_drain()).collect();
        let (pubsub, shared) = (self.pubsub.close(), self.shared.clone());
        Op::pending(async move {
            for left in leaving {
                left.await;
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
        let singles = members.members.values().filter_map(|member| match member {
            Member::Single(subscriber) => Some(subscriber.mailbox.clone()),
            Member::OfGroup(_) => None,
        });
        for mailbox in groups.chain(singles) {
            dropped += mailbox.dropped();
            waiting += mailbox.len();
        }
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        vec![
            ("published", count(&self.published)),
            ("dropped", dropped as f64),
            ("outages", self.shared.gaps() as f64),
            ("reconnects", (self.pubsub.reconnects() + self.shared.client.reconnects()) as f64),
            ("waiting", waiting as f64),
            ("subscriptions", members.members.len() as f64),
            ("pending", self.shared.client.pending() as f64),
        ]
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn parking(&self) -> Option<&dyn Parking> {
        Some(self)
    }

    fn add_instance(&self, instance: &str) {
        let origin = origin_of(instance);
        let mut instances = write(&self.shared.instances);
        if !instances.contains(&origin) {
            instances.push(origin);
        }
    }

    fn publish(&self, message: Message) -> Op<()> {
        if let Err(error) = self.check_open() {
            return Op::err(error);
        }
        let (topic, json) = (message.topic().clone(), message.json());
        let request = if self.is_retained(&topic) {
            if json.len() > MAX_RETAINED_BYTES {
                return Op::err(Error::invalid(format!(
                    "event: {} bytes on the retained topic {topic:?} are too many, at most {MAX_RETAINED_BYTES} are allowed",
                    json.len()
                )));
            }
            let (shared, (max_len, max_backlog), n) = (self.shared.clone(), self.limits, next_id());
            let origin = message.instance().map_or_else(|| shared.origin.clone(), |instance| origin_of(instance));
            let call = move |message: &Message, searched: usize| {
                let (topic, json, keys) = (message.topic(), message.json(), &shared.keys);
                let mut call = scripts::PUBLISH.call(&[
                    &keys.retained(topic),
                    &keys.topics(),
                    &keys.sequence(),
                    &keys.trimmed(topic),
                ]);
                call.arg(&**topic).arg(&**json).arg(max_len).arg(max_backlog).arg(&origin);
                call.arg(wire::tail(json)).arg(n).arg(searched).take()
            };
            let first = call(&message, 0);
            Request::write("publish", first).of(&scripts::PUBLISH).retry_with(move || call(&message, MAX_SEARCHED))
        } else {
            let mut publish = cmd("PUBLISH");
            publish.arg(&*topic);
            match message.instance() {
                Some(instance) => publish.arg(wire::with_origin(json, &origin_of(instance))),
                None if self.shared.matching(&topic, |subscriber| subscriber.ignore_own).is_empty() => {
                    publish.arg(&**json)
                }
                None => publish.arg(wire::with_origin(json, &self.shared.origin)),
            };
            Request::write("publish", publish)
        };
        self.published.fetch_add(1, Ordering::Relaxed);
        let (publish_seconds, started) = (self.publish_seconds.clone(), Instant::now());
        let sent = self.shared.client.call(request, move |_| {
            publish_seconds.observe_since(started);
            Ok(())
        });
        let full = self.shared.matching(&topic, |subscriber| subscriber.overflow == Overflow::Block);
        if full.is_empty() {
            return sent;
        }
        Op::pending(async move {
            sent.await?;
            // The broker has the message, so the timeout loses nothing.
            _ = tokio::time::timeout(BLOCK_TIMEOUT, async {
                for subscriber in full {
                    subscriber.mailbox.wait_for_capacity().await;
                }
            })
            .await;
            Ok(())
        })
    }

    fn note_gap(&self, topics: &[Arc<str>], gap: Gap) -> Op<()> {
        if let Err(error) = self.check_open() {
            return Op::err(error);
        }
        let report = GapReport { topics: topics.to_vec(), reason: gap.reason.as_str().into(), missed: gap.missed };
        let mut publish = cmd("PUBLISH");
        publish.arg(self.shared.keys.gaps()).arg(&*to_json(&report));
        self.shared.client.call(Request::write("publish", publish), |_| Ok(()))
    }

    fn subscribe(&self, topic: &str, spec: SubscribeSpec, wake: Option<OnReady>) -> Op<Subscription> {
        if let Err(error) = self.check_open().and_then(|()| self.check_spec(topic, &spec)) {
            return Op::err(error);
        }
        match spec.group.clone() {
            Some(group) => self.subscribe_group(topic, group, &spec, wake),
            None => self.subscribe_single(topic, &spec, wake),
        }
    }

    fn unsubscribe(&self, id: u64) -> Op<()> {
        let removed = self.members().remove(id);
        match removed {
            Some((Member::Single(subscriber), _)) => {
                self.dropped_before.fetch_add(subscriber.mailbox.dropped(), Ordering::Relaxed);
                remove(&self.shared, &self.pubsub, &subscriber);
                Op::ok(())
            }
            Some((Member::OfGroup(group), true)) => {
                self.dropped_before.fetch_add(group.mailbox.dropped(), Ordering::Relaxed);
                let released = group.leave();
                Op::pending(async move {
                    released.await;
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
            Self::Single(subscriber) => &subscriber.topic,
            Self::OfGroup(group) => &group.topic,
        }
    }
}
