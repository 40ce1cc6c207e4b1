//! One group on one adapter: a member of a Redis consumer group on retained topics.
//!
//! It reads over a connection of its own, as it waits on the server, and only what its mailbox has room for. What a
//! handler did is acknowledged; what it failed at is delivered again, to whichever member, until it is parked. Messages
//! under way are claimed again and again, so that a slow handler keeps them, and taken over from a member that is gone.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::{Cmd, Value, cmd};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::{Shared, scripts};
use crate::error::{Error, Result};
use crate::event::EventId;
use crate::fanout::Mailbox;
use crate::redis::link::Link;
use crate::redis::{Backoff, Request, reply};
use crate::stream::{Ack, Incoming, SubscribeSpec, TypeFilter};
use crate::topic::{Glob, is_pattern};

/// How long one read waits on the server.
const WAIT: Duration = Duration::from_millis(500);
/// Most messages read at a time.
const PAGE: usize = 64;

/// How groups deal with failure.
#[derive(Debug, Clone, Copy)]
pub struct GroupOptions {
    /// How long a member may give no sign of life before others take over what it had.
    pub takeover: Duration,
    /// How long after a failure a message is delivered again; twice as long after each further one.
    pub retry_delay: Duration,
    /// How often a message is delivered before it is parked.
    pub max_deliveries: u32,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self { takeover: Duration::from_secs(30), retry_delay: Duration::from_millis(500), max_deliveries: 5 }
    }
}

/// A message in a topic.
type Place = (Arc<str>, EventId);

enum Step {
    /// In the mailbox or with a handler.
    Delivered,
    /// To be delivered again.
    Retry(Instant),
    /// Done, but the server does not know yet.
    Acknowledge,
}

#[derive(Default)]
struct Work {
    /// Where topics ended when the group was joined; None until it is known.
    begins: Option<HashMap<String, String>>,
    steps: HashMap<Place, Step>,
    failures: HashMap<Place, u32>,
}

pub(super) struct Group {
    pub(super) topic: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) mailbox: Arc<Mailbox<Incoming>>,
    glob: Glob,
    member: String,
    filter: Option<TypeFilter>,
    from_beginning: bool,
    shared: Arc<Shared>,
    work: Mutex<Work>,
    leaving: AtomicBool,
    left: Notify,
    changed: Notify,
}

impl Group {
    pub(super) fn new(topic: &str, name: Arc<str>, spec: &SubscribeSpec, shared: Arc<Shared>) -> Self {
        Self {
            topic: topic.into(),
            name,
            mailbox: Arc::new(Mailbox::new(spec.buffer, spec.overflow)),
            glob: Glob::new(topic),
            member: shared.origin.clone(),
            filter: spec.filter.clone(),
            from_beginning: spec.from_beginning,
            shared,
            work: Mutex::default(),
            leaving: AtomicBool::new(false),
            left: Notify::new(),
            changed: Notify::new(),
        }
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handler is done.
    fn handled(&self, place: Place, succeeded: bool) {
        let mut work = self.work();
        if !work.steps.contains_key(&place) {
            return;
        }
        let step = if succeeded {
            work.failures.remove(&place);
            Step::Acknowledge
        } else {
            let failures = work.failures.entry(place.clone()).or_default();
            *failures += 1;
            let GroupOptions { retry_delay, max_deliveries, .. } = self.shared.groups;
            // The last failure has nothing to wait for: it is parked.
            let again = *failures < max_deliveries;
            let delay =
                if again { retry_delay * 2_u32.saturating_pow((*failures - 1).min(10)) } else { Duration::ZERO };
            Step::Retry(Instant::now() + delay)
        };
        work.steps.insert(place, step);
        drop(work);
        self.changed.notify_one();
    }

    /// Where the group begins in topics that are there already. In those that come up later, all is new to it.
    pub(super) fn begin_at(&self, ends: Vec<(String, String)>) {
        self.work().begins.get_or_insert_with(|| ends.into_iter().collect());
    }

    /// Makes sure that the group is there in every topic that is.
    pub(super) async fn create(&self) -> Result<()> {
        let topics: Vec<_> = match &self.work().begins {
            None => return Ok(()),
            Some(_) if !is_pattern(&self.topic) => vec![self.topic.to_string()],
            Some(begins) => begins.keys().filter(|topic| self.glob.matches(topic)).cloned().collect(),
        };
        for topic in topics {
            let create = Request::write("subscribe", self.create_at(&topic));
            self.shared.client.call(create, |_| Ok(())).await.or_else(existing)?;
        }
        Ok(())
    }

    fn create_at(&self, topic: &str) -> Cmd {
        let key = self.shared.keys.retained(topic);
        let begin = self.work().begins.as_ref().and_then(|begins| begins.get(topic).cloned());
        let begin = begin.filter(|_| !self.from_beginning).unwrap_or_else(|| "0".into());
        cmd("XGROUP").arg("CREATE").arg(key).arg(&*self.name).arg(begin).arg("MKSTREAM").take()
    }

    /// Ends it: what nobody got to is left to others.
    pub(super) async fn leave(self: Arc<Self>) {
        let left = self.left.notified();
        tokio::pin!(left);
        left.as_mut().enable();
        self.end();
        left.await;
    }

    /// Tells its task to end.
    pub(super) fn end(&self) {
        self.leaving.store(true, Ordering::Release);
        self.mailbox.close();
        self.changed.notify_one();
    }
}

/// A group that is there already is what was wanted.
fn existing(error: Error) -> Result<()> {
    if error.message().contains("BUSYGROUP") { Ok(()) } else { Err(error) }
}

/// Reads and delivers until the group is left.
pub(super) async fn run(group: Arc<Group>) {
    let config = group.shared.config.clone();
    let mut backoff = Backoff::new(config.max_reconnect_delay);
    while !group.leaving.load(Ordering::Acquire) {
        match Link::open(&config).await {
            Ok(link) => {
                backoff = Backoff::new(config.max_reconnect_delay);
                let mut member = Member::new(&group, link);
                match member.serve().await {
                    Ok(()) => {
                        member.leave().await;
                        break;
                    }
                    Err(error) => tracing::debug!(%error, "group member: reconnecting"),
                }
            }
            Err(error) => tracing::debug!(%error, "group member: not connected"),
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.delay()) => {}
            () = group.changed.notified() => {}
        }
    }
    group.left.notify_waiters();
}

