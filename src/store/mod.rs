//! Stores: one contract, one file or folder per backend.
//!
//! A store is pure storage. It knows no stream and no bus: an append takes an [`Announce`] callback, which is called
//! with each event in the order of storage.

mod claims;
pub mod consumer;
mod cursor;
mod feed;
pub mod file;
mod memory;
mod redis;

pub use claims::{Claim, Claims};
pub use consumer::{ConsumerChange, ConsumerFilter, ConsumerInfo, ConsumerState, Lease, ParkedEvent};
pub use cursor::{DocPlace, IndexPlace};
pub use feed::{Appended, FeedFollower, FeedPage, FeedQuery, FeedRecord, Origin, Position};
pub use memory::MemoryStore;
pub use redis::{RedisStore, RedisStoreOptions, Trim};

pub use crate::health::{Health, Stats};

use std::path::Path;
use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};
use serde_json::Number;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::event::{Event, EventId, NewEvent};
use crate::fanout::Mailbox;
use crate::json::{self, Filter, Json, Object, at_path};
use crate::name::{Collection, ConsumerName, DocId, EntryId, FieldPath, Key, Pattern, Subject};
use crate::op::Op;

/// Called with each stored event, in the order of its subject, before the append is acknowledged. It must not block.
pub type Announce = Arc<dyn Fn(&Arc<str>, &Event) + Send + Sync>;

/// A stored event as a store subscription delivers it.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Where it was stored.
    pub subject: Arc<str>,
    /// The record.
    pub event: Event,
}

/// What a subject must end with for an append to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The subject has no events.
    Empty,
    /// The id of the subject's last event.
    Last(EventId),
}

impl Expected {
    /// Returns [`crate::error::Code::Conflict`] unless the subject ends as expected.
    pub fn check(self, subject: &str, last: Option<EventId>) -> Result<()> {
        let wanted = match self {
            Self::Empty => None,
            Self::Last(id) => Some(id),
        };
        if wanted == last {
            return Ok(());
        }
        let show = |id: Option<EventId>| id.map_or("nothing".to_owned(), |id| id.to_string());
        Err(Error::new(
            crate::error::Code::Conflict,
            format!(
                "{subject:?} ends with {}, not with {} as expected: read what is new and decide again",
                show(last),
                show(wanted)
            ),
        ))
    }
}

/// Which events of a subject to read. The default is all, in order of append.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EventQuery {
    /// Only these types; None is any.
    pub types: Option<Vec<String>>,
    /// Only ids greater than this.
    pub after: Option<EventId>,
    /// Only ids less than this.
    pub before: Option<EventId>,
    /// Only times from this one on, in ms.
    pub from: Option<f64>,
    /// Only times up to this one, in ms.
    pub to: Option<f64>,
    /// Most records, after all filters.
    pub limit: Option<usize>,
    /// Newest first.
    #[serde(rename = "order", deserialize_with = "cursor::is_descending")]
    pub descending: bool,
}

/// Which entries of an index to read: highest score first, ties by id ascending.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct IndexQuery {
    /// Only entries after this place.
    #[serde(rename = "cursor")]
    pub after: Option<IndexPlace>,
    /// Matching entries to skip.
    pub offset: usize,
    /// Most rows.
    pub limit: usize,
    /// Which entries match.
    pub filter: Filter,
}

/// Entries of an index that are read unless a limit is given, as nvent does.
const DEFAULT_INDEX_LIMIT: usize = 50;

impl Default for IndexQuery {
    fn default() -> Self {
        Self { after: None, offset: 0, limit: DEFAULT_INDEX_LIMIT, filter: Filter::default() }
    }
}

/// An entry of an index.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexEntry {
    /// The entry's id.
    pub id: Arc<str>,
    /// The sort key.
    pub score: f64,
    /// Its metadata, a JSON object with `version` in it.
    pub metadata: Json,
}

/// Which documents of a collection to list: by id ascending unless `sort_by` says otherwise.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "cursor::ListOptions")]
pub struct DocQuery {
    /// Which documents match.
    pub filter: Filter,
    /// Only documents after this place.
    pub after: Option<DocPlace>,
    /// Matching documents to skip.
    pub offset: usize,
    /// Most rows.
    pub limit: Option<usize>,
    /// Dotted path of the field to sort by. A missing field sorts as null: null, booleans, numbers, text, the rest; ties by id.
    pub sort_by: Option<String>,
    /// Converts from the signed integers of SQLite.
    pub descending: bool,
}

