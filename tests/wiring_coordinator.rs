//! The stream coordinator: what goes where, in which order, and what a bad stream can and cannot do.

#[path = "wiring_support/stream.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use nvent_native::bus::Bus;
use nvent_native::error::{Code, Error};
use nvent_native::op::Op;
use nvent_native::stream::{MemoryStream, StreamBackend, SubscribeSpec};
use nvent_native::time::ManualClock;
use nvent_native::wiring::Wiring;
use nvent_native::wiring::channels::{ChannelDefinition, ChannelOptions};
use nvent_native::wiring::coordinator::{CoordinatorOptions, MAX_ATTEMPTS, StreamCoordinator};
use serde_json::{Value, json};
use support::{Recorder, announce, publish};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;

fn options() -> CoordinatorOptions {
    CoordinatorOptions::new(ChannelOptions::new("me"))
}

fn build(bus: &Arc<Bus>, stream: &Arc<Recorder>, options: CoordinatorOptions) -> Result<StreamCoordinator, Error> {
    StreamCoordinator::new(bus.clone(), stream.clone(), options, Handle::current(), ManualClock::at(42))
}

async fn started(bus: &Arc<Bus>, stream: &Arc<Recorder>, options: CoordinatorOptions) -> StreamCoordinator {
    let coordinator = build(bus, stream, options).unwrap();
    coordinator.start().await.unwrap();
    coordinator
}

fn event(id: u64, kind: &str) -> Value {
    json!({ "id": format!("{id}-0"), "ts": id, "type": kind, "runId": "r1", "flowName": "order" })
}

fn routed(coordinator: &StreamCoordinator) -> Vec<(String, u64)> {
    coordinator.stats().routed.into_iter().map(|(name, n)| (name.to_string(), n)).collect()
}

fn row(name: &str, types: &[&str], topic: &str, kind: Option<&str>) -> ChannelDefinition {
    let types = types.iter().map(|kind| (*kind).to_owned()).collect();
    ChannelDefinition { name: name.into(), types, topic: topic.into(), kind: kind.map(str::to_owned) }
}

#[tokio::test]
async fn each_channel_has_its_topics_types_and_data() {
    let (bus, stream) = (Bus::new(), Recorder::accepting());
    let mut options = options();
    options.channels.client_messages = true;
    let coordinator = started(&bus, &stream, options).await;
    let event = event(7, "flow.completed");
    announce(&bus, "nq:flow:r1", event.clone());
    coordinator.idle().await;
    let message = |kind: &str, data: Value| json!({ "type": kind, "data": data, "timestamp": 42, "metadata": { "instanceId": "me" } });
    let expected = [
        ("store-sync:append:nq:flow:r1", message("store.append", json!({ "subject": "nq:flow:r1", "event": event }))),
        ("flow:event:r1", message("flow.completed", json!({ "runId": "r1", "flowName": "order", "event": event }))),
        (
            "flow:trigger:order",
            message(
                "flow.trigger",
                json!({ "flowName": "order", "runId": "r1", "cause": "flow.completed", "event": event }),
            ),
        ),
        ("client:flow:r1", message("flow.event", json!({ "event": event }))),
        (
            "client:ui:flow:order",
            message("ui.flow", json!({ "flowName": "order", "runId": "r1", "status": "completed", "ts": 7 })),
        ),
    ];
    assert_eq!(stream.arrived(), expected.map(|(topic, message)| (topic.to_owned(), message)));
    assert_eq!(routed(&coordinator), [("store-sync".into(), 1), ("flow".into(), 2), ("client".into(), 2)]);
}

#[tokio::test]
async fn by_default_steps_stay_off_the_flow_channel_and_clients_receive_nothing() {
    let (bus, stream) = (Bus::new(), Recorder::accepting());
    let coordinator = started(&bus, &stream, options()).await;
    announce(&bus, "nq:flow:r1", event(1, "step.completed"));
    announce(&bus, "nq:flow:r1", event(2, "emit"));
    coordinator.idle().await;
    let topics: Vec<String> = stream.arrived().into_iter().map(|(topic, _)| topic).collect();
    let append = "store-sync:append:nq:flow:r1";
    assert_eq!(topics, [append, append, "flow:event:r1", "flow:trigger:order"]);
}

