//! Coming from nvent's own file adapter: its files are imported once, as far as they can be read, and left as they are.

#[path = "support/name.rs"]
mod name;

use std::fs;
use std::path::Path;

use name::name;
use nvent_native::json::{self, Filter};
use nvent_native::store::file::{FileStore, FileStoreOptions};
use nvent_native::store::{EventQuery, IndexQuery, StoreBackend};
use nvent_native::time::system_clock;
use tokio::runtime::Handle;

fn store(dir: &Path) -> FileStore {
    FileStore::new(FileStoreOptions::new(dir), system_clock(), Handle::current())
}

fn write(dir: &Path, name: &str, text: impl AsRef<[u8]>) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Writes what nvent leaves after a run, with the damage that a killed process and a careless hand do to it.
fn old_store(dir: &Path) {
    write(
        dir,
        "streams/nvent_flow_run_my_run-1.ndjson",
        concat!(
            r#"{"id":"1700000000000-abc","ts":1700000000000,"type":"flow.start","runId":"my_run-1","data":{"n":1}}"#,
            "\n",
            r#"{"id":"1700000000000-xyz","ts":1700000000000,"type":"step.started","runId":"my_run-1","stepName":"a"}"#,
            "\n",
            r#"{"id":"1700000000001-zzz","ts":17000000"#,
            "\n",
            r#"{"id":"1700000000002-qqq","ts":1700000000002,"type":"flow.completed","runId":"my_run-1"}"#,
            "\n",
        ),
    );
    write(
        dir,
        "streams/nvent_trigger_event_order_paid.ndjson",
        r#"{"id":"5-a","ts":5,"type":"x","triggerName":"order/paid"}"#,
    );
    write(dir, "streams/torn.ndjson", "{\"id\":\"1-");
    write(
        dir,
        "indices/nvent_flows.json",
        r#"[{"id":"b","score":2,"metadata":{"version":3,"stats":{"total":1}}},{"id":"a","score":1},{"score":1}]"#,
    );
    write(dir, "indices/broken.json", "[{]");
    write(dir, "kv/nvent_scheduler_lock_x.json", r#"{"at":1.50}"#);
    write(dir, "kv/plain.json", "\"text\"");
    write(dir, "kv/binary.json", [0xff, 0xfe, b'{']);
    write(dir, "kv/notes.txt", "not ours");
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for folder in ["streams", "indices", "kv"] {
        for file in fs::read_dir(dir.join(folder)).unwrap() {
            let path = file.unwrap().path();
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn everything_readable_is_imported_and_the_rest_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    old_store(dir.path());
    let before = files(dir.path());
    let store = store(dir.path());

    let run = store.read(name("nvent:flow:run:my_run-1"), EventQuery::default()).await.unwrap();
    let kinds: Vec<_> = run
        .iter()
        .map(|record| {
            let record = json::parse_object("", record).unwrap();
            format!("{} {} {}", record["id"].as_str().unwrap(), record["ts"], record["type"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        kinds,
        [
            "1700000000000-0 1700000000000 flow.start",
            "1700000000000-1 1700000000000 step.started",
            "1700000000002-0 1700000000002 flow.completed"
        ],
        "in the order of the file, with ids that have an order"
    );
    assert_eq!(store.read(name("nvent:trigger:event:order/paid"), EventQuery::default()).await.unwrap().len(), 1);

    let page = store
        .index_read(name("nvent:flows"), IndexQuery { after: None, offset: 0, limit: 9, filter: Filter::default() });
    let page: Vec<_> = page.await.unwrap().iter().map(|e| format!("{} {} {}", e.id, e.score, e.metadata)).collect();
    assert_eq!(page, [r#"b 2 {"version":3,"stats":{"total":1}}"#, r#"a 1 {"version":0}"#]);
    assert_eq!(store.kv_get(name("nvent:scheduler:lock:x")).await.unwrap().as_deref(), Some(r#"{"at":1.50}"#));
    assert_eq!(store.kv_get(name("plain")).await.unwrap().as_deref(), Some("\"text\""));

    let report = store.health().await.unwrap().detail.unwrap();
    for expected in [
        "imported 4 events, 2 index entries and 2 keys",
        "nvent_flow_run_my_run-1.ndjson: line 3",
        "torn.ndjson: line 1",
        "broken.json",
        "entry 2 has no id or no score",
        "binary.json",
        "skipped 5",
    ] {
        assert!(report.contains(expected), "{expected:?} is missing in: {report}");
    }
    assert!(!report.contains("notes.txt"), "{report}");
    assert_eq!(files(dir.path()), before, "the old files are as they were");
    store.close().await.unwrap();
}

#[tokio::test]
async fn it_is_imported_once() {
    let dir = tempfile::tempdir().unwrap();
    old_store(dir.path());
    let first = store(dir.path());
    assert!(first.delete_subject(name("nvent:flow:run:my_run-1")).await.unwrap());
    first.kv_set(name("plain"), "2".into(), None).await.unwrap();
    first.close().await.unwrap();
    let second = store(dir.path());
    assert!(second.read(name("nvent:flow:run:my_run-1"), EventQuery::default()).await.unwrap().is_empty());
    assert_eq!(second.kv_get(name("plain")).await.unwrap().as_deref(), Some("2"));
    assert_eq!(second.health().await.unwrap().detail, None);
    second.close().await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn names_are_restored_as_far_as_the_events_have_them_and_may_meet() {
    let dir = tempfile::tempdir().unwrap();
    for (name, event) in [
        ("a_b", r#"{"ts":7,"type":"t","runId":"elsewhere"}"#),
        ("a:b", r#"{"ts":5,"type":"t"}"#),
        ("p_x_y", r#"{"ts":8,"type":"t","runId":"x_y"}"#),
        ("q_x_y", r#"{"ts":8,"type":"t","triggerName":"x/y"}"#),
        ("__", "{\"ts\":9,\"type\":\"t\",\"runId\":\"\u{1F600}\"}"),
    ] {
        write(dir.path(), &format!("streams/{name}.ndjson"), event);
    }
    let store = store(dir.path());
    for (subject, ids) in
        [("a:b", &["5-0", "7-0"][..]), ("p:x_y", &["8-0"]), ("q:x/y", &["8-0"]), ("\u{1F600}", &["9-0"])]
    {
        let read = store.read(name(subject), EventQuery::default()).await.unwrap();
        let read: Vec<_> = read.iter().map(|record| json::parse_object("", record).unwrap()["id"].clone()).collect();
        assert_eq!(read, ids, "{subject}");
    }
    store.close().await.unwrap();
}
