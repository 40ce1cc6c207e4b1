//! What a consumer does on a store whose calls fail now and then.

#[path = "support/flaky.rs"]
mod flaky;
#[path = "support/name.rs"]
mod name;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flaky::Flaky;
use name::name;
use nvent_native::error::{Code, Error};
use nvent_native::event::NewEvent;
use nvent_native::json::Json;
use nvent_native::op::{BoxFuture, Op};
use nvent_native::store::consumer::{
    Batch, BatchOutcome, Consumer, ConsumerHandler, ConsumerOptions, RetryDelay, StartAt,
};
use nvent_native::store::file::{FileStore, FileStoreOptions, Retention};
use nvent_native::store::{ConsumerChange, Position, StoreBackend};
use nvent_native::time::{ManualClock, system_clock};
use tokio::runtime::Handle;
use tokio::time::Instant;

/// Records the numbers of the events, and fails those given so often.
#[derive(Default)]
struct Recorder {
    seen: Mutex<Vec<u64>>,
    missed: Mutex<Vec<u64>>,
    failures: Mutex<HashMap<u64, u32>>,
}

impl Recorder {
    fn seen(&self) -> Vec<u64> {
        self.seen.lock().unwrap().clone()
    }

    fn failing(n: u64, times: u32) -> Arc<Self> {
        Self::failing_all([(n, times)])
    }

    fn failing_all<const N: usize>(failures: [(u64, u32); N]) -> Arc<Self> {
        Arc::new(Self { failures: Mutex::new(failures.into()), ..Self::default() })
    }
}

/// Returns the number of an event.
fn number(event: &Json) -> u64 {
    nvent_native::json::parse_object("event", event).unwrap()["n"].as_u64().unwrap()
}

struct Recording(Arc<Recorder>);

impl ConsumerHandler for Recording {
    fn handle(&self, batch: Batch) -> BoxFuture<BatchOutcome> {
        let mut outcome = BatchOutcome::default();
        self.0.missed.lock().unwrap().extend(batch.missed);
        for event in &batch.events {
            let n = number(&event.event);
            self.0.seen.lock().unwrap().push(n);
            if let Some(times) = self.0.failures.lock().unwrap().get_mut(&n).filter(|times| **times > 0) {
                *times -= 1;
                outcome.failure = Some("on purpose".into());
                break;
            }
            outcome.handled += 1;
        }
        Box::pin(async { Ok(outcome) })
    }
}

fn unavailable() -> Error {
    Error::unavailable("away")
}

fn closed() -> Error {
    Error::closed("the store")
}

fn options() -> ConsumerOptions {
    let retry_delay = RetryDelay::Fixed { delay: Duration::from_millis(1) };
    ConsumerOptions { from: StartAt::Beginning, attempts: 1, retry_delay, ..ConsumerOptions::default() }
}

fn starting(store: &Arc<Flaky>, options: ConsumerOptions, recorder: &Arc<Recorder>) -> Op<Consumer> {
    let handler = Arc::new(Recording(recorder.clone()));
    Consumer::start(store.clone(), name("c"), options, handler, system_clock(), &Handle::current())
}

async fn start(store: &Arc<Flaky>, recorder: &Arc<Recorder>) -> Consumer {
    starting(store, options(), recorder).await.unwrap()
}

async fn append(store: &Flaky, n: u64) {
    append_to(store, "s", n).await;
}

async fn append_to(store: &Flaky, subject: &str, n: u64) {
    let event = NewEvent::parse(&format!(r#"{{"type":"t","n":{n}}}"#)).unwrap();
    store.append(name(subject), event, None, None).await.unwrap();
}

async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), waiting).await.expect("it happens in the end");
}

async fn cursor(store: &Flaky) -> Option<Position> {
    store.consumer_load(name("c")).await.unwrap().and_then(|state| state.position)
}

