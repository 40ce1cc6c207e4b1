//! Entries of indexes: a sorted set of scores, and a hash of flattened metadata per entry, see [`metadata`].

use std::collections::HashSet;
use std::ops::ControlFlow::{Break, Continue};
use std::sync::Arc;

use ::redis::Value;
use serde_json::Number;

use super::backend::RedisStore;
use super::calls::{MAX_ROWS, MAX_SCANNED, decimal, flag, ignore, number};
use super::keys::Keys;
use super::page::{Fields, Page};
use super::{metadata, scripts};
use crate::error::{Error, Result};
use crate::json::{self, Filter, Json, Object, to_json};
use crate::name::{EntryId, FieldPath, Key};
use crate::op::Op;
use crate::redis::{Request, reply};
use crate::store::{IndexEntry, IndexQuery, entry_not_found};

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

/// What a scan returns.
#[derive(Clone, Copy)]
enum Wanted {
    Rows,
    Count,
}

/// A read of an index by one call of `index_read.lua` after the other. In a large index that changes meanwhile, an entry
/// whose score changes may be left out, as it may be between two pages of a reader.
struct IndexScan {
    key: String,
    wanted: Wanted,
    /// `after` and `offset` are where the next call begins.
    query: IndexQuery,
    conditions: Json,
    /// Conditions that the script cannot decide. They are applied here, and offset and limit after them.
    rest: Filter,
    /// After a call that has stopped early, the place to go on after, as Redis writes it.
    place: Option<(String, String)>,
    found: Vec<IndexEntry>,
    /// The ids in `found`, where there was more than one call: an entry that moved down is met again.
    ids: HashSet<Arc<str>>,
}

impl IndexScan {
    fn new(key: &Key, query: IndexQuery, wanted: Wanted) -> Self {
        let (conditions, rest) = metadata::split_filter(&query.filter);
        let place = query.after.as_ref().map(|place| (decimal(place.score), place.id.to_string()));
        let (key, conditions) = (key.as_str().to_owned(), to_json(&conditions));
        Self { key, wanted, query, conditions, rest, place, found: Vec::new(), ids: HashSet::new() }
    }

    /// Returns the next call.
    fn request(&self) -> Request {
        let (offset, limit) = match self.rest.is_empty() {
            true => (self.query.offset, (self.query.limit - self.found.len()).min(i32::MAX as usize)),
            false => (0, i32::MAX as usize),
        };
        let mut call = scripts::INDEX_READ.call(&[&self.key]);
        call.arg(offset).arg(limit).arg(&*self.conditions);
        call.arg(match self.wanted {
            Wanted::Rows => "rows",
            Wanted::Count => "count",
        });
        call.arg(MAX_SCANNED).arg(MAX_ROWS);
        if let Some((score, id)) = &self.place {
            call.arg(score).arg(id);
        }
        Request::read("index.read", call).of(&scripts::INDEX_READ)
    }

    /// Splits a reply into the result and, where the script has stopped early, the rest of its list.
    fn split(reply: Value) -> Result<(Value, std::vec::IntoIter<Value>)> {
        match reply {
            Value::Array(parts) => {
                let mut parts = parts.into_iter();
                Ok((parts.next().unwrap_or(Value::Nil), parts))
            }
            whole => Ok((whole, Vec::new().into_iter())),
        }
    }

    /// Keeps entries that match the other conditions and are not there yet.
    fn take(&mut self, entries: Vec<IndexEntry>) -> Result<()> {
        for entry in entries {
            if !self.rest.is_empty() {
                if !self.rest.matches(&json::parse_object("metadata", &entry.metadata)?) {
                    continue;
                }
                if self.query.offset > 0 {
                    self.query.offset -= 1;
                    continue;
                }
            }
            if self.found.len() < self.query.limit && !self.ids.contains(&entry.id) {
                self.found.push(entry);
            }
        }
        Ok(())
    }

