//! The contract of stores, on Redis: arguments in, one command or script, its reply out.

use std::collections::BTreeMap;
use std::ops::ControlFlow::{Break, Continue};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, Weak};

use ::redis::{Cmd, Value, cmd};
use serde_json::Number;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::calls::{Calls, Counters, MAX_ROWS, decimal, flag, ignore, number};
use super::claims::RedisClaims;
use super::config::{RedisStoreOptions, Trim};
use super::consumer::Consumers;
use super::keys::Keys;
use super::tail::Tailers;
use super::{feed, scripts, text};
use crate::error::{Error, Result};
use crate::event::{Event, EventId, NewEvent};
use crate::fanout::Mailbox;
use crate::json::{self, Filter, Json, Object};
use crate::metrics::{APPEND, Histogram};
use crate::name::{Collection, ConsumerName, DocId, EntryId, FieldPath, Key, Pattern, Subject};
use crate::op::Op;
use crate::redis::{Client, Request, client, reply};
use crate::store::{
    Announce, Claims, ConsumerChange, ConsumerInfo, ConsumerState, DocQuery, EventQuery, Expected, FeedFollower,
    FeedPage, FeedQuery, Health, IndexEntry, IndexQuery, KeptValue, Lease, ParkedEvent, Position, SUBJECT_PAGE, Stats,
    StoreBackend, Stored, SubjectPage, ValuePage, select_docs,
};
use crate::sync::write;
use crate::time::SharedClock;
use crate::topic::Glob;

/// A store on a Redis server.
pub struct RedisStore {
    pub(super) client: Arc<Client>,
    pub(super) tailers: Tailers,
    pub(super) keys: Keys,
    pub(super) claims: RedisClaims,
    /// Who appends, for the feed.
    pub(super) instance: RwLock<Option<Arc<str>>>,
    pub(super) trim: Trim,
    pub(super) clock: SharedClock,
    pub(super) runtime: Handle,
    pub(super) feed_max_len: u64,
    pub(super) calls: Calls,
    pub(super) append_seconds: Arc<Histogram>,
}

impl RedisStore {
    /// Returns a store whose connections are driven by `runtime`. It connects with the first call.
    pub fn new(options: RedisStoreOptions, runtime: Handle) -> Self {
        let config = Arc::new(options.connection);
        let keys = Keys::new(&options.prefix);
        let client = Arc::new(Client::new(config.clone(), scripts::all(), "the Redis store", &runtime));
        let tailers = Tailers::new(config, client.clone(), &keys, options.feed_max_len, &runtime);
        let claims = RedisClaims::new(client.clone(), keys.clone());
        let calls = Calls::new(client.clone());
        Self {
            client,
            tailers,
            keys,
            claims,
            instance: RwLock::default(),
            trim: options.trim,
            clock: options.clock,
            runtime,
            feed_max_len: options.feed_max_len,
            calls,
            append_seconds: APPEND.with(&["redis"]),
        }
    }

    fn consumers(&self) -> Consumers {
        Consumers::new(self.client.clone(), self.keys.clone(), self.tailers.released(), self.runtime.clone())
    }

    /// Returns a page of the keys of a type that match.
    fn scan(
        &self,
        operation: &'static str,
        kind: &'static str,
        pattern: &Pattern,
        cursor: Option<&str>,
    ) -> Op<SubjectPage> {
        let cursor = cursor.unwrap_or("0");
        if cursor.parse::<u64>().is_err() {
            return Op::err(Error::invalid(format!("cursor: {cursor:?} is none that this store returned")));
        }
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(pattern.as_str()).arg("COUNT").arg(SUBJECT_PAGE).arg("TYPE").arg(kind);
        let keys = self.keys.clone();
        self.calls.read(Request::read(operation, scan), move |value| match value {
            Value::Array(page) if page.len() == 2 => {
                let mut page = page.into_iter();
                let cursor = page.next().map(reply::text).transpose()?.filter(|cursor| cursor != "0");
                let Some(Value::Array(names)) = page.next() else { return Ok(SubjectPage::default()) };
                let names = names.into_iter().map(reply::text).collect::<Result<Vec<_>>>()?;
                let subjects = names.into_iter().filter(|name| keys.check("subject", name).is_ok());
                Ok(SubjectPage { subjects: subjects.map(Arc::from).collect(), cursor: cursor.map(Arc::from) })
            }
            _ => Err(Error::corrupt("SCAN: an unexpected reply")),
        })
    }
}

impl StoreBackend for RedisStore {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn open(&self) -> Op<()> {
        self.calls.send(Request::read("PING", cmd("PING")), ignore)
    }

