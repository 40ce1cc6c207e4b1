//! The contract of stores, in memory: plain maps behind one lock. Every operation completes inline.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use serde_json::Number;
use tokio::sync::watch;

use super::state::{Doc, FeedRow, KvEntry, Log, Row, State, StoredConsumer};
use crate::error::{Error, Result};
use crate::event::{Event, EventId, NewEvent};
use crate::fanout::{Mailbox, Subscriber, TopicRegistry, next_id};
use crate::json::{self, Filter, Json, Object};
use crate::metrics::{APPEND, Histogram};
use crate::name::{Collection, ConsumerName, DocId, EntryId, FieldPath, Key, Pattern, Subject};
use crate::op::Op;
use crate::store::consumer::LocalLeases;
use crate::store::feed::FeedSignal;
use crate::store::{
    Announce, ConsumerChange, ConsumerInfo, ConsumerState, DocQuery, EventQuery, Expected, FeedFollower, FeedPage,
    FeedQuery, FeedRecord, Health, IndexEntry, IndexQuery, Lease, Origin, ParkedEvent, Position, SUBJECT_PAGE, Stats,
    StoreBackend, Stored, SubjectPage, entry_not_found, select_docs, unknown_consumer,
};
use crate::sync::lock;
use crate::time::SharedClock;
use crate::topic::Glob;

/// A store in memory. Each adapter has its own.
pub struct MemoryStore {
    clock: SharedClock,
    state: Mutex<State>,
    subscribers: TopicRegistry<Stored>,
    counters: Counters,
    append_seconds: Arc<Histogram>,
    signal: Arc<FeedSignal>,
    leases: LocalLeases,
}

#[derive(Default)]
struct Counters {
    appends: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    errors: AtomicU64,
}

impl MemoryStore {
    /// Creates an empty store.
    pub fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            state: Mutex::default(),
            subscribers: TopicRegistry::default(),
            counters: Counters::default(),
            append_seconds: APPEND.with(&["memory"]),
            signal: FeedSignal::new(0),
            leases: LocalLeases::default(),
        }
    }

    fn run<T: Send + 'static>(&self, counter: &AtomicU64, work: impl FnOnce(&mut State) -> Result<T>) -> Op<T> {
        counter.fetch_add(1, Ordering::Relaxed);
        Op::run(|| {
            let mut state = lock(&self.state);
            let result = if state.closed { Err(Error::closed("the memory store")) } else { work(&mut state) };
            if result.is_err() {
                self.counters.errors.fetch_add(1, Ordering::Relaxed);
            }
            result
        })
    }

    fn read_with<T: Send + 'static>(&self, work: impl FnOnce(&mut State) -> Result<T>) -> Op<T> {
        self.run(&self.counters.reads, work)
    }

    fn write_with<T: Send + 'static>(&self, work: impl FnOnce(&mut State) -> Result<T>) -> Op<T> {
        self.run(&self.counters.writes, work)
    }
}

