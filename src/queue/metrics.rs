//! What is measured of a queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::job::State;
use super::storage::QueueRow;
use crate::metrics::{ATTEMPTS, Counter, Gauge, Histogram, JOB_RUN, JOB_WAIT, JOBS, PAUSED};

/// The states in the order of [`QueueRow::counts`].
const STATES: [&str; 5] = {
    let mut names = [""; 5];
    names[State::Waiting as usize] = "waiting";
    names[State::Delayed as usize] = "delayed";
    names[State::Active as usize] = "active";
    names[State::Completed as usize] = "completed";
    names[State::Failed as usize] = "failed";
    names
};

/// The series of a queue, which the queues of that name on one backend share.
pub(super) struct QueueMetrics {
    backend: &'static str,
    queue: Arc<str>,
    wait: Arc<Histogram>,
    run: HashMap<Arc<str>, Arc<Histogram>>,
    pub(super) completed: Arc<Counter>,
    pub(super) failed: Arc<Counter>,
    pub(super) timed_out: Arc<Counter>,
    jobs: [Arc<Gauge>; 5],
    paused: Arc<Gauge>,
    /// What this queue has added to the gauges.
    added: ([i64; 5], i64),
}

impl QueueMetrics {
    pub(super) fn new(backend: &'static str, queue: Arc<str>) -> Self {
        let attempts = |outcome: &str| ATTEMPTS.with(&[backend, &queue, outcome]);
        Self {
            wait: JOB_WAIT.with(&[backend, &queue]),
            run: HashMap::new(),
            completed: attempts("completed"),
            failed: attempts("failed"),
            timed_out: attempts("timed_out"),
            jobs: STATES.map(|state| JOBS.with(&[backend, &queue, state])),
            paused: PAUSED.with(&[backend, &queue]),
            added: ([0; 5], 0),
            backend,
            queue,
        }
    }

    /// Sets what this queue contributes to the gauges.
    pub(super) fn set_row(&mut self, row: &QueueRow) {
        self.set(row.counts.map(|count| i64::try_from(count).unwrap_or(i64::MAX)), i64::from(row.paused));
    }

    fn set(&mut self, counts: [i64; 5], paused: i64) {
        let (before, was_paused) = std::mem::replace(&mut self.added, (counts, paused));
        for (gauge, (count, before)) in self.jobs.iter().zip(counts.into_iter().zip(before)) {
            if count != before {
                gauge.add(count - before);
            }
        }
        self.paused.add(paused - was_paused);
    }

    /// Records how long a job waited.
    pub(super) fn waited(&self, ms: u64) {
        self.wait.observe(Duration::from_millis(ms));
    }

    /// Records how long a handler ran.
    pub(super) fn ran(&mut self, job: &Arc<str>, started: Instant, settled: Instant) {
        let Self { backend, queue, run, .. } = self;
        let run = run.entry(job.clone()).or_insert_with(|| JOB_RUN.with(&[backend, queue, job]));
        run.observe(settled.saturating_duration_since(started));
    }
}

impl Drop for QueueMetrics {
    fn drop(&mut self) {
        self.set([0; 5], 0);
    }
}
