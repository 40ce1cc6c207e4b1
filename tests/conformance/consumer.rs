//! What a durable consumer does on every store.

#![allow(dead_code, reason = "a backend without a feed does not run these")]

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use nvent_native::error::Code;
use nvent_native::op::BoxFuture;
use nvent_native::store::consumer::{
    Batch, BatchOutcome, Consumer, ConsumerHandler, ConsumerOptions, Offer, RetryDelay, StartAt, list,
};
use nvent_native::store::{Appended, ConsumerFilter, StoreBackend};
use nvent_native::time::system_clock;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::{TestBackend, event, name, until, value, within_deadline};

type Store = TestBackend<dyn StoreBackend>;

/// The contract over a backend.
#[macro_export]
macro_rules! consumer_conformance {
    ($backend:ident, $fresh:path) => {
        mod $backend {
            $crate::behaviours! { consumer, $fresh:
                events_are_delivered_in_order_from_where_the_consumer_begins
                globs_select_and_what_they_exclude_counts_as_consumed
                a_consumer_goes_on_where_it_was_stopped
                ten_thousand_events_arrive_once_and_in_order_while_they_are_appended
                a_failed_event_is_delivered_again_and_holds_up_its_subject_only
                an_event_that_fails_too_often_is_parked_and_the_next_one_is_delivered
                parked_events_are_replayed_all_or_some
                a_replay_that_is_requested_through_the_store_is_done_by_the_consumer_at_work
                with_one_at_a_time_everything_is_in_the_order_of_the_feed
                subjects_are_handled_concurrently_up_to_the_bound_and_each_in_order
                a_second_consumer_of_a_name_stands_by_and_takes_over
                stopping_waits_for_the_handler_and_delivers_nothing_afterwards
                an_idle_consumer_is_woken_by_an_append
                the_lag_is_what_was_not_yet_handled
                a_handler_that_panics_or_returns_an_error_has_failed
                what_a_handler_takes_in_appends_and_what_it_declines_arrive_once_and_in_order
                an_offer_that_fails_or_panics_is_delivered_by_the_consumer
                a_closed_store_ends_its_consumers
                consumers_are_listed_with_their_lag_and_can_be_deleted
            }
        }
    };
}

/// Delivered numbers with their subjects and attempts.
type Seen = Vec<(String, u64, u32)>;

/// A handler that records what it gets, and fails or waits on demand.
#[derive(Default)]
struct Recorder {
    seen: Mutex<Seen>,
    /// How often each number still fails.
    failures: Mutex<HashMap<u64, u32>>,
    /// Permits for events, if they are to be held up.
    gate: Option<Arc<Semaphore>>,
    at_work: Mutex<(usize, usize)>,
}

impl Recorder {
    fn failing(failures: &[(u64, u32)]) -> Arc<Self> {
        Arc::new(Self { failures: Mutex::new(failures.iter().copied().collect()), ..Self::default() })
    }

    fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    fn numbers(&self) -> Vec<u64> {
        self.seen().into_iter().map(|(_, n, _)| n).collect()
    }

    async fn one(&self, subject: &str, n: u64, attempt: u32) -> Result<(), String> {
        {
            let mut at_work = self.at_work.lock().unwrap();
            at_work.0 += 1;
            at_work.1 = at_work.1.max(at_work.0);
        }
        self.seen.lock().unwrap().push((subject.into(), n, attempt));
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        self.at_work.lock().unwrap().0 -= 1;
        match self.failures.lock().unwrap().get_mut(&n) {
            Some(left) if *left > 0 => {
                *left -= 1;
                Err(format!("{n} fails"))
            }
            _ => Ok(()),
        }
    }
}

struct Recording(Arc<Recorder>);

