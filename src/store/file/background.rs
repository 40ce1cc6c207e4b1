//! What the writer does between jobs, in bounded steps: finishing clears, purging, expiry, retention.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::shared::Shared;
use super::view::Tx;
use super::writer::WriterState;
use super::{events, kv};
use crate::error::Result;
use crate::sync::lock;

/// Rows that one step removes at most.
const STEP_LIMIT: i64 = 500;

/// Between two rounds of retention over every subject: this, or [`RETENTION_INTERVAL_FACTOR`] times what the last took.
const RETENTION_INTERVAL_MS: u64 = 60_000;
const RETENTION_INTERVAL_FACTOR: u32 = 20;

/// Shortest sleep between two rounds of expiry.
const MIN_SLEEP_DELAY: Duration = Duration::from_millis(50);

/// When which background work is due.
#[derive(Default)]
pub(super) struct Background {
    /// When retention starts its next round; 0 is at once.
    retention_at_ms: u64,
    /// Where the current round of retention continues.
    trim_after: Option<i64>,
    /// How long the current round has taken.
    trim_spent: Duration,
    /// Rows were removed since free pages were looked for.
    removed: bool,
}

impl Background {
    /// Does one step of what is due. Returns the time until the next step is due, or None if only a job can make one.
    pub(super) fn run(&mut self, writer: &mut WriterState, shared: &Shared) -> Option<Duration> {
        if writer.has_failed() {
            return None;
        }
        writer.cache.background_work = false;
        let now = shared.clock.now_ms();
        let retention = shared.retention();
        if !writer.cache.clears.is_empty() {
            clear_step(writer, shared);
        } else if writer.cache.purging {
            step(writer, shared, |tx| events::purge(tx, STEP_LIMIT).map(|done| tx.cache.purging = !done));
        } else if writer.cache.next_expiry.is_some_and(|at| at <= now) {
            step(writer, shared, |tx| kv::expire(tx, STEP_LIMIT).map(|_| ()));
        } else if retention.is_on() && (self.trim_after.is_some() || self.retention_at_ms <= now) {
            self.trim_step(writer, shared, now);
        } else if std::mem::take(&mut self.removed) {
            self.removed = writer.vacuum_step(shared, STEP_LIMIT);
            return Some(Duration::ZERO);
        } else {
            let retention_at = retention.is_on().then_some(self.retention_at_ms);
            let next = writer.cache.next_expiry.into_iter().chain(retention_at).min()?;
            return Some(Duration::from_millis(next.saturating_sub(now)).max(MIN_SLEEP_DELAY));
        }
        self.removed = true;
        Some(Duration::ZERO)
    }

    fn trim_step(&mut self, writer: &mut WriterState, shared: &Shared, now: u64) {
        let retention = shared.retention();
        let cutoff = retention.max_age_ms.map(|age| now.saturating_sub(age));
        let after = self.trim_after.unwrap_or(0);
        let mut next = None;
        let started = Instant::now();
        step(writer, shared, |tx| {
            let in_hand = |name: &str| lock(&shared.in_hand).get(name).copied();
            next = events::trim(tx, after, cutoff, retention.max_events_per_subject, STEP_LIMIT, in_hand)?;
            Ok(())
        });
        self.trim_after = next;
        self.trim_spent += started.elapsed();
        if next.is_none() {
            let pause = std::mem::take(&mut self.trim_spent) * RETENTION_INTERVAL_FACTOR;
            let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX).max(RETENTION_INTERVAL_MS);
            self.retention_at_ms = now.saturating_add(pause);
        }
    }
}

/// Finishes the clears that a caller waits for, before the store closes.
pub(super) fn finish_clears(writer: &mut WriterState, shared: &Shared) {
    while writer.cache.clears.iter().any(|purge| purge.caller.is_some()) && !writer.has_failed() {
        clear_step(writer, shared);
    }
}

fn step(writer: &mut WriterState, shared: &Shared, work: impl FnOnce(&mut Tx<'_>) -> Result<()>) {
    let before = writer.conn.total_changes();
    let mut result = Ok(());
    let committed = writer.transaction(shared, |tx| result = work(tx));
    if let Err(error) = committed.and(result) {
        tracing::warn!(code = %error.code(), dir = %shared.dir.display(), "background work failed: {error}");
    }
    let changed = writer.conn.total_changes() - before;
    let removed = changed.saturating_sub(std::mem::take(&mut writer.cache.bookkeeping));
    shared.gauges.removed.fetch_add(removed, Ordering::Relaxed);
}

/// Does one step of the oldest clear.
fn clear_step(writer: &mut WriterState, shared: &Shared) {
    let Some(mut purge) = writer.cache.clears.pop_front() else { return };
    let mut done = false;
    step(writer, shared, |tx| {
        let (removed, next) = kv::purge(tx, &purge.clear, &purge.after)?;
        purge.removed += removed;
        match next {
            Some(next) => purge.after = next,
            None => done = true,
        }
        Ok(())
    });
    match shared.failed() {
        Some(error) => purge.reply(Err(error)),
        None if done => {
            let removed = purge.removed;
            purge.reply(Ok(removed));
        }
        None => writer.cache.clears.push_front(purge),
    }
}
