//! Store, bus, both wirings and stream as one: an event goes in at one end and comes out at the other.

#[path = "support/name.rs"]
mod name;

use std::sync::{Arc, Mutex};

use name::name;
use nvent_native::bus::{Bus, BusEvent};
use nvent_native::event::parse_any;
use nvent_native::fanout::Delivery;
use nvent_native::json::Json;
use nvent_native::op::Op;
use nvent_native::store::{Announce, EventQuery, MemoryStore, StoreBackend};
use nvent_native::stream::{MemoryStream, StreamBackend, SubscribeSpec, Subscription};
use nvent_native::time::system_clock;
use nvent_native::wiring::Wiring;
use nvent_native::wiring::channels::ChannelOptions;
use nvent_native::wiring::coordinator::{CoordinatorOptions, StreamCoordinator};
use nvent_native::wiring::flow::{BackendFlowStore, FlowOptions, FlowParts, FlowQueue, FlowWiring};
use serde_json::{Value, json};
use tokio::runtime::Handle;

/// A worker pool in miniature: it does each job at once, and says on the bus what a worker says.
struct Worker {
    bus: Arc<Bus>,
    done: Mutex<usize>,
}

impl Worker {
    fn work(&self, run: &str, step: &str, emits: Option<&str>) {
        let say = |kind: &str, data: Value| {
            let event = json!({ "type": kind, "runId": run, "flowName": "pair", "stepName": step, "data": data });
            self.bus.publish(&BusEvent { subject: None, event: parse_any(&event.to_string()).unwrap() });
        };
        say("step.started", json!({}));
        if let Some(name) = emits {
            say("emit", json!({ "name": name, "payload": { "from": step } }));
        }
        say("step.completed", json!({}));
    }
}

impl FlowQueue for Worker {
    fn enqueue(&self, _queue: &str, name: &str, data: Json, _opts: Json) -> Op<String> {
        let data: Value = serde_json::from_str(&data).unwrap();
        let run = data["flowId"].as_str().unwrap();
        *self.done.lock().unwrap() += 1;
        self.work(run, name, None);
        Op::ok(format!("{run}__{name}"))
    }
}

fn waiting(subscription: &Subscription) -> Vec<Value> {
    let mut out = Vec::new();
    subscription.mailbox.take(usize::MAX, &mut out);
    let messages = out.into_iter().map(|delivery| match delivery {
        Delivery::Item(incoming) => serde_json::from_str(incoming.message.json()).unwrap(),
        Delivery::Gap(gap) => panic!("{gap:?}"),
    });
    messages.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_channel_publishes_every_run_in_the_order_of_the_store() {
    const RUNS: usize = 200;
    let (bus, runtime) = (Bus::new(), Handle::current());
    let store: Arc<dyn StoreBackend> = Arc::new(MemoryStore::new(system_clock()));
    let stream: Arc<dyn StreamBackend> = Arc::new(MemoryStream::new(None, system_clock()));
    let announce: Announce = {
        let bus = bus.clone();
        Arc::new(move |subject, event| bus.announce(subject, event))
    };
    let worker = Arc::new(Worker { bus: bus.clone(), done: Mutex::default() });
    let parts = FlowParts {
        bus: bus.clone(),
        store: Arc::new(BackendFlowStore::new(store.clone(), Some(announce.clone()))),
        announce,
        store_announces: true,
        queue: Some(worker.clone()),
    };
    let flow = FlowWiring::new(parts, &FlowOptions::default(), runtime.clone()).unwrap();
    flow.set_flows(
        r#"[{"id":"pair","entry":{"step":"a","emits":["x"]},"steps":{"b":{"subscribes":["x"]},"c":{"subscribes":["step:b"]}}}]"#,
    )
    .unwrap();
    let mut options = CoordinatorOptions::new(ChannelOptions::new("here"));
    options.channels.client_messages = true;
    let coordinator =
        StreamCoordinator::new(bus.clone(), Arc::new(stream.clone()), options, runtime, system_clock()).unwrap();
    let subscribe = async |pattern: &str| {
        let spec = SubscribeSpec { buffer: 1_000_000, ..SubscribeSpec::default() };
        stream.subscribe(pattern, spec, None).await.unwrap()
    };
    let (sync, events, triggers, clients, statuses) = (
        subscribe("store-sync:append:*").await,
        subscribe("flow:event:*").await,
        subscribe("flow:trigger:pair").await,
        subscribe("client:flow:*").await,
        subscribe("client:ui:*").await,
    );
    coordinator.start().await.unwrap();
    flow.start().await.unwrap();

    for i in 0..RUNS {
        let run = format!("run-{i}");
        let start = json!({ "type": "flow.start", "runId": run, "flowName": "pair" });
        bus.publish(&BusEvent { subject: None, event: parse_any(&start.to_string()).unwrap() });
        worker.work(&run, "a", Some("x"));
    }
    flow.idle().await;
    coordinator.idle().await;

    let (sync, clients) = (waiting(&sync), waiting(&clients));
    for i in 0..RUNS {
        let subject = format!("nq:flow:run-{i}");
        let records = store.read(name(&subject), EventQuery::default()).await.unwrap();
        let records: Vec<Value> = records.iter().map(|record| serde_json::from_str(record).unwrap()).collect();
        assert_eq!(records.last().unwrap()["type"], "flow.completed");
        let synced = sync.iter().filter(|message| message["data"]["subject"] == *subject);
        assert_eq!(synced.map(|message| message["data"]["event"].clone()).collect::<Vec<_>>(), records);
        let run = format!("run-{i}");
        let published = clients.iter().map(|message| &message["data"]["event"]).filter(|event| event["runId"] == *run);
        assert_eq!(published.cloned().collect::<Vec<_>>(), records);
    }
    // flow.start, an emit and flow.completed of each run; the latter two are triggers as well.
    assert_eq!(
        (waiting(&events).len(), waiting(&triggers).len(), waiting(&statuses).len()),
        (3 * RUNS, 2 * RUNS, 2 * RUNS)
    );
    assert_eq!((*worker.done.lock().unwrap(), flow.stats().completed), (2 * RUNS, RUNS as u64));
    flow.stop().await.unwrap();
    coordinator.stop().await.unwrap();
    assert!(bus.is_empty());
}
