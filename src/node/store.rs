//! Stores, as JavaScript calls them.

use std::path::Path;
use std::sync::Arc;

use napi_derive::napi;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::bus::Bus;
use crate::error::{Error, Result};
use crate::event::{Event, EventId, NewEvent};
use crate::fanout::{DEFAULT_BUFFER, Mailbox, Overflow};
use crate::json::{self, Json, push_string};
use crate::name::{Collection, DocId, EntryId, FieldPath, Key, Pattern, Subject};
use crate::node::bridge::{Bridge, Reply, Shared, Source, guard, reply, reply_and_leave};
use crate::node::bus::NativeBus;
use crate::node::runtime;
use crate::store::file::FileStore;
use crate::store::{
    Announce, Expected, ExportPart, Health, IndexEntry, IndexQuery, Maintenance, MemoryStore, RedisStore, Stats,
    StoreBackend,
};
use crate::time::system_clock;

/// A store of any backend.
#[napi]
pub struct NativeStore {
    pub(super) store: Arc<dyn StoreBackend>,
    pub(super) bridge: Arc<Shared>,
    announce: Option<(Arc<Bus>, Announce)>,
}

/// Reads the options of a call that may have none.
fn query<T: DeserializeOwned + Default>(text: Option<&str>) -> Result<T> {
    text.map_or_else(|| Ok(T::default()), |text| json::options("options", text))
}

fn expected_id(id: &str) -> Result<EventId> {
    id.parse().map_err(|e: Error| Error::invalid(format!("options.expectedLastId: {}", e.message())))
}

/// Converts the result of operations that return nothing.
pub(super) fn nothing((): ()) -> Option<String> {
    None
}

pub(super) fn health_json(health: Health) -> Option<String> {
    Some(json::to_json(&health).to_string())
}

pub(super) fn stats_json(stats: Stats) -> String {
    json::to_json(&stats.into_iter().collect::<std::collections::BTreeMap<_, _>>()).to_string()
}

pub(super) fn optional_json(value: Option<Json>) -> Option<String> {
    value.map(|json| json.to_string())
}

pub(super) fn array_json<T>(rows: &[T], push: impl Fn(&mut String, &T)) -> String {
    let mut out = String::from("[");
    for (index, row) in rows.iter().enumerate() {
        out.push_str(if index == 0 { "" } else { "," });
        push(&mut out, row);
    }
    out.push(']');
    out
}

fn push_entry(out: &mut String, entry: &IndexEntry) {
    out.push_str("{\"id\":");
    push_string(out, &entry.id);
    out.push_str(",\"score\":");
    out.push_str(&json::number(entry.score).map_or_else(|_| "null".into(), |score| score.to_string()));
    out.push_str(",\"metadata\":");
    out.push_str(&entry.metadata);
    out.push('}');
}

