//! The stream in memory: a broker inside the process, one per adapter.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::fanout::{Mailbox, OnReady, Push, Subscriber, TopicRegistry, next_id};
use crate::op::Op;
use crate::stream::{
    BLOCK_TIMEOUT, Health, Incoming, Message, Stats, StreamBackend, SubscribeSpec, Subscription, TypeFilter,
};
use crate::time::SharedClock;
use crate::topic::Glob;

/// How many topics are retained at most: when one more comes, the one that was longest silent goes.
const MAX_RETAINED_TOPICS: usize = 10_000;

/// What a memory stream keeps for `from_beginning`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retain {
    /// At most so many events per topic.
    pub max_events: Option<usize>,
    /// At most so old, in ms.
    pub max_age_ms: Option<u64>,
}

/// A stream in memory.
pub struct MemoryStream {
    clock: SharedClock,
    hub: TopicRegistry<Incoming, Meta>,
    /// Publishing and subscribing happen under it, so that replay and live meet without a hole or a duplicate.
    state: Mutex<State>,
    closed: AtomicBool,
    published: AtomicU64,
    /// What was dropped from mailboxes that are gone.
    dropped_before: AtomicU64,
}

struct Meta {
    filter: Option<TypeFilter>,
    ignore_own: bool,
}

struct State {
    retain: Option<Retain>,
    sequence: u64,
    topics: HashMap<Arc<str>, VecDeque<Kept>>,
    /// Which topic spoke last, by sequence: the first is the longest silent.
    silence: BTreeMap<u64, Arc<str>>,
    members: HashMap<u64, Member>,
    groups: HashMap<(Arc<str>, Arc<str>), Group>,
}

struct Kept {
    sequence: u64,
    at_ms: u64,
    message: Message,
}

struct Member {
    topic: Arc<str>,
    group: Option<Arc<str>>,
}

struct Group {
    /// The id of the group's entry in the hub.
    entry: u64,
    mailbox: Arc<Mailbox<Incoming>>,
    members: usize,
}

impl MemoryStream {
    /// A broker without subscribers. Without `retain` nothing is kept.
    pub fn new(retain: Option<Retain>, clock: SharedClock) -> Self {
        Self {
            clock,
            hub: TopicRegistry::default(),
            state: Mutex::new(State {
                retain,
                sequence: 0,
                topics: HashMap::new(),
                silence: BTreeMap::new(),
                members: HashMap::new(),
                groups: HashMap::new(),
            }),
            closed: AtomicBool::new(false),
            published: AtomicU64::new(0),
            dropped_before: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::closed("the memory stream")) } else { Ok(()) }
    }

    /// Fills a new mailbox with what is retained, oldest first. Under the lock nothing is published meanwhile.
    fn replay(&self, state: &mut State, pattern: &str, spec: &SubscribeSpec, mailbox: &Mailbox<Incoming>) {
        let (glob, oldest) = (Glob::new(pattern), state.oldest(self.clock.now_ms()));
        let mut kept: Vec<_> = state
            .topics
            .iter()
            .filter(|(topic, _)| glob.matches(topic))
            .flat_map(|(_, kept)| kept)
            .filter(|kept| kept.at_ms >= oldest && passes(spec.filter.as_ref(), &kept.message))
            .collect();
        kept.sort_by_key(|kept| kept.sequence);
        mailbox.extend_unbounded(kept.into_iter().map(|kept| kept.message.clone().into()));
    }
}

impl State {
    /// The time before which nothing is retained.
    fn oldest(&self, now: u64) -> u64 {
        self.retain.and_then(|retain| retain.max_age_ms).map_or(0, |age| now.saturating_sub(age))
    }

