//! What happens to an open file store when its directory is changed under it, and what it does not touch.

#[path = "support/name.rs"]
mod name;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use name::name;
use nvent_native::error::Code;
use nvent_native::event::NewEvent;
use nvent_native::store::file::{Durability, FileStore, FileStoreOptions, Retention};
use nvent_native::store::{EventQuery, Maintenance, StoreBackend};
use nvent_native::time::{ManualClock, SharedClock, system_clock};
use tokio::runtime::Handle;

const DIR: &str = "NVENT_TEST_SECOND_DIR";
const HELD_DIR: &str = "NVENT_TEST_HELD_DIR";

fn with(options: FileStoreOptions, clock: SharedClock) -> FileStore {
    FileStore::new(options, clock, Handle::current())
}

fn open(dir: &Path) -> FileStore {
    with(FileStoreOptions::new(dir), system_clock())
}

fn event() -> NewEvent {
    NewEvent::parse(r#"{"type":"t"}"#).unwrap()
}

async fn append(store: &FileStore) -> Result<(), Code> {
    store.append(name("s"), event(), None, None).await.map(|_| ()).map_err(|error| error.code())
}

#[cfg(unix)]
#[tokio::test]
async fn writes_fail_at_once_when_the_directory_was_deleted_under_an_open_store() {
    for durability in [Durability::Os, Durability::Disk] {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("data");
        let store = with(FileStoreOptions { durability, ..FileStoreOptions::new(&dir) }, system_clock());
        for _ in 0..20 {
            append(&store).await.unwrap();
        }
        std::fs::remove_dir_all(&dir).unwrap();
        for _ in 0..20 {
            assert_eq!(append(&store).await, Err(Code::Io), "what is in no file is not acknowledged");
        }
        let error = store.kv_set(name("k"), "1".into(), None).await.unwrap_err();
        assert!(error.message().contains("deleted, replaced or emptied"), "{error}");
        assert!(!store.health().await.unwrap().ok);
        store.close().await.unwrap();
        let again = open(&dir);
        append(&again).await.unwrap();
        again.close().await.unwrap();
    }
}

#[tokio::test]
async fn writes_fail_at_once_when_the_database_was_emptied_under_an_open_store() {
    let base = tempfile::tempdir().unwrap();
    let store = open(base.path());
    append(&store).await.unwrap();
    // The log goes into the database.
    store.close().await.unwrap();
    let store = open(base.path());
    append(&store).await.unwrap();
    std::fs::write(base.path().join("nvent.db"), "").unwrap();
    for _ in 0..20 {
        // Corrupt where something read the file first.
        let refused = append(&store).await;
        assert!(
            matches!(refused, Err(Code::Io | Code::Corrupt)),
            "what cannot be read again is not acknowledged: {refused:?}"
        );
    }
    assert!(!store.health().await.unwrap().ok);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_log_whose_database_is_lost_is_kept() {
    for lost in ["missing", "empty"] {
        let base = tempfile::tempdir().unwrap();
        let (from, dir) = (base.path().join("running"), base.path().join("data"));
        let store = open(&from);
        append(&store).await.unwrap();
        // As a process that was killed leaves it.
        std::fs::create_dir(&dir).unwrap();
        std::fs::copy(from.join("nvent.db-wal"), dir.join("nvent.db-wal")).unwrap();
        if lost == "empty" {
            std::fs::write(dir.join("nvent.db"), "").unwrap();
        }
        let again = open(&dir);
        for _ in 0..2 {
            let error = again.append(name("s"), event(), None, None).await.unwrap_err();
            assert!(error.code() == Code::Corrupt && error.message().contains("restore nvent.db"), "{lost}: {error}");
        }
        std::fs::copy(from.join("nvent.db"), dir.join("nvent.db")).unwrap();
        assert_eq!(again.read(name("s"), EventQuery::default()).await.unwrap().len(), 1, "{lost}");
        again.close().await.unwrap();
        store.close().await.unwrap();
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_lock_file_that_is_a_link_is_not_followed() {
    let base = tempfile::tempdir().unwrap();
    let (dir, other) = (base.path().join("data"), base.path().join("other"));
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(&other, "text").unwrap();
    std::os::unix::fs::symlink(&other, dir.join("nvent.lock")).unwrap();
    assert_eq!(append(&open(&dir)).await, Err(Code::Io));
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "text");
}

/// Runs as a second process on a directory: not a test of its own.
#[tokio::test]
async fn second_process() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    println!("opened: {:?}", open(Path::new(&dir)).open().await.map_err(|error| error.code()));
}

#[cfg(unix)]
#[tokio::test]
async fn a_second_process_is_locked_out_also_when_the_lock_file_was_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store).await.unwrap();
    std::fs::remove_file(dir.path().join("nvent.lock")).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "second_process", "--nocapture"]).env(DIR, dir.path()).stderr(Stdio::null());
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(output.contains("opened: Err(Locked)"), "{output}");
    append(&store).await.unwrap();
    store.close().await.unwrap();
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(output.contains("opened: Ok(())"), "{output}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_backup_writes_through_no_link_and_into_no_file_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("data"));
    append(&store).await.unwrap();
    let precious = dir.path().join("precious");
    std::fs::write(&precious, "precious").unwrap();
    let copy = dir.path().join("copy.db");
    for name in ["copy.db.partial", "dangling.db"] {
        let target = if name == "dangling.db" { dir.path().join("nowhere") } else { precious.clone() };
        std::os::unix::fs::symlink(target, dir.path().join(name)).unwrap();
    }
    store.backup(&copy).await.unwrap();
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
    assert!(copy.symlink_metadata().unwrap().is_file());
    let error = store.backup(&dir.path().join("dangling.db")).await.unwrap_err();
    assert_eq!(error.code(), Code::Invalid);
    assert!(!dir.path().join("nowhere").exists());
    let mut left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["copy.db", "copy.db.partial", "dangling.db", "data", "precious"]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn adapters_on_one_directory_have_one_retention() {
    let dir = tempfile::tempdir().unwrap();
    let with_limit = |limit| {
        let retention = Retention { max_age_ms: None, max_events_per_subject: limit };
        with(FileStoreOptions { retention, ..FileStoreOptions::new(dir.path()) }, system_clock())
    };
    let first = with_limit(Some(5));
    append(&first).await.unwrap();
    for other in [None, Some(6)] {
        let error = with_limit(other).open().await.unwrap_err();
        assert_eq!(error.code(), Code::Invalid);
        assert!(error.message().contains("retention"), "{error}");
    }
    let same = with_limit(Some(5));
    append(&same).await.unwrap();
    first.close().await.unwrap();
    same.close().await.unwrap();
    let other = with_limit(None);
    append(&other).await.unwrap();
    other.close().await.unwrap();
}

#[tokio::test]
async fn rows_that_another_program_wrote_are_checked_when_they_are_read_and_found_by_verification() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for key in ["good", "bad", "deep"] {
        store.kv_set(name(key), "1".into(), None).await.unwrap();
    }
    append(&store).await.unwrap();
    append(&store).await.unwrap();
    store.close().await.unwrap();
    let db = rusqlite::Connection::open(dir.path().join("nvent.db")).unwrap();
    db.execute_batch(
        "UPDATE kv SET value = '{no json', sum = NULL WHERE key = 'bad';
         UPDATE kv SET value = replace(hex(zeroblob(600)), '00', '[') || replace(hex(zeroblob(600)), '00', ']'), \
         sum = NULL WHERE key = 'deep';
         UPDATE kv SET value = '[1, 2]', sum = NULL WHERE key = 'good';
         UPDATE events SET record = '{\"type\": 1', sum = NULL WHERE id = 1;",
    )
    .unwrap();
    drop(db);
    let store = open(dir.path());
    assert_eq!(store.kv_get(name("good")).await.unwrap().as_deref(), Some("[1, 2]"));
    for key in ["bad", "deep"] {
        assert!(matches!(store.kv_get(name(key)).await.unwrap_err().code(), Code::Corrupt | Code::Invalid), "{key}");
    }
    assert_eq!(store.read(name("s"), EventQuery::default()).await.unwrap_err().code(), Code::Corrupt);
    let found = store.verify().await.unwrap();
    assert_eq!(found.problems.len(), 3, "{found:?}");
    assert!(found.problems.iter().all(|problem| problem.contains("no JSON")), "{found:?}");
    append(&store).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn ids_of_a_clock_that_was_far_ahead_stay_in_their_subject_also_after_its_deletion() {
    const NOW: u64 = 1_767_225_600_000;
    const YEAR: u64 = 31_536_000_000;
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(NOW + 100 * YEAR);
    let store = with(FileStoreOptions::new(dir.path()), clock.clone());
    append(&store).await.unwrap();
    clock.set(NOW);
    store.delete_subject(name("s")).await.unwrap();
    let id = |subject: &str| store.append(name(subject), event(), None, None);
    assert_eq!(id("other").await.unwrap().id(), format!("{NOW}-0"));
    assert_eq!(id("s").await.unwrap().id(), format!("{}-1", NOW + 100 * YEAR));
    store.close().await.unwrap();
    let store = with(FileStoreOptions::new(dir.path()), clock.clone());
    store.delete_subject(name("s")).await.unwrap();
    store.close().await.unwrap();
    let store = with(FileStoreOptions::new(dir.path()), clock);
    let id = |subject: &str| store.append(name(subject), event(), None, None);
    assert_eq!(id("s").await.unwrap().id(), format!("{}-2", NOW + 100 * YEAR));
    assert_eq!(id("third").await.unwrap().id(), format!("{NOW}-0"));
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_imported_time_in_the_future_moves_no_ids_and_retention_by_age_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("streams")).unwrap();
    let line = r#"{"id":"1-a","ts":8640000000000000,"type":"x","runId":"r"}"#;
    std::fs::write(dir.path().join("streams/s.ndjson"), line).unwrap();
    const NOW: u64 = 1_767_225_600_000;
    let clock = ManualClock::at(NOW);
    let retention = Retention { max_age_ms: Some(1_000_000), max_events_per_subject: None };
    let store = with(FileStoreOptions { retention, ..FileStoreOptions::new(dir.path()) }, clock.clone());
    assert_eq!(store.append(name("s"), event(), None, None).await.unwrap().id(), format!("{NOW}-1"));
    assert_eq!(store.append(name("new"), event(), None, None).await.unwrap().id(), format!("{NOW}-0"));
    clock.set(NOW + 2_000_000);
    let wait = async {
        while !store.read(name("s"), EventQuery::default()).await.unwrap().is_empty() {
            clock.advance(60_000);
            store.kv_clear(name("none")).await.unwrap();
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), wait).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn holder() {
    let Some(dir) = std::env::var_os(HELD_DIR) else { return };
    let store = open(Path::new(&dir));
    store.kv_set(name("k"), "1".into(), None).await.unwrap();
    println!("locked");
    // Until the parent ends its input.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_clear_in_a_directory_that_another_process_holds_can_be_made_again_when_it_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "holder", "--nocapture"]).env(HELD_DIR, dir.path());
    let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("locked")), "the holder ended");

    // Of one that has been opened in vain, and of one that has not been opened.
    let refused = open(dir.path());
    assert_eq!(refused.open().await.unwrap_err().code(), Code::Locked);
    for store in [&refused, &open(dir.path())] {
        let error = store.kv_clear(name("*")).await.unwrap_err();
        assert_eq!(error.code(), Code::Locked, "{error}");
        assert!(error.is_retryable() && !error.is_maybe_applied(), "{error}");
    }

    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    assert_eq!(refused.kv_clear(name("*")).await.unwrap(), 1, "the same store, as soon as the directory is free");
    refused.close().await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_clear_in_a_deleted_directory_says_that_it_did_nothing() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("data");
    let store = open(&dir);
    store.kv_set(name("k"), "1".into(), None).await.unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let error = store.kv_clear(name("*")).await.unwrap_err();
    assert_eq!(error.code(), Code::Io);
    assert!(!error.is_maybe_applied(), "{error}");
    assert!(error.message().contains("deleted, replaced or emptied"), "{error}");
    store.close().await.unwrap();
}
