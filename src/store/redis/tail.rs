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

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::feed::{ADOPT_INTERVAL, ADOPT_STEP_DELAY, Adoption, Entry, Feed, Found, Head, Page, Start};
use super::keys::Keys;
use crate::error::{Error, Result};
use crate::event::{Event, EventId};
use crate::fanout::{Gap, GapReason, Mailbox, next_id};
use crate::op::Op;
use crate::redis::pubsub::{Channel, PubSub, PubSubHandler};
use crate::redis::{Client, RedisConfig};
use crate::store::{Origin, Stored};
use crate::sync::lock;
use crate::topic::Glob;

/// Time between two reads of the feed while announcements do not arrive: an ACL may forbid channels.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Delay after a failed read. Errors are outages here: the client waits for the connection.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// Entries of the feed per read.
const PAGE: usize = 1_000;
/// Announcements that wait to be handled. Beyond, the feed is read instead.
const MAX_ANNOUNCED: usize = 100_000;
/// Events of this process that are kept until they are delivered, in bytes. Beyond, they are read from the server.
const MAX_RECENT_BYTES: usize = 32 << 20;
/// Entries handled at a time.
const BATCH: usize = 500;
/// Subjects of which the last id is kept.
const MAX_KNOWN: usize = 50_000;

struct Tailer {
    glob: Glob,
    mailbox: Arc<Mailbox<Stored>>,
    /// Delivers what comes after this position.
    start: Head,
    /// Some: it reads the feed by itself, from this position.
    behind: Option<EventId>,
}

impl Tailer {
    fn receives(&self, entry: &Entry) -> bool {
        self.start.position < entry.position
            // An event of another writer may have been stored long before it was added to the feed.
            && (entry.origin != Origin::OtherWriter || self.start.now <= entry.id.ms)
            && self.glob.matches(&entry.subject)
    }
}

#[derive(Default)]
struct State {
    /// Tailers that do not know yet where they start.
    starting: HashMap<u64, (Glob, Arc<Mailbox<Stored>>)>,
    tailers: HashMap<u64, Tailer>,
    /// Up to here everything was delivered to tailers that are not behind. None: there is no tailer.
    cursor: Option<EventId>,
    /// The last id delivered of each subject: what other writers append is delivered with the next event of the subject.
    known: HashMap<Arc<str>, EventId>,
    /// No id beyond this time was removed from `known`.
    known_floor: u64,
    /// Events that this process appended, by the number of their position, and their bytes.
    recent: VecDeque<(u64, Event)>,
    recent_bytes: usize,
    /// The number of the newest position that this process has appended.
    own_newest: u64,
    /// Appends of this process that were not answered.
    own_in_flight: u64,
    /// Whether other writers append: then subjects have to be read for their events.
    foreign: bool,
    /// End of the batch whose events are being read.
    reading: Option<EventId>,
    /// Announced entries, without a gap after the cursor.
    announced: VecDeque<Entry>,
    /// Whether the feed has to be read, as announcements may be missing.
    stale: bool,
    /// Whether watchers have to be notified of the end of the feed.
    check_head: bool,
    /// Whether announcements arrive.
    live: bool,
    /// Whether the channel is subscribed to and the task runs.
    running: bool,
}

impl State {
    /// Returns from where the subject of an entry is read: after what was delivered of it.
    fn start_of(&self, entry: &Entry, batch: &HashMap<Arc<str>, EventId>) -> Start {
        let first = self.tailers.values().map(|tailer| tailer.start.now).min().unwrap_or(u64::MAX);
        let start = match batch.get(&entry.subject).or_else(|| self.known.get(&entry.subject)) {
            Some(id) => Start::After(*id),
            None => Start::At(EventId { ms: first.max(self.known_floor + 1), seq: 0 }),
        };
        match start {
            Start::At(id) | Start::After(id) if id >= entry.id => Start::At(entry.id),
            start => start,
        }
    }

    /// Returns the event of an entry, if this process has appended it and keeps it.
    fn recent(&self, entry: &Entry) -> Option<Event> {
        let at = self.recent.binary_search_by_key(&entry.position.seq, |(number, _)| *number).ok()?;
        let (_, event) = &self.recent[at];
        // Not so where a server lost writes and gave the number again.
        (event.id() == entry.id.to_string()).then(|| event.clone())
    }

