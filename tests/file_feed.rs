//! The feed of the file store beyond the contract: what retention and restarts do to it.

#[path = "support/name.rs"]
mod name;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use name::name;
use nvent_native::event::NewEvent;
use nvent_native::json;
use nvent_native::op::BoxFuture;
use nvent_native::store::consumer::{Batch, BatchOutcome, Consumer, ConsumerHandler, ConsumerOptions, StartAt};
use nvent_native::store::file::{FileStore, FileStoreOptions, Retention};
use nvent_native::store::{ConsumerChange, ConsumerFilter, EventQuery, FeedPage, FeedQuery, StoreBackend};
use nvent_native::time::ManualClock;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

const START: u64 = 1_767_225_600_000;

fn open(dir: &Path, clock: &Arc<ManualClock>, keep: Option<u64>) -> FileStore {
    let retention = Retention { max_age_ms: None, max_events_per_subject: keep };
    let options = FileStoreOptions { retention, ..FileStoreOptions::new(dir) };
    FileStore::new(options, clock.clone(), Handle::current())
}

async fn append(store: &FileStore, subject: &str, kind: &str, n: usize) {
    let event = NewEvent::parse(&format!(r#"{{"type":"{kind}","n":{n}}}"#)).unwrap();
    store.append(name(subject), event, None, None).await.unwrap();
}

async fn read(store: &FileStore, query: FeedQuery) -> FeedPage {
    store.feed_read(query).await.unwrap()
}

fn all() -> FeedQuery {
    FeedQuery { limit: 1_000, ..FeedQuery::default() }
}

fn numbers(page: &FeedPage) -> Vec<u64> {
    let number = |text: &str| json::parse_object("event", text).unwrap()["n"].as_u64().unwrap();
    page.records.iter().map(|record| number(&record.event)).collect()
}

/// Waits for a condition while the clock and the writer go on.
async fn until(store: &FileStore, clock: &ManualClock, mut is_so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is_so().await {
            clock.advance(60_000);
            store.kv_clear(name("none")).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it happens in the end");
}

#[tokio::test]
async fn a_position_is_never_given_twice_also_after_the_newest_events_were_deleted() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(START));
    let store = open(dir.path(), &clock, None);
    for n in 0..10 {
        append(&store, "s", "t", n).await;
    }
    let head = store.feed_head().await.unwrap();
    store.delete_subject(name("s")).await.unwrap();
    let removed = |store: &FileStore| store.stats().into_iter().find(|(n, _)| *n == "removedInBackground").unwrap().1;
    until(&store, &clock, async || removed(&store) >= 11.0).await;
    store.close().await.unwrap();

    let store = open(dir.path(), &clock, None);
    assert_eq!(store.feed_head().await.unwrap(), head);
    append(&store, "s", "t", 10).await;
    let page = read(&store, FeedQuery { after: head, ..all() }).await;
    assert_eq!(numbers(&page), [10], "a consumer behind the deleted events reads the next one");
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_retention_removes_before_a_consumer_had_it_is_counted_for_it() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(START));
    let store = open(dir.path(), &clock, None);
    for n in 0..100 {
        append(&store, ["a", "b"][n % 2], ["x", "y"][n / 2 % 2], n).await;
    }
    let at = read(&store, all()).await.records[39].position.clone();
    let filter = ConsumerFilter { subjects: vec!["a".into()], types: vec!["x".into()] };
    for (consumer, filter) in [("all", ConsumerFilter::default()), ("some", filter)] {
        let lease = store.consumer_acquire(name(consumer)).await.unwrap();
        let change = ConsumerChange { position: Some(at.clone()), filter: Some(filter), ..Default::default() };
        store.consumer_save(name(consumer), &lease, change).await.unwrap();
    }
    store.close().await.unwrap();

    let store = open(dir.path(), &clock, Some(10));
    let left = async || store.read(name("b"), EventQuery::default()).await.unwrap().len();
    until(&store, &clock, async || left().await == 10).await;
    assert_eq!(numbers(&read(&store, all()).await)[0], 80);
    let missed = async |consumer: &str| store.consumer_load(name(consumer)).await.unwrap().unwrap().missed;
    assert_eq!(missed("all").await, 40, "those between its cursor and the newest twenty");
    assert_eq!(missed("some").await, 10, "of those, the ones of its subject and type");

    let lease = store.consumer_acquire(name("all")).await.unwrap();
    let query = FeedQuery { after: Some(at), consumer: Some("all".into()), ..all() };
    assert_eq!(read(&store, query.clone()).await.missed, 40);
    let change = ConsumerChange { missed_reported: 40, ..Default::default() };
    store.consumer_save(name("all"), &lease, change).await.unwrap();
    assert_eq!(read(&store, query).await.missed, 0);
    store.close().await.unwrap();
}

