//! Histograms, counters and gauges of the process, by name and labels.
//!
//! A component holds its series (an `Arc`) and adds to it without a lock; a measurement is two reads of the clock and
//! two additions. Adapters of one kind share a series, so that their sum is what is read, and nothing goes back when one
//! of them is closed. Names are labels only where an application has few of them: a family has a bounded number of
//! series, and whatever comes later is counted under [`OTHER`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::sync::lock;

/// Series of a family of histograms, each of which has a dozen numbers.
const MAX_HISTOGRAMS: usize = 200;

/// Series of a family of numbers: the five states of 200 queues.
const MAX_NUMBERS: usize = 1_000;

/// The labels, but for the first, of the series that those beyond the bound share.
pub const OTHER: &str = "other";

/// Upper bounds of the buckets of operations, in nanoseconds: from 5 µs to 5 s.
const OPERATION_BOUNDS: &[u64] = &[
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    5_000_000_000,
];

/// Upper bounds of the buckets of work and of delays, in nanoseconds: from 1 ms to 1 h.
const WORK_BOUNDS: &[u64] = &[
    1_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
    15_000_000_000,
    60_000_000_000,
    300_000_000_000,
    900_000_000_000,
    3_600_000_000_000,
];

/// Successful appends, from the call to the acknowledgement.
pub(crate) static APPEND: Family<Histogram> =
    Family::new("nvent_store_append_seconds", &["backend"], MAX_HISTOGRAMS, || Histogram::new(OPERATION_BOUNDS));
/// Commits of the file store that waited for the disk.
pub(crate) static SYNC: Family<Histogram> =
    Family::new("nvent_store_sync_seconds", &["backend"], MAX_HISTOGRAMS, || Histogram::new(OPERATION_BOUNDS));
/// Successful publishes, from the call to the acknowledgement by the broker.
pub(crate) static PUBLISH: Family<Histogram> =
    Family::new("nvent_stream_publish_seconds", &["backend"], MAX_HISTOGRAMS, || Histogram::new(OPERATION_BOUNDS));
/// Commits of the queue engine.
pub(crate) static QUEUE_COMMIT: Family<Histogram> =
    Family::new("nvent_queue_commit_seconds", &["backend"], MAX_HISTOGRAMS, || Histogram::new(OPERATION_BOUNDS));
/// From when a job could run to the call of its handler, first attempts only.
pub(crate) static JOB_WAIT: Family<Histogram> =
    Family::new("nvent_queue_job_wait_seconds", &["backend", "queue"], MAX_HISTOGRAMS, || Histogram::new(WORK_BOUNDS));
/// From the call of a handler until it settles.
pub(crate) static JOB_RUN: Family<Histogram> =
    Family::new("nvent_queue_job_run_seconds", &["backend", "queue", "job"], MAX_HISTOGRAMS, || {
        Histogram::new(WORK_BOUNDS)
    });
/// Ended attempts by their outcome.
pub(crate) static ATTEMPTS: Family<Counter> =
    Family::new("nvent_queue_attempts_total", &["backend", "queue", "outcome"], MAX_NUMBERS, Counter::default);
/// Jobs of open queues by their state.
pub(crate) static JOBS: Family<Gauge> =
    Family::new("nvent_queue_jobs", &["backend", "queue", "state"], MAX_NUMBERS, Gauge::default);
/// Open queues that are paused.
pub(crate) static PAUSED: Family<Gauge> =
    Family::new("nvent_queue_paused", &["backend", "queue"], MAX_NUMBERS, Gauge::default);
/// From the time of an event's id to the acknowledgement of its message.
pub(crate) static CHANNEL_LAG: Family<Histogram> =
    Family::new("nvent_channel_lag_seconds", &["channel"], MAX_HISTOGRAMS, || Histogram::new(WORK_BOUNDS));

/// A number that only grows.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A number that also falls. Its holders add what they have and take it away again when they end.
#[derive(Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds to it.
    pub fn add(&self, by: i64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }
}

/// Durations in buckets.
pub struct Histogram {
    bounds: &'static [u64],
    /// One per bound, and one for what is longer.
    buckets: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [u64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum_ns: AtomicU64::new(0) }
    }

    /// Adds a duration.
    pub fn observe(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let at = self.bounds.partition_point(|bound| *bound < ns);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Adds the time since `started`.
    pub fn observe_since(&self, started: Instant) {
        self.observe(started.elapsed());
    }
}

/// Series by the values of their labels.
type SeriesByLabels<T> = BTreeMap<Box<[Box<str>]>, Arc<T>>;

