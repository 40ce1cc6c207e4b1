//! Store subscriptions: appends of every process, in the order of the feed, none twice, also after an outage.
//!
//! Announcements of appends carry position, subject and id, so a subscriber whose position is the one before reads only the
//! event. Where an announcement is missing, the feed is read from the last position. An announcement that is lost therefore
//! delays events and loses none.
//!
//! Events that this process has appended are kept until they are delivered, so they are not read at all; a process without
//! many other writers delivers what it appends however fast subjects are trimmed.
//!
//! A mailbox that is full is not pushed to: its subscription continues by itself from its own position in the feed when
//! there is room, and joins the others when it has caught up.
//!
//! A subscription made during an outage keeps its place among the calls: it starts before any append that was called
//! after it.
//!
//! | file | what it does |
//! |---|---|
//! | this one | subscribes, notes own appends, receives announcements |
//! | `state` | how far the subscriptions are, and what is kept for them |
//! | `delivery` | the tasks that read the feed and push to mailboxes |

mod delivery;
mod state;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};

use super::feed::{Entry, Feed, Head};
use super::keys::Keys;
use crate::error::Error;
use crate::event::{Event, EventId};
use crate::fanout::{Mailbox, next_id};
use crate::op::Op;
use crate::redis::pubsub::{Channel, PubSub, PubSubHandler};
use crate::redis::{Client, RedisConfig};
use crate::store::feed::Followers;
use crate::store::{Appended, FeedFollower, Origin, Stored};
use crate::sync::lock;
use crate::topic::Glob;
use delivery::{catch_up, follow};
use state::{State, Tailer};

/// Announcements that wait to be handled. Beyond, the feed is read instead.
const MAX_ANNOUNCED: usize = 100_000;

struct Shared {
    feed: Feed,
    max_entries: u64,
    state: Mutex<State>,
    changed: Notify,
    /// Notified when the lease of a consumer was released.
    released: Arc<Notify>,
    /// The number of the newest position known.
    news: watch::Sender<u64>,
    followers: Followers,
    /// Reconnects of the client when the last append was answered.
    reconnects: AtomicU64,
    closed: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Closes all mailboxes and ends the task.
    fn end(&self) {
        self.closed.store(true, Ordering::Release);
        let mut state = self.state();
        let State { starting, tailers, .. } = &mut *state;
        starting.drain().for_each(|(_, (_, mailbox))| mailbox.close());
        tailers.drain().for_each(|(_, tailer)| tailer.mailbox.close());
        drop(state);
        self.changed.notify_one();
        self.followers.interrupt();
    }

    /// Notifies the followers of the feed of what was announced.
    fn notify_followers(&self, mut state: MutexGuard<'_, State>) {
        let news = state.take_news();
        drop(state);
        if let Some(newest) = news {
            self.followers.notify(newest);
        }
    }

    /// Returns whether anything follows the feed.
    fn is_followed(&self) -> bool {
        !self.state().tailers.is_empty() || self.news.receiver_count() > 0
    }

    /// Makes the task read the feed.
    fn read_feed(&self) {
        let mut state = self.state();
        (state.stale, state.check_head) = (true, true);
        drop(state);
        self.changed.notify_one();
    }
}

/// The subscriptions of one store.
pub(super) struct Tailers {
    shared: Arc<Shared>,
    channel: Channel,
    pubsub: Arc<PubSub>,
    accept_timeout: Duration,
    runtime: Handle,
}

/// An append of this process that was not answered.
pub(super) struct OwnAppend(Arc<Shared>);

impl OwnAppend {
    /// Keeps the event for its subscriptions.
    pub(super) fn stored(&self, position: EventId, subject: &str, event: &Event) {
        let mut state = self.0.state();
        state.own_newest = position.seq;
        if state.tailers.values().any(|tailer| tailer.glob.matches(subject)) {
            state.keep(position.seq, event);
        }
    }

