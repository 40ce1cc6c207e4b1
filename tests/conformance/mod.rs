//! The contracts of stores and streams, as tests over every backend.
//!
//! A backend is added with one line, `store_conformance!(name, fresh)` or `stream_conformance!(name, fresh)`, where
//! `fresh` is an async function that gives an empty backend of its own.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use nvent_native::event::{EventId, NewEvent};
use nvent_native::fanout::{Delivery, Mailbox};
use nvent_native::json::{Object, parse_object};
use nvent_native::time::ManualClock;
use serde_json::Value;

pub(crate) mod consumer;
pub(crate) mod feed;
#[path = "../support/name.rs"]
mod name;
pub(crate) mod store;
pub(crate) mod stream;

pub(crate) use name::name;

/// An empty backend, and what is known about it.
pub(crate) struct TestBackend<B: ?Sized> {
    pub(crate) backend: Arc<B>,
    pub(crate) capabilities: Capabilities,
    /// What must live as long as the backend: a directory, a server.
    pub(crate) _guard: Box<dyn Any + Send + Sync>,
}

/// What a backend may not be able to do.
#[derive(Default)]
pub(crate) struct Capabilities {
    /// Its clock, where it takes one. Otherwise tests let real time pass, and the clock cannot step back.
    pub(crate) clock: Option<Arc<ManualClock>>,
}

impl<B: ?Sized> std::ops::Deref for TestBackend<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.backend
    }
}

impl<B: ?Sized> TestBackend<B> {
    /// Lets time pass, if it does not pass by itself.
    fn pass(&self, ms: u64) {
        if let Some(clock) = &self.capabilities.clock {
            clock.advance(ms);
        }
    }
}

fn event(json: Value) -> NewEvent {
    NewEvent::parse(&json.to_string()).unwrap()
}

fn object(json: Value) -> Object {
    parse_object("object", &json.to_string()).unwrap()
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn id(text: &str) -> EventId {
    text.parse().unwrap()
}

/// Waits for what must happen; what does not happen fails the test instead of hanging it.
async fn within_deadline<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it happens within 60 s")
}

/// Waits until a condition holds.
async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    within_deadline(async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Waits for the next item of a mailbox, where no gap is expected.
async fn item<T: std::fmt::Debug>(mailbox: &Mailbox<T>) -> T {
    match within_deadline(mailbox.recv()).await {
        Some(Delivery::Item(item)) => item,
        other => panic!("expected an item, got {other:?}"),
    }
}

/// One test for each behaviour, named after it.
#[macro_export]
macro_rules! behaviours {
    ($suite:ident, $fresh:path: $($behaviour:ident)*) => {
        $(
            #[tokio::test]
            async fn $behaviour() {
                $crate::conformance::$suite::$behaviour($fresh().await).await;
            }
        )*
    };
}
