//! Taking over what nvent's own file adapter left in the directory.
//!
//! It keeps `streams/<subject>.ndjson`, `indices/<key>.json` and `kv/<key>.json`, and writes every character of a name
//! that is none of `A-Z a-z 0-9 _ . -` as `_`. The name alone does not say which of them a `_` was: it becomes
//! `:`, as nvent itself reads it, except where the events in a subject name their run or trigger. The old files stay.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

use super::errors;
use super::schema::checksum;
use super::view::{from_sql, to_sql};
use crate::disk;
use crate::error::{Error, Result};
use crate::event::{EventId, NewEvent, parseable};
use crate::json::{self, Object};

/// The folders of nvent's file adapter, and the endings of their files.
const FOLDERS: [(&str, &str); 3] = [("streams", ".ndjson"), ("indices", ".json"), ("kv", ".json")];

/// Number of files from which on progress is shown on a terminal.
const PROGRESS_THRESHOLD: usize = 200;

/// Problems that are listed.
const MAX_PROBLEMS: usize = 20;

#[derive(Default)]
struct Report {
    events: usize,
    entries: usize,
    keys: usize,
    problems: Vec<String>,
}

impl Report {
    fn skip(&mut self, path: &Path, why: impl std::fmt::Display) {
        self.problems.push(format!("{}: {why}", path.display()));
    }

    fn text(&self, dir: &Path) -> String {
        let Self { events, entries, keys, problems } = self;
        let mut text = format!(
            "imported {events} events, {entries} index entries and {keys} keys of nvent's own file adapter from {}; \
             its files were left as they are, and a \"_\" in their names was read as \":\"",
            dir.display()
        );
        if !problems.is_empty() {
            text.push_str(&format!(
                "; skipped {}: {}",
                problems.len(),
                problems[..problems.len().min(MAX_PROBLEMS)].join("; ")
            ));
        }
        text
    }
}

/// Imports an older store in one transaction, once. Returns a report if there was one.
pub(super) fn run(conn: &Connection, dir: &Path, now_ms: u64) -> Result<Option<String>> {
    let sql = |e: rusqlite::Error| errors::sql(dir, &e);
    let known: Option<String> =
        conn.query_row("SELECT value FROM meta WHERE name = 'import'", [], |row| row.get(0)).optional().map_err(sql)?;
    if known.is_some() {
        return Ok(None);
    }
    let mut files = Vec::new();
    for (folder, ending) in FOLDERS {
        files.extend(list(&dir.join(folder), ending)?.into_iter().map(|path| (folder, ending, path)));
    }
    let transaction = conn.unchecked_transaction().map_err(sql)?;
    let mut report = Report::default();
    let progress = files.len() >= PROGRESS_THRESHOLD && std::io::stderr().is_terminal();
    for (at, (folder, ending, path)) in files.iter().enumerate() {
        if progress && at % 50 == 0 {
            eprint!("\rnvent-native: importing {} of {} files", at + 1, files.len());
        }
        let stem = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(ending));
        let (Some(stem), Ok(bytes)) = (stem, fs::read(path)) else {
            report.skip(path, "cannot be read");
            continue;
        };
        let name = stem.replace('_', ":");
        let text = String::from_utf8_lossy(&bytes);
        match *folder {
            "streams" => import_stream(conn, (stem, now_ms), &text, path, &mut report),
            "indices" => import_index(conn, &name, &text, path, &mut report),
            _ => import_key(conn, &name, &text, path, &mut report),
        }
        .map_err(sql)?;
    }
    if progress {
        eprintln!("\rnvent-native: imported {} files            ", files.len());
    }
    let text = (!files.is_empty()).then(|| report.text(dir));
    conn.execute("INSERT INTO meta (name, value) VALUES ('import', ?1)", [text.as_deref().unwrap_or("nothing")])
        .map_err(sql)?;
    transaction.commit().map_err(sql)?;
    if let Some(text) = &text {
        tracing::warn!(code = "NVENT_IMPORT", "{text}");
    }
    Ok(text)
}