    fn close(&self) -> Op<()> {
        let (tailers, client) = (self.tailers.close(), self.client.close());
        Op::pending(async move {
            tailers.await?;
            client.await
        })
    }

    fn health(&self) -> Op<Health> {
        client::health(&self.client).map(|(ok, detail)| Health { ok, detail: Some(detail) })
    }

    fn stats(&self) -> Stats {
        let Counters { appends, reads, writes, errors } = &self.calls.counters;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        vec![
            ("appends", count(appends)),
            ("reads", count(reads)),
            ("writes", count(writes)),
            ("errors", count(errors)),
            ("pending", self.client.pending() as f64),
            ("reconnects", self.client.reconnects() as f64),
        ]
    }

    fn append(
        &self,
        subject: &Subject,
        event: NewEvent,
        expected: Option<Expected>,
        announce: Option<Announce>,
    ) -> Op<Event> {
        self.append_event(subject, event, expected, announce)
    }

    fn read(&self, subject: &Subject, query: EventQuery) -> Op<Vec<Json>> {
        let nothing = query.limit == Some(0)
            || query.after == Some(EventId { ms: u64::MAX, seq: u64::MAX })
            || query.before == Some(EventId::default());
        if nothing {
            return Op::ok(Vec::new());
        }
        self.events(subject, query)
    }

    fn subscribe(&self, pattern: &Pattern, mailbox: Arc<Mailbox<Stored>>) -> Op<u64> {
        self.tailers.subscribe(pattern, mailbox)
    }

    fn unsubscribe(&self, id: u64) -> Op<()> {
        self.tailers.unsubscribe(id);
        Op::ok(())
    }

    fn feed_read(&self, query: FeedQuery) -> Op<FeedPage> {
        self.calls.counters.reads.fetch_add(1, Ordering::Relaxed);
        self.tailers.feed().read(query)
    }

    fn feed_head(&self) -> Op<Option<Position>> {
        self.calls.counters.reads.fetch_add(1, Ordering::Relaxed);
        self.tailers.feed().head().map(|head| (head.position.seq > 0).then(|| head.position.into()))
    }

    fn feed_watch(&self) -> Result<watch::Receiver<u64>> {
        if self.client.is_closed() {
            return Err(Error::closed("the Redis store"));
        }
        Ok(self.tailers.watch())
    }

    fn feed_follow(&self, consumer: &ConsumerName, follower: Weak<dyn FeedFollower>) -> Result<()> {
        if self.client.is_closed() {
            return Err(Error::closed("the Redis store"));
        }
        self.tailers.follow(consumer, follower);
        Ok(())
    }

    fn feed_number(&self, position: &Position) -> Result<u64> {
        Ok(feed::parse_position(position)?.seq)
    }

    fn import_event(&self, subject: &Subject, event: Event) -> Op<bool> {
        self.import(subject, event)
    }

    fn consumer_acquire(&self, name: &ConsumerName) -> Op<Lease> {
        self.tailers.listen();
        self.consumers().acquire(name)
    }

    fn consumer_try_acquire(&self, name: &ConsumerName) -> Op<Option<Lease>> {
        self.tailers.listen();
        let (consumers, name) = (self.consumers(), Arc::<str>::from(name));
        Op::pending(async move { Ok(consumers.try_acquire(&name).await?.ok()) })
    }

    fn consumer_load(&self, name: &ConsumerName) -> Op<Option<ConsumerState>> {
        self.consumers().load(name)
    }

    fn consumer_save(&self, name: &ConsumerName, lease: &Lease, change: ConsumerChange) -> Op<()> {
        self.consumers().save(name, lease, change)
    }

    fn consumer_list(&self) -> Op<Vec<ConsumerInfo>> {
        self.consumers().list()
    }

    fn consumer_delete(&self, name: &ConsumerName) -> Op<bool> {
        self.consumers().delete(name)
    }

    fn consumer_parked(&self, name: &ConsumerName, after: Option<Position>, limit: usize) -> Op<Vec<ParkedEvent>> {
        self.consumers().parked(name, after, limit)
    }

    fn consumer_request_replay(&self, name: &ConsumerName, positions: Option<Vec<Position>>) -> Op<u64> {
        self.consumers().request_replay(name, positions)
    }

    fn consumer_replays(&self, name: &ConsumerName) -> Op<Vec<Position>> {
        self.consumers().replays(name)
    }

