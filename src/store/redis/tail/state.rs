//! What the subscriptions of one store have in common: how far they are, what was announced, and which events are kept.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::event::{Event, EventId};
use crate::fanout::Mailbox;
use crate::store::redis::feed::{Entry, Head, Start};
use crate::store::{Origin, Stored};
use crate::topic::Glob;

/// Events of this process that are kept until they are delivered, in bytes. Beyond, they are read from the server.
const MAX_RECENT_BYTES: usize = 32 << 20;
/// Subjects of which the last id is kept.
const MAX_KNOWN: usize = 50_000;

pub(super) struct Tailer {
    pub(super) glob: Glob,
    pub(super) mailbox: Arc<Mailbox<Stored>>,
    /// Delivers what comes after this position.
    pub(super) start: Head,
    /// Some: it reads the feed by itself, from this position.
    pub(super) behind: Option<EventId>,
}

impl Tailer {
    pub(super) fn receives(&self, entry: &Entry) -> bool {
        self.start.position < entry.position
            // An event of another writer may have been stored long before it was added to the feed.
            && (entry.origin != Origin::OtherWriter || self.start.now <= entry.id.ms)
            && self.glob.matches(&entry.subject)
    }
}

#[derive(Default)]
pub(super) struct State {
    /// Tailers that do not know yet where they start.
    pub(super) starting: HashMap<u64, (Glob, Arc<Mailbox<Stored>>)>,
    pub(super) tailers: HashMap<u64, Tailer>,
    /// Up to here everything was delivered to tailers that are not behind. None: there is no tailer.
    pub(super) cursor: Option<EventId>,
    /// The last id delivered of each subject: what other writers append is delivered with the next event of the subject.
    pub(super) known: HashMap<Arc<str>, EventId>,
    /// No id beyond this time was removed from `known`.
    pub(super) known_floor: u64,
    /// Events that this process appended, by the number of their position, and their bytes.
    pub(super) recent: VecDeque<(u64, Event)>,
    pub(super) recent_bytes: usize,
    /// The number of the newest position that this process has appended.
    pub(super) own_newest: u64,
    /// Appends of this process that were not answered.
    pub(super) own_in_flight: u64,
    /// The number of the newest announced position that followers of the feed were not notified of.
    pub(super) news: Option<u64>,
    /// Whether other writers append: then subjects have to be read for their events.
    pub(super) foreign: bool,
    /// End of the batch whose events are being read.
    pub(super) reading: Option<EventId>,
    /// Announced entries, without a gap after the cursor.
    pub(super) announced: VecDeque<Entry>,
    /// Whether the feed has to be read, as announcements may be missing.
    pub(super) stale: bool,
    /// Whether watchers have to be notified of the end of the feed.
    pub(super) check_head: bool,
    /// Whether announcements arrive.
    pub(super) live: bool,
    /// Whether the channel is subscribed to and the task runs.
    pub(super) running: bool,
}

impl State {
    /// Returns from where the subject of an entry is read: after what was delivered of it.
    pub(super) fn start_of(&self, entry: &Entry, batch: &HashMap<Arc<str>, EventId>) -> Start {
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
    pub(super) fn recent(&self, entry: &Entry) -> Option<Event> {
        let at = self.recent.binary_search_by_key(&entry.position.seq, |(number, _)| *number).ok()?;
        let (_, event) = &self.recent[at];
        // Not so where a server lost writes and gave the number again.
        (event.id() == entry.id.to_string()).then(|| event.clone())
    }

    pub(super) fn keep(&mut self, number: u64, event: &Event) {
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
    pub(super) fn forget_delivered(&mut self) {
        let behind = self.tailers.values().filter_map(|tailer| tailer.behind);
        let reached = behind.chain(self.cursor).map(|position| position.seq).min().unwrap_or(u64::MAX);
        while self.recent.front().is_some_and(|(number, _)| *number <= reached) {
            self.forget_first();
        }
    }

    /// Returns how many announced entries can be handled. One that may be this process's own is kept until the append is
    /// answered: its event is here then, and could not be read any sooner.
    pub(super) fn ready(&self) -> usize {
        if self.foreign || self.own_in_flight == 0 {
            return self.announced.len();
        }
        self.announced.partition_point(|entry| entry.position.seq <= self.own_newest)
    }

    /// Takes what followers are to be notified of. What may be this process's own is kept until the append is answered: it
    /// is offered then, and could not be read any sooner.
    pub(super) fn take_news(&mut self) -> Option<u64> {
        let (is_answered, own_newest) = (self.own_in_flight == 0, self.own_newest);
        self.news.take_if(|newest| is_answered || *newest <= own_newest)
    }

    /// Notes what a batch delivered.
    pub(super) fn note_delivered(&mut self, batch: HashMap<Arc<str>, EventId>) {
        if self.known.len() + batch.len() > MAX_KNOWN {
            self.known_floor = self.known.values().map(|id| id.ms).max().unwrap_or(0).max(self.known_floor);
            self.known.clear();
        }
        for (subject, id) in batch {
            let last = self.known.entry(subject).or_insert(id);
            *last = id.max(*last);
        }
    }

    /// Returns the position that follows without a gap if the next announcement is one more.
    pub(super) fn tip(&self) -> Option<EventId> {
        self.announced.back().map(|entry| entry.position).or(self.reading).or(self.cursor)
    }
}
