//! The feed and the subscriptions that follow it, where Redis is its own: other writers, trimming, lost announcements.

use std::sync::Arc;
use std::time::Duration;

use nvent_native::fanout::{Delivery, Gap, Mailbox, Overflow};
use nvent_native::redis::RedisConfig;
use nvent_native::store::{FeedPage, FeedQuery, Position, RedisStore, RedisStoreOptions, StoreBackend, Stored, Trim};
use nvent_native::topic::Glob;
use serde_json::json;
use tokio::runtime::Handle;

use crate::conformance::name;
use crate::support::{TestRedis, eventually};
use crate::{connection_to, event, store_on, value};

fn mailbox(capacity: usize) -> Arc<Mailbox<Stored>> {
    Arc::new(Mailbox::new(capacity, Overflow::DropOldest))
}

async fn append(store: &RedisStore, subject: &str, kind: &str, n: usize) -> String {
    let json = json!({"type": kind, "n": n}).to_string();
    store.append(name(subject), event(&json), None, None).await.unwrap().id().to_owned()
}

async fn receive(mailbox: &Mailbox<Stored>) -> Result<Stored, Gap> {
    let delivery = tokio::time::timeout(Duration::from_secs(60), mailbox.recv()).await.expect("a delivery");
    match delivery.expect("an open mailbox") {
        Delivery::Item(stored) => Ok(stored),
        Delivery::Gap(gap) => Err(gap),
    }
}

async fn number(mailbox: &Mailbox<Stored>) -> u64 {
    value(receive(mailbox).await.unwrap().event.json())["n"].as_u64().unwrap()
}

/// Waits until the server's clock shows another millisecond.
async fn next_millisecond(redis: &TestRedis) {
    let now = || match redis.raw(&["TIME"]) {
        redis::Value::Array(parts) => match &parts[..] {
            [redis::Value::BulkString(seconds), redis::Value::BulkString(micros)] => {
                let number = |text: &[u8]| std::str::from_utf8(text).unwrap().parse::<u64>().unwrap();
                number(seconds) * 1_000 + number(micros) / 1_000
            }
            _ => panic!("{parts:?}"),
        },
        other => panic!("{other:?}"),
    };
    let before = now();
    eventually("the next millisecond has come", || now() > before).await;
}

fn query(after: Option<&Position>, limit: usize, subjects: &[&str], types: &[&str]) -> FeedQuery {
    let globs = |texts: &[&str]| texts.iter().map(|text| Glob::new(text)).collect();
    FeedQuery { after: after.cloned(), limit, subjects: globs(subjects), types: globs(types), ..Default::default() }
}

async fn read(store: &RedisStore, after: Option<&Position>) -> FeedPage {
    store.feed_read(query(after, 10_000, &[], &[])).await.unwrap()
}

