//! What a store in memory holds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;

use super::index::Index;
use crate::event::{Event, EventId};
use crate::json::{Json, Object};
use crate::store::ParkedEvent;

/// Expired keys that one call removes at most, so that no call pays for all of them.
const SWEEP_LIMIT: usize = 32;

#[derive(Default)]
pub(super) struct State {
    pub(super) closed: bool,
    pub(super) subjects: HashMap<Arc<str>, Log>,
    /// The greatest id of any deleted subject, if it was not far in the future: ids of new subjects are greater.
    pub(super) floor: Option<EventId>,
    /// The last ids of deleted subjects that were far in the future.
    pub(super) future_floors: HashMap<Arc<str>, EventId>,
    pub(super) kv: HashMap<Arc<str>, KvEntry>,
    /// When keys expire, soonest first. A key that was set again also has a stale row.
    pub(super) expiries: BinaryHeap<Reverse<(u64, Arc<str>)>>,
    pub(super) indexes: HashMap<Arc<str>, Index>,
    pub(super) docs: HashMap<Arc<str>, BTreeMap<Arc<str>, Doc>>,
    pub(super) subscriptions: HashMap<u64, Arc<str>>,
    /// All events in the order in which they were stored.
    pub(super) feed: Vec<FeedRow>,
    /// Number of the newest event.
    pub(super) newest: u64,
    /// Rows of the feed whose event was deleted.
    pub(super) deleted: usize,
    pub(super) consumers: BTreeMap<Arc<str>, StoredConsumer>,
}

pub(super) struct FeedRow {
    pub(super) number: u64,
    pub(super) subject: Arc<str>,
    /// None: it was deleted.
    pub(super) event: Option<Event>,
}

#[derive(Default)]
pub(super) struct StoredConsumer {
    /// Number of the event at the cursor.
    pub(super) position: u64,
    pub(super) parked: BTreeMap<u64, ParkedEvent>,
    /// Numbers of parked events whose replay was requested.
    pub(super) replays: BTreeSet<u64>,
}

pub(super) struct Log {
    pub(super) name: Arc<str>,
    pub(super) events: Vec<Row>,
}

pub(super) struct Row {
    pub(super) id: EventId,
    pub(super) ts: u64,
    /// In the feed.
    pub(super) number: u64,
    pub(super) event: Event,
}

pub(super) struct KvEntry {
    pub(super) value: Json,
    pub(super) expires_ms: Option<u64>,
}

pub(super) struct Doc {
    pub(super) json: Json,
    pub(super) object: Object,
}

impl State {
    /// Returns the id that the next one of a subject must be greater than, apart from those in the subject.
    pub(super) fn floor_of(&self, subject: &str) -> Option<EventId> {
        self.floor.max(self.future_floors.get(subject).copied())
    }

    /// Remembers the last id of a deleted subject.
    pub(super) fn raise_floor(&mut self, subject: Arc<str>, last: EventId, now_ms: u64) {
        if last.is_far_ahead_of(now_ms) {
            let floor = self.future_floors.entry(subject).or_insert(last);
            *floor = last.max(*floor);
        } else {
            self.floor = self.floor.max(Some(last));
        }
    }

    /// Removes events from the feed. Their rows are removed when they are most of it.
    pub(super) fn delete_from_feed(&mut self, numbers: impl Iterator<Item = u64>) {
        for number in numbers {
            if let Ok(at) = self.feed.binary_search_by_key(&number, |row| row.number)
                && let Some(row) = self.feed.get_mut(at)
            {
                row.event = None;
                self.deleted += 1;
            }
        }
        if self.deleted > self.feed.len() / 2 {
            self.feed.retain(|row| row.event.is_some());
            self.deleted = 0;
        }
    }

    pub(super) fn live(&self, key: &str, now: u64) -> Option<&KvEntry> {
        self.kv.get(key).filter(|entry| entry.expires_ms.is_none_or(|at| at > now))
    }

    pub(super) fn sweep(&mut self, now: u64) {
        for _ in 0..SWEEP_LIMIT {
            match self.expiries.peek() {
                Some(Reverse((at, _))) if *at <= now => {}
                _ => return,
            }
            if let Some(Reverse((at, key))) = self.expiries.pop()
                && self.kv.get(&key).is_some_and(|entry| entry.expires_ms == Some(at))
            {
                self.kv.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::NewEvent;

    #[test]
    fn an_id_that_was_far_ahead_raises_those_of_its_own_subject_only() {
        let mut state = State::default();
        let id = |ms| EventId { ms, seq: 0 };
        let (now, ahead) = (1_000, 1_000_000_000);
        for ms in [ahead, ahead + 1, ahead] {
            state.raise_floor("far".into(), id(ms), now);
        }
        assert_eq!((state.floor_of("far"), state.floor_of("other")), (Some(id(ahead + 1)), None));
        for ms in [now, now + 1, now] {
            state.raise_floor("near".into(), id(ms), now);
        }
        assert_eq!((state.floor_of("far"), state.floor_of("other")), (Some(id(ahead + 1)), Some(id(now + 1))));
    }

    #[test]
    fn deleted_events_are_removed_from_the_feed_when_they_are_most_of_it() {
        let mut state = State::default();
        let subject: Arc<str> = "s".into();
        for number in 1..=10 {
            let event = NewEvent::parse(r#"{"type":"t"}"#).unwrap().persist(EventId { ms: number, seq: 0 }, number);
            state.feed.push(FeedRow { number, subject: subject.clone(), event: Some(event) });
        }
        // One that is not there counts as none.
        state.delete_from_feed([1, 2, 3, 4, 5, 11].into_iter());
        assert_eq!((state.feed.len(), state.deleted), (10, 5));
        state.delete_from_feed([10].into_iter());
        assert_eq!(state.feed.iter().map(|row| row.number).collect::<Vec<_>>(), [6, 7, 8, 9]);
        assert_eq!(state.deleted, 0);
    }
}