impl ConsumerHandler for Recording {
    fn handle(&self, batch: Batch) -> BoxFuture<BatchOutcome> {
        let recorder = self.0.clone();
        Box::pin(async move {
            let mut outcome = BatchOutcome::default();
            for event in &batch.events {
                if *batch.stopping.borrow() {
                    break;
                }
                let n = value(&event.event)["n"].as_u64().unwrap();
                if let Err(reason) = recorder.one(&event.subject, n, event.attempt).await {
                    outcome.failure = Some(reason);
                    break;
                }
                outcome.handled += 1;
            }
            Ok(outcome)
        })
    }
}

async fn start(store: &Store, consumer: &str, options: ConsumerOptions, recorder: &Arc<Recorder>) -> Consumer {
    let handler = Arc::new(Recording(recorder.clone()));
    let starting =
        Consumer::start(store.backend.clone(), name(consumer), options, handler, system_clock(), &Handle::current());
    within_deadline(starting.into_future()).await.unwrap()
}

fn beginning() -> ConsumerOptions {
    ConsumerOptions {
        from: StartAt::Beginning,
        retry_delay: RetryDelay::Fixed { delay: Duration::from_millis(1) },
        ..ConsumerOptions::default()
    }
}

async fn append(store: &Store, subject: &str, n: u64) {
    store.append(name(subject), event(json!({"type": format!("t{}", n % 2), "n": n})), None, None).await.unwrap();
}

async fn seen(recorder: &Recorder, count: usize) {
    until(async || recorder.seen().len() >= count).await;
}

async fn stop(consumer: Consumer) {
    within_deadline(consumer.stop().into_future()).await.unwrap();
}

pub(crate) async fn events_are_delivered_in_order_from_where_the_consumer_begins(store: Store) {
    for n in 0..3 {
        append(&store, "a", n).await;
    }
    let after_first = store.feed_read(nvent_native::store::FeedQuery { limit: 1, ..Default::default() }).await.unwrap();
    let position = after_first.end.unwrap();
    let recorders: Vec<Arc<Recorder>> = (0..3).map(|_| Arc::default()).collect();
    let from = [StartAt::Beginning, StartAt::Now, StartAt::Position(position)];
    let mut consumers = Vec::new();
    for (n, from) in from.into_iter().enumerate() {
        let options = ConsumerOptions { from, ..beginning() };
        consumers.push(start(&store, &format!("c{n}"), options, &recorders[n]).await);
    }
    append(&store, "b", 3).await;
    append(&store, "a", 4).await;
    for (recorder, expected) in recorders.iter().zip([vec![0, 1, 2, 3, 4], vec![3, 4], vec![1, 2, 3, 4]]) {
        seen(recorder, expected.len()).await;
        assert_eq!(recorder.numbers(), expected);
    }
    assert_eq!(recorders[0].seen()[3], ("b".into(), 3, 1));
    for consumer in consumers {
        stop(consumer).await;
    }
}

pub(crate) async fn globs_select_and_what_they_exclude_counts_as_consumed(store: Store) {
    let recorder = Arc::default();
    let filter = ConsumerFilter { subjects: vec!["a*".into()], types: vec!["t1".into()] };
    let consumer = start(&store, "c", ConsumerOptions { filter, ..beginning() }, &recorder).await;
    for n in 0..10 {
        append(&store, ["a1", "b"][(n / 2 % 2) as usize], n).await;
    }
    seen(&recorder, 3).await;
    until(async || consumer.stats().lag == 0).await;
    assert_eq!(recorder.numbers(), [1, 5, 9]);
    assert_eq!(consumer.stats().position, store.feed_head().await.unwrap());
    stop(consumer).await;
}

pub(crate) async fn a_consumer_goes_on_where_it_was_stopped(store: Store) {
    let recorder = Arc::default();
    for round in 0..3_u64 {
        for n in 0..5 {
            append(&store, "a", round * 5 + n).await;
        }
        let options = ConsumerOptions { from: StartAt::Beginning, ..beginning() };
        let consumer = start(&store, "c", options, &recorder).await;
        seen(&recorder, 5 * (round as usize + 1)).await;
        stop(consumer).await;
        let stored = store.consumer_load(name("c")).await.unwrap().unwrap();
        assert_eq!(stored.position, store.feed_head().await.unwrap());
    }
    assert_eq!(recorder.numbers(), (0..15).collect::<Vec<_>>());
}