    fn keep(&mut self, number: u64, event: &Event) {
        if self.recent.back().is_some_and(|(last, _)| *last >= number) {
            self.recent.clear();
            self.recent_bytes = 0;
        }
        self.recent_bytes += event.json().len();
        self.recent.push_back((number, event.clone()));
        while self.recent_bytes > MAX_RECENT_BYTES {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, event)) = self.recent.pop_front() {
            self.recent_bytes -= event.json().len();
        }
    }

    /// Drops the events that all tailers have got.
    fn forget_delivered(&mut self) {
        let behind = self.tailers.values().filter_map(|tailer| tailer.behind);
        let reached = behind.chain(self.cursor).map(|position| position.seq).min().unwrap_or(u64::MAX);
        while self.recent.front().is_some_and(|(number, _)| *number <= reached) {
            self.forget_first();
        }
    }

    /// Returns how many announced entries can be handled. One that may be this process's own is kept until the append is
    /// answered: its event is here then, and could not be read any sooner.
    fn ready(&self) -> usize {
        if self.foreign || self.own_in_flight == 0 {
            return self.announced.len();
        }
        self.announced.partition_point(|entry| entry.position.seq <= self.own_newest)
    }

    /// Notes what a batch delivered.
    fn note_delivered(&mut self, batch: HashMap<Arc<str>, EventId>) {
        if self.known.len() + batch.len() > MAX_KNOWN {
            self.known_floor = self.known.values().map(|id| id.ms).max().unwrap_or(0).max(self.known_floor);
            self.known.clear();
        }
        for (subject, id) in batch {
            let last = self.known.entry(subject).or_insert(id);
            *last = id.max(*last);
        }
    }

    /// The position that follows without a gap if the next announcement is one more.
    fn tip(&self) -> Option<EventId> {
        self.announced.back().map(|entry| entry.position).or(self.reading).or(self.cursor)
    }
}

struct Shared {
    feed: Feed,
    max_entries: u64,
    state: Mutex<State>,
    changed: Notify,
    /// Notified when the lease of a consumer was released.
    released: Arc<Notify>,
    /// The number of the newest position known.
    news: watch::Sender<u64>,
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
}

impl Drop for OwnAppend {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.own_in_flight -= 1;
        if !state.announced.is_empty() {
            drop(state);
            self.0.changed.notify_one();
        }
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
                })
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
        drop(state);
        shared.changed.notify_one();
    }

    fn on_subscribed(&self, _: &Channel) {
        let Some(shared) = self.0.upgrade() else { return };
        shared.state().live = true;
        // Announcements may have been missed until now.
        shared.read_feed();
    }

    fn on_disconnected(&self) {
        let Some(shared) = self.0.upgrade() else { return };
        shared.state().live = false;
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

/// Delivers what is new, until the store is closed.
async fn follow(shared: Arc<Shared>, runtime: Handle) {
    let mut next_adoption = Instant::now() + ADOPT_STEP_DELAY;
    let mut next_poll = Instant::now() + POLL_INTERVAL;
    while !shared.is_closed() {
        if !shared.is_followed() {
            shared.changed.notified().await;
            continue;
        }
        let delivered = match notify_watchers(&shared).await {
            Ok(()) => deliver_next(&shared, &runtime).await,
            Err(error) => Err(error),
        };
        match delivered {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(%error, "store subscriptions: the feed was not read");
                {
                    let mut state = shared.state();
                    (state.stale, state.check_head) = (true, true);
                }
                tokio::time::sleep(RETRY_DELAY).await;
                continue;
            }
        }
        let live = shared.state().live;
        let wait = if live { next_adoption } else { next_adoption.min(next_poll) };
        if tokio::time::timeout_at(wait, shared.changed.notified()).await.is_ok() {
            continue;
        }
        if !live && Instant::now() >= next_poll {
            next_poll = Instant::now() + POLL_INTERVAL;
            shared.read_feed();
        }
        if Instant::now() >= next_adoption {
            let adoption = shared.feed.adopt(shared.max_entries).await;
            let unfinished = matches!(adoption, Ok(Adoption::Unfinished));
            next_adoption = Instant::now() + if unfinished { ADOPT_STEP_DELAY } else { ADOPT_INTERVAL };
        }
    }
}

/// Notifies watchers of the end of the feed, where announcements may be missing.
async fn notify_watchers(shared: &Shared) -> Result<()> {
    let is_due = std::mem::take(&mut shared.state().check_head);
    if is_due && shared.news.receiver_count() > 0 {
        let mut head = shared.feed.head().into_future().await?.position.seq;
        if head < *shared.news.borrow() {
            // Announced while the head was read, or the server has lost writes: what is read now says which.
            head = shared.feed.head().into_future().await?.position.seq;
        }
        shared.news.send_if_modified(|newest| std::mem::replace(newest, head) != head);
    }
    Ok(())
}

