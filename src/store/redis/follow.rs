//! Store subscriptions: appends of every process, in order, none twice, also after an outage.
//!
//! For each subject that somebody follows, the id up to which it was delivered is known, and what comes after it is read
//! from the stream itself. What tells that there is something to read is only a hint: native instances publish one with
//! every append; instances that do not are found by looking at the known subjects every second, and for new subjects of a
//! glob every five. A hint that is lost therefore costs time, never an event.
//!
//! A subscription made during an outage keeps its place among the calls, so it begins where its turn comes when the server
//! is back: before any append that was called after it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
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
use crate::topic::Glob;

/// How often the known subjects are looked at without a hint.
const LOOK: Duration = Duration::from_secs(1);
/// How often new subjects of globs are looked for.
const SEARCH: Duration = Duration::from_secs(5);
/// Most events of one subject per read, and most subjects per read.
const PAGE: usize = 500;
const SUBJECTS: usize = 200;

struct Follower {
    pattern: Arc<str>,
    glob: Glob,
    mailbox: Arc<Mailbox<Stored>>,
    /// Where its subscription began, for subjects that had events which others have not got yet.
    starts: HashMap<Arc<str>, EventId>,
}

#[derive(Default)]
struct Position {
    /// Delivered up to here.
    last: EventId,
    /// Complete searches that have not found it. A search may miss what is made while it runs, so one does not count.
    absent: u8,
}

/// Subjects that may have something new, in the order in which they were told of first.
#[derive(Default)]
struct Dirty(HashMap<Arc<str>, usize>);

impl Dirty {
    fn add(&mut self, subject: Arc<str>) {
        let next = self.0.len();
        self.0.entry(subject).or_insert(next);
    }

    fn in_order(self) -> Vec<Arc<str>> {
        let mut subjects: Vec<_> = self.0.into_iter().collect();
        subjects.sort_unstable_by_key(|(_, told)| *told);
        subjects.into_iter().map(|(subject, _)| subject).collect()
    }
}

#[derive(Default)]
struct State {
    /// Where these begin is not known yet.
    beginning: HashMap<u64, Follower>,
    followers: HashMap<u64, Follower>,
    positions: HashMap<Arc<str>, Position>,
    dirty: Dirty,
    all_dirty: bool,
    search: bool,
    task: bool,
}

