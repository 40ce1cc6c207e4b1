//! Sorted indexes of entries with metadata.

use std::sync::Arc;

use rusqlite::params;
use serde_json::Number;

use super::filter::TextPrefilter;
use super::schema::checksum;
use super::view::{Budget, Tx, View, checked, from_sql};
use crate::error::{Error, Result};
use crate::json::{self, Filter, Object};
use crate::store::{IndexEntry, IndexQuery, SUBJECT_PAGE, SubjectPage, entry_not_found};
use crate::topic::Glob;

/// Adds or replaces an entry.
pub(super) fn add(tx: &mut Tx<'_>, key: &str, id: &str, score: f64, metadata: &str) -> Result<()> {
    if score.is_nan() {
        return Err(Error::invalid("score: expected a number, got NaN"));
    }
    tx.execute(
        "INSERT INTO index_entries (key, id, score, metadata, sum) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (key, id) \
         DO UPDATE SET score = excluded.score, metadata = excluded.metadata, sum = excluded.sum",
        params![key, id, score, metadata, checksum(metadata)],
    )?;
    Ok(())
}

/// Returns one entry.
pub(super) fn get(view: &View<'_>, key: &str, id: &str) -> Result<Option<IndexEntry>> {
    let mut statement = view.prepare("SELECT score, metadata, sum FROM index_entries WHERE key = ?1 AND id = ?2")?;
    let mut rows = statement.query([key, id]).map_err(|e| view.fail(&e))?;
    let Some(row) = rows.next().map_err(|e| view.fail(&e))? else {
        return Ok(None);
    };
    let read = || Ok((row.get(0)?, row.get_ref(1)?.as_str()?, row.get(2)?));
    let (score, metadata, sum) = read().map_err(|e: rusqlite::Error| view.fail(&e))?;
    let metadata = entry_text(metadata, sum, key, id)?.into();
    Ok(Some(IndexEntry { id: id.into(), score, metadata }))
}

fn entry_text<'r>(metadata: &'r str, sum: Option<i64>, key: &str, id: &str) -> Result<&'r str> {
    checked(metadata, sum, "index_entries", || format!("of key {key:?}, id {id:?}"))
}

/// Returns a page of entries, highest score first, ties by id, or None if the budget was spent.
pub(super) fn read(view: &View<'_>, key: &str, query: &IndexQuery, budget: Budget) -> Result<Option<Vec<IndexEntry>>> {
    let mut found = Vec::new();
    if query.limit == 0 {
        return Ok(Some(found));
    }
    let prefilter = TextPrefilter::new(&query.filter);
    // Without a filter the entries before the page are passed over in the index alone; with one each must be looked at.
    let (skip_in_sql, mut skip) = if query.filter.is_empty() { (query.offset, 0) } else { (0, query.offset) };
    if !budget.lasts_for(skip_in_sql) {
        return Ok(None);
    }
    let mut statement = view.prepare(
        "SELECT e.id, e.score, e.metadata, e.sum FROM \
         (SELECT row FROM index_entries WHERE key = ?1 AND score <= ?3 AND (score < ?3 OR id > ?4) \
         ORDER BY score DESC, id LIMIT -1 OFFSET ?2) page CROSS JOIN index_entries e ON e.row = page.row",
    )?;
    // Without a place: before the first entry there can be.
    let (score, id) = query.after.as_ref().map_or((f64::INFINITY, ""), |place| (place.score, &*place.id));
    let offset = i64::try_from(skip_in_sql).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![key, offset, score, id]).map_err(|e| view.fail(&e))?;
    while let Some(row) = rows.next().map_err(|e| view.fail(&e))? {
        let read = || Ok((row.get_ref(0)?.as_str()?, row.get(1)?, row.get_ref(2)?.as_str()?, row.get(3)?));
        let (id, score, metadata, sum) = read().map_err(|e: rusqlite::Error| view.fail(&e))?;
        if prefilter.matches(entry_text(metadata, sum, key, id)?)? {
            if skip > 0 {
                skip -= 1;
            } else {
                found.push(IndexEntry { id: Arc::from(id), score, metadata: metadata.into() });
                if found.len() >= query.limit {
                    break;
                }
            }
        }
        if !budget.lasts() {
            return Ok(None);
        }
    }
    Ok(Some(found))
}