/// Delivers one batch. Returns whether there may be more.
async fn deliver_next(shared: &Arc<Shared>, runtime: &Handle) -> Result<bool> {
    let (announced, cursor) = {
        let mut state = shared.state();
        let Some(cursor) = state.cursor else {
            state.stale = false;
            return Ok(false);
        };
        let count = state.ready().min(BATCH);
        if count == 0 && (!state.announced.is_empty() || !std::mem::take(&mut state.stale)) {
            return Ok(false);
        }
        let batch: Vec<_> = state.announced.drain(..count).collect();
        state.reading = batch.last().map(|entry| entry.position);
        (batch, cursor)
    };
    let result = if announced.is_empty() {
        read_page(shared, cursor, runtime).await
    } else {
        let last = announced.last().map(|entry| entry.position);
        deliver(shared, Page { entries: announced, last, missed: 0, full: true }, runtime).await.map(|()| true)
    };
    let mut state = shared.state();
    state.reading = None;
    if result.is_err() {
        // Read again, from the cursor.
        state.announced.clear();
    }
    result
}

/// Reads the feed after a position and delivers it. Returns whether there may be more.
async fn read_page(shared: &Arc<Shared>, cursor: EventId, runtime: &Handle) -> Result<bool> {
    let page = shared.feed.entries(cursor, PAGE).await?;
    let Some(last) = page.last else {
        return reset_if_behind_cursor(shared, cursor).await;
    };
    {
        let mut state = shared.state();
        state.reading = Some(last);
        // Announced meanwhile: what follows the page is kept.
        while state.announced.front().is_some_and(|entry| entry.position <= last) {
            state.announced.pop_front();
        }
        if state.announced.front().is_some_and(|entry| entry.position.seq != last.seq + 1) {
            state.announced.clear();
            state.stale = true;
        }
        if page.full {
            state.stale = true;
        }
    }
    let full = page.full;
    deliver(shared, page, runtime).await?;
    Ok(full)
}

/// A server that lost writes (a failover, a restart without persistence) counts from an earlier position again.
async fn reset_if_behind_cursor(shared: &Arc<Shared>, cursor: EventId) -> Result<bool> {
    let head = shared.feed.head().into_future().await?;
    let mut state = shared.state();
    if head.position >= cursor || state.cursor != Some(cursor) {
        return Ok(false);
    }
    state.cursor = Some(head.position);
    state.announced.clear();
    for tailer in state.tailers.values_mut().filter(|tailer| tailer.behind.is_none()) {
        tailer.start = head;
        tailer.mailbox.note_gap(Gap { reason: GapReason::Reconnect, missed: None });
    }
    Ok(true)
}

/// Reads the events of entries and delivers them.
async fn deliver(shared: &Arc<Shared>, page: Page, runtime: &Handle) -> Result<()> {
    let Some(last) = page.last else { return Ok(()) };
    // Tailers that start meanwhile begin at or after `last`, or read by themselves.
    let (mut wanted, mut found, mut unread, mut batch) =
        (Vec::new(), Vec::new(), Vec::new(), HashMap::<_, EventId>::new());
    {
        let mut state = shared.state();
        state.foreign |= page.entries.iter().any(|entry| entry.origin == Origin::OtherWriter);
        for entry in page.entries {
            let known = batch.get(&entry.subject).or_else(|| state.known.get(&entry.subject));
            // Delivered with a later event of its subject already.
            let is_delivered = entry.origin == Origin::OtherWriter && known.is_some_and(|last| entry.id <= *last);
            let is_wanted = || state.tailers.values().any(|tailer| tailer.behind.is_none() && tailer.receives(&entry));
            if !is_delivered && is_wanted() {
                let recent = state.recent(&entry).filter(|_| !state.foreign);
                if recent.is_none() {
                    unread.push((wanted.len(), state.start_of(&entry, &batch)));
                }
                found.push(Found::Events(recent.map(|event| (entry.id, event)).into_iter().collect()));
                let last = batch.entry(entry.subject.clone()).or_insert(entry.id);
                *last = entry.id.max(*last);
                wanted.push(entry);
            }
        }
    }
    let asked: Vec<_> = unread.iter().map(|(at, start)| (&wanted[*at], *start)).collect();
    for ((at, _), read) in unread.iter().zip(shared.feed.events(&asked).await?) {
        found[*at] = read;
    }
    let mut late = Vec::new();
    {
        let mut state = shared.state();
        let Some(cursor) = state.cursor else { return Ok(()) };
        for (id, tailer) in state.tailers.iter_mut().filter(|(_, tailer)| tailer.behind.is_none()) {
            if page.missed > 0 && tailer.start.position <= cursor {
                tailer.mailbox.note_gap(Gap { reason: GapReason::Trimmed, missed: Some(page.missed) });
            }
            if let Some(reached) = push_all(tailer, cursor, &wanted, &found) {
                tailer.behind = Some(reached);
                late.push(*id);
            }
        }
        state.cursor = Some(last);
        state.note_delivered(batch);
        state.forget_delivered();
    }
    for id in late {
        runtime.spawn(catch_up(shared.clone(), id));
    }
    Ok(())
}

