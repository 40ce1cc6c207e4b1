//! Leases of consumers across processes: one holder at a time, also when a holder is killed or cut off. And consumers that
//! take what their own process appends.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nvent_native::Code;
use nvent_native::op::BoxFuture;
use nvent_native::store::consumer::{Batch, BatchOutcome, Consumer, ConsumerHandler, ConsumerOptions, Offer};
use nvent_native::store::{Appended, ConsumerChange, EventQuery, Lease, RedisStore, StoreBackend};
use nvent_native::time::system_clock;
use serde_json::json;
use tokio::runtime::Handle;

use crate::conformance::name;
use crate::support::TestRedis;
use crate::{connection_to, event, store_on, value};

const PORT: &str = "NVENT_TEST_CONSUMER_PORT";

async fn acquire(store: &RedisStore) -> Lease {
    let acquired = tokio::time::timeout(Duration::from_secs(60), store.consumer_acquire(name("c")).into_future());
    acquired.await.expect("the lease ends").unwrap()
}

/// Runs as a process that works for a consumer until it is killed: not a test of its own. Each call of its handler is an event.
#[tokio::test]
async fn child() {
    let Some(port) = std::env::var(PORT).ok().and_then(|port| port.parse().ok()) else { return };
    let store = store_on(connection_to(port));
    loop {
        let lease = acquire(&store).await;
        while !lease.is_lost() {
            let call = json!({"type": "call", "token": lease.token, "pid": std::process::id()}).to_string();
            store.append(name("calls"), event(&call), None, None).await.unwrap();
        }
    }
}

fn spawn_child(port: u16) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "consumer::child", "--nocapture"]).env(PORT, port.to_string());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

async fn calls(store: &RedisStore) -> Vec<(u64, u64)> {
    let query = EventQuery { limit: Some(100_000), ..Default::default() };
    let calls = store.read(name("calls"), query).await.unwrap();
    let fields = calls.iter().map(value);
    fields.map(|call| (call["token"].as_u64().unwrap(), call["pid"].as_u64().unwrap())).collect()
}

