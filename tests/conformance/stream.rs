//! What every stream does. Topics that begin with `kept:` are retained, the others need not be.

use std::time::Duration;

use nvent_native::error::Code;
use nvent_native::fanout::{Delivery, Gap, GapReason, Overflow};
use nvent_native::op::Op;
use nvent_native::stream::{Incoming, Message, StreamBackend, SubscribeSpec, Subscription, TypeFilter};
use serde_json::json;

use super::{TestBackend, item, until, value, within_deadline};

type Stream = TestBackend<dyn StreamBackend>;

/// The contract over a backend.
#[macro_export]
macro_rules! stream_conformance {
    ($backend:ident, $fresh:path) => {
        mod $backend {
            $crate::behaviours! { stream, $fresh:
                any_object_arrives_whole_with_its_topic
                every_subscriber_has_the_order_of_the_publishes
                a_topic_is_exact_and_a_pattern_is_a_glob
                nothing_published_before_the_subscription_is_delivered
                a_publish_needs_no_subscriber
                a_filter_is_matched_against_the_type
                own_messages_are_left_out_on_request
                the_oldest_are_dropped_first_and_the_gap_is_reported_before_what_follows
                the_newest_are_dropped_on_request
                a_gap_passes_every_filter
                blocking_loses_nothing_with_a_publisher_that_waits
                the_beginning_and_what_comes_meet_without_hole_or_duplicate
                each_event_goes_to_one_member_of_each_group
                a_group_goes_on_with_the_members_that_are_left
                a_group_cannot_leave_out_its_own
                an_ended_subscription_is_closed_and_the_others_go_on
                topics_are_listed_once_and_their_subscribers_counted
                after_closing_every_call_says_so
            }
        }
    };
}

fn message(topic: &str, n: usize) -> Message {
    Message::parse(topic, &json!({"type": format!("t{}", n % 3), "data": n}).to_string()).unwrap()
}

async fn publish(stream: &Stream, topic: &str, numbers: impl IntoIterator<Item = usize>) {
    for n in numbers {
        stream.publish(message(topic, n)).await.unwrap();
    }
}

async fn subscribe(stream: &Stream, topic: &str, spec: SubscribeSpec) -> Subscription {
    stream.subscribe(topic, spec, None).await.unwrap()
}

async fn plain(stream: &Stream, topic: &str) -> Subscription {
    subscribe(stream, topic, SubscribeSpec::default()).await
}

fn in_group(name: &str) -> SubscribeSpec {
    SubscribeSpec { group: Some(name.into()), ..Default::default() }
}

fn small(buffer: usize, overflow: Overflow) -> SubscribeSpec {
    SubscribeSpec { buffer, overflow, ..Default::default() }
}

fn handled(incoming: Incoming) -> Message {
    if let Some(ack) = incoming.ack {
        (ack.0)(true);
    }
    incoming.message
}

async fn next(subscription: &Subscription) -> Message {
    handled(item(&subscription.mailbox).await)
}

async fn number(subscription: &Subscription) -> usize {
    value(next(subscription).await.json())["data"].as_u64().unwrap() as usize
}

async fn numbers(subscription: &Subscription, count: usize) -> Vec<usize> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        numbers.push(number(subscription).await);
    }
    numbers
}

async fn gap(subscription: &Subscription) -> Gap {
    match within_deadline(subscription.mailbox.recv()).await {
        Some(Delivery::Gap(gap)) => gap,
        other => panic!("expected a gap, got {other:?}"),
    }
}

/// Returns a subscriber that is live beyond doubt, as one message got to it, and then was not read while these came.
async fn overflown(
    stream: &Stream,
    spec: SubscribeSpec,
    numbers: std::ops::Range<usize>,
    dropped: u64,
) -> Subscription {
    let subscription = subscribe(stream, "t", spec).await;
    publish(stream, "t", [0]).await;
    assert_eq!(number(&subscription).await, 0);
    publish(stream, "t", numbers).await;
    until(async || subscription.mailbox.dropped() == dropped).await;
    subscription
}

fn overflow(missed: u64) -> Gap {
    Gap { reason: GapReason::Overflow, missed: Some(missed) }
}

