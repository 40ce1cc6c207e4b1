//! One index in memory: entries by id, their order by score, and columns of what filters have asked for.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use super::column::Column;
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

/// The metadata is text only: as an object it takes ten times the memory, and reads return text.
struct Entry {
    id: Arc<str>,
    score: f64,
    metadata: Json,
}

#[derive(Clone, Copy)]
struct Rank {
    score: f64,
    slot: u32,
}

/// A filter on an index: what the columns decide, and what only the entries can.
struct Selection {
    /// Columns, and the values that match.
    by_column: Vec<(usize, Vec<u32>)>,
    rest: Filter,
}

impl Entry {
    fn index_entry(&self) -> IndexEntry {
        IndexEntry { id: self.id.clone(), score: self.score, metadata: self.metadata.clone() }
    }

    /// Returns the metadata as an object. It was written by [`json::to_json`], so that reading it does not fail.
    fn object(&self) -> Object {
        json::parse_object("metadata", &self.metadata).unwrap_or_default()
    }
}

impl Index {
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Adds an entry, or replaces the one with its id.
    pub(super) fn add(&mut self, id: &str, score: f64, metadata: &Object) {
        // JSON has one zero: a place with the other would not be that of the entry.
        let score = score + 0.0;
        self.remove(id);
        let id: Arc<str> = id.into();
        let entry = Entry { id: id.clone(), score, metadata: json::to_json(metadata) };
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
        self.update_columns(slot, metadata);
    }

    /// Removes an entry. Returns whether it existed.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        let Some(slot) = self.slots.remove(id) else { return false };
        if let Some(entry) = self.entries.get(slot as usize) {
            self.order.remove(by_rank(&self.entries, entry.score, id));
        }
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            *entry = Entry { id: "".into(), score: 0.0, metadata: "{}".into() };
        }
        self.update_columns(slot, &Object::new());
        self.free.push(slot);
        true
    }

    pub(super) fn get(&self, id: &str) -> Option<IndexEntry> {
        let slot = *self.slots.get(id)?;
        self.entries.get(slot as usize).map(Entry::index_entry)
    }

    /// Changes the metadata of an entry. Returns None if there is no such entry.
    pub(super) fn change<T>(&mut self, id: &str, change: impl FnOnce(&mut Object) -> T) -> Option<T> {
        let slot = *self.slots.get(id)?;
        let entry = self.entries.get_mut(slot as usize)?;
        let mut metadata = entry.object();
        let result = change(&mut metadata);
        entry.metadata = json::to_json(&metadata);
        self.update_columns(slot, &metadata);
        Some(result)
    }

    pub(super) fn read(&mut self, query: &IndexQuery) -> Vec<IndexEntry> {
        let (offset, limit) = (query.offset, query.limit);
        let selection = (!query.filter.is_empty()).then(|| self.select(&query.filter));
        let is_selected =
            |rank: &Rank| selection.as_ref().is_none_or(|selection| self.is_selected(selection, rank.slot));
        match &query.after {
            None if query.filter.is_empty() => self.entries_at(self.order.iter_from(offset).take(limit)),
            None => self.entries_at(self.order.iter_from(0).filter(is_selected).skip(offset).take(limit)),
            Some(place) => {
                let rows = self.order.iter_after(by_rank(&self.entries, place.score, &place.id));
                self.entries_at(rows.filter(is_selected).skip(offset).take(limit))
            }
        }
    }

    /// Returns the number of entries that match.
    pub(super) fn count(&mut self, filter: &Filter) -> usize {
        if filter.is_empty() {
            return self.slots.len();
        }
        let selection = self.select(filter);
        self.slots.values().filter(|slot| self.is_selected(&selection, **slot)).count()
    }

    fn entries_at(&self, page: impl Iterator<Item = Rank>) -> Vec<IndexEntry> {
        page.filter_map(|rank| self.entries.get(rank.slot as usize).map(Entry::index_entry)).collect()
    }

    /// Prepares a filter. Creates missing columns.
    fn select(&mut self, filter: &Filter) -> Selection {
        let (mut by_column, mut rest) = (Vec::new(), Object::new());
        for (path, wanted) in filter.fields() {
            match self.column(path) {
                Some(column) => {
                    let values = self.columns.get(column).map(|column| column.matching(wanted)).unwrap_or_default();
                    by_column.push((column, values));
                }
                None => _ = rest.insert(path.into(), wanted.clone()),
            }
        }
        Selection { by_column, rest: Filter::new(rest) }
    }

    fn is_selected(&self, selection: &Selection, slot: u32) -> bool {
        let of_column = |(column, wanted): &(usize, Vec<u32>)| {
            self.columns.get(*column).is_some_and(|column| wanted.contains(&column.at(slot)))
        };
        selection.by_column.iter().all(of_column)
            && (selection.rest.is_empty()
                || self.entries.get(slot as usize).is_some_and(|entry| selection.rest.matches(&entry.object())))
    }

    fn column(&mut self, path: &str) -> Option<usize> {
        let known = self.columns.iter().position(|column| column.path() == path);
        if known.is_some() || self.columns.len() == MAX_COLUMNS {
            return known;
        }
        let mut column = Column::new(path);
        for (slot, entry) in self.entries.iter().enumerate() {
            column.set(slot as u32, &entry.object());
        }
        self.columns.push(column);
        Some(self.columns.len() - 1)
    }

    /// Updates the columns of an entry.
    fn update_columns(&mut self, slot: u32, metadata: &Object) {
        for column in &mut self.columns {
            column.set(slot, metadata);
        }
    }
}

/// Returns the comparison of ranks with an entry: the highest score first, then by id.
fn by_rank<'a>(entries: &'a [Entry], score: f64, id: &'a str) -> impl Fn(Rank) -> Ordering + 'a {
    move |rank| {
        score.total_cmp(&rank.score).then_with(|| entries.get(rank.slot as usize).map_or("", |entry| &entry.id).cmp(id))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_filter_finds_what_was_added_changed_and_removed_after_its_first_use() {
        let mut index = Index::default();
        let object = |value: Value| value.as_object().cloned().unwrap_or_default();
        let found = |index: &mut Index, filter: Value| -> Vec<String> {
            let query = IndexQuery { after: None, offset: 0, limit: 50, filter: Filter::new(object(filter)) };
            index.read(&query).into_iter().map(|entry| entry.id.to_string()).collect()
        };
        for n in 0..4 {
            index.add(&format!("e{n}"), f64::from(n), &object(json!({"status": "new", "at": {"n": n}})));
        }
        assert_eq!(found(&mut index, json!({"status": "new", "at.n": [1, 2]})), ["e2", "e1"]);
        index.change("e1", |metadata| metadata.insert("status".into(), json!("old")));
        index.remove("e2");
        index.add("e9", 9.0, &object(json!({"status": "new", "at": {"n": 1.0}})));
        index.add("e3", 0.5, &object(json!({"status": ["new"], "at": {"n": 3}})));
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
