//! The feed: events of all subjects, in the order of their rows.

use std::sync::Arc;

use rusqlite::params;

use super::schema::checksum;
use super::view::{Budget, Tx, View, checked, from_sql, to_sql};
use crate::error::{Error, Result};
use crate::json;
use crate::store::{
    ConsumerChange, ConsumerFilter, ConsumerInfo, ConsumerState, FeedPage, FeedQuery, FeedRecord, Origin, ParkedEvent,
    Position, unknown_consumer,
};
use crate::topic::Glob;

/// Returns the number of the newest event ever stored, or 0.
pub(super) fn newest(view: &View<'_>) -> Result<u64> {
    let row = view.first("SELECT max(id) FROM events", [], |row| row.get::<_, Option<i64>>(0))?.flatten();
    let stored = view.first("SELECT value FROM meta WHERE name = 'feed_newest'", [], |row| row.get::<_, String>(0))?;
    let stored = match stored {
        Some(text) => {
            text.parse().map_err(|_| Error::corrupt(format!("feed_newest in table meta: {text:?} is no number")))?
        }
        None => 0,
    };
    Ok(row.map_or(0, from_sql).max(stored))
}

/// Stores the number of the newest event, before events are removed: numbers are never given twice.
pub(super) fn store_newest(tx: &mut Tx<'_>) -> Result<()> {
    if tx.cache.stored_newest < tx.cache.newest {
        tx.execute(
            "INSERT OR REPLACE INTO meta (name, value) VALUES ('feed_newest', ?1)",
            [tx.cache.newest.to_string()],
        )?;
        tx.cache.stored_newest = tx.cache.newest;
        tx.cache.bookkeeping += 1;
    }
    Ok(())
}

/// Reads a page of the feed. Returns None if the budget was spent.
pub(super) fn read(view: &View<'_>, query: &FeedQuery, budget: Budget) -> Result<Option<FeedPage>> {
    let mut page = FeedPage::default();
    let after = query.after.as_ref().map_or(Ok(0), Position::number)?;
    if let Some(consumer) = &query.consumer {
        page.missed = missed(view, consumer)?;
    }
    if query.limit == 0 {
        return Ok(Some(page));
    }
    let mut bytes = 0;
    let mut statement = view.prepare(
        "SELECT e.id, s.name, e.type, e.record, e.sum FROM events e CROSS JOIN subjects s ON s.id = e.subject \
         WHERE e.id > ?1 ORDER BY e.id",
    )?;
    let mut rows = statement.query([to_sql(after)]).map_err(|e| view.fail(&e))?;
    // Events of one subject often come one after the other, and share its name.
    let mut subject: Arc<str> = "".into();
    while let Some(row) = rows.next().map_err(|e| view.fail(&e))? {
        if query.is_full(page.records.len(), bytes) {
            return Ok(Some(page));
        }
        let number = from_sql(row.get(0).map_err(|e| view.fail(&e))?);
        page.end = Some(number.into());
        let read = || Ok((row.get_ref(1)?.as_str_or_null()?, row.get_ref(2)?.as_str()?));
        let (name, kind) = read().map_err(|e: rusqlite::Error| view.fail(&e))?;
        // A subject without a name is deleted.
        if let Some(name) = name.filter(|name| query.matches(name, kind)) {
            let read = || Ok((row.get_ref(3)?.as_str()?, row.get(4)?));
            let (record, sum) = read().map_err(|e: rusqlite::Error| view.fail(&e))?;
            let record = checked(record, sum, "events", || number.to_string())?;
            bytes += record.len();
            if *subject != *name {
                subject = name.into();
            }
            page.records.push(FeedRecord {
                position: number.into(),
                subject: subject.clone(),
                event: record.into(),
                origin: Origin::Unknown,
            });
        }
        if !budget.lasts() {
            return Ok(None);
        }
    }
    let newest = newest(view)?;
    if newest > after {
        page.end = Some(newest.into());
    }
    Ok(Some(page))
}

fn missed(view: &View<'_>, consumer: &str) -> Result<u64> {
    let missed = view.first("SELECT missed FROM consumers WHERE name = ?1", [consumer], |row| row.get(0))?;
    Ok(missed.map_or(0, from_sql))
}

