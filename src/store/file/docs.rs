//! Documents in collections.

use std::sync::Arc;

use rusqlite::params;
use serde_json::Value;

use super::filter::TextPrefilter;
use super::schema::checksum;
use super::view::{Budget, Tx, View, checked};
use crate::error::Result;
use crate::json::{self, Json};
use crate::store::{DocQuery, compare_values};

/// Documents with their ids.
pub(super) type Page = Vec<(Arc<str>, Json)>;

/// Stores a document, replacing the one there.
pub(super) fn save(tx: &mut Tx<'_>, collection: &str, id: &str, doc: &str) -> Result<()> {
    tx.execute(
        "INSERT INTO documents (collection, id, doc, sum) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (collection, id) \
         DO UPDATE SET doc = excluded.doc, sum = excluded.sum",
        params![collection, id, doc, checksum(doc)],
    )?;
    Ok(())
}

fn doc_text<'r>(doc: &'r str, sum: Option<i64>, collection: &str, id: &str) -> Result<&'r str> {
    checked(doc, sum, "documents", || format!("of collection {collection:?}, id {id:?}"))
}

/// Returns one document.
pub(super) fn get(view: &View<'_>, collection: &str, id: &str) -> Result<Option<Json>> {
    let mut statement = view.prepare("SELECT doc, sum FROM documents WHERE collection = ?1 AND id = ?2")?;
    let mut rows = statement.query([collection, id]).map_err(|e| view.fail(&e))?;
    let Some(row) = rows.next().map_err(|e| view.fail(&e))? else {
        return Ok(None);
    };
    let read = || Ok((row.get_ref(0)?.as_str()?, row.get(1)?));
    let (doc, sum) = read().map_err(|e: rusqlite::Error| view.fail(&e))?;
    doc_text(doc, sum, collection, id).map(|doc| Some(doc.into()))
}

/// Returns documents of a collection, or None if the budget was spent.
pub(super) fn list(view: &View<'_>, collection: &str, query: &DocQuery, budget: Budget) -> Result<Option<Page>> {
    let limit = query.limit.unwrap_or(usize::MAX);
    let prefilter = TextPrefilter::new(&query.filter);
    let mut sorted: Vec<(Value, Arc<str>, Json)> = Vec::new();
    let mut found = Vec::new();
    let mut skip = query.offset;
    let order = if query.descending && query.sort_by.is_none() { "DESC" } else { "ASC" };
    let after = query.after.as_ref().filter(|_| query.sort_by.is_none()).map(|place| &*place.id);
    let begin = match after {
        None => "",
        Some(_) if query.descending => "AND id < ?2",
        Some(_) => "AND id > ?2",
    };
    let mut statement =
        view.prepare(&format!("SELECT id, doc, sum FROM documents WHERE collection = ?1 {begin} ORDER BY id {order}"))?;
    let mut rows = match after {
        None => statement.query([collection]),
        Some(after) => statement.query([collection, after]),
    }
    .map_err(|e| view.fail(&e))?;
    while found.len() < limit
        && let Some(row) = rows.next().map_err(|e| view.fail(&e))?
    {
        let read = || Ok((row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?, row.get(2)?));
        let (id, doc, sum) = read().map_err(|e: rusqlite::Error| view.fail(&e))?;
        if !budget.lasts() {
            return Ok(None);
        }
        if !prefilter.matches(doc_text(doc, sum, collection, id)?)? {
            continue;
        }
        match &query.sort_by {
            Some(path) => {
                let object = json::parse_object("document", doc)?;
                if !query.is_after(id, &object) {
                    continue;
                }
                let value = json::at_path(&object, path).cloned().unwrap_or(Value::Null);
                sorted.push((value, id.into(), doc.into()));
            }
            None if skip > 0 => skip -= 1,
            None => found.push((id.into(), doc.into())),
        }
    }
    if query.sort_by.is_some() {
        // They come by id ascending, and stay so where the values are equal.
        sorted.sort_by(|(a, ..), (b, ..)| if query.descending { compare_values(b, a) } else { compare_values(a, b) });
        found = sorted.into_iter().skip(query.offset).take(limit).map(|(_, id, doc)| (id, doc)).collect();
    }
    Ok(Some(found))
}

/// Deletes a document.
pub(super) fn delete(tx: &mut Tx<'_>, collection: &str, id: &str) -> Result<()> {
    tx.execute("DELETE FROM documents WHERE collection = ?1 AND id = ?2", [collection, id])?;
    Ok(())
}
