//! The database file: how it is opened, its tables, and how older versions become this one.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::config::DB_FILE;
use super::errors;
use crate::disk;
use crate::error::{Error, Result};

/// The version of the tables that this code reads and writes.
pub(super) const VERSION: i64 = 3;

/// `nvnt`, in the header of every file of this package.
const APPLICATION_ID: i64 = 0x6e76_6e74;

/// How long to wait for another program (the sqlite3 CLI, a backup tool) that has locked the database.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Statements of one connection that stay prepared.
const STATEMENTS: usize = 64;

/// One step per version: `MIGRATIONS[n]` makes version n + 1 of version n.
const MIGRATIONS: &[&str] = &[
    // 1. `sum` is the CRC-32 of the text beside it, or NULL for a row that is not checked.
    "
    -- id_floor: ids up to here were given in subjects that are deleted. kv_epoch: see kv. import: what was imported.
    CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL);

    -- A deleted subject loses its name and is purged later.
    CREATE TABLE subjects (id INTEGER PRIMARY KEY, name TEXT UNIQUE);
    CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        subject INTEGER NOT NULL,
        ms INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        ts INTEGER NOT NULL,
        type TEXT NOT NULL,
        record TEXT NOT NULL,
        sum INTEGER
    );
    CREATE UNIQUE INDEX events_by_id ON events (subject, ms, seq);

    -- `epoch` is what kv_epoch of meta was when the value was written: a clear kills what is older than itself.
    CREATE TABLE kv (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        value TEXT NOT NULL,
        expires_ms INTEGER,
        epoch INTEGER NOT NULL,
        sum INTEGER
    );
    CREATE INDEX kv_by_expiry ON kv (expires_ms) WHERE expires_ms IS NOT NULL;
    CREATE TABLE kv_clears (epoch INTEGER PRIMARY KEY, pattern TEXT NOT NULL);

    CREATE TABLE index_entries (
        row INTEGER PRIMARY KEY,
        key TEXT NOT NULL,
        id TEXT NOT NULL,
        score REAL NOT NULL,
        metadata TEXT NOT NULL,
        sum INTEGER,
        UNIQUE (key, id)
    );
    CREATE INDEX index_entries_by_score ON index_entries (key, score DESC, id);

    CREATE TABLE documents (
        row INTEGER PRIMARY KEY,
        collection TEXT NOT NULL,
        id TEXT NOT NULL,
        doc TEXT NOT NULL,
        sum INTEGER,
        UNIQUE (collection, id)
    );

    -- For people with the sqlite3 CLI.
    CREATE VIEW event_log AS
        SELECT s.name AS subject, e.ms || '-' || e.seq AS id, datetime(e.ts / 1000, 'unixepoch') AS time, e.type, e.record
        FROM events e JOIN subjects s ON s.id = e.subject ORDER BY e.id;
    ",
    // 2. The order of rows in events is the feed; feed_newest in meta is a row that was given, so that none is given twice.
    "
    -- `missed` counts events that retention removed before the consumer had them. `filter`: {subjects, types}, globs.
    CREATE TABLE consumers (
        name TEXT NOT NULL PRIMARY KEY,
        position INTEGER NOT NULL,
        missed INTEGER NOT NULL,
        filter TEXT NOT NULL
    );
    CREATE TABLE parked (
        consumer TEXT NOT NULL,
        position INTEGER NOT NULL,
        subject TEXT NOT NULL,
        event TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        reason TEXT NOT NULL,
        parked_ms INTEGER NOT NULL,
        sum INTEGER,
        PRIMARY KEY (consumer, position)
    );
    ",
    // 3. `replay` is 1 where a parked event is to be delivered again.
    "ALTER TABLE parked ADD COLUMN replay INTEGER NOT NULL DEFAULT 0;",
];

/// Returns the checksum that is stored beside a text.
pub(super) fn checksum(text: &str) -> u32 {
    crc32fast::hash(text.as_bytes())
}

/// Opens the connection that writes, and brings the tables up to date.
pub(super) fn open_writer(dir: &Path) -> Result<Connection> {
    let path = dir.join(DB_FILE);
    // SQLite would create it readable by everyone; its WAL takes the permissions over from here.
    disk::private_file().open(&path).map_err(|e| disk::failed("open the database", &path, &e))?;
    let sql = |e: rusqlite::Error| errors::sql(dir, &e);
    let conn = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(sql)?;
    configure(&conn).map_err(sql)?;
    check_owner(&conn, &path)?;
    // auto_vacuum takes effect in a file that is created here: free pages are then given back in the background.
    // A page of events holds a dozen: 4 kB pages, 16 MB of them in the writer's cache at most.
    conn.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -16384; \
         PRAGMA journal_size_limit = 67108864; PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON;",
    )
    .map_err(sql)?;
    migrate(&conn).map_err(sql)?;
    Ok(conn)
}

/// The oldest version of the tables that can be read without bringing them up to date.
const OLDEST_READABLE: i64 = 2;

/// Opens the database of a store that is only read. The tables stay as they are.
pub(super) fn open_to_read(dir: &Path) -> Result<Connection> {
    let path = dir.join(DB_FILE);
    if !path.exists() {
        return Err(Error::not_found(format!("{}: there is no store in this directory", path.display())));
    }
    let sql = |e: rusqlite::Error| errors::sql(dir, &e);
    let conn = open_reader(dir).map_err(sql)?;
    check_owner(&conn, &path)?;
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sql)?;
    if version < OLDEST_READABLE {
        return Err(Error::invalid(format!(
            "{}: has tables of version {version}, which are not read: open the store once with the application, which \
             brings them to version {VERSION}",
            path.display()
        )));
    }
    Ok(conn)
}

/// Opens a connection that only reads.
pub(super) fn open_reader(dir: &Path) -> Result<Connection, rusqlite::Error> {
    let conn = Connection::open_with_flags(
        dir.join(DB_FILE),
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    configure(&conn)?;
    Ok(conn)
}

fn configure(conn: &Connection) -> Result<(), rusqlite::Error> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.execute_batch("PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;")
}

/// Refuses databases of other programs and of newer versions, before anything is changed.
fn check_owner(conn: &Connection, path: &Path) -> Result<()> {
    let dir = path.parent().unwrap_or(path);
    let pragma = |name: &str| -> Result<i64> {
        conn.pragma_query_value(None, name, |row| row.get(0)).map_err(|e| errors::sql(dir, &e))
    };
    let (owner, version) = (pragma("application_id")?, pragma("user_version")?);
    if version > VERSION && owner == APPLICATION_ID {
        return Err(Error::corrupt(format!(
            "{}: written by a newer nvent-native (schema {version}, this one knows up to {VERSION}): \
             upgrade nvent-native, or use another dataDir",
            path.display()
        )));
    }
    let tables: i64 =
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(|e| errors::sql(dir, &e))?;
    if owner != APPLICATION_ID && tables > 0 {
        return Err(Error::corrupt(format!(
            "{}: this is a database of another program: use another dataDir",
            path.display()
        )));
    }
    Ok(())
}

/// Runs each migration in a transaction of its own, which also sets the version.
fn migrate(conn: &Connection) -> Result<(), rusqlite::Error> {
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let done = usize::try_from(version).unwrap_or(0);
    for (step, sql) in MIGRATIONS.iter().enumerate().skip(done) {
        let transaction = conn.unchecked_transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", i64::try_from(step + 1).unwrap_or(i64::MAX))?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.commit()?;
    }
    Ok(())
}