/// Pushes events to a tailer. Some: its mailbox is full, and it has got what is up to this position.
fn push_all(tailer: &Tailer, after: EventId, entries: &[Entry], found: &[Found]) -> Option<EventId> {
    let mut reached = after;
    for (entry, found) in entries.iter().zip(found).filter(|(entry, _)| tailer.receives(entry)) {
        match found {
            Found::Trimmed => tailer.mailbox.note_gap(Gap { reason: GapReason::Trimmed, missed: Some(1) }),
            Found::Events(events) => {
                for (id, event) in events {
                    if *id != entry.id && tailer.start.now > id.ms {
                        continue;
                    }
                    if tailer.mailbox.len() >= tailer.mailbox.capacity() {
                        return Some(reached);
                    }
                    _ = tailer.mailbox.push(Stored { subject: entry.subject.clone(), event: event.clone() });
                }
            }
        }
        reached = entry.position;
    }
    None
}

/// Delivers to a tailer by itself, as its mailbox has room, until it has reached the others.
async fn catch_up(shared: Arc<Shared>, id: u64) {
    loop {
        let (mailbox, after) = {
            let state = shared.state();
            let Some(tailer) = state.tailers.get(&id) else { return };
            let Some(after) = tailer.behind else { return };
            (tailer.mailbox.clone(), after)
        };
        mailbox.wait_for_capacity().await;
        if shared.is_closed() {
            return;
        }
        if let Err(error) = catch_up_page(&shared, id, after).await {
            tracing::debug!(%error, "store subscriptions: the feed was not read");
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }
}

async fn catch_up_page(shared: &Shared, id: u64, after: EventId) -> Result<()> {
    let page = shared.feed.entries(after, PAGE).await?;
    let wanted: Vec<Entry> = {
        let state = shared.state();
        let Some(tailer) = state.tailers.get(&id) else { return Ok(()) };
        let room = tailer.mailbox.capacity().saturating_sub(tailer.mailbox.len()).clamp(1, BATCH);
        page.entries.iter().filter(|entry| tailer.receives(entry)).take(room).cloned().collect()
    };
    let recent: Vec<_> = {
        let state = shared.state();
        wanted.iter().map(|entry| state.recent(entry)).collect()
    };
    let unread: Vec<_> = wanted.iter().zip(&recent).filter(|(_, recent)| recent.is_none()).collect();
    let asked: Vec<_> = unread.into_iter().map(|(entry, _)| (entry, Start::At(entry.id))).collect();
    let mut read = shared.feed.events(&asked).await?.into_iter();
    let of_entry = |(entry, recent): (&Entry, Option<Event>)| match recent {
        Some(event) => Found::Events(vec![(entry.id, event)]),
        None => read.next().unwrap_or(Found::Events(Vec::new())),
    };
    let found: Vec<_> = wanted.iter().zip(recent).map(of_entry).collect();
    let mut state = shared.state();
    let goal = state.reading.or(state.cursor).unwrap_or_default();
    let Some(tailer) = state.tailers.get_mut(&id) else { return Ok(()) };
    if page.missed > 0 {
        tailer.mailbox.note_gap(Gap { reason: GapReason::Trimmed, missed: Some(page.missed) });
    }
    let reached = push_all(tailer, after, &wanted, &found).unwrap_or_else(|| {
        let unselected = page.entries.iter().filter(|entry| tailer.receives(entry)).nth(wanted.len());
        match (unselected, wanted.last()) {
            (Some(_), Some(last)) => last.position,
            _ => page.last.unwrap_or(goal),
        }
    });
    tailer.behind = (reached < goal).then_some(reached);
    if tailer.behind.is_none() {
        // The others may still get some of what it has.
        tailer.start.position = reached;
    }
    state.forget_delivered();
    Ok(())
}
