//! The broker: registers subscribers and publishes to them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use super::config::Retain;
use super::retained::RetainedTopics;
use crate::error::{Error, Result};
use crate::fanout::{Gap, Mailbox, OnReady, Push, Subscriber, TopicRegistry, next_id};
use crate::metrics::{Histogram, PUBLISH};
use crate::op::Op;
use crate::stream::{
    BLOCK_TIMEOUT, Health, Incoming, Message, Stats, StreamBackend, SubscribeSpec, Subscription, TypeFilter, gap_for,
};
use crate::sync::lock;
use crate::time::SharedClock;

/// A stream in memory.
pub struct MemoryStream {
    clock: SharedClock,
    subscribers: TopicRegistry<Incoming, Meta>,
    /// Held while publishing and subscribing, so that a replay and live messages join without a hole or a duplicate.
    state: Mutex<State>,
    retains: bool,
    closed: AtomicBool,
    published: AtomicU64,
    publish_seconds: Arc<Histogram>,
    /// Events dropped from mailboxes that are closed.
    dropped_before: AtomicU64,
}

struct Meta {
    filter: Option<TypeFilter>,
    ignore_own: bool,
}

struct State {
    retained: Option<RetainedTopics>,
    members: HashMap<u64, Member>,
    groups: HashMap<(Arc<str>, Arc<str>), Group>,
}

struct Member {
    topic: Arc<str>,
    group: Option<Arc<str>>,
}

struct Group {
    /// Id of the group's entry in the registry.
    entry: u64,
    mailbox: Arc<Mailbox<Incoming>>,
    members: usize,
}

impl MemoryStream {
    /// Creates a broker without subscribers. Without `retain` it retains nothing.
    pub fn new(retain: Option<Retain>, clock: SharedClock) -> Self {
        Self {
            clock,
            retains: retain.is_some(),
            subscribers: TopicRegistry::default(),
            state: Mutex::new(State {
                retained: retain.map(RetainedTopics::new),
                members: HashMap::new(),
                groups: HashMap::new(),
            }),
            closed: AtomicBool::new(false),
            published: AtomicU64::new(0),
            publish_seconds: PUBLISH.with(&["memory"]),
            dropped_before: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::closed("the memory stream")) } else { Ok(()) }
    }
}

/// Returns whether a message passes the filter, if there is one.
fn passes(filter: Option<&TypeFilter>, message: &Message) -> bool {
    filter.is_none_or(|filter| filter.matches(message.kind()))
}

impl StreamBackend for MemoryStream {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn is_immediate(&self) -> bool {
        true
    }

    fn open(&self) -> Op<()> {
        self.check_open().into()
    }

    fn close(&self) -> Op<()> {
        self.closed.store(true, Ordering::Release);
        let mut state = self.lock();
        self.subscribers.close();
        (state.members, state.groups) = Default::default();
        state.retained = None;
        Op::ok(())
    }

    fn health(&self) -> Op<Health> {
        let closed = self.closed.load(Ordering::Acquire);
        Op::ok(Health { ok: !closed, detail: closed.then(|| "closed".into()) })
    }

    fn stats(&self) -> Stats {
        let (mut dropped, mut waiting) = (self.dropped_before.load(Ordering::Relaxed), 0);
        self.subscribers.for_each(|subscriber| {
            dropped += subscriber.mailbox.dropped();
            waiting += subscriber.mailbox.len();
        });
        let state = self.lock();
        vec![
            ("published", self.published.load(Ordering::Relaxed) as f64),
            ("dropped", dropped as f64),
            ("reconnects", 0.0),
            ("waiting", waiting as f64),
            ("subscriptions", state.members.len() as f64),
            ("retained", state.retained.as_ref().map_or(0, RetainedTopics::len) as f64),
        ]
    }