impl State {
    fn wants(&self, subject: &str) -> bool {
        self.followers.values().any(|follower| follower.glob.matches(subject))
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everyone who follows subjects of one store.
pub(super) struct Followers {
    shared: Arc<Shared>,
    pubsub: Arc<PubSub>,
    patience: Duration,
    runtime: Handle,
}

/// Hears hints.
struct Hints(Weak<Shared>);

impl Receiver for Hints {
    fn message(&self, _: &Channel, topic: &str, _: &[u8]) {
        let Some(shared) = self.0.upgrade() else { return };
        if let Some(subject) = topic.strip_prefix(&shared.keys.appended_prefix()) {
            shared.state().dirty.add(subject.into());
            shared.changed.notify_one();
        }
    }

    fn live(&self, _: &Channel) {
        let Some(shared) = self.0.upgrade() else { return };
        // Hints may have been missed until now.
        let mut state = shared.state();
        (state.all_dirty, state.search) = (true, true);
        shared.changed.notify_one();
    }

    fn interrupted(&self) {}
}

impl Followers {
    pub(super) fn new(config: Arc<RedisConfig>, client: Arc<Client>, keys: Keys, runtime: &Handle) -> Self {
        let shared = Arc::new(Shared {
            client,
            keys,
            state: Mutex::default(),
            changed: Notify::new(),
            closed: AtomicBool::new(false),
        });
        let patience = config.queue_timeout;
        let pubsub = Arc::new(PubSub::new(config, Arc::new(Hints(Arc::downgrade(&shared))), runtime));
        Self { shared, pubsub, patience, runtime: runtime.clone() }
    }

    /// Follows a subject or glob from where it ends when this call's turn comes. The operation ends then, or, in an outage,
    /// after [`RedisConfig::queue_timeout`]: the subscription is accepted, and live when the server is back.
    pub(super) fn follow(&self, pattern: &str, mailbox: Arc<Mailbox<Stored>>) -> Op<u64> {
        let glob = Glob::new(pattern);
        let mut call = scripts::POSITIONS.call(&[]);
        call.arg(pattern).arg(if glob.is_literal() { "0" } else { "1" });
        let id = next_id();
        let follower = Follower { pattern: pattern.into(), glob, mailbox, starts: HashMap::new() };
        self.shared.state().beginning.insert(id, follower);
        // Without hints (an ACL may forbid channels) events come all the same, later.
        let _hints = self.pubsub.want(channel(&self.shared.keys, pattern));
        let (sender, receiver) = oneshot::channel();
        // Weak, as the call may wait for long, and must not keep a store that nobody has any more.
        let (shared, pubsub) = (Arc::downgrade(&self.shared), self.pubsub.clone());
        self.shared.client.submit(Request::patient_read("subscribe", call).of(&scripts::POSITIONS), move |result| {
            let Some(shared) = shared.upgrade() else { return };
            let begun = result.and_then(reply::pairs).and_then(|ends| begin(&shared, id, ends));
            if begun.is_err() {
                unfollow(&shared, &pubsub, id);
            }
            _ = sender.send(begun.map(|()| id));
        });
        if !std::mem::replace(&mut self.shared.state().task, true) {
            self.runtime.spawn(run(self.shared.clone()));
        }
        let patience = self.patience;
        Op::pending(async move {
            match tokio::time::timeout(patience, receiver).await {
                Ok(begun) => begun.unwrap_or_else(|_| Err(Error::closed("the Redis store"))),
                Err(_) => Ok(id),
            }
        })
    }

    /// Ends a subscription and closes its mailbox.
    pub(super) fn unfollow(&self, id: u64) {
        unfollow(&self.shared, &self.pubsub, id);
    }

    pub(super) fn close(&self) -> Op<()> {
        self.shared.closed.store(true, Ordering::Release);
        {
            let mut state = self.shared.state();
            let State { beginning, followers, .. } = &mut *state;
            beginning.drain().chain(followers.drain()).for_each(|(_, follower)| follower.mailbox.close());
        }
        self.shared.changed.notify_one();
        self.pubsub.close()
    }
}

/// The server has told where the subjects of a follower end.
fn begin(shared: &Shared, id: u64, ends: Vec<(String, String)>) -> Result<()> {
    let mut state = shared.state();
    // Unsubscribed meanwhile.
    let Some(mut follower) = state.beginning.remove(&id) else { return Ok(()) };
    for (subject, last) in ends {
        let (subject, last) = (Arc::<str>::from(subject), last.parse()?);
        let position = state.positions.entry(subject.clone()).or_insert(Position { last, absent: 0 });
        if position.last < last {
            follower.starts.insert(subject, last);
        }
    }
    state.followers.insert(id, follower);
    // What was appended since came with hints that nobody took.
    state.all_dirty = true;
    drop(state);
    shared.changed.notify_one();
    Ok(())
}

fn unfollow(shared: &Shared, pubsub: &PubSub, id: u64) {
    let mut state = shared.state();
    let Some(follower) = state.followers.remove(&id).or_else(|| state.beginning.remove(&id)) else { return };
    follower.mailbox.close();
    if !state.followers.values().chain(state.beginning.values()).any(|other| other.pattern == follower.pattern) {
        pubsub.unwant(&channel(&shared.keys, &follower.pattern));
    }
    let State { followers, positions, .. } = &mut *state;
    positions.retain(|subject, _| followers.values().any(|follower| follower.glob.matches(subject)));
}

/// Where appends to a subject or glob are told.
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

impl Drop for Followers {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.changed.notify_one();
    }
}

/// Reads what is new, whenever there may be something.
async fn run(shared: Arc<Shared>) {
    let mut searched = Instant::now();
    while !shared.closed.load(Ordering::Acquire) {
        let search = {
            let mut state = shared.state();
            let globs = state.followers.values().any(|follower| !follower.glob.is_literal());
            globs && (std::mem::take(&mut state.search) || searched.elapsed() >= SEARCH)
        };
        // Errors are outages here, and pass: what was not read is read when the server is back.
        if search {
            if let Err(error) = find_subjects(&shared).await {
                tracing::debug!(%error, "store subscriptions: no search");
                shared.state().search = true;
            }
            searched = Instant::now();
        }
        let more = read_new(&shared).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "store subscriptions: no read");
            shared.state().all_dirty = true;
            false
        });
        if !more && tokio::time::timeout(LOOK, shared.changed.notified()).await.is_err() {
            shared.state().all_dirty = true;
        }
    }
}

