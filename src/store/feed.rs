//! The feed: all events of a store in one order, read by position.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, Weak};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::event::Event;
use crate::json::Json;
use crate::sync::{read, write};
use crate::topic::Glob;
use crate::wake::{self, Wake};

/// Longest position, in bytes.
const MAX_POSITION_BYTES: usize = 64;

/// A place in the feed of one store. Only that store can interpret it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Position(Arc<str>);

impl TryFrom<String> for Position {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::new(&text)
    }
}

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

/// An event that was appended through this store, at its place in the feed.
#[derive(Debug, Clone)]
pub struct Appended<'a> {
    /// The number of its position.
    pub number: u64,
    /// Where it is.
    pub position: Position,
    /// Where it was stored.
    pub subject: &'a Arc<str>,
    /// The record.
    pub event: &'a Event,
    /// Who appended it.
    pub origin: Origin,
}

/// Follows a feed as it grows, so as not to read what it is offered.
pub trait FeedFollower: Send + Sync {
    /// Offers an event, after those offered before and before its append completes. Returns whether it was taken, which
    /// it is only if nothing of the feed is missing before it. It may be called under a store's lock: it neither blocks
    /// nor calls the store.
    fn offer(self: Arc<Self>, appended: &Appended<'_>) -> bool;
    /// Reports that the feed has events up to this number, offered or not.
    fn notify(self: Arc<Self>, newest: u64);
    /// Reports that the connection to the store was interrupted: numbers may have been lost and given again.
    fn interrupt(self: Arc<Self>);
}

/// The name of a consumer, and what follows for it.
type Follower = (Arc<str>, Weak<dyn FeedFollower>);

/// The followers of one feed, each with the name of its consumer. One that was dropped is not called any more.
#[derive(Default)]
pub(crate) struct Followers(RwLock<Vec<Follower>>);

impl Followers {
    /// Adds a follower.
    pub(crate) fn add(&self, consumer: &str, follower: Weak<dyn FeedFollower>) {
        let mut all = write(&self.0);
        all.retain(|(_, follower)| follower.strong_count() > 0);
        all.push((consumer.into(), follower));
    }

    /// Returns whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        read(&self.0).is_empty()
    }

    /// Offers an event, which is made only if there is a follower. `taken` is called with the consumer of each that took it.
    pub(crate) fn offer<'a>(&self, appended: impl FnOnce() -> Appended<'a>, mut taken: impl FnMut(&Arc<str>)) {
        let all = read(&self.0);
        if all.is_empty() {
            return;
        }
        let appended = appended();
        for (consumer, follower) in all.iter() {
            if follower.upgrade().is_some_and(|follower| follower.offer(&appended)) {
                taken(consumer);
            }
        }
    }

    /// Reports the number of the newest event.
    pub(crate) fn notify(&self, newest: u64) {
        read(&self.0).iter().filter_map(|(_, follower)| follower.upgrade()).for_each(|one| one.notify(newest));
    }

    /// Reports an interruption.
    pub(crate) fn interrupt(&self) {
        read(&self.0).iter().filter_map(|(_, follower)| follower.upgrade()).for_each(|one| one.interrupt());
    }
}

/// Notifies those who follow the feed of a store. Within a scope of deferred wake-ups they are woken once.
pub(crate) struct FeedSignal {
    newest: AtomicU64,
    /// The number that those who wait were last notified of.
    notified: AtomicU64,
    sender: watch::Sender<u64>,
    followers: Followers,
}

impl FeedSignal {
    /// Creates a signal of a feed whose newest event has this number.
    pub(crate) fn new(newest: u64) -> Arc<Self> {
        Arc::new(Self {
            newest: AtomicU64::new(newest),
            notified: AtomicU64::new(newest),
            sender: watch::Sender::new(newest),
            followers: Followers::default(),
        })
    }

    /// Returns those who are offered what is appended.
    pub(crate) fn followers(&self) -> &Followers {
        &self.followers
    }

    /// Offers an event that was appended to the followers, and notifies everyone who waits for news. To be called in the
    /// order of the feed.
    pub(crate) fn append(
        self: &Arc<Self>,
        number: u64,
        subject: &Arc<str>,
        event: &Event,
        taken: impl FnMut(&Arc<str>),
    ) {
        let appended = || Appended { number, position: number.into(), subject, event, origin: Origin::Unknown };
        self.followers.offer(appended, taken);
        self.notify(number);
    }