async fn refused<T: Send + 'static>(op: Op<T>) -> Code {
    op.await.err().expect("a refusal").code()
}

pub(crate) async fn any_object_arrives_whole_with_its_topic(stream: Stream) {
    let (exact, pattern) = (plain(&stream, "a:b").await, plain(&stream, "a:*").await);
    for text in [
        r#"{"type":"t","data":{"event":{"id":"1-0","deep":[null,{}]}},"timestamp":5}"#,
        r#"{"id":"x","metadata":{"n":9007199254740991}}"#,
        r#"{"type":7,"~nvent":"mine","dotted.key":""}"#,
        "{}",
        r#"{"é":"𝄞\u0000\"\\"}"#,
    ] {
        stream.publish(Message::parse("a:b", text).unwrap()).await.unwrap();
        for subscription in [&exact, &pattern] {
            let message = next(subscription).await;
            assert_eq!((&**message.topic(), &**message.json()), ("a:b", text));
        }
    }
}

pub(crate) async fn every_subscriber_has_the_order_of_the_publishes(stream: Stream) {
    let subscriptions =
        [plain(&stream, "t").await, plain(&stream, "t").await, plain(&stream, "t*").await, plain(&stream, "*").await];
    let publishes: Vec<_> = (0..1_000).map(|n| stream.publish(message("t", n))).collect();
    for publish in publishes {
        publish.await.unwrap();
    }
    for subscription in &subscriptions {
        assert!(numbers(subscription, 1_000).await.into_iter().eq(0..1_000));
    }
}

pub(crate) async fn a_topic_is_exact_and_a_pattern_is_a_glob(stream: Stream) {
    let topics =
        ["store-sync:append:nq:flow:abc", "store-sync:append:", "flow:event:1", "flow:event:x", "[flow]", "FLOW"];
    let cases: [(&str, &[usize]); 9] = [
        ("store-sync:append:*", &[0, 1]),
        ("flow:event:1", &[2]),
        ("flow:event:?", &[2, 3]),
        ("flow:event:[0-9]", &[2]),
        ("flow:event:[^0-9]", &[3]),
        ("\\[flow\\]", &[4]),
        ("[f]low*", &[2, 3]),
        ("*", &[0, 1, 2, 3, 4, 5]),
        ("FLOW", &[5]),
    ];
    let mut subscriptions = Vec::new();
    for (pattern, _) in cases {
        subscriptions.push(plain(&stream, pattern).await);
    }
    // Twice: what a subscriber should not have had the first time would be in the way the second.
    for _ in 0..2 {
        for (n, topic) in topics.into_iter().enumerate() {
            publish(&stream, topic, [n]).await;
        }
    }
    for (subscription, (pattern, expected)) in subscriptions.iter().zip(cases) {
        let got = numbers(subscription, expected.len() * 2).await;
        assert_eq!(got, [expected, expected].concat(), "{pattern}");
    }
}

pub(crate) async fn nothing_published_before_the_subscription_is_delivered(stream: Stream) {
    publish(&stream, "kept:t", 0..3).await;
    let (exact, pattern) = (plain(&stream, "kept:t").await, plain(&stream, "kept:*").await);
    publish(&stream, "kept:t", [3]).await;
    assert_eq!((number(&exact).await, number(&pattern).await), (3, 3));
}

pub(crate) async fn a_publish_needs_no_subscriber(stream: Stream) {
    publish(&stream, "t", 0..3).await;
    let stats = stream.stats();
    assert_eq!(stats.iter().find(|(name, _)| *name == "published").map(|(_, n)| *n), Some(3.0));
}

