//! What the adapters on one directory, the writer and its background work share.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use rusqlite::Connection;

use super::config::DB_FILE;
use super::config::{FileStoreOptions, Retention};
use super::readers::Readers;
use super::view::{Clear, View};
use super::write_queue::WriteQueue;
use crate::error::Error;
use crate::fanout::TopicRegistry;
use crate::metrics::{Histogram, SYNC};
use crate::store::consumer::LocalLeases;
use crate::store::feed::FeedSignal;
use crate::store::{Stats, Stored};
use crate::sync::{read, write};
use crate::time::SharedClock;

/// Shared by everything that works on an open database.
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) clock: SharedClock,
    pub(super) queue: Arc<WriteQueue>,
    pub(super) readers: Arc<Readers>,
    pub(super) subscribers: TopicRegistry<Stored, Following>,
    pub(super) feed: Arc<FeedSignal>,
    pub(super) leases: LocalLeases,
    /// Up to where consumers at work have read. `u64::MAX` while one reads.
    pub(super) in_hand: Mutex<HashMap<Arc<str>, u64>>,
    pub(super) gauges: Gauges,
    pub(super) commit_mode: CommitMode,
    is_open: AtomicBool,
    read_only: bool,
    retention: Retention,
    clears: RwLock<Arc<Vec<Clear>>>,
    /// Why writes are refused.
    failed: RwLock<Option<Error>>,
    /// The report of importing an older store.
    notice: RwLock<Option<String>>,
}

/// Set while a subscription is behind.
pub(super) type Following = Mutex<Option<Behind>>;

/// A subscription whose mailbox was full.
#[derive(Clone, Copy)]
pub(super) struct Behind {
    /// It has got the events up to this number.
    pub(super) after: u64,
    /// Number of the newest event that it has not got.
    pub(super) newest: u64,
}

/// Where writes are committed: on the thread of the caller, or by the writer's thread in groups.
///
/// If each write comes after the one before was acknowledged, waking the writer's thread costs several times the write.
/// If many come at a time, groups are faster. The size of the groups that the writer gets shows which it is; every
/// [`CommitMode::INLINE_WRITES`] one write goes to the writer to find out again.
#[derive(Default)]
pub(super) struct CommitMode(AtomicU64);

impl CommitMode {
    /// Writes on the caller's thread between two that go to the writer.
    const INLINE_WRITES: u64 = 64;

    /// Records the size of a group that the writer got.
    pub(super) fn observe(&self, group: usize) {
        self.0.store(if group == 1 { Self::INLINE_WRITES } else { 0 }, Ordering::Relaxed);
    }

    /// Returns whether the next write is committed on the thread of its caller.
    pub(super) fn is_inline(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// The writer's part of `stats()`.
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
    pub(super) sync_seconds: Arc<Histogram>,
}

impl Default for Gauges {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            groups: zero(),
            grouped: zero(),
            largest_group: zero(),
            inline_writes: zero(),
            syncs: zero(),
            sync_us: zero(),
            slowest_sync_us: zero(),
            checkpoints: zero(),
            slowest_checkpoint_us: zero(),
            wal_pages: zero(),
            removed: zero(),
            sync_seconds: SYNC.with(&["file"]),
        }
    }
}

impl Shared {
    pub(super) fn new(dir: PathBuf, clock: SharedClock, options: &FileStoreOptions) -> Self {
        Self {
            readers: Readers::new(dir.clone()),
            dir,
            clock,
            queue: Arc::new(WriteQueue::new()),
            subscribers: TopicRegistry::default(),
            feed: FeedSignal::new(0),
            leases: LocalLeases::default(),
            in_hand: Mutex::default(),
            gauges: Gauges::default(),
            commit_mode: CommitMode::default(),
            is_open: AtomicBool::new(false),
            read_only: options.read_only,
            retention: options.retention,
            clears: RwLock::default(),
            failed: RwLock::new(None),
            notice: RwLock::new(None),
        }
    }

    /// Returns the database as this connection sees it now.
    pub(super) fn view<'a>(&'a self, conn: &'a Connection) -> View<'a> {
        View { conn, dir: &self.dir, now_ms: self.clock.now_ms(), clears: self.clears() }
    }

    /// Returns whether reads can go past the writer.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Returns whether it was opened without the lock, to be read.
    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn set_open(&self, open: bool) {
        self.is_open.store(open, Ordering::Release);
    }

    pub(super) fn retention(&self) -> Retention {
        self.retention
    }

    pub(super) fn clears(&self) -> Arc<Vec<Clear>> {
        read(&self.clears).clone()
    }

    pub(super) fn set_clears(&self, clears: Arc<Vec<Clear>>) {
        if !Arc::ptr_eq(&self.clears(), &clears) {
            *write(&self.clears) = clears;
        }
    }

    pub(super) fn failed(&self) -> Option<Error> {
        read(&self.failed).clone()
    }

    pub(super) fn set_failed(&self, error: &Error) {
        write(&self.failed).get_or_insert_with(|| error.clone());
    }

    pub(super) fn notice(&self) -> Option<String> {
        read(&self.notice).clone()
    }

    pub(super) fn set_notice(&self, text: String) {
        *write(&self.notice) = Some(text);
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
            ("groupedWrites", get(&g.grouped)),
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