    fn publish(&self, message: Message) -> Op<()> {
        if let Err(error) = self.check_open() {
            return Op::err(error);
        }
        self.published.fetch_add(1, Ordering::Relaxed);
        let started = Instant::now();
        let mut full = Vec::new();
        {
            let mut state = self.lock();
            if let Some(retained) = &mut state.retained {
                retained.push(&message, self.clock.now_ms());
            }
            self.subscribers.for_each_match(message.topic(), |subscriber| {
                // No other adapter reaches this broker, so what is not published for another instance is its own.
                if (subscriber.meta.ignore_own && message.instance().is_none())
                    || !passes(subscriber.meta.filter.as_ref(), &message)
                {
                    return;
                }
                if let Push::Full = subscriber.mailbox.push(message.clone().into()) {
                    full.push(subscriber.mailbox.clone());
                }
            });
        }
        if full.is_empty() {
            self.publish_seconds.observe_since(started);
            return Op::ok(());
        }
        let publish_seconds = self.publish_seconds.clone();
        Op::pending(async move {
            // The message is in the mailbox already, so the timeout loses nothing.
            _ = tokio::time::timeout(BLOCK_TIMEOUT, async {
                for mailbox in full {
                    mailbox.wait_for_capacity().await;
                }
            })
            .await;
            publish_seconds.observe_since(started);
            Ok(())
        })
    }

    fn skip(&self, topic: &str) -> bool {
        if self.retains || self.closed.load(Ordering::Acquire) {
            return false;
        }
        let mut is_received = false;
        self.subscribers.for_each_match(topic, |_| is_received = true);
        if !is_received {
            self.published.fetch_add(1, Ordering::Relaxed);
        }
        !is_received
    }

    fn note_gap(&self, topics: &[Arc<str>], gap: Gap) -> Op<()> {
        let state = self.lock();
        let groups: HashSet<u64> = state.groups.values().map(|group| group.entry).collect();
        self.subscribers.for_each(|subscriber| {
            if !groups.contains(&subscriber.id)
                && let Some(gap) = gap_for(&subscriber.topic, topics, gap)
            {
                subscriber.mailbox.note_gap(gap);
            }
        });
        Op::ok(())
    }

    fn subscribe(&self, topic: &str, spec: SubscribeSpec, wake: Option<OnReady>) -> Op<Subscription> {
        if let Err(error) = self.check_open().and_then(|()| spec.check()) {
            return Op::err(error);
        }
        let (id, topic): (u64, Arc<str>) = (next_id(), topic.into());
        let mut state = self.lock();
        if spec.from_beginning && state.retained.is_none() {
            return Op::err(Error::invalid(format!(
                "options.fromBeginning: nothing on {topic:?} is retained; create the adapter with retain: {{ maxEvents }}"
            )));
        }
        let existing = spec.group.as_ref().and_then(|group| state.groups.get_mut(&(topic.clone(), group.clone())));
        let mailbox = match existing {
            Some(group) => {
                group.members += 1;
                group.mailbox.clone()
            }
            None => {
                let mailbox = Arc::new(Mailbox::new(spec.buffer, spec.overflow));
                if let (true, Some(retained)) = (spec.from_beginning, &state.retained) {
                    let messages = retained.matching(&topic, self.clock.now_ms()).into_iter();
                    let passed = messages.filter(|message| passes(spec.filter.as_ref(), message));
                    mailbox.extend_unbounded(passed.map(|message| message.clone().into()));
                }
                let entry = if spec.group.is_some() { next_id() } else { id };
                let meta = Meta { filter: spec.filter.clone(), ignore_own: spec.ignore_own };
                self.subscribers.add(Arc::new(Subscriber {
                    id: entry,
                    topic: topic.clone(),
                    mailbox: mailbox.clone(),
                    meta,
                }));
                if let Some(name) = &spec.group {
                    let group = Group { entry, mailbox: mailbox.clone(), members: 1 };
                    state.groups.insert((topic.clone(), name.clone()), group);
                }
                mailbox
            }
        };
        if let Some(wake) = wake {
            mailbox.add_wake(id, wake.clone());
            if !mailbox.is_empty() {
                wake();
            }
        }
        let shared = spec.group.is_some();
        state.members.insert(id, Member { topic: topic.clone(), group: spec.group });
        Op::ok(Subscription { id, topic, mailbox, shared })
    }

