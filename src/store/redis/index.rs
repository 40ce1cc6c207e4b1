//! Entries of indexes: a sorted set of scores, and a hash of flattened metadata per entry, see [`metadata`].

use ::redis::Value;
use serde_json::Number;

use super::backend::RedisStore;
use super::calls::{decimal, flag, ignore, number};
use super::keys::Keys;
use super::page::{Fields, Page};
use super::{metadata, scripts};
use crate::error::{Error, Result};
use crate::json::{self, Object, to_json};
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
        let (conditions, rest) = metadata::split_filter(&query.filter);
        // Conditions that the script cannot decide are applied here, and the page is cut after them.
        let (offset, limit) = if rest.is_empty() { (query.offset, query.limit) } else { (0, i32::MAX as usize) };
        let mut call = scripts::INDEX_READ.call(&[key]);
        call.arg(offset).arg(limit.min(i32::MAX as usize)).arg(&*to_json(&conditions));
        if let Some(place) = &query.after {
            call.arg(decimal(place.score)).arg(&*place.id);
        }
        self.calls.read(Request::read("index.read", call).of(&scripts::INDEX_READ), move |value| {
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
