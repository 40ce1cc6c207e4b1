//! Durable consumers of the file store under kill -9: a real child process that appends and consumes, killed many times.
//!
//! The child is this test binary itself, started with the data directory in an environment variable. It prints what was
//! acknowledged and what was handled, line by line.

#[path = "support/name.rs"]
mod name;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use name::name;
use nvent_native::event::NewEvent;
use nvent_native::json;
use nvent_native::op::BoxFuture;
use nvent_native::store::consumer::{Batch, BatchOutcome, Consumer, ConsumerHandler, ConsumerOptions, StartAt};
use nvent_native::store::file::{FileStore, FileStoreOptions};
use nvent_native::store::{EventQuery, StoreBackend};
use nvent_native::time::system_clock;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

const DIR: &str = "NVENT_TEST_CONSUMER_DIR";
const SUBJECTS: usize = 4;
const ROUNDS: usize = 25;

fn open(dir: &Path) -> Arc<FileStore> {
    Arc::new(FileStore::new(FileStoreOptions::new(dir), system_clock(), Handle::current()))
}

fn number(event: &str) -> u64 {
    json::parse_object("event", event).unwrap()["n"].as_u64().unwrap()
}

fn event(n: u64) -> NewEvent {
    NewEvent::parse(&format!(r#"{{"type":"t","n":{n}}}"#)).unwrap()
}

/// Prints what it handles before that counts as handled.
struct Printing;

impl ConsumerHandler for Printing {
    fn handle(&self, batch: Batch) -> BoxFuture<BatchOutcome> {
        for event in &batch.events {
            say(format_args!("handled {} {}", event.subject, number(&event.event)));
        }
        let handled = batch.events.len();
        Box::pin(async move { Ok(BatchOutcome { handled, failure: None }) })
    }
}

/// Records what it handles.
struct Recording(mpsc::UnboundedSender<(String, u64)>);

impl ConsumerHandler for Recording {
    fn handle(&self, batch: Batch) -> BoxFuture<BatchOutcome> {
        for event in &batch.events {
            self.0.send((event.subject.to_string(), number(&event.event))).unwrap();
        }
        let handled = batch.events.len();
        Box::pin(async move { Ok(BatchOutcome { handled, failure: None }) })
    }
}

async fn consume(store: Arc<dyn StoreBackend>, handler: Arc<dyn ConsumerHandler>) -> Consumer {
    let options = ConsumerOptions { from: StartAt::Beginning, concurrency: 2, ..ConsumerOptions::default() };
    Consumer::start(store, name("c"), options, handler, system_clock(), &Handle::current()).await.unwrap()
}

fn say(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

/// Runs as the child process, until it is killed: not a test of its own.
#[tokio::test]
async fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let store = open(Path::new(&dir));
    let _consumer = consume(store.clone(), Arc::new(Printing)).await;
    let append = async |s: usize| {
        let subject = format!("s{s}");
        let mut n = store.read(name(&subject), EventQuery::default()).await.unwrap().len() as u64;
        loop {
            store.append(name(&subject), event(n), None, None).await.unwrap();
            say(format_args!("appended {subject} {n}"));
            n += 1;
        }
    };
    futures_util::future::join_all((0..SUBJECTS).map(append)).await;
}

#[tokio::test]
async fn every_acknowledged_event_is_handled_at_least_once_and_in_order_also_across_kills() {
    let dir = tempfile::tempdir().unwrap();
    let mut appended: HashMap<String, u64> = HashMap::new();
    // Of each run, what it handled of each subject, in order.
    let mut runs: Vec<HashMap<String, Vec<u64>>> = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut handled: HashMap<String, Vec<u64>> = HashMap::new();
        let mut note = |line: String| {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["appended", subject, n] => _ = appended.insert(subject.into(), n.parse().unwrap()),
                ["handled", subject, n] => handled.entry(subject.into()).or_default().push(n.parse().unwrap()),
                _ => {}
            }
        };
        lines.by_ref().take(100 + round * 97).for_each(&mut note);
        child.kill().unwrap();
        lines.for_each(&mut note);
        child.wait().unwrap();
        runs.push(handled);
    }

    let store = open(dir.path());
    let (sender, mut handled) = mpsc::unbounded_channel();
    let consumer = consume(store.clone(), Arc::new(Recording(sender))).await;
    let until_caught_up = async {
        while consumer.stats().lag > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), until_caught_up).await.unwrap();
    consumer.stop().await.unwrap();
    let mut last: HashMap<String, Vec<u64>> = HashMap::new();
    while let Ok((subject, n)) = handled.try_recv() {
        last.entry(subject).or_default().push(n);
    }
    runs.push(last);

    for subject in (0..SUBJECTS).map(|s| format!("s{s}")) {
        let records = store.read(name(&subject), EventQuery::default()).await.unwrap();
        assert!(appended[&subject] < records.len() as u64);
        let (mut next, mut repeated) = (0, 0);
        for run in runs.iter().filter_map(|run| run.get(&subject)) {
            // A run begins at or before the first event that was not handled, and goes on without a hole.
            assert!(run[0] <= next, "{subject}: {} was never handled", next);
            assert!(run.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{subject}: not in order");
            repeated += next - run[0];
            next = next.max(run[run.len() - 1] + 1);
        }
        assert_eq!(next, records.len() as u64, "{subject}: everything was handled");
        assert!(
            repeated < ROUNDS as u64 * 1_024,
            "{subject}: duplicates come around the kills only, {repeated} of {next}"
        );
    }
    store.close().await.unwrap();
}