/// A page of subjects. In memory and on file they come by name; on Redis in no order, and one may come twice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubjectPage {
    /// Names.
    pub subjects: Vec<Arc<str>>,
    /// For the next page. None: this is the last one. A page may be empty and not the last.
    pub cursor: Option<Arc<str>>,
}

/// Names that one page of subjects is taken from.
pub(crate) const SUBJECT_PAGE: usize = 1_000;

/// The result of [`Maintenance::verify`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verification {
    /// Rows that were read.
    pub rows: u64,
    /// What is wrong, in words. If it is empty, every page and every row is as it was written.
    pub problems: Vec<String>,
}

/// What an export consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportPart {
    /// Events of all subjects, in the order of the feed.
    Events,
    /// Live values of keys.
    Values,
    /// Entries of indexes.
    Entries,
    /// Documents.
    Documents,
}

impl ExportPart {
    /// All parts, in the order of an export.
    pub const ALL: [Self; 4] = [Self::Events, Self::Values, Self::Entries, Self::Documents];

    /// Returns its name, which positions begin with.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Values => "values",
            Self::Entries => "entries",
            Self::Documents => "documents",
        }
    }
}

/// A page of an export.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExportPage {
    /// A JSON object per line.
    pub lines: String,
    /// Number of lines.
    pub rows: u64,
    /// Where the next page begins. None: this is the last one.
    pub next: Option<u64>,
}

/// What an import has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Imported {
    /// Stored.
    pub added: u64,
    /// Events that were there, and values that have expired.
    pub skipped: u64,
}

/// What a store with files of its own can do.
pub trait Maintenance {
    /// Copies the store as it is at this moment into a new file, while it is in use. An existing file is not replaced. To
    /// restore, put the copy into an empty data directory under the name `nvent.db`.
    fn backup(&self, path: &Path) -> Op<()>;
    /// Reads every page and every row, and reports damage. It blocks no other call, and takes as long as reading the files does.
    fn verify(&self) -> Op<Verification>;
    /// Returns a page of a part, after a row, as lines of JSON.
    fn export(&self, part: ExportPart, after: u64, limit: usize) -> Op<ExportPage>;
    /// Stores lines of an export in one step. Events that are there by their id are skipped; other rows are replaced.
    fn import(&self, lines: String) -> Op<Imported>;
}