pub(crate) async fn ten_thousand_events_arrive_once_and_in_order_while_they_are_appended(store: Store) {
    let recorder = Arc::default();
    let consumer = start(&store, "c", beginning(), &recorder).await;
    let appends: Vec<_> = (0..10_000_u64)
        .map(|n| store.append(name(&format!("s{}", n % 7)), event(json!({"type": "t", "n": n})), None, None))
        .collect();
    for append in appends {
        append.await.unwrap();
    }
    seen(&recorder, 10_000).await;
    assert_eq!(recorder.numbers(), (0..10_000).collect::<Vec<_>>());
    stop(consumer).await;
    assert_eq!(recorder.seen().len(), 10_000);
}

pub(crate) async fn a_failed_event_is_delivered_again_and_holds_up_its_subject_only(store: Store) {
    let recorder = Recorder::failing(&[(0, 3)]);
    for n in 0..10 {
        append(&store, ["a", "b"][(n % 2) as usize], n).await;
    }
    let retry_delay = RetryDelay::Fixed { delay: Duration::from_millis(50) };
    let options = ConsumerOptions { concurrency: 2, retry_delay, ..beginning() };
    let consumer = start(&store, "c", options, &recorder).await;
    seen(&recorder, 13).await;
    let of = |subject: &str| recorder.seen().into_iter().filter(|(s, ..)| s == subject).collect::<Seen>();
    let attempts: Vec<(u64, u32)> = of("a").into_iter().map(|(_, n, attempt)| (n, attempt)).collect();
    assert_eq!(attempts, [(0, 1), (0, 2), (0, 3), (0, 4), (2, 1), (4, 1), (6, 1), (8, 1)]);
    assert_eq!(of("b").len(), 5);
    let last_retry = recorder.seen().iter().position(|(_, n, attempt)| (*n, *attempt) == (0, 4)).unwrap();
    let last_of_b = recorder.seen().iter().position(|(_, n, _)| *n == 9).unwrap();
    assert!(last_of_b < last_retry, "b does not wait for a");
    stop(consumer).await;
    assert_eq!(store.consumer_load(name("c")).await.unwrap().unwrap().position, store.feed_head().await.unwrap());
}

pub(crate) async fn an_event_that_fails_too_often_is_parked_and_the_next_one_is_delivered(store: Store) {
    let recorder = Recorder::failing(&[(1, 99)]);
    for n in 0..3 {
        append(&store, "a", n).await;
    }
    let consumer = start(&store, "c", ConsumerOptions { attempts: 3, ..beginning() }, &recorder).await;
    seen(&recorder, 5).await;
    let delivered: Vec<(u64, u32)> = recorder.seen().into_iter().map(|(_, n, attempt)| (n, attempt)).collect();
    assert_eq!(delivered, [(0, 1), (1, 1), (1, 2), (1, 3), (2, 1)]);
    until(async || consumer.stats().delivered == 2).await;
    let stats = consumer.stats();
    assert_eq!((stats.failed, stats.parked, stats.active), (3, 1, true));
    stop(consumer).await;
    let parked = store.consumer_parked(name("c"), None, 10).await.unwrap();
    assert_eq!(parked.len(), 1);
    assert_eq!((&*parked[0].subject, parked[0].attempts, &*parked[0].reason), ("a", 3, "1 fails"));
    assert_eq!(value(&parked[0].event)["n"], 1);
    assert_eq!(store.consumer_load(name("c")).await.unwrap().unwrap().position, store.feed_head().await.unwrap());
}