    /// Records the number of the newest event and wakes the followers. Receivers have the number at once, also where they
    /// are woken later: the lag of a consumer counts whatever has been acknowledged.
    pub(crate) fn notify(self: &Arc<Self>, newest: u64) {
        self.newest.fetch_max(newest, Ordering::AcqRel);
        let has_receivers = self.sender.receiver_count() > 0;
        if has_receivers {
            self.sender.send_if_modified(|value| {
                *value = newest.max(*value);
                false
            });
        }
        let is_followed = has_receivers || !self.followers.is_empty();
        if is_followed && !wake::defer(self) {
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
        let is_new = self.notified.fetch_max(newest, Ordering::AcqRel) < newest;
        self.sender.send_if_modified(|value| {
            *value = newest.max(*value);
            is_new
        });
        self.followers.notify(newest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_has_the_newest_number_before_it_is_woken_and_is_woken_once() {
        let signal = FeedSignal::new(1);
        let mut receiver = signal.subscribe();
        wake::coalesce_wakes(|| {
            signal.notify(2);
            signal.notify(3);
            assert_eq!(*receiver.borrow(), 3, "what is acknowledged within the scope counts as lag");
            assert!(!receiver.has_changed().unwrap());
        });
        assert!(receiver.has_changed().unwrap());
        assert_eq!(*receiver.borrow_and_update(), 3);
        signal.notify(3);
        assert!(!receiver.has_changed().unwrap(), "nothing is new");
        drop(receiver);
        signal.notify(4);
        assert_eq!(*signal.subscribe().borrow(), 4, "without receivers as well");
    }

    /// Takes what it is offered, or not, and notes what it is called with.
    #[derive(Default)]
    struct Noting {
        takes: bool,
        calls: std::sync::Mutex<Vec<(&'static str, u64)>>,
    }

    impl FeedFollower for Noting {
        fn offer(self: Arc<Self>, appended: &Appended<'_>) -> bool {
            self.calls.lock().unwrap().push(("offer", appended.number));
            self.takes
        }

        fn notify(self: Arc<Self>, newest: u64) {
            self.calls.lock().unwrap().push(("notify", newest));
        }

        fn interrupt(self: Arc<Self>) {
            self.calls.lock().unwrap().push(("interrupt", 0));
        }
    }

    #[test]
    fn every_follower_that_is_not_dropped_is_offered_and_notified() {
        let signal = FeedSignal::new(0);
        let event = Event::parse(r#"{"type":"t","id":"1-0","ts":1}"#).unwrap();
        let taken = |number| {
            let mut taken = Vec::new();
            signal.append(number, &"s".into(), &event, |consumer| taken.push(consumer.to_string()));
            taken
        };
        assert!(signal.followers().is_empty() && taken(1).is_empty());
        let [one, two] = [true, false].map(|takes| Arc::new(Noting { takes, ..Noting::default() }));
        let weak = |one: &Arc<Noting>| Arc::downgrade(&(one.clone() as Arc<dyn FeedFollower>));
        signal.followers().add("one", weak(&one));
        signal.followers().add("two", weak(&two));
        assert!(!signal.followers().is_empty());
        assert_eq!(taken(2), ["one"]);
        signal.followers().interrupt();
        let expected = [("offer", 2), ("notify", 2), ("interrupt", 0)];
        assert_eq!(
            (&*one.calls.lock().unwrap(), &*two.calls.lock().unwrap()),
            (&expected.to_vec(), &expected.to_vec())
        );
        drop(one);
        signal.followers().add("three", weak(&two));
        assert_eq!(read(&signal.followers().0).len(), 2, "one that was dropped is not kept");
        wake::coalesce_wakes(|| {
            assert!(taken(3).is_empty());
            assert_eq!(two.calls.lock().unwrap()[3..], [("offer", 3), ("offer", 3)], "notified once, at the end");
        });
        assert_eq!(two.calls.lock().unwrap()[5..], [("notify", 3), ("notify", 3)]);
    }
}
