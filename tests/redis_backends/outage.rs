//! Outages: every call ends, says whether trying again makes sense and whether it may have been applied, and everything
//! works again when the server is back.

use crate::conformance::name;
use std::time::{Duration, Instant};

use nvent_native::fanout::{Delivery, Mailbox, Overflow};
use nvent_native::redis::RedisConfig;
use nvent_native::store::{EventQuery, RedisStore, StoreBackend};
use nvent_native::{Code, Error};
use serde_json::json;

use crate::support::{Proxy, TestRedis, eventually};
use crate::{connection_to, event, json as text, short_timeouts, store_on};

async fn set(store: &RedisStore) -> Result<(), Error> {
    store.kv_set(name("k"), text(json!(1)), None).await
}

async fn works_again(store: &RedisStore) {
    let until = Instant::now() + Duration::from_secs(20);
    while let Err(error) = set(store).await {
        assert!(error.is_retryable() && Instant::now() < until, "{error}");
    }
    assert_eq!(store.kv_get(name("k")).await.unwrap().as_deref(), Some("1"));
}

#[tokio::test]
async fn a_killed_server_fails_calls_within_a_bound_and_a_restarted_one_serves_them_again() {
    let mut redis = TestRedis::start();
    let store = store_on(short_timeouts(redis.port()));
    set(&store).await.unwrap();
    redis.kill();
    let error = set(&store).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), (Code::Unavailable, true), "{error}");
    let error = set(&store).await.unwrap_err();
    assert!(!error.is_maybe_applied(), "nothing was sent: {error}");
    assert!(!store.health().await.unwrap().ok);
    redis.restart();
    works_again(&store).await;
    assert!(store.health().await.unwrap().ok);
}

