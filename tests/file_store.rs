//! The file store: what it does beyond the contract that the conformance suite checks.

#[path = "support/name.rs"]
mod name;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use name::name;
use nvent_native::error::Code;
use nvent_native::event::NewEvent;
use nvent_native::fanout::{Delivery, Mailbox, Overflow};
use nvent_native::json::{self, Json};
use nvent_native::op::Op;
use nvent_native::store::file::{Durability, FileStore, FileStoreOptions, Retention};
use nvent_native::store::{Announce, EventQuery, IndexQuery, Maintenance, StoreBackend};
use nvent_native::time::{ManualClock, SharedClock, system_clock};
use tokio::runtime::Handle;

fn open(dir: &Path) -> FileStore {
    with(FileStoreOptions::new(dir), system_clock())
}

fn with(options: FileStoreOptions, clock: SharedClock) -> FileStore {
    FileStore::new(options, clock, Handle::current())
}

fn event(n: usize) -> NewEvent {
    NewEvent::parse(&format!(r#"{{"type":"t{}","n":{n}}}"#, n % 3)).unwrap()
}

fn object(text: &str) -> json::Object {
    json::parse_object("object", text).unwrap()
}

fn numbers(records: &[Json]) -> Vec<u64> {
    records.iter().map(|record| object(record)["n"].as_u64().unwrap()).collect()
}

/// Waits for background work, with a deadline.
async fn until(mut happened: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !happened().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), wait).await.expect("it happens in the end");
}

fn stat(store: &FileStore, name: &str) -> f64 {
    store.stats().into_iter().find(|(other, _)| *other == name).unwrap().1
}

