//! The calls of a store on Redis: arguments in, one command or script, its reply out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Instant;

use ::redis::{Cmd, Value, cmd};
use serde_json::Number;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::claims::RedisClaims;
use super::config::{RedisStoreOptions, Trim};
use super::consumer::Consumers;
use super::feed;
use super::keys::Keys;
use super::page::{Fields, Page};
use super::tail::Tailers;
use super::{metadata, record, scripts, text};
use crate::error::{Code, Error, Result};
use crate::event::{Event, EventId, NewEvent};
use crate::fanout::Mailbox;
use crate::json::{self, Filter, Json, Object, to_json};
use crate::metrics::{APPEND, Histogram};
use crate::name::{Collection, ConsumerName, DocId, EntryId, FieldPath, Key, Pattern, Subject};
use crate::op::{Op, completion};
use crate::redis::client::{self, unanswered};
use crate::redis::{Client, Request, reply};
use crate::store::{
    Announce, Claims, ConsumerChange, ConsumerInfo, ConsumerState, DocQuery, EventQuery, Expected, FeedPage, FeedQuery,
    Health, IndexEntry, IndexQuery, Lease, ParkedEvent, Position, SUBJECT_PAGE, Stats, StoreBackend, Stored,
    SubjectPage, ValuePage, entry_not_found, out_of_order, select_docs,
};
use crate::sync::{read, write};
use crate::time::SharedClock;
use crate::topic::Glob;

/// A subject of a run that is not over keeps this many times as many events as others.
const MAX_RUN_FACTOR: u64 = 10;

#[derive(Default)]
struct Counters {
    appends: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    errors: Arc<AtomicU64>,
}

/// A store on a Redis server.
pub struct RedisStore {
    client: Arc<Client>,
    tailers: Tailers,
    keys: Keys,
    claims: RedisClaims,
    /// Who appends, for the feed.
    instance: RwLock<Option<Arc<str>>>,
    trim: Trim,
    clock: SharedClock,
    runtime: Handle,
    feed_max_len: u64,
    counters: Counters,
    append_seconds: Arc<Histogram>,
}

impl RedisStore {
    /// Returns a store whose connections are driven by `runtime`. It connects with the first call.
    pub fn new(options: RedisStoreOptions, runtime: Handle) -> Self {
        let config = Arc::new(options.connection);
        let keys = Keys::new(&options.prefix);
        let client = Arc::new(Client::new(config.clone(), scripts::all(), "the Redis store", &runtime));
        let tailers = Tailers::new(config, client.clone(), &keys, options.feed_max_len, &runtime);
        let claims = RedisClaims::new(client.clone(), keys.clone());
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
            counters: Counters::default(),
            append_seconds: APPEND.with(&["redis"]),
        }
    }

    fn consumers(&self) -> Consumers {
        Consumers::new(self.client.clone(), self.keys.clone(), self.tailers.released(), self.runtime.clone())
    }

    /// Sends a request and counts its errors.
    fn call<T: Send + 'static>(
        &self,
        request: Request,
        convert: impl FnOnce(Value) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        let errors = self.counters.errors.clone();
        let (completer, completion) = completion(unanswered);
        self.client.submit(request, move |result| {
            completer.complete(result.and_then(convert).inspect_err(|_| _ = errors.fetch_add(1, Ordering::Relaxed)));
        });
        completion.into_op()
    }

    fn read_call<T: Send + 'static>(
        &self,
        request: Request,
        convert: impl FnOnce(Value) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        self.counters.reads.fetch_add(1, Ordering::Relaxed);
        self.call(request, convert)
    }

    /// A write whose errors of type and value name what it was about.
    fn named_write_call<T: Send + 'static>(
        &self,
        name: String,
        request: Request,
        convert: impl FnOnce(Value) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        self.counters.writes.fetch_add(1, Ordering::Relaxed);
        let errors = self.counters.errors.clone();
        let (completer, completion) = completion(unanswered);
        self.client.submit(request, move |result| {
            let result = result.map_err(|error| about(&name, error)).and_then(convert);
            completer.complete(result.inspect_err(|_| _ = errors.fetch_add(1, Ordering::Relaxed)));
        });
        completion.into_op()
    }

    fn write_call<T: Send + 'static>(
        &self,
        request: Request,
        convert: impl FnOnce(Value) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        self.counters.writes.fetch_add(1, Ordering::Relaxed);
        self.call(request, convert)
    }
}