struct Member<'a> {
    group: &'a Arc<Group>,
    link: Link,
    /// Topics where the group is known to exist.
    ready: HashSet<Arc<str>>,
    tended: Option<Instant>,
}

impl<'a> Member<'a> {
    fn new(group: &'a Arc<Group>, link: Link) -> Self {
        Self { group, link, ready: HashSet::new(), tended: None }
    }

    async fn call(&mut self, what: &'static str, cmd: &Cmd) -> Result<Value> {
        let patience = WAIT + self.group.shared.config.response_timeout;
        match timeout(patience, self.link.call(what, cmd)).await {
            Ok(reply) => reply,
            Err(_) => Err(Error::unavailable(format!("{what}: no reply within {patience:?}"))),
        }
    }

    async fn serve(&mut self) -> Result<()> {
        loop {
            if self.group.leaving.load(Ordering::Acquire) {
                return Ok(());
            }
            self.look_for_topics().await?;
            self.settle().await?;
            if self.tended.is_none_or(|at| at.elapsed() >= self.group.shared.groups.takeover / 3) {
                self.tend().await?;
                self.tended = Some(Instant::now());
            }
            let room = self.group.room();
            if room == 0 || self.ready.is_empty() {
                _ = timeout(WAIT, self.group.changed.notified()).await;
            } else {
                self.read(room.min(PAGE)).await?;
            }
        }
    }

    async fn look_for_topics(&mut self) -> Result<()> {
        if self.group.work().begins.is_none() {
            // The server could not be asked when the group was joined.
            let ends = self.group.shared.ends(if is_pattern(&self.group.topic) { "" } else { &self.group.topic });
            self.group.begin_at(ends.await?);
        }
        let topics = if is_pattern(&self.group.topic) {
            reply::texts(self.call("SMEMBERS", &cmd("SMEMBERS").arg(self.group.shared.keys.topics()).take()).await?)?
        } else {
            vec![self.group.topic.to_string()]
        };
        for topic in topics {
            if !self.group.glob.matches(&topic) || self.ready.contains(&*topic) {
                continue;
            }
            let create = self.group.create_at(&topic);
            self.call("XGROUP", &create).await.map(drop).or_else(existing)?;
            self.ready.insert(topic.into());
        }
        Ok(())
    }

