//! One subscriber: what is live for it, what it has of retained topics, and how the two meet.
//!
//! On a topic that is not retained, a message is delivered when it comes, and an outage is told as a gap when the
//! subscription is live again. On retained topics the position in each is known: while it is behind (at the beginning,
//! and after an outage), live messages are held, what is missing is read, and then what was held and is newer follows.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::redis::cmd;

use super::{Shared, scripts};
use crate::error::Result;
use crate::event::EventId;
use crate::fanout::{Gap, GapReason, Mailbox, Overflow};
use crate::redis::pubsub::Channel;
use crate::redis::{Backoff, Request, reply};
use crate::stream::{Incoming, Message, TypeFilter};
use crate::topic::Glob;

/// Most live messages held while it catches up; beyond that they are read from the retained topic again.
const HELD: usize = 10_000;
/// Messages read at a time.
const PAGE: usize = 500;
/// A gap of unknown size, because of an outage.
const OUTAGE: Gap = Gap { reason: GapReason::Reconnect, missed: None };

struct Held {
    message: Message,
    id: Option<EventId>,
    own: bool,
}

#[derive(Default)]
struct Progress {
    /// Something may have been missed since it was last live.
    missed: bool,
    /// The server has confirmed the channel on the present connection.
    live: bool,
    /// Retained: the server is being asked where the topics end.
    asking: bool,
    /// Retained: delivered up to here, per topic. None: not known yet, so it begins where the topics end.
    last: Option<HashMap<Arc<str>, EventId>>,
    /// Retained: live messages, while it is behind.
    held: Option<Vec<Held>>,
    catching_up: bool,
    /// It became live again meanwhile.
    again: bool,
}

pub(super) struct Sub {
    pub(super) id: u64,
    pub(super) topic: Arc<str>,
    pub(super) channel: Channel,
    pub(super) mailbox: Arc<Mailbox<Incoming>>,
    pub(super) overflow: Overflow,
    pub(super) ignore_own: bool,
    glob: Glob,
    filter: Option<TypeFilter>,
    retained: bool,
    progress: Mutex<Progress>,
    gone: AtomicBool,
}

