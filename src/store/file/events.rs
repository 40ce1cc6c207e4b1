//! Event subjects.

use std::sync::Arc;

use rusqlite::params;
use rusqlite::types::Value;

use super::feed;
use super::schema::checksum;
use super::view::{Budget, SubjectState, Tx, View, checked, from_sql, to_sql};
use crate::error::{Error, Result};
use crate::event::{Event, EventId, NewEvent};
use crate::json::Json;
use crate::store::{EventQuery, Expected, SUBJECT_PAGE, SubjectPage, out_of_order};
use crate::topic::Glob;

/// Stores an event at the end of a subject. Returns it, and its number in the feed.
pub(super) fn append(
    tx: &mut Tx<'_>,
    subject: &str,
    event: NewEvent,
    expected: Option<Expected>,
) -> Result<(Event, u64)> {
    let found = subject_state(tx, subject)?;
    if let Some(expected) = expected {
        expected.check(subject, found.and_then(|state| state.last))?;
    }
    let now = tx.view.now_ms;
    let mut floor = found.and_then(|state| state.last).max(tx.cache.id_floor);
    if found.is_none() && tx.cache.has_future_floors {
        let future = future_floor(&tx.view, subject);
        floor = floor.max(tx.check(future)?);
    }
    let id = EventId::next(floor, now);
    let row = match found {
        Some(state) => state.row,
        None => add_subject(tx, subject)?,
    };
    let event = event.persist(id, now);
    let number = insert(tx, (subject, row), id, to_sql(now), &event)?;
    Ok((event, number))
}

/// Stores an event that has its id, unless it is there. Returns whether it was stored. It is announced nowhere.
pub(super) fn import(tx: &mut Tx<'_>, subject: &str, event: &Event) -> Result<bool> {
    let id: EventId = event.id().parse()?;
    let found = subject_state(tx, subject)?;
    let row = match found {
        Some(SubjectState { row, last }) => {
            if let Some(last) = last.filter(|last| *last >= id) {
                let known = tx.view.first(
                    "SELECT 1 FROM events WHERE subject = ?1 AND ms = ?2 AND seq = ?3",
                    params![row, to_sql(id.ms), to_sql(id.seq)],
                    |_| Ok(()),
                )?;
                return if known.is_some() { Ok(false) } else { Err(out_of_order(subject, id, last)) };
            }
            row
        }
        None => add_subject(tx, subject)?,
    };
    insert(tx, (subject, row), id, event.ts().unwrap_or_default() as i64, event)?;
    Ok(true)
}

/// Adds a subject. Returns its row.
fn add_subject(tx: &mut Tx<'_>, subject: &str) -> Result<i64> {
    tx.execute("INSERT INTO subjects (name) VALUES (?1)", [subject])?;
    Ok(tx.view.conn.last_insert_rowid())
}

/// Adds an event to a subject, which has a row. Returns its number in the feed.
fn insert(tx: &mut Tx<'_>, (subject, row): (&str, i64), id: EventId, ts: i64, event: &Event) -> Result<u64> {
    let number = tx.cache.newest + 1;
    tx.execute(
        "INSERT INTO events (id, subject, ms, seq, ts, type, record, sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            to_sql(number),
            row,
            to_sql(id.ms),
            to_sql(id.seq),
            ts,
            event.kind(),
            &**event.json(),
            checksum(event.json())
        ],
    )?;
    tx.cache.newest = number;
    tx.cache.cache_subject(subject, SubjectState { row, last: Some(id) });
    Ok(number)
}

fn subject_state(tx: &mut Tx<'_>, subject: &str) -> Result<Option<SubjectState>> {
    if let Some(state) = tx.cache.subjects.get(subject) {
        return Ok(Some(*state));
    }
    let found = load_state(&tx.view, subject);
    let found = tx.check(found)?;
    if let Some(state) = found {
        tx.cache.cache_subject(subject, state);
    }
    Ok(found)
}

fn load_state(view: &View<'_>, subject: &str) -> Result<Option<SubjectState>> {
    let row = view.first("SELECT id FROM subjects WHERE name = ?1", [subject], |row| row.get(0))?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(SubjectState { row, last: nth_newest(view, row, 1)? }))
}