/// The series of one name.
pub struct Family<T: 'static> {
    name: &'static str,
    labels: &'static [&'static str],
    max_series: usize,
    create: fn() -> T,
    series: Mutex<SeriesByLabels<T>>,
}

impl<T> Family<T> {
    const fn new(name: &'static str, labels: &'static [&'static str], max_series: usize, create: fn() -> T) -> Self {
        Self { name, labels, max_series, create, series: Mutex::new(BTreeMap::new()) }
    }

    /// Returns the series with these values of the labels.
    pub fn with(&self, values: &[&str]) -> Arc<T> {
        let mut series = lock(&self.series);
        let own: Box<[Box<str>]> = values.iter().map(|value| Box::from(*value)).collect();
        let key = if series.contains_key(&own) || series.len() < self.max_series {
            own
        } else {
            values.iter().enumerate().map(|(i, value)| Box::from(if i == 0 { *value } else { OTHER })).collect()
        };
        series.entry(key).or_insert_with(|| Arc::new((self.create)())).clone()
    }

    fn samples(&self, out: &mut Vec<Sample>, value: impl Fn(&T) -> Value) {
        for (values, series) in lock(&self.series).iter() {
            let labels = self.labels.iter().copied().zip(values.iter().cloned()).collect();
            out.push(Sample { name: self.name, labels, value: value(series) });
        }
    }
}

impl Family<Gauge> {
    /// Removes the series that no component holds.
    fn prune(&self) {
        lock(&self.series).retain(|_, gauge| Arc::strong_count(gauge) > 1);
    }
}

/// What a series has.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Of a counter or a gauge.
    Number(f64),
    /// Of a histogram.
    Histogram {
        /// Upper bound in seconds, and how many were at most that long. The last bound is infinite.
        buckets: Vec<(f64, u64)>,
        /// Sum of all durations in seconds.
        sum: f64,
    },
}

/// A series as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The name of its family.
    pub name: &'static str,
    /// Names and values of its labels.
    pub labels: Vec<(&'static str, Box<str>)>,
    /// What it has.
    pub value: Value,
}

/// Reads all series of the process.
pub fn samples() -> Vec<Sample> {
    let mut out = Vec::new();
    for family in [&APPEND, &SYNC, &PUBLISH, &QUEUE_COMMIT, &JOB_WAIT, &JOB_RUN, &CHANNEL_LAG] {
        family.samples(&mut out, |histogram| {
            let mut count = 0;
            let bounds = histogram.bounds.iter().map(|ns| *ns as f64 / 1e9).chain([f64::INFINITY]);
            let buckets = bounds
                .zip(histogram.buckets.iter())
                .map(|(bound, bucket)| {
                    count += bucket.load(Ordering::Relaxed);
                    (bound, count)
                })
                .collect();
            Value::Histogram { buckets, sum: histogram.sum_ns.load(Ordering::Relaxed) as f64 / 1e9 }
        });
    }
    ATTEMPTS.samples(&mut out, |counter| Value::Number(counter.0.load(Ordering::Relaxed) as f64));
    for family in [&JOBS, &PAUSED] {
        family.prune();
        family.samples(&mut out, |gauge| Value::Number(gauge.0.load(Ordering::Relaxed) as f64));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_in_the_bucket_that_holds_them() {
        let histogram = Histogram::new(&[1_000, 2_000]);
        for ns in [0, 1_000, 1_001, 2_000, 2_001, u64::MAX / 4] {
            histogram.observe(Duration::from_nanos(ns));
        }
        let counts: Vec<_> = histogram.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        assert_eq!(counts, [2, 2, 2]);
    }

    #[test]
    fn a_family_has_a_bounded_number_of_series() {
        static FAMILY: Family<Counter> = Family::new("test", &["backend", "queue"], 100, Counter::default);
        for i in 0..150 {
            FAMILY.with(&["memory", &i.to_string()]).increment();
        }
        FAMILY.with(&["memory", "3"]).increment();
        assert_eq!(lock(&FAMILY.series).len(), 101);
        let count = |queue: &str| FAMILY.with(&["memory", queue]).0.load(Ordering::Relaxed);
        assert_eq!((count("3"), count(OTHER)), (2, 50));
    }

    #[test]
    fn a_gauge_that_nobody_holds_is_removed() {
        static FAMILY: Family<Gauge> = Family::new("test", &["queue"], 100, Gauge::default);
        let held = FAMILY.with(&["held"]);
        drop(FAMILY.with(&["dropped"]));
        FAMILY.prune();
        held.add(1);
        let names: Vec<_> = lock(&FAMILY.series).keys().map(|key| key[0].to_string()).collect();
        assert_eq!(names, ["held"]);
    }
}