async fn until_all_is_stored(store: &Flaky) {
    until(async || cursor(store).await == store.feed_head().await.unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_fails_with_the_error_of_the_store_and_can_be_repeated() {
    let (store, recorder) = (Flaky::new(), Arc::default());
    for method in ["open", "feed_head", "consumer_acquire", "consumer_load", "consumer_save"] {
        store.fail(method, unavailable());
        let error = starting(&store, options(), &recorder).await.err().expect(method);
        assert_eq!((error.code(), store.has_failed()), (Code::Unavailable, true), "{method}");
    }
    let consumer = start(&store, &recorder).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_feed_is_read_again_after_a_pause_where_that_failed() {
    let (store, recorder) = (Flaky::new(), Arc::default());
    append(&store, 0).await;
    store.fail("feed_read", unavailable());
    store.fail("feed_read", unavailable());
    let started = Instant::now();
    let consumer = start(&store, &recorder).await;
    until_all_is_stored(&store).await;
    assert_eq!(recorder.seen(), [0]);
    assert!(started.elapsed() >= Duration::from_secs(2), "it does not ask all the time");
    append(&store, 1).await;
    until_all_is_stored(&store).await;
    assert_eq!(recorder.seen(), [0, 1]);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_stored_is_stored_with_what_came_after_it() {
    let (store, recorder) = (Flaky::new(), Recorder::failing(1, 1));
    let consumer = start(&store, &recorder).await;
    store.fail("consumer_save", unavailable());
    store.fail("consumer_save", unavailable());
    append(&store, 0).await;
    append(&store, 1).await;
    until(async || store.has_failed()).await;
    append(&store, 2).await;
    let failed = Instant::now();
    until_all_is_stored(&store).await;
    assert!(failed.elapsed() >= Duration::from_millis(900), "it does not ask all the time");
    assert_eq!(recorder.seen(), [0, 1, 2], "nothing is delivered again");
    assert_eq!(store.consumer_parked(name("c"), None, 10).await.unwrap().len(), 1);
    // It is handled when it is replayed; that it is not parked any more cannot be stored at first.
    let replay = consumer.replay(None);
    until(async || recorder.seen().len() == 4).await;
    store.fail("consumer_save", unavailable());
    assert_eq!(replay.await.unwrap(), 1);
    until(async || store.has_failed()).await;
    until(async || store.consumer_parked(name("c"), None, 10).await.unwrap().is_empty()).await;
    assert_eq!(consumer.stats().parked, 0);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_fails_to_store_and_the_next_consumer_delivers_again() {
    let (store, recorder) = (Flaky::new(), Arc::default());
    let consumer = start(&store, &recorder).await;
    append(&store, 0).await;
    until(async || recorder.seen() == [0]).await;
    store.fail("consumer_save", unavailable());
    consumer.stop().await.unwrap();
    assert!(store.has_failed());
    assert_eq!(cursor(&store).await, None);
    let next = start(&store, &recorder).await;
    until_all_is_stored(&store).await;
    assert_eq!(recorder.seen(), [0, 0]);
    next.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_consumer_whose_lease_was_lost_waits_for_it_again_and_goes_on_after_the_stored_cursor() {
    let (store, recorder) = (Flaky::new(), Arc::default());
    let consumer = start(&store, &recorder).await;
    append(&store, 0).await;
    until_all_is_stored(&store).await;
    store.fail("consumer_save", Error::new(Code::Conflict, "the lease was lost"));
    store.fail("consumer_acquire", unavailable());
    store.fail("consumer_load", unavailable());
    append(&store, 1).await;
    let failed = Instant::now();
    until(async || store.has_failed()).await;
    append(&store, 2).await;
    until_all_is_stored(&store).await;
    assert!(failed.elapsed() >= Duration::from_secs(2), "a pause after each failure");
    assert_eq!(recorder.seen(), [0, 1, 1, 2]);
    assert!(consumer.stats().active);
    store.fail("consumer_save", Error::new(Code::Conflict, "the lease was lost"));
    store.fail("consumer_acquire", unavailable());
    append(&store, 3).await;
    until(async || store.has_failed()).await;
    assert!(!consumer.stats().active);
    let stopped = Instant::now();
    consumer.stop().await.unwrap();
    assert!(stopped.elapsed() < Duration::from_secs(1), "a stop ends the pause");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_closed_ends_the_consumer() {
    for method in ["feed_read", "consumer_save"] {
        let (store, recorder) = (Flaky::new(), Arc::default());
        if method == "feed_read" {
            store.fail(method, closed());
        }
        let consumer = start(&store, &recorder).await;
        if method == "consumer_save" {
            store.fail(method, closed());
        }
        append(&store, 0).await;
        tokio::time::timeout(Duration::from_secs(600), consumer.ended()).await.expect(method);
        assert!(store.has_failed() && !consumer.stats().active, "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn requested_replays_are_read_again_after_a_pause_where_that_failed() {
    let (store, recorder) = (Flaky::new(), Recorder::failing(0, 1));
    let consumer = start(&store, &recorder).await;
    append(&store, 0).await;
    until_all_is_stored(&store).await;
    store.fail("consumer_replays", unavailable());
    store.fail("consumer_parked", unavailable());
    let requested = Instant::now();
    assert_eq!(store.consumer_request_replay(name("c"), None).await.unwrap(), 1);
    until(async || recorder.seen() == [0, 0]).await;
    assert!(requested.elapsed() >= Duration::from_secs(2) && store.has_failed());
    until(async || consumer.stats().parked == 0).await;
    until(async || store.consumer_replays(name("c")).await.unwrap().is_empty()).await;
    store.fail("consumer_parked", unavailable());
    assert_eq!(
        consumer.replay(None).await.unwrap_err().code(),
        Code::Unavailable,
        "the caller of replay gets the error"
    );
    assert_eq!(consumer.replay(None).await.unwrap(), 0);
    consumer.stop().await.unwrap();
}

/// Returns the numbers of the parked events.
async fn parked(store: &Flaky) -> Vec<u64> {
    let parked = store.consumer_parked(name("c"), None, 10).await.unwrap();
    parked.iter().map(|event| number(&event.event)).collect()
}

#[tokio::test(start_paused = true)]
async fn what_changes_while_a_change_fails_to_be_stored_is_stored_with_it() {
    let (store, recorder) = (Flaky::new(), Recorder::failing_all([(0, 2), (1, 3), (2, 2)]));
    let retry_delay = RetryDelay::Fixed { delay: Duration::from_secs(5) };
    let consumer =
        starting(&store, ConsumerOptions { attempts: 2, retry_delay, ..options() }, &recorder).await.unwrap();
    append(&store, 0).await;
    until_all_is_stored(&store).await;
    let release = store.fail_later("consumer_save", unavailable());
    append(&store, 1).await;
    // One of its deliveries is left for the replay.
    until(async || store.has_failed()).await;
    append(&store, 2).await;
    until(async || consumer.stats().parked == 3).await;
    drop(release);
    until_all_is_stored(&store).await;
    assert_eq!(parked(&store).await, [0, 1, 2]);
    // 0 is handled, which cannot be stored until 1, which fails once more, and 2 are.
    let release = store.fail_later("consumer_save", unavailable());
    let replay = consumer.replay(None);
    until(async || store.has_failed()).await;
    assert_eq!((replay.await.unwrap(), parked(&store).await), (3, vec![0, 1, 2]));
    drop(release);
    until(async || parked(&store).await.is_empty()).await;
    assert_eq!(recorder.seen(), [0, 0, 1, 1, 2, 2, 0, 1, 1, 2]);
    // Nothing comes after it.
    store.fail("consumer_save", unavailable());
    append(&store, 3).await;
    until(async || store.has_failed()).await;
    until_all_is_stored(&store).await;
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_replay_stores_what_has_changed_before_it_or_fails_without_losing_it() {
    let (store, recorder) = (Flaky::new(), Recorder::failing_all([(0, 1), (1, 1)]));
    let consumer = start(&store, &recorder).await;
    let release = store.fail_later("consumer_save", unavailable());
    append(&store, 0).await;
    until(async || store.has_failed()).await;
    append(&store, 1).await;
    until(async || consumer.stats().parked == 2).await;
    // The change under way fails, and the replay with it.
    let replay = consumer.replay(None).into_future();
    tokio::pin!(replay);
    assert!(tokio::time::timeout(Duration::from_secs(10), &mut replay).await.is_err());
    drop(release);
    assert_eq!(replay.await.unwrap_err().code(), Code::Unavailable);
    store.fail("consumer_save", unavailable());
    assert_eq!(consumer.replay(None).await.unwrap_err().code(), Code::Unavailable);
    // What has changed meanwhile is stored at once, as what the store knows is replayed.
    assert_eq!(consumer.replay(None).await.unwrap(), 2);
    until(async || parked(&store).await.is_empty()).await;
    until_all_is_stored(&store).await;
    assert_eq!(recorder.seen(), [0, 1, 0, 1]);
    consumer.stop().await.unwrap();
}

/// Handles each event at once, but 1, which it works at until it is to stop, and a second longer.
#[derive(Default)]
struct Patient(Arc<Mutex<Vec<&'static str>>>);

impl ConsumerHandler for Patient {
    fn handle(&self, batch: Batch) -> BoxFuture<BatchOutcome> {
        let log = self.0.clone();
        Box::pin(async move {
            let Batch { events, mut stopping, .. } = batch;
            let mut outcome = BatchOutcome::default();
            for event in events {
                if number(&event.event) == 1 {
                    log.lock().unwrap().push("begins");
                    stopping.wait_for(|stopping| *stopping).await.unwrap();
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    log.lock().unwrap().push("ends");
                    break;
                }
                outcome.handled += 1;
            }
            Ok(outcome)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_at_work_when_the_lease_is_lost_is_to_stop_and_is_waited_for() {
    let (store, handler) = (Flaky::new(), Arc::new(Patient::default()));
    let (clock, runtime) = (system_clock(), Handle::current());
    let consumer =
        Consumer::start(store.clone(), name("c"), options(), handler.clone(), clock, &runtime).await.unwrap();
    let release = store.fail_later("consumer_save", Error::new(Code::Conflict, "the lease was lost"));
    append(&store, 0).await;
    until(async || store.has_failed()).await;
    append(&store, 1).await;
    let log = || handler.0.lock().unwrap().clone();
    until(async || log() == ["begins"]).await;
    drop(release);
    until(async || log().len() >= 3).await;
    assert_eq!(log(), ["begins", "ends", "begins"]);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_behind_a_failed_event_waits_for_it_in_its_subject_and_in_no_other() {
    let (store, recorder) = (Flaky::new(), Recorder::failing(1, 1));
    for (subject, n) in [("a", 1), ("a", 2), ("b", 3), ("c", 4)] {
        append_to(&store, subject, n).await;
    }
    let retry_delay = RetryDelay::Fixed { delay: Duration::from_secs(5) };
    let options = ConsumerOptions { attempts: 2, retry_delay, concurrency: 2, ..options() };
    let started = Instant::now();
    let consumer = starting(&store, options, &recorder).await.unwrap();
    until(async || recorder.seen().len() == 3).await;
    append_to(&store, "a", 5).await;
    until_all_is_stored(&store).await;
    assert!(started.elapsed() >= Duration::from_secs(5), "a pause before the next delivery");
    let seen = recorder.seen();
    let of = |wanted: &[u64]| seen.iter().copied().filter(|n| wanted.contains(n)).collect::<Vec<_>>();
    assert_eq!((of(&[1, 2, 5]), of(&[3, 4]).len()), (vec![1, 1, 2, 5], 2));
    assert_eq!(seen[3..], [1, 2, 5], "the other subjects do not wait");
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_pause_before_an_event_is_delivered_again() {
    let (store, recorder) = (Flaky::new(), Recorder::failing(0, 1));
    let retry_delay = RetryDelay::Fixed { delay: Duration::from_secs(60) };
    let consumer =
        starting(&store, ConsumerOptions { attempts: 2, retry_delay, ..options() }, &recorder).await.unwrap();
    append(&store, 0).await;
    until(async || consumer.stats().failed == 1).await;
    let stopped = Instant::now();
    consumer.stop().await.unwrap();
    assert!(stopped.elapsed() < Duration::from_secs(1));
    assert_eq!((recorder.seen(), cursor(&store).await), (vec![0], None));
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_was_requested_while_no_consumer_worked_is_done_by_the_next() {
    let (store, recorder) = (Flaky::new(), Recorder::failing(0, 1));
    let consumer = start(&store, &recorder).await;
    append(&store, 0).await;
    until_all_is_stored(&store).await;
    consumer.stop().await.unwrap();
    assert_eq!(store.consumer_request_replay(name("c"), None).await.unwrap(), 1);
    let next = start(&store, &recorder).await;
    until(async || parked(&store).await.is_empty()).await;
    assert_eq!(recorder.seen(), [0, 0]);
    next.stop().await.unwrap();
}

#[tokio::test]
async fn a_gap_is_reported_and_counted_once_also_where_it_could_not_be_stored_at_first() {
    const KEPT: u64 = 10;
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(1_767_225_600_000));
    let retention = Retention { max_events_per_subject: Some(KEPT), ..Retention::default() };
    let options = FileStoreOptions { retention, ..FileStoreOptions::new(dir.path()) };
    let file = Arc::new(FileStore::new(options, clock.clone(), Handle::current()));
    let (store, recorder) = (Flaky::around(file.clone()), Arc::default());
    let missed = async || file.consumer_load(name("c")).await.unwrap().unwrap().missed;
    let lease = file.consumer_acquire(name("c")).await.unwrap();
    file.consumer_save(name("c"), &lease, ConsumerChange::default()).await.unwrap();
    drop(lease);
    for n in 0..50 {
        append(&store, n).await;
    }
    until(async || {
        clock.advance(60_000);
        // The writer removes in the background of what it writes.
        file.kv_clear(name("none")).await.unwrap();
        missed().await == 50 - KEPT
    })
    .await;
    let read = store.fail_later("feed_read", unavailable());
    let consumer = start(&store, &recorder).await;
    // What would store the gap, and what tries it again.
    store.fail("consumer_save", unavailable());
    store.fail("consumer_save", unavailable());
    drop(read);
    until_all_is_stored(&store).await;
    assert!(store.has_failed());
    append(&store, 50).await;
    until_all_is_stored(&store).await;
    consumer.stop().await.unwrap();
    assert_eq!(recorder.seen(), (50 - KEPT..=50).collect::<Vec<_>>());
    assert_eq!(*recorder.missed.lock().unwrap(), [50 - KEPT]);
    assert_eq!(missed().await, 0, "what was reported is missed no longer");
}
