//! One index in memory: entries by id, their order by score, and columns of what filters have asked for.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::Value;

use super::ranking::Ranking;
use crate::json::{self, Filter, Json, Object};
use crate::store::{IndexEntry, IndexQuery};

/// Most columns. Filters on further fields read the entries.
const MAX_COLUMNS: usize = 8;

#[derive(Default)]
pub(super) struct Index {
    slots: HashMap<Arc<str>, u32>,
    /// By slot. The slots in `free` are unused.
    entries: Vec<Entry>,
    free: Vec<u32>,
    order: Ranking<Rank>,
    columns: Vec<Column>,
}

struct Entry {
    id: Arc<str>,
    score: f64,
    metadata: Object,
    /// The metadata as text, until it changes.
    text: Option<Json>,
}

#[derive(Clone, Copy)]
struct Rank {
    score: f64,
    slot: u32,
}

/// By slot, a hash of the value at a path. It excludes most entries that do not match.
struct Column {
    path: String,
    hashes: Vec<u64>,
}

impl Entry {
    fn index_entry(&mut self) -> IndexEntry {
        let text = self.text.get_or_insert_with(|| json::to_json(&self.metadata));
        IndexEntry { id: self.id.clone(), score: self.score, metadata: text.clone() }
    }
}

impl Index {
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Adds an entry, or replaces the one with its id.
    pub(super) fn add(&mut self, id: &str, score: f64, metadata: Object) {
        self.remove(id);
        let id: Arc<str> = id.into();
        let entry = Entry { id: id.clone(), score, metadata, text: None };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => self.entries.len() as u32,
        };
        match self.entries.get_mut(slot as usize) {
            Some(free) => *free = entry,
            None => self.entries.push(entry),
        }
        self.slots.insert(id.clone(), slot);
        self.order.insert(Rank { score, slot }, by_rank(&self.entries, score, &id));
        self.update_columns(slot);
    }

    /// Removes an entry. Returns whether it existed.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        let Some(slot) = self.slots.remove(id) else { return false };
        if let Some(entry) = self.entries.get(slot as usize) {
            self.order.remove(by_rank(&self.entries, entry.score, id));
        }
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            *entry = Entry { id: "".into(), score: 0.0, metadata: Object::new(), text: None };
        }
        self.free.push(slot);
        true
    }

    pub(super) fn get(&mut self, id: &str) -> Option<IndexEntry> {
        let slot = *self.slots.get(id)?;
        self.entries.get_mut(slot as usize).map(Entry::index_entry)
    }

    /// Changes the metadata of an entry. Returns None if there is no such entry.
    pub(super) fn change<T>(&mut self, id: &str, change: impl FnOnce(&mut Object) -> T) -> Option<T> {
        let slot = *self.slots.get(id)?;
        let entry = self.entries.get_mut(slot as usize)?;
        let result = change(&mut entry.metadata);
        entry.text = None;
        self.update_columns(slot);
        Some(result)
    }

    pub(super) fn read(&mut self, query: &IndexQuery) -> Vec<IndexEntry> {
        let (offset, limit) = (query.offset, query.limit);
        if query.filter.is_empty() {
            let page: Vec<Rank> = self.order.iter_from(offset).take(limit).collect();
            return self.entries_at(page);
        }
        let wanted = self.candidates(&query.filter);
        let matches = |rank: &Rank| {
            let slot = rank.slot as usize;
            wanted.iter().all(|(column, any)| {
                self.columns
                    .get(*column)
                    .and_then(|column| column.hashes.get(slot))
                    .is_some_and(|hash| any.contains(hash))
            }) && self.entries.get(slot).is_some_and(|entry| query.filter.matches(&entry.metadata))
        };
        let page: Vec<Rank> = self.order.iter_from(0).filter(matches).skip(offset).take(limit).collect();
        self.entries_at(page)
    }

    /// Returns the number of entries that match.
    pub(super) fn count(&mut self, filter: &Filter) -> usize {
        if filter.is_empty() {
            return self.slots.len();
        }
        self.slots
            .values()
            .filter(|slot| self.entries.get(**slot as usize).is_some_and(|e| filter.matches(&e.metadata)))
            .count()
    }

    fn entries_at(&mut self, page: Vec<Rank>) -> Vec<IndexEntry> {
        page.into_iter().filter_map(|rank| self.entries.get_mut(rank.slot as usize).map(Entry::index_entry)).collect()
    }

    /// Returns the columns that a filter can use, with the hashes that may match. Creates missing ones.
    fn candidates(&mut self, filter: &Filter) -> Vec<(usize, Vec<u64>)> {
        let mut wanted = Vec::new();
        for (path, value) in filter.fields() {
            let Some(column) = self.column(path) else { continue };
            // An array is "one of", and what equals an array that is there.
            let one_of = value.as_array().map_or(&[][..], Vec::as_slice);
            wanted.push((column, one_of.iter().chain([value]).map(hash_of).collect()));
        }
        wanted
    }

    fn column(&mut self, path: &str) -> Option<usize> {
        let known = self.columns.iter().position(|column| column.path == path);
        if known.is_some() || self.columns.len() == MAX_COLUMNS {
            return known;
        }
        let hashes = self.entries.iter().map(|entry| hash_at(&entry.metadata, path)).collect();
        self.columns.push(Column { path: path.into(), hashes });
        Some(self.columns.len() - 1)
    }

    /// Updates the columns of an entry.
    fn update_columns(&mut self, slot: u32) {
        let slot = slot as usize;
        let Some(entry) = self.entries.get(slot) else { return };
        for Column { path, hashes } in &mut self.columns {
            let hash = hash_at(&entry.metadata, path);
            match hashes.get_mut(slot) {
                Some(old) => *old = hash,
                // A new slot is always the next one.
                None => hashes.push(hash),
            }
        }
    }
}

