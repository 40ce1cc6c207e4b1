//! The contract of stores, on the file store.

use std::any::Any;
use std::sync::{Arc, Weak};
use std::time::Instant;

use serde_json::Number;
use tokio::sync::{oneshot, watch};

use super::adapter::{Counters, Extent, FileStore, end_subscriptions, within};
use super::errors::{self, writer_died};
use super::kv::Cleared;
use super::open_store::OpenStore;
use super::shared::Following;
use super::view::Purge;
use super::write_queue::{Footprint, Step};
use super::{docs, events, feed, index, kv, registry, subscription};
use crate::error::{Error, Result};
use crate::event::{Event, NewEvent};
use crate::fanout::{Mailbox, Subscriber, next_id};
use crate::json::{self, Filter, Json, Object};
use crate::name::{Collection, ConsumerName, DocId, EntryId, FieldPath, Key, Pattern, Subject};
use crate::op::{Op, completion};
use crate::store::{
    Announce, ConsumerChange, ConsumerInfo, ConsumerState, DocQuery, EventQuery, Expected, FeedFollower, FeedPage,
    FeedQuery, Health, IndexEntry, IndexQuery, Lease, Maintenance, ParkedEvent, Position, Stats, StoreBackend, Stored,
    SubjectPage,
};
use crate::sync::lock;
use crate::topic::Glob;

impl FileStore {
    /// Returns what makes the lease of an open store one of this adapter: it is lost when the adapter is closed, or the store.
    fn holding(&self, store: Arc<OpenStore>, name: &ConsumerName) -> impl FnOnce(Lease) -> Lease + Send + 'static {
        let (lost, receiver) = watch::channel(false);
        let lost = Arc::new(lost);
        let mut state = self.state();
        state.leases.retain(|lost| lost.strong_count() > 0);
        state.leases.push(Arc::downgrade(&lost));
        drop(state);
        let name = Arc::<str>::from(name);
        move |lease| Lease {
            replays: lease.replays,
            token: 0,
            lost: receiver,
            guard: Box::new(InHand { store, name, _lost: lost, _lease: lease.guard }),
        }
    }
}

