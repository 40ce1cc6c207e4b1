//! What the writer does between jobs, in bounded steps: purging, expiry, retention.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::engine::Engine;
use super::writer::Core;
use super::{events, kv};

/// Rows that one step removes at most.
const STEP: i64 = 500;

/// How long retention pauses after it has looked at every subject: this, or so many times what looking took.
const RETENTION_PAUSE_MS: u64 = 60_000;
const RETENTION_PAUSE_FACTOR: u32 = 20;

/// No shorter sleep between two rounds of expiry.
const SHORTEST_SLEEP: Duration = Duration::from_millis(50);

/// When what is due.
#[derive(Default)]
pub(super) struct Schedule {
    /// When retention starts its next round; 0 is at once.
    retention_at_ms: u64,
    /// Where a round that is under way goes on.
    trim_after: Option<i64>,
    /// How long it has worked in this round.
    trim_spent: Duration,
}

impl Core {
    /// Does one step of what is due. How long until there is more: None until the next job.
    pub(super) fn maintain(&mut self, engine: &Arc<Engine>) -> Option<Duration> {
        if self.has_failed() {
            return None;
        }
        self.memory.news = false;
        let now = engine.clock.now_ms();
        let retention = engine.retention();
        if !self.memory.clears.is_empty() {
            self.clear_step(engine);
        } else if self.memory.purging {
            self.step(engine, |tx| events::purge(tx, STEP).map(|done| tx.memory.purging = !done));
        } else if self.memory.next_expiry.is_some_and(|at| at <= now) {
            self.step(engine, |tx| kv::expire(tx, STEP).map(|_| ()));
        } else if retention.is_on() && (self.upkeep.trim_after.is_some() || self.upkeep.retention_at_ms <= now) {
            self.trim_step(engine, now);
        } else {
            return self.sleep(engine, now);
        }
        Some(Duration::ZERO)
    }

    fn sleep(&self, engine: &Engine, now: u64) -> Option<Duration> {
        let retention = engine.retention().is_on().then_some(self.upkeep.retention_at_ms);
        let next = self.memory.next_expiry.into_iter().chain(retention).min()?;
        Some(Duration::from_millis(next.saturating_sub(now)).max(SHORTEST_SLEEP))
    }

    fn step(&mut self, engine: &Engine, work: impl FnOnce(&mut super::view::Tx<'_>) -> crate::error::Result<()>) {
        let before = self.conn.total_changes();
        let mut told = Ok(());
        let outcome = self.transaction(engine, |tx| told = work(tx));
        if let Err(error) = outcome.and(told) {
            tracing::warn!(dir = %engine.dir.display(), "background work failed: {error}");
        }
        engine.gauges.removed.fetch_add(self.conn.total_changes() - before, Ordering::Relaxed);
    }

    /// One step of the oldest clear.
    fn clear_step(&mut self, engine: &Engine) {
        let Some(mut purge) = self.memory.clears.pop_front() else { return };
        let mut ended = false;
        self.step(engine, |tx| {
            let (removed, next) = kv::purge(tx, &purge.clear, &purge.after)?;
            purge.removed += removed;
            match next {
                Some(next) => purge.after = next,
                None => ended = true,
            }
            Ok(())
        });
        match engine.failed() {
            Some(error) => purge.reply(Err(error)),
            None if ended => {
                let removed = purge.removed;
                purge.reply(Ok(removed));
            }
            None => self.memory.clears.push_front(purge),
        }
    }

    /// Ends the clears that somebody waits for, before the store ends.
    pub(super) fn finish_clears(&mut self, engine: &Engine) {
        while self.memory.clears.iter().any(|purge| purge.caller.is_some()) && !self.has_failed() {
            self.clear_step(engine);
        }
    }

    fn trim_step(&mut self, engine: &Engine, now: u64) {
        let retention = engine.retention();
        let cutoff = retention.max_age_ms.map(|age| now.saturating_sub(age));
        let after = self.upkeep.trim_after.unwrap_or(0);
        let mut next = None;
        let started = Instant::now();
        self.step(engine, |tx| {
            next = events::trim(tx, after, cutoff, retention.max_events_per_subject, STEP)?;
            Ok(())
        });
        self.upkeep.trim_after = next;
        self.upkeep.trim_spent += started.elapsed();
        if next.is_none() {
            let pause = std::mem::take(&mut self.upkeep.trim_spent) * RETENTION_PAUSE_FACTOR;
            let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX).max(RETENTION_PAUSE_MS);
            self.upkeep.retention_at_ms = now.saturating_add(pause);
        }
    }
}
