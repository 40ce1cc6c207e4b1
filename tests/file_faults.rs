//! The file store on a failing disk: errors are injected below SQLite, at the nth write or sync of any file.
#![expect(unsafe_code, reason = "a VFS of SQLite is a table of C functions")]

#[path = "support/name.rs"]
mod name;

use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_void};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, OnceLock};

use name::name;
use nvent_native::error::Code;
use nvent_native::event::NewEvent;
use nvent_native::json;
use nvent_native::store::file::{Durability, FileStore, FileStoreOptions};
use nvent_native::store::{EventQuery, Maintenance, StoreBackend};
use nvent_native::time::system_clock;
use rusqlite::ffi;
use tokio::runtime::Handle;

/// How many writes, or syncs, still succeed. Negative: all.
static WRITES_LEFT: AtomicI64 = AtomicI64::new(-1);
static SYNCS_LEFT: AtomicI64 = AtomicI64::new(-1);
/// What a write fails with.
static WRITE_ERROR: AtomicI64 = AtomicI64::new(ffi::SQLITE_IOERR_WRITE as i64);

/// Counts down to the failure, which then lasts.
fn fails(left: &AtomicI64) -> bool {
    match left.load(Ordering::SeqCst) {
        0 => true,
        n if n < 0 => false,
        _ => left.fetch_sub(1, Ordering::SeqCst) == 0,
    }
}

/// Returns one table of functions per table of the real VFS: the same, but for writing and syncing.
fn shim(real: &'static ffi::sqlite3_io_methods) -> &'static ffi::sqlite3_io_methods {
    static SHIMS: OnceLock<Mutex<HashMap<usize, &'static ffi::sqlite3_io_methods>>> = OnceLock::new();
    let mut shims = SHIMS.get_or_init(Mutex::default).lock().unwrap();
    shims.entry(std::ptr::from_ref(real) as usize).or_insert_with(|| {
        // They live as long as the process, like the VFS.
        let mut copy = Box::new(*real);
        copy.xWrite = Some(write);
        copy.xSync = Some(sync);
        copy.xTruncate = Some(truncate);
        let copy: &'static _ = Box::leak(copy);
        REAL.get_or_init(Mutex::default).lock().unwrap().insert(std::ptr::from_ref(copy) as usize, real);
        copy
    })
}

type Methods = Mutex<HashMap<usize, &'static ffi::sqlite3_io_methods>>;
static REAL: OnceLock<Methods> = OnceLock::new();
static REAL_OPEN: OnceLock<(usize, OpenFn)> = OnceLock::new();
type OpenFn =
    unsafe extern "C" fn(*mut ffi::sqlite3_vfs, *const c_char, *mut ffi::sqlite3_file, c_int, *mut c_int) -> c_int;

fn real(file: *mut ffi::sqlite3_file) -> &'static ffi::sqlite3_io_methods {
    // SAFETY: SQLite passes files that `open` below has set up.
    let methods = unsafe { (*file).pMethods } as usize;
    REAL.get().unwrap().lock().unwrap()[&methods]
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, data: *const c_void, len: c_int, at: i64) -> c_int {
    if fails(&WRITES_LEFT) {
        return c_int::try_from(WRITE_ERROR.load(Ordering::SeqCst)).unwrap();
    }
    // SAFETY: passed on as it came.
    unsafe { real(file).xWrite.unwrap()(file, data, len, at) }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    if fails(&SYNCS_LEFT) {
        return ffi::SQLITE_IOERR_FSYNC;
    }
    // SAFETY: passed on as it came.
    unsafe { real(file).xSync.unwrap()(file, flags) }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len: i64) -> c_int {
    if fails(&WRITES_LEFT) {
        return ffi::SQLITE_IOERR_TRUNCATE;
    }
    // SAFETY: passed on as it came.
    unsafe { real(file).xTruncate.unwrap()(file, len) }
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let (vfs, open) = REAL_OPEN.get().unwrap();
    // SAFETY: the real VFS with its own function, and the file's memory, whose size is the real one's.
    unsafe {
        let outcome = open(*vfs as *mut ffi::sqlite3_vfs, name, file, flags, out);
        if outcome == ffi::SQLITE_OK && !(*file).pMethods.is_null() {
            (*file).pMethods = shim(&*(*file).pMethods);
        }
        outcome
    }
}

/// Makes the failing disk the default one of this process, and gives the test that calls it the disk for itself.
async fn disk() -> tokio::sync::MutexGuard<'static, ()> {
    static ONE_TEST: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    static INSTALLED: OnceLock<()> = OnceLock::new();
    let guard = ONE_TEST.lock().await;
    INSTALLED.get_or_init(|| {
        // SAFETY: the default VFS lives for ever, and so does the copy of it that is registered here.
        unsafe {
            let original = ffi::sqlite3_vfs_find(std::ptr::null());
            assert!(REAL_OPEN.set((original as usize, (*original).xOpen.unwrap())).is_ok());
            let mut copy = Box::new(*original);
            copy.zName = c"failing".as_ptr();
            copy.xOpen = Some(open);
            assert_eq!(ffi::sqlite3_vfs_register(Box::leak(copy), 1), ffi::SQLITE_OK);
        }
    });
    heal();
    guard
}

