//! Store subscriptions: appends of every process, in order, none twice, also after an outage.
//!
//! For each tailed subject the id of the last delivered event is kept, and later events are read from the stream itself.
//! Notifications only say when to read: native instances publish one with every append; appends of other writers are
//! found by polling the known subjects every second, and new subjects of a glob by a scan every five. A lost notification
//! therefore delays events and loses none.
//!
//! A subscription made during an outage keeps its place among the calls: it starts before any append that was called
//! after it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use ::redis::{Value, cmd};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::keys::Keys;
use super::{record, scripts};
use crate::error::{Error, Result};
use crate::event::{Event, EventId};
use crate::fanout::{Mailbox, next_id};
use crate::op::Op;
use crate::redis::pubsub::{Channel, PubSub, Receiver};
use crate::redis::{Client, RedisConfig, Request, reply};
use crate::store::Stored;
use crate::sync::lock;
use crate::topic::Glob;

/// Time between two reads of the known subjects without a notification.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two scans for new subjects of globs.
const SCAN_INTERVAL: Duration = Duration::from_secs(5);
/// Bounds of one read.
const MAX_EVENTS_PER_READ: usize = 500;
const MAX_SUBJECTS_PER_READ: usize = 200;

struct Tailer {
    pattern: Arc<str>,
    glob: Glob,
    mailbox: Arc<Mailbox<Stored>>,
    /// Ids after which this tailer gets events, where they are beyond the subject's position.
    starts: HashMap<Arc<str>, EventId>,
}

#[derive(Default)]
struct Position {
    /// Delivered up to here.
    last: EventId,
    /// Number of complete scans that did not find it. A scan may miss a key that is created while it runs.
    missed_scans: u8,
}

/// Subjects that may have new events, in the order of their first notification.
#[derive(Default)]
struct Pending(HashMap<Arc<str>, usize>);

impl Pending {
    fn add(&mut self, subject: Arc<str>) {
        let next = self.0.len();
        self.0.entry(subject).or_insert(next);
    }

    fn in_order(self) -> Vec<Arc<str>> {
        let mut subjects: Vec<_> = self.0.into_iter().collect();
        subjects.sort_unstable_by_key(|(_, order)| *order);
        subjects.into_iter().map(|(subject, _)| subject).collect()
    }
}

#[derive(Default)]
struct State {
    /// Tailers whose first positions are not known yet.
    starting: HashMap<u64, Tailer>,
    tailers: HashMap<u64, Tailer>,
    positions: HashMap<Arc<str>, Position>,
    pending: Pending,
    all_pending: bool,
    scan: bool,
    task: bool,
}

impl State {
    fn is_tailed(&self, subject: &str) -> bool {
        self.tailers.values().any(|tailer| tailer.glob.matches(subject))
    }
}

struct Shared {
    client: Arc<Client>,
    keys: Keys,
    state: Mutex<State>,
    changed: Notify,
    closed: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// The subscriptions of one store.
pub(super) struct Tailers {
    shared: Arc<Shared>,
    pubsub: Arc<PubSub>,
    accept_timeout: Duration,
    runtime: Handle,
}

/// Receives notifications of appends.
struct Notifications(Weak<Shared>);

impl Receiver for Notifications {
    fn message(&self, _: &Channel, topic: &str, _: &[u8]) {
        let Some(shared) = self.0.upgrade() else { return };
        if let Some(subject) = topic.strip_prefix(&shared.keys.appended_prefix()) {
            shared.state().pending.add(subject.into());
            shared.changed.notify_one();
        }
    }

    fn live(&self, _: &Channel) {
        let Some(shared) = self.0.upgrade() else { return };
        // Notifications may have been missed until now.
        let mut state = shared.state();
        (state.all_pending, state.scan) = (true, true);
        shared.changed.notify_one();
    }

    fn interrupted(&self) {}
}

impl Tailers {
    pub(super) fn new(config: Arc<RedisConfig>, client: Arc<Client>, keys: Keys, runtime: &Handle) -> Self {
        let shared = Arc::new(Shared {
            client,
            keys,
            state: Mutex::default(),
            changed: Notify::new(),
            closed: AtomicBool::new(false),
        });
        let accept_timeout = config.queue_timeout;
        let pubsub = Arc::new(PubSub::new(config, Arc::new(Notifications(Arc::downgrade(&shared))), runtime));
        Self { shared, pubsub, accept_timeout, runtime: runtime.clone() }
    }

