//! Backup and verification, on a reader, while the store is in use.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, ffi};

use super::adapter::{Extent, FileStore};
use super::config::DB_FILE;
use super::schema::checksum;
use super::transfer;
use super::view::{View, check_json};
use super::write_queue::Footprint;
use crate::disk;
use crate::error::{Error, Result};
use crate::op::Op;
use crate::store::{ExportPage, ExportPart, Imported, Maintenance, Verification};

/// Tables whose rows have a checksum: the name, what identifies a row, the checked text.
const CHECKED: [(&str, &str, &str); 5] = [
    ("events", "id", "record"),
    ("kv", "key", "value"),
    ("index_entries", "key || ' ' || id", "metadata"),
    ("documents", "collection || ' ' || id", "doc"),
    ("parked", "consumer || ' ' || position", "event"),
];

/// Problems of one table that are listed.
const MAX_PROBLEMS: usize = 100;

impl Maintenance for FileStore {
    fn backup(&self, path: &Path) -> Op<()> {
        let path = path.to_owned();
        self.read_view(Footprint::All, Extent::Range, move |view, budget| {
            if budget.is_short() {
                return Ok(None);
            }
            backup(view, &path).map(Some)
        })
    }

    fn export(&self, part: ExportPart, after: u64, limit: usize) -> Op<ExportPage> {
        self.read_view(Footprint::All, Extent::Range, move |view, budget| {
            if budget.is_short() {
                return Ok(None);
            }
            transfer::export(view, part, after, limit).map(Some)
        })
    }

    fn import(&self, lines: String) -> Op<Imported> {
        self.write_then(
            Footprint::All,
            move |tx| Ok((transfer::import(tx, &lines)?, tx.cache.newest)),
            |store, _, newest| store.feed.notify(newest),
        )
    }

    fn verify(&self) -> Op<Verification> {
        self.read_view(Footprint::All, Extent::Range, |view, budget| {
            if budget.is_short() {
                return Ok(None);
            }
            verify(view).map(Some)
        })
    }
}

fn backup(view: &View<'_>, path: &Path) -> Result<()> {
    let failed = |e: &std::io::Error| disk::failed("write the backup", path, e);
    // Also a link that leads nowhere.
    if path.symlink_metadata().is_ok() {
        return Err(Error::invalid(format!("path: {} is there already: choose a new name", path.display())));
    }
    let name = path.file_name().ok_or_else(|| Error::invalid("path: expected the name of a new file"))?;
    // A name that is used for nothing else, and a file that is created here: neither a link nor a file there is written to.
    static BACKUPS: AtomicU64 = AtomicU64::new(0);
    let mut partial = name.to_owned();
    partial.push(format!(".{}-{}.partial", std::process::id(), BACKUPS.fetch_add(1, Ordering::Relaxed)));
    let partial = path.with_file_name(partial);
    let file = disk::private_file().create_new(true).open(&partial).map_err(|e| failed(&e))?;
    let copied = copy(view.conn, &partial).map_err(|e| view.fail(&e));
    let finished = copied.and_then(|()| {
        let publish = || {
            file.sync_all()?;
            disk::rename_new(&partial, path)?;
            disk::sync_entry(path)
        };
        publish().map_err(|e| failed(&e))
    });
    if finished.is_err() {
        // The first error is the one that is returned.
        let _ = std::fs::remove_file(&partial);
    }
    finished
}

/// Copies all pages in one step, so that the copy is of the moment of the view.
fn copy(source: &Connection, path: &Path) -> rusqlite::Result<()> {
    let mut target = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    match Backup::new(source, &mut target)?.step(-1)? {
        StepResult::Done => Ok(()),
        // Unfinished without an error: another program has locked the new file.
        _ => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), None)),
    }
}

fn verify(view: &View<'_>) -> Result<Verification> {
    let mut found = Verification::default();
    match pages(view.conn) {
        Ok(problems) => found.problems = problems,
        Err(e) => found.problems.push(format!("{DB_FILE}: {e}")),
    }
    for (table, name, text) in CHECKED {
        // A table that cannot be read to its end is a problem, and the next one is read.
        if let Err(e) = rows(view.conn, &format!("SELECT {text}, sum, {name} FROM {table}"), table, &mut found) {
            found.problems.push(format!("table {table}: {e}"));
        }
    }
    if let Err(e) = copies(view.conn, &mut found) {
        found.problems.push(format!("table events: {e}"));
    }
    Ok(found)
}

/// Compares each record with the columns beside it. SQLite compares the other columns with their indexes.
fn copies(conn: &Connection, found: &mut Verification) -> rusqlite::Result<()> {
    let mut statement = conn.prepare(
        "SELECT id FROM events WHERE sum IS NOT NULL AND json_valid(record) AND (json_extract(record, '$.type') IS NOT \
         type OR json_extract(record, '$.ts') IS NOT ts OR json_extract(record, '$.id') IS NOT ms || '-' || seq)",
    )?;
    for row in statement.query_map([], |row| row.get::<_, i64>(0))? {
        found.problems.push(format!("table events, row {}: a column does not fit the record", row?));
    }
    Ok(())
}

fn pages(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = conn.prepare("PRAGMA integrity_check")?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
    lines.filter(|line| !matches!(line, Ok(line) if line == "ok")).collect()
}

fn rows(conn: &Connection, sql: &str, table: &str, found: &mut Verification) -> rusqlite::Result<()> {
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut wrong = 0;
    while let Some(row) = rows.next()? {
        found.rows += 1;
        let problem = match (row.get_ref(0)?.as_str(), row.get::<_, Option<i64>>(1)?) {
            (Ok(text), Some(sum)) if i64::from(checksum(text)) == sum => None,
            (Ok(text), None) => {
                check_json(text).err().map(|e| format!("was changed from outside and is no JSON ({e})"))
            }
            _ => Some("does not match its checksum".to_owned()),
        };
        if let Some(problem) = problem {
            wrong += 1;
            if wrong <= MAX_PROBLEMS {
                let name: rusqlite::types::Value = row.get(2)?;
                found.problems.push(format!("table {table}, row {name:?}: {problem}"));
            }
        }
    }
    Ok(())
}
