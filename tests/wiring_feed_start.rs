//! Where a coordinator that follows a feed begins, and what its start does on a store whose calls fail.

#[path = "wiring_support/feed.rs"]
mod feed;
#[path = "support/flaky.rs"]
#[allow(dead_code, reason = "shared with the tests of consumers")]
mod flaky;
#[path = "support/name.rs"]
mod name;
#[path = "wiring_support/stream.rs"]
#[allow(dead_code, reason = "shared with the tests of the coordinator on a bus")]
mod support;

use std::sync::Arc;
use std::time::Duration;

use feed::{options, started};
use flaky::Flaky;
use name::name;
use nvent_native::error::{Code, Error};
use nvent_native::event::{Event, NewEvent};
use nvent_native::op::Op;
use nvent_native::store::{ConsumerChange, MemoryStore, StoreBackend};
use nvent_native::time::{ManualClock, system_clock};
use nvent_native::wiring::Wiring;
use nvent_native::wiring::coordinator::{CONSUMER, FeedCoordinator};
use support::Recorder;
use tokio::runtime::Handle;

fn in_memory() -> Arc<dyn StoreBackend> {
    Arc::new(MemoryStore::new(ManualClock::at(1_000)))
}

fn append(store: &Arc<dyn StoreBackend>, n: usize) -> Op<Event> {
    let event = NewEvent::parse(&format!(r#"{{"type":"t","n":{n}}}"#)).unwrap();
    store.append(name("s"), event, None, None)
}

/// Returns the numbers that arrived, in order.
fn numbers(stream: &Recorder) -> Vec<u64> {
    stream.on("store-sync:append:s").iter().map(|message| message["data"]["event"]["n"].as_u64().unwrap()).collect()
}

async fn until(mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it happens in the end");
}

#[tokio::test(start_paused = true)]
async fn a_start_is_repeated_while_the_store_is_away_and_begins_where_it_was_called() {
    let (store, stream) = (Flaky::new(), Recorder::accepting());
    let backend: Arc<dyn StoreBackend> = store.clone();
    append(&backend, 0).await.unwrap();
    for method in ["consumer_try_acquire", "consumer_list", "consumer_load", "consumer_save"] {
        store.fail(method, Error::unavailable("away"));
    }
    let begun = tokio::time::Instant::now();
    let (runtime, clock) = (Handle::current(), system_clock());
    let coordinator =
        FeedCoordinator::new(backend.clone(), stream.clone(), CONSUMER, options(), runtime, clock).unwrap();
    let starting = coordinator.start();
    append(&backend, 1).await.unwrap();
    starting.await.unwrap();
    assert!(store.has_failed() && begun.elapsed() >= Duration::from_millis(800), "a pause after each failure");
    until(|| !numbers(&stream).is_empty()).await;
    assert_eq!(numbers(&stream), [1]);
    coordinator.stop().await.unwrap();
    // What can not succeed is not repeated, and what fails for too long ends.
    store.fail("consumer_list", Error::invalid("no"));
    assert_eq!(coordinator.start().await.unwrap_err().code(), Code::Invalid);
    for _ in 0..1_000 {
        store.fail("consumer_try_acquire", Error::unavailable("away"));
    }
    let begun = tokio::time::Instant::now();
    assert_eq!(coordinator.start().await.unwrap_err().code(), Code::Unavailable);
    assert!((30..32).contains(&begun.elapsed().as_secs()));
}

#[tokio::test]
async fn a_later_coordinator_begins_after_the_newest_of_those_that_have_published() {
    let (store, stream) = (in_memory(), Recorder::accepting());
    append(&store, 0).await.unwrap();
    // Names of the same beginning are those of other consumers.
    let other = format!("{CONSUMER}:x");
    let first = started(&store, &stream, options()).await;
    let second = started(&store, &Recorder::accepting(), options()).await;
    let names = async || -> Vec<String> {
        store.consumer_list().await.unwrap().iter().map(|info| info.name.to_string()).collect()
    };
    assert_eq!(names().await, [CONSUMER.to_owned(), format!("{CONSUMER}:2")]);
    first.stop().await.unwrap();
    append(&store, 1).await.unwrap();
    second.stop().await.unwrap();
    assert_eq!(names().await, [CONSUMER]);
    let lease = store.consumer_acquire(name(&other)).await.unwrap();
    let ahead = ConsumerChange { position: store.feed_head().await.unwrap(), ..ConsumerChange::default() };
    store.consumer_save(name(&other), &lease, ahead).await.unwrap();
    let again = started(&store, &stream, options()).await;
    until(|| numbers(&stream) == [1]).await;
    again.stop().await.unwrap();
    // Where one is ahead of the first, its position counts.
    append(&store, 2).await.unwrap();
    let number = format!("{CONSUMER}:7");
    let lease = store.consumer_acquire(name(&number)).await.unwrap();
    let ahead = ConsumerChange { position: store.feed_head().await.unwrap(), ..ConsumerChange::default() };
    store.consumer_save(name(&number), &lease, ahead).await.unwrap();
    let last = started(&store, &stream, options()).await;
    append(&store, 3).await.unwrap();
    until(|| numbers(&stream).len() > 1).await;
    assert_eq!(numbers(&stream), [1, 3]);
    last.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_coordinator_begins_with_the_oldest_event_where_the_first_has_published_none() {
    let (store, stream, (slow, gate)) = (in_memory(), Recorder::accepting(), Recorder::gated());
    let first = started(&store, &slow, options()).await;
    append(&store, 0).await.unwrap();
    let second = started(&store, &stream, options()).await;
    append(&store, 1).await.unwrap();
    until(|| numbers(&stream).len() == 2).await;
    assert_eq!(numbers(&stream), [0, 1]);
    gate.add_permits(100);
    first.stop().await.unwrap();
    second.stop().await.unwrap();
}
