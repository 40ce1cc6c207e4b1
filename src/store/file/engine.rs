//! An open store: what the adapters on one directory share.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rusqlite::Connection;

use super::Retention;
use super::queue::Queue;
use super::readers::Readers;
use super::registry::Ended;
use super::schema::DB_FILE;
use super::view::{Clear, View};
use super::writer::Core;
use crate::error::Error;
use crate::fanout::TopicRegistry;
use crate::store::{Stats, Stored};
use crate::time::SharedClock;

/// An open store.
pub(super) struct Engine {
    pub(super) dir: PathBuf,
    pub(super) clock: SharedClock,
    pub(super) queue: Arc<Queue>,
    pub(super) readers: Arc<Readers>,
    pub(super) hub: TopicRegistry<Stored>,
    pub(super) ended: Arc<Ended>,
    pub(super) gauges: Gauges,
    pub(super) pace: Pace,
    /// What the writer works on; None before it is open and after it has ended.
    pub(super) core: Mutex<Option<Core>>,
    is_open: AtomicBool,
    retention: Mutex<Retention>,
    clears: RwLock<Arc<Vec<Clear>>>,
    /// Why writes are refused.
    failed: RwLock<Option<Error>>,
    /// What the import of an older store had to say.
    notice: RwLock<Option<String>>,
}

/// Whether writes come one by one, each after the last was acknowledged, or many at a time.
///
/// One by one, waking the writer's thread costs several times the write, so the caller's thread commits it. Many at a
/// time, groups are what is fast. Which it is shows in the groups that the writer gets; every so often a write goes
/// there to find out again.
#[derive(Default)]
pub(super) struct Pace(AtomicU64);

impl Pace {
    /// Writes on the caller's thread between two looks.
    const STRETCH: u64 = 64;

    /// The writer got a group of so many.
    pub(super) fn saw(&self, group: usize) {
        self.0.store(if group == 1 { Self::STRETCH } else { 0 }, Ordering::Relaxed);
    }

    /// Whether the next write is one for the caller's thread.
    pub(super) fn is_slow(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// What `stats()` tells about the writer.
#[derive(Default)]
pub(super) struct Gauges {
    pub(super) groups: AtomicU64,
    pub(super) grouped: AtomicU64,
    pub(super) largest_group: AtomicU64,
    pub(super) inline_writes: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) sync_us: AtomicU64,
    pub(super) slowest_sync_us: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    pub(super) slowest_checkpoint_us: AtomicU64,
    pub(super) wal_pages: AtomicU64,
    pub(super) removed: AtomicU64,
}

impl Engine {
    pub(super) fn new(dir: PathBuf, clock: SharedClock, retention: Retention) -> Self {
        Self {
            readers: Readers::new(dir.clone()),
            dir,
            clock,
            queue: Arc::new(Queue::new()),
            hub: TopicRegistry::default(),
            ended: Arc::default(),
            gauges: Gauges::default(),
            pace: Pace::default(),
            core: Mutex::new(None),
            is_open: AtomicBool::new(false),
            retention: Mutex::new(retention),
            clears: RwLock::default(),
            failed: RwLock::new(None),
            notice: RwLock::new(None),
        }
    }

    /// The database as this connection sees it.
    pub(super) fn view<'a>(&'a self, conn: &'a Connection) -> View<'a> {
        View { conn, dir: &self.dir, now_ms: self.clock.now_ms(), clears: self.clears() }
    }

    /// Whether reads can go past the writer.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    pub(super) fn set_open(&self, open: bool) {
        self.is_open.store(open, Ordering::Release);
    }

    pub(super) fn retention(&self) -> Retention {
        *self.retention.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest adapter's retention counts: on a hot reload that is the one that stays.
    pub(super) fn set_retention(&self, retention: Retention) {
        *self.retention.lock().unwrap_or_else(PoisonError::into_inner) = retention;
    }

    pub(super) fn clears(&self) -> Arc<Vec<Clear>> {
        self.clears.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_clears(&self, clears: Arc<Vec<Clear>>) {
        if !Arc::ptr_eq(&self.clears(), &clears) {
            *self.clears.write().unwrap_or_else(PoisonError::into_inner) = clears;
        }
    }

    pub(super) fn failed(&self) -> Option<Error> {
        self.failed.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_failed(&self, error: &Error) {
        self.failed.write().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.clone());
    }

    pub(super) fn notice(&self) -> Option<String> {
        self.notice.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_notice(&self, text: String) {
        *self.notice.write().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    pub(super) fn stats(&self) -> Stats {
        let size = |suffix: &str| file_size(&self.dir, suffix) as f64;
        let g = &self.gauges;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        let per = |sum: f64, count: f64| if count > 0.0 { sum / count } else { 0.0 };
        vec![
            ("dbBytes", size("")),
            ("walBytes", size("-wal")),
            ("walPages", get(&g.wal_pages)),
            ("checkpoints", get(&g.checkpoints)),
            ("checkpointMaxMs", get(&g.slowest_checkpoint_us) / 1000.0),
            ("queueDepth", self.queue.depth() as f64),
            ("groups", get(&g.groups)),
            ("groupSizeAvg", per(get(&g.grouped), get(&g.groups))),
            ("groupSizeMax", get(&g.largest_group)),
            ("inlineWrites", get(&g.inline_writes)),
            ("syncs", get(&g.syncs)),
            ("syncAvgMs", per(get(&g.sync_us), get(&g.syncs)) / 1000.0),
            ("syncMaxMs", get(&g.slowest_sync_us) / 1000.0),
            ("removedInBackground", get(&g.removed)),
        ]
    }
}

fn file_size(dir: &Path, suffix: &str) -> u64 {
    std::fs::metadata(dir.join(format!("{DB_FILE}{suffix}"))).map_or(0, |meta| meta.len())
}