fn numbers(page: &FeedPage) -> Vec<u64> {
    page.records.iter().map(|record| value(&record.event)["n"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn the_feed_has_every_event_in_the_order_of_the_store_and_is_read_by_glob() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    assert_eq!(store.feed_head().await.unwrap(), None);
    let ids = [
        append(&store, "run:a", "step.started", 0).await,
        append(&store, "run:b b", "step done", 1).await,
        append(&store, "other", "step.started", 2).await,
        append(&store, "run:a", "x", 3).await,
    ];
    let all = read(&store, None).await;
    assert_eq!(numbers(&all), [0, 1, 2, 3]);
    assert_eq!(all.records.iter().map(|r| &*r.subject).collect::<Vec<_>>(), ["run:a", "run:b b", "other", "run:a"]);
    for (record, id) in all.records.iter().zip(&ids) {
        assert_eq!(value(&record.event)["id"], id.as_str());
    }
    assert_eq!(store.feed_head().await.unwrap().as_ref(), Some(&all.records[3].position));
    assert_eq!(all.end.as_ref(), Some(&all.records[3].position));
    let counted: Vec<_> = all.records.iter().map(|r| store.feed_number(&r.position).unwrap()).collect();
    assert_eq!(counted, [1, 2, 3, 4]);
    let page = |after, limit, subjects: &'static [&str], types: &'static [&str]| {
        store.feed_read(query(after, limit, subjects, types))
    };
    assert_eq!(numbers(&page(None, 10, &["run:*"], &[]).await.unwrap()), [0, 1, 3]);
    assert_eq!(numbers(&page(None, 10, &["run:*", "oth?r"], &["step*"]).await.unwrap()), [0, 1, 2]);
    assert_eq!(numbers(&page(None, 10, &[], &["step done"]).await.unwrap()), [1]);
    let first = page(None, 2, &["run:*"], &[]).await.unwrap();
    assert_eq!((numbers(&first), first.end.as_ref()), (vec![0, 1], Some(&first.records[1].position)));
    assert_eq!(numbers(&page(first.end.as_ref(), 2, &["run:*"], &[]).await.unwrap()), [3]);
    // The end is known also where nothing matches.
    let none = page(None, 10, &["nothing"], &[]).await.unwrap();
    assert_eq!((none.records.len(), none.end), (0, all.end.clone()));
    assert_eq!(read(&store, all.end.as_ref()).await, FeedPage::default());
    assert_eq!(page(None, 0, &[], &[]).await.unwrap(), FeedPage::default());
    let foreign = Position::new("elsewhere").unwrap();
    let error = store.feed_read(query(Some(&foreign), 1, &[], &[])).await.unwrap_err();
    assert_eq!(error.code(), nvent_native::Code::Invalid);
}

#[tokio::test]
async fn what_was_trimmed_is_counted_and_what_was_deleted_is_not() {
    let redis = TestRedis::start();
    let options = RedisStoreOptions {
        connection: connection_to(redis.port()),
        trim: Trim { max_len: Some(3), approx: false },
        ..Default::default()
    };
    let store = RedisStore::new(options, Handle::current());
    append(&store, "first", "t", 0).await;
    let start = store.feed_head().await.unwrap();
    for n in 1..=5 {
        append(&store, "trimmed", "t", n).await;
    }
    append(&store, "deleted", "t", 6).await;
    store.delete_subject(name("deleted")).await.unwrap();
    append(&store, "deleted", "t", 7).await;
    let page = read(&store, start.as_ref()).await;
    assert_eq!((numbers(&page), page.missed), (vec![3, 4, 5, 7], 2));
    // Of the feed itself, as retention of the feed does.
    redis.raw(&["XTRIM", "nvent:~feed", "MAXLEN", "2"]);
    let page = read(&store, start.as_ref()).await;
    assert_eq!((numbers(&page), page.missed), (vec![7], 5));
}

#[tokio::test]
async fn a_subscription_misses_nothing_in_a_burst_however_slow_it_is() {
    let redis = TestRedis::start();
    let (store, other) = (store_on(connection_to(redis.port())), store_on(connection_to(redis.port())));
    let (slow, fast) = (mailbox(10), mailbox(100_000));
    store.subscribe(name("run:*"), slow.clone()).await.unwrap();
    store.subscribe(name("run:*"), fast.clone()).await.unwrap();
    let appends: Vec<_> = (0..6_000)
        .map(|n| {
            let subject = format!("run:{}", n % 7);
            let json = json!({"type": "t", "n": n}).to_string();
            other.append(name(&subject), event(&json), None, None)
        })
        .collect();
    for append in appends {
        append.await.unwrap();
    }
    // The slow one does not hold up the fast one.
    for n in 0..6_000 {
        assert_eq!(number(&fast).await, n);
    }
    for n in 0..6_000 {
        assert_eq!(number(&slow).await, n);
    }
    // Both go on together.
    append(&other, "run:x", "t", 6_000).await;
    assert_eq!((number(&fast).await, number(&slow).await), (6_000, 6_000));
    assert!(fast.is_empty() && slow.is_empty());
}

#[tokio::test]
async fn a_process_delivers_what_it_appends_however_fast_it_is_trimmed_and_others_get_a_gap_of_what_was() {
    let redis = TestRedis::start();
    let options = RedisStoreOptions {
        connection: connection_to(redis.port()),
        trim: Trim { max_len: Some(10), approx: false },
        ..Default::default()
    };
    let (store, other) = (RedisStore::new(options, Handle::current()), store_on(connection_to(redis.port())));
    let (own, slow) = (mailbox(5), mailbox(5));
    store.subscribe(name("s"), own.clone()).await.unwrap();
    other.subscribe(name("s"), slow.clone()).await.unwrap();
    let appends: Vec<_> = (0..500)
        .map(|n| store.append(name("s"), event(&json!({"type": "t", "n": n}).to_string()), None, None))
        .collect();
    for append in appends {
        append.await.unwrap();
    }
    for n in 0..500 {
        assert_eq!(number(&own).await, n);
    }
    let (mut got, mut missed) = (0, 0);
    loop {
        match receive(&slow).await {
            Ok(stored) => {
                got += 1;
                if value(stored.event.json())["n"] == 499 {
                    break;
                }
            }
            Err(gap) => missed += gap.missed.unwrap(),
        }
    }
    assert_eq!(got + missed, 500);
}

#[tokio::test]
async fn nothing_is_polled_while_nothing_happens_however_many_subjects_there_are() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let appends: Vec<_> =
        (0..8_000).map(|n| store.append(name(&format!("run:{n}")), event(r#"{"type":"t"}"#), None, None)).collect();
    for append in appends {
        append.await.unwrap();
    }
    let mailbox = mailbox(10);
    store.subscribe(name("run:*"), mailbox.clone()).await.unwrap();
    let calls = || redis.info("total_commands_processed").trim().parse::<u64>().unwrap();
    // The first search for what other writers did visits every key once, a step a second.
    eventually("the first search is over", || {
        matches!(redis.raw(&["HEXISTS", "nvent:~feed:state", "seen"]), redis::Value::Int(1))
    })
    .await;
    let before = calls();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let idle = calls() - before;
    assert!(idle <= 12, "{idle} commands in 6 s in which nothing happened");
    append(&store, "run:7", "t", 1).await;
    assert_eq!(number(&mailbox).await, 1);
}

#[tokio::test]
async fn what_other_writers_append_is_found_once_and_enters_the_feed() {
    let redis = TestRedis::start();
    let (store, second) = (store_on(connection_to(redis.port())), store_on(connection_to(redis.port())));
    redis.raw(&["XADD", "run:early", "*", "type", "before", "n", "0", "ts", "1"]);
    // Ids and subscriptions are compared by the millisecond.
    next_millisecond(&redis).await;
    let (one, two) = (mailbox(10), mailbox(10));
    store.subscribe(name("run:*"), one.clone()).await.unwrap();
    second.subscribe(name("*"), two.clone()).await.unwrap();
    redis.raw(&["XADD", "run:foreign", "*", "type", "t", "n", "1", "ts", "1"]);
    redis.raw(&["XADD", "run:foreign", "*", "type", "t", "n", "2", "ts", "1"]);
    // Another program's stream: its entries are no events.
    redis.raw(&["XADD", "bull:q:events", "*", "event", "completed", "jobId", "1"]);
    for mailbox in [&one, &two] {
        assert_eq!((number(mailbox).await, number(mailbox).await), (1, 2));
    }
    append(&second, "run:foreign", "t", 3).await;
    assert_eq!((number(&one).await, number(&two).await), (3, 3));
    // Between two events of native instances it is delivered in its place, and not again when the search finds it.
    redis.raw(&["XADD", "run:foreign", "*", "type", "t", "n", "4", "ts", "1"]);
    append(&second, "run:foreign", "t", 5).await;
    redis.raw(&["XADD", "run:other", "*", "type", "t", "n", "6", "ts", "1"]);
    for mailbox in [&one, &two] {
        assert_eq!((number(mailbox).await, number(mailbox).await, number(mailbox).await), (4, 5, 6));
        assert!(mailbox.is_empty());
    }
    let page = read(&store, None).await;
    let mut sorted = numbers(&page);
    sorted.sort_unstable();
    // What was there before anything followed the feed may be in it.
    assert_eq!(sorted.strip_prefix(&[0]).unwrap_or(&sorted), [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn positions_go_on_when_the_counter_or_the_feed_is_lost_and_when_the_clock_goes_back() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let mailbox = mailbox(10);
    store.subscribe(name("s"), mailbox.clone()).await.unwrap();
    append(&store, "s", "t", 0).await;
    append(&store, "s", "t", 1).await;
    redis.raw(&["DEL", "nvent:~feed:state"]);
    append(&store, "s", "t", 2).await;
    // A last position of a year in the future is what a clock that goes back by a year meets.
    redis.raw(&["XADD", "nvent:~feed", "4900000000000-7", "e", "1-1 1 tgone"]);
    append(&store, "s", "t", 3).await;
    let head = store.feed_head().await.unwrap().unwrap();
    assert_eq!(head.as_str(), "4900000000000-8");
    append(&store, "s", "t", 4).await;
    assert_eq!(numbers(&read(&store, None).await), [0, 1, 2, 3, 4]);
    redis.raw(&["DEL", "nvent:~feed"]);
    append(&store, "s", "t", 5).await;
    assert_eq!(store.feed_number(&store.feed_head().await.unwrap().unwrap()).unwrap(), 10);
    let mut got = Vec::new();
    while got.last() != Some(&5) {
        // A gap is reported for what the lost feed hides.
        if let Ok(stored) = receive(&mailbox).await {
            got.push(value(stored.event.json())["n"].as_u64().unwrap());
        }
    }
    assert_eq!(got, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_subscription_goes_on_where_the_server_has_lost_everything() {
    let redis = TestRedis::start();
    let (store, other) = (store_on(connection_to(redis.port())), store_on(connection_to(redis.port())));
    let mailbox = mailbox(10);
    store.subscribe(name("s"), mailbox.clone()).await.unwrap();
    for n in 0..3 {
        append(&other, "s", "t", n).await;
        assert_eq!(number(&mailbox).await, n as u64);
    }
    redis.raw(&["FLUSHALL"]);
    // Positions count from the beginning again, and are later all the same, from the next millisecond on.
    next_millisecond(&redis).await;
    for n in 3..10 {
        append(&other, "s", "t", n).await;
        assert_eq!(number(&mailbox).await, n as u64);
    }
}

#[tokio::test]
async fn a_subscription_goes_on_after_a_failover_that_lost_its_position() {
    let mut redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let mailbox = mailbox(10);
    store.subscribe(name("s"), mailbox.clone()).await.unwrap();
    append(&store, "s", "t", 0).await;
    assert_eq!(number(&mailbox).await, 0);
    // A position of the old server's clock, which the new one has not reached.
    redis.raw(&["XADD", "nvent:~feed", "4900000000000-2", "e", "1-1 1 tgone"]);
    append(&store, "s", "t", 1).await;
    assert_eq!(number(&mailbox).await, 1);
    redis.restart();
    assert_eq!(receive(&mailbox).await.unwrap_err().missed, None);
    append(&store, "s", "t", 2).await;
    assert_eq!(number(&mailbox).await, 2);
}

#[tokio::test]
async fn an_event_with_an_id_of_the_future_is_not_found_again_and_again() {
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    let mailbox = mailbox(10);
    store.subscribe(name("*"), mailbox.clone()).await.unwrap();
    redis.raw(&["XADD", "future", "4900000000000-0", "type", "t", "n", "1", "ts", "1"]);
    for n in 2..4 {
        // Each is found by a search of its own.
        redis.raw(&["XADD", "now", "*", "type", "t", "n", &n.to_string(), "ts", "1"]);
        assert_eq!(number(&mailbox).await, n);
    }
    assert_eq!(numbers(&read(&store, None).await), [2, 3]);
}

#[tokio::test]
async fn where_an_acl_forbids_channels_events_arrive_all_the_same() {
    let redis = TestRedis::start();
    redis.raw(&["ACL", "SETUSER", "limited", "on", ">pw", "+@all", "~*", "resetchannels"]);
    let limited =
        RedisConfig { username: Some("limited".into()), password: Some("pw".into()), ..connection_to(redis.port()) };
    let (store, writer) = (store_on(limited.clone()), store_on(limited));
    let mailbox = mailbox(10);
    store.subscribe(name("s*"), mailbox.clone()).await.unwrap();
    let mut newest_position = store.feed_watch().unwrap();
    append(&writer, "s1", "t", 1).await;
    assert_eq!(number(&mailbox).await, 1);
    tokio::time::timeout(Duration::from_secs(60), newest_position.wait_for(|newest| *newest == 1))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_watcher_is_notified_of_the_appends_of_every_process() {
    let redis = TestRedis::start();
    let (store, other) = (store_on(connection_to(redis.port())), store_on(connection_to(redis.port())));
    append(&other, "s", "t", 0).await;
    let mut newest_position = store.feed_watch().unwrap();
    let within = Duration::from_secs(60);
    tokio::time::timeout(within, newest_position.wait_for(|newest| *newest == 1)).await.unwrap().unwrap();
    append(&other, "s", "t", 1).await;
    tokio::time::timeout(within, newest_position.wait_for(|newest| *newest == 2)).await.unwrap().unwrap();
    redis.raw(&["XADD", "s", "*", "type", "foreign", "n", "1", "ts", "1"]);
    tokio::time::timeout(within, newest_position.wait_for(|newest| *newest == 3)).await.unwrap().unwrap();
}