impl Sub {
    pub(super) fn new(id: u64, topic: &str, spec: &crate::stream::SubscribeSpec, retained: bool) -> Self {
        let progress = Progress {
            last: spec.from_beginning.then(HashMap::new),
            held: retained.then(Vec::new),
            asking: retained,
            ..Progress::default()
        };
        Self {
            id,
            topic: topic.into(),
            channel: channel(topic),
            mailbox: Arc::new(Mailbox::new(spec.buffer, spec.overflow)),
            overflow: spec.overflow,
            ignore_own: spec.ignore_own,
            glob: Glob::new(topic),
            filter: spec.filter.clone(),
            retained,
            progress: Mutex::new(progress),
            gone: AtomicBool::new(false),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn matches(&self, topic: &str) -> bool {
        self.glob.matches(topic)
    }

    /// Whether it needs to know where its topics end before it begins.
    pub(super) fn needs_ends(&self) -> bool {
        self.retained && self.progress().last.is_none()
    }

    /// Where its topics end.
    pub(super) fn begin_at(&self, ends: Vec<(String, String)>) -> Result<()> {
        let mut last = HashMap::new();
        for (topic, id) in ends {
            if self.matches(&topic) {
                last.insert(topic.into(), id.parse()?);
            }
        }
        self.progress().last.get_or_insert(last);
        Ok(())
    }

    /// A live message.
    pub(super) fn hear(&self, message: &Message, id: Option<EventId>, own: bool) {
        let mut progress = self.progress();
        if let Some(held) = &mut progress.held {
            if held.len() == HELD {
                held.clear();
                // What has an id is read again; the others are lost.
                progress.again = true;
                self.mailbox.note_gap(Gap { reason: GapReason::Overflow, missed: None });
            } else {
                held.push(Held { message: message.clone(), id, own });
            }
            return;
        }
        self.deliver(&mut progress, message, id, own);
    }

    /// Delivers what is new to it, filters permitting. Under the lock, so that order and position agree.
    fn deliver(&self, progress: &mut Progress, message: &Message, id: Option<EventId>, own: bool) {
        if let (true, Some(id)) = (self.retained, id) {
            let last = progress.last.get_or_insert_default().entry(message.topic().clone()).or_default();
            if *last >= id {
                return;
            }
            *last = id;
        }
        if (own && self.ignore_own) || self.filter.as_ref().is_some_and(|filter| !filter.matches(message.kind())) {
            return;
        }
        _ = self.mailbox.push(message.clone().into());
    }

    /// The subscription is accepted, but the server could not be asked yet.
    pub(super) fn accepted_blindly(&self) {
        let mut progress = self.progress();
        progress.missed |= !progress.live;
    }

    /// Where it begins is known, or cannot be known.
    pub(super) fn begun(self: &Arc<Self>, shared: &Arc<Shared>) {
        let mut progress = self.progress();
        progress.asking = false;
        if std::mem::take(&mut progress.live) {
            drop(progress);
            self.live(shared);
        }
    }

    /// Messages come from now on.
    pub(super) fn live(self: &Arc<Self>, shared: &Arc<Shared>) {
        let mut progress = self.progress();
        if std::mem::replace(&mut progress.live, true) || progress.asking {
            return;
        }
        if self.retained {
            if std::mem::replace(&mut progress.catching_up, true) {
                progress.again = true;
                return;
            }
            drop(progress);
            shared.runtime.spawn(catch_up(self.clone(), shared.clone()));
        } else if std::mem::take(&mut progress.missed) {
            drop(progress);
            self.mailbox.note_gap(OUTAGE);
            shared.count_gap();
        }
    }

    /// No message comes any more.
    pub(super) fn interrupted(&self) {
        let mut progress = self.progress();
        progress.live = false;
        progress.missed = true;
        if self.retained && progress.held.is_none() {
            progress.held = Some(Vec::new());
        }
    }

    pub(super) fn close(&self) {
        self.gone.store(true, Ordering::Release);
        self.mailbox.close();
    }
}

/// The channel of a topic or pattern.
fn channel(topic: &str) -> Channel {
    if crate::topic::is_pattern(topic) { Channel::Pattern(topic.into()) } else { Channel::Exact(topic.into()) }
}

/// Reads what a subscriber does not have, then what was held meanwhile, until both meet.
async fn catch_up(sub: Arc<Sub>, shared: Arc<Shared>) {
    let mut backoff = Backoff::new(shared.config.max_reconnect_delay);
    loop {
        sub.progress().again = false;
        let read = read_missing(&sub, &shared).await;
        if sub.gone.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = read {
            // An outage: what is missing is read when it is over.
            tracing::debug!(%error, topic = %sub.topic, "catching up");
            tokio::time::sleep(backoff.delay()).await;
            continue;
        }
        let mut progress = sub.progress();
        if progress.again {
            continue;
        }
        progress.catching_up = false;
        if !progress.live {
            // Interrupted again: the next connection goes on from here.
            return;
        }
        progress.missed = false;
        for held in progress.held.take().unwrap_or_default() {
            sub.deliver(&mut progress, &held.message, held.id, held.own);
        }
        return;
    }
}

async fn read_missing(sub: &Sub, shared: &Shared) -> Result<()> {
    let exact = matches!(sub.channel, Channel::Exact(_));
    if sub.needs_ends() {
        // The server could not be asked when the subscription began, so nobody knows what came between.
        let ends = shared.ends(if exact { &sub.topic } else { "" });
        sub.begin_at(ends.await?)?;
        sub.mailbox.note_gap(OUTAGE);
        shared.count_gap();
    }
    let topics = if exact {
        vec![sub.topic.to_string()]
    } else {
        let members = cmd("SMEMBERS").arg(shared.keys.topics()).take();
        shared.client.call(Request::read("SMEMBERS", members), reply::texts).await?
    };
    for topic in topics.iter().filter(|topic| sub.matches(topic)) {
        read_topic(sub, shared, topic).await?;
    }
    Ok(())
}

async fn read_topic(sub: &Sub, shared: &Shared, topic: &str) -> Result<()> {
    let key = shared.keys.retained(topic);
    let position = || sub.progress().last.as_ref().and_then(|last| last.get(topic).copied());
    let mut known = position().filter(|last| *last != EventId::default());
    loop {
        // From the last one it has, so that it shows when that is not there any more.
        let from = position().map_or_else(|| "-".to_owned(), |last| last.to_string());
        let range = cmd("XRANGE").arg(&key).arg(from).arg("+").arg("COUNT").arg(PAGE).take();
        let entries = shared.client.call(Request::read("XRANGE", range), reply::list).await?;
        let full = entries.len() == PAGE;
        let entries = entries.into_iter().map(|entry| shared.retained(topic, entry)).collect::<Result<Vec<_>>>()?;
        if known.take().is_some_and(|last| entries.first().is_none_or(|(id, ..)| *id != last)) {
            // Trimmed, or a server that lost its data: what came between is not to be had.
            sub.mailbox.note_gap(OUTAGE);
            shared.count_gap();
        }
        for (id, message, own) in entries {
            // A replay waits for a slow subscriber rather than overflow its mailbox.
            sub.mailbox.wait_for_capacity().await;
            if sub.gone.load(Ordering::Acquire) {
                return Ok(());
            }
            let mut progress = sub.progress();
            match message {
                Some(message) => sub.deliver(&mut progress, &message, Some(id), own),
                None => _ = progress.last.get_or_insert_default().insert(topic.into(), id),
            }
        }
        if !full {
            return Ok(());
        }
    }
}

impl Shared {
    /// Where retained topics end: one, or all with an empty name.
    pub(super) fn ends(&self, topic: &str) -> crate::op::Op<Vec<(String, String)>> {
        let mut call = scripts::ENDS.call(&[&self.keys.topics()]);
        call.arg(self.keys.retained_prefix()).arg(topic);
        self.client.call(Request::read("subscribe", call).of(&scripts::ENDS), reply::pairs)
    }

    /// Takes apart an entry of a retained topic. One that is no message of ours has none.
    pub(super) fn retained(&self, topic: &str, entry: ::redis::Value) -> Result<(EventId, Option<Message>, bool)> {
        let mut parts = reply::list(entry)?.into_iter();
        let (Some(id), Some(fields)) = (parts.next(), parts.next()) else {
            return Err(crate::error::Error::corrupt("Redis sent a stream entry without id or fields"));
        };
        let (mut message, mut own) = (None, false);
        // A deleted entry that is still pending comes without fields.
        for (name, text) in reply::pairs(fields)? {
            match name.as_str() {
                "message" => message = Message::parse(topic, &text).ok(),
                "origin" => own = text == self.origin,
                _ => {}
            }
        }
        Ok((reply::text(id)?.parse()?, message, own))
    }
}