fn heal() {
    WRITES_LEFT.store(-1, Ordering::SeqCst);
    SYNCS_LEFT.store(-1, Ordering::SeqCst);
    WRITE_ERROR.store(i64::from(ffi::SQLITE_IOERR_WRITE), Ordering::SeqCst);
}

fn store(dir: &Path, durability: Durability) -> FileStore {
    FileStore::new(FileStoreOptions { durability, ..FileStoreOptions::new(dir) }, system_clock(), Handle::current())
}

fn event(n: u64) -> NewEvent {
    NewEvent::parse(&format!(r#"{{"type":"t","n":{n},"pad":"{}"}}"#, "x".repeat(3_000))).unwrap()
}

async fn numbers(store: &FileStore) -> Vec<u64> {
    let records = store.read(name("s"), EventQuery::default()).await.unwrap();
    records.iter().map(|record| json::parse_object("", record).unwrap()["n"].as_u64().unwrap()).collect()
}

/// Writes on a disk that fails at some point, and checks what is left of it before and after reopening.
async fn one_round(dir: &Path, durability: Durability, arm: impl FnOnce()) {
    let victim = store(dir, durability);
    let before = numbers(&victim).await;
    let first = before.len() as u64;
    arm();
    let (mut acknowledged, mut failures) = (first, 0);
    for batch in 0..40 {
        let writes: Vec<_> = (0..5)
            .map(|n| (first + batch * 5 + n, victim.append(name("s"), event(first + batch * 5 + n), None, None)))
            .collect();
        for (n, write) in writes {
            match write.await {
                Ok(_) => {
                    assert_eq!((acknowledged, failures), (n, 0), "no write succeeds after a failed one");
                    acknowledged = n + 1;
                }
                Err(error) => {
                    assert_eq!(error.code(), Code::Io, "{error}");
                    failures += 1;
                }
            }
        }
    }
    assert!(failures > 0, "the failure was met");
    assert!(!victim.health().await.unwrap().ok);
    assert_eq!(numbers(&victim).await, (0..acknowledged).collect::<Vec<_>>(), "reads go on, with nothing half written");
    heal();
    let still = victim.append(name("s"), event(0), None, None).await.unwrap_err();
    assert_eq!(still.code(), Code::Io);
    assert!(still.message().contains("open it again"), "{still}");
    victim.close().await.unwrap();

    let reopened = store(dir, durability);
    let after = numbers(&reopened).await;
    assert!(after.len() as u64 >= acknowledged, "everything acknowledged is there");
    assert!(after.iter().copied().eq(0..after.len() as u64), "whole and in order: {after:?}");
    assert_eq!(reopened.verify().await.unwrap().problems, Vec::<String>::new());
    reopened.append(name("s"), event(after.len() as u64), None, None).await.unwrap();
    reopened.close().await.unwrap();
}

#[tokio::test]
async fn a_failed_write_is_reported_and_ends_all_writing_until_the_store_is_opened_again() {
    let _disk = disk().await;
    let dir = tempfile::tempdir().unwrap();
    for n in [0, 1, 2, 3, 5, 8, 13, 40, 77] {
        one_round(dir.path(), Durability::Os, || WRITES_LEFT.store(n, Ordering::SeqCst)).await;
    }
}

#[tokio::test]
async fn a_failed_sync_is_no_acknowledgement() {
    let _disk = disk().await;
    let dir = tempfile::tempdir().unwrap();
    for n in [0, 1, 2, 7] {
        one_round(dir.path(), Durability::Disk, || SYNCS_LEFT.store(n, Ordering::SeqCst)).await;
    }
}

#[tokio::test]
async fn a_full_disk_is_named() {
    let _disk = disk().await;
    let dir = tempfile::tempdir().unwrap();
    let victim = store(dir.path(), Durability::Os);
    victim.append(name("s"), event(0), None, None).await.unwrap();
    WRITE_ERROR.store(i64::from(ffi::SQLITE_FULL), Ordering::SeqCst);
    WRITES_LEFT.store(0, Ordering::SeqCst);
    let error = victim.append(name("s"), event(1), None, None).await.unwrap_err();
    assert_eq!(error.code(), Code::Io);
    assert!(error.message().contains("disk is full"), "{error}");
    heal();
    assert_eq!(victim.append(name("s"), event(1), None, None).await.unwrap_err().code(), Code::Io);
    // Opened again while the old adapter is open.
    let fresh = store(dir.path(), Durability::Os);
    fresh.append(name("s"), event(1), None, None).await.unwrap();
    victim.append(name("s"), event(2), None, None).await.unwrap();
    assert_eq!(numbers(&victim).await, [0, 1, 2], "the old one uses what was opened");
    victim.close().await.unwrap();
    fresh.append(name("s"), event(3), None, None).await.unwrap();
    fresh.close().await.unwrap();
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_is_tried_again_by_the_next_call() {
    let _disk = disk().await;
    let dir = tempfile::tempdir().unwrap();
    let victim = store(dir.path(), Durability::Os);
    WRITES_LEFT.store(0, Ordering::SeqCst);
    assert_eq!(victim.append(name("s"), event(0), None, None).await.unwrap_err().code(), Code::Io);
    heal();
    victim.append(name("s"), event(0), None, None).await.unwrap();
    assert_eq!(numbers(&victim).await, [0]);
    victim.close().await.unwrap();
}
