//! Keys and values.

use std::sync::Arc;

use rusqlite::{OptionalExtension, params};
use serde_json::Number;

use super::schema::checksum;
use super::view::{Clear, Tx, View, checked, from_sql, to_sql};
use crate::error::Result;
use crate::json::{self, Json};
use crate::topic::Glob;

/// Keys that one step of a clear reads.
const CLEAR_STEP_LIMIT: i64 = 500;

struct Found {
    value: Json,
    expires_ms: Option<i64>,
}

fn find(view: &View<'_>, key: &str) -> Result<Option<Found>> {
    let mut statement = view.prepare("SELECT value, expires_ms, epoch, sum FROM kv WHERE key = ?1")?;
    let mut rows = statement.query([key]).map_err(|e| view.fail(&e))?;
    let Some(row) = rows.next().map_err(|e| view.fail(&e))? else {
        return Ok(None);
    };
    let read = || {
        let text = row.get_ref(0)?.as_str()?;
        Ok((text, row.get::<_, Option<i64>>(1)?, row.get::<_, i64>(2)?, row.get::<_, Option<i64>>(3)?))
    };
    let (text, expires_ms, epoch, sum) = read().map_err(|e| view.fail(&e))?;
    if expires_ms.is_some_and(|at| at <= view.now()) || view.is_cleared(key, epoch) {
        return Ok(None);
    }
    let value = checked(text, sum, "kv", || format!("of key {key:?}"))?.into();
    Ok(Some(Found { value, expires_ms }))
}

/// Returns the live value of a key.
pub(super) fn get(view: &View<'_>, key: &str) -> Result<Option<Json>> {
    Ok(find(view, key)?.map(|found| found.value))
}

/// Sets a key, until a time or permanently.
pub(super) fn set(tx: &mut Tx<'_>, key: &str, value: &str, expires_ms: Option<u64>) -> Result<()> {
    remove_cleared(tx, key)?;
    if let Some(at) = expires_ms {
        tx.cache.note_expiry(at);
    }
    let epoch = tx.cache.kv_epoch;
    tx.execute(
        "INSERT INTO kv (key, value, expires_ms, epoch, sum) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (key) DO UPDATE \
         SET value = excluded.value, expires_ms = excluded.expires_ms, epoch = excluded.epoch, sum = excluded.sum",
        params![key, value, expires_ms.map(to_sql), epoch, checksum(value)],
    )?;
    Ok(())
}

/// Removes and counts the value that an unfinished clear would remove later, before the key gets another.
fn remove_cleared(tx: &mut Tx<'_>, key: &str) -> Result<()> {
    if tx.cache.clears.is_empty() {
        return Ok(());
    }
    let found = tx.view.first("SELECT epoch, expires_ms FROM kv WHERE key = ?1", [key], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?))
    });
    let Some((epoch, expires_ms)) = tx.check(found)? else { return Ok(()) };
    if let Some(purge) = tx.cache.clears.iter_mut().find(|purge| purge.clear.concerns(key, epoch)) {
        purge.removed += u64::from(is_live(expires_ms, purge.clear.at_ms));
        tx.execute("DELETE FROM kv WHERE key = ?1", [key])?;
    }
    Ok(())
}

fn is_live(expires_ms: Option<i64>, now_ms: u64) -> bool {
    expires_ms.is_none_or(|at| at > to_sql(now_ms))
}

/// Deletes a key.
pub(super) fn delete(tx: &mut Tx<'_>, key: &str) -> Result<()> {
    remove_cleared(tx, key)?;
    tx.execute("DELETE FROM kv WHERE key = ?1", [key])?;
    Ok(())
}

/// Adds to the number in a key, keeping its time to live.
pub(super) fn increment(tx: &mut Tx<'_>, key: &str, by: f64) -> Result<Number> {
    let found = find(&tx.view, key);
    let found = tx.check(found)?;
    let sum = json::add_to_text(key, found.as_ref().map(|found| &*found.value), by)?;
    let expires_ms = found.and_then(|found| found.expires_ms).map(from_sql);
    set(tx, key, &sum.to_string(), expires_ms)?;
    Ok(sum)
}

/// The outcome of a clear.
pub(super) enum Cleared {
    /// Done: the number of keys that had a live value.
    All(u64),
    /// The values are hidden, and will be removed and counted by [`purge`] in steps.
    Rest(Clear),
}