fn list(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let failed = |e: std::io::Error| disk::failed("list the folder", folder, &e);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.is_file() && path.as_os_str().to_str().is_some_and(|name| name.ends_with(ending)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn import_stream(
    conn: &Connection,
    (stem, now_ms): (&str, u64),
    text: &str,
    path: &Path,
    report: &mut Report,
) -> rusqlite::Result<()> {
    let mut insert = conn.prepare_cached(
        "INSERT INTO events (subject, ms, seq, ts, type, record, sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    // Its row and its last event. Its name is known from the first event that can be read.
    let mut subject = None;
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let (ts, fields, event) = match parse_event(line) {
            Ok(parsed) => parsed,
            Err(e) => {
                report.skip(path, format_args!("line {}: {e}", number + 1));
                continue;
            }
        };
        let (row, last) = match subject {
            Some(known) => known,
            None => begin_subject(conn, &subject_name(stem, &fields))?,
        };
        // A time in the future must not move the ids that come after it.
        let id = EventId::next(last, ts.min(now_ms));
        let event = event.persist(id, ts);
        insert.execute(params![
            row,
            to_sql(id.ms),
            to_sql(id.seq),
            to_sql(ts),
            event.kind(),
            &**event.json(),
            checksum(event.json())
        ])?;
        subject = Some((row, Some(id)));
        report.events += 1;
    }
    Ok(())
}

/// Returns the row of a subject and its last event. Two files can have the same name.
fn begin_subject(conn: &Connection, name: &str) -> rusqlite::Result<(i64, Option<EventId>)> {
    conn.execute("INSERT INTO subjects (name) VALUES (?1) ON CONFLICT (name) DO NOTHING", [name])?;
    let row = conn.query_row("SELECT id FROM subjects WHERE name = ?1", [name], |row| row.get(0))?;
    let last = conn
        .query_row("SELECT ms, seq FROM events WHERE subject = ?1 ORDER BY ms DESC, seq DESC LIMIT 1", [row], |row| {
            Ok(EventId { ms: from_sql(row.get(0)?), seq: from_sql(row.get(1)?) })
        })
        .optional()?;
    Ok((row, last))
}

/// Returns the time, the fields, and the event without the id of nvent (`<ms>-<random>`, which has no order).
fn parse_event(line: &str) -> Result<(u64, Object, NewEvent)> {
    let object = json::parse_object("event", &parseable(line))?;
    let ts = object.get("ts").and_then(Value::as_f64).filter(|ts| *ts >= 0.0);
    let ts = ts.ok_or_else(|| Error::invalid("event.ts: expected a number"))?;
    Ok((ts as u64, object, NewEvent::parse(line)?))
}

/// Returns the subject whose file is named `stem`. If its events name their run or trigger, that spelling is used.
fn subject_name(stem: &str, event: &Object) -> String {
    let text = |field: &str| event.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    for name in [text("runId"), text("triggerName")].into_iter().flatten() {
        if let Some(before) = stem.strip_suffix(sanitize(name).as_str()) {
            return format!("{}{name}", before.replace('_', ":"));
        }
    }
    stem.replace('_', ":")
}

/// Returns a name as nvent's file adapter writes it.
fn sanitize(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    // JavaScript counts UTF-16 units: what takes two of them becomes two underscores.
    name.chars().map(|c| if plain(c) { c.to_string() } else { "_".repeat(c.len_utf16()) }).collect()
}

fn import_index(conn: &Connection, key: &str, text: &str, path: &Path, report: &mut Report) -> rusqlite::Result<()> {
    let Ok(Value::Array(entries)) = json::parse("index", text) else {
        report.skip(path, "not the JSON array that an index is");
        return Ok(());
    };
    let mut insert = conn.prepare_cached(
        "INSERT INTO index_entries (key, id, score, metadata, sum) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (key, id) DO NOTHING",
    )?;
    for (at, entry) in entries.into_iter().enumerate() {
        let (Some(id), Some(score)) = (entry["id"].as_str(), entry["score"].as_f64()) else {
            report.skip(path, format_args!("entry {at} has no id or no score"));
            continue;
        };
        let mut metadata = match &entry["metadata"] {
            Value::Object(metadata) => metadata.clone(),
            _ => Object::new(),
        };
        metadata.entry(json::VERSION).or_insert_with(|| Value::from(0));
        let metadata = json::to_json(&metadata);
        report.entries += insert.execute(params![key, id, score, &*metadata, checksum(&metadata)])?;
    }
    Ok(())
}

fn import_key(conn: &Connection, key: &str, text: &str, path: &Path, report: &mut Report) -> rusqlite::Result<()> {
    let text = text.trim();
    if let Err(e) = json::parse("value", text) {
        report.skip(path, e);
        return Ok(());
    }
    let mut insert = conn.prepare_cached(
        "INSERT INTO kv (key, value, epoch, sum) VALUES (?1, ?2, 0, ?3) ON CONFLICT (key) DO NOTHING",
    )?;
    report.keys += insert.execute(params![key, text, checksum(text)])?;
    Ok(())
}