/// Finds subjects of globs that nobody gave a hint of, page by page so that no one else waits, and forgets deleted ones.
async fn find_subjects(shared: &Shared) -> Result<()> {
    let globs: Vec<_> = {
        let state = shared.state();
        let globs = state.followers.values().filter(|f| !f.glob.is_literal()).map(|f| f.pattern.clone());
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
    let State { followers, positions, dirty, .. } = &mut *state;
    positions.retain(|subject, position| {
        position.absent = if found.contains(&**subject) { 0 } else { position.absent + 1 };
        position.absent < 3 || followers.values().any(|f| f.glob.is_literal() && f.glob.matches(subject))
    });
    // One that nobody knew did not exist when its followers began.
    let unknown = found.into_iter().map(Arc::from).filter(|subject: &Arc<str>| !positions.contains_key(subject));
    unknown.for_each(|subject| dirty.add(subject));
    Ok(())
}

/// Reads and delivers once; whether there is more.
async fn read_new(shared: &Shared) -> Result<bool> {
    let from: Vec<(Arc<str>, EventId)> = {
        let mut state = shared.state();
        let dirty = std::mem::take(&mut state.dirty).in_order();
        if std::mem::take(&mut state.all_dirty) {
            for subject in dirty {
                if state.wants(&subject) {
                    state.positions.entry(subject).or_default();
                }
            }
            state.positions.iter().map(|(subject, position)| (subject.clone(), position.last)).collect()
        } else {
            let wanted: Vec<_> = dirty.into_iter().filter(|subject| state.wants(subject)).collect();
            let last = |subject: Arc<str>| (subject.clone(), state.positions.entry(subject).or_default().last);
            wanted.into_iter().map(last).collect()
        }
    };
    let mut more = false;
    for subjects in from.chunks(SUBJECTS) {
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(PAGE).arg("STREAMS");
        subjects.iter().for_each(|(subject, _)| _ = read.arg(&**subject));
        subjects.iter().for_each(|(_, last)| _ = read.arg(last.to_string()));
        let mut events = Vec::new();
        for stream in shared.client.call(Request::read("XREAD", read), reply::list).await? {
            more |= read_of(shared, stream, &mut events)?;
        }
        // Of several subjects in the order of time, and within a millisecond in the order in which they were told of.
        events.sort_by_key(|(id, ..)| *id);
        deliver(shared, events);
    }
    Ok(more)
}

/// An entry that was read: its id, its subject, its fields.
type Read = (EventId, Arc<str>, Vec<(String, String)>);

/// Takes apart what was read of one subject; whether there may be more of it.
fn read_of(shared: &Shared, stream: Value, events: &mut Vec<Read>) -> Result<bool> {
    let mut parts = reply::list(stream)?.into_iter();
    let (Some(subject), Some(entries)) = (parts.next(), parts.next()) else { return Ok(false) };
    let (subject, entries) = (Arc::<str>::from(reply::text(subject)?), reply::list(entries)?);
    let full = entries.len() == PAGE;
    for entry in entries {
        let (id, fields) = record::entry(entry)?;
        events.push((id, subject.clone(), fields));
    }
    if full {
        shared.state().dirty.add(subject);
    }
    Ok(full)
}

fn deliver(shared: &Shared, events: Vec<Read>) {
    let mut state = shared.state();
    let State { followers, positions, .. } = &mut *state;
    for (id, subject, fields) in events {
        let Some(position) = positions.get_mut(&subject).filter(|position| position.last < id) else { continue };
        position.last = id;
        // An entry that is no event of ours is passed over rather than holding up what follows.
        let Ok(event) = Event::parse(&record::to_json(id, &fields)) else { continue };
        for follower in followers.values_mut().filter(|follower| follower.glob.matches(&subject)) {
            if follower.starts.get(&subject).is_none_or(|start| *start < id) {
                follower.starts.remove(&subject);
                _ = follower.mailbox.push(Stored { subject: subject.clone(), event: event.clone() });
            }
        }
    }
}