#[tokio::test]
async fn only_persisted_events_are_published() {
    let (bus, stream) = (Bus::new(), Recorder::accepting());
    let coordinator = started(&bus, &stream, options()).await;
    publish(&bus, json!({ "type": "flow.start", "runId": "r1" }));
    publish(&bus, json!({ "type": "flow.start", "runId": "r1", "id": "1-0" }));
    announce(&bus, "nq:flow:r1", event(2, "flow.start"));
    coordinator.idle().await;
    assert_eq!(stream.ids_on("store-sync:append:nq:flow:r1"), ["2-0"]);
    assert_eq!(stream.arrived().len(), 2);
}

#[tokio::test]
async fn the_run_comes_from_the_subject_where_the_event_has_none_and_the_other_way_round() {
    let (bus, stream) = (Bus::new(), Recorder::accepting());
    let mut options = options();
    options.channels.run_subject = "app:flow:run:{runId}".into();
    let coordinator = started(&bus, &stream, options).await;
    announce(&bus, "nq:flow:abc", json!({ "id": "1-0", "ts": 1, "type": "flow.start" }));
    publish(&bus, event(2, "flow.start"));
    publish(&bus, json!({ "id": "3-0", "ts": 3, "type": "noted" }));
    coordinator.idle().await;
    assert_eq!(stream.on("flow:event:abc")[0]["data"]["runId"], "abc");
    assert_eq!(stream.on("store-sync:append:app:flow:run:r1")[0]["data"]["subject"], "app:flow:run:r1");
    assert_eq!(coordinator.stats().skipped, 1, "an event without subject and run has no store-sync topic");
}

#[tokio::test]
async fn a_row_of_ones_own_is_a_channel_like_any_other() {
    let (bus, stream) = (Bus::new(), Recorder::accepting());
    let mut options = options();
    options.channels.channels = vec![
        row("webhook", &["flow.completed"], "webhook:{flowName}", Some("webhook.trigger")),
        row("audit", &["order.*"], "audit:{tenant}:{n}:{subject}", None),
    ];
    let coordinator = started(&bus, &stream, options).await;
    let completed = event(1, "flow.completed");
    announce(&bus, "nq:flow:r1", completed.clone());
    let paid = json!({ "id": "2-0", "ts": 2, "type": "order.paid", "tenant": "a\"b", "n": 5 });
    announce(&bus, "orders", paid.clone());
    announce(&bus, "orders", json!({ "id": "3-0", "ts": 3, "type": "order.paid", "tenant": { "id": 1 }, "n": 5 }));
    coordinator.idle().await;
    assert_eq!(
        stream.on("webhook:order"),
        [
            json!({ "type": "webhook.trigger", "data": { "event": completed }, "timestamp": 42, "metadata": { "instanceId": "me" } })
        ]
    );
    assert_eq!(stream.on("audit:a\"b:5:orders")[0]["type"], "order.paid");
    assert_eq!(stream.on("audit:a\"b:5:orders")[0]["data"], json!({ "event": paid }));
    let stats = routed(&coordinator);
    assert_eq!(stats[2..], [("webhook".to_owned(), 1), ("audit".to_owned(), 1)]);
    assert_eq!(coordinator.stats().skipped, 1, "an object is no part of a topic");
}

