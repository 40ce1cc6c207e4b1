//! Subscriptions and groups: what was acknowledged is delivered, or reported as a gap.

use std::time::Duration;

use nvent_native::Code;
use nvent_native::fanout::{Delivery, GapReason};
use nvent_native::redis::RedisConfig;
use nvent_native::stream::{GroupOptions, RedisStream, RedisStreamOptions, RetainTopics, StreamBackend, SubscribeSpec};
use tokio::runtime::Handle;

use crate::stream::{acknowledge, data, in_group, item, message, number};
use crate::support::{Proxy, TestRedis, eventually};
use crate::{connection_to, short_timeouts};

fn stream_on(connection: RedisConfig, retain: RetainTopics) -> RedisStream {
    let groups = GroupOptions { claim_idle_after: Duration::from_millis(600), ..Default::default() };
    let options = RedisStreamOptions { connection, retain: Some(retain), groups, ..Default::default() };
    RedisStream::new(options, Handle::current())
}

fn retain(topics: &str, max_len: u64, max_backlog: Option<u64>) -> RetainTopics {
    RetainTopics { topics: vec![topics.into()], max_len, max_backlog }
}

fn small_group(buffer: usize) -> SubscribeSpec {
    SubscribeSpec { buffer, ..in_group("g") }
}