/// Deletes a subject: its name at once, its events later in [`purge`]. Returns whether it existed.
pub(super) fn delete(tx: &mut Tx<'_>, subject: &str) -> Result<bool> {
    let Some(state) = subject_state(tx, subject)? else { return Ok(false) };
    tx.execute("UPDATE subjects SET name = NULL WHERE id = ?1", [state.row])?;
    match state.last {
        // Only this subject goes on from there.
        Some(last) if last.is_far_ahead_of(tx.view.now_ms) => {
            tx.execute(
                "INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)",
                [format!("{FUTURE_FLOOR}{subject}"), last.to_string()],
            )?;
            tx.cache.has_future_floors = true;
        }
        Some(last) if state.last > tx.cache.id_floor => {
            tx.cache.id_floor = state.last;
            tx.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('id_floor', ?1)", [last.to_string()])?;
        }
        _ => {}
    }
    tx.cache.subjects.remove(subject);
    tx.cache.purging = true;
    tx.cache.background_work = true;
    Ok(true)
}

/// Returns the greatest id of any deleted subject that was not far in the future.
pub(super) fn id_floor(view: &View<'_>) -> Result<Option<EventId>> {
    stored_id(view, "id_floor")
}

/// The name in the table meta, before the subject's, of the last id of a deleted subject that was far in the future.
const FUTURE_FLOOR: &str = "id_floor:";

/// Returns whether there are deleted subjects with ids far in the future.
pub(super) fn has_future_floors(view: &View<'_>) -> Result<bool> {
    let found =
        view.first("SELECT 1 FROM meta WHERE name > 'id_floor:' AND name < 'id_floor;' LIMIT 1", [], |_| Ok(()))?;
    Ok(found.is_some())
}

fn future_floor(view: &View<'_>, subject: &str) -> Result<Option<EventId>> {
    stored_id(view, &format!("{FUTURE_FLOOR}{subject}"))
}

