//! The event bus: passes events to listeners, in order, without waiting for any of them.

use std::sync::{Arc, RwLock};

use futures_util::future::join_all;

use crate::event::{AnyEvent, Event};
use crate::fanout::next_id;
use crate::op::{Completion, Op};
use crate::sync::{read, write};

/// An event on a bus.
#[derive(Debug, Clone)]
pub struct BusEvent {
    /// The subject it was stored under. None if only the event is known (it came over a JavaScript bus, or is not stored).
    pub subject: Option<Arc<str>>,
    /// The event, persisted or not.
    pub event: AnyEvent,
}

/// Receives every event of a bus.
///
/// It is called on the publisher's thread, sometimes under a store's lock: implementations only enqueue the event, and
/// neither block nor call back.
pub trait Listener: Send + Sync {
    /// Receives a published event.
    fn on_event(&self, event: &BusEvent);

    /// Returns whether it stores events that are not stored yet.
    fn stores_new_events(&self) -> bool {
        false
    }

    /// Returns a completion that resolves when every event received so far that this listener must store has been stored
    /// or finally refused. None: nothing is pending.
    fn flush(&self) -> Option<Completion<()>> {
        None
    }
}

/// An in-process event bus.
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// use nvent_native::bus::{Bus, BusEvent, Listener};
/// use nvent_native::event::{AnyEvent, parse_any};
///
/// /// Notes the types of what passes the bus.
/// #[derive(Default)]
/// struct Types(Mutex<Vec<String>>);
///
/// impl Listener for Types {
///     fn on_event(&self, event: &BusEvent) {
///         if let AnyEvent::New(event) = &event.event {
///             self.0.lock().unwrap().push(event.kind().to_owned());
///         }
///     }
/// }
///
/// # fn main() -> nvent_native::Result<()> {
/// let (bus, types) = (Bus::new(), Arc::new(Types::default()));
/// let id = bus.subscribe(types.clone());
/// bus.publish(&BusEvent { subject: None, event: parse_any(r#"{"type":"flow.start","runId":"r1"}"#)? });
/// bus.unsubscribe(id);
/// assert_eq!(*types.0.lock().unwrap(), ["flow.start"]);
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Bus {
    listeners: RwLock<Vec<(u64, Arc<dyn Listener>)>>,
}

impl Bus {
    /// Creates a bus without listeners.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Passes an event to every listener, in order of registration.
    pub fn publish(&self, event: &BusEvent) {
        for (_, listener) in read(&self.listeners).iter() {
            listener.on_event(event);
        }
    }

    /// Returns whether a listener stores events that are not stored yet.
    pub fn stores_new_events(&self) -> bool {
        read(&self.listeners).iter().any(|(_, listener)| listener.stores_new_events())
    }

    /// Publishes a stored event.
    pub fn announce(&self, subject: &Arc<str>, event: &Event) {
        self.publish(&BusEvent { subject: Some(subject.clone()), event: AnyEvent::Stored(event.clone()) });
    }

    /// Resolves when the listeners have stored, or finally refused, every event published so far. It does not fail.
    ///
    /// A job of a queue is committed as ended only after this, so that its end never precedes the events of its handler.
    pub fn flush(&self) -> Op<()> {
        let pending: Vec<_> = read(&self.listeners).iter().filter_map(|(_, listener)| listener.flush()).collect();
        if pending.is_empty() {
            return Op::ok(());
        }
        Op::pending(async move {
            join_all(pending).await;
            Ok(())
        })
    }

    /// Adds a listener and returns the id that removes it.
    pub fn subscribe(&self, listener: Arc<dyn Listener>) -> u64 {
        let id = next_id();
        write(&self.listeners).push((id, listener));
        id
    }

    /// Removes a listener, which is not called any more once this returns.
    pub fn unsubscribe(&self, id: u64) {
        write(&self.listeners).retain(|(other, _)| *other != id);
    }

    /// Returns the number of listeners.
    pub fn len(&self) -> usize {
        read(&self.listeners).len()
    }

    /// Returns whether there are no listeners.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