/// Names the key in an error that is about what it holds.
fn about(name: &str, error: Error) -> Error {
    match error.code() {
        Code::Type => Error::wrong_type(format!("{name}: {}", error.message())),
        Code::Invalid => Error::invalid(format!("{name}: {}", error.message())),
        _ => error,
    }
}

fn ignore(_: Value) -> Result<()> {
    Ok(())
}

fn flag(value: Value) -> Result<bool> {
    reply::int(value).map(|n| n != 0)
}

fn number(text: &str) -> Result<Number> {
    let unexpected = || Error::corrupt(format!("Redis sent {text:?} where a number was expected"));
    json::number(text.parse().map_err(|_| unexpected())?)
}

/// Returns a number as text that parses to the same number; whole numbers have no fraction.
fn decimal(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e15 && (number != 0.0 || number.is_sign_positive()) {
        return (number as i64).to_string();
    }
    format!("{number:?}")
}

fn index_entry(id: &str, score: &str, fields: Vec<(String, String)>) -> Result<IndexEntry> {
    let score = score.parse().map_err(|_| Error::corrupt(format!("Redis sent the score {score:?}")))?;
    Ok(IndexEntry { id: id.into(), score, metadata: to_json(&metadata::assemble(fields)) })
}

/// Converts a reply of `index_read.lua`.
fn index_entries(value: Value) -> Result<Vec<IndexEntry>> {
    let text = reply::text(value)?;
    let Page(rows) =
        serde_json::from_str(&text).map_err(|e| Error::corrupt(format!("Redis sent unexpected entries: {e}")))?;
    rows.into_iter().map(|(id, score, Fields(fields))| index_entry(&id, &score, fields)).collect()
}