    fn keep(&mut self, message: &Message, now: u64) {
        let Some(retain) = self.retain else { return };
        let oldest = self.oldest(now);
        self.sequence += 1;
        let kept = self.topics.entry(message.topic().clone()).or_default();
        if let Some(last) = kept.back() {
            self.silence.remove(&last.sequence);
        }
        kept.push_back(Kept { sequence: self.sequence, at_ms: now, message: message.clone() });
        while kept.len() > retain.max_events.unwrap_or(usize::MAX).max(1)
            || kept.front().is_some_and(|first| first.at_ms < oldest)
        {
            kept.pop_front();
        }
        self.silence.insert(self.sequence, message.topic().clone());
        // Topics that have been silent for longer than anything is kept go as well, two at a time.
        for _ in 0..2 {
            let Some((_, topic)) = self.silence.first_key_value() else { break };
            let expired = self.topics.get(topic).and_then(VecDeque::back).is_some_and(|last| last.at_ms < oldest);
            if !expired && self.topics.len() <= MAX_RETAINED_TOPICS {
                break;
            }
            if let Some((_, topic)) = self.silence.pop_first() {
                self.topics.remove(&topic);
            }
        }
    }
}

fn passes(filter: Option<&TypeFilter>, message: &Message) -> bool {
    filter.is_none_or(|filter| filter.matches(message.kind()))
}

impl StreamBackend for MemoryStream {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn open(&self) -> Op<()> {
        self.check_open().into()
    }

    fn close(&self) -> Op<()> {
        self.closed.store(true, Ordering::Release);
        let mut state = self.lock();
        self.hub.close();
        (state.members, state.groups) = Default::default();
        (state.topics, state.silence) = Default::default();
        Op::ok(())
    }

    fn health(&self) -> Op<Health> {
        let closed = self.closed.load(Ordering::Acquire);
        Op::ok(Health { ok: !closed, detail: closed.then(|| "closed".into()) })
    }

    fn stats(&self) -> Stats {
        let (mut dropped, mut waiting) = (self.dropped_before.load(Ordering::Relaxed), 0);
        self.hub.for_each(|subscriber| {
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
            ("retained", state.topics.values().map(VecDeque::len).sum::<usize>() as f64),
        ]
    }

    fn publish(&self, message: Message) -> Op<()> {
        if let Err(error) = self.check_open() {
            return Op::err(error);
        }
        self.published.fetch_add(1, Ordering::Relaxed);
        let mut full = Vec::new();
        {
            let mut state = self.lock();
            state.keep(&message, self.clock.now_ms());
            self.hub.for_each_match(message.topic(), |subscriber| {
                // Everything here was published by this adapter, as nobody else reaches its broker.
                if subscriber.meta.ignore_own || !passes(subscriber.meta.filter.as_ref(), &message) {
                    return;
                }
                if let Push::Full = subscriber.mailbox.push(message.clone().into()) {
                    full.push(subscriber.mailbox.clone());
                }
            });
        }
        if full.is_empty() {
            return Op::ok(());
        }
        Op::pending(async move {
            // The message waits in the mailbox already: running out of time loses nothing.
            _ = tokio::time::timeout(BLOCK_TIMEOUT, async {
                for mailbox in full {
                    mailbox.wait_for_capacity().await;
                }
            })
            .await;
            Ok(())
        })
    }

    fn subscribe(&self, topic: &str, spec: SubscribeSpec, wake: Option<OnReady>) -> Op<Subscription> {
        if let Err(error) = self.check_open().and_then(|()| spec.check()) {
            return Op::err(error);
        }
        let (id, topic): (u64, Arc<str>) = (next_id(), topic.into());
        let mut state = self.lock();
        if spec.from_beginning && state.retain.is_none() {
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
                if spec.from_beginning {
                    self.replay(&mut state, &topic, &spec, &mailbox);
                }
                let entry = if spec.group.is_some() { next_id() } else { id };
                let meta = Meta { filter: spec.filter.clone(), ignore_own: spec.ignore_own };
                self.hub.add(Arc::new(Subscriber { id: entry, topic: topic.clone(), mailbox: mailbox.clone(), meta }));
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
        if let Some((subscriber, _)) = entry.and_then(|entry| self.hub.remove(&topic, entry)) {
            self.dropped_before.fetch_add(subscriber.mailbox.dropped(), Ordering::Relaxed);
            subscriber.mailbox.close();
        }
        Op::ok(())
    }

    fn topics(&self) -> Vec<Arc<str>> {
        self.hub.topics()
    }

    fn subscription_count(&self, topic: &str) -> usize {
        self.lock().members.values().filter(|member| *member.topic == *topic).count()
    }
}