    /// Subscribes to a subject or glob, from its end when this call is executed. Resolves then, or, during an outage, after
    /// [`RedisConfig::queue_timeout`]: the subscription is accepted, and live when the server is back.
    pub(super) fn subscribe(&self, pattern: &str, mailbox: Arc<Mailbox<Stored>>) -> Op<u64> {
        let glob = Glob::new(pattern);
        let mut call = scripts::POSITIONS.call(&[]);
        call.arg(pattern).arg(if glob.is_literal() { "0" } else { "1" });
        let id = next_id();
        let tailer = Tailer { pattern: pattern.into(), glob, mailbox, starts: HashMap::new() };
        self.shared.state().starting.insert(id, tailer);
        // Without notifications (an ACL may forbid channels) events arrive by polling.
        let _confirmed = self.pubsub.want(channel(&self.shared.keys, pattern));
        let (sender, receiver) = oneshot::channel();
        // Weak: the call may wait long and must not keep a dropped store alive.
        let (shared, pubsub) = (Arc::downgrade(&self.shared), self.pubsub.clone());
        self.shared.client.submit(Request::patient_read("subscribe", call).of(&scripts::POSITIONS), move |result| {
            let Some(shared) = shared.upgrade() else { return };
            let started = result.and_then(reply::pairs).and_then(|ends| start(&shared, id, ends));
            if started.is_err() {
                remove(&shared, &pubsub, id);
            }
            _ = sender.send(started.map(|()| id));
        });
        if !std::mem::replace(&mut self.shared.state().task, true) {
            self.runtime.spawn(run(self.shared.clone()));
        }
        let accept_timeout = self.accept_timeout;
        Op::pending(async move {
            match tokio::time::timeout(accept_timeout, receiver).await {
                Ok(started) => started.unwrap_or_else(|_| Err(Error::closed("the Redis store"))),
                Err(_) => Ok(id),
            }
        })
    }

    /// Ends a subscription and closes its mailbox.
    pub(super) fn unsubscribe(&self, id: u64) {
        remove(&self.shared, &self.pubsub, id);
    }

    pub(super) fn close(&self) -> Op<()> {
        self.shared.closed.store(true, Ordering::Release);
        {
            let mut state = self.shared.state();
            let State { starting, tailers, .. } = &mut *state;
            starting.drain().chain(tailers.drain()).for_each(|(_, tailer)| tailer.mailbox.close());
        }
        self.shared.changed.notify_one();
        self.pubsub.close()
    }
}

/// Starts a tailer at the ends of its subjects.
fn start(shared: &Shared, id: u64, ends: Vec<(String, String)>) -> Result<()> {
    let mut state = shared.state();
    // Unsubscribed meanwhile.
    let Some(mut tailer) = state.starting.remove(&id) else { return Ok(()) };
    for (subject, last) in ends {
        let (subject, last) = (Arc::<str>::from(subject), last.parse()?);
        let position = state.positions.entry(subject.clone()).or_insert(Position { last, missed_scans: 0 });
        if position.last < last {
            tailer.starts.insert(subject, last);
        }
    }
    state.tailers.insert(id, tailer);
    // Notifications since were not for a known subject.
    state.all_pending = true;
    drop(state);
    shared.changed.notify_one();
    Ok(())
}

fn remove(shared: &Shared, pubsub: &PubSub, id: u64) {
    let mut state = shared.state();
    let Some(tailer) = state.tailers.remove(&id).or_else(|| state.starting.remove(&id)) else { return };
    tailer.mailbox.close();
    if !state.tailers.values().chain(state.starting.values()).any(|other| other.pattern == tailer.pattern) {
        pubsub.unwant(&channel(&shared.keys, &tailer.pattern));
    }
    let State { tailers, positions, .. } = &mut *state;
    positions.retain(|subject, _| tailers.values().any(|tailer| tailer.glob.matches(subject)));
}

/// Returns the channel that announces appends to a subject or glob.
fn channel(keys: &Keys, pattern: &str) -> Channel {
    if !crate::topic::is_pattern(pattern) {
        return Channel::Exact(keys.appended(pattern).into());
    }
    let mut glob = String::new();
    for c in keys.appended_prefix().chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^') {
            glob.push('\\');
        }
        glob.push(c);
    }
    glob.push_str(pattern);
    Channel::Pattern(glob.into())
}

impl Drop for Tailers {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.changed.notify_one();
    }
}

/// Reads and delivers new events until the store is closed.
async fn run(shared: Arc<Shared>) {
    let mut scaned = Instant::now();
    while !shared.closed.load(Ordering::Acquire) {
        let scan = {
            let mut state = shared.state();
            let globs = state.tailers.values().any(|tailer| !tailer.glob.is_literal());
            globs && (std::mem::take(&mut state.scan) || scaned.elapsed() >= SCAN_INTERVAL)
        };
        // Errors are outages here: the read is repeated when the server is back.
        if scan {
            if let Err(error) = scan_subjects(&shared).await {
                tracing::debug!(%error, "store subscriptions: no scan");
                shared.state().scan = true;
            }
            scaned = Instant::now();
        }
        let more = read_new(&shared).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "store subscriptions: no read");
            shared.state().all_pending = true;
            false
        });
        if !more && tokio::time::timeout(POLL_INTERVAL, shared.changed.notified()).await.is_err() {
            shared.state().all_pending = true;
        }
    }
}