/// Returns the comparison of ranks with an entry: the highest score first, then by id.
fn by_rank<'a>(entries: &'a [Entry], score: f64, id: &'a str) -> impl Fn(Rank) -> Ordering + 'a {
    move |rank| {
        score.total_cmp(&rank.score).then_with(|| entries.get(rank.slot as usize).map_or("", |entry| &entry.id).cmp(id))
    }
}

fn hash_at(metadata: &Object, path: &str) -> u64 {
    hash_of(json::at_path(metadata, path).unwrap_or(&Value::Null))
}

/// Values that are [`json::equal`] have the same hash.
fn hash_of(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    std::mem::discriminant(value).hash(&mut hasher);
    match value {
        Value::Null => {}
        Value::Bool(value) => value.hash(&mut hasher),
        // 1 and 1.0 are equal, and so are 0 and -0.
        Value::Number(value) => (value.as_f64().unwrap_or(0.0) + 0.0).to_bits().hash(&mut hasher),
        Value::String(value) => value.hash(&mut hasher),
        Value::Array(values) => values.iter().for_each(|value| hash_of(value).hash(&mut hasher)),
        // In whatever order the keys are.
        Value::Object(object) => object
            .iter()
            .map(|(key, value)| {
                let mut pair = DefaultHasher::new();
                (key, hash_of(value)).hash(&mut pair);
                pair.finish()
            })
            .fold(0_u64, u64::wrapping_add)
            .hash(&mut hasher),
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn equal_values_have_equal_hashes() {
        for (a, b) in [
            (json!(1), json!(1.0)),
            (json!(0), json!(-0.0)),
            (json!({"a": [1, null], "b": 2}), json!({"b": 2.0, "a": [1.0, null]})),
            (json!(18446744073709551615_u64), json!(18446744073709551615.0)),
        ] {
            assert!(json::equal(&a, &b), "{a} {b}");
            assert_eq!(hash_of(&a), hash_of(&b), "{a} {b}");
        }
        assert_ne!(hash_of(&json!("1")), hash_of(&json!(1)));
    }

    #[test]
    fn a_filter_finds_what_was_added_changed_and_removed_after_its_first_use() {
        let mut index = Index::default();
        let object = |value: Value| value.as_object().cloned().unwrap_or_default();
        let found = |index: &mut Index, filter: Value| -> Vec<String> {
            let query = IndexQuery { offset: 0, limit: 50, filter: Filter::new(object(filter)) };
            index.read(&query).into_iter().map(|entry| entry.id.to_string()).collect()
        };
        for n in 0..4 {
            index.add(&format!("e{n}"), f64::from(n), object(json!({"status": "new", "at": {"n": n}})));
        }
        assert_eq!(found(&mut index, json!({"status": "new", "at.n": [1, 2]})), ["e2", "e1"]);
        index.change("e1", |metadata| metadata.insert("status".into(), json!("old")));
        index.remove("e2");
        index.add("e9", 9.0, object(json!({"status": "new", "at": {"n": 1.0}})));
        index.add("e3", 0.5, object(json!({"status": ["new"], "at": {"n": 3}})));
        assert_eq!(found(&mut index, json!({"status": "new", "at.n": [1, 2]})), ["e9"]);
        assert_eq!(found(&mut index, json!({"status": ["new"]})), ["e9", "e3", "e0"]);
        assert_eq!(found(&mut index, json!({"status": null})), Vec::<String>::new());
        assert_eq!(
            found(
                &mut index,
                json!({"missing": null, "a": null, "b": null, "c": null, "d": null, "e": null, "f": null, "g": null, "status": "old"})
            ),
            ["e1"]
        );
    }
}