    /// Offers the event to the followers of the feed, after [`OwnAppend::stored`].
    pub(super) fn offer(&self, position: EventId, subject: &Arc<str>, event: &Event, instance: Option<&Arc<str>>) {
        let followers = &self.0.followers;
        if followers.is_empty() {
            return;
        }
        // Another server may have given the numbers again of what the last one lost.
        let reconnects = self.0.feed.reconnects();
        if self.0.reconnects.swap(reconnects, Ordering::AcqRel) != reconnects {
            followers.interrupt();
        }
        let origin = instance.map_or(Origin::Unknown, |instance| Origin::Instance(instance.clone()));
        let appended = || Appended { number: position.seq, position: position.into(), subject, event, origin };
        followers.offer(appended, |_| {});
    }
}

impl Drop for OwnAppend {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.own_in_flight -= 1;
        if !state.announced.is_empty() {
            self.0.changed.notify_one();
        }
        self.0.notify_followers(state);
    }
}

/// Receives announcements of appends.
struct Announcements(Weak<Shared>);

impl PubSubHandler for Announcements {
    fn on_message(&self, _: &Channel, _: &str, payload: &[u8]) {
        let Some(shared) = self.0.upgrade() else { return };
        if payload == b"released" {
            return shared.released.notify_waiters();
        }
        let mut state = shared.state();
        let entry = Entry::announced(payload);
        match &entry {
            Some(entry) => {
                _ = shared.news.send_if_modified(|newest| {
                    let is_newer = *newest < entry.position.seq;
                    *newest = entry.position.seq.max(*newest);
                    is_newer
                });
                state.news = state.news.max(Some(entry.position.seq));
            }
            None => state.check_head = true,
        }
        match (state.tip(), entry) {
            (None, _) => {}
            (Some(tip), Some(entry)) if entry.position <= tip && entry.position.seq <= tip.seq => {}
            (Some(tip), Some(entry)) if entry.position.seq == tip.seq + 1 && state.announced.len() < MAX_ANNOUNCED => {
                state.announced.push_back(entry);
            }
            _ => state.stale = true,
        }
        // Without a subscription the task has nothing to deliver.
        if state.check_head || state.cursor.is_some() {
            shared.changed.notify_one();
        }
        shared.notify_followers(state);
    }

    fn on_subscribed(&self, _: &Channel) {
        let Some(shared) = self.0.upgrade() else { return };
        shared.state().live = true;
        shared.followers.interrupt();
        // Announcements may have been missed until now.
        shared.read_feed();
    }

    fn on_disconnected(&self) {
        let Some(shared) = self.0.upgrade() else { return };
        shared.state().live = false;
        shared.followers.interrupt();
        shared.changed.notify_one();
    }
}

impl Tailers {
    pub(super) fn new(
        config: Arc<RedisConfig>,
        client: Arc<Client>,
        keys: &Keys,
        max_entries: u64,
        runtime: &Handle,
    ) -> Self {
        let shared = Arc::new(Shared {
            feed: Feed::new(client, keys.clone()),
            max_entries,
            state: Mutex::default(),
            changed: Notify::new(),
            released: Arc::default(),
            news: watch::Sender::new(0),
            followers: Followers::default(),
            reconnects: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        });
        let accept_timeout = config.queue_timeout;
        let pubsub = Arc::new(PubSub::new(config, Arc::new(Announcements(Arc::downgrade(&shared))), runtime));
        let channel = Channel::Exact(keys.appended().into());
        Self { shared, channel, pubsub, accept_timeout, runtime: runtime.clone() }
    }

    /// Returns what is notified when the lease of a consumer was released, by whatever process.
    pub(super) fn released(&self) -> Arc<Notify> {
        self.shared.released.clone()
    }

    pub(super) fn feed(&self) -> &Feed {
        &self.shared.feed
    }