    async fn read(&mut self, count: usize) -> Result<()> {
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(&*self.group.name).arg(&self.group.member).arg("COUNT").arg(count);
        read.arg("BLOCK").arg(WAIT.as_millis() as u64).arg("STREAMS");
        let topics: Vec<_> = self.ready.iter().cloned().collect();
        topics.iter().for_each(|topic| _ = read.arg(self.group.shared.keys.retained(topic)));
        topics.iter().for_each(|_| _ = read.arg(">"));
        let streams = match self.call("XREADGROUP", &read).await {
            Ok(streams) => reply::list(streams)?,
            Err(error) if error.message().contains("NOGROUP") || error.message().contains("UNBLOCKED") => {
                // The topic was deleted: it begins anew.
                self.ready.clear();
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let prefix = self.group.shared.keys.retained_prefix();
        for stream in streams {
            let mut parts = reply::list(stream)?.into_iter();
            let (Some(key), Some(entries)) = (parts.next(), parts.next()) else { continue };
            let key = reply::text(key)?;
            let topic: Arc<str> = key.strip_prefix(&prefix).unwrap_or(&key).into();
            for entry in reply::list(entries)? {
                self.group.deliver(&topic, entry)?;
            }
        }
        Ok(())
    }

    /// Acknowledges what is done, and delivers again what is due.
    async fn settle(&mut self) -> Result<()> {
        let (mut done, mut due) = (Vec::new(), Vec::new());
        for (place, step) in &self.group.work().steps {
            match step {
                Step::Acknowledge => done.push(place.clone()),
                Step::Retry(at) if *at <= Instant::now() => due.push(place.clone()),
                _ => {}
            }
        }
        for place in done {
            let ack = cmd("XACK").arg(self.group.shared.keys.retained(&place.0)).arg(&*self.group.name).take();
            self.call("XACK", ack.clone().arg(place.1.to_string())).await?;
            self.group.work().steps.remove(&place);
        }
        for place in due {
            self.retry(place).await?;
        }
        Ok(())
    }

    async fn retry(&mut self, place: Place) -> Result<()> {
        let shared = &self.group.shared;
        let (stream, parked) = (shared.keys.retained(&place.0), shared.keys.parked(&place.0, &self.group.name));
        let mut call = scripts::RETRY.call(&[&stream, &parked]);
        call.arg(&*self.group.name).arg(&self.group.member).arg(place.1.to_string()).arg(shared.groups.max_deliveries);
        call.arg(super::MAX_PARKED);
        let entry = shared.client.call(Request::write("retry", call).of(&scripts::RETRY), Ok).await?;
        {
            let mut work = self.group.work();
            work.steps.remove(&place);
            if entry == Value::Nil {
                work.failures.remove(&place);
                return Ok(());
            }
        }
        self.group.deliver(&place.0, entry)
    }

    /// Keeps what is under way, and takes over what others left.
    async fn tend(&mut self) -> Result<()> {
        let takeover = self.group.shared.groups.takeover.as_millis() as u64;
        let kept: Vec<_> = self.group.work().steps.keys().cloned().collect();
        for topic in self.ready.clone() {
            let key = self.group.shared.keys.retained(&topic);
            let ids: Vec<_> = kept.iter().filter(|(t, _)| *t == topic).map(|(_, id)| id.to_string()).collect();
            if !ids.is_empty() {
                let mut claim = cmd("XCLAIM");
                claim.arg(&key).arg(&*self.group.name).arg(&self.group.member).arg(0).arg(ids).arg("JUSTID");
                self.call("XCLAIM", &claim).await?;
            }
            let mut claim = cmd("XAUTOCLAIM");
            claim.arg(&key).arg(&*self.group.name).arg(&self.group.member).arg(takeover).arg("0-0");
            claim.arg("COUNT").arg(self.group.room().clamp(1, PAGE)).arg("JUSTID");
            let reply = reply::list(self.call("XAUTOCLAIM", &claim).await?)?;
            for id in reply.into_iter().nth(1).map(reply::texts).transpose()?.unwrap_or_default() {
                let place = (topic.clone(), id.parse()?);
                if !self.group.work().steps.contains_key(&place) {
                    self.retry(place).await?;
                }
            }
        }
        Ok(())
    }

    /// Leaves what nobody got to to others.
    async fn leave(mut self) {
        // Errors mean an outage: then others take over after the time that they wait for a member that is gone.
        _ = self.settle().await;
        _ = timeout(2 * WAIT, self.group.give_back(&self.ready)).await;
        self.link.quit().await;
    }
}

impl Group {
    async fn give_back(&self, topics: &HashSet<Arc<str>>) {
        let left: Vec<_> = self.work().steps.drain().map(|(place, _)| place).collect();
        for topic in topics {
            let mut call = scripts::LEAVE.call(&[&self.shared.keys.retained(topic)]);
            call.arg(&*self.name).arg(&self.member);
            left.iter().filter(|(t, _)| t == topic).for_each(|(_, id)| _ = call.arg(id.to_string()));
            // A topic that is gone has nothing to give back.
            _ = self.shared.client.call(Request::write("leave", call).of(&scripts::LEAVE), |_| Ok(())).await;
        }
    }

    /// How many messages its mailbox has room for. Those that wait to be tried again count, as they come back.
    fn room(&self) -> usize {
        self.mailbox.capacity().saturating_sub(self.work().steps.len())
    }

    fn deliver(self: &Arc<Self>, topic: &Arc<str>, entry: Value) -> Result<()> {
        let (id, message, _) = self.shared.retained(topic, entry)?;
        let place = (topic.clone(), id);
        let wanted = message.filter(|m| self.filter.as_ref().is_none_or(|filter| filter.matches(m.kind())));
        let Some(message) = wanted else {
            self.work().steps.insert(place, Step::Acknowledge);
            return Ok(());
        };
        self.work().steps.insert(place.clone(), Step::Delivered);
        let group = Arc::downgrade(self);
        let ack = Ack(Arc::new(move |succeeded| {
            if let Some(group) = group.upgrade() {
                group.handled(place.clone(), succeeded);
            }
        }));
        _ = self.mailbox.push(Incoming { message, ack: Some(ack) });
        Ok(())
    }
}