pub(crate) async fn a_filter_is_matched_against_the_type(stream: Stream) {
    let regex = |source, flags| TypeFilter::regex(source, flags).unwrap();
    let cases = [
        (TypeFilter::glob("flow.*"), vec!["flow.start", "flow.completed"]),
        (TypeFilter::glob("emit"), vec!["emit"]),
        (regex("compl", ""), vec!["step.completed", "flow.completed"]),
        (regex("^FLOW", "i"), vec!["flow.start", "flow.completed"]),
    ];
    let mut subscriptions = Vec::new();
    for (filter, _) in &cases {
        let spec = SubscribeSpec { filter: Some(filter.clone()), ..Default::default() };
        subscriptions.push(subscribe(&stream, "t", spec).await);
    }
    for _ in 0..2 {
        // One without a type matches no filter.
        stream.publish(Message::parse("t", r#"{"data":0}"#).unwrap()).await.unwrap();
        for kind in ["flow.start", "emit", "step.completed", "flow.completed"] {
            stream.publish(Message::parse("t", &json!({"type": kind}).to_string()).unwrap()).await.unwrap();
        }
    }
    for (subscription, (filter, expected)) in subscriptions.iter().zip(cases) {
        for kind in [&expected[..], &expected].concat() {
            assert_eq!(next(subscription).await.kind(), Some(kind), "{filter:?}");
        }
    }
}

pub(crate) async fn own_messages_are_left_out_on_request(stream: Stream) {
    for topic in ["t", "kept:t"] {
        let ignoring = subscribe(&stream, topic, SubscribeSpec { ignore_own: true, ..Default::default() }).await;
        let all = plain(&stream, topic).await;
        publish(&stream, topic, 0..5).await;
        assert!(numbers(&all, 5).await.into_iter().eq(0..5));
        assert!(ignoring.mailbox.is_empty());
    }
}

pub(crate) async fn the_oldest_are_dropped_first_and_the_gap_is_reported_before_what_follows(stream: Stream) {
    let subscription = overflown(&stream, small(3, Overflow::DropOldest), 1..11, 7).await;
    assert_eq!(gap(&subscription).await, overflow(7));
    assert_eq!(numbers(&subscription, 3).await, [8, 9, 10]);
    publish(&stream, "t", [11]).await;
    assert_eq!(number(&subscription).await, 11);
}

pub(crate) async fn the_newest_are_dropped_on_request(stream: Stream) {
    let subscription = overflown(&stream, small(3, Overflow::DropNewest), 1..11, 7).await;
    assert_eq!(gap(&subscription).await, overflow(7));
    assert_eq!(numbers(&subscription, 3).await, [1, 2, 3]);
    publish(&stream, "t", [11]).await;
    assert_eq!(number(&subscription).await, 11);
}

pub(crate) async fn a_gap_passes_every_filter(stream: Stream) {
    // Of nine messages three are of the type, and one of those has room.
    let spec = SubscribeSpec { filter: Some(TypeFilter::glob("t0")), ..small(1, Overflow::DropOldest) };
    let subscription = overflown(&stream, spec, 1..10, 2).await;
    assert_eq!(gap(&subscription).await, overflow(2));
    assert_eq!(number(&subscription).await, 9);
}

pub(crate) async fn blocking_loses_nothing_with_a_publisher_that_waits(stream: Stream) {
    let subscription = subscribe(&stream, "t", small(2, Overflow::Block)).await;
    let (_, got) = tokio::join!(publish(&stream, "t", 0..300), numbers(&subscription, 300));
    assert!(got.into_iter().eq(0..300));
    assert_eq!(subscription.mailbox.dropped(), 0);
}

pub(crate) async fn the_beginning_and_what_comes_meet_without_hole_or_duplicate(stream: Stream) {
    publish(&stream, "kept:a", 0..600).await;
    let spec = SubscribeSpec { from_beginning: true, ..Default::default() };
    let filtered = SubscribeSpec { filter: Some(TypeFilter::glob("t1")), ..spec.clone() };
    let subscribed = async {
        let exact = subscribe(&stream, "kept:a", spec.clone()).await;
        let pattern = subscribe(&stream, "kept:*", spec).await;
        (exact, pattern, subscribe(&stream, "kept:a", filtered).await)
    };
    let (_, (exact, pattern, filtered)) = tokio::join!(publish(&stream, "kept:a", 600..1_200), subscribed);
    assert!(numbers(&exact, 1_200).await.into_iter().eq(0..1_200));
    assert!(numbers(&pattern, 1_200).await.into_iter().eq(0..1_200));
    assert!(numbers(&filtered, 400).await.into_iter().eq((0..1_200).filter(|n| n % 3 == 1)));
}

pub(crate) async fn each_event_goes_to_one_member_of_each_group(stream: Stream) {
    let members =
        [subscribe(&stream, "kept:jobs", in_group("g")).await, subscribe(&stream, "kept:jobs", in_group("g")).await];
    let other = subscribe(&stream, "kept:jobs", in_group("other")).await;
    let outside = plain(&stream, "kept:jobs").await;
    publish(&stream, "kept:jobs", 0..100).await;
    let mut got = Vec::new();
    while got.len() < 100 {
        got.push(tokio::select! {
            n = number(&members[0]) => n,
            n = number(&members[1]) => n,
        });
    }
    got.sort_unstable();
    assert!(got.into_iter().eq(0..100));
    assert!(members.iter().all(|member| member.mailbox.is_empty()));
    assert!(numbers(&other, 100).await.into_iter().eq(0..100));
    assert!(numbers(&outside, 100).await.into_iter().eq(0..100));
}

pub(crate) async fn a_group_goes_on_with_the_members_that_are_left(stream: Stream) {
    let leaving = subscribe(&stream, "kept:jobs", in_group("g")).await;
    let staying = subscribe(&stream, "kept:jobs", in_group("g")).await;
    stream.unsubscribe(leaving.id).await.unwrap();
    publish(&stream, "kept:jobs", 0..10).await;
    assert!(numbers(&staying, 10).await.into_iter().eq(0..10));
    assert_eq!(stream.subscription_count("kept:jobs"), 1);
}

pub(crate) async fn a_group_cannot_leave_out_its_own(stream: Stream) {
    let both = SubscribeSpec { ignore_own: true, ..in_group("g") };
    assert_eq!(refused(stream.subscribe("kept:jobs", both, None)).await, Code::Invalid);
    assert!(stream.topics().is_empty());
}

pub(crate) async fn an_ended_subscription_is_closed_and_the_others_go_on(stream: Stream) {
    let (ended, twin, pattern) = (plain(&stream, "t").await, plain(&stream, "t").await, plain(&stream, "t*").await);
    publish(&stream, "t", [0]).await;
    until(async || !ended.mailbox.is_empty()).await;
    stream.unsubscribe(ended.id).await.unwrap();
    stream.unsubscribe(ended.id).await.unwrap();
    publish(&stream, "t", [1]).await;
    assert!(within_deadline(ended.mailbox.recv()).await.is_none(), "what waited is gone");
    for subscription in [&twin, &pattern] {
        assert_eq!(numbers(subscription, 2).await, [0, 1]);
    }
}

pub(crate) async fn topics_are_listed_once_and_their_subscribers_counted(stream: Stream) {
    let first = plain(&stream, "a").await;
    plain(&stream, "a").await;
    plain(&stream, "a*").await;
    assert!(stream.topics().iter().map(|topic| &**topic).eq(["a", "a*"]));
    assert_eq!(["a", "a*", "b"].map(|topic| stream.subscription_count(topic)), [2, 1, 0]);
    stream.unsubscribe(first.id).await.unwrap();
    assert_eq!(stream.subscription_count("a"), 1);
}

pub(crate) async fn after_closing_every_call_says_so(stream: Stream) {
    let (alone, member) = (plain(&stream, "t").await, subscribe(&stream, "kept:t", in_group("g")).await);
    stream.open().await.unwrap();
    assert!(stream.health().await.unwrap().ok);
    let last = stream.publish(message("t", 1));
    let (once, twice) = (stream.close(), stream.close());
    assert_eq!(refused(stream.publish(message("t", 2))).await, Code::Closed);
    for closed in [once, twice, stream.close()] {
        tokio::time::timeout(Duration::from_secs(20), closed.into_future()).await.unwrap().unwrap();
    }
    last.await.unwrap();
    assert!(
        within_deadline(alone.mailbox.recv()).await.is_none() && within_deadline(member.mailbox.recv()).await.is_none()
    );
    assert_eq!(refused(stream.open()).await, Code::Closed);
    assert_eq!(refused(stream.publish(message("kept:t", 1))).await, Code::Closed);
    assert_eq!(refused(stream.subscribe("t", SubscribeSpec::default(), None)).await, Code::Closed);
    stream.unsubscribe(alone.id).await.unwrap();
    assert!(!stream.health().await.unwrap().ok);
    assert!(stream.topics().is_empty());
    assert_eq!(stream.subscription_count("t"), 0);
}