fn stored_id(view: &View<'_>, name: &str) -> Result<Option<EventId>> {
    let text = view.first("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get::<_, String>(0))?;
    text.map(|text| text.parse().map_err(|_| Error::corrupt(format!("{text:?} in table meta is no event id"))))
        .transpose()
}

/// Removes up to `limit` events of deleted subjects. Returns whether all are removed.
pub(super) fn purge(tx: &mut Tx<'_>, limit: i64) -> Result<bool> {
    let dead = tx.view.first("SELECT id FROM subjects WHERE name IS NULL LIMIT 1", [], |row| row.get::<_, i64>(0));
    let Some(dead) = tx.check(dead)? else {
        return Ok(true);
    };
    feed::store_newest(tx)?;
    let removed = tx.execute(
        "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE subject = ?1 ORDER BY ms, seq LIMIT ?2)",
        params![dead, limit],
    )?;
    if removed < limit {
        tx.execute("DELETE FROM subjects WHERE id = ?1", [dead])?;
    }
    Ok(false)
}

/// Applies retention to a few subjects after the one with this row. Returns where the next step continues. Events that a
/// consumer has in hand are kept for the next round; others that it has not had are counted as missed.
pub(super) fn trim(
    tx: &mut Tx<'_>,
    after: i64,
    cutoff_ms: Option<u64>,
    keep: Option<u64>,
    limit: i64,
    in_hand: impl Fn(&str) -> Option<u64>,
) -> Result<Option<i64>> {
    feed::store_newest(tx)?;
    let subjects = subjects_after(&tx.view, after);
    let subjects = tx.check(subjects)?;
    let followers = feed::followers(&tx.view, in_hand);
    let mut followers = tx.check(followers)?;
    let mut next = subjects.last().map(|(row, _)| *row);
    let mut left = limit;
    for (row, name) in subjects {
        let Some(name) = name else { continue };
        let running = is_running(&tx.view, row);
        let (cutoff_ms, keep) = if tx.check(running)? {
            let age = cutoff_ms.map(|cutoff| tx.view.now_ms.saturating_sub(cutoff).saturating_mul(MAX_RUN_FACTOR));
            (age.map(|age| tx.view.now_ms.saturating_sub(age)), keep.map(|keep| keep.saturating_mul(MAX_RUN_FACTOR)))
        } else {
            (cutoff_ms, keep)
        };
        let by_age = EventId { ms: cutoff_ms.unwrap_or(0), seq: 0 };
        if followers.is_empty() && subject_state(tx, &name)?.is_some_and(|state| state.last < Some(by_age)) {
            delete(tx, &name)?;
            continue;
        }
        let by_count = keep.map_or(Ok(None), |keep| nth_newest(&tx.view, row, keep));
        let bound = tx.check(by_count)?.map_or(by_age, |oldest| oldest.max(by_age));
        left -= trim_subject(tx, (row, &name), bound, left, &mut followers)?;
        let last = subject_state(tx, &name)?.and_then(|state| state.last);
        if left > 0
            && let Some(cutoff) = cutoff_ms
            && last.is_some_and(|last| last.is_far_ahead_of(tx.view.now_ms))
        {
            left -= trim_by_time(tx, (row, &name), cutoff, left, &mut followers)?;
        }
        if left == 0 {
            // This subject may have more events to remove.
            next = Some(row - 1);
            break;
        }
        if !followers.is_empty() {
            let last = nth_newest(&tx.view, row, 1);
            if tx.check(last)?.is_none() {
                delete(tx, &name)?;
            }
        }
    }
    feed::store_missed(tx, &followers)?;
    Ok(next)
}

/// A run that is not over keeps this many times as many events, and as old ones, as other subjects.
const MAX_RUN_FACTOR: u64 = 10;

/// Returns whether a subject is the log of a run that is not over: its state is the fold of all its events.
fn is_running(view: &View<'_>, subject: i64) -> Result<bool> {
    let first = view.first(
        "SELECT type = 'flow.start' FROM events WHERE subject = ?1 ORDER BY ms, seq LIMIT 1",
        [subject],
        |row| row.get::<_, bool>(0),
    )?;
    if first != Some(true) {
        return Ok(false);
    }
    // The newest of these decides: a run that failed can be retried.
    let last = view.first(
        "SELECT type FROM events WHERE subject = ?1 AND \
         type IN ('flow.completed', 'flow.failed', 'flow.cancel', 'flow.retry') ORDER BY ms DESC, seq DESC LIMIT 1",
        [subject],
        |row| row.get::<_, String>(0),
    )?;
    Ok(last.is_none_or(|kind| kind == "flow.retry"))
}

/// Removes up to `limit` events of a subject before an id. Returns the number of removed events.
fn trim_subject(
    tx: &mut Tx<'_>,
    subject: (i64, &str),
    before: EventId,
    limit: i64,
    followers: &mut [feed::Follower],
) -> Result<i64> {
    const OLD: &str =
        "SELECT id, type FROM events WHERE subject = ?1 AND (ms, seq) < (?2, ?3) ORDER BY ms, seq LIMIT ?4";
    remove(tx, subject, OLD, params![subject.0, to_sql(before.ms), to_sql(before.seq), limit], followers)
}

/// Removes up to `limit` events of a subject before a time, where its ids are those of a clock that was far ahead.
fn trim_by_time(
    tx: &mut Tx<'_>,
    subject: (i64, &str),
    before_ms: u64,
    limit: i64,
    followers: &mut [feed::Follower],
) -> Result<i64> {
    const OLD: &str = "SELECT id, type FROM events WHERE subject = ?1 AND ts < ?2 ORDER BY ms, seq LIMIT ?3";
    remove(tx, subject, OLD, params![subject.0, to_sql(before_ms), limit], followers)
}

/// Removes the events that a statement selects, and counts them for consumers that have not had them.
fn remove(
    tx: &mut Tx<'_>,
    (_, name): (i64, &str),
    select: &str,
    params: &[&dyn rusqlite::ToSql],
    followers: &mut [feed::Follower],
) -> Result<i64> {
    if followers.is_empty() {
        return tx.execute(&format!("DELETE FROM events WHERE id IN (SELECT id FROM ({select}))"), params);
    }
    let load = || {
        let mut statement = tx.view.conn.prepare_cached(select)?;
        let rows = statement.query_map(params, |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect::<rusqlite::Result<Vec<(i64, String)>>>()
    };
    let rows = load().map_err(|e| tx.view.fail(&e));
    let mut removed = 0;
    for (id, kind) in tx.check(rows)? {
        let number = from_sql(id);
        if followers.iter().any(|follower| follower.has_in_hand(number)) {
            continue;
        }
        followers.iter_mut().for_each(|follower| follower.count_removed(number, name, &kind));
        removed += tx.execute("DELETE FROM events WHERE id = ?1", [id])?;
    }
    Ok(removed)
}

/// Returns a page of the subjects that match, by name.
pub(super) fn subjects(view: &View<'_>, glob: &Glob, after: &str) -> Result<SubjectPage> {
    let limit = i64::try_from(SUBJECT_PAGE).unwrap_or(i64::MAX);
    let prefix = glob.literal_prefix();
    let load = || {
        let mut statement = view
            .conn
            .prepare_cached("SELECT name FROM subjects WHERE name > ?1 AND name >= ?2 ORDER BY name LIMIT ?3")?;
        let rows = statement.query_map(params![after, prefix, limit], |row| row.get::<_, Arc<str>>(0))?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    let names = load().map_err(|e| view.fail(&e))?;
    let more = names.len() == SUBJECT_PAGE && names.last().is_some_and(|name| name.starts_with(prefix));
    let cursor = names.last().filter(|_| more).cloned();
    Ok(SubjectPage { subjects: names.into_iter().filter(|name| glob.matches(name)).collect(), cursor })
}

/// Returns the next few subjects. Those without a name are deleted.
fn subjects_after(view: &View<'_>, after: i64) -> Result<Vec<(i64, Option<Arc<str>>)>> {
    let mut statement = view.prepare("SELECT id, name FROM subjects WHERE id > ?1 ORDER BY id LIMIT 64")?;
    let rows = statement.query_map([after], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.and_then(Iterator::collect).map_err(|e| view.fail(&e))
}

/// Returns the oldest of the newest `keep` events.
fn nth_newest(view: &View<'_>, subject: i64, keep: u64) -> Result<Option<EventId>> {
    view.first(
        "SELECT ms, seq FROM events WHERE subject = ?1 ORDER BY ms DESC, seq DESC LIMIT 1 OFFSET ?2",
        params![subject, to_sql(keep.max(1) - 1)],
        |row| Ok(EventId { ms: from_sql(row.get(0)?), seq: from_sql(row.get(1)?) }),
    )
}

/// Reads records of a subject. Returns None if the budget was spent.
pub(super) fn read(view: &View<'_>, subject: &str, query: &EventQuery, budget: Budget) -> Result<Option<Vec<Json>>> {
    let limit = query.limit.unwrap_or(usize::MAX);
    if limit == 0 {
        return Ok(Some(Vec::new()));
    }
    let Some((sql, params)) = event_query(subject, query) else {
        return Ok(Some(Vec::new()));
    };
    let mut statement = view.prepare(&sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(params)).map_err(|e| view.fail(&e))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(|e| view.fail(&e))? {
        let wanted = match &query.types {
            Some(types) => {
                let kind = row.get_ref(1).and_then(|kind| Ok(kind.as_str()?)).map_err(|e| view.fail(&e))?;
                types.iter().any(|wanted| wanted == kind)
            }
            None => true,
        };
        let ts: i64 = row.get(2).map_err(|e| view.fail(&e))?;
        let in_time = query.from.is_none_or(|from| ts as f64 >= from) && query.to.is_none_or(|to| ts as f64 <= to);
        if wanted && in_time {
            let record = row.get_ref(0).and_then(|text| Ok(text.as_str()?)).map_err(|e| view.fail(&e))?;
            let sum = row.get(3).map_err(|e| view.fail(&e))?;
            let record =
                checked(record, sum, "events", || format!("of subject {subject:?} after {} others", found.len()))?;
            found.push(Json::from(record));
        }
        if found.len() >= limit {
            break;
        }
        if !budget.lasts() {
            return Ok(None);
        }
    }
    Ok(Some(found))
}

/// Returns the statement for a query, or None if nothing can match. Type and time are filtered in its rows.
fn event_query(subject: &str, query: &EventQuery) -> Option<(String, Vec<Value>)> {
    let mut sql = String::from(
        "SELECT record, type, ts, sum FROM events WHERE subject = (SELECT id FROM subjects WHERE name = ?)",
    );
    let mut params = vec![Value::Text(subject.into())];
    // No id has numbers that large.
    let fits = |id: &EventId| i64::try_from(id.ms).is_ok();
    let mut bound = |condition: &str, id: EventId| {
        sql.push_str(condition);
        params.push(Value::Integer(to_sql(id.ms)));
        params.push(Value::Integer(to_sql(id.seq)));
    };
    match query.after {
        Some(after) if !fits(&after) => return None,
        Some(after) => bound(" AND (ms, seq) > (?, ?)", after),
        None => {}
    }
    if let Some(before) = query.before.filter(fits) {
        bound(" AND (ms, seq) < (?, ?)", before);
    }
    // An id's milliseconds are never before the event's time, so the time bounds the ids from below.
    if let Some(from) = query.from.filter(|from| *from >= 1.0) {
        bound(" AND (ms, seq) >= (?, ?)", EventId { ms: from as u64, seq: 0 });
    }
    let order = if query.descending { " ORDER BY ms DESC, seq DESC" } else { " ORDER BY ms, seq" };
    sql.push_str(order);
    Some((sql, params))
}