    fn delete_subject(&self, subject: &Subject) -> Op<bool> {
        if let Err(error) = self.keys.check("subject", subject) {
            return Op::err(error);
        }
        let call = scripts::DELETE_SUBJECT.call(&[subject, &self.keys.deleted(subject), &self.keys.claims(subject)]);
        self.calls.write(Request::write("delete", call).of(&scripts::DELETE_SUBJECT), flag)
    }

    fn set_instance(&self, instance: &str) {
        *write(&self.instance) = Some(instance.into());
    }

    fn claims(&self) -> Option<&dyn Claims> {
        Some(&self.claims)
    }

    fn subjects(&self, pattern: &Pattern, cursor: Option<&str>) -> Op<SubjectPage> {
        self.scan("subjects", "stream", pattern, cursor)
    }

    fn index_keys(&self, pattern: &Pattern, cursor: Option<&str>) -> Op<SubjectPage> {
        self.scan("index.keys", "zset", pattern, cursor)
    }

    fn kv_page(&self, cursor: Option<&str>) -> Op<ValuePage> {
        let mut call = scripts::KV_PAGE.call(&[&self.keys.kv()]);
        call.arg(cursor.unwrap_or("0"));
        let now = self.clock.now_ms();
        self.calls.read(Request::read("kv.page", call).of(&scripts::KV_PAGE), move |value| {
            let mut page = reply::list(value)?.into_iter();
            let cursor = page.next().map(reply::text).transpose()?.filter(|cursor| cursor != "0");
            let mut found = page.next().map(reply::list).transpose()?.unwrap_or_default().into_iter();
            let mut values = Vec::new();
            while let (Some(key), Some(text), Some(ttl)) = (found.next(), found.next(), found.next()) {
                let expires_at = u64::try_from(reply::int(ttl)?).ok().map(|ttl| now.saturating_add(ttl));
                let value = text::to_json(&reply::text(text)?).into();
                values.push(KeptValue { key: reply::text(key)?.into(), expires_at, value });
            }
            Ok(ValuePage { values, cursor: cursor.map(Arc::from) })
        })
    }

    fn kv_get(&self, key: &Key) -> Op<Option<Json>> {
        self.calls.read(Request::read("kv.get", cmd("GET").arg(key.as_str()).take()), |value| {
            Ok(reply::optional_text(value)?.map(|text| text::to_json(&text).into()))
        })
    }

    fn kv_set(&self, key: &Key, value: Json, ttl_ms: Option<u64>) -> Op<()> {
        if let Err(error) = self.keys.check("key", key) {
            return Op::err(error);
        }
        let mut call = scripts::KV_SET.call(&[key, &self.keys.kv()]);
        call.arg(&*text::to_text(&value)).arg(ttl_ms.map_or_else(String::new, |ms| ms.max(1).to_string()));
        self.calls.write_named(format!("key {key:?}"), Request::write("kv.set", call).of(&scripts::KV_SET), ignore)
    }

    fn kv_delete(&self, key: &Key) -> Op<()> {
        if let Err(error) = self.keys.check("key", key) {
            return Op::err(error);
        }
        let call = scripts::KV_DELETE.call(&[key, &self.keys.kv()]);
        self.calls.write(Request::write("kv.delete", call).of(&scripts::KV_DELETE), ignore)
    }

    fn kv_clear(&self, pattern: &Pattern) -> Op<u64> {
        let mut call = scripts::KV_CLEAR.call(&[&self.keys.kv()]);
        call.arg(pattern.as_str()).arg(if Glob::new(pattern).literal_prefix().is_empty() { "0" } else { "1" });
        self.calls.write(Request::write("kv.clear", call).of(&scripts::KV_CLEAR), |value| {
            reply::int(value).map(|n| u64::try_from(n).unwrap_or(0))
        })
    }

    fn kv_increment(&self, key: &Key, by: f64) -> Op<Number> {
        if let Err(error) = self.keys.check("key", key) {
            return Op::err(error);
        }
        let mut call = scripts::KV_INCREMENT.call(&[key, &self.keys.kv()]);
        call.arg(decimal(by));
        self.calls.write_named(
            format!("key {key:?}"),
            Request::write("kv.increment", call).of(&scripts::KV_INCREMENT),
            |sum| number(&reply::text(sum)?),
        )
    }

    fn index_add(&self, key: &Key, id: &EntryId, score: f64, metadata: Object) -> Op<()> {
        match json::fresh_metadata(metadata) {
            Ok(metadata) => self.add_entry(key, id, score, metadata),
            Err(error) => Op::err(error),
        }
    }