#[tokio::test]
async fn calls_that_wait_for_a_restart_are_made_in_their_order_when_it_comes() {
    let mut redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    set(&store).await.unwrap();
    redis.kill();
    while store.health().await.unwrap().ok {}
    let appends: Vec<_> =
        (0..50).map(|n| store.append(name("s"), event(&format!(r#"{{"type":"t","n":{n}}}"#)), None, None)).collect();
    redis.restart();
    for append in appends {
        append.await.unwrap();
    }
    let records = store.read(name("s"), EventQuery::default()).await.unwrap();
    assert!(records.iter().map(|record| crate::value(record)["n"].as_u64().unwrap()).eq(0..50));
}

#[tokio::test]
async fn a_write_that_was_sent_and_not_answered_may_have_been_applied() {
    let redis = TestRedis::start();
    let store = store_on(short_timeouts(redis.port()));
    set(&store).await.unwrap();
    redis.pause();
    let (write, read) = (store.kv_increment(name("n"), 1.0), store.kv_get(name("k")));
    let error = write.await.unwrap_err();
    assert!(error.is_maybe_applied() && error.is_retryable(), "{error}");
    let error = read.await.unwrap_err();
    assert!(!error.is_maybe_applied(), "{error}");
    redis.resume();
    works_again(&store).await;
}

#[tokio::test]
async fn a_silent_network_is_noticed_without_traffic() {
    let redis = TestRedis::start();
    let proxy = Proxy::to(redis.port()).await;
    let store = store_on(short_timeouts(proxy.port()));
    set(&store).await.unwrap();
    proxy.silence(true);
    eventually("the connection is given up", || redis.connections_named("nvent-native") == 0).await;
    proxy.silence(false);
    works_again(&store).await;
}

#[tokio::test]
async fn a_killed_connection_is_replaced() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    set(&store).await.unwrap();
    redis.raw(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    works_again(&store).await;
}

#[tokio::test]
async fn a_server_that_is_loading_or_full_or_has_become_a_replica_is_reported_and_waited_for() {
    let redis = TestRedis::start();
    let store = store_on(short_timeouts(redis.port()));
    set(&store).await.unwrap();

    redis.raw(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = set(&store).await.unwrap_err();
    assert!(error.message().contains("OOM") && error.is_retryable() && !error.is_maybe_applied(), "{error}");
    let error = store.append(name("s"), event(r#"{"type":"t"}"#), None, None).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), (Code::Unavailable, true), "{error}");
    redis.raw(&["CONFIG", "SET", "maxmemory", "0"]);
    works_again(&store).await;

    let primary = TestRedis::start();
    redis.raw(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
    let error = store.kv_increment(name("n"), 1.0).await.unwrap_err();
    assert!(error.message().contains("READONLY") && error.is_retryable(), "{error}");
    let health = store.health().await.unwrap();
    assert!(!health.ok && health.detail.unwrap().contains("slave"));
    // Promoted, at the same address, without our scripts.
    redis.raw(&["REPLICAOF", "NO", "ONE"]);
    redis.raw(&["SCRIPT", "FLUSH"]);
    works_again(&store).await;
    store.kv_increment(name("n"), 1.0).await.unwrap();
}

#[tokio::test]
async fn a_server_that_reads_its_data_set_is_waited_for() {
    let slowly = ["--appendonly", "yes", "--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024"];
    let mut redis = TestRedis::start_with(&slowly);
    let mut raw = crate::support::Raw::connect(redis.port());
    for n in 0..1_000 {
        raw.call(&["SET", &format!("k{n}"), &"x".repeat(1_000)]);
    }
    redis.raw(&["BGREWRITEAOF"]);
    eventually("it is rewritten", || {
        redis.info("aof_rewrite_in_progress") == "0" && redis.info("aof_rewrite_scheduled") == "0"
    })
    .await;
    redis.spawn();
    let store = store_on(RedisConfig { queue_timeout: Duration::from_millis(200), ..short_timeouts(redis.port()) });
    let error = set(&store).await.unwrap_err();
    assert!(error.message().contains("LOADING") && error.is_retryable() && !error.is_maybe_applied(), "{error}");
    works_again(&store).await;
}

#[tokio::test]
async fn a_server_without_room_is_reported() {
    let redis = TestRedis::start();
    redis.raw(&["CONFIG", "SET", "maxclients", "1"]);
    let held = crate::support::Raw::connect(redis.port());
    let store = store_on(short_timeouts(redis.port()));
    let error = set(&store).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), (Code::Unavailable, true), "{error}");
    drop(held);
    works_again(&store).await;
}

#[tokio::test]
async fn a_wrong_password_fails_at_once_for_good_and_is_never_shown() {
    let redis = TestRedis::start_with(&["--requirepass", "right"]);
    for (password, reply) in [(None, "NOAUTH"), (Some("hunter2"), "WRONGPASS")] {
        let store = store_on(RedisConfig { password: password.map(Into::into), ..connection_to(redis.port()) });
        let error = set(&store).await.unwrap_err();
        assert!(error.message().contains(reply) && !error.is_retryable(), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
        let detail = store.health().await.unwrap().detail.unwrap();
        assert!(!detail.contains("hunter2"), "{detail}");
    }
    let url = format!("redis://default:right@127.0.0.1:{}/5", redis.port());
    set(&store_on(RedisConfig::from_url(&url).unwrap())).await.unwrap();
}

#[tokio::test]
async fn what_an_acl_forbids_fails_for_good_and_what_it_need_not_allow_is_not_needed() {
    let redis = TestRedis::start();
    redis.raw(&[
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">pass",
        "~own:*",
        "~nvent:*",
        "resetchannels",
        "+@all",
        "-client|setname",
    ]);
    let config =
        RedisConfig { username: Some("app".into()), password: Some("pass".into()), ..connection_to(redis.port()) };
    let store = store_on(config);
    let error = store.kv_set(name("foreign"), text(json!(1)), None).await.unwrap_err();
    assert!(!error.is_retryable() && error.message().contains("ACL"), "{error}");
    let error = store.kv_increment(name("foreign"), 1.0).await.unwrap_err();
    assert!(!error.is_retryable() && error.message().contains("ACL"), "{error}");
    // No channel is allowed: appends and subscriptions do without.
    let mailbox = std::sync::Arc::new(Mailbox::new(8, Overflow::DropOldest));
    store.subscribe(name("own:s"), mailbox.clone()).await.unwrap();
    let stored = store.append(name("own:s"), event(r#"{"type":"t"}"#), None, None).await.unwrap();
    match mailbox.recv().await.unwrap() {
        Delivery::Item(item) => assert_eq!(item.event.id(), stored.id()),
        Delivery::Gap(gap) => panic!("{gap:?}"),
    }
}

#[tokio::test]
async fn more_calls_than_may_wait_are_refused_at_once() {
    let redis = TestRedis::start();
    let store = store_on(RedisConfig { max_pending: 10, ..short_timeouts(redis.port()) });
    redis.pause();
    let calls: Vec<_> = (0..11).map(|_| store.kv_get(name("k"))).collect();
    let error = calls.into_iter().next_back().unwrap().await.unwrap_err();
    assert!(error.is_retryable() && error.message().contains("pending"), "{error}");
    redis.resume();
}

#[tokio::test]
async fn store_subscriptions_resume_from_the_last_id_seen() {
    let mut redis = TestRedis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let (one, other) = (store_on(short_timeouts(redis.port())), store_on(short_timeouts(redis.port())));
    let mailboxes: Vec<_> = (0..2).map(|_| std::sync::Arc::new(Mailbox::new(1_000, Overflow::DropOldest))).collect();
    one.subscribe(name("run:a"), mailboxes[0].clone()).await.unwrap();
    one.subscribe(name("run:*"), mailboxes[1].clone()).await.unwrap();
    let append =
        async |n: usize| other.append(name("run:a"), event(&format!(r#"{{"type":"t","n":{n}}}"#)), None, None).await;
    append(0).await.unwrap();
    redis.kill();
    redis.restart();
    // While a client has not reconnected yet.
    redis.raw(&["XADD", "run:a", "*", "type", "t", "n", "1"]);
    while append(2).await.is_err() {}
    for mailbox in mailboxes {
        for n in 0..3 {
            match mailbox.recv().await.unwrap() {
                Delivery::Item(stored) => assert_eq!(crate::value(stored.event.json())["n"], n),
                Delivery::Gap(gap) => panic!("{gap:?}"),
            }
        }
    }
}

#[tokio::test]
async fn closing_leaves_nothing_behind_and_works_while_the_server_is_down() {
    let mut redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let mailbox = std::sync::Arc::new(Mailbox::new(8, Overflow::DropOldest));
    store.subscribe(name("s*"), mailbox.clone()).await.unwrap();
    eventually("it is connected", || redis.connections_named("nvent-native") == 2).await;
    let last = store.kv_set(name("last"), text(json!(1)), None);
    store.close().await.unwrap();
    last.await.unwrap();
    assert_eq!(redis.connections_named("nvent-native"), 0);
    assert!(mailbox.recv().await.is_none());
    assert_eq!(set(&store).await.unwrap_err().code(), Code::Closed);
    store.close().await.unwrap();

    let down = store_on(connection_to(redis.port()));
    set(&down).await.unwrap();
    redis.kill();
    let waiting = down.kv_get(name("k"));
    down.close().await.unwrap();
    assert_eq!(waiting.await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn calls_made_before_there_is_a_connection_are_made_before_a_close_ends_it() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let calls: Vec<_> = (0..50).map(|_| store.kv_increment(name("n"), 1.0)).collect();
    let closed = store.close();
    assert_eq!(set(&store).await.unwrap_err().code(), Code::Closed);
    for call in calls {
        call.await.unwrap();
    }
    closed.await.unwrap();
    assert_eq!(redis.connections_named("nvent-native"), 0);
    assert_eq!(redis.raw(&["GET", "n"]), redis::Value::BulkString(b"50".into()));
}

#[tokio::test]
async fn a_close_between_two_attempts_makes_one_more_for_the_calls_that_wait() {
    let mut redis = TestRedis::start();
    redis.kill();
    // When health has given up, the next attempt is more than a second away.
    let hour = Duration::from_secs(3_600);
    let store = store_on(RedisConfig { max_reconnect_delay: hour, queue_timeout: hour, ..connection_to(redis.port()) });
    let waiting = store.kv_set(name("k"), text(json!(1)), None);
    while !store.health().await.unwrap().detail.unwrap().contains("reached") {}
    redis.restart();
    store.close().await.unwrap();
    waiting.await.unwrap();
    assert_eq!(redis.raw(&["GET", "k"]), redis::Value::BulkString(b"1".into()));
}

#[tokio::test]
async fn closing_ends_while_the_server_is_down_or_silent_or_was_never_there() {
    let mut redis = TestRedis::start();
    let never = store_on(RedisConfig { port: 1, ..connection_to(redis.port()) });
    let mailbox = std::sync::Arc::new(Mailbox::new(8, Overflow::DropOldest));
    let (subscribed, waiting) = (never.subscribe(name("s*"), mailbox.clone()), set(&never));
    never.close().await.unwrap();
    assert!(subscribed.await.is_err() && !waiting.await.unwrap_err().is_maybe_applied());
    assert!(mailbox.recv().await.is_none());

    let silent = store_on(short_timeouts(redis.port()));
    set(&silent).await.unwrap();
    redis.pause();
    let write = silent.kv_increment(name("n"), 1.0);
    silent.close().await.unwrap();
    assert!(write.await.unwrap_err().is_maybe_applied());
    redis.resume();
    redis.kill();
}

#[tokio::test]
async fn store_subscriptions_made_during_an_outage_are_accepted_and_live_when_the_server_is_back() {
    let mut redis = TestRedis::start();
    let store = store_on(RedisConfig { queue_timeout: Duration::from_millis(300), ..short_timeouts(redis.port()) });
    set(&store).await.unwrap();
    redis.kill();
    let mailboxes: Vec<_> = (0..3).map(|_| std::sync::Arc::new(Mailbox::new(1_000, Overflow::DropOldest))).collect();
    store.subscribe(name("run:a"), mailboxes[0].clone()).await.unwrap();
    store.subscribe(name("run:*"), mailboxes[1].clone()).await.unwrap();
    let ended = store.subscribe(name("run:*"), mailboxes[2].clone()).await.unwrap();
    store.unsubscribe(ended).await.unwrap();
    assert!(mailboxes[2].recv().await.is_none());
    redis.restart();
    // Appends that are called later come after them, also where both waited.
    let append =
        async |n: usize| store.append(name("run:a"), event(&format!(r#"{{"type":"t","n":{n}}}"#)), None, None).await;
    for n in 0..3 {
        while append(n).await.is_err() {}
    }
    for mailbox in &mailboxes[..2] {
        for n in 0..3 {
            match mailbox.recv().await.unwrap() {
                Delivery::Item(stored) => assert_eq!(crate::value(stored.event.json())["n"], n),
                Delivery::Gap(gap) => panic!("{gap:?}"),
            }
        }
    }
}

#[tokio::test]
async fn names_in_refused_calls_do_not_cost_the_connection_or_make_them_retryable() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let connections = || redis.raw(&["CLIENT", "LIST", "TYPE", "normal"]);
    let ids = |list: redis::Value| {
        let redis::Value::BulkString(text) = list else { panic!("no list") };
        let text = String::from_utf8(text).unwrap();
        let ours = text.lines().filter(|line| line.contains(" name=nvent-native "));
        ours.map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    set(&store).await.unwrap();
    let before = ids(connections());
    for key in ["READONLY", "max number of clients", "max number of clients reached", "-OOM", "permission", "WRONGTYPE"]
    {
        store.kv_set(name(key), text(json!("text")), None).await.unwrap();
        let error = store.kv_increment(name(key), 1.0).await.unwrap_err();
        assert_eq!((error.code(), error.is_retryable()), (Code::Type, false), "{key}: {error}");
    }
    set(&store).await.unwrap();
    assert_eq!((ids(connections()), before.len()), (before, 1));
}