    /// Returns whether there is another call to make, and prepares it.
    fn go_on(&mut self, mut next: impl Iterator<Item = Value>) -> Result<bool> {
        let (Some(score), Some(id), Some(skipped)) = (next.next(), next.next(), next.next()) else { return Ok(false) };
        self.place = Some((reply::text(score)?, reply::text(id)?));
        if self.rest.is_empty() {
            self.query.offset -= usize::try_from(reply::int(skipped)?).unwrap_or(0).min(self.query.offset);
        }
        self.ids.extend(self.found[self.ids.len()..].iter().map(|entry| entry.id.clone()));
        Ok(self.found.len() < self.query.limit)
    }
}

impl RedisStore {
    /// Adds or replaces an entry, with the metadata as it is.
    pub(super) fn add_entry(&self, key: &Key, id: &EntryId, score: f64, metadata: Object) -> Op<()> {
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
        self.calls.write_named(name, request.of(&scripts::INDEX_ADD), ignore)
    }

    /// Reads one entry.
    pub(super) fn entry(&self, key: &Key, id: &EntryId) -> Op<Option<IndexEntry>> {
        let mut call = scripts::INDEX_GET.call(&[key, &Keys::meta(key, id)]);
        call.arg(id.as_str());
        let id = id.as_str().to_owned();
        self.calls.read(Request::read("index.get", call).of(&scripts::INDEX_GET), move |value| {
            let mut parts = reply::list(value)?.into_iter();
            let parts = parts.next().zip(parts.next());
            parts.map(|(score, fields)| index_entry(&id, &reply::text(score)?, reply::pairs(fields)?)).transpose()
        })
    }

    /// Reads a page of entries.
    pub(super) fn entries(&self, key: &Key, query: IndexQuery) -> Op<Vec<IndexEntry>> {
        if query.limit == 0 {
            return Op::ok(Vec::new());
        }
        let mut scan = IndexScan::new(key, query, Wanted::Rows);
        self.calls.read_pages(scan.request(), move |reply| {
            let (page, next) = IndexScan::split(reply)?;
            scan.take(index_entries(page)?)?;
            Ok(if scan.go_on(next)? { Continue(scan.request()) } else { Break(std::mem::take(&mut scan.found)) })
        })
    }

    /// Counts the entries that a filter matches.
    pub(super) fn count_entries(&self, key: &Key, filter: Filter) -> Op<u64> {
        let query = IndexQuery { after: None, offset: 0, limit: usize::MAX, filter };
        let mut scan = IndexScan::new(key, query, Wanted::Count);
        if !scan.rest.is_empty() {
            // Conditions that the script cannot decide need the metadata.
            return self.entries(key, scan.query).map(|entries| entries.len() as u64);
        }
        let mut count = 0;
        self.calls.read_pages(scan.request(), move |reply| {
            let (matched, next) = IndexScan::split(reply)?;
            count += u64::try_from(reply::int(matched)?).unwrap_or(0);
            Ok(if scan.go_on(next)? { Continue(scan.request()) } else { Break(count) })
        })
    }

    /// Merges a patch into the metadata of an entry. Resolves to false where there is none of this version.
    pub(super) fn update_entry(
        &self,
        key: &Key,
        id: &EntryId,
        mut patch: Object,
        expected_version: Option<i64>,
    ) -> Op<bool> {
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
        self.calls.write_named(name, request.of(&scripts::INDEX_UPDATE), flag)
    }

    /// Adds to a field of an entry. Resolves to the sum.
    pub(super) fn increment_field(&self, key: &Key, id: &EntryId, field: &FieldPath, by: f64) -> Op<Number> {
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
        self.calls.write_named(
            name,
            Request::write("index.increment", call).of(&scripts::INDEX_INCREMENT),
            move |sum| number(&reply::optional_text(sum)?.ok_or_else(|| entry_not_found(&key, &id))?),
        )
    }
}