#[tokio::test]
async fn a_killed_holder_is_replaced_within_fifteen_seconds_and_two_never_work_at_once() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let mut children = vec![spawn_child(redis.port()), spawn_child(redis.port())];
    let mut killed_at: Option<Instant> = None;
    let mut last_token = 0;
    for round in 0..3 {
        let holder = loop {
            let newest =
                store.read(name("calls"), EventQuery { limit: Some(1), descending: true, ..Default::default() });
            let newest = newest.await.unwrap().first().map(value);
            match newest {
                Some(call) if call["token"].as_u64().unwrap() > last_token => {
                    last_token = call["token"].as_u64().unwrap();
                    break call["pid"].as_u64().unwrap();
                }
                _ => {
                    let waited = killed_at.map_or(Duration::ZERO, |at| at.elapsed());
                    assert!(waited < Duration::from_secs(15), "no takeover in round {round}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        // No call with an older token comes after one with a newer.
        let tokens: Vec<_> = calls(&store).await.into_iter().map(|(token, _)| token).collect();
        assert!(tokens.is_sorted(), "two holders at once in round {round}");
        if round < 2 {
            let at = children.iter().position(|child| u64::from(child.id()) == holder).unwrap();
            let mut child = std::mem::replace(&mut children[at], spawn_child(redis.port()));
            child.kill().unwrap();
            child.wait().unwrap();
            killed_at = Some(Instant::now());
        }
    }
    for mut child in children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[tokio::test]
async fn a_released_lease_passes_at_once() {
    let redis = TestRedis::start();
    let (one, other) = (store_on(connection_to(redis.port())), store_on(connection_to(redis.port())));
    let first = acquire(&one).await;
    let waiting = tokio::spawn(async move { acquire(&other).await.token });
    let token = first.token;
    crate::support::eventually("the other waits", || redis.connections_named("nvent-native") == 4).await;
    let released = Instant::now();
    drop(first);
    assert!(waiting.await.unwrap() > token);
    // Not when it would have ended by itself.
    assert!(released.elapsed() < Duration::from_secs(7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_not_renewed_before_its_time() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let lease = acquire(&store).await;
    let commands = || redis.info("total_commands_processed").trim().parse::<u64>().unwrap();
    // Each of these is a command itself.
    let before = commands();
    (0..199).for_each(|_| _ = commands());
    let after = commands();
    assert!(after - before <= 210, "{} commands besides the 200", after - before - 200);
    drop(lease);
}

#[tokio::test]
async fn a_holder_that_was_replaced_stores_nothing_and_is_notified() {
    let redis = TestRedis::start();
    let (one, other) = (store_on(connection_to(redis.port())), store_on(connection_to(redis.port())));
    let mut first = acquire(&one).await;
    one.append(name("s"), event(r#"{"type":"t"}"#), None, None).await.unwrap();
    let position = one.feed_head().await.unwrap();
    redis.raw(&["DEL", "nvent:~consumer:lease:c"]);
    let second = acquire(&other).await;
    let change = || ConsumerChange { position: position.clone(), ..Default::default() };
    let error = one.consumer_save(name("c"), &first, change()).await.unwrap_err();
    assert_eq!(error.code(), Code::Conflict);
    assert_eq!(other.consumer_load(name("c")).await.unwrap(), None);
    other.consumer_save(name("c"), &second, change()).await.unwrap();
    assert_eq!(one.consumer_load(name("c")).await.unwrap().unwrap().position, position);
    let lost = tokio::time::timeout(Duration::from_secs(60), first.lost.wait_for(|lost| *lost));
    lost.await.expect("the renewal fails").unwrap();
    // Its release is not the other's.
    drop(first);
    other.consumer_save(name("c"), &second, change()).await.unwrap();
    assert!(!second.is_lost());
}

#[tokio::test]
async fn a_holder_that_is_cut_off_stops_before_another_can_start() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let asked = Instant::now();
    let mut lease = acquire(&store).await;
    redis.pause();
    let lost = tokio::time::timeout(Duration::from_secs(60), lease.lost.wait_for(|lost| *lost));
    lost.await.expect("the lease ends").unwrap();
    // The server keeps it for 10 s.
    assert!(asked.elapsed() < Duration::from_secs(10));
    redis.resume();
    drop(lease);
    acquire(&store).await;
}

/// Records the numbers of the events that it handles, and those that it takes in appends.
#[derive(Default)]
struct Taking {
    handled: Mutex<Vec<u64>>,
    taken: AtomicUsize,
}

struct Handler(Arc<Taking>);

impl ConsumerHandler for Handler {
    fn handle(&self, batch: Batch) -> BoxFuture<BatchOutcome> {
        let numbers = batch.events.iter().map(|event| value(&event.event)["n"].as_u64().unwrap());
        self.0.handled.lock().unwrap().extend(numbers);
        let handled = batch.events.len();
        Box::pin(async move { Ok(BatchOutcome { handled, failure: None }) })
    }

    fn offer(&self, appended: &Appended<'_>) -> Offer {
        self.0.handled.lock().unwrap().push(value(appended.event.json())["n"].as_u64().unwrap());
        self.0.taken.fetch_add(1, Ordering::Relaxed);
        Offer::Handled
    }
}

#[tokio::test]
async fn events_of_other_instances_come_in_their_place_between_those_taken_in_appends() {
    let redis = TestRedis::start();
    let (store, other) = (Arc::new(store_on(connection_to(redis.port()))), store_on(connection_to(redis.port())));
    let taking = Arc::new(Taking::default());
    let (options, handler) = (ConsumerOptions::default(), Arc::new(Handler(taking.clone())));
    let consumer = Consumer::start(store.clone(), name("c"), options, handler, system_clock(), &Handle::current());
    let consumer = consumer.await.unwrap();
    let append = async |store: &RedisStore, n: u64| {
        store.append(name("s"), event(&json!({"type": "t", "n": n}).to_string()), None, None).await.unwrap();
    };
    let mut n = 0;
    for round in 0..60_u64 {
        // The other's events come after none, one or several of its own.
        for _ in 0..=round % 4 {
            append(&store, n).await;
            n += 1;
        }
        if round % 3 == 0 {
            append(&other, n).await;
            n += 1;
        }
        if round % 5 == 0 {
            crate::support::eventually("it has caught up", || consumer.stats().lag == 0).await;
        }
    }
    crate::support::eventually("everything is handled", || taking.handled.lock().unwrap().len() as u64 == n).await;
    assert_eq!(*taking.handled.lock().unwrap(), (0..n).collect::<Vec<_>>());
    assert!(taking.taken.load(Ordering::Relaxed) > 10, "{taken:?} were taken", taken = taking.taken);
    consumer.stop().await.unwrap();
}