/// Where things are stored.
///
/// Every method starts its work before it returns, so calls take effect in the order in which they are made; each is
/// atomic. The first call opens the backend if [`StoreBackend::open`] has not. After [`StoreBackend::close`] every
/// method fails with [`crate::error::Code::Closed`], but for `close` and `unsubscribe`, which have nothing left to do,
/// and `health`, which says so. JSON texts were
/// checked by [`crate::json::check_depth`].
///
/// ```
/// use nvent_native::event::NewEvent;
/// use nvent_native::json::{Filter, Object};
/// use nvent_native::name::{EntryId, Key, Subject};
/// use nvent_native::store::{EventQuery, Expected, MemoryStore, StoreBackend};
/// use nvent_native::time::system_clock;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> nvent_native::Result<()> {
/// let store = MemoryStore::new(system_clock());
/// let subject = Subject::new("nq:flow:abc")?;
/// let start = NewEvent::parse(r#"{"type":"flow.start","runId":"abc"}"#)?;
///
/// // On the condition that the run has not been started before.
/// let first = store.append(subject, start.clone(), Some(Expected::Empty), None).await?;
/// let second = store.append(subject, start, Some(Expected::Empty), None).await;
/// assert_eq!(second.unwrap_err().code().as_str(), "NVENT_CONFLICT");
/// assert_eq!(*store.read(subject, EventQuery::default()).await?, [first.json().clone()]);
///
/// let (index, id) = (Key::new("nq:flows:order")?, EntryId::new("abc")?);
/// store.index_add(index, id, 1.0, Object::new()).await?;
/// assert_eq!(store.index_count(index, Filter::default()).await?, 1);
/// # Ok(())
/// # }
/// ```
pub trait StoreBackend: Send + Sync + 'static {
    /// Returns `memory`, `file` or `redis`.
    fn name(&self) -> &'static str;
    /// Opens it. Idempotent.
    fn open(&self) -> Op<()>;
    /// Closes it. Completes when everything is released. Idempotent.
    fn close(&self) -> Op<()>;
    /// Returns whether it is usable now.
    fn health(&self) -> Op<Health>;
    /// Returns the maintenance of its files, if it has any.
    fn maintenance(&self) -> Option<&dyn Maintenance> {
        None
    }
    /// Returns its claims. None: only one process can open it, so that no claims are needed.
    fn claims(&self) -> Option<&dyn Claims> {
        None
    }
    /// Returns its counters: `appends`, `reads`, `writes`, `errors`, and what it has of its own.
    fn stats(&self) -> Stats;

    /// Stores an event at the end of a subject. `announce` is called before the operation completes.
    fn append(
        &self,
        subject: &Subject,
        event: NewEvent,
        expected: Option<Expected>,
        announce: Option<Announce>,
    ) -> Op<Event>;
    /// Reads records of a subject, as JSON texts.
    fn read(&self, subject: &Subject, query: EventQuery) -> Op<Vec<Json>>;
    /// Delivers what is appended from now on to subjects that the pattern matches. Returns the id for `unsubscribe`.
    fn subscribe(&self, pattern: &Pattern, mailbox: Arc<Mailbox<Stored>>) -> Op<u64>;
    /// Ends a subscription and closes its mailbox. Unknown ids are ignored.
    fn unsubscribe(&self, id: u64) -> Op<()>;
    /// Deletes a subject. Returns whether it had events. Ids given later are greater than all before.
    fn delete_subject(&self, subject: &Subject) -> Op<bool>;

    /// Returns a page of the subjects that have events and match. `cursor` is that of the page before, None for the first.
    fn subjects(&self, pattern: &Pattern, cursor: Option<&str>) -> Op<SubjectPage>;

    /// Reads events of all subjects, in the order in which they were stored.
    fn feed_read(&self, query: FeedQuery) -> Op<FeedPage> {
        drop(query);
        Op::err(no_feed(self.name()))
    }
    /// Returns the newest position. None: no event was ever stored.
    fn feed_head(&self) -> Op<Option<Position>> {
        Op::err(no_feed(self.name()))
    }
    /// Returns a receiver whose value changes when new events can be read. The value is [`StoreBackend::feed_number`] of
    /// the newest event known, or 0. Subscribe before reading; nothing polls while nothing is stored.
    fn feed_watch(&self) -> Result<watch::Receiver<u64>> {
        Err(no_feed(self.name()))
    }
    /// Offers a consumer what is appended from now on through this store, and notifies it of the rest, until it is dropped.
    fn feed_follow(&self, consumer: &ConsumerName, follower: Weak<dyn FeedFollower>) -> Result<()> {
        let _ = (consumer, follower);
        Err(no_feed(self.name()))
    }
    /// Returns how many events were stored up to this position since the store began. The difference of two is the most
    /// that can lie between them.
    fn feed_number(&self, position: &Position) -> Result<u64> {
        position.number()
    }

    /// Sets the name of the instance that appends from now on, as others see it in [`FeedRecord::origin`], where a store keeps
    /// it.
    fn set_instance(&self, instance: &str) {
        let _ = instance;
    }

    /// Waits until no other consumer of this name is at work, in any process that shares the store, and reserves the
    /// name until the lease is dropped or lost.
    fn consumer_acquire(&self, name: &ConsumerName) -> Op<Lease> {
        let _ = name;
        Op::err(no_feed(self.name()))
    }
    /// Reserves the name of a consumer, if it is free.
    fn consumer_try_acquire(&self, name: &ConsumerName) -> Op<Option<Lease>> {
        let _ = name;
        Op::err(no_feed(self.name()))
    }
    /// Returns what is stored of a consumer. None: there is none of this name.
    fn consumer_load(&self, name: &ConsumerName) -> Op<Option<ConsumerState>> {
        let _ = name;
        Op::err(no_feed(self.name()))
    }
    /// Stores a change of a consumer in one step, creating it where it is missing. Fails with
    /// [`crate::error::Code::Conflict`] if the lease was lost.
    fn consumer_save(&self, name: &ConsumerName, lease: &Lease, change: ConsumerChange) -> Op<()> {
        let _ = (name, lease, change);
        Op::err(no_feed(self.name()))
    }
    /// Returns all consumers, by name.
    fn consumer_list(&self) -> Op<Vec<ConsumerInfo>> {
        Op::err(no_feed(self.name()))
    }
    /// Deletes a consumer and its parked events. Returns whether it existed.
    fn consumer_delete(&self, name: &ConsumerName) -> Op<bool> {
        let _ = name;
        Op::err(no_feed(self.name()))
    }
    /// Returns parked events of a consumer after a position, in the order of the feed.
    fn consumer_parked(&self, name: &ConsumerName, after: Option<Position>, limit: usize) -> Op<Vec<ParkedEvent>> {
        let _ = (name, after, limit);
        Op::err(no_feed(self.name()))
    }
    /// Stores that parked events of a consumer are to be delivered again, these or all, and notifies the one at work,
    /// whose [`Lease::replays`] changes. Returns their number. The request is deleted with the event, or when it is
    /// parked again.
    fn consumer_request_replay(&self, name: &ConsumerName, positions: Option<Vec<Position>>) -> Op<u64> {
        let _ = (name, positions);
        Op::err(no_feed(self.name()))
    }
    /// Returns the positions of parked events whose replay was requested.
    fn consumer_replays(&self, name: &ConsumerName) -> Op<Vec<Position>> {
        let _ = name;
        Op::err(no_feed(self.name()))
    }

    /// Returns a page of the keys of indexes that match, as [`StoreBackend::subjects`] does.
    fn index_keys(&self, pattern: &Pattern, cursor: Option<&str>) -> Op<SubjectPage> {
        let _ = (pattern, cursor);
        Op::err(Error::invalid(format!("a {} store does not list its indexes", self.name())))
    }
    /// Returns a page of the values of keys.
    fn kv_page(&self, cursor: Option<&str>) -> Op<ValuePage> {
        let _ = cursor;
        Op::err(Error::invalid(format!("a {} store does not list its values", self.name())))
    }

    /// Stores an event that has an id, unless it is there by that id. Returns whether it was stored. Fails with
    /// [`crate::error::Code::Conflict`] where the subject ends with a greater id and does not have it.
    fn import_event(&self, subject: &Subject, event: Event) -> Op<bool> {
        let _ = (subject, event);
        Op::err(Error::invalid(format!("a {} store imports nothing", self.name())))
    }

    /// Adds or replaces an index entry of an export, whose metadata has its version.
    fn import_entry(&self, key: &Key, id: &EntryId, score: f64, metadata: Object) -> Op<()> {
        let _ = (key, id, score, metadata);
        Op::err(Error::invalid(format!("a {} store imports nothing", self.name())))
    }

    /// Returns the live value of a key.
    fn kv_get(&self, key: &Key) -> Op<Option<Json>>;
    /// Sets a key, for `ttl_ms` milliseconds or permanently.
    fn kv_set(&self, key: &Key, value: Json, ttl_ms: Option<u64>) -> Op<()>;
    /// Deletes a key.
    fn kv_delete(&self, key: &Key) -> Op<()>;
    /// Deletes the keys that a glob matches. Returns the number of live values.
    fn kv_clear(&self, pattern: &Pattern) -> Op<u64>;
    /// Adds to the number in a key (a missing one is 0), keeping its TTL. Returns the sum.
    fn kv_increment(&self, key: &Key, by: f64) -> Op<Number>;

    /// Adds or replaces an entry. The metadata goes through [`crate::json::fresh_metadata`].
    fn index_add(&self, key: &Key, id: &EntryId, score: f64, metadata: Object) -> Op<()>;
    /// Returns one entry.
    fn index_get(&self, key: &Key, id: &EntryId) -> Op<Option<IndexEntry>>;
    /// Returns a page of entries.
    fn index_read(&self, key: &Key, query: IndexQuery) -> Op<Vec<IndexEntry>>;
    /// Returns the number of entries that match.
    fn index_count(&self, key: &Key, filter: Filter) -> Op<u64> {
        self.index_read(key, IndexQuery { after: None, offset: 0, limit: usize::MAX, filter })
            .map(|entries| entries.len() as u64)
    }
    /// Applies [`crate::json::update_metadata`] to one entry. Returns false if there is none, or it has another version.
    fn index_update(&self, key: &Key, id: &EntryId, patch: Object, expected_version: Option<i64>) -> Op<bool>;
    /// Applies [`crate::json::increment_metadata`] to one entry. A missing entry is [`entry_not_found`].
    fn index_increment(&self, key: &Key, id: &EntryId, field: &FieldPath, by: f64) -> Op<Number>;
    /// Deletes an entry. Returns whether it existed.
    fn index_delete(&self, key: &Key, id: &EntryId) -> Op<bool>;

    /// Stores a document, replacing the one there.
    fn doc_save(&self, collection: &Collection, id: &DocId, doc: Json) -> Op<()>;
    /// Returns one document.
    fn doc_get(&self, collection: &Collection, id: &DocId) -> Op<Option<Json>>;
    /// Returns documents of a collection, with their ids.
    fn doc_list(&self, collection: &Collection, query: DocQuery) -> Op<Vec<(Arc<str>, Json)>>;
    /// Deletes a document, if it exists.
    fn doc_delete(&self, collection: &Collection, id: &DocId) -> Op<()>;
}

