//! The stream: live, retained, and in groups.

use std::sync::Arc;
use std::time::Duration;

use nvent_native::Code;
use nvent_native::fanout::{Delivery, Gap, GapReason, Mailbox};
use nvent_native::redis::RedisConfig;
use nvent_native::stream::{
    GroupOptions, Incoming, Message, Parking, RedisStream, RedisStreamOptions, RetainTopics, StreamBackend,
    SubscribeSpec,
};
use tokio::runtime::Handle;

use crate::support::{Proxy, Raw, TestRedis, eventually};
use crate::{connection_to, short_timeouts};

fn stream_on(connection: RedisConfig) -> RedisStream {
    let retain = RetainTopics { topics: vec!["kept:*".into()], max_len: 10_000, max_backlog: None };
    let groups = GroupOptions {
        claim_idle_after: Duration::from_millis(600),
        retry_delay: Duration::from_millis(20),
        max_deliveries: 3,
        ..Default::default()
    };
    let options = RedisStreamOptions { connection, retain: Some(retain), groups, ..Default::default() };
    RedisStream::new(options, Handle::current())
}

pub(crate) fn message(topic: &str, n: usize) -> Message {
    Message::parse(topic, &format!(r#"{{"type":"t","data":{n}}}"#)).unwrap()
}

pub(crate) async fn item(mailbox: &Mailbox<Incoming>) -> Incoming {
    match mailbox.recv().await.unwrap() {
        Delivery::Item(incoming) => incoming,
        Delivery::Gap(gap) => panic!("{gap:?}"),
    }
}

async fn json(mailbox: &Mailbox<Incoming>) -> String {
    item(mailbox).await.message.json().to_string()
}

pub(crate) async fn number(mailbox: &Mailbox<Incoming>) -> usize {
    let json = json(mailbox).await;
    json.trim_start_matches(r#"{"type":"t","data":"#).trim_end_matches('}').parse().unwrap()
}

async fn is_reconnect_gap(mailbox: &Mailbox<Incoming>) -> bool {
    matches!(mailbox.recv().await, Some(Delivery::Gap(gap)) if gap.reason == GapReason::Reconnect)
}

fn from_beginning() -> SubscribeSpec {
    SubscribeSpec { from_beginning: true, ..Default::default() }
}

pub(crate) fn in_group(name: &str) -> SubscribeSpec {
    SubscribeSpec { group: Some(name.into()), ..Default::default() }
}

pub(crate) fn stat(stream: &RedisStream, name: &str) -> f64 {
    stream.stats().into_iter().find(|(n, _)| *n == name).unwrap().1
}

#[tokio::test]
async fn instances_receive_from_each_other_by_name_and_by_pattern() {
    let redis = TestRedis::start();
    let (one, other) = (stream_on(connection_to(redis.port())), stream_on(connection_to(redis.port())));
    let exact = one.subscribe("a:b", SubscribeSpec::default(), None).await.unwrap();
    let glob = one.subscribe("a:*", SubscribeSpec::default(), None).await.unwrap();
    let twin = one.subscribe("a:*", SubscribeSpec::default(), None).await.unwrap();
    for n in 0..100 {
        other.publish(message("a:b", n)).await.unwrap();
    }
    for subscription in [&exact, &glob, &twin] {
        for n in 0..100 {
            assert_eq!(number(&subscription.mailbox).await, n);
        }
    }
    one.unsubscribe(twin.id).await.unwrap();
    assert!(twin.mailbox.recv().await.is_none());
    assert_eq!((one.subscription_count("a:*"), one.topics().len()), (1, 2));
    other.publish(message("a:c", 7)).await.unwrap();
    assert_eq!(number(&glob.mailbox).await, 7);
    assert!(exact.mailbox.is_empty());
}

#[tokio::test]
async fn a_message_is_on_the_wire_as_others_expect_it_and_theirs_are_received() {
    let redis = TestRedis::start();
    let stream = stream_on(connection_to(redis.port()));
    let mut raw = Raw::connect(redis.port());
    raw.call(&["SUBSCRIBE", "topic"]);
    let text = r#"{"id":"x","metadata":{"deep":[null]},"~":""}"#;
    stream.publish(Message::parse("topic", text).unwrap()).await.unwrap();
    let redis::Value::Array(parts) = raw.receive() else { panic!("no message") };
    assert_eq!(parts[2], redis::Value::BulkString(text.into()));

    let subscription = stream.subscribe("topic", SubscribeSpec::default(), None).await.unwrap();
    redis.raw(&["PUBLISH", "topic", "no JSON"]);
    redis.raw(&["PUBLISH", "topic", r#"{"type":"old","data":{"event":1},"timestamp":5}"#]);
    assert_eq!(json(&subscription.mailbox).await, r#"{"type":"old","data":{"event":1},"timestamp":5}"#);
}

#[tokio::test]
async fn an_instance_that_ignores_its_own_messages_receives_those_of_others_and_nobody_sees_the_signature() {
    let redis = TestRedis::start();
    let (one, other) = (stream_on(connection_to(redis.port())), stream_on(connection_to(redis.port())));
    for topic in ["t", "kept:t"] {
        let spec = SubscribeSpec { ignore_own: true, ..Default::default() };
        let ignoring = one.subscribe(topic, spec, None).await.unwrap();
        let all = one.subscribe(topic, SubscribeSpec::default(), None).await.unwrap();
        one.publish(message(topic, 1)).await.unwrap();
        other.publish(message(topic, 2)).await.unwrap();
        assert_eq!((number(&all.mailbox).await, number(&all.mailbox).await), (1, 2), "{topic}");
        assert_eq!(json(&ignoring.mailbox).await, r#"{"type":"t","data":2}"#, "{topic}");
    }
}

#[tokio::test]
async fn what_needs_retaining_says_so() {
    let redis = TestRedis::start();
    let stream = stream_on(connection_to(redis.port()));
    let both = SubscribeSpec { ignore_own: true, ..in_group("g") };
    let error = stream.subscribe("kept:t", both, None).await.err().unwrap();
    assert!(error.code() == Code::Invalid && error.message().contains("ignoreOwn"), "{error}");
    for spec in [from_beginning(), in_group("g")] {
        let error = stream.subscribe("fleeting", spec, None).await.err().unwrap();
        assert_eq!(error.code(), Code::Invalid);
        assert!(error.message().contains("retain"), "{error}");
    }
}

#[tokio::test]
async fn a_retained_message_whose_publish_was_not_answered_is_sent_again_and_kept_once() {
    let redis = TestRedis::start();
    let stream = stream_on(RedisConfig { queue_timeout: Duration::from_secs(30), ..short_timeouts(redis.port()) });
    stream.publish(message("kept:a", 0)).await.unwrap();
    redis.pause();
    // The server has these in its socket, which no client can know. Two of them are alike.
    let unanswered: Vec<_> = [1, 2, 2, 3].map(|n| stream.publish(message("kept:a", n))).into_iter().collect();
    let health = stream.health().await.unwrap();
    assert!(health.detail.unwrap().contains("no reply"), "the connection was given up");
    redis.resume();
    for publish in unanswered {
        publish.await.unwrap();
    }
    stream.publish(message("kept:a", 4)).await.unwrap();
    let all = stream.subscribe("kept:a", from_beginning(), None).await.unwrap();
    for n in [0, 1, 2, 2, 3, 4] {
        assert_eq!(number(&all.mailbox).await, n);
    }
    assert!(all.mailbox.is_empty());
}

#[tokio::test]
async fn a_retained_message_that_was_sent_once_may_have_been_kept_whatever_ends_its_next_attempt() {
    let redis = TestRedis::start();
    let stream = stream_on(short_timeouts(redis.port()));
    stream.publish(message("kept:a", 0)).await.unwrap();
    redis.pause();
    let error = stream.publish(message("kept:a", 1)).await.unwrap_err();
    assert!(error.is_maybe_applied() && error.is_retryable(), "{error}");
    redis.resume();
}

#[tokio::test]
async fn from_the_beginning_meets_live_without_hole_or_duplicate() {
    let redis = TestRedis::start();
    let (one, other) = (stream_on(connection_to(redis.port())), Arc::new(stream_on(connection_to(redis.port()))));
    for n in 0..1_500 {
        let publish = other.publish(message("kept:a", n));
        if n == 1_499 {
            publish.await.unwrap();
        }
    }
    let publishing = tokio::spawn({
        let other = other.clone();
        async move {
            for n in 1_500..3_000 {
                other.publish(message("kept:a", n)).await.unwrap();
            }
        }
    });
    let spec = SubscribeSpec { buffer: 64, ..from_beginning() };
    let exact = one.subscribe("kept:a", from_beginning(), None).await.unwrap();
    let glob = one.subscribe("kept:*", from_beginning(), None).await.unwrap();
    let slow = one
        .subscribe("kept:a", SubscribeSpec { overflow: nvent_native::fanout::Overflow::Block, ..spec }, None)
        .await
        .unwrap();
    for subscription in [exact, glob] {
        for n in 0..3_000 {
            assert_eq!(number(&subscription.mailbox).await, n);
        }
    }
    // Its buffer is small, and the replay waits for it.
    for n in 0..1_000 {
        assert_eq!(number(&slow.mailbox).await, n);
    }
    publishing.await.unwrap();
}

#[tokio::test]
async fn an_interrupted_subscriber_gets_one_gap_and_receives_again() {
    let mut redis = TestRedis::start();
    let (one, other) = (stream_on(short_timeouts(redis.port())), stream_on(short_timeouts(redis.port())));
    let before = one.subscribe("t", SubscribeSpec::default(), None).await.unwrap();
    let pattern = one.subscribe("t*", SubscribeSpec::default(), None).await.unwrap();
    redis.kill();
    eventually("the outage is noticed", || stat(&other, "pending") == 0.0).await;
    let during = one.subscribe("t?", SubscribeSpec::default(), None).await.unwrap();
    let kept = one.subscribe("kept:t", SubscribeSpec::default(), None).await.unwrap();
    let replayed = one.subscribe("kept:t", from_beginning(), None).await.unwrap();
    redis.restart();
    eventually("all are live again", || {
        redis.raw(&["PUBSUB", "NUMPAT"]) == redis::Value::Int(2)
            && ["t", "kept:t"].iter().all(|topic| {
                redis.raw(&["PUBSUB", "NUMSUB", topic])
                    == redis::Value::Array(vec![
                        redis::Value::BulkString(topic.as_bytes().into()),
                        redis::Value::Int(1),
                    ])
            })
    })
    .await;
    other.publish(message("t", 1)).await.unwrap();
    other.publish(message("t2", 2)).await.unwrap();
    assert!(is_reconnect_gap(&before.mailbox).await);
    assert_eq!(number(&before.mailbox).await, 1);
    assert!(is_reconnect_gap(&pattern.mailbox).await);
    assert_eq!((number(&pattern.mailbox).await, number(&pattern.mailbox).await), (1, 2));
    assert!(is_reconnect_gap(&during.mailbox).await);
    assert_eq!(number(&during.mailbox).await, 2);
    // Where its topic ends is known now, not when it was subscribed to; what is read from the beginning misses nothing.
    assert!(is_reconnect_gap(&kept.mailbox).await);
    other.publish(message("kept:t", 3)).await.unwrap();
    assert_eq!((number(&kept.mailbox).await, number(&replayed.mailbox).await), (3, 3));
}

#[tokio::test]
async fn a_channel_that_an_acl_forbids_fails_for_good_and_the_others_go_on() {
    let redis = TestRedis::start();
    redis.raw(&["ACL", "SETUSER", "app", "on", ">hunter2", "~*", "resetchannels", "&own:*", "+@all"]);
    let config =
        RedisConfig { username: Some("app".into()), password: Some("hunter2".into()), ..connection_to(redis.port()) };
    let stream = stream_on(config);
    let own = stream.subscribe("own:t", SubscribeSpec::default(), None).await.unwrap();
    for topic in ["foreign", "foreign:*"] {
        let error = stream.subscribe(topic, SubscribeSpec::default(), None).await.err().unwrap();
        assert!(error.code() == Code::Unavailable && !error.is_retryable(), "{error}");
        assert!(error.message().contains("ACL") && !format!("{error:?}").contains("hunter2"), "{error}");
    }
    let error = stream.publish(message("foreign", 1)).await.unwrap_err();
    assert!(!error.is_retryable() && error.message().contains("ACL"), "{error}");
    assert_eq!(stream.topics().len(), 1);
    stream.publish(message("own:t", 2)).await.unwrap();
    assert_eq!(number(&own.mailbox).await, 2);
}

#[tokio::test]
async fn a_server_that_cannot_be_used_ends_publishes_and_is_waited_for() {
    let redis = TestRedis::start();
    let stream = stream_on(short_timeouts(redis.port()));
    let kept = stream.subscribe("kept:t", SubscribeSpec::default(), None).await.unwrap();
    redis.raw(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = stream.publish(message("kept:t", 1)).await.unwrap_err();
    assert!(error.message().contains("OOM") && error.is_retryable() && !error.is_maybe_applied(), "{error}");
    redis.raw(&["CONFIG", "SET", "maxmemory", "0"]);
    stream.publish(message("kept:t", 2)).await.unwrap();
    assert_eq!(number(&kept.mailbox).await, 2);

    let primary = TestRedis::start();
    redis.raw(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
    let error = stream.publish(message("kept:t", 3)).await.unwrap_err();
    assert!(error.message().contains("READONLY") && error.is_retryable(), "{error}");
    // Promoted at the same address, without the scripts.
    redis.raw(&["REPLICAOF", "NO", "ONE"]);
    redis.raw(&["SCRIPT", "FLUSH"]);
    while stream.publish(message("kept:t", 4)).await.is_err() {}
    loop {
        // The replica may have taken over the data set of its primary, which had none of it.
        if let Some(Delivery::Item(incoming)) = kept.mailbox.recv().await {
            break assert_eq!(data(&incoming), 4);
        }
    }
}

#[tokio::test]
async fn a_killed_subscriber_connection_comes_back() {
    let redis = TestRedis::start();
    let stream = stream_on(short_timeouts(redis.port()));
    let subscription = stream.subscribe("t", SubscribeSpec::default(), None).await.unwrap();
    redis.raw(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert!(is_reconnect_gap(&subscription.mailbox).await);
    stream.publish(message("t", 1)).await.unwrap();
    assert_eq!(number(&subscription.mailbox).await, 1);
}

#[tokio::test]
async fn a_silent_network_is_noticed_and_what_was_retained_is_caught_up_with() {
    let redis = TestRedis::start();
    let proxy = Proxy::to(redis.port()).await;
    let silenced = RedisConfig { client_name: "silenced".into(), ..short_timeouts(proxy.port()) };
    let (one, other) = (stream_on(silenced), stream_on(connection_to(redis.port())));
    let kept = one.subscribe("kept:a", SubscribeSpec::default(), None).await.unwrap();
    let globbed = one.subscribe("kept:*", SubscribeSpec::default(), None).await.unwrap();
    let fleeting = one.subscribe("t", SubscribeSpec::default(), None).await.unwrap();
    other.publish(message("kept:a", 0)).await.unwrap();
    assert_eq!((number(&kept.mailbox).await, number(&globbed.mailbox).await), (0, 0));
    assert!(redis.connections_named("silenced") > 0);
    proxy.silence(true);
    for n in 1..700 {
        other.publish(message("kept:a", n)).await.unwrap();
    }
    other.publish(message("t", 1)).await.unwrap();
    let reconnects = stat(&one, "reconnects");
    eventually("the silence is noticed on every connection", || redis.connections_named("silenced") == 0).await;
    assert!(kept.mailbox.is_empty() && globbed.mailbox.is_empty() && fleeting.mailbox.is_empty());
    proxy.silence(false);
    for n in 1..700 {
        assert_eq!(number(&kept.mailbox).await, n);
        assert_eq!(number(&globbed.mailbox).await, n);
    }
    assert!(is_reconnect_gap(&fleeting.mailbox).await);
    assert!(stat(&one, "reconnects") > reconnects);
}

#[tokio::test]
async fn retained_messages_that_a_server_lost_are_reported_as_a_gap() {
    let mut redis = TestRedis::start();
    let (one, other) = (stream_on(short_timeouts(redis.port())), stream_on(short_timeouts(redis.port())));
    let kept = one.subscribe("kept:a", SubscribeSpec::default(), None).await.unwrap();
    other.publish(message("kept:a", 0)).await.unwrap();
    assert_eq!(number(&kept.mailbox).await, 0);
    // It keeps nothing on disk.
    redis.restart();
    assert!(is_reconnect_gap(&kept.mailbox).await);
    other.publish(message("kept:a", 1)).await.unwrap();
    assert_eq!(number(&kept.mailbox).await, 1);
}

pub(crate) fn acknowledge(incoming: &Incoming, succeeded: bool) {
    (incoming.ack.as_ref().unwrap().0)(succeeded);
}

pub(crate) fn data(incoming: &Incoming) -> usize {
    let value: serde_json::Value = serde_json::from_str(incoming.message.json()).unwrap();
    value["data"].as_u64().unwrap() as usize
}

#[tokio::test]
async fn each_message_goes_to_exactly_one_member() {
    let redis = TestRedis::start();
    let (one, two, publisher) = (
        stream_on(connection_to(redis.port())),
        stream_on(connection_to(redis.port())),
        stream_on(connection_to(redis.port())),
    );
    let members = [
        one.subscribe("kept:jobs", in_group("g"), None).await.unwrap(),
        two.subscribe("kept:jobs", in_group("g"), None).await.unwrap(),
    ];
    for n in 0..300 {
        publisher.publish(message("kept:jobs", n)).await.unwrap();
    }
    let mut got = Vec::new();
    while got.len() < 300 {
        tokio::select! {
            incoming = item(&members[0].mailbox) => { acknowledge(&incoming, true); got.push(data(&incoming)); }
            incoming = item(&members[1].mailbox) => { acknowledge(&incoming, true); got.push(data(&incoming)); }
        }
    }
    got.sort_unstable();
    assert!(got.into_iter().eq(0..300));
    let none_pending = |redis: &TestRedis| {
        let redis::Value::Array(pending) = redis.raw(&["XPENDING", "nvent:~retained:kept:jobs", "g"]) else {
            return false;
        };
        pending[0] == redis::Value::Int(0)
    };
    eventually("all are acknowledged", || none_pending(&redis)).await;
}

#[tokio::test]
async fn what_fails_is_tried_again_then_parked_and_can_be_replayed() {
    let redis = TestRedis::start();
    let stream = stream_on(connection_to(redis.port()));
    let member = stream.subscribe("kept:jobs", in_group("g"), None).await.unwrap();
    stream.publish(message("kept:jobs", 7)).await.unwrap();
    for _ in 0..3 {
        let incoming = item(&member.mailbox).await;
        assert_eq!(data(&incoming), 7);
        acknowledge(&incoming, false);
    }
    let parked = || redis.raw(&["XLEN", "nvent:~parked:g:kept:jobs"]);
    eventually("it is parked", || parked() == redis::Value::Int(1)).await;
    let seen = stream.parked("kept:jobs", "g").await.unwrap();
    assert_eq!((seen.len(), seen[0].deliveries, seen[0].event.get()), (1, 3, r#"{"type":"t","data":7}"#));
    for topic in ["kept:*", "fleeting"] {
        assert_eq!(stream.parked(topic, "g").await.unwrap_err().code(), Code::Invalid);
        assert_eq!(stream.replay_parked(topic, "g").await.unwrap_err().code(), Code::Invalid);
    }
    assert_eq!(stream.replay_parked("kept:jobs", "g").await.unwrap(), 1);
    let incoming = item(&member.mailbox).await;
    assert_eq!(data(&incoming), 7);
    acknowledge(&incoming, true);
    assert!(stream.parked("kept:jobs", "g").await.unwrap().is_empty());
}

/// Returns the member that has claimed the only pending message of the group, its idle time in ms, and its deliveries.
fn only_pending(redis: &TestRedis) -> (String, i64, i64) {
    use redis::Value::{Array, BulkString, Int};
    let pending = redis.raw(&["XPENDING", "nvent:~retained:kept:jobs", "g", "-", "+", "10"]);
    let Array(entries) = &pending else { panic!("{pending:?}") };
    let [Array(entry)] = &entries[..] else { panic!("{pending:?}") };
    let [_, BulkString(owner), Int(idle), Int(deliveries)] = &entry[..] else { panic!("{pending:?}") };
    (String::from_utf8_lossy(owner).into_owned(), *idle, *deliveries)
}

#[tokio::test]
async fn a_dead_member_is_taken_over_from_and_a_slow_one_is_not() {
    let redis = TestRedis::start();
    let proxy = Proxy::to(redis.port()).await;
    let (dying, alive, publisher) = (
        stream_on(short_timeouts(proxy.port())),
        stream_on(connection_to(redis.port())),
        stream_on(connection_to(redis.port())),
    );
    let lost = dying.subscribe("kept:jobs", in_group("g"), None).await.unwrap();
    publisher.publish(message("kept:jobs", 1)).await.unwrap();
    let held = item(&lost.mailbox).await;
    assert_eq!(data(&held), 1);
    proxy.silence(true);
    let successor = alive.subscribe("kept:jobs", in_group("g"), None).await.unwrap();
    let incoming = item(&successor.mailbox).await;
    assert_eq!(data(&incoming), 1);
    // Its handler takes longer than others wait for a member that is gone.
    let third = stream_on(connection_to(redis.port()));
    let waiting = third.subscribe("kept:jobs", in_group("g"), None).await.unwrap();
    let (owner, mut idle, deliveries) = only_pending(&redis);
    let mut renewals = 0;
    // A claim is renewed three times in the time after which others may take it.
    eventually("the claim is renewed for longer than that", || {
        let (still_owner, now_idle, still_deliveries) = only_pending(&redis);
        assert_eq!((&still_owner, still_deliveries), (&owner, deliveries));
        renewals += u32::from(now_idle < idle);
        idle = now_idle;
        renewals == 5
    })
    .await;
    assert!(waiting.mailbox.is_empty());
    acknowledge(&incoming, true);
    drop(held);
}

#[tokio::test]
async fn who_leaves_leaves_its_messages_to_others_at_once() {
    let redis = TestRedis::start();
    let (one, two) = (stream_on(connection_to(redis.port())), stream_on(connection_to(redis.port())));
    let leaving = one.subscribe("kept:*", in_group("g"), None).await.unwrap();
    one.publish(message("kept:new", 5)).await.unwrap();
    eventually("it arrives", || !leaving.mailbox.is_empty()).await;
    one.unsubscribe(leaving.id).await.unwrap();
    let successor = two.subscribe("kept:*", in_group("g"), None).await.unwrap();
    assert_eq!(data(&item(&successor.mailbox).await), 5);
}

#[tokio::test]
async fn closing_ends_everything_also_while_the_server_is_down() {
    let mut redis = TestRedis::start();
    let stream = stream_on(short_timeouts(redis.port()));
    let alone = stream.subscribe("t", SubscribeSpec::default(), None).await.unwrap();
    let member = stream.subscribe("kept:t", in_group("g"), None).await.unwrap();
    stream.publish(message("kept:t", 1)).await.unwrap();
    stream.close().await.unwrap();
    assert_eq!(redis.connections_named("nvent-native"), 0);
    assert!(alone.mailbox.recv().await.is_none() && member.mailbox.recv().await.is_none());
    assert_eq!(stream.publish(message("t", 1)).await.unwrap_err().code(), Code::Closed);
    let published = stat(&stream, "published");
    assert_eq!(stream.publish(message("kept:t", 1)).await.unwrap_err().code(), Code::Closed);
    assert_eq!(stat(&stream, "published"), published);
    let down = stream_on(short_timeouts(redis.port()));
    let alone = down.subscribe("t", SubscribeSpec::default(), None).await.unwrap();
    down.subscribe("kept:t", in_group("g"), None).await.unwrap();
    redis.kill();
    down.close().await.unwrap();
    assert!(alone.mailbox.recv().await.is_none());
}

#[tokio::test]
async fn a_gap_of_topics_reaches_the_subscribers_of_every_process_before_what_follows() {
    let redis = TestRedis::start();
    let (one, other) = (stream_on(connection_to(redis.port())), stream_on(connection_to(redis.port())));
    let subscribe = async |topic: &str| one.subscribe(topic, SubscribeSpec::default(), None).await.unwrap();
    let subscribed = [
        (subscribe("t:*").await, Some(7)),
        (subscribe("*").await, Some(7)),
        (subscribe("t:1").await, None),
        (subscribe("t:1*").await, None),
    ];
    let unaffected = subscribe("u:1").await;
    // The channel of gaps is subscribed to with the first of them.
    eventually("it receives gaps", || {
        redis.raw(&["PUBSUB", "NUMSUB", "nvent:~gaps"])
            == redis::Value::Array(vec![redis::Value::BulkString(b"nvent:~gaps".to_vec()), redis::Value::Int(1)])
    })
    .await;
    let gap = Gap { reason: GapReason::Trimmed, missed: Some(7) };
    other.note_gap(&["t:*".into()], gap).await.unwrap();
    other.publish(message("t:1", 1)).await.unwrap();
    other.publish(message("u:1", 2)).await.unwrap();
    for (subscription, missed) in subscribed {
        let Some(Delivery::Gap(found)) = subscription.mailbox.recv().await else { panic!("a gap comes first") };
        assert_eq!(found, Gap { missed, ..gap });
        assert_eq!(number(&subscription.mailbox).await, 1);
        one.unsubscribe(subscription.id).await.unwrap();
    }
    assert_eq!(number(&unaffected.mailbox).await, 2);
    one.unsubscribe(unaffected.id).await.unwrap();
    eventually("nothing is subscribed to any more", || {
        redis.raw(&["PUBSUB", "CHANNELS"]) == redis::Value::Array(Vec::new())
    })
    .await;
}
