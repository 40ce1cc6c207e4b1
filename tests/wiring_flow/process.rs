//! A process with flow wiring, and what its workers publish.

use std::sync::{Arc, Mutex};

use nvent_native::bus::{Bus, BusEvent, Listener};
use nvent_native::event::{AnyEvent, parse_any};
use nvent_native::wiring::Wiring;
use nvent_native::wiring::flow::{FlowOptions, FlowParts, FlowStore, FlowWiring};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::support::{Fault, Jobs, Ledger, announce};

pub(crate) const FLOWS: &str = r#"[{
    "id": "order", "entry": { "step": "check", "emits": ["order.checked"] },
    "steps": {
        "pay": { "subscribes": ["order.checked"], "emits": ["order.paid"], "queue": "money" },
        "pack": { "subscribes": ["order.checked"], "emits": ["order.packed"] },
        "ship": { "subscribes": ["order.packed", "order.paid"] }
    }
}]"#;

/// A process: its bus, its wiring, and the queue that it shares with others.
pub(crate) struct Process {
    pub(crate) bus: Arc<Bus>,
    pub(crate) wiring: FlowWiring,
}

impl Process {
    pub(crate) async fn start(
        bus: Arc<Bus>,
        store: Arc<dyn FlowStore>,
        jobs: &Arc<Jobs>,
        announces: bool,
        options: FlowOptions,
    ) -> Self {
        let parts = FlowParts {
            announce: announce(&bus),
            bus: bus.clone(),
            store,
            store_announces: announces,
            queue: Some(jobs.clone()),
        };
        let wiring = FlowWiring::new(parts, &options, Handle::current()).unwrap();
        wiring.set_flows(FLOWS).unwrap();
        wiring.start().await.unwrap();
        Self { bus, wiring }
    }

    pub(crate) async fn plain(ledger: &Ledger, jobs: &Arc<Jobs>) -> Self {
        let bus = Bus::new();
        let store = ledger.announcing(&bus);
        Self::start(bus, store, jobs, true, FlowOptions::default()).await
    }

    /// Starts one whose store fails as specified.
    pub(crate) async fn faulty(
        ledger: &Ledger,
        jobs: &Arc<Jobs>,
        faults: impl Fn(&str) -> Fault + Send + Sync + 'static,
    ) -> Self {
        let bus = Bus::new();
        let store = ledger.view(Some(announce(&bus)), faults);
        Self::start(bus, store, jobs, true, FlowOptions::default()).await
    }

    pub(crate) fn emit_event(&self, run: &str, kind: &str, step: Option<&str>, data: Value) {
        publish(&self.bus, event(run, kind, step, data));
    }

    pub(crate) fn start_run(&self, run: &str) {
        self.emit_event(run, "flow.start", None, json!({ "input": {} }));
    }

    /// Publishes what a worker publishes: the start of the step, its emits and its end.
    pub(crate) fn work(&self, run: &str, step: &str) {
        work(&self.bus, run, step);
    }
}

pub(crate) fn publish(bus: &Bus, event: Value) {
    bus.publish(&BusEvent { subject: None, event: parse_any(&event.to_string()).unwrap() });
}

pub(crate) fn event(run: &str, kind: &str, step: Option<&str>, data: Value) -> Value {
    json!({ "type": kind, "runId": run, "flowName": "order", "stepName": step, "data": data })
}

pub(crate) fn work(bus: &Bus, run: &str, step: &str) {
    let emits: &[&str] = match step {
        "check" => &["order.checked"],
        "pay" => &["order.paid"],
        "pack" => &["order.packed"],
        _ => &[],
    };
    publish(bus, event(run, "step.started", Some(step), json!({})));
    for name in emits {
        publish(bus, event(run, "emit", Some(step), json!({ "name": name, "payload": { "by": step } })));
    }
    publish(bus, event(run, "step.completed", Some(step), json!({ "result": null })));
}

/// Notes the persisted events that pass a bus, as `<id> <type>`.
#[derive(Default)]
pub(crate) struct Recorded(Mutex<Vec<String>>);

impl Recorded {
    pub(crate) fn on(bus: &Bus) -> Arc<Self> {
        let recorded = Arc::new(Self::default());
        bus.subscribe(recorded.clone());
        recorded
    }

    pub(crate) fn kinds(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|text| text.split_once(' ').unwrap().1.to_owned()).collect()
    }
}

impl Listener for Recorded {
    fn on_event(&self, event: &BusEvent) {
        if let AnyEvent::Stored(event) = &event.event {
            self.0.lock().unwrap().push(format!("{} {}", event.id(), event.kind()));
        }
    }
}

pub(crate) fn count(kinds: &[String], kind: &str) -> usize {
    kinds.iter().filter(|other| *other == kind).count()
}

pub(crate) fn status(ledger: &Ledger, run: &str) -> Value {
    ledger.entry("nq:flows:order", run).map_or(Value::Null, |(_, metadata)| metadata["status"].clone())
}
