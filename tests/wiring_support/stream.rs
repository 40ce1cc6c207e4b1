//! A stream at the edge of the system, and events on a bus.

use std::sync::{Arc, Mutex};

use nvent_native::bus::{Bus, BusEvent};
use nvent_native::event::{Event, parse_any};
use nvent_native::op::Op;
use nvent_native::stream::Message;
use nvent_native::wiring::Publisher;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore};

/// What a [`Recorder`] does with a publish: end at once, or later.
pub(crate) type Answer = Box<dyn Fn(&Message, usize) -> Op<()> + Send + Sync>;

/// A stream at the edge of the system: it notes what arrives, and answers as the test says.
pub(crate) struct Recorder {
    arrived: Arc<Mutex<Vec<(String, Value)>>>,
    calls: Mutex<usize>,
    answer: Answer,
    keeps_order: bool,
    called: Notify,
}

impl Recorder {
    pub(crate) fn new(
        keeps_order: bool,
        answer: impl Fn(&Message, usize) -> Op<()> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            arrived: Arc::default(),
            calls: Mutex::new(0),
            answer: Box::new(answer),
            keeps_order,
            called: Notify::new(),
        })
    }

    /// Returns one that accepts a publish for each permit of the semaphore, which has none at first.
    pub(crate) fn gated() -> (Arc<Self>, Arc<Semaphore>) {
        let gate = Arc::new(Semaphore::new(0));
        let recorder = Self::new(true, {
            let gate = gate.clone();
            move |_, _| {
                let gate = gate.clone();
                Op::pending(async move {
                    gate.acquire().await.unwrap().forget();
                    Ok(())
                })
            }
        });
        (recorder, gate)
    }

    /// Accepts every message at once.
    pub(crate) fn accepting() -> Arc<Self> {
        Self::new(true, |_, _| Op::ok(()))
    }

    /// Returns what arrived, in order: topic and message.
    pub(crate) fn arrived(&self) -> Vec<(String, Value)> {
        self.arrived.lock().unwrap().clone()
    }

    /// Returns the messages that arrived on a topic.
    pub(crate) fn on(&self, topic: &str) -> Vec<Value> {
        self.arrived().into_iter().filter(|(other, _)| other == topic).map(|(_, message)| message).collect()
    }

    /// Returns the ids of the events that arrived on a topic.
    pub(crate) fn ids_on(&self, topic: &str) -> Vec<String> {
        let id = |message: &Value| message["data"]["event"]["id"].as_str().unwrap_or("gap").to_owned();
        self.on(topic).iter().map(id).collect()
    }

    /// Waits until it has been called so often.
    pub(crate) async fn calls(&self, n: usize) {
        while *self.calls.lock().unwrap() < n {
            self.called.notified().await;
        }
    }
}

impl Publisher for Recorder {
    fn publish(&self, message: Message) -> Op<()> {
        let call = {
            let mut calls = self.calls.lock().unwrap();
            *calls += 1;
            *calls
        };
        self.called.notify_one();
        let arrived = self.arrived.clone();
        let entry = (message.topic().to_string(), serde_json::from_str(message.json()).unwrap());
        match (self.answer)(&message, call) {
            Op::Ready(result) => Op::Ready(result.map(|()| arrived.lock().unwrap().push(entry))),
            op => Op::pending(async move {
                op.await?;
                arrived.lock().unwrap().push(entry);
                Ok(())
            }),
        }
    }

    fn keeps_order(&self) -> bool {
        self.keeps_order
    }
}

/// Publishes a stored event on the bus, as a store announces it.
pub(crate) fn announce(bus: &Bus, subject: &str, record: Value) {
    bus.announce(&subject.into(), &Event::parse(&record.to_string()).unwrap());
}

/// Publishes any event on the bus, as it comes over a JavaScript bus.
pub(crate) fn publish(bus: &Bus, event: Value) {
    bus.publish(&BusEvent { subject: None, event: parse_any(&event.to_string()).unwrap() });
}