/// Clears the keys that a glob matches: removes them if they are few, otherwise hides them at once and removes them later.
pub(super) fn clear(tx: &mut Tx<'_>, pattern: &str) -> Result<Cleared> {
    let epoch = tx.cache.kv_epoch + 1;
    let clear = Clear { epoch, glob: Glob::new(pattern), at_ms: tx.view.now_ms };
    let step = removal_step(tx, &clear, "")?;
    if step.next.is_none() {
        remove(tx, &step.rows)?;
        return Ok(Cleared::All(step.live));
    }
    tx.execute("INSERT INTO kv_clears (epoch, pattern) VALUES (?1, ?2)", params![epoch, pattern])?;
    tx.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('kv_epoch', ?1)", [epoch.to_string()])?;
    tx.cache.kv_epoch = epoch;
    Arc::make_mut(&mut tx.view.clears).push(clear.clone());
    Ok(Cleared::Rest(clear))
}

struct Step {
    rows: Vec<i64>,
    live: u64,
    /// Where the next step continues.
    next: Option<Arc<str>>,
}

/// Returns which of the next keys a clear removes: not those written since, nor those that an earlier clear will remove.
fn removal_step(tx: &mut Tx<'_>, clear: &Clear, after: &str) -> Result<Step> {
    let view = &tx.view;
    let collect = || {
        let prefix = clear.glob.literal_prefix();
        let mut statement = view.conn.prepare_cached(
            "SELECT id, key, expires_ms, epoch FROM kv WHERE key > ?1 AND key >= ?2 ORDER BY key LIMIT ?3",
        )?;
        let mut rows = statement.query(params![after, prefix, CLEAR_STEP_LIMIT])?;
        let mut step = Step { rows: Vec::new(), live: 0, next: None };
        let mut seen = 0;
        while let Some(row) = rows.next()? {
            let key = row.get_ref(1)?.as_str()?;
            if !key.starts_with(prefix) {
                return Ok(step);
            }
            seen += 1;
            if seen == CLEAR_STEP_LIMIT {
                step.next = Some(key.into());
            }
            let epoch = row.get(3)?;
            let earlier = |other: &Clear| other.epoch < clear.epoch && other.concerns(key, epoch);
            if clear.concerns(key, epoch) && !view.clears.iter().any(earlier) {
                step.rows.push(row.get(0)?);
                step.live += u64::from(is_live(row.get(2)?, clear.at_ms));
            }
        }
        Ok(step)
    };
    let step = collect().map_err(|e: rusqlite::Error| view.fail(&e));
    tx.check(step)
}

fn remove(tx: &mut Tx<'_>, rows: &[i64]) -> Result<()> {
    for row in rows {
        tx.execute("DELETE FROM kv WHERE id = ?1", [row])?;
    }
    Ok(())
}

/// Does one step of a clear. Returns the number of live values removed, and where the next step continues.
pub(super) fn purge(tx: &mut Tx<'_>, clear: &Clear, after: &str) -> Result<(u64, Option<Arc<str>>)> {
    let step = removal_step(tx, clear, after)?;
    remove(tx, &step.rows)?;
    if step.next.is_none() {
        tx.execute("DELETE FROM kv_clears WHERE epoch = ?1", [clear.epoch])?;
        Arc::make_mut(&mut tx.view.clears).retain(|other| other.epoch != clear.epoch);
    }
    Ok((step.live, step.next))
}

/// Removes up to `limit` expired keys. Returns whether all are removed; then the time of the next one is known.
pub(super) fn expire(tx: &mut Tx<'_>, limit: i64) -> Result<bool> {
    let now = tx.view.now();
    let removed = tx.execute(
        "DELETE FROM kv WHERE id IN \
         (SELECT id FROM kv WHERE expires_ms IS NOT NULL AND expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2)",
        params![now, limit],
    )?;
    if removed >= limit {
        return Ok(false);
    }
    let next = next_expiry(&tx.view);
    tx.cache.next_expiry = tx.check(next)?;
    Ok(true)
}

/// Returns when the next key expires.
pub(super) fn next_expiry(view: &View<'_>) -> Result<Option<u64>> {
    let next = view
        .first("SELECT min(expires_ms) FROM kv WHERE expires_ms IS NOT NULL", [], |row| row.get::<_, Option<i64>>(0))?;
    Ok(next.flatten().map(from_sql))
}

/// Returns the unfinished clears of the last process, and the epoch of new values.
pub(super) fn unfinished(view: &View<'_>) -> Result<(Vec<Clear>, i64)> {
    let load = || {
        let mut statement = view.conn.prepare("SELECT epoch, pattern FROM kv_clears ORDER BY epoch")?;
        let clears = statement
            .query_map([], |row| {
                Ok(Clear { epoch: row.get(0)?, glob: Glob::new(row.get_ref(1)?.as_str()?), at_ms: 0 })
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let epoch = view
            .conn
            .query_row("SELECT value FROM meta WHERE name = 'kv_epoch'", [], |row| row.get::<_, String>(0))
            .optional()?;
        Ok((clears, epoch.and_then(|text| text.parse().ok()).unwrap_or(0)))
    };
    load().map_err(|e: rusqlite::Error| view.fail(&e))
}
