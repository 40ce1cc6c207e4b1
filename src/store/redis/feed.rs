//! The feed: one order over the events of all subjects, in which subscriptions and consumers follow the store.
//!
//! The append script adds a small entry (subject, id, type) to one stream. Entries are bounded ([`MAX_ENTRIES`]), events are
//! not copied: they are read from their subjects. A position is the id of an entry, `<ms>-<n>`, where `n` counts the entries,
//! so that lag and what was trimmed are differences of two positions.
//!
//! Events of other writers (nvent's own adapters) are added by a search over the keys of the database, see
//! `feed_adopt.lua`: within [`ADOPT_INTERVAL`] and a second for each [`ADOPT_KEYS`] keys of the database. Only while
//! something follows the feed, only one instance at a time, and only if something was written at all.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{Cmd, Value, cmd};

use super::keys::Keys;
use super::{record, scripts};
use crate::backoff::random_u64;
use crate::error::{Error, Result};
use crate::event::{Event, EventId};
use crate::op::Op;
use crate::redis::{Client, Request, reply};
use crate::store::{FeedPage, FeedQuery, FeedRecord, Origin, Position};

/// About how many entries the feed keeps.
pub(super) const MAX_ENTRIES: u64 = 200_000;
/// Time between two searches for events of other writers.
pub(super) const ADOPT_INTERVAL: Duration = Duration::from_secs(5);
/// Time between two steps of a search.
pub(super) const ADOPT_STEP_DELAY: Duration = Duration::from_secs(1);
/// Keys that a step visits, which takes the server about a millisecond.
const ADOPT_KEYS: usize = 2_000;
/// Greatest number of events that a step looks at.
const MAX_ADOPT_EVENTS: usize = 5_000;
/// How long a search belongs to the instance that does it.
const ADOPT_LEASE: Duration = Duration::from_secs(5);
/// Greatest number of events in one reply.
const MAX_EVENTS_PER_READ: usize = 500;
/// Entries of the feed per read.
const ENTRIES_PER_READ: usize = 1_000;
/// A page ends with the record that makes it larger than this.
const MAX_PAGE_BYTES: usize = 8 << 20;
/// A reply ends with the event that makes it larger than this.
const READ_BYTES: usize = 1 << 20;

/// An entry of the feed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) position: EventId,
    pub(super) subject: Arc<str>,
    /// The event's id in its subject.
    pub(super) id: EventId,
    /// The event's type.
    pub(super) kind: Box<str>,
    /// Who appended it. Events of other writers were added to the feed later.
    pub(super) origin: Origin,
}

impl Entry {
    /// Parses an announcement: position and text of an entry. None: it has none.
    pub(super) fn announced(payload: &[u8]) -> Option<Self> {
        let (position, text) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
        Self::parse(position.parse().ok()?, text, Origin::Unknown)
    }

    /// Parses the text of an entry: `<id> <length of type> <type><subject>`.
    fn parse(position: EventId, text: &str, origin: Origin) -> Option<Self> {
        let (id, rest) = text.split_once(' ')?;
        let (length, rest) = rest.split_once(' ')?;
        let (kind, subject) = rest.split_at_checked(length.parse().ok()?)?;
        Some(Self { position, subject: subject.into(), id: id.parse().ok()?, kind: kind.into(), origin })
    }
}

/// Parses a position of this store.
pub(super) fn parse_position(position: &Position) -> Result<EventId> {
    let text = position.as_str();
    text.parse().ok().filter(|id: &EventId| id.to_string() == text).ok_or_else(|| Position::invalid(text))
}

/// What one step of a search for events of other writers came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Adoption {
    /// The search goes on with another step.
    Unfinished,
    /// Nothing more to do for now.
    Done,
}

/// The end of the feed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) position: EventId,
    /// The server's time, in ms.
    pub(super) now: u64,
}

impl Head {
    fn parse(value: Value) -> Result<Self> {
        let unexpected = || Error::corrupt("Redis sent an unexpected end of the feed");
        let mut parts = reply::texts(value)?.into_iter();
        let (Some(position), Some(now)) = (parts.next(), parts.next()) else { return Err(unexpected()) };
        Ok(Self { position: position.parse()?, now: now.parse().map_err(|_| unexpected())? })
    }
}

/// Reads the feed.
#[derive(Clone)]
pub(super) struct Feed {
    client: Arc<Client>,
    keys: Keys,
    /// Names this instance as the one that searches.
    instance: Arc<str>,
}