fn pending(redis: &TestRedis, topic: &str) -> i64 {
    match redis.raw(&["XPENDING", &format!("nvent:~retained:{topic}"), "g"]) {
        redis::Value::Array(summary) => match summary[0] {
            redis::Value::Int(count) => count,
            ref other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_topic_that_is_subscribed_to_again_at_once_misses_nothing() {
    let redis = TestRedis::start();
    let proxy = Proxy::to(redis.port()).await;
    let one = stream_on(connection_to(proxy.port()), retain("kept:*", 100, None));
    let other = stream_on(connection_to(redis.port()), retain("kept:*", 100, None));
    let mut subscription = one.subscribe("t", SubscribeSpec::default(), None).await.unwrap();
    proxy.delay(Duration::from_millis(5));
    for n in 0..20 {
        one.unsubscribe(subscription.id).await.unwrap();
        // The command is on its way when the next subscription is made.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        subscription = one.subscribe("t", SubscribeSpec::default(), None).await.unwrap();
        other.publish(message("t", n)).await.unwrap();
        assert_eq!(number(&subscription.mailbox).await, n);
    }
}

#[tokio::test]
async fn a_group_that_is_behind_misses_nothing_within_the_backlog_and_gets_a_gap_with_the_number_beyond_it() {
    let redis = TestRedis::start();
    for (topic, backlog, expected_gap) in [("kept:all", None, 0), ("kept:some", Some(100), 1)] {
        let stream = stream_on(connection_to(redis.port()), retain("kept:*", 20, backlog));
        let member = stream.subscribe(topic, small_group(1), None).await.unwrap();
        for n in 0..500 {
            stream.publish(message(topic, n)).await.unwrap();
        }
        let (mut delivered, mut missed, mut gaps) = (Vec::new(), 0, 0);
        while delivered.last() != Some(&499) {
            match member.mailbox.recv().await.unwrap() {
                Delivery::Item(incoming) => {
                    acknowledge(&incoming, true);
                    delivered.push(data(&incoming));
                }
                Delivery::Gap(gap) => {
                    assert_eq!(gap.reason, GapReason::Trimmed);
                    missed += gap.missed.unwrap();
                    gaps += 1;
                }
            }
        }
        assert_eq!((delivered.len() as u64 + missed, gaps), (500, expected_gap), "{topic}");
        assert!(delivered.is_sorted());
        // What no group needs any more is trimmed with the next messages.
        eventually("all is acknowledged", || pending(&redis, topic) == 0).await;
        for n in 0..2 {
            stream.publish(message(topic, n)).await.unwrap();
        }
        let redis::Value::Int(left) = redis.raw(&["XLEN", &format!("nvent:~retained:{topic}")]) else { panic!() };
        assert!((20..30).contains(&left), "{left}");
    }
}

#[tokio::test]
async fn a_member_with_a_small_buffer_takes_over_every_message_of_a_dead_one() {
    let redis = TestRedis::start();
    let proxy = Proxy::to(redis.port()).await;
    let dying = stream_on(short_timeouts(proxy.port()), retain("kept:*", 100, None));
    let alive = stream_on(connection_to(redis.port()), retain("kept:*", 100, None));
    let lost = dying.subscribe("kept:jobs", in_group("g"), None).await.unwrap();
    for n in 0..5 {
        alive.publish(message("kept:jobs", n)).await.unwrap();
    }
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(item(&lost.mailbox).await);
    }
    proxy.silence(true);
    let successor = alive.subscribe("kept:jobs", small_group(1), None).await.unwrap();
    let mut taken = Vec::new();
    for _ in 0..5 {
        let incoming = item(&successor.mailbox).await;
        taken.push(data(&incoming));
        acknowledge(&incoming, true);
    }
    taken.sort_unstable();
    assert_eq!((taken, successor.mailbox.dropped()), (vec![0, 1, 2, 3, 4], 0));
    eventually("all are acknowledged", || pending(&redis, "kept:jobs") == 0).await;
}

#[tokio::test]
async fn closing_waits_for_a_running_handler_of_a_group_and_releases_what_is_queued() {
    let redis = TestRedis::start();
    let leaving = stream_on(connection_to(redis.port()), retain("kept:*", 100, None));
    let staying = stream_on(connection_to(redis.port()), retain("kept:*", 100, None));
    let member = leaving.subscribe("kept:jobs", in_group("g"), None).await.unwrap();
    for n in 0..2 {
        staying.publish(message("kept:jobs", n)).await.unwrap();
    }
    let running = item(&member.mailbox).await;
    assert_eq!(data(&running), 0);
    eventually("the second is queued", || !member.mailbox.is_empty()).await;
    let closing = tokio::spawn(leaving.close().into_future());
    let successor = staying.subscribe("kept:jobs", in_group("g"), None).await.unwrap();
    let released = item(&successor.mailbox).await;
    assert_eq!(data(&released), 1);
    acknowledge(&released, true);
    assert!(!closing.is_finished(), "the handler is running");
    acknowledge(&running, true);
    closing.await.unwrap().unwrap();
    eventually("both are acknowledged", || pending(&redis, "kept:jobs") == 0).await;
    assert!(successor.mailbox.is_empty());
}

#[tokio::test]
async fn a_delivery_that_is_dropped_without_an_acknowledgement_is_delivered_again() {
    let redis = TestRedis::start();
    let stream = stream_on(connection_to(redis.port()), retain("kept:*", 100, None));
    let member = stream.subscribe("kept:jobs", in_group("g"), None).await.unwrap();
    stream.publish(message("kept:jobs", 7)).await.unwrap();
    drop(item(&member.mailbox).await);
    let again = item(&member.mailbox).await;
    assert_eq!(data(&again), 7);
    acknowledge(&again, true);
}

#[tokio::test]
async fn messages_are_delivered_although_what_was_trimmed_before_them_cannot_be_read() {
    let redis = TestRedis::start();
    // A key of another program: SET has made it a string.
    redis.raw(&["SET", "nvent:~trimmed:t", "theirs"]);
    // Long enough that nothing is claimed meanwhile, which would deliver it as well.
    let groups = GroupOptions { claim_idle_after: Duration::from_secs(600), ..Default::default() };
    let (connection, retain) = (connection_to(redis.port()), Some(retain("t", 100, None)));
    let stream =
        RedisStream::new(RedisStreamOptions { connection, retain, groups, ..Default::default() }, Handle::current());
    let subscription = stream.subscribe("t", in_group("g"), None).await.unwrap();
    for n in 0..5 {
        stream.publish(message("t", n)).await.unwrap();
        let delivery =
            tokio::time::timeout(Duration::from_secs(10), item(&subscription.mailbox)).await.expect("it is delivered");
        assert_eq!(data(&delivery), n);
        acknowledge(&delivery, true);
    }
}

#[tokio::test]
async fn a_group_on_a_pattern_needs_every_matching_topic_retained() {
    let redis = TestRedis::start();
    let stream = stream_on(connection_to(redis.port()), retain("job:?", 100, None));
    for pattern in ["job:*", "job:??", "*"] {
        let error = stream.subscribe(pattern, in_group("g"), None).await.err().unwrap();
        assert_eq!(error.code(), Code::Invalid, "{pattern}");
        assert!(error.message().contains("not every topic"), "{error}");
    }
    let member = stream.subscribe("job:[0-9]", in_group("g"), None).await.unwrap();
    stream.publish(message("job:1", 1)).await.unwrap();
    let incoming = item(&member.mailbox).await;
    assert_eq!(data(&incoming), 1);
    acknowledge(&incoming, true);
}