#[napi]
impl NativeStore {
    /// Returns the version of SQLite in the addon.
    #[napi]
    pub fn sqlite_version() -> &'static str {
        crate::store::file::sqlite_version()
    }

    /// Creates a store in memory. Without a bus appends are announced nowhere.
    #[napi(factory)]
    pub fn memory(bridge: &Bridge, bus: Option<&NativeBus>) -> Self {
        Self::with(bridge, bus, Arc::new(MemoryStore::new(system_clock())))
    }

    /// Creates a store in the files of a directory.
    #[napi(factory)]
    pub fn file(bridge: &Bridge, bus: Option<&NativeBus>, options: String) -> napi::Result<Self> {
        let store = || Ok(FileStore::new(json::options("", &options)?, system_clock(), runtime()));
        guard(|| Ok(Self::with(bridge, bus, Arc::new(store()?))))
    }

    /// Creates a store on Redis.
    #[napi(factory)]
    pub fn redis(bridge: &Bridge, bus: Option<&NativeBus>, options: String) -> napi::Result<Self> {
        guard(|| Ok(Self::with(bridge, bus, Arc::new(RedisStore::new(json::secret_options("", &options)?, runtime())))))
    }

    /// Copies a file store while it is in use.
    #[napi]
    pub fn backup(&self, path: String) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.maintenance()?.backup(Path::new(&path))), nothing)
    }

    /// Reads everything in a file store and checks it.
    #[napi]
    pub fn verify(&self) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || Ok(self.maintenance()?.verify()),
            |found| {
                Some(
                    json!({ "ok": found.problems.is_empty(), "rows": found.rows, "problems": found.problems })
                        .to_string(),
                )
            },
        )
    }

    /// Replies with a page of a part of a file store after a row: `{ lines, rows, next }`.
    #[napi]
    pub fn export_page(&self, part: String, after: f64, limit: f64) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || {
                let known = |known: &ExportPart| known.name() == part;
                let unknown = || Error::invalid(format!("part: {part:?} is not known"));
                let part = ExportPart::ALL.into_iter().find(known).ok_or_else(unknown)?;
                Ok(self.maintenance()?.export(part, after as u64, limit as usize))
            },
            |page| Some(json!({ "lines": page.lines, "rows": page.rows, "next": page.next }).to_string()),
        )
    }

    /// Stores lines of an export in a file store; replies with `{ added, skipped }`.
    #[napi]
    pub fn import_lines(&self, lines: String) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || Ok(self.maintenance()?.import(lines)),
            |done| Some(json!({ "added": done.added, "skipped": done.skipped }).to_string()),
        )
    }

    /// Adds or replaces an index entry of an export.
    #[napi]
    pub fn import_entry(&self, key: String, id: String, score: f64, metadata: String) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || {
                let metadata = json::parse_object("metadata", &metadata)?;
                Ok(self.store.import_entry(Key::new(&key)?, EntryId::new(&id)?, score, metadata))
            },
            nothing,
        )
    }

    /// Replies with a page of the keys of indexes, as `subjects` does.
    #[napi]
    pub fn index_keys(&self, pattern: String, cursor: Option<String>) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || Ok(self.store.index_keys(Pattern::new(&pattern)?, cursor.as_deref())),
            |page| Some(json!({ "subjects": page.subjects, "cursor": page.cursor }).to_string()),
        )
    }

    /// Replies with a page of values: `{ values: [{ key, value, expiresAt }], cursor }`.
    #[napi]
    pub fn kv_page(&self, cursor: Option<String>) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.store.kv_page(cursor.as_deref())), |page| Some(json::to_json(&page).to_string()))
    }

    /// Stores an event that has an id, unless it is there; replies with whether it was stored.
    #[napi]
    pub fn import_event(&self, subject: String, event: String) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || Ok(self.store.import_event(Subject::new(&subject)?, Event::parse(&event)?)),
            |added| Some(added.to_string()),
        )
    }

    fn maintenance(&self) -> Result<&dyn Maintenance> {
        let missing = || Error::invalid(format!("a {} store has no files", self.store.name()));
        self.store.maintenance().ok_or_else(missing)
    }

    fn with(bridge: &Bridge, bus: Option<&NativeBus>, store: Arc<dyn StoreBackend>) -> Self {
        let announce = bus.map(|bus| {
            let (bus, announcer) = (bus.bus.clone(), bus.bus.clone());
            (bus, Arc::new(move |subject: &Arc<str>, event: &Event| announcer.announce(subject, event)) as Announce)
        });
        Self { store, bridge: bridge.shared.clone(), announce }
    }

    /// Returns what receives appends.
    pub(super) fn announce(&self) -> Option<Announce> {
        self.announce.as_ref().map(|(_, announce)| announce.clone())
    }

    /// Returns whether appends are announced on this bus.
    pub(super) fn announces_on(&self, bus: &Arc<Bus>) -> bool {
        self.announce.as_ref().is_some_and(|(own, _)| Arc::ptr_eq(own, bus))
    }

    /// Sets the name of the instance that appends.
    #[napi]
    pub fn set_instance(&self, instance: String) {
        self.store.set_instance(&instance);
    }

    /// Opens it.
    #[napi]
    pub fn open(&self) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.store.open()), nothing)
    }

    /// Closes it.
    #[napi]
    pub fn close(&self) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.store.close()), nothing)
    }

    /// Replies with whether it is usable.
    #[napi]
    pub fn health(&self) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.store.health()), health_json)
    }

    /// Returns its counters.
    #[napi]
    pub fn stats(&self) -> napi::Result<String> {
        guard(|| Ok(stats_json(self.store.stats())))
    }

    /// Appends an event. `expected` is absent, `""` for an empty subject, or the id that the subject must end with.
    /// `stamp_only`: replies with the record's id and ts alone, see [`Event::stamp_json`].
    #[napi]
    pub fn append(
        &self,
        subject: String,
        event: String,
        expected: Option<String>,
        stamp_only: bool,
    ) -> napi::Result<Reply> {
        let to_json: fn(Event) -> Option<String> =
            if stamp_only { |event| Some(event.stamp_json()) } else { |event| Some(event.json().to_string()) };
        reply_and_leave(
            &self.bridge,
            || {
                let subject = Subject::new(&subject)?;
                let event = NewEvent::parse(&event)?;
                let expected = match expected.as_deref() {
                    None => None,
                    Some("") => Some(Expected::Empty),
                    Some(id) => Some(Expected::Last(expected_id(id)?)),
                };
                Ok(self.store.append(subject, event, expected, self.announce()))
            },
            to_json,
        )
    }

    /// Reads records.
    #[napi]
    pub fn read(&self, subject: String, query: Option<String>) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || {
                let subject = Subject::new(&subject)?;
                Ok(self.store.read(subject, self::query(query.as_deref())?))
            },
            |rows| Some(array_json(&rows, |out, row| out.push_str(row))),
        )
    }

    /// Subscribes to what is appended; replies with the id.
    #[napi]
    pub fn subscribe(&self, subject: String) -> napi::Result<Reply> {
        let bridge = self.bridge.clone();
        reply(
            &self.bridge,
            || {
                let pattern = Pattern::named("subject", &subject)?;
                let mailbox = Arc::new(Mailbox::new(DEFAULT_BUFFER, Overflow::DropOldest));
                Ok(self.store.subscribe(pattern, mailbox.clone()).map(move |id| {
                    let wake = bridge.subscribe(id, subject.into(), Source::Store(mailbox.clone()), false);
                    mailbox.add_wake(id, wake);
                    id
                }))
            },
            |id| Some(id.to_string()),
        )
    }

    /// Ends a subscription.
    #[napi]
    pub fn unsubscribe(&self, id: f64) -> napi::Result<Reply> {
        self.bridge.unsubscribe(id as u64);
        reply(&self.bridge, || Ok(self.store.unsubscribe(id as u64)), nothing)
    }

    /// Deletes a subject.
    #[napi]
    pub fn delete_subject(&self, subject: String) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || Ok(self.store.delete_subject(Subject::new(&subject)?)),
            |deleted| Some(deleted.to_string()),
        )
    }

    /// Reads a key.
    #[napi]
    pub fn kv_get(&self, key: String) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.store.kv_get(Key::new(&key)?)), optional_json)
    }

    /// Sets a key; the time to live is in seconds.
    #[napi]
    pub fn kv_set(&self, key: String, value: String, ttl: Option<f64>) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || {
                let key = Key::new(&key)?;
                json::check_depth("value", &value)?;
                let ttl_ms = match ttl {
                    None => None,
                    Some(ttl) if ttl > 0.0 && ttl <= 1e10 => Some((ttl * 1_000.0).ceil() as u64),
                    Some(ttl) => {
                        return Err(Error::invalid(format!("ttl: expected a positive number of seconds, got {ttl}")));
                    }
                };
                Ok(self.store.kv_set(key, value.into(), ttl_ms))
            },
            nothing,
        )
    }

    /// Deletes a key.
    #[napi]
    pub fn kv_delete(&self, key: String) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.store.kv_delete(Key::new(&key)?)), nothing)
    }

    /// Deletes the keys that a glob matches.
    #[napi]
    pub fn kv_clear(&self, pattern: String) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.store.kv_clear(Pattern::new(&pattern)?)), |removed| Some(removed.to_string()))
    }

    /// Adds to a number.
    #[napi]
    pub fn kv_increment(&self, key: String, by: f64) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.store.kv_increment(Key::new(&key)?, by)), |sum| Some(sum.to_string()))
    }

    /// Adds or replaces an entry of an index.
    #[napi]
    pub fn index_add(&self, key: String, id: String, score: f64, metadata: Option<String>) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || {
                let key = Key::new(&key)?;
                let id = EntryId::new(&id)?;
                let metadata = json::parse_object("metadata", metadata.as_deref().unwrap_or("{}"))?;
                Ok(self.store.index_add(key, id, score, metadata))
            },
            nothing,
        )
    }

    /// Reads an entry of an index.
    #[napi]
    pub fn index_get(&self, key: String, id: String) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || Ok(self.store.index_get(Key::new(&key)?, EntryId::new(&id)?)),
            |entry| {
                entry.map(|entry| {
                    let mut out = String::new();
                    push_entry(&mut out, &entry);
                    out
                })
            },
        )
    }

    /// Reads a page of an index.
    #[napi]
    pub fn index_read(&self, key: String, query: Option<String>) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || {
                let key = Key::new(&key)?;
                Ok(self.store.index_read(key, self::query(query.as_deref())?))
            },
            |entries| Some(array_json(&entries, push_entry)),
        )
    }

    /// Merges into an entry of an index.
    #[napi]
    pub fn index_update(
        &self,
        key: String,
        id: String,
        patch: String,
        expected_version: Option<f64>,
    ) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || {
                let key = Key::new(&key)?;
                let id = EntryId::new(&id)?;
                let patch = json::parse_object("metadata", &patch)?;
                json::reject_dotted("metadata", &patch)?;
                let expected = expected_version.map(|version| version as i64);
                Ok(self.store.index_update(key, id, patch, expected))
            },
            |updated| Some(updated.to_string()),
        )
    }

    /// Adds to a number in an entry of an index.
    #[napi]
    pub fn index_increment(&self, key: String, id: String, field: String, by: f64) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || Ok(self.store.index_increment(Key::new(&key)?, EntryId::new(&id)?, FieldPath::new(&field)?, by)),
            |sum| Some(sum.to_string()),
        )
    }

    /// Deletes an entry of an index.
    #[napi]
    pub fn index_delete(&self, key: String, id: String) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || Ok(self.store.index_delete(Key::new(&key)?, EntryId::new(&id)?)),
            |deleted| Some(deleted.to_string()),
        )
    }

    /// Stores a document.
    #[napi]
    pub fn doc_save(&self, collection: String, id: String, doc: String) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || {
                let collection = Collection::new(&collection)?;
                let id = DocId::new(&id)?;
                json::check_depth("doc", &doc)?;
                Ok(self.store.doc_save(collection, id, doc.into()))
            },
            nothing,
        )
    }

    /// Reads a document.
    #[napi]
    pub fn doc_get(&self, collection: String, id: String) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.store.doc_get(Collection::new(&collection)?, DocId::new(&id)?)), optional_json)
    }

    /// Returns the number of entries of an index that match.
    #[napi]
    pub fn index_count(&self, key: String, query: Option<String>) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || {
                let IndexQuery { filter, .. } = self::query(query.as_deref())?;
                Ok(self.store.index_count(Key::new(&key)?, filter))
            },
            |count| Some(count.to_string()),
        )
    }

    /// Returns a page of the subjects that a glob matches.
    #[napi]
    pub fn subjects(&self, pattern: String, cursor: Option<String>) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || Ok(self.store.subjects(Pattern::new(&pattern)?, cursor.as_deref())),
            |page| Some(json!({ "subjects": page.subjects, "cursor": page.cursor }).to_string()),
        )
    }

    /// Lists documents.
    #[napi]
    pub fn doc_list(&self, collection: String, query: Option<String>) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || {
                let collection = Collection::new(&collection)?;
                Ok(self.store.doc_list(collection, self::query(query.as_deref())?))
            },
            |rows| {
                Some(array_json(&rows, |out, (id, doc)| {
                    out.push_str("{\"id\":");
                    push_string(out, id);
                    out.push_str(",\"doc\":");
                    out.push_str(doc);
                    out.push('}');
                }))
            },
        )
    }

    /// Deletes a document.
    #[napi]
    pub fn doc_delete(&self, collection: String, id: String) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.store.doc_delete(Collection::new(&collection)?, DocId::new(&id)?)), nothing)
    }
}