#[tokio::test]
async fn rows_that_cannot_work_are_refused_by_name() {
    let (bus, stream) = (Bus::new(), Recorder::accepting());
    for (rows, expected) in [
        (vec![row("flow", &["*"], "x", None)], "channels[0].name"),
        (vec![row("a", &["*"], "x", None), row("a", &["*"], "y", None)], "channels[1].name"),
        (vec![row("", &["*"], "x", None)], "a non-empty name other than the built-in store-sync, flow, client"),
        (vec![row("a", &[], "x", None)], "channels[0].types"),
        (vec![row("a", &["b", ""], "x", None)], "channels[0].types[1]"),
        (vec![row("a", &["*"], "x:{run", None)], "channels[0].topic"),
        (vec![row("a", &["*"], "x", Some(""))], "channels[0].type"),
    ] {
        let mut options = options();
        options.channels.channels = rows;
        let error = build(&bus, &stream, options).err().unwrap();
        assert_eq!(error.code(), Code::Invalid);
        assert!(error.message().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn the_status_of_a_run_is_published_when_it_changes() {
    let (bus, stream) = (Bus::new(), Recorder::accepting());
    let mut options = options();
    options.channels.client_messages = true;
    let coordinator = started(&bus, &stream, options).await;
    let kinds = [
        "flow.start",
        "flow.start",
        "step.started",
        "flow.stalled",
        "flow.stalled",
        "step.started",
        "emit",
        "flow.cancel",
        "flow.completed",
        "step.completed",
    ];
    for (i, kind) in kinds.iter().enumerate() {
        announce(&bus, "nq:flow:r1", event(i as u64, kind));
    }
    coordinator.idle().await;
    let published = stream.on("client:ui:flow:order");
    let published: Vec<_> = published.iter().map(|message| message["data"]["status"].as_str().unwrap()).collect();
    assert_eq!(published, ["running", "stalled", "running", "canceled"]);
}

#[tokio::test(start_paused = true)]
async fn events_of_a_subject_arrive_in_order_on_a_stream_that_does_not_keep_it() {
    let stream = Recorder::new(false, |_, call| {
        Op::pending(async move {
            tokio::time::sleep(Duration::from_millis(call as u64 * 7919 % 50)).await;
            Ok(())
        })
    });
    let bus = Bus::new();
    let coordinator = started(&bus, &stream, options()).await;
    for id in 0..60 {
        for run in ["a", "b", "c", "d", "e"] {
            announce(&bus, run, json!({ "id": format!("{id}-0"), "ts": 1, "type": "flow.start" }));
        }
    }
    coordinator.idle().await;
    let expected: Vec<String> = (0..60).map(|id| format!("{id}-0")).collect();
    for run in ["a", "b", "c", "d", "e"] {
        assert_eq!(stream.ids_on(&format!("store-sync:append:{run}")), expected);
        assert_eq!(stream.ids_on(&format!("flow:event:{run}")), expected);
    }
    let first = |topic: &str| stream.arrived().iter().position(|(other, _)| other == topic).unwrap();
    assert!(first("store-sync:append:b") < 60, "subjects do not wait for each other");
}

#[tokio::test]
async fn a_hanging_stream_holds_up_its_subject_only_and_nobody_who_publishes() {
    let stream = Recorder::new(true, |message, _| match message.topic().as_ref() {
        "store-sync:append:stuck" => Op::pending(std::future::pending()),
        _ => Op::ok(()),
    });
    let bus = Bus::new();
    let mut options = options();
    options.max_lag = 300;
    options.drain_timeout = Duration::ZERO;
    let coordinator = started(&bus, &stream, options).await;
    announce(&bus, "stuck", event(1, "flow.start"));
    stream.calls(1).await;
    for id in 0..200 {
        announce(&bus, "free", event(id, "noted"));
    }
    stream.calls(202).await;
    assert_eq!(stream.on("store-sync:append:free").len(), 200);
    assert_eq!(coordinator.stats().lag, 1);
    coordinator.stop().await.unwrap();
    assert_eq!((coordinator.stats().lag, coordinator.stats().dropped), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_never_answers_has_failed_in_the_end_and_holds_up_nothing_more() {
    let stream = Recorder::new(true, |_, call| match call {
        1 => Op::pending(std::future::pending()),
        _ => Op::ok(()),
    });
    let bus = Bus::new();
    let mut options = options();
    options.channels.flow_events = false;
    let coordinator = started(&bus, &stream, options).await;
    (1..=3).for_each(|id| announce(&bus, "a", event(id, "noted")));
    tokio::time::timeout(Duration::from_secs(60), coordinator.idle()).await.expect("it is given up");
    // It may have arrived: it is not sent again, and its loss is reported.
    assert_eq!((coordinator.stats().failed, coordinator.stats().retries), (1, 0));
    announce(&bus, "a", event(4, "noted"));
    coordinator.idle().await;
    assert_eq!(stream.ids_on("store-sync:append:a"), ["2-0", "3-0", "gap", "4-0"]);
    coordinator.stop().await.unwrap();
}

#[tokio::test]
async fn events_beyond_the_limit_are_counted_and_reported_as_gaps_before_the_next_message() {
    let (stream, gate) = Recorder::gated();
    let bus = Bus::new();
    let mut options = options();
    options.channels.flow_events = false;
    options.max_lag = 4;
    let coordinator = started(&bus, &stream, options).await;
    announce(&bus, "a", event(0, "noted"));
    stream.calls(1).await;
    // The first is under way; four more wait, whether taken or not; the others may find room or not.
    for id in 1..=400 {
        announce(&bus, "a", event(id, "noted"));
    }
    let dropped = coordinator.stats().dropped;
    assert!(dropped > 0 && coordinator.stats().lag <= 4 + 256, "{:?}", coordinator.stats());
    gate.add_permits(Semaphore::MAX_PERMITS / 2);
    coordinator.idle().await;
    announce(&bus, "a", event(401, "noted"));
    coordinator.idle().await;
    let arrived = stream.on("store-sync:append:a");
    let gaps: Vec<&Value> = arrived.iter().filter(|message| message["type"] == "stream.gap").collect();
    let missed: u64 = gaps.iter().map(|gap| gap["data"]["missed"].as_u64().unwrap()).sum();
    assert_eq!(missed, dropped);
    assert_eq!(gaps[0]["data"], json!({ "reason": "overflow", "topic": "store-sync:append:a", "missed": missed }));
    assert_eq!(arrived.len() as u64, 402 - dropped + gaps.len() as u64);
    let ids = stream.ids_on("store-sync:append:a");
    let last_gap = ids.iter().rposition(|id| id == "gap").unwrap();
    assert!(last_gap < ids.iter().position(|id| id == "401-0").unwrap(), "{ids:?}");
    assert_eq!(coordinator.stats().gaps as usize, gaps.len());
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_waited_out_and_the_order_is_kept() {
    // The first message fails alone, the ones that came meanwhile fail as one batch.
    let stream = Recorder::new(true, |_, call| match call {
        1..=3 | 5..=8 => Op::err(Error::unavailable("the broker is away")),
        _ => Op::ok(()),
    });
    let bus = Bus::new();
    let mut options = options();
    options.channels.flow_events = false;
    let coordinator = started(&bus, &stream, options).await;
    let before = Instant::now();
    (0..5).for_each(|id| announce(&bus, "a", event(id, "noted")));
    coordinator.idle().await;
    assert_eq!(stream.ids_on("store-sync:append:a"), ["0-0", "1-0", "2-0", "3-0", "4-0"]);
    let stats = coordinator.stats();
    assert_eq!((stats.failed, stats.retries), (0, 7));
    // Of 100 ms, then 200 and 400, and 100 of the second batch, each at least the half.
    assert!(before.elapsed() >= Duration::from_millis(400), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn messages_lost_in_an_outage_are_counted_and_reported() {
    let stream = Recorder::new(true, |_, call| match call <= MAX_ATTEMPTS as usize {
        true => Op::err(Error::unavailable("the broker is away")),
        false => Op::ok(()),
    });
    let bus = Bus::new();
    let mut options = options();
    options.channels.flow_events = false;
    let coordinator = started(&bus, &stream, options).await;
    announce(&bus, "a", event(1, "noted"));
    coordinator.idle().await;
    assert_eq!(coordinator.stats().failed, 1);
    announce(&bus, "a", event(2, "noted"));
    coordinator.idle().await;
    assert_eq!(stream.ids_on("store-sync:append:a"), ["gap", "2-0"]);
}

#[tokio::test]
async fn a_message_that_is_overtaken_is_not_tried_again() {
    let stream = Recorder::new(true, |message, _| match message.json().contains("\"id\":\"2-0\"") {
        true => Op::pending(async { Err(Error::unavailable("lost on the way")) }),
        false => Op::pending(async { Ok(()) }),
    });
    let bus = Bus::new();
    let mut options = options();
    options.channels.flow_events = false;
    let coordinator = build(&bus, &stream, options).unwrap();
    coordinator.start().await.unwrap();
    // The first goes alone; the others wait for it and make one batch.
    (1..=4).for_each(|id| announce(&bus, "a", event(id, "noted")));
    coordinator.idle().await;
    assert_eq!(stream.ids_on("store-sync:append:a"), ["1-0", "3-0", "4-0"]);
    assert_eq!((coordinator.stats().failed, coordinator.stats().retries), (1, 0));
}

#[tokio::test]
async fn a_message_that_the_stream_refuses_fails_alone() {
    let stream = Recorder::new(true, |message, _| match message.topic().starts_with("flow:event") {
        true => Op::err(Error::invalid("not this one")),
        false => Op::ok(()),
    });
    let bus = Bus::new();
    let coordinator = started(&bus, &stream, options()).await;
    announce(&bus, "nq:flow:r1", event(1, "flow.start"));
    announce(&bus, "nq:flow:r1", event(2, "flow.completed"));
    coordinator.idle().await;
    assert_eq!(stream.ids_on("store-sync:append:nq:flow:r1"), ["1-0", "2-0"]);
    assert_eq!((coordinator.stats().failed, routed(&coordinator)[1].1), (2, 1));
}

#[tokio::test]
async fn stop_delivers_what_was_received_before_it_and_nothing_after() {
    let (stream, gate) = Recorder::gated();
    let bus = Bus::new();
    let coordinator = started(&bus, &stream, options()).await;
    announce(&bus, "a", event(1, "noted"));
    announce(&bus, "a", event(2, "noted"));
    let (first, second) = (coordinator.stop(), coordinator.stop());
    announce(&bus, "a", event(3, "noted"));
    gate.add_permits(100);
    first.await.unwrap();
    assert_eq!(stream.ids_on("store-sync:append:a"), ["1-0", "2-0"]);
    second.await.unwrap();
    assert!(bus.is_empty());

    coordinator.start().await.unwrap();
    coordinator.start().await.unwrap();
    announce(&bus, "a", event(4, "noted"));
    coordinator.idle().await;
    assert_eq!(stream.ids_on("store-sync:append:a"), ["1-0", "2-0", "4-0"]);
    coordinator.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_start_receives_waits_for_what_was_received_before_the_stop() {
    let (stream, gate) = Recorder::gated();
    let bus = Bus::new();
    let mut options = options();
    options.channels.flow_events = false;
    let coordinator = started(&bus, &stream, options).await;
    announce(&bus, "a", event(1, "noted"));
    stream.calls(1).await;
    let stopping = coordinator.stop();
    coordinator.start().await.unwrap();
    announce(&bus, "a", event(2, "noted"));
    let second = tokio::time::timeout(Duration::from_secs(1), stream.calls(2));
    assert!(second.await.is_err(), "the first is under way");
    gate.add_permits(2);
    stopping.await.unwrap();
    coordinator.idle().await;
    assert_eq!(stream.ids_on("store-sync:append:a"), ["1-0", "2-0"]);
    let before = tokio::time::Instant::now();
    coordinator.stop().await.unwrap();
    assert!(before.elapsed().is_zero(), "there is nothing to wait for");
}

#[tokio::test]
async fn an_event_is_published_once_and_in_the_call_on_a_stream_that_takes_it_at_once() {
    let (bus, stream) = (Bus::new(), Arc::new(MemoryStream::new(None, ManualClock::at(42))) as Arc<dyn StreamBackend>);
    let (runtime, clock) = (Handle::current(), ManualClock::at(42));
    let coordinator = StreamCoordinator::new(bus.clone(), Arc::new(stream.clone()), options(), runtime, clock).unwrap();
    coordinator.start().await.unwrap();
    let subscription = stream.subscribe("store-sync:append:a", SubscribeSpec::default(), None).await.unwrap();
    for id in 1..=3 {
        announce(&bus, "a", event(id, "noted"));
        assert_eq!((subscription.mailbox.len() as u64, coordinator.stats().lag), (id, 0));
    }
    coordinator.stop().await.unwrap();
    assert_eq!(subscription.mailbox.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn stop_gives_up_on_a_hanging_stream_after_its_deadline() {
    let stream = Recorder::new(true, |_, _| Op::pending(std::future::pending()));
    let bus = Bus::new();
    let coordinator = started(&bus, &stream, options()).await;
    (0..10).for_each(|id| announce(&bus, "a", event(id, "noted")));
    let before = tokio::time::Instant::now();
    coordinator.stop().await.unwrap();
    assert_eq!(before.elapsed().as_secs(), 5);
    assert_eq!((coordinator.stats().dropped, coordinator.stats().lag), (10, 0));
}

#[tokio::test]
async fn a_coordinator_that_is_dropped_leaves_the_bus() {
    let (bus, stream) = (Bus::new(), Recorder::accepting());
    drop(started(&bus, &stream, options()).await);
    assert!(bus.is_empty());
}