impl StoreBackend for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn open(&self) -> Op<()> {
        let closed = lock(&self.state).closed;
        if closed { Op::err(Error::closed("the memory store")) } else { Op::ok(()) }
    }

    fn close(&self) -> Op<()> {
        let mut state = lock(&self.state);
        *state = State { closed: true, ..State::default() };
        self.subscribers.close();
        self.leases.close();
        Op::ok(())
    }

    fn health(&self) -> Op<Health> {
        let closed = lock(&self.state).closed;
        Op::ok(Health { ok: !closed, detail: closed.then(|| "closed".into()) })
    }

    fn stats(&self) -> Stats {
        let state = lock(&self.state);
        let counters = &self.counters;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        vec![
            ("appends", count(&counters.appends)),
            ("reads", count(&counters.reads)),
            ("writes", count(&counters.writes)),
            ("errors", count(&counters.errors)),
            ("subjects", state.subjects.len() as f64),
            ("keys", state.kv.len() as f64),
            ("indexes", state.indexes.len() as f64),
            ("subscriptions", state.subscriptions.len() as f64),
        ]
    }

    fn append(
        &self,
        subject: &Subject,
        event: NewEvent,
        expected: Option<Expected>,
        announce: Option<Announce>,
    ) -> Op<Event> {
        let started = Instant::now();
        let stored = self.run(&self.counters.appends, |state| {
            let now = self.clock.now_ms();
            let floor = state.floor_of(subject);
            let log = state.subjects.get_mut(subject.as_str());
            let last = log.as_ref().and_then(|log| log.events.last()).map(|row| row.id);
            if let Some(expected) = expected {
                expected.check(subject, last)?;
            }
            let id = EventId::next(last.max(floor), now);
            let event = event.persist(id, now);
            let log = match log {
                Some(log) => log,
                None => {
                    let name: Arc<str> = subject.into();
                    state.subjects.entry(name.clone()).or_insert(Log { name, events: Vec::new() })
                }
            };
            state.newest += 1;
            let number = state.newest;
            log.events.push(Row { id, ts: now, number, event: event.clone() });
            state.feed.push(FeedRow { number, subject: log.name.clone(), event: Some(event.clone()) });
            // Under the lock, so that subscribers receive a subject's events in their order. None of these block.
            self.subscribers.for_each_match(subject, |subscriber| {
                // The log has all of them in memory anyway.
                subscriber.mailbox.push_unbounded(Stored { subject: log.name.clone(), event: event.clone() });
            });
            if let Some(announce) = announce {
                announce(&log.name, &event);
            }
            self.signal.append(number, &log.name, &event, |_| {});
            Ok(event)
        });
        if let Op::Ready(Ok(_)) = stored {
            self.append_seconds.observe_since(started);
        }
        stored
    }

    fn read(&self, subject: &Subject, query: EventQuery) -> Op<Vec<Json>> {
        self.read_with(|state| {
            let Some(log) = state.subjects.get(subject.as_str()) else { return Ok(Vec::new()) };
            let start = query.after.map_or(0, |after| log.events.partition_point(|row| row.id <= after));
            let end = query.before.map_or(log.events.len(), |before| log.events.partition_point(|row| row.id < before));
            let rows = log.events.get(start..end).unwrap_or(&[]);
            let wanted = |row: &&Row| {
                query.types.as_ref().is_none_or(|types| types.iter().any(|t| t == row.event.kind()))
                    && query.from.is_none_or(|from| row.ts as f64 >= from)
                    && query.to.is_none_or(|to| row.ts as f64 <= to)
            };
            let limit = query.limit.unwrap_or(usize::MAX);
            let json = |row: &Row| row.event.json().clone();
            Ok(if query.descending {
                rows.iter().rev().filter(wanted).take(limit).map(json).collect()
            } else {
                rows.iter().filter(wanted).take(limit).map(json).collect()
            })
        })
    }

    fn subscribe(&self, pattern: &Pattern, mailbox: Arc<Mailbox<Stored>>) -> Op<u64> {
        self.read_with(|state| {
            let (id, topic): (u64, Arc<str>) = (next_id(), pattern.into());
            state.subscriptions.insert(id, topic.clone());
            self.subscribers.add(Arc::new(Subscriber { id, topic, mailbox, meta: () }));
            Ok(id)
        })
    }

    fn unsubscribe(&self, id: u64) -> Op<()> {
        let topic = lock(&self.state).subscriptions.remove(&id);
        if let Some(topic) = topic
            && let Some((subscriber, _)) = self.subscribers.remove(&topic, id)
        {
            subscriber.mailbox.close();
        }
        Op::ok(())
    }

    fn delete_subject(&self, subject: &Subject) -> Op<bool> {
        self.write_with(|state| {
            let Some(log) = state.subjects.remove(subject.as_str()) else { return Ok(false) };
            if let Some(last) = log.events.last().map(|row| row.id) {
                state.raise_floor(log.name.clone(), last, self.clock.now_ms());
            }
            state.delete_from_feed(log.events.iter().map(|row| row.number));
            Ok(true)
        })
    }

    fn subjects(&self, pattern: &Pattern, cursor: Option<&str>) -> Op<SubjectPage> {
        self.read_with(|state| {
            let glob = Glob::new(pattern);
            let after = cursor.unwrap_or("");
            let mut subjects: Vec<Arc<str>> =
                state.subjects.keys().filter(|name| &***name > after && glob.matches(name)).cloned().collect();
            subjects.sort_unstable();
            let more = subjects.len() > SUBJECT_PAGE;
            subjects.truncate(SUBJECT_PAGE);
            let cursor = subjects.last().filter(|_| more).cloned();
            Ok(SubjectPage { subjects, cursor })
        })
    }

    fn feed_read(&self, query: FeedQuery) -> Op<FeedPage> {
        self.read_with(|state| {
            let after = query.after.as_ref().map_or(Ok(0), Position::number)?;
            let start = state.feed.partition_point(|row| row.number <= after);
            let (mut page, mut bytes) = (FeedPage::default(), 0);
            for row in state.feed.get(start..).unwrap_or_default() {
                if query.is_full(page.records.len(), bytes) {
                    return Ok(page);
                }
                page.end = Some(row.number.into());
                if let Some(event) = row.event.as_ref().filter(|event| query.matches(&row.subject, event.kind())) {
                    bytes += event.json().len();
                    let (position, subject) = (row.number.into(), row.subject.clone());
                    page.records.push(FeedRecord {
                        position,
                        subject,
                        event: event.json().clone(),
                        origin: Origin::Unknown,
                    });
                }
            }
            if state.newest > after && query.limit > 0 {
                page.end = Some(state.newest.into());
            }
            Ok(page)
        })
    }

    fn feed_head(&self) -> Op<Option<Position>> {
        self.read_with(|state| Ok((state.newest > 0).then(|| state.newest.into())))
    }

    fn feed_watch(&self) -> Result<watch::Receiver<u64>> {
        Ok(self.signal.subscribe())
    }

    fn feed_follow(&self, consumer: &ConsumerName, follower: Weak<dyn FeedFollower>) -> Result<()> {
        self.signal.followers().add(consumer, follower);
        Ok(())
    }

    fn consumer_acquire(&self, name: &ConsumerName) -> Op<Lease> {
        match self.open() {
            Op::Ready(Err(error)) => Op::err(error),
            _ => self.leases.acquire(name),
        }
    }

    fn consumer_try_acquire(&self, name: &ConsumerName) -> Op<Option<Lease>> {
        match self.open() {
            Op::Ready(Err(error)) => Op::err(error),
            _ => Op::ok(self.leases.try_acquire(name)),
        }
    }

    fn consumer_load(&self, name: &ConsumerName) -> Op<Option<ConsumerState>> {
        self.read_with(|state| {
            Ok(state.consumers.get(name.as_str()).map(|consumer| ConsumerState {
                position: (consumer.position > 0).then(|| consumer.position.into()),
                missed: 0,
                parked: consumer.parked.len() as u64,
            }))
        })
    }

    fn consumer_save(&self, name: &ConsumerName, _: &Lease, change: ConsumerChange) -> Op<()> {
        self.write_with(|state| {
            let position = change.position.as_ref().map(Position::number).transpose()?;
            let numbered = |event: ParkedEvent| Ok((event.position.number()?, event));
            let park = change.park.into_iter().map(numbered).collect::<Result<Vec<_>>>()?;
            let unpark = change.unpark.iter().map(Position::number).collect::<Result<Vec<_>>>()?;
            let consumer = state.consumers.entry(name.into()).or_default();
            consumer.position = position.unwrap_or(consumer.position);
            park.iter().for_each(|(number, _)| _ = consumer.replays.remove(number));
            consumer.parked.extend(park);
            for number in unpark {
                consumer.parked.remove(&number);
                consumer.replays.remove(&number);
            }
            Ok(())
        })
    }

    fn consumer_list(&self) -> Op<Vec<ConsumerInfo>> {
        self.read_with(|state| {
            let info = |(name, consumer): (&Arc<str>, &StoredConsumer)| ConsumerInfo {
                name: name.clone(),
                position: (consumer.position > 0).then(|| consumer.position.into()),
                parked: consumer.parked.len() as u64,
            };
            Ok(state.consumers.iter().map(info).collect())
        })
    }

    fn consumer_delete(&self, name: &ConsumerName) -> Op<bool> {
        self.write_with(|state| Ok(state.consumers.remove(name.as_str()).is_some()))
    }

    fn consumer_parked(&self, name: &ConsumerName, after: Option<Position>, limit: usize) -> Op<Vec<ParkedEvent>> {
        self.read_with(|state| {
            let after = after.as_ref().map_or(Ok(0), Position::number)?;
            let Some(consumer) = state.consumers.get(name.as_str()) else { return Ok(Vec::new()) };
            let rest = (Bound::Excluded(after), Bound::Unbounded);
            Ok(consumer.parked.range(rest).take(limit).map(|(_, event)| event.clone()).collect())
        })
    }

    fn consumer_request_replay(&self, name: &ConsumerName, positions: Option<Vec<Position>>) -> Op<u64> {
        let requested = self.write_with(|state| {
            let numbers =
                positions.map(|all| all.iter().map(Position::number).collect::<Result<BTreeSet<_>>>()).transpose()?;
            let Some(consumer) = state.consumers.get_mut(name.as_str()) else { return Err(unknown_consumer(name)) };
            let wanted = |number: &&u64| numbers.as_ref().is_none_or(|numbers| numbers.contains(number));
            let found: Vec<u64> = consumer.parked.keys().filter(wanted).copied().collect();
            consumer.replays.extend(&found);
            Ok(found.len() as u64)
        });
        self.leases.notify_replay(name.as_str());
        requested
    }

    fn consumer_replays(&self, name: &ConsumerName) -> Op<Vec<Position>> {
        self.read_with(|state| {
            let consumer = state.consumers.get(name.as_str());
            Ok(consumer.into_iter().flat_map(|consumer| &consumer.replays).map(|number| (*number).into()).collect())
        })
    }

    fn kv_get(&self, key: &Key) -> Op<Option<Json>> {
        self.read_with(|state| Ok(state.live(key, self.clock.now_ms()).map(|entry| entry.value.clone())))
    }

    fn kv_set(&self, key: &Key, value: Json, ttl_ms: Option<u64>) -> Op<()> {
        self.write_with(|state| {
            let now = self.clock.now_ms();
            state.sweep(now);
            let expires_ms = ttl_ms.map(|ttl| now.saturating_add(ttl));
            let key: Arc<str> = key.into();
            if let Some(at) = expires_ms {
                state.expiries.push(Reverse((at, key.clone())));
            }
            state.kv.insert(key, KvEntry { value, expires_ms });
            Ok(())
        })
    }

    fn kv_delete(&self, key: &Key) -> Op<()> {
        self.write_with(|state| {
            state.kv.remove(key.as_str());
            Ok(())
        })
    }

    fn kv_clear(&self, pattern: &Pattern) -> Op<u64> {
        self.write_with(|state| {
            let (glob, now) = (Glob::new(pattern), self.clock.now_ms());
            let mut removed = 0;
            state.kv.retain(|key, entry| {
                let keep = !glob.matches(key);
                if !keep && entry.expires_ms.is_none_or(|at| at > now) {
                    removed += 1;
                }
                keep
            });
            Ok(removed)
        })
    }

    fn kv_increment(&self, key: &Key, by: f64) -> Op<Number> {
        self.write_with(|state| {
            let old = state.live(key, self.clock.now_ms());
            let expires_ms = old.and_then(|entry| entry.expires_ms);
            let sum = json::add_to_text(key, old.map(|entry| &*entry.value), by)?;
            state.kv.insert(key.into(), KvEntry { value: sum.to_string().into(), expires_ms });
            Ok(sum)
        })
    }

    fn index_add(&self, key: &Key, id: &EntryId, score: f64, metadata: Object) -> Op<()> {
        self.write_with(|state| {
            let metadata = json::fresh_metadata(metadata)?;
            match state.indexes.get_mut(key.as_str()) {
                Some(index) => index.add(id, score, &metadata),
                None => state.indexes.entry(key.into()).or_default().add(id, score, &metadata),
            }
            Ok(())
        })
    }

    fn index_get(&self, key: &Key, id: &EntryId) -> Op<Option<IndexEntry>> {
        self.read_with(|state| Ok(state.indexes.get_mut(key.as_str()).and_then(|index| index.get(id))))
    }

    fn index_read(&self, key: &Key, query: IndexQuery) -> Op<Vec<IndexEntry>> {
        self.read_with(|state| {
            Ok(state.indexes.get_mut(key.as_str()).map(|index| index.read(&query)).unwrap_or_default())
        })
    }

    fn index_count(&self, key: &Key, filter: Filter) -> Op<u64> {
        self.read_with(|state| {
            let Some(index) = state.indexes.get_mut(key.as_str()) else { return Ok(0) };
            Ok(index.count(&filter) as u64)
        })
    }

    fn index_update(&self, key: &Key, id: &EntryId, patch: Object, expected_version: Option<i64>) -> Op<bool> {
        self.write_with(|state| {
            let update = |metadata: &mut Object| json::update_metadata(metadata, patch, expected_version);
            Ok(state.indexes.get_mut(key.as_str()).and_then(|index| index.change(id, update)).unwrap_or(false))
        })
    }

    fn index_increment(&self, key: &Key, id: &EntryId, field: &FieldPath, by: f64) -> Op<Number> {
        self.write_with(|state| {
            let increment = |metadata: &mut Object| json::increment_metadata(metadata, field, by);
            let changed = state.indexes.get_mut(key.as_str()).and_then(|index| index.change(id, increment));
            changed.unwrap_or_else(|| Err(entry_not_found(key, id)))
        })
    }

    fn index_delete(&self, key: &Key, id: &EntryId) -> Op<bool> {
        self.write_with(|state| {
            let Some(index) = state.indexes.get_mut(key.as_str()) else { return Ok(false) };
            let deleted = index.remove(id);
            if index.is_empty() {
                state.indexes.remove(key.as_str());
            }
            Ok(deleted)
        })
    }

    fn doc_save(&self, collection: &Collection, id: &DocId, doc: Json) -> Op<()> {
        self.write_with(|state| {
            let object = json::parse_object("doc", &doc)?;
            state.docs.entry(collection.into()).or_default().insert(id.into(), Doc { json: doc, object });
            Ok(())
        })
    }

    fn doc_get(&self, collection: &Collection, id: &DocId) -> Op<Option<Json>> {
        self.read_with(|state| {
            Ok(state.docs.get(collection.as_str()).and_then(|docs| docs.get(id.as_str())).map(|doc| doc.json.clone()))
        })
    }

    fn doc_list(&self, collection: &Collection, query: DocQuery) -> Op<Vec<(Arc<str>, Json)>> {
        self.read_with(|state| {
            let Some(docs) = state.docs.get(collection.as_str()) else { return Ok(Vec::new()) };
            let rows = docs.iter().map(|(id, doc)| (id, &doc.object, &doc.json));
            Ok(select_docs(rows, &query).into_iter().map(|(id, json)| (id.clone(), json.clone())).collect())
        })
    }

    fn doc_delete(&self, collection: &Collection, id: &DocId) -> Op<()> {
        self.write_with(|state| {
            if let Some(docs) = state.docs.get_mut(collection.as_str()) {
                docs.remove(id.as_str());
                if docs.is_empty() {
                    state.docs.remove(collection.as_str());
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::time::ManualClock;

    #[tokio::test]
    async fn what_is_gone_takes_no_memory() {
        let clock = ManualClock::at(1_000);
        let store = MemoryStore::new(clock.clone());
        let (key, id, collection) = (Key::new("k").unwrap(), EntryId::new("e").unwrap(), Collection::new("c").unwrap());
        store.kv_set(key, "1".into(), Some(10)).await.unwrap();
        clock.advance(10);
        store.kv_set(Key::new("other").unwrap(), "1".into(), None).await.unwrap();
        store.index_add(key, id, 1.0, Object::new()).await.unwrap();
        assert!(store.index_delete(key, id).await.unwrap());
        let doc = DocId::new("d").unwrap();
        store.doc_save(collection, doc, "{}".into()).await.unwrap();
        store.doc_delete(collection, doc).await.unwrap();
        let state = lock(&store.state);
        assert_eq!((state.kv.len(), state.expiries.len(), state.indexes.len(), state.docs.len()), (1, 0, 0, 0));
    }

    #[tokio::test]
    async fn calls_are_counted_by_their_kind() {
        let store = MemoryStore::new(ManualClock::at(1_000));
        let (subject, key) = (Subject::new("s").unwrap(), Key::new("k").unwrap());
        store.append(subject, NewEvent::parse(r#"{"type":"t"}"#).unwrap(), None, None).await.unwrap();
        store.kv_set(key, "1".into(), None).await.unwrap();
        store.kv_get(key).await.unwrap();
        let counts = store.stats().into_iter().take(4).collect::<Vec<_>>();
        assert_eq!(counts, [("appends", 1.0), ("reads", 1.0), ("writes", 1.0), ("errors", 0.0)]);
        assert_eq!(store.name(), "memory");
    }

    #[tokio::test]
    async fn closing_ends_every_lease_and_no_name_is_given_after_it() {
        let store = MemoryStore::new(ManualClock::at(1_000));
        let name = ConsumerName::new("c").unwrap();
        let lease = store.consumer_try_acquire(name).await.unwrap().unwrap();
        assert!(store.consumer_try_acquire(name).await.unwrap().is_none() && !lease.is_lost());
        store.close().await.unwrap();
        assert!(lease.is_lost());
        assert_eq!(store.consumer_acquire(name).await.err().unwrap().code(), Code::Closed);
        assert_eq!(store.consumer_try_acquire(name).await.err().unwrap().code(), Code::Closed);
    }
}
