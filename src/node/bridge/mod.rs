//! The bridge between the native threads and one JavaScript environment.
//!
//! Native threads only put things into the bridge and notify JavaScript, which then takes what is there, in batches of
//! JSON text:
//!
//! - [`operations`]: what has completed, `[op_id, ok, value or error, …]`
//! - [`deliveries`]: events for handlers, `[[[topic, message], …], [subscription, index of first message, how many, …], more]`
//! - [`calls`]: calls of JavaScript objects (an application's own stream, say), `[[id, target, method, [arguments], returns], …]`
//!
//! [`notifier`] says who wakes whom. Nothing here keeps the process alive. JavaScript does while operations are under way,
//! so that an awaited one completes.

mod calls;
mod deliveries;
mod notifier;
mod operations;
mod warnings;

use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::Function;
use napi_derive::napi;

use self::calls::Calls;
pub(super) use self::calls::Returns;
use self::deliveries::Deliveries;
pub(super) use self::deliveries::Source;
use self::notifier::Notifier;
use self::operations::Operations;
pub(super) use self::operations::{Reply, guard, reply, reply_and_leave};
use self::warnings::Warnings;
use crate::error::Result;
use crate::fanout::OnReady;

/// Size of a batch. A single row may be larger and then goes alone.
const BATCH_BYTES: usize = 512 * 1024;

/// Longest text that JavaScript is given: V8 has no strings of more than 2^29 - 24 characters, and a batch is a little
/// longer than what is in it.
const MAX_TEXT_BYTES: usize = 500_000_000;

/// The native side of the bridge, shared with whatever reports to it.
pub(super) struct Shared {
    notifier: Arc<Notifier>,
    operations: Operations,
    deliveries: Arc<Deliveries>,
    calls: Calls,
    warnings: Arc<Warnings>,
}

impl Shared {
    /// Calls a method of a JavaScript object; resolves with the JSON of what it returned. `args` is a JSON array.
    pub(super) fn call(
        &self,
        target: u32,
        method: &'static str,
        args: String,
        returns: Returns,
    ) -> impl Future<Output = Result<String>> + Send + use<> {
        self.calls.invoke(target, method, args, returns)
    }

    /// Registers a subscription whose mailbox JavaScript drains; returns its wake-up.
    pub(super) fn subscribe(&self, id: u64, topic: Arc<str>, source: Source, serial: bool) -> OnReady {
        self.deliveries.subscribe(id, topic, source, serial)
    }

    /// Removes a subscription. Nothing is delivered to it any more.
    pub(super) fn unsubscribe(&self, id: u64) {
        self.deliveries.remove(id, false);
    }
}

/// One per JavaScript environment.
#[napi]
pub struct Bridge {
    pub(super) shared: Arc<Shared>,
}

#[napi]
impl Bridge {
    /// Creates a bridge. `on_wake` is called without arguments, on the JavaScript thread, when there is something to take. It
    /// is held weakly.
    #[napi(constructor)]
    pub fn new(env: &Env, on_wake: Function<'_, (), ()>) -> napi::Result<Self> {
        let notifier = Notifier::new(env, on_wake)?;
        Ok(Self {
            shared: Arc::new(Shared {
                operations: Operations::new(notifier.clone()),
                deliveries: Arc::new(Deliveries::new(notifier.clone())),
                calls: Calls::new(notifier.clone()),
                warnings: Warnings::new(notifier.clone()),
                notifier,
            }),
        })
    }

    /// Wakes the threads that carry out the calls of this turn. To be called when all are made.
    #[napi]
    pub fn flush(&self) {
        self.shared.notifier.flush();
    }

    /// Allows the next notification: what arrives from now on notifies again. To be called first on waking.
    #[napi]
    pub fn clear_notified(&self) {
        self.shared.notifier.clear_notified();
    }

    /// Takes operations that have completed: `[op_id, ok, value or error, …]`, or null.
    #[napi]
    pub fn take_completed(&self) -> Option<String> {
        self.shared.operations.take()
    }

    /// Returns the rows of the last batch of `takeCompleted` one by one, for a batch that is no JSON as a whole:
    /// `op_id, ok, value or error` as texts, in turn.
    #[napi]
    pub fn last_completed(&self) -> Vec<String> {
        self.shared.operations.last()
    }

    /// Takes a batch of deliveries, or null. With a subscription's id only what is waiting for that one.
    #[napi]
    pub fn take_deliveries(&self, only: Option<f64>) -> Option<String> {
        match only {
            Some(id) => self.shared.deliveries.take_only(id as u64),
            None => self.shared.deliveries.take(),
        }
    }

    /// Holds a subscription's events back until `resume`: its handler has returned a promise.
    #[napi]
    pub fn pause(&self, subscription: f64) {
        self.shared.deliveries.pause(subscription as u64);
    }

    /// Goes on with a subscription: its handler has been registered, or is done with what it was given, successfully or not.
    #[napi]
    pub fn resume(&self, subscription: f64, ok: bool) {
        self.shared.deliveries.resume(subscription as u64, ok);
    }

    /// Removes a subscription. Where its handler is still at work, `resume` acknowledges what it has.
    #[napi]
    pub fn remove(&self, subscription: f64, handler_at_work: bool) {
        self.shared.deliveries.remove(subscription as u64, handler_at_work);
    }

    /// Takes calls of JavaScript objects, `[[id, target, method, [arguments], returns a value], …]`, or null.
    #[napi]
    pub fn take_calls(&self) -> Option<String> {
        self.shared.calls.take()
    }

    /// Takes what native code reports, `[[is a warning, code, message], …]`, or null.
    #[napi]
    pub fn take_warnings(&self) -> Option<String> {
        self.shared.warnings.take()
    }

    /// Completes a call of a JavaScript object, with the JSON of its value or of its error.
    #[napi]
    pub fn complete_call(&self, call: u32, ok: bool, text: String) {
        self.shared.calls.complete(call, ok, text);
    }
}

impl Drop for Bridge {
    /// Fails pending calls and ends deliveries, as the environment ends.
    fn drop(&mut self) {
        self.shared.notifier.flush();
        self.shared.operations.close();
        self.shared.deliveries.close();
        self.shared.calls.close();
    }
}