/// Returns what is stored of a consumer.
pub(super) fn load(view: &View<'_>, name: &str) -> Result<Option<ConsumerState>> {
    view.first(
        "SELECT position, missed, (SELECT count(*) FROM parked WHERE consumer = ?1) FROM consumers WHERE name = ?1",
        [name],
        |row| {
            Ok(ConsumerState {
                position: position(row.get(0)?),
                missed: from_sql(row.get(1)?),
                parked: from_sql(row.get(2)?),
            })
        },
    )
}

fn position(row: i64) -> Option<Position> {
    (row > 0).then(|| from_sql(row).into())
}

/// Stores a change of a consumer.
pub(super) fn save(tx: &mut Tx<'_>, name: &str, change: &ConsumerChange) -> Result<()> {
    let number = |position: &Position| position.number().map(to_sql);
    let position = change.position.as_ref().map(number).transpose()?;
    let park = change.park.iter().map(|event| Ok((number(&event.position)?, event))).collect::<Result<Vec<_>>>()?;
    let unpark = change.unpark.iter().map(number).collect::<Result<Vec<_>>>()?;
    let filter = change.filter.as_ref().map(json::to_json);
    tx.execute(
        "INSERT INTO consumers (name, position, missed, filter) VALUES (?1, coalesce(?2, 0), 0, coalesce(?4, '{}')) \
         ON CONFLICT (name) DO UPDATE SET position = coalesce(?2, position), missed = max(0, missed - ?3), \
         filter = coalesce(?4, filter)",
        params![name, position, to_sql(change.missed_reported), filter.as_deref()],
    )?;
    for (position, event) in park {
        tx.execute(
            "INSERT OR REPLACE INTO parked (consumer, position, subject, event, attempts, reason, parked_ms, sum) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                name,
                position,
                &*event.subject,
                &*event.event,
                event.attempts,
                event.reason,
                to_sql(event.parked_at_ms),
                checksum(&event.event)
            ],
        )?;
    }
    for position in unpark {
        tx.execute("DELETE FROM parked WHERE consumer = ?1 AND position = ?2", params![name, position])?;
    }
    Ok(())
}

