//! The calls of the contract.

use std::sync::Arc;

use serde_json::Number;
use tokio::sync::oneshot;

use super::calls::{Extent, gone, within};
use super::kv::Cleared;
use super::queue::{Scope, Step};
use super::view::Purge;
use super::{Counters, FileStore, docs, end_subscriptions, events, index, kv, registry};
use crate::error::{Error, Result};
use crate::event::{Event, NewEvent};
use crate::fanout::{Mailbox, Subscriber, next_id};
use crate::json::{self, Json, Object};
use crate::name::{Collection, DocId, EntryId, FieldPath, Key, Pattern, Subject};
use crate::op::{Op, completion};
use crate::store::{
    Announce, DocQuery, EventQuery, Expected, Health, IndexEntry, IndexQuery, Stats, StoreBackend, Stored,
};

impl StoreBackend for FileStore {
    fn name(&self) -> &'static str {
        "file"
    }

    fn open(&self) -> Op<()> {
        match self.engine() {
            Ok(engine) if engine.is_open() => Op::ok(()),
            Ok(_) => self.barrier(|| {}),
            Err(error) => self.failed(error),
        }
    }

    fn close(&self) -> Op<()> {
        let (engine, subscriptions) = {
            let mut state = self.state();
            state.closed = true;
            (state.engine.take(), std::mem::take(&mut state.subscriptions))
        };
        let Some(engine) = engine else { return Op::ok(()) };
        let ended = engine.ended.waiter();
        let (tell, completion) = oneshot::channel::<()>();
        // Behind what was called for before.
        let shared = engine.clone();
        let job = self.job(false, move |_| {
            Step::Done(Box::new(move |_| {
                end_subscriptions(&shared, subscriptions);
                drop(tell);
            }))
        });
        // A store that has died needs no turn in the queue.
        let _ = engine.queue.push(Scope::Nothing, job);
        let last = registry::release(&engine);
        Op::pending(async move {
            let _ = completion.await;
            if last {
                ended.await;
            }
            Ok(())
        })
    }

    fn health(&self) -> Op<Health> {
        let engine = match self.engine() {
            Ok(engine) => engine,
            Err(error) => return Op::ok(Health { ok: false, detail: Some(error.to_string()) }),
        };
        let health = move || match engine.failed() {
            Some(error) => Health { ok: false, detail: Some(error.to_string()) },
            None => Health { ok: true, detail: engine.notice() },
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
        if let Some(engine) = &self.state().engine {
            stats.extend(engine.stats());
        }
        stats
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
        let name = subject.clone();
        self.write_then(
            Scope::subject(&subject),
            move |tx| events::append(tx, &name, event, expected),
            move |engine, event| {
                if let Some(announce) = announce {
                    announce(&subject, event);
                }
                engine.hub.for_each_match(&subject, |subscriber| {
                    subscriber.mailbox.push(Stored { subject: subject.clone(), event: event.clone() });
                });
            },
        )
    }

    fn read(&self, subject: &Subject, query: EventQuery) -> Op<Vec<Json>> {
        let name: Arc<str> = subject.into();
        self.read_view(Scope::subject(subject), Extent::Range, move |view, budget| {
            events::read(view, &name, &query, budget)
        })
    }

    fn subscribe(&self, pattern: &Pattern, mailbox: Arc<Mailbox<Stored>>) -> Op<u64> {
        let engine = match self.engine() {
            Ok(engine) => engine,
            Err(error) => return self.failed(error),
        };
        let id = next_id();
        let topic: Arc<str> = pattern.into();
        self.state().subscriptions.insert(id, (topic.clone(), mailbox.clone()));
        let subscriber = Arc::new(Subscriber { id, topic, mailbox, meta: () });
        // Behind the writes that were called for before, also where these are just being completion.
        self.barrier(move || _ = engine.hub.add(subscriber)).map(move |()| id)
    }

    fn unsubscribe(&self, id: u64) -> Op<()> {
        let (engine, subscription) = {
            let mut state = self.state();
            (state.engine.clone(), state.subscriptions.remove(&id))
        };
        if let Some((engine, subscription)) = engine.zip(subscription) {
            end_subscriptions(&engine, [(id, subscription)]);
        }
        Op::ok(())
    }

    fn delete_subject(&self, subject: &Subject) -> Op<bool> {
        let name: Arc<str> = subject.into();
        self.write(Scope::subject(subject), move |tx| events::delete(tx, &name))
    }

    fn kv_get(&self, key: &Key) -> Op<Option<Json>> {
        let name: Arc<str> = key.into();
        self.point(Scope::key(key), move |view| kv::get(view, &name))
    }

    fn kv_set(&self, key: &Key, value: Json, ttl_ms: Option<u64>) -> Op<()> {
        let expires_ms = ttl_ms.map(|ttl| self.clock.now_ms().saturating_add(ttl));
        let name: Arc<str> = key.into();
        self.write(Scope::key(key), move |tx| kv::set(tx, &name, &value, expires_ms))
    }

    fn kv_delete(&self, key: &Key) -> Op<()> {
        let name: Arc<str> = key.into();
        self.write(Scope::key(key), move |tx| kv::delete(tx, &name))
    }

    fn kv_clear(&self, pattern: &Pattern) -> Op<u64> {
        let pattern: Arc<str> = pattern.into();
        Counters::count(&self.counters.writes);
        let engine = match self.engine() {
            Ok(engine) => engine,
            Err(error) => return self.failed(error),
        };
        let (completer, completion) = completion(gone);
        let counters = self.counters.clone();
        let job = self.job(true, move |tx| {
            let result = within(tx, |tx| match kv::clear(tx, &pattern)? {
                Cleared::All(removed) => Ok(Some((removed, completer))),
                Cleared::Rest(clear) => {
                    // It tells the number when it has removed the last key, or that it could not.
                    tx.memory.clears.push_back(Purge::new(clear, completer));
                    Ok(None)
                }
            });
            Step::Done(Box::new(move |outcome| {
                let result = outcome.clone().and(result);
                counters.failed(&result);
                if let Ok(Some((removed, completer))) = result {
                    completer.complete(Ok(removed));
                }
            }))
        });
        self.queue(&engine, Scope::AnyKey, job, completion)
    }

    fn kv_increment(&self, key: &Key, by: f64) -> Op<Number> {
        let name: Arc<str> = key.into();
        self.write(Scope::key(key), move |tx| kv::increment(tx, &name, by))
    }

    fn index_add(&self, key: &Key, id: &EntryId, score: f64, metadata: Object) -> Op<()> {
        let scope = Scope::entry("index", key, id);
        let (key, id): (Arc<str>, Arc<str>) = (key.into(), id.into());
        let metadata = json::to_json(&json::fresh_metadata(metadata));
        self.write(scope, move |tx| index::add(tx, &key, &id, score, &metadata))
    }

    fn index_get(&self, key: &Key, id: &EntryId) -> Op<Option<IndexEntry>> {
        let scope = Scope::entry("index", key, id);
        let (key, id): (Arc<str>, Arc<str>) = (key.into(), id.into());
        self.point(scope, move |view| index::get(view, &key, &id))
    }

    fn index_read(&self, key: &Key, query: IndexQuery) -> Op<Vec<IndexEntry>> {
        let scope = Scope::collection("index", key);
        let key: Arc<str> = key.into();
        self.read_view(scope, Extent::Range, move |view, budget| index::read(view, &key, &query, budget))
    }

    fn index_update(&self, key: &Key, id: &EntryId, patch: Object, expected_version: Option<i64>) -> Op<bool> {
        let scope = Scope::entry("index", key, id);
        let (key, id): (Arc<str>, Arc<str>) = (key.into(), id.into());
        self.write(scope, move |tx| index::update(tx, &key, &id, patch, expected_version))
    }

    fn index_increment(&self, key: &Key, id: &EntryId, field: &FieldPath, by: f64) -> Op<Number> {
        let scope = Scope::entry("index", key, id);
        let (key, id, field): (Arc<str>, Arc<str>, Arc<str>) = (key.into(), id.into(), field.into());
        self.write(scope, move |tx| index::increment(tx, &key, &id, &field, by))
    }

    fn index_delete(&self, key: &Key, id: &EntryId) -> Op<bool> {
        let scope = Scope::entry("index", key, id);
        let (key, id): (Arc<str>, Arc<str>) = (key.into(), id.into());
        self.write(scope, move |tx| index::delete(tx, &key, &id))
    }

    fn doc_save(&self, collection: &Collection, id: &DocId, doc: Json) -> Op<()> {
        if let Err(error) = json::parse_object("doc", &doc) {
            return self.failed(error);
        }
        let scope = Scope::entry("doc", collection, id);
        let (collection, id): (Arc<str>, Arc<str>) = (collection.into(), id.into());
        self.write(scope, move |tx| docs::save(tx, &collection, &id, &doc))
    }

    fn doc_get(&self, collection: &Collection, id: &DocId) -> Op<Option<Json>> {
        let scope = Scope::entry("doc", collection, id);
        let (collection, id): (Arc<str>, Arc<str>) = (collection.into(), id.into());
        self.point(scope, move |view| docs::get(view, &collection, &id))
    }

    fn doc_list(&self, collection: &Collection, query: DocQuery) -> Op<Vec<(Arc<str>, Json)>> {
        let scope = Scope::collection("doc", collection);
        let collection: Arc<str> = collection.into();
        self.read_view(scope, Extent::Range, move |view, budget| docs::list(view, &collection, &query, budget))
    }

    fn doc_delete(&self, collection: &Collection, id: &DocId) -> Op<()> {
        let scope = Scope::entry("doc", collection, id);
        let (collection, id): (Arc<str>, Arc<str>) = (collection.into(), id.into());
        self.write(scope, move |tx| docs::delete(tx, &collection, &id))
    }
}

impl FileStore {
    /// Ends when everything that was called for before has ended; then `then` is called, before what comes later.
    fn barrier(&self, then: impl FnOnce() + Send + 'static) -> Op<()> {
        let engine = match self.engine() {
            Ok(engine) => engine,
            Err(error) => return self.failed(error),
        };
        let (completer, completion) = completion(gone);
        let job = self.job(false, move |tx| {
            // A store that could not be opened has no turn to give.
            let result: Result<(), Error> = within(tx, |_| Ok(()));
            Step::Done(Box::new(move |_| {
                if result.is_ok() {
                    then();
                }
                completer.complete(result);
            }))
        });
        self.queue(&engine, Scope::Nothing, job, completion)
    }
}
