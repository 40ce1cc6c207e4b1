//! The feed: all events of a store in one order, read by position.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::json::Json;
use crate::topic::Glob;
use crate::wake::{self, Wake};

/// Longest position, in bytes.
const MAX_POSITION_BYTES: usize = 64;

/// A place in the feed of one store. Only that store can interpret it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position(Arc<str>);

impl Position {
    /// Checks the text of a position. Whether it is one of this store is checked by the call that it is given to.
    pub fn new(text: &str) -> Result<Self> {
        if text.is_empty() || text.len() > MAX_POSITION_BYTES {
            return Err(Self::invalid(text));
        }
        Ok(Self(text.into()))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the error for a text that is no position of this store.
    pub fn invalid(text: &str) -> Error {
        let shown: String = text.chars().take(MAX_POSITION_BYTES).collect();
        Error::invalid(format!("{shown:?} is no position of this store's feed: use one that the feed returned"))
    }

    /// Reads a position that is a number.
    pub(crate) fn number(&self) -> Result<u64> {
        let digits = self.0.bytes().all(|b| b.is_ascii_digit());
        self.0.parse().ok().filter(|_| digits).ok_or_else(|| Self::invalid(&self.0))
    }
}

impl From<u64> for Position {
    fn from(number: u64) -> Self {
        Self(number.to_string().into())
    }
}

impl From<crate::event::EventId> for Position {
    fn from(id: crate::event::EventId) -> Self {
        Self(id.to_string().into())
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which events of the feed to read.
#[derive(Debug, Clone, Default)]
pub struct FeedQuery {
    /// Only what comes after this position.
    pub after: Option<Position>,
    /// Most records. 0 is none.
    pub limit: usize,
    /// Only subjects that one of these matches. Empty: all.
    pub subjects: Vec<Glob>,
    /// Only types that one of these matches. Empty: all.
    pub types: Vec<Glob>,
    /// Ends the page once its records have this many bytes.
    pub max_bytes: Option<usize>,
    /// The consumer on whose behalf it is read: [`FeedPage::missed`] is counted for it. Its reads may pass over writes
    /// that were called before and are not yet committed; [`super::StoreBackend::feed_watch`] reports those.
    pub consumer: Option<Arc<str>>,
}

impl FeedQuery {
    /// Returns whether a page with this many records and bytes is full.
    pub(crate) fn is_full(&self, records: usize, bytes: usize) -> bool {
        records >= self.limit || self.max_bytes.is_some_and(|max| bytes >= max)
    }

    /// Returns whether an event of this subject and type is wanted.
    pub fn matches(&self, subject: &str, kind: &str) -> bool {
        let any = |globs: &[Glob], text: &str| globs.is_empty() || globs.iter().any(|glob| glob.matches(text));
        any(&self.subjects, subject) && any(&self.types, kind)
    }
}

/// Who appended an event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origin {
    /// Not recorded: an instance of this process, or of an earlier version.
    #[default]
    Unknown,
    /// The instance of this name, see [`super::StoreBackend::set_instance`].
    Instance(Arc<str>),
    /// A program that does not use this package.
    OtherWriter,
}

/// An event of the feed.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedRecord {
    /// Where it is.
    pub position: Position,
    /// Where it was stored.
    pub subject: Arc<str>,
    /// The record.
    pub event: Json,
    /// Who appended it.
    pub origin: Origin,
}

/// A page of the feed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FeedPage {
    /// Matching events, in the order of the feed.
    pub records: Vec<FeedRecord>,
    /// The last position that was looked at, also where nothing matched: the next `after`. None: nothing comes after
    /// the `after` that was given.
    pub end: Option<Position>,
    /// Events that retention or trimming removed before the reader had them.
    pub missed: u64,
}

/// Notifies those who follow the feed of a store. Within a scope of deferred wake-ups they are woken once.
pub(crate) struct FeedSignal {
    newest: AtomicU64,
    sender: watch::Sender<u64>,
}

impl FeedSignal {
    /// Creates a signal of a feed whose newest event has this number.
    pub(crate) fn new(newest: u64) -> Arc<Self> {
        Arc::new(Self { newest: AtomicU64::new(newest), sender: watch::Sender::new(newest) })
    }

    /// Records the number of the newest event and wakes the followers.
    pub(crate) fn notify(self: &Arc<Self>, newest: u64) {
        self.newest.fetch_max(newest, Ordering::AcqRel);
        if self.sender.receiver_count() > 0 && !wake::defer(self) {
            self.wake();
        }
    }

    /// Returns a receiver of the number of the newest event.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        let receiver = self.sender.subscribe();
        self.wake();
        receiver
    }
}

impl Wake for FeedSignal {
    fn wake(&self) {
        let newest = self.newest.load(Ordering::Acquire);
        self.sender.send_if_modified(|value| std::mem::replace(value, newest) != newest);
    }
}