/// Returns all consumers, by name.
pub(super) fn list(view: &View<'_>) -> Result<Vec<ConsumerInfo>> {
    let load = || {
        let mut statement = view.conn.prepare_cached(
            "SELECT name, position, (SELECT count(*) FROM parked WHERE consumer = name) FROM consumers ORDER BY name",
        )?;
        let rows = statement.query_map([], |row| {
            Ok(ConsumerInfo { name: row.get(0)?, position: position(row.get(1)?), parked: from_sql(row.get(2)?) })
        })?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    load().map_err(|e| view.fail(&e))
}

/// Deletes a consumer and its parked events. Returns whether it existed.
pub(super) fn delete(tx: &mut Tx<'_>, name: &str) -> Result<bool> {
    tx.execute("DELETE FROM parked WHERE consumer = ?1", [name])?;
    Ok(tx.execute("DELETE FROM consumers WHERE name = ?1", [name])? > 0)
}

/// Returns parked events of a consumer after a position.
pub(super) fn parked(view: &View<'_>, name: &str, after: u64, limit: usize) -> Result<Vec<ParkedEvent>> {
    let mut statement = view.prepare(
        "SELECT position, subject, event, attempts, reason, parked_ms, sum FROM parked \
         WHERE consumer = ?1 AND position > ?2 ORDER BY position LIMIT ?3",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![name, to_sql(after), limit]).map_err(|e| view.fail(&e))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(|e| view.fail(&e))? {
        let read = || {
            let (position, text) = (from_sql(row.get(0)?), row.get_ref(2)?.as_str()?);
            let event = ParkedEvent {
                position: position.into(),
                subject: row.get(1)?,
                event: text.into(),
                attempts: row.get(3)?,
                reason: row.get(4)?,
                parked_at_ms: from_sql(row.get(5)?),
            };
            Ok((event, row.get(6)?))
        };
        let (event, sum) = read().map_err(|e: rusqlite::Error| view.fail(&e))?;
        checked(&event.event, sum, "parked", || format!("of consumer {name:?} at {}", event.position))?;
        found.push(event);
    }
    Ok(found)
}

/// Stores that parked events are to be delivered again, these or all. Returns their number.
pub(super) fn request_replay(tx: &mut Tx<'_>, name: &str, numbers: Option<&[u64]>) -> Result<u64> {
    if tx.view.first("SELECT 1 FROM consumers WHERE name = ?1", [name], |_| Ok(()))?.is_none() {
        return Err(unknown_consumer(name));
    }
    let count = match numbers {
        None => tx.execute("UPDATE parked SET replay = 1 WHERE consumer = ?1", [name])?,
        Some(numbers) => {
            let one = "UPDATE parked SET replay = 1 WHERE consumer = ?1 AND position = ?2";
            numbers.iter().try_fold(0, |sum, number| Ok(sum + tx.execute(one, params![name, to_sql(*number)])?))?
        }
    };
    Ok(from_sql(count))
}

/// Returns the positions of parked events that are to be delivered again.
pub(super) fn replays(view: &View<'_>, name: &str) -> Result<Vec<Position>> {
    let mut statement =
        view.prepare("SELECT position FROM parked WHERE consumer = ?1 AND replay = 1 ORDER BY position")?;
    let rows = statement.query_map([name], |row| Ok(from_sql(row.get(0)?).into()));
    rows.and_then(Iterator::collect).map_err(|e| view.fail(&e))
}

/// A consumer, as retention sees it.
pub(super) struct Follower {
    name: Arc<str>,
    /// Its stored cursor.
    position: u64,
    /// What it has read and not yet stored ends here.
    in_hand: u64,
    subjects: Vec<Glob>,
    types: Vec<Glob>,
    /// Events removed before it had them.
    missed: u64,
}

impl Follower {
    /// Returns whether it has read this event and would need it again after a crash.
    pub(super) fn has_in_hand(&self, number: u64) -> bool {
        self.position < number && number <= self.in_hand
    }

    /// Counts an event that is removed.
    pub(super) fn count_removed(&mut self, number: u64, subject: &str, kind: &str) {
        let any = |globs: &[Glob], text: &str| globs.is_empty() || globs.iter().any(|glob| glob.matches(text));
        if number > self.position.max(self.in_hand) && any(&self.subjects, subject) && any(&self.types, kind) {
            self.missed += 1;
        }
    }
}

/// Returns the consumers of the store. `in_hand` returns up to where a consumer at work has read.
pub(super) fn followers(view: &View<'_>, in_hand: impl Fn(&str) -> Option<u64>) -> Result<Vec<Follower>> {
    let load = || {
        let mut statement = view.conn.prepare_cached("SELECT name, position, filter FROM consumers")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        rows.collect::<rusqlite::Result<Vec<(Arc<str>, i64, String)>>>()
    };
    let rows = load().map_err(|e| view.fail(&e))?;
    let follower = |(name, position, filter): (Arc<str>, i64, String)| {
        // A filter that cannot be read counts too much rather than too little.
        let filter: ConsumerFilter = serde_json::from_str(&filter).unwrap_or_default();
        let globs = |texts: &[Arc<str>]| texts.iter().map(|text| Glob::new(text)).collect();
        Follower {
            in_hand: in_hand(&name).unwrap_or(0),
            name,
            position: from_sql(position),
            subjects: globs(&filter.subjects),
            types: globs(&filter.types),
            missed: 0,
        }
    };
    Ok(rows.into_iter().map(follower).collect())
}

/// Stores what consumers have missed.
pub(super) fn store_missed(tx: &mut Tx<'_>, followers: &[Follower]) -> Result<()> {
    for follower in followers.iter().filter(|follower| follower.missed > 0) {
        tx.execute(
            "UPDATE consumers SET missed = missed + ?2 WHERE name = ?1",
            params![&*follower.name, to_sql(follower.missed)],
        )?;
        tx.cache.bookkeeping += 1;
    }
    Ok(())
}
