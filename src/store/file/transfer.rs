//! Export and import: every row as a line of JSON, with the texts as they are stored.

use rusqlite::params;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::view::{Tx, View, checked, from_sql, to_sql};
use super::{docs, index, kv};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::json::{self, push_string};
use crate::store::{ExportPage, ExportPart, Imported};

/// A page ends with the row that makes it larger than this.
const PAGE_BYTES: usize = 4 << 20;

/// Returns a page of a part, after a row.
pub(super) fn export(view: &View<'_>, part: ExportPart, after: u64, limit: usize) -> Result<ExportPage> {
    let (table, sql) = match part {
        ExportPart::Events => (
            "events",
            "SELECT e.id, e.record, e.sum, s.name, '', NULL, 0 FROM events e JOIN subjects s ON s.id = e.subject \
             WHERE e.id > ?1 AND s.name IS NOT NULL ORDER BY e.id LIMIT ?2",
        ),
        ExportPart::Values => {
            ("kv", "SELECT id, value, sum, key, '', expires_ms, epoch FROM kv WHERE id > ?1 ORDER BY id LIMIT ?2")
        }
        ExportPart::Entries => (
            "index_entries",
            "SELECT row, metadata, sum, key, id, score, 0 FROM index_entries WHERE row > ?1 ORDER BY row LIMIT ?2",
        ),
        ExportPart::Documents => (
            "documents",
            "SELECT row, doc, sum, collection, id, NULL, 0 FROM documents WHERE row > ?1 ORDER BY row LIMIT ?2",
        ),
    };
    let mut statement = view.prepare(sql)?;
    let limit = limit.clamp(1, 10_000);
    let mut rows = statement.query(params![to_sql(after), to_sql(limit as u64)]).map_err(|e| view.fail(&e))?;
    let mut page = ExportPage::default();
    let mut read = 0;
    while let Some(row) = rows.next().map_err(|e| view.fail(&e))? {
        read += 1;
        let fields = || {
            let number: Option<f64> = row.get(5)?;
            Ok((from_sql(row.get(0)?), row.get_ref(1)?.as_str()?, row.get(2)?, row.get_ref(3)?.as_str()?, number))
        };
        let (at, text, sum, name, number) = fields().map_err(|e: rusqlite::Error| view.fail(&e))?;
        let second = || Ok((row.get_ref(4)?.as_str()?, row.get(6)?));
        let (id, epoch) = second().map_err(|e: rusqlite::Error| view.fail(&e))?;
        page.next = Some(at);
        if part == ExportPart::Values
            && (number.is_some_and(|at| at <= view.now() as f64) || view.is_cleared(name, epoch))
        {
            continue;
        }
        let text = checked(text, sum, table, || at.to_string())?;
        push_line(&mut page.lines, part, at, text, name, id, number)?;
        page.rows += 1;
        if page.lines.len() > PAGE_BYTES {
            return Ok(page);
        }
    }
    if read < limit {
        page.next = None;
    }
    Ok(page)
}

fn push_line(
    out: &mut String,
    part: ExportPart,
    at: u64,
    text: &str,
    name: &str,
    id: &str,
    number: Option<f64>,
) -> Result<()> {
    out.push_str(&format!("{{\"at\":\"{}:{at}\",", part.name()));
    let mut field = |key: &str, value: &str| {
        out.push_str(&format!("\"{key}\":"));
        push_string(out, value);
        out.push(',');
    };
    let last = match part {
        ExportPart::Events => {
            field("subject", name);
            "event"
        }
        ExportPart::Values => {
            field("key", name);
            if let Some(expires) = number {
                out.push_str(&format!("\"expiresAt\":{expires},"));
            }
            "value"
        }
        ExportPart::Entries => {
            field("index", name);
            field("id", id);
            out.push_str(&format!("\"score\":{},", json::number(number.unwrap_or(0.0))?));
            "metadata"
        }
        ExportPart::Documents => {
            field("collection", name);
            field("id", id);
            "doc"
        }
    };
    out.push_str(&format!("\"{last}\":{text}}}\n"));
    Ok(())
}

/// A line of an export.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    subject: Option<String>,
    key: Option<String>,
    index: Option<String>,
    collection: Option<String>,
    id: Option<String>,
    score: Option<f64>,
    expires_at: Option<u64>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    doc: Option<&'a RawValue>,
}

/// Stores lines of an export. What is there already is skipped or replaced by the same.
pub(super) fn import(tx: &mut Tx<'_>, lines: &str) -> Result<Imported> {
    let mut done = Imported::default();
    for (number, text) in lines.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        match import_line(tx, text) {
            Ok(true) => done.added += 1,
            Ok(false) => done.skipped += 1,
            Err(error) => return Err(Error::new(error.code(), format!("line {}: {error}", number + 1))),
        }
    }
    Ok(done)
}

fn import_line(tx: &mut Tx<'_>, text: &str) -> Result<bool> {
    // The depth of each part is checked below, not that of the line: the line nests its parts one or two levels deeper.
    let line: Line<'_> =
        serde_json::from_str(text).map_err(|e| Error::invalid(format!("is no line of an export: {e}")))?;
    match line {
        Line { subject: Some(subject), event: Some(event), .. } => {
            let subject = crate::name::Subject::new(&subject)?;
            super::events::import(tx, subject, &Event::parse(event.get())?)
        }
        Line { key: Some(key), value: Some(value), expires_at, .. } => {
            let key = crate::name::Key::new(&key)?;
            if expires_at.is_some_and(|at| at <= tx.view.now_ms) {
                return Ok(false);
            }
            json::check_depth("value", value.get())?;
            kv::set(tx, key.as_str(), value.get(), expires_at).map(|()| true)
        }
        Line { index: Some(key), id: Some(id), score: Some(score), metadata: Some(metadata), .. } => {
            let (key, id) = (crate::name::Key::new(&key)?, crate::name::EntryId::new(&id)?);
            json::parse_object("metadata", metadata.get())?;
            index::add(tx, key.as_str(), id.as_str(), score, metadata.get()).map(|()| true)
        }
        Line { collection: Some(collection), id: Some(id), doc: Some(doc), .. } => {
            let (collection, id) = (crate::name::Collection::new(&collection)?, crate::name::DocId::new(&id)?);
            json::parse_object("doc", doc.get())?;
            docs::save(tx, collection.as_str(), id.as_str(), doc.get()).map(|()| true)
        }
        _ => Err(Error::invalid("is no line of an export: expected an event, a value, an index entry or a document")),
    }
}