pub(crate) async fn parked_events_are_replayed_all_or_some(store: Store) {
    let recorder = Recorder::failing(&[(0, 1), (1, 1), (2, 2), (3, 1)]);
    for n in 0..4 {
        append(&store, "a", n).await;
    }
    let consumer = start(&store, "c", ConsumerOptions { attempts: 1, ..beginning() }, &recorder).await;
    until(async || consumer.stats().parked == 4).await;
    let replay = |positions| within_deadline(consumer.replay(positions).into_future());
    let second = store.feed_read(nvent_native::store::FeedQuery { limit: 2, ..Default::default() }).await.unwrap();
    assert_eq!(replay(Some(vec![second.end.unwrap()])).await.unwrap(), 1);
    assert_eq!(recorder.numbers(), [0, 1, 2, 3, 1]);
    assert_eq!(consumer.stats().parked, 3);
    assert_eq!(replay(None).await.unwrap(), 3);
    assert_eq!(recorder.numbers()[5..], [0, 2, 3]);
    until(async || consumer.parked(None, 10).await.unwrap().len() == 1).await;
    let parked = consumer.parked(None, 10).await.unwrap();
    assert_eq!((value(&parked[0].event)["n"].as_u64(), parked[0].attempts), (Some(2), 2));
    assert_eq!(replay(None).await.unwrap(), 1);
    assert_eq!(replay(None).await.unwrap(), 0);
    stop(consumer).await;
    assert_eq!(store.consumer_parked(name("c"), None, 10).await.unwrap(), []);
}