impl StoreBackend for FileStore {
    fn name(&self) -> &'static str {
        "file"
    }

    fn open(&self) -> Op<()> {
        match self.store() {
            Ok(store) if store.is_open() => Op::ok(()),
            Ok(_) => self.barrier(|| {}),
            Err(error) => self.failed(error),
        }
    }

    fn close(&self) -> Op<()> {
        let (store, subscriptions) = {
            let mut state = self.state();
            state.closed = true;
            for lost in state.leases.drain(..).filter_map(|lost| lost.upgrade()) {
                lost.send_replace(true);
            }
            (state.store.take(), std::mem::take(&mut state.subscriptions))
        };
        let Some(store) = store else { return Op::ok(()) };
        let ended = store.ended.waiter();
        let (done, queue_drained) = oneshot::channel::<()>();
        // Queued behind the calls made before.
        let shared = store.clone();
        let job = self.job(false, move |_| {
            Step::Done(Box::new(move |_| {
                end_subscriptions(&shared, subscriptions);
                drop(done);
            }))
        });
        // If the writer has ended there is no queue.
        let _ = store.queue.push(Footprint::Nothing, job);
        let last = registry::release(&store);
        Op::pending(async move {
            let _ = queue_drained.await;
            if last {
                ended.await;
            }
            Ok(())
        })
    }

    fn health(&self) -> Op<Health> {
        let store = match self.store() {
            Ok(store) => store,
            Err(error) => return Op::ok(Health { ok: false, detail: Some(error.to_string()) }),
        };
        let health = move || match store.failed() {
            Some(error) => Health { ok: false, detail: Some(error.to_string()) },
            None => Health { ok: true, detail: store.notice() },
        };
        match self.open() {
            Op::Ready(Ok(())) => Op::ok(health()),
            opening => Op::pending(async move {
                Ok(match opening.await {
                    Ok(()) => health(),
                    Err(error) => Health { ok: false, detail: Some(error.to_string()) },
                })
            }),
        }
    }

    fn stats(&self) -> Stats {
        let mut stats = self.counters.stats();
        if let Some(store) = &self.state().store {
            stats.extend(store.stats());
        }
        stats
    }

    fn maintenance(&self) -> Option<&dyn Maintenance> {
        Some(self)
    }

    fn append(
        &self,
        subject: &Subject,
        event: NewEvent,
        expected: Option<Expected>,
        announce: Option<Announce>,
    ) -> Op<Event> {
        Counters::count(&self.counters.appends);
        let subject: Arc<str> = subject.into();
        let (name, runtime) = (subject.clone(), self.runtime.clone());
        let (counters, started) = (self.counters.clone(), Instant::now());
        self.write_then(
            Footprint::subject(&subject),
            move |tx| events::append(tx, &name, event, expected),
            move |store, event, number| {
                if let Some(announce) = announce {
                    announce(&subject, event);
                }
                store.subscribers.for_each_match(&subject, |subscriber| {
                    let stored = || Stored { subject: subject.clone(), event: event.clone() };
                    subscription::deliver(store, &runtime, subscriber, stored, number);
                });
                store.feed.append(number, &subject, event, |consumer| {
                    // Retention removes nothing that a consumer has taken and not yet recorded.
                    if let Some(end) = lock(&store.in_hand).get_mut(consumer) {
                        *end = number;
                    }
                });
                counters.append_seconds.observe_since(started);
            },
        )
    }

    fn read(&self, subject: &Subject, query: EventQuery) -> Op<Vec<Json>> {
        let name: Arc<str> = subject.into();
        self.read_view(Footprint::subject(subject), Extent::Range, move |view, budget| {
            events::read(view, &name, &query, budget)
        })
    }

    fn subscribe(&self, pattern: &Pattern, mailbox: Arc<Mailbox<Stored>>) -> Op<u64> {
        let store = match self.store() {
            Ok(store) => store,
            Err(error) => return self.failed(error),
        };
        if store.is_read_only() {
            return self.failed(errors::no_subscriptions(&store.dir));
        }
        let id = next_id();
        let topic: Arc<str> = pattern.into();
        self.state().subscriptions.insert(id, (topic.clone(), mailbox.clone()));
        let subscriber = Arc::new(Subscriber { id, topic, mailbox, meta: Following::default() });
        // Queued behind the writes called before, so that it delivers none of them.
        self.barrier(move || _ = store.subscribers.add(subscriber)).map(move |()| id)
    }

    fn unsubscribe(&self, id: u64) -> Op<()> {
        let (store, subscription) = {
            let mut state = self.state();
            (state.store.clone(), state.subscriptions.remove(&id))
        };
        if let Some((store, subscription)) = store.zip(subscription) {
            end_subscriptions(&store, [(id, subscription)]);
        }
        Op::ok(())
    }

    fn delete_subject(&self, subject: &Subject) -> Op<bool> {
        let name: Arc<str> = subject.into();
        self.write(Footprint::subject(subject), move |tx| events::delete(tx, &name))
    }

    fn subjects(&self, pattern: &Pattern, cursor: Option<&str>) -> Op<SubjectPage> {
        let (glob, after) = (Glob::new(pattern), cursor.unwrap_or("").to_owned());
        self.point(Footprint::All, move |view| events::subjects(view, &glob, &after))
    }

    fn feed_read(&self, query: FeedQuery) -> Op<FeedPage> {
        let Some(consumer) = query.consumer.clone() else {
            return self.read_view(Footprint::All, Extent::Range, move |view, budget| feed::read(view, &query, budget));
        };
        let store = match self.store() {
            Ok(store) => store,
            Err(error) => return self.failed(error),
        };
        let after = match query.after.as_ref().map_or(Ok(0), Position::number) {
            Ok(after) => after,
            Err(error) => return self.failed(error),
        };
        // Retention removes nothing that is being read.
        lock(&store.in_hand).insert(consumer.clone(), u64::MAX);
        let read =
            self.read_view(Footprint::Nothing, Extent::Range, move |view, budget| feed::read(view, &query, budget));
        read.map(move |page| {
            let end = page.end.as_ref().and_then(|end| end.number().ok()).unwrap_or(after);
            lock(&store.in_hand).insert(consumer, end);
            page
        })
    }

    fn feed_head(&self) -> Op<Option<Position>> {
        self.point(Footprint::All, |view| feed::newest(view).map(|newest| (newest > 0).then(|| newest.into())))
    }

    fn feed_watch(&self) -> Result<watch::Receiver<u64>> {
        Ok(self.store()?.feed.subscribe())
    }

    fn feed_follow(&self, consumer: &ConsumerName, follower: Weak<dyn FeedFollower>) -> Result<()> {
        self.store()?.feed.followers().add(consumer, follower);
        Ok(())
    }

    fn consumer_acquire(&self, name: &ConsumerName) -> Op<Lease> {
        let store = match self.writable() {
            Ok(store) => store,
            Err(error) => return self.failed(error),
        };
        let acquiring = store.leases.acquire(name);
        let held = self.holding(store, name);
        acquiring.map(held)
    }

    fn consumer_try_acquire(&self, name: &ConsumerName) -> Op<Option<Lease>> {
        let store = match self.store() {
            Ok(store) => store,
            Err(error) => return self.failed(error),
        };
        let lease = store.leases.try_acquire(name);
        Op::ok(lease.map(self.holding(store, name)))
    }

    fn consumer_load(&self, name: &ConsumerName) -> Op<Option<ConsumerState>> {
        let name: Arc<str> = name.into();
        self.point(Footprint::consumer(&name), move |view| feed::load(view, &name))
    }

    fn consumer_save(&self, name: &ConsumerName, _: &Lease, change: ConsumerChange) -> Op<()> {
        let name: Arc<str> = name.into();
        self.write_in_background(Footprint::consumer(&name), move |tx| feed::save(tx, &name, &change))
    }

    fn consumer_list(&self) -> Op<Vec<ConsumerInfo>> {
        self.point(Footprint::All, feed::list)
    }

    fn consumer_delete(&self, name: &ConsumerName) -> Op<bool> {
        let name: Arc<str> = name.into();
        self.write(Footprint::consumer(&name), move |tx| feed::delete(tx, &name))
    }

    fn consumer_parked(&self, name: &ConsumerName, after: Option<Position>, limit: usize) -> Op<Vec<ParkedEvent>> {
        let after = match after.as_ref().map_or(Ok(0), Position::number) {
            Ok(after) => after,
            Err(error) => return self.failed(error),
        };
        let name: Arc<str> = name.into();
        self.point(Footprint::consumer(&name), move |view| feed::parked(view, &name, after, limit))
    }

    fn consumer_request_replay(&self, name: &ConsumerName, positions: Option<Vec<Position>>) -> Op<u64> {
        let numbers = positions.map(|all| all.iter().map(Position::number).collect::<Result<Vec<_>>>()).transpose();
        let numbers = match numbers {
            Ok(numbers) => numbers,
            Err(error) => return self.failed(error),
        };
        let name: Arc<str> = name.into();
        let notified = name.clone();
        self.write_then(
            Footprint::consumer(&name),
            move |tx| feed::request_replay(tx, &name, numbers.as_deref()).map(|count| (count, ())),
            move |store, _, ()| store.leases.notify_replay(&notified),
        )
    }

    fn consumer_replays(&self, name: &ConsumerName) -> Op<Vec<Position>> {
        let name: Arc<str> = name.into();
        self.point(Footprint::consumer(&name), move |view| feed::replays(view, &name))
    }

    fn index_keys(&self, pattern: &Pattern, cursor: Option<&str>) -> Op<SubjectPage> {
        let (glob, after): (Glob, Arc<str>) = (Glob::new(pattern), cursor.unwrap_or_default().into());
        self.point(Footprint::All, move |view| index::keys(view, &glob, &after))
    }

    fn import_event(&self, subject: &Subject, event: Event) -> Op<bool> {
        let subject = Arc::<str>::from(subject);
        self.write_then(
            Footprint::subject(&subject),
            move |tx| Ok((events::import(tx, &subject, &event)?, tx.cache.newest)),
            |store, _, newest| store.feed.notify(newest),
        )
    }

    fn kv_get(&self, key: &Key) -> Op<Option<Json>> {
        let name: Arc<str> = key.into();
        self.point(Footprint::key(key), move |view| kv::get(view, &name))
    }

    fn kv_set(&self, key: &Key, value: Json, ttl_ms: Option<u64>) -> Op<()> {
        let expires_ms = ttl_ms.map(|ttl| self.clock.now_ms().saturating_add(ttl));
        let name: Arc<str> = key.into();
        self.write(Footprint::key(key), move |tx| kv::set(tx, &name, &value, expires_ms))
    }

    fn kv_delete(&self, key: &Key) -> Op<()> {
        let name: Arc<str> = key.into();
        self.write(Footprint::key(key), move |tx| kv::delete(tx, &name))
    }

    fn kv_clear(&self, pattern: &Pattern) -> Op<u64> {
        let pattern: Arc<str> = pattern.into();
        Counters::count(&self.counters.writes);
        let store = match self.writable() {
            Ok(store) => store,
            Err(error) => return self.failed(error),
        };
        let (completer, completion) = completion(writer_died);
        let counters = self.counters.clone();
        let job = self.job(true, move |tx| {
            // Some: it completes with the commit. None: it will be completed by the purge.
            let mut completer = Some(completer);
            let result = within(tx, |tx| match kv::clear(tx, &pattern)? {
                Cleared::All(removed) => Ok(removed),
                Cleared::Rest(clear) => {
                    // Completed with the number when the last key was removed, or with the error.
                    tx.cache.clears.extend(completer.take().map(|completer| Purge::new(clear, completer)));
                    Ok(0)
                }
            });
            Step::Done(Box::new(move |outcome| {
                let result = outcome.clone().and(result);
                counters.count_error(&result);
                if let Some(completer) = completer {
                    completer.complete(result);
                }
            }))
        });
        self.queue(&store, Footprint::AnyKey, job, completion)
    }

    fn kv_increment(&self, key: &Key, by: f64) -> Op<Number> {
        let name: Arc<str> = key.into();
        self.write(Footprint::key(key), move |tx| kv::increment(tx, &name, by))
    }

    fn index_add(&self, key: &Key, id: &EntryId, score: f64, metadata: Object) -> Op<()> {
        let footprint = Footprint::entry("index", key, id);
        let (key, id): (Arc<str>, Arc<str>) = (key.into(), id.into());
        let metadata = match json::fresh_metadata(metadata) {
            Ok(metadata) => json::to_json(&metadata),
            Err(error) => return self.failed(error),
        };
        self.write(footprint, move |tx| index::add(tx, &key, &id, score, &metadata))
    }

    fn index_get(&self, key: &Key, id: &EntryId) -> Op<Option<IndexEntry>> {
        let footprint = Footprint::entry("index", key, id);
        let (key, id): (Arc<str>, Arc<str>) = (key.into(), id.into());
        self.point(footprint, move |view| index::get(view, &key, &id))
    }

    fn index_read(&self, key: &Key, query: IndexQuery) -> Op<Vec<IndexEntry>> {
        let footprint = Footprint::collection("index", key);
        let key: Arc<str> = key.into();
        self.read_view(footprint, Extent::Range, move |view, budget| index::read(view, &key, &query, budget))
    }

    fn index_count(&self, key: &Key, filter: Filter) -> Op<u64> {
        let footprint = Footprint::collection("index", key);
        let key: Arc<str> = key.into();
        self.read_view(footprint, Extent::Range, move |view, budget| index::count(view, &key, &filter, budget))
    }

    fn index_update(&self, key: &Key, id: &EntryId, patch: Object, expected_version: Option<i64>) -> Op<bool> {
        let footprint = Footprint::entry("index", key, id);
        let (key, id): (Arc<str>, Arc<str>) = (key.into(), id.into());
        self.write(footprint, move |tx| index::update(tx, &key, &id, patch, expected_version))
    }

    fn index_increment(&self, key: &Key, id: &EntryId, field: &FieldPath, by: f64) -> Op<Number> {
        let footprint = Footprint::entry("index", key, id);
        let (key, id, field): (Arc<str>, Arc<str>, Arc<str>) = (key.into(), id.into(), field.into());
        self.write(footprint, move |tx| index::increment(tx, &key, &id, &field, by))
    }

    fn index_delete(&self, key: &Key, id: &EntryId) -> Op<bool> {
        let footprint = Footprint::entry("index", key, id);
        let (key, id): (Arc<str>, Arc<str>) = (key.into(), id.into());
        self.write(footprint, move |tx| index::delete(tx, &key, &id))
    }

    fn doc_save(&self, collection: &Collection, id: &DocId, doc: Json) -> Op<()> {
        if let Err(error) = json::parse_object("doc", &doc) {
            return self.failed(error);
        }
        let footprint = Footprint::entry("doc", collection, id);
        let (collection, id): (Arc<str>, Arc<str>) = (collection.into(), id.into());
        self.write(footprint, move |tx| docs::save(tx, &collection, &id, &doc))
    }

    fn doc_get(&self, collection: &Collection, id: &DocId) -> Op<Option<Json>> {
        let footprint = Footprint::entry("doc", collection, id);
        let (collection, id): (Arc<str>, Arc<str>) = (collection.into(), id.into());
        self.point(footprint, move |view| docs::get(view, &collection, &id))
    }

    fn doc_list(&self, collection: &Collection, query: DocQuery) -> Op<Vec<(Arc<str>, Json)>> {
        let footprint = Footprint::collection("doc", collection);
        let collection: Arc<str> = collection.into();
        self.read_view(footprint, Extent::Range, move |view, budget| docs::list(view, &collection, &query, budget))
    }

    fn doc_delete(&self, collection: &Collection, id: &DocId) -> Op<()> {
        let footprint = Footprint::entry("doc", collection, id);
        let (collection, id): (Arc<str>, Arc<str>) = (collection.into(), id.into());
        self.write(footprint, move |tx| docs::delete(tx, &collection, &id))
    }
}

/// Releases what a consumer has in hand, with its lease.
struct InHand {
    store: Arc<OpenStore>,
    name: Arc<str>,
    _lost: Arc<watch::Sender<bool>>,
    _lease: Box<dyn Any + Send + Sync>,
}

impl Drop for InHand {
    fn drop(&mut self) {
        lock(&self.store.in_hand).remove(&self.name);
    }
}

impl FileStore {
    /// Completes when every call made before has completed; `then` runs before the calls made later.
    fn barrier(&self, then: impl FnOnce() + Send + 'static) -> Op<()> {
        let store = match self.store() {
            Ok(store) => store,
            Err(error) => return self.failed(error),
        };
        let (completer, completion) = completion(writer_died);
        let job = self.job(false, move |tx| {
            // Fails if the store could not be opened.
            let result: Result<(), Error> = within(tx, |_| Ok(()));
            Step::Done(Box::new(move |_| {
                if result.is_ok() {
                    then();
                }
                completer.complete(result);
            }))
        });
        self.queue(&store, Footprint::Nothing, job, completion)
    }
}