    /// Subscribes to a subject or glob, from the end of the feed when this call is executed. Resolves then, or, during an
    /// outage, after [`RedisConfig::queue_timeout`]: the subscription is accepted, and live when the server is back.
    pub(super) fn subscribe(&self, pattern: &str, mailbox: Arc<Mailbox<Stored>>) -> Op<u64> {
        let id = next_id();
        self.shared.state().starting.insert(id, (Glob::new(pattern), mailbox));
        self.listen();
        let (sender, receiver) = oneshot::channel();
        // Weak: the call may wait long and must not keep a dropped store alive.
        let (shared, runtime) = (Arc::downgrade(&self.shared), self.runtime.clone());
        self.shared.feed.submit_head(move |result| {
            let Some(shared) = shared.upgrade() else { return };
            let started = result.map(|head| start(&shared, id, head, &runtime));
            if started.is_err() {
                remove(&shared, id);
            }
            _ = sender.send(started.map(|()| id));
        });
        let timeout = self.accept_timeout;
        Op::pending(async move {
            match tokio::time::timeout(timeout, receiver).await {
                Ok(started) => started.unwrap_or_else(|_| Err(Error::closed("the Redis store"))),
                Err(_) => Ok(id),
            }
        })
    }

    /// Ends a subscription and closes its mailbox.
    pub(super) fn unsubscribe(&self, id: u64) {
        remove(&self.shared, id);
    }

    /// Notes an append of this process. What is returned notes its end when it is dropped.
    pub(super) fn own_append(&self) -> OwnAppend {
        self.shared.state().own_in_flight += 1;
        OwnAppend(self.shared.clone())
    }

    /// Returns the number of the newest position known. It changes whenever there is something new to read.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.shared.state().check_head = true;
        let receiver = self.shared.news.subscribe();
        self.listen();
        self.shared.changed.notify_one();
        receiver
    }

    /// Offers a follower what this process appends, and notifies it of the rest.
    pub(super) fn follow(&self, consumer: &str, follower: Weak<dyn FeedFollower>) {
        self.shared.followers.add(consumer, follower);
        self.listen();
    }

    /// Subscribes to announcements and starts the task, once.
    pub(super) fn listen(&self) {
        if !std::mem::replace(&mut self.shared.state().running, true) {
            // Where channels are forbidden, events arrive by polling.
            drop(self.pubsub.subscribe(self.channel.clone()));
            self.runtime.spawn(follow(self.shared.clone(), self.runtime.clone()));
        }
    }

    pub(super) fn close(&self) -> Op<()> {
        self.shared.end();
        self.pubsub.close()
    }
}

impl Drop for Tailers {
    fn drop(&mut self) {
        self.shared.end();
    }
}

/// Starts a tailer at the end of the feed.
fn start(shared: &Arc<Shared>, id: u64, head: Head, runtime: &Handle) {
    let mut state = shared.state();
    // None: unsubscribed meanwhile.
    let Some((glob, mailbox)) = state.starting.remove(&id) else { return };
    let cursor = *state.cursor.get_or_insert(head.position);
    // What is being read was selected without this tailer.
    let reached = state.reading.unwrap_or(cursor);
    let behind = (head.position < reached).then_some(head.position);
    state.tailers.insert(id, Tailer { glob, mailbox, start: head, behind });
    // Announcements before the first tailer were not kept.
    state.stale = true;
    drop(state);
    shared.changed.notify_one();
    if behind.is_some() {
        runtime.spawn(catch_up(shared.clone(), id));
    }
}

fn remove(shared: &Shared, id: u64) {
    let mut state = shared.state();
    let starting = state.starting.remove(&id).map(|(_, mailbox)| mailbox);
    let Some(mailbox) = starting.or_else(|| state.tailers.remove(&id).map(|tailer| tailer.mailbox)) else { return };
    mailbox.close();
    if state.tailers.is_empty() {
        state.cursor = None;
        state.announced.clear();
        state.known.clear();
        state.known_floor = 0;
        state.forget_delivered();
    }
}