#[tokio::test]
async fn retention_keeps_what_a_consumer_at_work_has_in_hand_until_its_cursor_is_stored() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(START));
    let store = open(dir.path(), &clock, Some(10));
    let lease = store.consumer_acquire(name("c")).await.unwrap();
    store.consumer_save(name("c"), &lease, ConsumerChange::default()).await.unwrap();
    for n in 0..50 {
        append(&store, "a", "t", n).await;
    }
    let page = read(&store, FeedQuery { consumer: Some("c".into()), limit: 30, ..FeedQuery::default() }).await;
    let in_hand = page.end.clone();
    for n in 0..20 {
        append(&store, "b", "t", n).await;
    }
    let count = async |subject: &str| store.read(name(subject), EventQuery::default()).await.unwrap().len();
    until(&store, &clock, async || count("b").await == 10).await;
    let left = numbers(&read(&store, all()).await);
    assert!((left[0], left.len()) <= (0, 50 + 10), "{left:?}");
    assert_eq!(left.iter().filter(|n| **n < 30).count(), 30 + 10, "thirty of a in hand, ten of b");
    let missed = store.consumer_load(name("c")).await.unwrap().unwrap().missed;
    assert_eq!(missed, 10 + 10, "ten of a and ten of b that it has not read");

    let change = ConsumerChange { position: in_hand, ..Default::default() };
    store.consumer_save(name("c"), &lease, change).await.unwrap();
    until(&store, &clock, async || count("a").await == 10).await;
    assert_eq!(store.consumer_load(name("c")).await.unwrap().unwrap().missed, 20, "what it has had is not missed");
    store.close().await.unwrap();
}

#[tokio::test]
async fn cursors_that_come_one_by_one_make_no_writes_of_callers_leave_their_groups() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(START));
    let store = open(dir.path(), &clock, None);
    let lease = store.consumer_acquire(name("c")).await.unwrap();
    append(&store, "s", "t", 0).await;
    let inline_writes = || store.stats().into_iter().find(|(n, _)| *n == "inlineWrites").unwrap().1;
    let before = inline_writes();
    for _ in 0..100 {
        let change = ConsumerChange { position: store.feed_head().await.unwrap(), ..Default::default() };
        store.consumer_save(name("c"), &lease, change).await.unwrap();
    }
    assert_eq!(inline_writes(), before, "they go to the writer, and are not counted as writes that come one by one");
    store.close().await.unwrap();
}

/// Records what it handles, and what was missed.
struct Recording(mpsc::UnboundedSender<(&'static str, u64)>);

impl ConsumerHandler for Recording {
    fn handle(&self, batch: Batch) -> BoxFuture<BatchOutcome> {
        if let Some(missed) = batch.missed {
            self.0.send(("missed", missed)).unwrap();
        }
        for event in &batch.events {
            let n = json::parse_object("event", &event.event).unwrap()["n"].as_u64().unwrap();
            self.0.send(("event", n)).unwrap();
        }
        let handled = batch.events.len();
        Box::pin(async move { Ok(BatchOutcome { handled, failure: None }) })
    }
}

async fn consume(store: &Arc<FileStore>) -> (Consumer, mpsc::UnboundedReceiver<(&'static str, u64)>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let options = ConsumerOptions { from: StartAt::Beginning, ..ConsumerOptions::default() };
    let handler = Arc::new(Recording(sender));
    let consumer =
        Consumer::start(store.clone(), name("c"), options, handler, ManualClock::at(START), &Handle::current());
    (consumer.await.unwrap(), receiver)
}

async fn next(handled: &mut mpsc::UnboundedReceiver<(&'static str, u64)>) -> (&'static str, u64) {
    tokio::time::timeout(Duration::from_secs(60), handled.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_consumer_that_retention_overtook_gets_the_count_of_what_it_missed_once_before_it_goes_on() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(START));
    let store = Arc::new(open(dir.path(), &clock, None));
    let (consumer, mut handled) = consume(&store).await;
    for n in 0..20 {
        append(&store, "s", "t", n).await;
        assert_eq!(next(&mut handled).await, ("event", n as u64));
    }
    consumer.stop().await.unwrap();
    for n in 20..100 {
        append(&store, "s", "t", n).await;
    }
    store.close().await.unwrap();

    let store = Arc::new(open(dir.path(), &clock, Some(10)));
    until(&store, &clock, async || store.read(name("s"), EventQuery::default()).await.unwrap().len() == 10).await;
    let (consumer, mut handled) = consume(&store).await;
    assert_eq!(next(&mut handled).await, ("missed", 70));
    for n in 90..100 {
        assert_eq!(next(&mut handled).await, ("event", n));
    }
    consumer.stop().await.unwrap();
    append(&store, "s", "t", 100).await;
    let (consumer, mut handled) = consume(&store).await;
    assert_eq!(next(&mut handled).await, ("event", 100));
    consumer.stop().await.unwrap();
    store.close().await.unwrap();
}
