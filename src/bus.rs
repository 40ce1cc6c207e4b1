//! The event bus: tells listeners what happened, in order, without waiting for any of them.

use std::sync::{Arc, PoisonError, RwLock};

use crate::event::{AnyEvent, Event};
use crate::fanout::next_id;

/// What goes over a bus.
#[derive(Debug, Clone)]
pub struct BusEvent {
    /// Where it was stored; None where only the event is known (it came over a JavaScript bus, or is not stored).
    pub subject: Option<Arc<str>>,
    /// The event, stored or not.
    pub event: AnyEvent,
}

/// Hears every event of a bus. It is called on the publisher's thread, sometimes under a store's lock: it only takes
/// note (puts it into a queue of its own) and never blocks or calls back.
pub trait Listener: Send + Sync {
    /// An event was published.
    fn heard(&self, event: &BusEvent);
}

/// An in-process event bus.
#[derive(Default)]
pub struct Bus {
    listeners: RwLock<Vec<(u64, Arc<dyn Listener>)>>,
}

impl Bus {
    /// A bus without listeners.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Tells every listener, in order of registration.
    pub fn publish(&self, event: &BusEvent) {
        for (_, listener) in self.listeners.read().unwrap_or_else(PoisonError::into_inner).iter() {
            listener.heard(event);
        }
    }

    /// Tells every listener about a stored event.
    pub fn announce(&self, subject: &Arc<str>, event: &Event) {
        self.publish(&BusEvent { subject: Some(subject.clone()), event: AnyEvent::Stored(event.clone()) });
    }

    /// Adds a listener, to be removed by the returned id.
    pub fn listen(&self, listener: Arc<dyn Listener>) -> u64 {
        let id = next_id();
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).push((id, listener));
        id
    }

    /// Removes a listener. When it returns, the listener is not called any more.
    pub fn unlisten(&self, id: u64) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).retain(|(other, _)| *other != id);
    }

    /// How many listen.
    pub fn len(&self) -> usize {
        self.listeners.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether nobody listens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