/// A page of values.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ValuePage {
    /// In no order; one may come twice.
    pub values: Vec<KeptValue>,
    /// For the next page. None: this is the last one.
    pub cursor: Option<Arc<str>>,
}

/// A value of the key-value store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptValue {
    /// Its key.
    pub key: Arc<str>,
    /// In ms of Unix time. None: for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// The value.
    #[serde(serialize_with = "json::raw")]
    pub value: Json,
}

/// Returns the error of a store that has no feed.
fn no_feed(store: &str) -> Error {
    Error::invalid(format!("a {store} store has no feed: use a file or memory store"))
}

/// Returns the error for a consumer that the store does not have.
pub(crate) fn unknown_consumer(name: &str) -> Error {
    Error::not_found(format!("consumer: there is none of the name {name:?}; consumers() lists those there are"))
}

/// Returns the error for an event that is older than what its subject ends with and is not in it.
pub(crate) fn out_of_order(subject: &str, id: EventId, last: EventId) -> Error {
    Error::new(
        crate::error::Code::Conflict,
        format!(
            "{subject:?} ends with {last} and has no event {id}: it has a history of its own. Import into a store that \
             is empty, or has parts of the same export"
        ),
    )
}

/// Returns the error for a missing index entry. nvent matches the words "Entry not found".
pub fn entry_not_found(key: &str, id: &str) -> Error {
    Error::not_found(format!("Entry not found: {id:?} in index {key:?}"))
}