    fn unsubscribe(&self, id: u64) -> Op<()> {
        let mut state = self.lock();
        let Some(Member { topic, group }) = state.members.remove(&id) else { return Op::ok(()) };
        let entry = match group {
            None => Some(id),
            Some(name) => {
                let key = (topic.clone(), name);
                let last = state.groups.get_mut(&key).is_some_and(|group| {
                    group.mailbox.remove_wake(id);
                    group.members -= 1;
                    group.members == 0
                });
                if last { state.groups.remove(&key).map(|group| group.entry) } else { None }
            }
        };
        if let Some((subscriber, _)) = entry.and_then(|entry| self.subscribers.remove(&topic, entry)) {
            self.dropped_before.fetch_add(subscriber.mailbox.dropped(), Ordering::Relaxed);
            subscriber.mailbox.close();
        }
        Op::ok(())
    }

    fn topics(&self) -> Vec<Arc<str>> {
        self.subscribers.topics()
    }

    fn subscription_count(&self, topic: &str) -> usize {
        self.lock().members.values().filter(|member| *member.topic == *topic).count()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::fanout::Overflow;
    use crate::time::ManualClock;

    fn publish(stream: &MemoryStream, topic: &str) -> Op<()> {
        stream.publish(Message::new(topic, "t", "{}".into()))
    }

    fn stat(stream: &MemoryStream, wanted: &str) -> f64 {
        stream.stats().into_iter().find(|(name, _)| *name == wanted).unwrap().1
    }

    fn subscribe(stream: &MemoryStream, spec: SubscribeSpec) -> Subscription {
        stream.subscribe("a", spec, None).into_future().now_or_never().unwrap().unwrap()
    }

    #[test]
    fn a_message_that_no_subscriber_receives_need_not_be_made_and_is_counted() {
        let clock = ManualClock::at(1);
        let stream = MemoryStream::new(None, clock.clone());
        assert!(stream.skip("a"));
        assert_eq!(stat(&stream, "published"), 1.0);
        subscribe(&stream, SubscribeSpec::default());
        assert!(!stream.skip("a") && stream.skip("b"));
        assert_eq!(stat(&stream, "published"), 2.0);
        assert!(!MemoryStream::new(Some(Retain::default()), clock).skip("a"), "what is retained is made");
        drop(stream.close());
        assert!(!stream.skip("b"), "the publish fails");
    }

    #[tokio::test(start_paused = true)]
    async fn a_publish_waits_for_room_where_it_is_to_and_for_so_long() {
        let stream = MemoryStream::new(None, ManualClock::at(1));
        let spec = SubscribeSpec { buffer: 1, overflow: Overflow::Block, ..SubscribeSpec::default() };
        let subscription = subscribe(&stream, spec);
        assert!(matches!(publish(&stream, "a"), Op::Ready(Ok(()))));
        let mut waiting = publish(&stream, "a").into_future();
        assert!((&mut waiting).now_or_never().is_none());
        while !subscription.mailbox.is_empty() {
            subscription.mailbox.take(1, &mut Vec::new());
        }
        waiting.await.unwrap();
        let started = tokio::time::Instant::now();
        drop(publish(&stream, "a"));
        publish(&stream, "a").await.unwrap();
        assert_eq!(started.elapsed(), BLOCK_TIMEOUT);
    }

    #[test]
    fn a_group_ends_with_its_last_member_and_what_was_dropped_stays_counted() {
        let stream = MemoryStream::new(None, ManualClock::at(1));
        let spec = || SubscribeSpec { buffer: 1, group: Some("g".into()), ..SubscribeSpec::default() };
        let (first, second) = (subscribe(&stream, spec()), subscribe(&stream, spec()));
        for _ in 0..3 {
            assert!(matches!(publish(&stream, "a"), Op::Ready(Ok(()))));
        }
        let numbers = || ["dropped", "waiting", "subscriptions"].map(|name| stat(&stream, name));
        assert_eq!(numbers(), [2.0, 1.0, 2.0]);
        drop(stream.unsubscribe(first.id));
        assert!(!stream.skip("a"));
        assert_eq!(numbers(), [2.0, 1.0, 1.0]);
        drop(stream.unsubscribe(second.id));
        assert!(stream.skip("a") && stream.lock().groups.is_empty());
        assert_eq!(numbers(), [2.0, 0.0, 0.0]);
        // A group of the same name begins anew.
        let third = subscribe(&stream, spec());
        assert!(third.mailbox.is_empty());
    }
}