/// Finds subjects of globs that were not announced, page by page, and removes deleted ones.
async fn scan_subjects(shared: &Shared) -> Result<()> {
    let globs: Vec<_> = {
        let state = shared.state();
        let globs = state.tailers.values().filter(|f| !f.glob.is_literal()).map(|f| f.pattern.clone());
        globs.collect::<HashSet<_>>().into_iter().collect()
    };
    let mut found = HashSet::new();
    for glob in globs {
        let mut cursor = "0".to_owned();
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(&*glob).arg("COUNT").arg(1000).arg("TYPE").arg("stream");
            let page = shared.client.call(Request::read("SCAN", scan), reply::list).await?;
            let mut page = page.into_iter();
            cursor = page.next().map(reply::text).transpose()?.unwrap_or_default();
            found.extend(page.next().map(reply::texts).transpose()?.unwrap_or_default());
            if cursor == "0" || cursor.is_empty() {
                break;
            }
        }
    }
    let mut state = shared.state();
    let State { tailers, positions, pending, .. } = &mut *state;
    positions.retain(|subject, position| {
        position.missed_scans = if found.contains(&**subject) { 0 } else { position.missed_scans + 1 };
        position.missed_scans < 3 || tailers.values().any(|f| f.glob.is_literal() && f.glob.matches(subject))
    });
    // An unknown subject did not exist when its tailers started.
    let unknown = found.into_iter().map(Arc::from).filter(|subject: &Arc<str>| !positions.contains_key(subject));
    unknown.for_each(|subject| pending.add(subject));
    Ok(())
}

/// Reads and delivers once. Returns whether there is more.
async fn read_new(shared: &Shared) -> Result<bool> {
    let from: Vec<(Arc<str>, EventId)> = {
        let mut state = shared.state();
        let pending = std::mem::take(&mut state.pending).in_order();
        if std::mem::take(&mut state.all_pending) {
            for subject in pending {
                if state.is_tailed(&subject) {
                    state.positions.entry(subject).or_default();
                }
            }
            state.positions.iter().map(|(subject, position)| (subject.clone(), position.last)).collect()
        } else {
            let wanted: Vec<_> = pending.into_iter().filter(|subject| state.is_tailed(subject)).collect();
            let last = |subject: Arc<str>| (subject.clone(), state.positions.entry(subject).or_default().last);
            wanted.into_iter().map(last).collect()
        }
    };
    let mut more = false;
    for subjects in from.chunks(MAX_SUBJECTS_PER_READ) {
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(MAX_EVENTS_PER_READ).arg("STREAMS");
        subjects.iter().for_each(|(subject, _)| _ = read.arg(&**subject));
        subjects.iter().for_each(|(_, last)| _ = read.arg(last.to_string()));
        let mut events = Vec::new();
        for stream in shared.client.call(Request::read("XREAD", read), reply::list).await? {
            more |= parse_stream(shared, stream, &mut events)?;
        }
        // Several subjects in the order of time, and within a millisecond in the order of their notifications.
        events.sort_by_key(|(id, ..)| *id);
        deliver(shared, events);
    }
    Ok(more)
}

/// An entry that was read: its id, its subject, its fields.
type Entry = (EventId, Arc<str>, Vec<(String, String)>);

/// Parses the reply for one subject. Returns whether there may be more of it.
fn parse_stream(shared: &Shared, stream: Value, events: &mut Vec<Entry>) -> Result<bool> {
    let mut parts = reply::list(stream)?.into_iter();
    let (Some(subject), Some(entries)) = (parts.next(), parts.next()) else { return Ok(false) };
    let (subject, entries) = (Arc::<str>::from(reply::text(subject)?), reply::list(entries)?);
    let full = entries.len() == MAX_EVENTS_PER_READ;
    for entry in entries {
        let (id, fields) = record::entry(entry)?;
        events.push((id, subject.clone(), fields));
    }
    if full {
        shared.state().pending.add(subject);
    }
    Ok(full)
}

fn deliver(shared: &Shared, events: Vec<Entry>) {
    let mut state = shared.state();
    let State { tailers, positions, .. } = &mut *state;
    for (id, subject, fields) in events {
        let Some(position) = positions.get_mut(&subject).filter(|position| position.last < id) else { continue };
        position.last = id;
        // An entry that is no event is skipped: it must not block what follows.
        let Ok(event) = Event::parse(&record::to_json(id, &fields)) else { continue };
        for tailer in tailers.values_mut().filter(|tailer| tailer.glob.matches(&subject)) {
            if tailer.starts.get(&subject).is_none_or(|start| *start < id) {
                tailer.starts.remove(&subject);
                _ = tailer.mailbox.push(Stored { subject: subject.clone(), event: event.clone() });
            }
        }
    }
}