/// Returns the number of entries that match, or None if the budget was spent.
pub(super) fn count(view: &View<'_>, key: &str, filter: &Filter, budget: Budget) -> Result<Option<u64>> {
    if budget.is_short() {
        return Ok(None);
    }
    if filter.is_empty() {
        let count =
            view.first("SELECT count(*) FROM index_entries WHERE key = ?1", [key], |row| row.get::<_, i64>(0))?;
        return Ok(Some(count.map_or(0, from_sql)));
    }
    let query = IndexQuery { after: None, offset: 0, limit: usize::MAX, filter: filter.clone() };
    Ok(read(view, key, &query, budget)?.map(|entries| entries.len() as u64))
}

/// Reads, changes and writes the metadata of one entry. Returns None if there is none.
fn change<T>(
    tx: &mut Tx<'_>,
    key: &str,
    id: &str,
    f: impl FnOnce(&mut Object) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let found =
        tx.view.first("SELECT row, metadata, sum FROM index_entries WHERE key = ?1 AND id = ?2", [key, id], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get(2)?))
        });
    let Some((row, metadata, sum)) = tx.check(found)? else {
        return Ok(None);
    };
    let mut metadata = json::parse_object("metadata", entry_text(&metadata, sum, key, id)?)?;
    let Some(outcome) = f(&mut metadata)? else {
        return Ok(None);
    };
    let metadata = json::to_json(&metadata);
    tx.execute(
        "UPDATE index_entries SET metadata = ?2, sum = ?3 WHERE row = ?1",
        params![row, &*metadata, checksum(&metadata)],
    )?;
    Ok(Some(outcome))
}

/// Merges a patch deeply. Returns false if there is no such entry, or it has another version.
pub(super) fn update(
    tx: &mut Tx<'_>,
    key: &str,
    id: &str,
    patch: Object,
    expected_version: Option<i64>,
) -> Result<bool> {
    let changed =
        change(tx, key, id, |metadata| Ok(json::update_metadata(metadata, patch, expected_version).then_some(())))?;
    Ok(changed.is_some())
}

/// Adds to the number at a dotted path.
pub(super) fn increment(tx: &mut Tx<'_>, key: &str, id: &str, field: &str, by: f64) -> Result<Number> {
    change(tx, key, id, |metadata| json::increment_metadata(metadata, field, by).map(Some))?
        .ok_or_else(|| entry_not_found(key, id))
}

/// Deletes an entry. Returns whether it existed.
pub(super) fn delete(tx: &mut Tx<'_>, key: &str, id: &str) -> Result<bool> {
    Ok(tx.execute("DELETE FROM index_entries WHERE key = ?1 AND id = ?2", [key, id])? > 0)
}

/// Returns a page of the keys of indexes that match, by name.
pub(super) fn keys(view: &View<'_>, glob: &Glob, after: &str) -> Result<SubjectPage> {
    // From one key to the next in the index, past the entries between.
    let mut statement = view.prepare(
        "WITH RECURSIVE k(key) AS (SELECT min(key) FROM index_entries WHERE key > ?1 UNION ALL \
         SELECT (SELECT min(key) FROM index_entries WHERE key > k.key) FROM k WHERE k.key IS NOT NULL) \
         SELECT key FROM k WHERE key IS NOT NULL LIMIT ?2",
    )?;
    let limit = i64::try_from(SUBJECT_PAGE).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![after, limit], |row| row.get::<_, Arc<str>>(0));
    let names: Vec<Arc<str>> = rows.and_then(Iterator::collect).map_err(|e| view.fail(&e))?;
    let cursor = names.last().filter(|_| names.len() == SUBJECT_PAGE).cloned();
    Ok(SubjectPage { subjects: names.into_iter().filter(|name| glob.matches(name)).collect(), cursor })
}