/// Compares values for [`DocQuery::sort_by`]: null, booleans, numbers, text, arrays and objects.
pub fn compare_values(a: &serde_json::Value, b: &serde_json::Value) -> std::cmp::Ordering {
    use serde_json::Value;
    let rank = |value: &Value| match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) | Value::Object(_) => 4,
    };
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (a, b) => rank(a).cmp(&rank(b)),
    }
}

/// Returns the page of documents that a query selects from rows in the order of their ids.
pub fn select_docs<'a, I: AsRef<str>, J>(
    rows: impl DoubleEndedIterator<Item = (I, &'a crate::json::Object, J)>,
    query: &DocQuery,
) -> Vec<(I, J)> {
    use serde_json::Value;
    let limit = query.limit.unwrap_or(usize::MAX);
    let matching = rows.filter(|(id, object, _)| query.is_after(id.as_ref(), object) && query.filter.matches(object));
    let Some(path) = &query.sort_by else {
        let page = |rows: &mut dyn Iterator<Item = (I, &'a crate::json::Object, J)>| {
            rows.skip(query.offset).take(limit).map(|(id, _, json)| (id, json)).collect()
        };
        return if query.descending { page(&mut matching.rev()) } else { page(&mut { matching }) };
    };
    let mut sorted: Vec<_> =
        matching.map(|(id, object, json)| (at_path(object, path).unwrap_or(&Value::Null), id, json)).collect();
    // Stable, so that equal values stay in the order of their ids, whichever way the values go.
    sorted.sort_by(|(a, ..), (b, ..)| if query.descending { compare_values(b, a) } else { compare_values(a, b) });
    sorted.into_iter().skip(query.offset).take(limit).map(|(_, id, json)| (id, json)).collect()
}