impl Feed {
    pub(super) fn new(client: Arc<Client>, keys: Keys) -> Self {
        Self { client, keys, instance: format!("{:016x}", random_u64()).into() }
    }

    /// Returns how often the connection was lost and made again.
    pub(super) fn reconnects(&self) -> u64 {
        self.client.reconnects()
    }

    fn head_call(&self) -> Cmd {
        scripts::FEED_HEAD.call(&[&self.keys.feed(), &self.keys.feed_state()])
    }

    /// Returns the end of the feed.
    pub(super) fn head(&self) -> Op<Head> {
        self.client.call(Request::read("feed.head", self.head_call()).of(&scripts::FEED_HEAD), Head::parse)
    }

    /// Calls back with the end of the feed. The call keeps its place among the calls however long an outage is.
    pub(super) fn submit_head(&self, done: impl FnOnce(Result<Head>) + Send + 'static) {
        let request = Request::persistent_read("subscribe", self.head_call()).of(&scripts::FEED_HEAD);
        self.client.submit(request, move |result| done(result.and_then(Head::parse)));
    }

    /// Reads up to `count` entries after a position. Entries that are none are skipped. The call is made at once.
    pub(super) fn entries(&self, after: EventId, count: usize) -> Op<Page> {
        let mut range = cmd("XRANGE");
        range.arg(self.keys.feed()).arg(format!("({after}")).arg("+").arg("COUNT").arg(count);
        self.client.call(Request::read("feed.read", range), move |reply| {
            let values = reply::list(reply)?;
            let full = values.len() == count;
            let (mut entries, mut first, mut last) = (Vec::with_capacity(values.len()), None, None);
            for value in values {
                let (position, fields) = record::entry(value)?;
                first = first.or(Some(position));
                last = Some(position);
                let mut fields = fields.into_iter();
                let (name, text) = fields.next().unwrap_or_default();
                let origin = match fields.next() {
                    _ if name == "a" => Origin::OtherWriter,
                    Some((name, instance)) if name == "o" => Origin::Instance(instance.into()),
                    _ => Origin::Unknown,
                };
                entries.extend(Entry::parse(position, &text, origin));
            }
            let missed = first.map_or(0, |first: EventId| first.seq.saturating_sub(after.seq + 1));
            Ok(Page { entries, last, missed, full })
        })
    }

    /// Reads a page of records. Ends early where the records are many bytes.
    pub(super) fn read(&self, query: FeedQuery) -> Op<FeedPage> {
        let start = match query.after.as_ref().map(parse_position).transpose() {
            Ok(start) => start.unwrap_or_default(),
            Err(error) => return Op::err(error),
        };
        if query.limit == 0 {
            return Op::ok(FeedPage::default());
        }
        let max_bytes = query.max_bytes.unwrap_or(MAX_PAGE_BYTES).min(MAX_PAGE_BYTES);
        let (feed, mut next) = (self.clone(), self.entries(start, ENTRIES_PER_READ));
        Op::pending(async move {
            let (mut page, mut bytes) = (FeedPage::default(), 0);
            loop {
                let Page { entries, last, missed, full } = next.into_future().await?;
                // Without a position to begin after, nothing was missed.
                page.missed += if query.after.is_none() && page.end.is_none() { 0 } else { missed };
                let Some(last) = last else { return Ok(page) };
                let wanted: Vec<_> = entries.into_iter().filter(|e| query.matches(&e.subject, &e.kind)).collect();
                let mut rest = wanted.as_slice();
                while !rest.is_empty() {
                    // As many as are asked for, but few at a time: the reply may be large.
                    let asked = &rest[..rest.len().min(query.limit - page.records.len()).min(MAX_EVENTS_PER_READ)];
                    let exact: Vec<_> = asked.iter().map(|entry| (entry, Start::At(entry.id))).collect();
                    for (entry, found) in asked.iter().zip(feed.events(&exact).await?) {
                        match found {
                            Found::Events(events) => page.records.extend(events.into_iter().map(|(id, event)| {
                                bytes += event.json().len();
                                FeedRecord {
                                    position: entry.position.into(),
                                    subject: entry.subject.clone(),
                                    event: event.json().clone(),
                                    origin: if id == entry.id { entry.origin.clone() } else { Origin::OtherWriter },
                                }
                            })),
                            Found::Trimmed => page.missed += 1,
                        }
                        if page.records.len() >= query.limit || bytes >= max_bytes {
                            page.end = Some(entry.position.into());
                            return Ok(page);
                        }
                    }
                    rest = &rest[asked.len()..];
                }
                page.end = Some(last.into());
                if !full {
                    return Ok(page);
                }
                next = feed.entries(last, ENTRIES_PER_READ);
            }
        })
    }

