//! The file store's files: the user's own, readable, versioned, private, checked.

#[path = "support/name.rs"]
mod name;

use std::path::{Path, PathBuf};

use name::name;
use nvent_native::error::Code;
use nvent_native::event::NewEvent;
use nvent_native::json;
use nvent_native::op::Op;
use nvent_native::store::file::{FileStore, FileStoreOptions};
use nvent_native::store::{DocQuery, EventQuery, IndexQuery, Maintenance, StoreBackend};
use nvent_native::time::{ManualClock, system_clock};
use rusqlite::Connection;
use tokio::runtime::Handle;

fn store(dir: &Path) -> FileStore {
    FileStore::new(FileStoreOptions::new(dir), system_clock(), Handle::current())
}

/// Returns a store that is only read.
fn reader(dir: &Path) -> FileStore {
    let options = FileStoreOptions { read_only: true, ..FileStoreOptions::new(dir) };
    FileStore::new(options, system_clock(), Handle::current())
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn object(text: &str) -> json::Object {
    json::parse_object("object", text).unwrap()
}

fn all(limit: usize) -> IndexQuery {
    IndexQuery { after: None, offset: 0, limit, filter: json::Filter::default() }
}

/// Writes what every fixture holds, written at the time 1000 by the version in its name: the calls below.
async fn fill(store: &FileStore) {
    for n in 0..3 {
        store
            .append(name("nq:flow:1"), NewEvent::parse(&format!(r#"{{"type":"t","n":{n}}}"#)).unwrap(), None, None)
            .await
            .unwrap();
    }
    store.append(name("deleted"), NewEvent::parse(r#"{"type":"t"}"#).unwrap(), None, None).await.unwrap();
    store.delete_subject(name("deleted")).await.unwrap();
    store.kv_set(name("key"), r#"{"a":[1,"é"]}"#.into(), None).await.unwrap();
    store.kv_set(name("expired"), "1".into(), Some(1_000)).await.unwrap();
    store.kv_set(name("later"), "1".into(), Some(1_000_000)).await.unwrap();
    store.index_add(name("index"), name("low"), -1.5, object(r#"{"a.b":1}"#)).await.unwrap();
    store.index_add(name("index"), name("high"), 2.0, object("{}")).await.unwrap();
    store.index_update(name("index"), name("low"), object(r#"{"a":{"c":2}}"#), None).await.unwrap();
    store.doc_save(name("docs"), name("one"), r#"{"z":1,"a":2}"#.into()).await.unwrap();
}

async fn check_filled(dir: &Path) {
    let clock = ManualClock::at(500_000);
    let store = FileStore::new(FileStoreOptions::new(dir), clock.clone(), Handle::current());
    let read = store.read(name("nq:flow:1"), EventQuery::default()).await.unwrap();
    assert_eq!(&*read[2], r#"{"id":"1000-2","ts":1000,"type":"t","n":2}"#);
    assert_eq!(read.len(), 3);
    assert!(store.read(name("deleted"), EventQuery::default()).await.unwrap().is_empty());
    assert_eq!(store.kv_get(name("key")).await.unwrap().as_deref(), Some(r#"{"a":[1,"é"]}"#));
    assert_eq!(store.kv_get(name("expired")).await.unwrap(), None);
    assert_eq!(store.kv_get(name("later")).await.unwrap().as_deref(), Some("1"));
    let page = store.index_read(name("index"), all(9)).await.unwrap();
    let page: Vec<_> = page.iter().map(|entry| (&*entry.id, entry.score, &*entry.metadata)).collect();
    assert_eq!(page, [("high", 2.0, r#"{"version":0}"#), ("low", -1.5, r#"{"a":{"b":1,"c":2},"version":1}"#)]);
    let docs = store.doc_list(name("docs"), DocQuery::default()).await.unwrap();
    assert_eq!(docs, [("one".into(), r#"{"z":1,"a":2}"#.into())]);
    clock.set(10);
    let again = store.append(name("deleted"), NewEvent::parse(r#"{"type":"t"}"#).unwrap(), None, None).await.unwrap();
    assert_eq!(again.id(), "1000-1");
    assert_eq!(store.verify().await.unwrap().problems, Vec::<String>::new());
    store.close().await.unwrap();
}

#[tokio::test]
async fn files_of_every_version_are_opened() {
    for name in ["file-v1.db"] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(fixture(name), dir.path().join("nvent.db")).unwrap();
        check_filled(dir.path()).await;
    }
}

#[tokio::test]
async fn todays_version_reads_what_it_writes() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new(FileStoreOptions::new(dir.path()), ManualClock::at(1_000), Handle::current());
    fill(&store).await;
    store.close().await.unwrap();
    check_filled(dir.path()).await;
}

#[tokio::test]
async fn a_newer_version_and_a_foreign_database_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("nvent.db");
    std::fs::copy(fixture("file-v1.db"), &db).unwrap();
    Connection::open(&db).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let newer = std::fs::read(&db).unwrap();
    let error = store(dir.path()).kv_get(name("k")).await.unwrap_err();
    assert_eq!(error.code(), Code::Corrupt);
    assert!(error.message().contains("99") && error.message().contains("upgrade nvent-native"), "{error}");
    assert_eq!(reader(dir.path()).kv_get(name("k")).await.unwrap_err().message(), error.message());
    assert_eq!(std::fs::read(&db).unwrap(), newer);

    std::fs::remove_file(&db).unwrap();
    let error = reader(dir.path()).kv_get(name("k")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().contains("there is no store in this directory"), "{error}");
    Connection::open(&db).unwrap().execute_batch("CREATE TABLE mine (x)").unwrap();
    let error = store(dir.path()).kv_get(name("k")).await.unwrap_err();
    assert_eq!(error.code(), Code::Corrupt);
    assert!(error.message().contains("another program"), "{error}");
    assert_eq!(reader(dir.path()).kv_get(name("k")).await.unwrap_err().message(), error.message());

    std::fs::write(&db, "no database at all, but long enough to be mistaken for one by its size ".repeat(100)).unwrap();
    assert_eq!(store(dir.path()).kv_get(name("k")).await.unwrap_err().code(), Code::Corrupt);
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_created_is_private_wherever_it_is() {
    use std::os::unix::fs::PermissionsExt;
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("with space, ümläut & ?*[x]#%20.db/ 'quoted' \"twice\"");
    let store = store(&dir);
    store.kv_set(name("k"), "1".into(), None).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(dir.parent().unwrap())), (0o700, 0o700));
    for file in std::fs::read_dir(&dir).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    let copy = base.path().join("copy.db");
    store.backup(&copy).await.unwrap();
    assert_eq!(mode(&copy), 0o600);
    store.close().await.unwrap();
}

#[tokio::test]
async fn names_that_differ_in_any_character_never_collide() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let names =
        ["a", "A", "a ", "a\0", "a\0b", "ä", "a\u{308}", "a/b", "a_b", "a:b", "a*b", "a%b", "a'b", "1", "01", "1.0"];
    for text in names {
        store.append(name(text), NewEvent::parse(r#"{"type":"t"}"#).unwrap(), None, None).await.unwrap();
        store.kv_set(name(text), json::to_json(text), None).await.unwrap();
        store.index_add(name("i"), name(text), 0.0, object("{}")).await.unwrap();
        store.doc_save(name(text), name(text), format!("{{\"name\":{}}}", json::to_json(text)).into()).await.unwrap();
    }
    for text in names {
        assert_eq!(store.read(name(text), EventQuery::default()).await.unwrap().len(), 1, "{text:?}");
        assert_eq!(store.kv_get(name(text)).await.unwrap(), Some(json::to_json(text)));
        let doc = store.doc_get(name(text), name(text)).await.unwrap().unwrap();
        assert_eq!(object(&doc)["name"], text);
    }
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    let page = store.index_read(name("i"), all(99)).await.unwrap();
    assert_eq!(page.iter().map(|entry| &*entry.id).collect::<Vec<_>>(), sorted);
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_a_killed_process_left_half_removed_stays_gone_and_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let first = store(dir.path());
    for key in ["k:1", "k:2", "other"] {
        first.kv_set(name(key), "1".into(), None).await.unwrap();
    }
    first.append(name("s"), NewEvent::parse(r#"{"type":"t"}"#).unwrap(), None, None).await.unwrap();
    first.close().await.unwrap();
    let db = dir.path().join("nvent.db");
    // As a clear of many keys and the deletion of a long subject begin.
    Connection::open(&db)
        .unwrap()
        .execute_batch(
            "INSERT INTO kv_clears (epoch, pattern) VALUES (1, 'k:*');
             INSERT INTO meta (name, value) VALUES ('kv_epoch', '1');
             UPDATE subjects SET name = NULL;",
        )
        .unwrap();
    let second = store(dir.path());
    assert_eq!(second.kv_get(name("k:1")).await.unwrap(), None);
    assert_eq!(second.kv_increment(name("k:2"), 5.0).await.unwrap().to_string(), "5");
    assert_eq!(second.kv_get(name("other")).await.unwrap().as_deref(), Some("1"));
    assert!(second.read(name("s"), EventQuery::default()).await.unwrap().is_empty());
    let left = "SELECT (SELECT count(*) FROM kv) + (SELECT count(*) FROM events) + (SELECT count(*) FROM kv_clears)";
    let reader = Connection::open(&db).unwrap();
    let removal = async {
        while reader.query_row(left, [], |row| row.get::<_, i64>(0)).unwrap() != 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), removal).await.unwrap();
    assert_eq!(second.kv_get(name("k:2")).await.unwrap().as_deref(), Some("5"));
    second.close().await.unwrap();
}

#[tokio::test]
async fn a_backup_taken_while_writing_is_a_whole_store() {
    let base = tempfile::tempdir().unwrap();
    let source = store(&base.path().join("source"));
    let event = || NewEvent::parse(r#"{"type":"t"}"#).unwrap();
    let before: Vec<_> = (0..500).map(|_| source.append(name("s"), event(), None, None)).collect();
    let copy = base.path().join("copy/nvent.db");
    std::fs::create_dir(copy.parent().unwrap()).unwrap();
    let backup = source.backup(&copy);
    let after: Vec<_> = (0..500).map(|_| source.append(name("s"), event(), None, None)).collect();
    backup.await.unwrap();
    for write in before.into_iter().chain(after) {
        write.await.unwrap();
    }
    let restored = store(copy.parent().unwrap());
    assert_eq!(
        restored.read(name("s"), EventQuery::default()).await.unwrap().len(),
        500,
        "what was called for before it"
    );
    assert_eq!(restored.verify().await.unwrap().problems, Vec::<String>::new());
    assert_eq!(source.backup(&copy).await.unwrap_err().code(), Code::Invalid, "a file that is there is not replaced");
    restored.close().await.unwrap();
    source.close().await.unwrap();
}

#[tokio::test]
async fn a_changed_row_is_never_passed_off_as_what_was_stored() {
    let dir = tempfile::tempdir().unwrap();
    let first = store(dir.path());
    fill(&first).await;
    first.close().await.unwrap();
    let conn = Connection::open(dir.path().join("nvent.db")).unwrap();
    conn.execute_batch(
        "UPDATE events SET record = replace(record, '\"n\":1', '\"n\":7');
         UPDATE events SET type = 'other' WHERE seq = 2 OR id = 3;
         UPDATE kv SET value = '2' WHERE key = 'key';
         UPDATE index_entries SET metadata = '{}' WHERE id = 'low';
         UPDATE documents SET doc = '{}', sum = NULL;",
    )
    .unwrap();
    drop(conn);
    let store = store(dir.path());
    let corrupt = async |op: Op<()>| assert_eq!(op.await.unwrap_err().code(), Code::Corrupt);
    corrupt(store.read(name("nq:flow:1"), EventQuery::default()).map(drop)).await;
    corrupt(store.kv_get(name("key")).map(drop)).await;
    corrupt(store.index_get(name("index"), name("low")).map(drop)).await;
    corrupt(store.index_update(name("index"), name("low"), object(r#"{"x":1}"#), None).map(drop)).await;
    assert_eq!(
        store.doc_get(name("docs"), name("one")).await.unwrap().as_deref(),
        Some("{}"),
        "without a checksum it is not checked"
    );
    store.kv_set(name("key"), "3".into(), None).await.unwrap();
    assert_eq!(
        store.kv_get(name("key")).await.unwrap().as_deref(),
        Some("3"),
        "others, and new values, are as good as ever"
    );
    let problems = store.verify().await.unwrap().problems;
    assert_eq!(problems.len(), 3, "{problems:?}");
    let sums = problems.iter().filter(|problem| problem.contains("does not match its checksum")).count();
    assert_eq!(sums, 2, "the third is a column beside its record: {problems:?}");
    store.close().await.unwrap();
}

/// A small generator: the same damage every time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

#[tokio::test]
async fn damage_anywhere_is_an_error_or_is_found_and_never_a_wrong_answer() {
    const SUBJECTS: usize = 8;
    let dir = tempfile::tempdir().unwrap();
    let original = store(dir.path());
    let mut writes = Vec::new();
    for n in 0..800 {
        let event = NewEvent::parse(&format!(r#"{{"type":"t","n":{n},"pad":"{}"}}"#, "x".repeat(n % 300))).unwrap();
        writes.push(original.append(name(&format!("s{}", n % SUBJECTS)), event, None, None).map(drop));
        writes.push(original.kv_set(name(&format!("k{n}")), n.to_string().into(), None));
    }
    for write in writes {
        write.await.unwrap();
    }
    let mut truth = Vec::new();
    for s in 0..SUBJECTS {
        truth.push(original.read(name(&format!("s{s}")), EventQuery::default()).await.unwrap());
    }
    original.close().await.unwrap();
    let whole = std::fs::read(dir.path().join("nvent.db")).unwrap();

    let mut random = Random(7);
    let mut noticed = 0;
    for round in 0..120 {
        let mut bytes = whole.clone();
        let at = random.below(bytes.len());
        match round % 4 {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => (at..bytes.len().min(at + 64)).for_each(|i| bytes[i] = random.below(256) as u8),
            2 => bytes[at / 4096 * 4096..][..4096].fill(0),
            _ => bytes.truncate(at.max(1)),
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("nvent.db"), bytes).unwrap();
        let store = store(dir.path());
        let mut reported = false;
        let mut wrong = false;
        let mut check = |outcome: Result<bool, nvent_native::Error>| match outcome {
            Ok(right) => wrong |= !right,
            Err(error) => {
                assert!(matches!(error.code(), Code::Corrupt | Code::Io), "{error}");
                reported = true;
            }
        };
        for (s, events) in truth.iter().enumerate() {
            check(store.read(name(&format!("s{s}")), EventQuery::default()).await.map(|read| &read == events));
        }
        for n in (0..800).step_by(37) {
            check(
                store
                    .kv_get(name(&format!("k{n}")))
                    .await
                    .map(|value| value.as_deref() == Some(n.to_string().as_str())),
            );
        }
        match store.verify().await {
            Ok(found) => reported |= !found.problems.is_empty(),
            Err(_) => reported = true,
        }
        assert!(reported || !wrong, "round {round}: damage at {at} changed an answer, and nothing reports it");
        noticed += u32::from(reported);
        // Writing to it may fail, and must not hang or crash.
        let _ = store.kv_set(name("new"), "1".into(), None).await;
        store.close().await.unwrap();
    }
    assert!(noticed > 60, "most of the damage is in what is used: {noticed}");
}
