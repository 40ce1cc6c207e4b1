//! The event bus. JavaScript handlers live in JavaScript; this is where native listeners hear what they publish, and
//! where they hear what native stores announce.

use std::sync::Arc;

use napi_derive::napi;

use crate::bus::{Bus, BusEvent, Listener};
use crate::event::{AnyEvent, parse_any};
use crate::fanout::{Mailbox, Overflow, next_id};
use crate::json::Json;
use crate::node::bridge::{Bridge, Shared, Source};
use crate::node::reply::guard;

/// Events from native threads that may wait for JavaScript handlers: a bound on memory, far beyond what a working
/// event loop leaves waiting.
const BUFFER: usize = 1_000_000;

/// Puts what it hears where JavaScript takes it.
struct ToJavaScript(Arc<Mailbox<Json>>);

impl Listener for ToJavaScript {
    fn on_event(&self, event: &BusEvent) {
        // What has no subject was published by JavaScript, which has told its own handlers.
        if event.subject.is_some()
            && let AnyEvent::Stored(event) = &event.event
        {
            _ = self.0.push(event.json().clone());
        }
    }
}

/// An event bus.
#[napi]
pub struct NativeBus {
    pub(super) bus: Arc<Bus>,
    bridge: Arc<Shared>,
    /// The subscription of the JavaScript handlers and the id of its listener, while there are any.
    heard: Option<(u64, u64, Arc<Mailbox<Json>>)>,
}

#[napi]
impl NativeBus {
    /// A bus without listeners.
    #[napi(constructor)]
    pub fn new(bridge: &Bridge) -> Self {
        Self { bus: Bus::new(), bridge: bridge.shared.clone(), heard: None }
    }

    /// Tells native listeners about an event from JavaScript.
    #[napi]
    pub fn publish(&self, event: String) -> napi::Result<()> {
        guard(|| {
            let event = parse_any(&event)?;
            self.bus.publish(&BusEvent { subject: None, event });
            Ok(())
        })
    }

    /// Whether any native listener would hear it.
    #[napi]
    pub fn has_listeners(&self) -> bool {
        self.bus.len() > usize::from(self.heard.is_some())
    }

    /// Begins to deliver what native stores announce; returns the id of the subscription.
    #[napi]
    pub fn subscribe(&mut self) -> f64 {
        if let Some((id, ..)) = &self.heard {
            return *id as f64;
        }
        let id = next_id();
        let mailbox = Arc::new(Mailbox::new(BUFFER, Overflow::DropOldest));
        let wake = self.bridge.subscribe(id, "bus".into(), Source::Bus(mailbox.clone()), false);
        mailbox.add_wake(id, wake);
        let listener = self.bus.subscribe(Arc::new(ToJavaScript(mailbox.clone())));
        self.heard = Some((id, listener, mailbox));
        id as f64
    }

    /// Ends what `listen` began.
    #[napi]
    pub fn unsubscribe(&mut self) {
        if let Some((id, listener, mailbox)) = self.heard.take() {
            self.bus.unsubscribe(listener);
            self.bridge.unsubscribe(id);
            mailbox.close();
        }
    }
}

impl Drop for NativeBus {
    fn drop(&mut self) {
        self.unsubscribe();
    }
}