fn index_query(limit: usize) -> IndexQuery {
    IndexQuery { after: None, offset: 0, limit, filter: json::Filter::default() }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..50 {
        let store = open(dir.path());
        store.append(name("s"), event(round), None, None).await.unwrap();
        store.kv_increment(name("k"), 1.0).await.unwrap();
        store.index_add(name("i"), name(&format!("e{round}")), round as f64, object(r#"{"a.b":1}"#)).await.unwrap();
        store.doc_save(name("c"), name("d"), format!("{{\"round\":{round}}}").into()).await.unwrap();
        assert_eq!(numbers(&store.read(name("s"), EventQuery::default()).await.unwrap()).len(), round + 1);
        store.close().await.unwrap();
        assert_eq!(store.kv_get(name("k")).await.unwrap_err().code(), Code::Closed);
    }
    let store = open(dir.path());
    let read = store.read(name("s"), EventQuery::default()).await.unwrap();
    assert_eq!(numbers(&read), (0..50).collect::<Vec<_>>());
    assert_eq!(store.kv_get(name("k")).await.unwrap().as_deref(), Some("50"));
    let page = store.index_read(name("i"), index_query(2)).await.unwrap();
    assert_eq!(page.iter().map(|entry| &*entry.id).collect::<Vec<_>>(), ["e49", "e48"]);
    assert_eq!(store.doc_get(name("c"), name("d")).await.unwrap().as_deref(), Some(r#"{"round":49}"#));
    store.close().await.unwrap();
}

#[tokio::test]
async fn calls_take_effect_in_call_order_without_awaiting_any() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut writes = Vec::new();
    let mut reads = Vec::new();
    for n in 0..300 {
        writes.push(store.append(name("s"), event(n), None, None));
        writes.push(store.append(name("other"), event(n), None, None));
        reads.push(store.read(name("s"), EventQuery::default()));
    }
    for write in writes {
        write.await.unwrap();
    }
    for (n, read) in reads.into_iter().enumerate() {
        assert_eq!(numbers(&read.await.unwrap()).len(), n + 1, "the read sees what was appended before it, no more");
    }
}

#[tokio::test]
async fn a_long_read_sees_the_moment_at_which_it_was_called_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let writes: Vec<_> = (0..5_000).map(|n| store.append(name("s"), event(n), None, None)).collect();
    let queued = store.read(name("s"), EventQuery::default());
    let later = store.append(name("s"), event(5_000), None, None);
    assert_eq!(queued.await.unwrap().len(), 5_000);
    later.await.unwrap();
    for write in writes {
        write.await.unwrap();
    }
    let at_once = store.read(name("s"), EventQuery::default());
    let deleted = store.delete_subject(name("s"));
    assert_eq!(at_once.await.unwrap().len(), 5_001);
    assert!(deleted.await.unwrap());
    assert!(store.read(name("s"), EventQuery::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn clearing_many_keys_is_atomic_counts_them_and_spares_later_ones() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sets: Vec<_> = (0..10_000).map(|n| store.kv_set(name(&format!("k:{n}")), "1".into(), None)).collect();
    for set in sets {
        set.await.unwrap();
    }
    store.kv_set(name("other"), "1".into(), None).await.unwrap();
    let cleared = store.kv_clear(name("k:*"));
    let gone = store.kv_get(name("k:9999"));
    let again = store.kv_set(name("k:5000"), "2".into(), None);
    let sum = store.kv_increment(name("k:5001"), 1.0);
    assert_eq!(gone.await.unwrap(), None);
    again.await.unwrap();
    assert_eq!(sum.await.unwrap().to_string(), "1");
    assert_eq!(cleared.await.unwrap(), 10_000);
    assert_eq!(store.kv_get(name("k:5000")).await.unwrap().as_deref(), Some("2"));
    assert_eq!(store.kv_clear(name("*")).await.unwrap(), 3);
}

#[tokio::test]
async fn a_clear_that_is_under_way_is_finished_before_the_store_closes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sets: Vec<_> = (0..10_000).map(|n| store.kv_set(name(&format!("k:{n}")), "1".into(), None)).collect();
    for set in sets {
        set.await.unwrap();
    }
    let cleared = store.kv_clear(name("k:*"));
    store.close().await.unwrap();
    assert_eq!(cleared.await.unwrap(), 10_000);
    assert_eq!(open(dir.path()).kv_get(name("k:9999")).await.unwrap(), None);
}

#[tokio::test]
async fn adapters_of_one_process_share_what_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (open(dir.path()), open(&dir.path().join(".")));
    let mailbox = Arc::new(Mailbox::new(10, Overflow::default()));
    b.subscribe(name("s*"), mailbox.clone()).await.unwrap();
    a.append(name("s1"), event(1), None, None).await.unwrap();
    let Some(Delivery::Item(stored)) = mailbox.recv().await else { panic!("an event was expected") };
    assert_eq!(&*stored.subject, "s1");
    a.close().await.unwrap();
    b.append(name("s1"), event(2), None, None).await.unwrap();
    // A hot reload: the new one is opened while the old one closes.
    let closing = b.close();
    let c = open(dir.path());
    assert_eq!(c.read(name("s1"), EventQuery::default()).await.unwrap().len(), 2);
    closing.await.unwrap();
    c.close().await.unwrap();
    let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert!(!files.iter().any(|name| name.to_string_lossy().contains("-wal")), "{files:?}");
}

#[tokio::test]
async fn ids_increase_after_deletion_restart_and_a_clock_that_went_back() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(5_000);
    let store = with(FileStoreOptions::new(dir.path()), clock.clone());
    store.append(name("s"), event(0), None, None).await.unwrap();
    store.append(name("s"), event(1), None, None).await.unwrap();
    store.delete_subject(name("s")).await.unwrap();
    store.close().await.unwrap();
    clock.set(1_000);
    let store = with(FileStoreOptions::new(dir.path()), clock.clone());
    assert_eq!(store.append(name("s"), event(2), None, None).await.unwrap().id(), "5000-2");
    store.close().await.unwrap();
}

#[tokio::test]
async fn retention_keeps_the_newest_and_ids_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(1_000_000);
    let store = open(dir.path());
    store.close().await.unwrap();
    let store = with(FileStoreOptions::new(dir.path()), clock.clone());
    let writes: Vec<_> = (0..2_000).map(|n| store.append(name(&format!("s{}", n % 2)), event(n), None, None)).collect();
    for write in writes {
        write.await.unwrap();
    }
    store.close().await.unwrap();
    const AGE: u64 = 1_000_000_000;
    let retention = Retention { max_age_ms: Some(AGE), max_events_per_subject: Some(10) };
    let store = with(FileStoreOptions { retention, ..FileStoreOptions::new(dir.path()) }, clock.clone());
    until(async || store.read(name("s1"), EventQuery::default()).await.unwrap().len() == 10).await;
    assert_eq!(numbers(&store.read(name("s1"), EventQuery::default()).await.unwrap())[0], 1_981);
    clock.advance(AGE * 10);
    store.append(name("s0"), event(7), None, None).await.unwrap();
    until(async || {
        // On to the next round of retention, and the writer is woken to it.
        clock.advance(60_000);
        store.kv_clear(name("none")).await.unwrap();
        store.read(name("s0"), EventQuery::default()).await.unwrap().len() == 1
            && store.read(name("s1"), EventQuery::default()).await.unwrap().is_empty()
    })
    .await;
    clock.set(1_000_000);
    assert_eq!(store.append(name("s1"), event(8), None, None).await.unwrap().id(), "1000000-1000");
    store.close().await.unwrap();
}