    /// Reads the events of entries, in the order of the entries, each after those that other writers appended to its subject
    /// since its start.
    pub(super) async fn events(&self, entries: &[(&Entry, Start)]) -> Result<Vec<Found>> {
        let mut all = Vec::with_capacity(entries.len());
        while all.len() < entries.len() {
            let mut call = scripts::FEED_EVENTS.call(&[]);
            call.arg(READ_BYTES).arg(MAX_EVENTS_PER_READ).arg(self.keys.deleted(""));
            let asked = &entries[all.len()..entries.len().min(all.len() + MAX_EVENTS_PER_READ)];
            for (entry, start) in asked {
                call.arg(&*entry.subject).arg(start.to_string()).arg(entry.id.to_string());
            }
            let request = Request::read("feed.read", call).of(&scripts::FEED_EVENTS);
            let replies = self.client.call(request, reply::list).await?;
            if replies.is_empty() {
                return Err(Error::corrupt("Redis sent no events of the feed"));
            }
            for ((entry, _), reply) in asked.iter().zip(replies) {
                if matches!(reply, Value::Int(_)) {
                    all.push(Found::Trimmed);
                    continue;
                }
                let (mut list, mut more) = select(entry, reply::list(reply)?)?;
                // Other writers appended a great many before it.
                while let Some(last) = more {
                    let mut range = cmd("XRANGE");
                    range.arg(&*entry.subject).arg(Start::After(last).to_string()).arg(entry.id.to_string());
                    range.arg("COUNT").arg(MAX_EVENTS_PER_READ);
                    let values = self.client.call(Request::read("feed.read", range), reply::list).await?;
                    let (next, rest) = select(entry, values)?;
                    list.extend(next);
                    more = rest;
                }
                all.push(Found::Events(list));
            }
        }
        Ok(all)
    }

    /// Does one step of the search for events of other writers.
    pub(super) async fn adopt(&self, max_entries: u64) -> Result<Adoption> {
        let keys = [self.keys.feed(), self.keys.feed_state(), self.keys.adopted()];
        let mut call = scripts::FEED_ADOPT.call(&[&keys[0], &keys[1], &keys[2]]);
        call.arg(self.keys.appended()).arg(max_entries).arg(&*self.instance).arg(ADOPT_LEASE.as_millis() as u64);
        call.arg(ADOPT_KEYS).arg(MAX_ADOPT_EVENTS);
        let request = Request::write("feed", call).of(&scripts::FEED_ADOPT);
        let outcome = self.client.call(request, reply::texts).await?;
        Ok(match outcome.first().map(String::as_str) {
            Some("more") => Adoption::Unfinished,
            _ => Adoption::Done,
        })
    }
}

/// Entries of the feed.
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    /// The position of the last one, also if it was skipped.
    pub(super) last: Option<EventId>,
    /// Entries that were trimmed before the first one.
    pub(super) missed: u64,
    /// Whether there may be more.
    pub(super) full: bool,
}

/// Where to begin in the subject of an entry.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start {
    /// With this id.
    At(EventId),
    /// After this id.
    After(EventId),
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(id) => write!(f, "{id}"),
            Self::After(id) => write!(f, "({id}"),
        }
    }
}

/// Events of one subject with their ids.
type Events = Vec<(EventId, Event)>;

/// What is there for an entry.
pub(super) enum Found {
    /// Its event, after those of other writers, each with its id. Nothing where the subject was deleted.
    Events(Events),
    /// Its subject was trimmed.
    Trimmed,
}

/// Selects the event of an entry and those of other writers before it. Some: the reply is cut off after this id.
fn select(entry: &Entry, values: Vec<Value>) -> Result<(Events, Option<EventId>)> {
    let is_full = values.len() == MAX_EVENTS_PER_READ;
    let (mut list, mut last) = (Vec::with_capacity(1), entry.id);
    for value in values {
        let (id, fields) = record::entry(value)?;
        last = id;
        // Native events before it have entries of their own.
        let is_native = fields.first().is_some_and(|(name, _)| name == "ts");
        if id != entry.id && is_native {
            continue;
        }
        // An entry that is no event is skipped: it must not block what follows.
        if let Ok(event) = Event::parse(&record::to_json(id, &fields)) {
            list.push((id, event));
        }
    }
    Ok((list, (is_full && last < entry.id).then_some(last)))
}