pub(crate) async fn a_replay_that_is_requested_through_the_store_is_done_by_the_consumer_at_work(store: Store) {
    let recorder = Recorder::failing(&[(0, 1), (1, 1)]);
    for n in 0..2 {
        append(&store, "a", n).await;
    }
    let consumer = start(&store, "c", ConsumerOptions { attempts: 1, ..beginning() }, &recorder).await;
    let parked = async || store.consumer_parked(name("c"), None, 10).await.unwrap();
    until(async || parked().await.len() == 2).await;
    let first = parked().await.remove(0).position;
    assert_eq!(store.consumer_request_replay(name("c"), Some(vec![first])).await.unwrap(), 1);
    until(async || parked().await.len() == 1).await;
    assert_eq!(recorder.numbers(), [0, 1, 0]);
    assert_eq!(store.consumer_request_replay(name("c"), None).await.unwrap(), 1);
    until(async || parked().await.is_empty()).await;
    assert_eq!(recorder.numbers(), [0, 1, 0, 1]);
    assert_eq!(store.consumer_replays(name("c")).await.unwrap(), []);
    assert_eq!(consumer.stats().parked, 0);
    stop(consumer).await;
    let unknown = store.consumer_request_replay(name("other"), None).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

pub(crate) async fn with_one_at_a_time_everything_is_in_the_order_of_the_feed(store: Store) {
    let recorder = Recorder::failing(&[(3, 2), (7, 1)]);
    for n in 0..10 {
        append(&store, &format!("s{}", n % 3), n).await;
    }
    let consumer = start(&store, "c", beginning(), &recorder).await;
    seen(&recorder, 13).await;
    assert_eq!(recorder.numbers(), [0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 7, 8, 9]);
    stop(consumer).await;
}

pub(crate) async fn subjects_are_handled_concurrently_up_to_the_bound_and_each_in_order(store: Store) {
    let gate = Arc::new(Semaphore::new(0));
    let recorder = Arc::new(Recorder { gate: Some(gate.clone()), ..Recorder::default() });
    for n in 0..40 {
        append(&store, &format!("s{}", n % 8), n).await;
    }
    let consumer = start(&store, "c", ConsumerOptions { concurrency: 4, ..beginning() }, &recorder).await;
    seen(&recorder, 4).await;
    assert_eq!(recorder.at_work.lock().unwrap().0, 4);
    gate.add_permits(1_000);
    seen(&recorder, 40).await;
    assert_eq!(recorder.at_work.lock().unwrap().1, 4, "never more than four");
    for subject in 0..8 {
        let of: Vec<u64> = recorder.numbers().into_iter().filter(|n| n % 8 == subject).collect();
        assert_eq!(of, (0..5).map(|n| n * 8 + subject).collect::<Vec<_>>());
    }
    stop(consumer).await;
}

pub(crate) async fn a_second_consumer_of_a_name_stands_by_and_takes_over(store: Store) {
    let (first, second) = (Arc::default(), Arc::default());
    let at_work = start(&store, "c", beginning(), &first).await;
    let stands_by = start(&store, "c", beginning(), &second).await;
    append(&store, "a", 0).await;
    seen(&first, 1).await;
    assert_eq!((at_work.stats().active, stands_by.stats().active), (true, false));
    assert_eq!(within_deadline(stands_by.replay(None).into_future()).await.unwrap_err().code(), Code::Locked);
    stop(at_work).await;
    append(&store, "a", 1).await;
    seen(&second, 1).await;
    assert!(stands_by.stats().active);
    assert_eq!((first.numbers(), second.numbers()), (vec![0], vec![1]));
    stop(stands_by).await;
}

pub(crate) async fn stopping_waits_for_the_handler_and_delivers_nothing_afterwards(store: Store) {
    let gate = Arc::new(Semaphore::new(0));
    let recorder = Arc::new(Recorder { gate: Some(gate.clone()), ..Recorder::default() });
    for n in 0..5 {
        append(&store, "a", n).await;
    }
    let consumer = start(&store, "c", beginning(), &recorder).await;
    seen(&recorder, 1).await;
    let stopping = tokio::spawn(consumer.stop().into_future());
    for _ in 0..50 {
        tokio::task::yield_now().await;
        assert!(!stopping.is_finished());
    }
    gate.add_permits(100);
    within_deadline(stopping).await.unwrap().unwrap();
    assert_eq!(recorder.numbers(), [0]);
    let again = start(&store, "c", beginning(), &recorder).await;
    seen(&recorder, 5).await;
    assert_eq!(recorder.numbers(), [0, 1, 2, 3, 4], "the handled one is not delivered again");
    stop(again).await;
}

pub(crate) async fn an_idle_consumer_is_woken_by_an_append(store: Store) {
    let recorder = Arc::default();
    let consumer = start(&store, "c", ConsumerOptions::default(), &recorder).await;
    let reads = |store: &Store| store.stats().into_iter().find(|(name, _)| *name == "reads").unwrap().1;
    for n in 0..20 {
        append(&store, "a", n).await;
        seen(&recorder, n as usize + 1).await;
    }
    until(async || consumer.stats().lag == 0).await;
    let before = reads(&store);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(reads(&store) - before <= 1.0, "nothing is polled while nothing happens");
    stop(consumer).await;
}

pub(crate) async fn the_lag_is_what_was_not_yet_handled(store: Store) {
    let gate = Arc::new(Semaphore::new(0));
    let recorder = Arc::new(Recorder { gate: Some(gate.clone()), ..Recorder::default() });
    let consumer = start(&store, "c", beginning(), &recorder).await;
    for n in 0..10 {
        append(&store, "a", n).await;
    }
    until(async || consumer.stats().lag == 10).await;
    gate.add_permits(100);
    until(async || consumer.stats().lag == 0).await;
    assert_eq!(consumer.stats().delivered, 10);
    stop(consumer).await;
}

pub(crate) async fn a_handler_that_panics_or_returns_an_error_has_failed(store: Store) {
    struct Bad;
    impl ConsumerHandler for Bad {
        fn handle(&self, batch: Batch) -> BoxFuture<BatchOutcome> {
            let n = value(&batch.events[0].event)["n"].as_u64().unwrap();
            Box::pin(async move {
                match n {
                    0 => panic!("on purpose"),
                    1 => Err(nvent_native::error::Error::io("refused")),
                    _ => Ok(BatchOutcome::default()),
                }
            })
        }
    }
    for n in 0..3 {
        append(&store, "a", n).await;
    }
    let options = ConsumerOptions { attempts: 1, ..beginning() };
    let (backend, clock) = (store.backend.clone(), system_clock());
    let starting = Consumer::start(backend, name("c"), options, Arc::new(Bad), clock, &Handle::current());
    let consumer = within_deadline(starting.into_future()).await.unwrap();
    until(async || consumer.stats().parked == 3).await;
    stop(consumer).await;
    let reasons = store.consumer_parked(name("c"), None, 10).await.unwrap().into_iter().map(|event| event.reason);
    let expected = ["the handler panicked", "refused", "the handler ended without handling an event"];
    assert_eq!(reasons.collect::<Vec<_>>(), expected);
}

pub(crate) async fn a_closed_store_ends_its_consumers(store: Store) {
    let recorder = Arc::default();
    let at_work = start(&store, "c", beginning(), &recorder).await;
    let stands_by = start(&store, "c", beginning(), &recorder).await;
    append(&store, "a", 0).await;
    seen(&recorder, 1).await;
    let (mut ended, mut ended_standby) = (pin!(at_work.ended()), pin!(stands_by.ended()));
    assert!(ended.as_mut().now_or_never().is_none() && ended_standby.as_mut().now_or_never().is_none());
    store.close().await.unwrap();
    within_deadline(ended).await;
    within_deadline(ended_standby).await;
    within_deadline(at_work.ended()).await;
    within_deadline(stands_by.ended()).await;
    within_deadline(at_work.stop().into_future()).await.unwrap();
}

pub(crate) async fn consumers_are_listed_with_their_lag_and_can_be_deleted(store: Store) {
    for n in 0..4 {
        append(&store, "a", n).await;
    }
    let recorder = Recorder::failing(&[(5, 99)]);
    for (consumer, from) in [("b", StartAt::Now), ("a", StartAt::Beginning)] {
        let options = ConsumerOptions { from, attempts: 1, ..beginning() };
        stop(start(&store, consumer, options, &recorder).await).await;
    }
    append(&store, "a", 4).await;
    append(&store, "a", 5).await;
    let consumer = start(&store, "b", ConsumerOptions { attempts: 1, ..beginning() }, &recorder).await;
    until(async || consumer.stats().lag == 0).await;
    stop(consumer).await;
    let listed = list(&store.backend).await.unwrap();
    let rows: Vec<_> = listed.iter().map(|c| (&*c.info.name, c.lag > 0, c.info.parked)).collect();
    assert_eq!(rows, [("a", true, 0), ("b", false, 1)]);
    assert!(store.consumer_delete(name("b")).await.unwrap());
    assert_eq!(store.consumer_parked(name("b"), None, 10).await.unwrap(), []);
    assert_eq!(list(&store.backend).await.unwrap().len(), 1);
}

/// A handler that takes some events in the call that appended them, by their number.
struct Offered {
    recorder: Arc<Recorder>,
    answer: fn(u64) -> Answer,
    /// Numbers that it was offered.
    offers: Mutex<Vec<u64>>,
}

#[derive(Clone, Copy)]
enum Answer {
    Decline,
    Handle,
    Begin,
    Fail,
    Panic,
}

impl ConsumerHandler for Offered {
    fn handle(&self, batch: Batch) -> BoxFuture<BatchOutcome> {
        Recording(self.recorder.clone()).handle(batch)
    }

    fn offer(&self, appended: &Appended<'_>) -> Offer {
        let n = value(appended.event.json())["n"].as_u64().unwrap();
        self.offers.lock().unwrap().push(n);
        let (recorder, subject) = (self.recorder.clone(), appended.subject.to_string());
        let record = move || recorder.seen.lock().unwrap().push((subject, n, 0));
        match (self.answer)(n) {
            Answer::Decline => Offer::Declined,
            Answer::Handle => {
                record();
                Offer::Handled
            }
            Answer::Begin => Offer::Started(Box::pin(async move {
                tokio::task::yield_now().await;
                record();
                Ok(BatchOutcome { handled: 1, failure: None })
            })),
            Answer::Fail => {
                Offer::Started(Box::pin(async { Ok(BatchOutcome { handled: 0, failure: Some("on purpose".into()) }) }))
            }
            Answer::Panic => panic!("on purpose"),
        }
    }
}

/// Appends events until one was offered: the consumer has caught up.
async fn until_offered(store: &Store, handler: &Offered, subject: &str) -> u64 {
    let mut n = 0;
    until(async || {
        append(store, subject, n).await;
        n += 1;
        !handler.offers.lock().unwrap().is_empty()
    })
    .await;
    n
}

pub(crate) async fn what_a_handler_takes_in_appends_and_what_it_declines_arrive_once_and_in_order(store: Store) {
    let answer = |n| [Answer::Handle, Answer::Handle, Answer::Decline, Answer::Handle, Answer::Begin][n as usize % 5];
    let handler = Arc::new(Offered { recorder: Arc::default(), answer, offers: Mutex::default() });
    let options = ConsumerOptions { concurrency: 4, ..beginning() };
    let (backend, runtime) = (store.backend.clone(), Handle::current());
    let consumer = Consumer::start(backend, name("c"), options, handler.clone(), system_clock(), &runtime);
    let consumer = within_deadline(consumer.into_future()).await.unwrap();
    let first = until_offered(&store, &handler, "s0").await;
    for n in first..first + 600 {
        // One by one, and many at a time.
        let subject = format!("s{}", n % 3);
        if n % 100 < 50 {
            append(&store, &subject, n).await;
            tokio::task::yield_now().await;
        } else {
            let kind = json!({"type": "t", "n": n});
            drop(store.append(name(&subject), event(kind), None, None));
        }
    }
    until(async || consumer.stats().lag == 0).await;
    let seen = handler.recorder.seen();
    assert_eq!(seen.len() as u64, first + 600, "each once");
    assert_eq!(consumer.stats().delivered, first + 600);
    for subject in ["s0", "s1", "s2"] {
        let numbers: Vec<u64> = seen.iter().filter(|(s, ..)| s == subject).map(|(_, n, _)| *n).collect();
        assert!(numbers.is_sorted(), "{subject}: {numbers:?}");
    }
    assert!(handler.offers.lock().unwrap().len() > 10, "a consumer that has caught up is offered what is appended");
    within_deadline(consumer.stop().into_future()).await.unwrap();
    let again = start(&store, "c", beginning(), &Arc::default()).await;
    assert_eq!(again.stats().lag, 0, "the cursor of what was handled in appends is stored");
    within_deadline(again.stop().into_future()).await.unwrap();
}

pub(crate) async fn an_offer_that_fails_or_panics_is_delivered_by_the_consumer(store: Store) {
    let answer = |n| if n % 2 == 0 { Answer::Fail } else { Answer::Panic };
    let handler = Arc::new(Offered { recorder: Arc::default(), answer, offers: Mutex::default() });
    let (backend, runtime) = (store.backend.clone(), Handle::current());
    let consumer = Consumer::start(backend, name("c"), beginning(), handler.clone(), system_clock(), &runtime);
    let consumer = within_deadline(consumer.into_future()).await.unwrap();
    let first = until_offered(&store, &handler, "s").await;
    for n in first..first + 20 {
        append(&store, "s", n).await;
        until(async || consumer.stats().lag == 0).await;
    }
    let numbers = handler.recorder.numbers();
    assert_eq!(numbers, (0..first + 20).collect::<Vec<_>>());
    assert_eq!(consumer.stats().parked, 0);
    within_deadline(consumer.stop().into_future()).await.unwrap();
}
