//! The file store under kill -9: a real child process, killed in the middle of concurrent writes, many times over.
//!
//! The child is this test binary itself, started with the data directory in an environment variable. It prints on its
//! standard output what has been acknowledged, line by line.

#[path = "support/name.rs"]
mod name;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use name::name;
use nvent_native::error::Code;
use nvent_native::event::NewEvent;
use nvent_native::json;
use nvent_native::store::file::{Durability, FileStore, FileStoreOptions};
use nvent_native::store::{EventQuery, Maintenance, StoreBackend};
use nvent_native::time::system_clock;
use tokio::runtime::Handle;

const DIR: &str = "NVENT_TEST_CRASH_DIR";
const DISK: &str = "NVENT_TEST_CRASH_DISK";
const WRITERS: usize = 8;
const ROUNDS: u64 = 12;

fn store(dir: &Path, durability: Durability) -> FileStore {
    FileStore::new(FileStoreOptions { durability, ..FileStoreOptions::new(dir) }, system_clock(), Handle::current())
}

fn spawn_child(dir: &Path, disk: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(DIR, dir).stdout(Stdio::piped()).stderr(Stdio::null());
    if disk {
        command.env(DISK, "1");
    }
    command.spawn().unwrap()
}

/// Runs as the child process, until it is killed: not a test of its own.
#[tokio::test]
async fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let durability = if std::env::var_os(DISK).is_some() { Durability::Disk } else { Durability::Os };
    let store = store(Path::new(&dir), durability);
    store.open().await.unwrap();
    say(format_args!("open"));
    let writer = async |w: usize| {
        let subject = format!("s{w}");
        let mut n = store.read(name(&subject), EventQuery::default()).await.unwrap().len();
        loop {
            // Two in flight at a time, so that groups form and their order counts.
            let event = |n: usize| NewEvent::parse(&format!(r#"{{"type":"t","n":{n}}}"#)).unwrap();
            let (first, second) = (
                store.append(name(&subject), event(n), None, None),
                store.append(name(&subject), event(n + 1), None, None),
            );
            first.await.unwrap();
            second.await.unwrap();
            n += 2;
            say(format_args!("events {w} {n}"));
            let sum = store.kv_increment(name(&format!("k{w}")), 1.0).await.unwrap();
            say(format_args!("sum {w} {sum}"));
        }
    };
    futures_util::future::join_all((0..WRITERS).map(writer)).await;
}

fn say(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

/// Lets a child write for a while, kills it, and returns the last numbers that it acknowledged, by name.
fn run_and_kill(dir: &Path, disk: bool, after_lines: u64) -> HashMap<String, u64> {
    let mut child = spawn_child(dir, disk);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut acknowledged = HashMap::new();
    let mut note = |line: String| {
        // The test harness prints lines of its own.
        let words: Vec<_> = line.split(' ').collect();
        if let [what @ ("events" | "sum"), writer, number] = words[..] {
            acknowledged.insert(format!("{what} {writer}"), number.parse::<u64>().unwrap());
        }
    };
    assert!(lines.any(|line| line.ends_with("open")), "the child opened the store");
    lines.by_ref().take(usize::try_from(after_lines).unwrap()).for_each(&mut note);
    child.kill().unwrap();
    lines.for_each(&mut note);
    child.wait().unwrap();
    acknowledged
}

async fn check(dir: &Path, acknowledged: &HashMap<String, u64>) {
    let store = store(dir, Durability::Os);
    for w in 0..WRITERS {
        let records = store.read(name(&format!("s{w}")), EventQuery::default()).await.unwrap();
        let numbers: Vec<_> =
            records.iter().map(|record| json::parse_object("", record).unwrap()["n"].as_u64().unwrap()).collect();
        assert!(
            numbers.len() as u64 >= acknowledged.get(&format!("events {w}")).copied().unwrap_or(0),
            "an event is missing"
        );
        assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "events are whole and in order: {numbers:?}");
        let sum = store.kv_get(name(&format!("k{w}"))).await.unwrap().map_or(0, |text| text.parse::<u64>().unwrap());
        assert!(sum >= acknowledged.get(&format!("sum {w}")).copied().unwrap_or(0), "an increment is missing");
    }
    assert_eq!(store.verify().await.unwrap().problems, Vec::<String>::new());
    store.close().await.unwrap();
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..ROUNDS {
        // Another moment every round: at once, and after up to some thousand acknowledgements.
        let acknowledged = run_and_kill(dir.path(), round % 3 == 2, round * round * 37);
        check(dir.path(), &acknowledged).await;
    }
}

#[tokio::test]
async fn a_second_process_gets_an_error_with_the_pid_of_the_first_and_opens_the_directory_when_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = spawn_child(dir.path(), false);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with("open")));
    let drain = std::thread::spawn(move || lines.count());

    let second = store(dir.path(), Durability::Os);
    let error = second.kv_get(name("k")).await.unwrap_err();
    assert_eq!(error.code(), Code::Locked);
    assert!(error.message().contains(&child.id().to_string()), "{error}");
    assert!(!second.health().await.unwrap().ok);

    child.kill().unwrap();
    child.wait().unwrap();
    drain.join().unwrap();
    tokio::time::timeout(Duration::from_secs(30), second.kv_get(name("k0"))).await.unwrap().unwrap();
    second.close().await.unwrap();
}
