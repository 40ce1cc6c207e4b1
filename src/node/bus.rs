//! The event bus. JavaScript handlers are called in JavaScript; the native side passes their events to native listeners,
//! and the announcements of native stores to them.

use std::cell::Cell;
use std::collections::HashSet;
use std::future::IntoFuture;
use std::sync::{Arc, Mutex, RwLock, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use napi_derive::napi;

use crate::bus::{Bus, BusEvent, Listener};
use crate::event::{AnyEvent, Event, parse_any};
use crate::fanout::{Mailbox, Overflow, next_id};
use crate::name::Subject;
use crate::node::bridge::{Bridge, Shared, Source, guard};
use crate::op::Op;
use crate::store::Stored;
use crate::sync::{lock, read, write};
use crate::wiring::flow::reducer::check_event;

/// Limit of announcements that wait for JavaScript handlers. It bounds memory; a working event loop stays far below it.
const BUFFER: usize = 1_000_000;

/// How long [`flush_buses`] waits for a store. What is not stored by then is found by the recovery of flow wiring.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

thread_local! {
    /// Whether this thread is publishing an event from JavaScript.
    static FROM_JS: Cell<bool> = const { Cell::new(false) };
}

/// Resets [`FROM_JS`] when it is dropped, also by a panic.
struct Reset;

impl Drop for Reset {
    fn drop(&mut self) {
        FROM_JS.set(false);
    }
}

/// Every bus of the process and the environment that it belongs to.
static BUSES: Mutex<Vec<(Weak<Shared>, Weak<Bus>)>> = Mutex::new(Vec::new());

/// Resolves when every event published so far on a bus of this environment has been stored or finally refused, or after
/// [`FLUSH_TIMEOUT`] with a warning. It does not fail.
pub(super) fn flush_buses(bridge: &Arc<Shared>) -> Op<()> {
    let pending: Vec<Op<()>> = lock(&BUSES)
        .iter()
        .filter(|(owner, _)| std::ptr::eq(owner.as_ptr(), Arc::as_ptr(bridge)))
        .filter_map(|(_, bus)| Some(bus.upgrade()?.flush()))
        .filter(|flush| !matches!(flush, Op::Ready(_)))
        .collect();
    if pending.is_empty() {
        return Op::ok(());
    }
    Op::pending(async move {
        let flushes = join_all(pending.into_iter().map(IntoFuture::into_future));
        if tokio::time::timeout(FLUSH_TIMEOUT, flushes).await.is_err() {
            tracing::warn!(
                code = "NVENT_UNAVAILABLE",
                "a job ended before the events of its handler were stored: the store has not answered for {} s",
                FLUSH_TIMEOUT.as_secs()
            );
        }
        Ok(())
    })
}

/// The types and runs that JavaScript has handlers for. What nobody handles does not cross: JSON is most of what it would cost.
#[derive(Default)]
struct Interest {
    types: HashSet<Box<str>>,
    runs: HashSet<Box<str>>,
}

impl Interest {
    fn covers(&self, event: &Event) -> bool {
        self.types.contains("*")
            || self.types.contains(event.kind())
            || (!self.runs.is_empty() && event.run_id().is_some_and(|run| self.runs.contains(run)))
    }
}

/// Queues announcements for JavaScript handlers.
struct JsListener {
    mailbox: Arc<Mailbox<Stored>>,
    interest: Arc<RwLock<Interest>>,
}

impl Listener for JsListener {
    fn on_event(&self, event: &BusEvent) {
        // JavaScript has called its own handlers for what it publishes.
        if let (Some(subject), AnyEvent::Stored(stored), false) = (&event.subject, &event.event, FROM_JS.get())
            && read(&self.interest).covers(stored)
        {
            _ = self.mailbox.push(Stored { subject: subject.clone(), event: stored.clone() });
        }
    }
}

/// An event bus.
#[napi]
pub struct NativeBus {
    pub(super) bus: Arc<Bus>,
    bridge: Arc<Shared>,
    /// The subscription of the JavaScript handlers and the id of its listener, while there are handlers.
    handlers: Option<(u64, u64, Arc<Mailbox<Stored>>)>,
    interest: Arc<RwLock<Interest>>,
}

#[napi]
impl NativeBus {
    /// Creates a bus without listeners.
    #[napi(constructor)]
    pub fn new(bridge: &Bridge) -> Self {
        let bus = Bus::new();
        let mut buses = lock(&BUSES);
        buses.retain(|(_, bus)| bus.strong_count() > 0);
        buses.push((Arc::downgrade(&bridge.shared), Arc::downgrade(&bus)));
        Self { bus, bridge: bridge.shared.clone(), handlers: None, interest: Arc::default() }
    }

    /// Publishes an event from JavaScript to native listeners. Returns whether one of them stores events that are not stored yet.
    #[napi]
    pub fn publish(&self, event: String, subject: Option<String>) -> napi::Result<bool> {
        guard(|| {
            let subject =
                subject.map(|subject| Subject::named("event subject", &subject).map(Arc::from)).transpose()?;
            let text = event;
            let event = parse_any(&text)?;
            if matches!(&event, AnyEvent::New(event) if event.kind() == "emit") {
                check_event(&text)?;
            }
            FROM_JS.set(true);
            let _reset = Reset;
            self.bus.publish(&BusEvent { subject, event });
            Ok(self.bus.stores_new_events())
        })
    }

    /// Returns whether the bus has native listeners.
    #[napi]
    pub fn has_listeners(&self) -> bool {
        self.bus.len() > usize::from(self.handlers.is_some())
    }

    /// Starts to deliver the announcements of native stores. Returns the id of the subscription.
    #[napi]
    pub fn subscribe(&mut self) -> f64 {
        if let Some((id, ..)) = &self.handlers {
            return *id as f64;
        }
        let id = next_id();
        let mailbox = Arc::new(Mailbox::new(BUFFER, Overflow::DropOldest));
        let wake = self.bridge.subscribe(id, "bus".into(), Source::Store(mailbox.clone()), false);
        mailbox.add_wake(id, wake);
        let listener =
            self.bus.subscribe(Arc::new(JsListener { mailbox: mailbox.clone(), interest: self.interest.clone() }));
        self.handlers = Some((id, listener, mailbox));
        id as f64
    }

    /// Sets whether there are handlers for a type (`*` for all) or, with `is_run`, for a run.
    #[napi]
    pub fn set_interest(&self, key: String, is_run: bool, is_wanted: bool) {
        let mut interest = write(&self.interest);
        let keys = if is_run { &mut interest.runs } else { &mut interest.types };
        if is_wanted {
            keys.insert(key.into());
        } else {
            keys.remove(key.as_str());
        }
    }

    /// Ends the subscription.
    #[napi]
    pub fn unsubscribe(&mut self) {
        if let Some((id, listener, mailbox)) = self.handlers.take() {
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