#[tokio::test]
async fn disk_that_deleted_events_took_is_given_back_while_the_store_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let large = NewEvent::parse(&format!(r#"{{"type":"t","pad":"{}"}}"#, "x".repeat(20_000))).unwrap();
    let appends: Vec<_> = (0..1_000).map(|_| store.append(name("large"), large.clone(), None, None)).collect();
    for append in appends {
        append.await.unwrap();
    }
    store.append(name("small"), event(1), None, None).await.unwrap();
    store.delete_subject(name("large")).await.unwrap();
    until(async || {
        // A reader that is at work keeps the old pages of the log.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        let size = std::fs::metadata(dir.path().join("nvent.db")).unwrap().len();
        stat(&store, "removedInBackground") >= 1_001.0 && size < 8_000_000
    })
    .await;
    assert_eq!(store.read(name("small"), EventQuery::default()).await.unwrap().len(), 1);
    store.close().await.unwrap();
    let store = open(dir.path());
    assert_eq!(store.verify().await.unwrap().problems, Vec::<String>::new());
    store.close().await.unwrap();
}

#[tokio::test]
async fn the_write_ahead_log_does_not_grow_with_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let large = NewEvent::parse(&format!(r#"{{"type":"t","pad":"{}"}}"#, "x".repeat(100_000))).unwrap();
    let mut written = 0;
    while written < 100_000_000 {
        let appends: Vec<_> = (0..50).map(|_| store.append(name("s"), large.clone(), None, None)).collect();
        for append in appends {
            append.await.unwrap();
        }
        written += 50 * 100_000;
        // It begins anew once its 16 MB have been moved into the database.
        let log = std::fs::metadata(dir.path().join("nvent.db-wal")).unwrap().len();
        assert!(log < 48_000_000, "{log} bytes after {written}");
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn retention_keeps_the_log_of_a_run_until_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(1_767_225_600_000);
    let retention = Retention { max_age_ms: None, max_events_per_subject: Some(10) };
    let store = with(FileStoreOptions { retention, ..FileStoreOptions::new(dir.path()) }, clock.clone());
    let append = async |subject: &str, kind: &str| {
        let event = NewEvent::parse(&format!(r#"{{"type":"{kind}","runId":"r"}}"#)).unwrap();
        store.append(name(subject), event, None, None).await.unwrap();
    };
    for subject in ["running", "ended", "retried"] {
        append(subject, "flow.start").await;
        for _ in 0..30 {
            append(subject, "step.started").await;
        }
    }
    append("ended", "flow.completed").await;
    append("retried", "flow.failed").await;
    append("retried", "flow.retry").await;
    let count = async |subject: &str| store.read(name(subject), EventQuery::default()).await.unwrap().len();
    let pass = async || {
        clock.advance(60_000);
        store.kv_clear(name("none")).await.unwrap();
    };
    until(async || {
        pass().await;
        count("ended").await == 10
    })
    .await;
    // Subjects are trimmed in their order: a round that came to this one has looked at the others.
    let next_round = async || {
        for _ in 0..12 {
            append("last", "t").await;
        }
        until(async || {
            pass().await;
            count("last").await == 10
        })
        .await;
    };
    next_round().await;
    assert_eq!((count("running").await, count("retried").await), (31, 33));
    // A run under way keeps ten times as many.
    for _ in 33..100 {
        append("retried", "step.started").await;
    }
    append("running", "flow.cancel").await;
    next_round().await;
    assert_eq!((count("running").await, count("retried").await), (10, 100));
    append("retried", "step.started").await;
    next_round().await;
    // It has lost its start, and is a subject like any other.
    assert!(count("retried").await <= 100);
    store.close().await.unwrap();
}

#[tokio::test]
async fn expired_keys_are_invisible_at_once_and_removed_later() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(1_000);
    let store = with(FileStoreOptions::new(dir.path()), clock.clone());
    store.kv_set(name("k"), "1".into(), Some(50)).await.unwrap();
    store.kv_set(name("stays"), "1".into(), None).await.unwrap();
    assert_eq!(store.kv_increment(name("k"), 1.0).await.unwrap().to_string(), "2");
    clock.advance(50);
    assert_eq!(store.kv_get(name("k")).await.unwrap(), None);
    until(async || {
        store.kv_set(name("wake"), "1".into(), None).await.unwrap();
        stat(&store, "removedInBackground") > 0.0
    })
    .await;
    store.close().await.unwrap();
    let conn = rusqlite::Connection::open(dir.path().join("nvent.db")).unwrap();
    let keys: i64 = conn.query_row("SELECT count(*) FROM kv WHERE key = 'k'", [], |row| row.get(0)).unwrap();
    assert_eq!(keys, 0);
}

#[tokio::test]
async fn durable_writes_wait_for_the_disk_and_share_the_wait() {
    let dir = tempfile::tempdir().unwrap();
    let store =
        with(FileStoreOptions { durability: Durability::Disk, ..FileStoreOptions::new(dir.path()) }, system_clock());
    store.open().await.unwrap();
    let writes: Vec<_> = (0..1_000).map(|n| store.append(name("s"), event(n), None, None)).collect();
    for write in writes {
        write.await.unwrap();
    }
    let syncs = stat(&store, "syncs");
    assert!((1.0..500.0).contains(&syncs), "{syncs}");
    assert_eq!(stat(&store, "inlineWrites"), 0.0);
    store.close().await.unwrap();
}

#[tokio::test]
async fn another_programs_lock_keeps_no_caller_waiting_and_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.open().await.unwrap();
    // One by one, until they are committed on this thread. Each changes something: after a checkpoint, which comes some time
    // after the store was opened, the first commit that writes pages is the writer's.
    let mut last = 0;
    while stat(&store, "inlineWrites") == 0.0 {
        last += 1;
        store.kv_set(name("k"), last.to_string().into(), None).await.unwrap();
    }
    let other = rusqlite::Connection::open(dir.path().join("nvent.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waiting = store.kv_increment(name("k"), 1.0);
    assert!(!matches!(waiting, Op::Ready(_)));
    assert_eq!(store.kv_get(name("other")).await.unwrap(), None, "reads go on");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(waiting.await.unwrap().to_string(), (last + 1).to_string());
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_looks_at_much_is_not_done_on_the_callers_thread() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let writes: Vec<_> = (0..20_000)
        .map(|n| {
            _ = store.index_add(name("i"), name(&n.to_string()), 0.0, object(r#"{"a":1}"#));
            store.append(name("s"), event(n), None, None)
        })
        .collect();
    for write in writes {
        write.await.unwrap();
    }
    let filter = json::Filter::new(object(r#"{"a":2}"#));
    let search = store.index_read(name("i"), IndexQuery { after: None, offset: 0, limit: 1, filter });
    let page = store.index_read(name("i"), IndexQuery { after: None, offset: 15_000, ..index_query(1) });
    let rare = store.read(name("s"), EventQuery { types: Some(vec!["none".into()]), ..EventQuery::default() });
    let all = store.read(name("s"), EventQuery::default());
    assert!(!matches!(search, Op::Ready(_)) && !matches!(page, Op::Ready(_)));
    assert!(!matches!(rare, Op::Ready(_)) && !matches!(all, Op::Ready(_)));
    assert!(search.await.unwrap().is_empty() && rare.await.unwrap().is_empty());
    assert_eq!((page.await.unwrap().len(), all.await.unwrap().len()), (1, 20_000));
    store.close().await.unwrap();
}

#[test]
fn threads_open_and_close_the_same_store_as_they_please() {
    const THREADS: usize = 6;
    const ROUNDS: usize = 25;
    let dir = tempfile::tempdir().unwrap();
    // As hot reload does it: every worker thread has a runtime and adapters of its own, and they overlap.
    let worker = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for round in 0..ROUNDS {
                let store = open(dir.path());
                let writes = [store.kv_increment(name("k"), 1.0), store.kv_increment(name("k"), 1.0)];
                for write in writes {
                    write.await.unwrap();
                }
                // Every other one is only dropped.
                if round % 2 == 0 {
                    store.close().await.unwrap();
                }
            }
        });
    };
    std::thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(worker))));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = open(dir.path());
        assert_eq!(store.kv_get(name("k")).await.unwrap().unwrap().parse(), Ok(THREADS * ROUNDS * 2));
        store.close().await.unwrap();
    });
}

#[tokio::test]
async fn what_is_deleted_on_the_callers_thread_is_removed_without_another_call() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    // Until the writer's thread happens to be idle, so that this one does it.
    let mut removed = 0.0;
    loop {
        store.append(name("s"), event(0), None, None).await.unwrap();
        let inline = stat(&store, "inlineWrites");
        store.delete_subject(name("s")).await.unwrap();
        // The subject and its event.
        removed += 2.0;
        if stat(&store, "inlineWrites") > inline {
            break;
        }
    }
    until(async || stat(&store, "removedInBackground") == removed).await;
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_panic_of_the_writers_thread_is_an_error_of_the_call_and_the_directory_can_be_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let options = || FileStoreOptions { durability: Durability::Disk, ..FileStoreOptions::new(dir.path()) };
    let open = || FileStore::new(options(), system_clock(), Handle::current());
    let store = open();
    let announce: Announce = Arc::new(|_, _| panic!("on purpose"));
    let event = || NewEvent::parse(r#"{"type":"t"}"#).unwrap();
    let error = store.append(name("s"), event(), None, Some(announce)).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal, "{error}");
    assert!(error.is_maybe_applied() && !error.is_retryable(), "{error}");
    // While the thread ends calls are refused; after that they open the directory again.
    let appended = async {
        while let Err(refused) = store.append(name("s"), event(), None, None).await {
            assert!(refused.message().contains("open it again"), "{refused}");
        }
    };
    tokio::time::timeout(Duration::from_secs(30), appended).await.unwrap();
    store.close().await.unwrap();

    let again = open();
    again.append(name("s"), event(), None, None).await.unwrap();
    assert_eq!(again.read(name("s"), EventQuery::default()).await.unwrap().len(), 3);
    again.close().await.unwrap();
}
