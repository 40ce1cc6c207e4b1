//! What is synced before it is acknowledged, seen below SQLite and the standard library: in this binary `fsync` and
//! `fdatasync` record the file before they call the system.
#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "functions of the C library are replaced")]

#[path = "support/name.rs"]
mod name;

use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use name::name;
use nvent_native::event::NewEvent;
use nvent_native::queue::{self, CLOSE_TIMEOUT, FileQueueOptions, NewJob, Queue};
use nvent_native::store::file::{Durability, FileStore, FileStoreOptions};
use nvent_native::store::{Maintenance, StoreBackend};
use nvent_native::time::system_clock;
use tokio::runtime::Handle;

static SYNCED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn record(file: c_int) {
    if let Ok(path) = std::fs::read_link(format!("/proc/self/fd/{file}")) {
        SYNCED.lock().unwrap().push(path);
    }
}

// SAFETY: the signature of the C library; what it would call is called.
#[unsafe(no_mangle)]
extern "C" fn fsync(file: c_int) -> c_int {
    record(file);
    // SAFETY: the arguments of the system call.
    unsafe { libc::syscall(libc::SYS_fsync, file) as c_int }
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn fdatasync(file: c_int) -> c_int {
    record(file);
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_fdatasync, file) as c_int }
}

/// A directory of its own, by its one true path, and what was synced in it.
struct Disk {
    root: PathBuf,
    _dir: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { root: dir.path().canonicalize().unwrap(), _dir: dir }
    }

    /// Returns what was synced since the last call, in order, relative to the directory.
    fn take(&self) -> Vec<String> {
        let mut synced = SYNCED.lock().unwrap();
        let (own, others) = std::mem::take(&mut *synced).into_iter().partition(|path| path.starts_with(&self.root));
        *synced = others;
        own.iter().map(|path: &PathBuf| path.strip_prefix(&self.root).unwrap().to_str().unwrap().to_owned()).collect()
    }
}

fn has(synced: &[String], expected: &[&str]) {
    for path in expected {
        assert!(synced.iter().any(|synced| synced == path), "{path:?} is not among {synced:?}");
    }
}

/// Checks that a backup is synced under the name under which it is written, and then its directory.
fn is_backup(synced: &[String], name: &str) {
    let content = synced.iter().position(|path| path.starts_with(name) && path.ends_with(".partial"));
    let entry = synced.iter().rposition(|path| path.is_empty());
    assert!(content.is_some() && content < entry, "{synced:?}");
}

fn store(dir: &Path, durability: Durability) -> FileStore {
    FileStore::new(FileStoreOptions { durability, ..FileStoreOptions::new(dir) }, system_clock(), Handle::current())
}

async fn append(store: &FileStore) {
    store.append(name("s"), NewEvent::parse(r#"{"type":"t"}"#).unwrap(), None, None).await.unwrap();
}

#[tokio::test]
async fn a_new_store_and_each_of_its_durable_writes_are_on_disk_when_they_are_acknowledged() {
    let disk = Disk::new();
    let store = store(&disk.root.join("a/b"), Durability::Disk);
    append(&store).await;
    // The entries of the new directories, of the files in them, and the event.
    has(&disk.take(), &["", "a", "a/b", "a/b/nvent.db-wal"]);
    for _ in 0..3 {
        append(&store).await;
        has(&disk.take(), &["a/b/nvent.db-wal"]);
        store.kv_increment(name("k"), 1.0).await.unwrap();
        has(&disk.take(), &["a/b/nvent.db-wal"]);
    }
    store.backup(&disk.root.join("copy.db")).await.unwrap();
    is_backup(&disk.take(), "copy.db");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_write_that_need_not_survive_power_loss_waits_for_no_disk() {
    let disk = Disk::new();
    let store = store(&disk.root, Durability::Os);
    append(&store).await;
    disk.take();
    for _ in 0..100 {
        append(&store).await;
    }
    // The writer checkpoints now and then.
    let synced = disk.take();
    assert!(synced.len() < 20, "{synced:?}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_new_queue_and_each_of_its_durable_jobs_are_on_disk_when_they_are_acknowledged() {
    let disk = Disk::new();
    let options =
        FileQueueOptions { durability: queue::Durability::Disk, ..FileQueueOptions::new(disk.root.join("a/b")) };
    let queue = Queue::file(options, system_clock(), Handle::current());
    let job = || NewJob::parse("job", r#"{"name":"step","data":1}"#).unwrap();
    queue.enqueue("q", job()).await.unwrap();
    has(&disk.take(), &["", "a", "a/b", "a/b/queue.db-wal"]);
    for _ in 0..3 {
        queue.enqueue("q", job()).await.unwrap();
        has(&disk.take(), &["a/b/queue.db-wal"]);
    }
    queue.backup(&disk.root.join("copy.db")).await.unwrap();
    is_backup(&disk.take(), "copy.db");
    queue.close(CLOSE_TIMEOUT).await.unwrap();
}