impl RedisStore {
    /// Adds or replaces an entry, with the metadata as it is.
    fn add_entry(&self, key: &Key, id: &EntryId, score: f64, metadata: Object) -> Op<()> {
        if let Err(error) = self.keys.check_index(key) {
            return Op::err(error);
        }
        let (key, id) = (key.as_str().to_owned(), id.as_str().to_owned());
        let name = format!("entry {id:?} of index {key:?}");
        let request = Request::write_built("index.add", move || {
            let mut call = scripts::INDEX_ADD.call(&[&key, &Keys::meta(&key, &id)]);
            call.arg(&id).arg(decimal(score));
            let fields = metadata::flatten(&metadata);
            metadata::check_fields("metadata", fields.len())?;
            for (path, text) in fields {
                call.arg(path).arg(text);
            }
            Ok(call)
        });
        self.named_write_call(name, request.of(&scripts::INDEX_ADD), ignore)
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
        self.read_call(Request::read(operation, scan), move |value| match value {
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

/// How an append treats its subject when it is trimmed: what `append.lua` takes.
fn role_of(event: &NewEvent) -> &'static str {
    match event.kind() {
        // A run that has failed can be retried, which needs its beginning.
        "flow.completed" | "flow.cancel" => "end",
        _ if event.run_id().is_some() => "run",
        _ => "",
    }
}

impl StoreBackend for RedisStore {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn open(&self) -> Op<()> {
        self.call(Request::read("PING", cmd("PING")), ignore)
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
        let Counters { appends, reads, writes, errors } = &self.counters;
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
        if let Err(error) = self.keys.check("subject", subject) {
            return Op::err(error);
        }
        self.counters.appends.fetch_add(1, Ordering::Relaxed);
        let ts = self.clock.now_ms();
        let (subject, keys, trim) = (Arc::<str>::from(subject), self.keys.clone(), self.trim);
        let (to, new, feed_max_len) = (subject.clone(), event.clone(), self.feed_max_len);
        let instance = read(&self.instance).clone();
        let request = Request::write_built("append", move || {
            let mut call = scripts::APPEND.call(&[&to, &keys.deleted(&to), &keys.feed(), &keys.feed_state()]);
            call.arg(match expected {
                None => String::new(),
                Some(Expected::Empty) => "empty".into(),
                Some(Expected::Last(id)) => id.to_string(),
            });
            call.arg(trim.max_len.map_or_else(String::new, |n| n.to_string()));
            call.arg(if trim.approx { "~" } else { "=" }).arg(keys.appended());
            call.arg(feed_max_len).arg(new.kind()).arg(role_of(&new));
            call.arg(trim.max_len.unwrap_or_default().saturating_mul(MAX_RUN_FACTOR))
                .arg(instance.as_deref().unwrap_or(""));
            for (name, text) in record::fields(&new, ts)? {
                call.arg(name).arg(text);
            }
            Ok(call)
        });
        // Runs where replies are read, one after the other: in the order of storage, before the append resolves.
        let (to, own) = (subject.clone(), self.tailers.own_append());
        let (append_seconds, started) = (self.append_seconds.clone(), Instant::now());
        let stored = move |text: String| {
            let (id, position) = text.split_once(' ').unwrap_or((&text, ""));
            let event = event.persist(id.parse()?, ts);
            own.stored(position.parse()?, &to, &event);
            if let Some(announce) = announce {
                announce(&to, &event);
            }
            append_seconds.observe_since(started);
            Ok(event)
        };
        let convert = move |value| match value {
            Value::Array(mut values) if values.len() == 2 => {
                tracing::warn!(
                    code = "NVENT_RUN_TRIMMED",
                    subject = &*subject,
                    "a run has more events than are kept: its first events were trimmed, and it may not end"
                );
                stored(reply::text(values.swap_remove(0))?)
            }
            Value::Array(last) => {
                let last = last.into_iter().next().map(reply::text).transpose()?.filter(|last| !last.is_empty());
                let last = last.map(|last| last.parse()).transpose()?;
                expected.unwrap_or(Expected::Empty).check(&subject, last)?;
                Err(Error::corrupt("Redis reported a conflict where the subject ends as expected"))
            }
            id => stored(reply::text(id)?),
        };
        self.call(request.of(&scripts::APPEND), convert)
    }

    fn read(&self, subject: &Subject, query: EventQuery) -> Op<Vec<Json>> {
        let nothing = query.limit == Some(0)
            || query.after == Some(EventId { ms: u64::MAX, seq: u64::MAX })
            || query.before == Some(EventId::default());
        if nothing {
            return Op::ok(Vec::new());
        }
        let first = query.after.map_or_else(|| "-".to_owned(), |id| format!("({id}"));
        let last = query.before.map_or_else(|| "+".to_owned(), |id| format!("({id}"));
        let limit = query.limit.map(|n| n.to_string());
        if query.types.is_none() && query.from.is_none() && query.to.is_none() {
            let mut range = match query.descending {
                true => cmd("XREVRANGE").arg(subject.as_str()).arg(last).arg(first).take(),
                false => cmd("XRANGE").arg(subject.as_str()).arg(first).arg(last).take(),
            };
            if let Some(limit) = limit {
                range.arg("COUNT").arg(limit);
            }
            return self.read_call(Request::read("read", range), record::records);
        }
        let bound = |bound: Option<f64>| bound.map_or_else(String::new, decimal);
        let mut call = scripts::READ.call(&[subject]);
        call.arg(first).arg(last).arg(limit.unwrap_or_default());
        call.arg(if query.descending { "desc" } else { "asc" }).arg(bound(query.from)).arg(bound(query.to));
        if let Some(types) = query.types {
            if types.is_empty() {
                return Op::ok(Vec::new());
            }
            for kind in types {
                // As this store writes it, and as other writers do.
                call.arg(&*text::to_text(&to_json(&kind))).arg(kind);
            }
        }
        self.read_call(Request::read("read", call).of(&scripts::READ), record::records)
    }

    fn subscribe(&self, pattern: &Pattern, mailbox: Arc<Mailbox<Stored>>) -> Op<u64> {
        self.tailers.subscribe(pattern, mailbox)
    }

    fn unsubscribe(&self, id: u64) -> Op<()> {
        self.tailers.unsubscribe(id);
        Op::ok(())
    }

    fn feed_read(&self, query: FeedQuery) -> Op<FeedPage> {
        self.counters.reads.fetch_add(1, Ordering::Relaxed);
        self.tailers.feed().read(query)
    }

    fn feed_head(&self) -> Op<Option<Position>> {
        self.counters.reads.fetch_add(1, Ordering::Relaxed);
        self.tailers.feed().head().map(|head| (head.position.seq > 0).then(|| head.position.into()))
    }

    fn feed_watch(&self) -> Result<watch::Receiver<u64>> {
        if self.client.is_closed() {
            return Err(Error::closed("the Redis store"));
        }
        Ok(self.tailers.watch())
    }

    fn feed_number(&self, position: &Position) -> Result<u64> {
        Ok(feed::parse_position(position)?.seq)
    }

    fn import_event(&self, subject: &Subject, event: Event) -> Op<bool> {
        if let Err(error) = self.keys.check("subject", subject) {
            return Op::err(error);
        }
        let import = || {
            let id: EventId = event.id().parse()?;
            let ts: json::Object = json::parse_object("event", event.json())?;
            let ts = ts.get("ts").and_then(serde_json::Value::as_u64).unwrap_or(id.ms);
            let (keys, new) = (&self.keys, NewEvent::parse(event.json())?);
            let mut call = scripts::IMPORT.call(&[subject, &keys.feed(), &keys.feed_state()]);
            call.arg(id.to_string()).arg(self.feed_max_len).arg(keys.appended()).arg(new.kind());
            for (name, text) in record::fields(&new, ts)? {
                call.arg(name).arg(text);
            }
            Ok((id, Request::write("import", call).of(&scripts::IMPORT)))
        };
        let (id, request) = match import() {
            Ok(import) => import,
            Err(error) => return Op::err(error),
        };
        let subject = Arc::<str>::from(subject);
        self.client.call(request, move |value| match value {
            Value::Int(added) => Ok(added == 1),
            last => {
                let last: EventId = reply::text(last)?.parse()?;
                Err(out_of_order(&subject, id, last))
            }
        })
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
        self.write_call(Request::write("delete", call).of(&scripts::DELETE_SUBJECT), flag)
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
        self.read_call(Request::read("kv.page", call).of(&scripts::KV_PAGE), move |value| {
            let mut page = reply::list(value)?.into_iter();
            let cursor = page.next().map(reply::text).transpose()?.filter(|cursor| cursor != "0");
            let mut found = page.next().map(reply::list).transpose()?.unwrap_or_default().into_iter();
            let mut values = Vec::new();
            while let (Some(key), Some(text), Some(ttl)) = (found.next(), found.next(), found.next()) {
                let expires = u64::try_from(reply::int(ttl)?).ok().map(|ttl| now.saturating_add(ttl));
                values.push((reply::text(key)?.into(), text::to_json(&reply::text(text)?).into(), expires));
            }
            Ok(ValuePage { values, cursor: cursor.map(Arc::from) })
        })
    }

    fn kv_get(&self, key: &Key) -> Op<Option<Json>> {
        self.read_call(Request::read("kv.get", cmd("GET").arg(key.as_str()).take()), |value| {
            Ok(reply::optional_text(value)?.map(|text| text::to_json(&text).into()))
        })
    }

    fn kv_set(&self, key: &Key, value: Json, ttl_ms: Option<u64>) -> Op<()> {
        if let Err(error) = self.keys.check("key", key) {
            return Op::err(error);
        }
        let mut call = scripts::KV_SET.call(&[key, &self.keys.kv()]);
        call.arg(&*text::to_text(&value)).arg(ttl_ms.map_or_else(String::new, |ms| ms.max(1).to_string()));
        self.named_write_call(format!("key {key:?}"), Request::write("kv.set", call).of(&scripts::KV_SET), ignore)
    }

    fn kv_delete(&self, key: &Key) -> Op<()> {
        if let Err(error) = self.keys.check("key", key) {
            return Op::err(error);
        }
        let call = scripts::KV_DELETE.call(&[key, &self.keys.kv()]);
        self.write_call(Request::write("kv.delete", call).of(&scripts::KV_DELETE), ignore)
    }

    fn kv_clear(&self, pattern: &Pattern) -> Op<u64> {
        let mut call = scripts::KV_CLEAR.call(&[&self.keys.kv()]);
        call.arg(pattern.as_str()).arg(if Glob::new(pattern).literal_prefix().is_empty() { "0" } else { "1" });
        self.write_call(Request::write("kv.clear", call).of(&scripts::KV_CLEAR), |value| {
            reply::int(value).map(|n| u64::try_from(n).unwrap_or(0))
        })
    }

    fn kv_increment(&self, key: &Key, by: f64) -> Op<Number> {
        if let Err(error) = self.keys.check("key", key) {
            return Op::err(error);
        }
        let mut call = scripts::KV_INCREMENT.call(&[key, &self.keys.kv()]);
        call.arg(decimal(by));
        self.named_write_call(
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
        let mut call = scripts::INDEX_GET.call(&[key, &Keys::meta(key, id)]);
        call.arg(id.as_str());
        let id = id.as_str().to_owned();
        self.read_call(Request::read("index.get", call).of(&scripts::INDEX_GET), move |value| {
            let mut parts = reply::list(value)?.into_iter();
            let parts = parts.next().zip(parts.next());
            parts.map(|(score, fields)| index_entry(&id, &reply::text(score)?, reply::pairs(fields)?)).transpose()
        })
    }

    fn index_read(&self, key: &Key, query: IndexQuery) -> Op<Vec<IndexEntry>> {
        if query.limit == 0 {
            return Op::ok(Vec::new());
        }
        let (conditions, rest) = metadata::split_filter(&query.filter);
        // Conditions that the script cannot decide are applied here, and the page is cut after them.
        let (offset, limit) = if rest.is_empty() { (query.offset, query.limit) } else { (0, i32::MAX as usize) };
        let mut call = scripts::INDEX_READ.call(&[key]);
        call.arg(offset).arg(limit.min(i32::MAX as usize)).arg(&*to_json(&conditions));
        if let Some(place) = &query.after {
            call.arg(decimal(place.score)).arg(&*place.id);
        }
        self.read_call(Request::read("index.read", call).of(&scripts::INDEX_READ), move |value| {
            let entries = index_entries(value)?;
            if rest.is_empty() {
                return Ok(entries);
            }
            let mut found = Vec::new();
            for entry in entries {
                if rest.matches(&json::parse_object("metadata", &entry.metadata)?) {
                    found.push(entry);
                }
            }
            Ok(found.into_iter().skip(query.offset).take(query.limit).collect())
        })
    }

    fn index_count(&self, key: &Key, filter: Filter) -> Op<u64> {
        if filter.is_empty() {
            let count = Request::read("index.count", cmd("ZCARD").arg(key.as_str()).take());
            return self.read_call(count, |value| reply::int(value).map(|n| u64::try_from(n).unwrap_or(0)));
        }
        self.index_read(key, IndexQuery { after: None, offset: 0, limit: usize::MAX, filter })
            .map(|entries| entries.len() as u64)
    }

    fn index_update(&self, key: &Key, id: &EntryId, mut patch: Object, expected_version: Option<i64>) -> Op<bool> {
        if let Err(error) = self.keys.check_index(key) {
            return Op::err(error);
        }
        patch.shift_remove(json::VERSION);
        let (key, id) = (key.as_str().to_owned(), id.as_str().to_owned());
        let name = format!("entry {id:?} of index {key:?}");
        let request = Request::write_built("index.update", move || {
            let mut call = scripts::INDEX_UPDATE.call(&[&key, &Keys::meta(&key, &id)]);
            call.arg(&id).arg(expected_version.map_or_else(String::new, |version| version.to_string()));
            call.arg(metadata::MAX_FIELDS);
            let steps = metadata::steps(&patch);
            metadata::check_fields("patch", steps.len())?;
            for (kind, path, text) in steps {
                call.arg(kind).arg(path).arg(text);
            }
            Ok(call)
        });
        self.named_write_call(name, request.of(&scripts::INDEX_UPDATE), flag)
    }

    fn index_increment(&self, key: &Key, id: &EntryId, field: &FieldPath, by: f64) -> Op<Number> {
        if let Err(error) = self.keys.check_index(key) {
            return Op::err(error);
        }
        // The checks that depend on the arguments alone, applied to an empty entry.
        if let Err(error) = json::increment_metadata(&mut Object::new(), field, by) {
            return Op::err(error);
        }
        let mut call = scripts::INDEX_INCREMENT.call(&[key, &Keys::meta(key, id)]);
        call.arg(id.as_str()).arg(field.as_str()).arg(decimal(by)).arg(metadata::MAX_FIELDS);
        let name = format!("field {field:?} of entry {id:?} of index {key:?}");
        let (key, id) = (key.as_str().to_owned(), id.as_str().to_owned());
        self.named_write_call(name, Request::write("index.increment", call).of(&scripts::INDEX_INCREMENT), move |sum| {
            number(&reply::optional_text(sum)?.ok_or_else(|| entry_not_found(&key, &id))?)
        })
    }

    fn index_delete(&self, key: &Key, id: &EntryId) -> Op<bool> {
        if let Err(error) = self.keys.check_index(key) {
            return Op::err(error);
        }
        let mut call = scripts::INDEX_DELETE.call(&[key, &Keys::meta(key, id)]);
        call.arg(id.as_str());
        self.write_call(Request::write("index.delete", call).of(&scripts::INDEX_DELETE), flag)
    }

    fn doc_save(&self, collection: &Collection, id: &DocId, doc: Json) -> Op<()> {
        let set = document("HSET", &self.keys, collection).arg(id.as_str()).arg(&*doc).take();
        self.write_call(Request::write("save", set), ignore)
    }

    fn doc_get(&self, collection: &Collection, id: &DocId) -> Op<Option<Json>> {
        let get = document("HGET", &self.keys, collection).arg(id.as_str()).take();
        let what = format!("document {id:?} of collection {collection:?}");
        self.read_call(Request::read("get", get), move |value| {
            let Some(text) = reply::optional_text(value)? else { return Ok(None) };
            // Another program may have written it.
            if !text::is_json(&text) {
                return Err(Error::corrupt(format!("{what} is no JSON")));
            }
            Ok(Some(text.into()))
        })
    }

    fn doc_list(&self, collection: &Collection, query: DocQuery) -> Op<Vec<(Arc<str>, Json)>> {
        self.read_call(Request::read("list", document("HGETALL", &self.keys, collection)), move |value| {
            page_of_documents(reply::pairs(value)?, &query)
        })
    }

    fn doc_delete(&self, collection: &Collection, id: &DocId) -> Op<()> {
        let delete = document("HDEL", &self.keys, collection).arg(id.as_str()).take();
        self.write_call(Request::write("delete", delete), ignore)
    }
}

fn document(command: &str, keys: &Keys, collection: &str) -> Cmd {
    cmd(command).arg(keys.documents(collection)).take()
}

/// Returns the page of documents that a query selects.
fn page_of_documents(mut documents: Vec<(String, String)>, query: &DocQuery) -> Result<Vec<(Arc<str>, Json)>> {
    documents.sort_unstable();
    let parse = |(id, doc): &(String, String)| {
        let what = format!("document {id:?}");
        json::parse_object(&what, doc).map_err(|error| Error::corrupt(error.message()))
    };
    let parsed = documents.iter().map(parse).collect::<Result<Vec<_>>>()?;
    let rows = documents.iter().zip(&parsed).map(|((id, doc), object)| (id.as_str(), object, doc.as_str()));
    Ok(select_docs(rows, query).into_iter().map(|(id, doc)| (id.into(), doc.into())).collect())
}