    fn import_entry(&self, key: &Key, id: &EntryId, score: f64, metadata: Object) -> Op<()> {
        self.add_entry(key, id, score, metadata)
    }

    fn index_get(&self, key: &Key, id: &EntryId) -> Op<Option<IndexEntry>> {
        self.entry(key, id)
    }

    fn index_read(&self, key: &Key, query: IndexQuery) -> Op<Vec<IndexEntry>> {
        self.entries(key, query)
    }

    fn index_count(&self, key: &Key, filter: Filter) -> Op<u64> {
        if filter.is_empty() {
            let count = Request::read("index.count", cmd("ZCARD").arg(key.as_str()).take());
            return self.calls.read(count, |value| reply::int(value).map(|n| u64::try_from(n).unwrap_or(0)));
        }
        self.count_entries(key, filter)
    }

    fn index_update(&self, key: &Key, id: &EntryId, patch: Object, expected_version: Option<i64>) -> Op<bool> {
        self.update_entry(key, id, patch, expected_version)
    }

    fn index_increment(&self, key: &Key, id: &EntryId, field: &FieldPath, by: f64) -> Op<Number> {
        self.increment_field(key, id, field, by)
    }

    fn index_delete(&self, key: &Key, id: &EntryId) -> Op<bool> {
        if let Err(error) = self.keys.check_index(key) {
            return Op::err(error);
        }
        let mut call = scripts::INDEX_DELETE.call(&[key, &Keys::meta(key, id)]);
        call.arg(id.as_str());
        self.calls.write(Request::write("index.delete", call).of(&scripts::INDEX_DELETE), flag)
    }

    fn doc_save(&self, collection: &Collection, id: &DocId, doc: Json) -> Op<()> {
        // The other backends, and every read with a filter, look into documents.
        if let Err(error) = json::parse_object("doc", &doc) {
            return Op::err(error);
        }
        let set = document("HSET", &self.keys, collection).arg(id.as_str()).arg(&*doc).take();
        self.calls.write(Request::write("save", set), ignore)
    }

    fn doc_get(&self, collection: &Collection, id: &DocId) -> Op<Option<Json>> {
        let get = document("HGET", &self.keys, collection).arg(id.as_str()).take();
        let what = format!("document {id:?} of collection {collection:?}");
        self.calls.read(Request::read("get", get), move |value| {
            let Some(text) = reply::optional_text(value)? else { return Ok(None) };
            // Another program may have written it.
            if !text::is_json(&text) {
                return Err(Error::corrupt(format!("{what} is no JSON")));
            }
            Ok(Some(text.into()))
        })
    }

    fn doc_list(&self, collection: &Collection, query: DocQuery) -> Op<Vec<(Arc<str>, Json)>> {
        let scan = document("HSCAN", &self.keys, collection);
        let page =
            move |cursor: &str| Request::read("list", scan.clone().arg(cursor).arg("COUNT").arg(MAX_ROWS).take());
        let mut documents = BTreeMap::new();
        self.calls.read_pages(page("0"), move |value| {
            let mut reply = reply::list(value)?.into_iter();
            let cursor = reply.next().map(reply::text).transpose()?.unwrap_or_default();
            // One that is there all the time comes once or more often.
            documents.extend(reply.next().map(reply::pairs).transpose()?.unwrap_or_default());
            Ok(match cursor.as_str() {
                "0" => Break(page_of_documents(&documents, &query)?),
                cursor => Continue(page(cursor)),
            })
        })
    }

    fn doc_delete(&self, collection: &Collection, id: &DocId) -> Op<()> {
        let delete = document("HDEL", &self.keys, collection).arg(id.as_str()).take();
        self.calls.write(Request::write("delete", delete), ignore)
    }
}

fn document(command: &str, keys: &Keys, collection: &str) -> Cmd {
    cmd(command).arg(keys.documents(collection)).take()
}

/// Returns the page of documents that a query selects.
fn page_of_documents(documents: &BTreeMap<String, String>, query: &DocQuery) -> Result<Vec<(Arc<str>, Json)>> {
    let parse = |(id, doc): (&String, &String)| {
        let what = format!("document {id:?}");
        json::parse_object(&what, doc).map_err(|error| Error::corrupt(error.message()))
    };
    let parsed = documents.iter().map(parse).collect::<Result<Vec<_>>>()?;
    let rows = documents.iter().zip(&parsed).map(|((id, doc), object)| (id.as_str(), object, doc.as_str()));
    Ok(select_docs(rows, query).into_iter().map(|(id, doc)| (id.into(), doc.into())).collect())
}
