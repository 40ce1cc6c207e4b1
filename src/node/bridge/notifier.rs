//! Who wakes whom. Native threads wake JavaScript through one weak threadsafe function per environment, called once
//! however much is waiting; JavaScript wakes native threads once per turn, when all its calls of that turn are made.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use napi::bindgen_prelude::Function;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};

use crate::sync::lock;
use crate::wake::{self, DeferredWakes, Wake};

type Callback = ThreadsafeFunction<(), (), (), napi::Status, false, true, 1>;

/// Wakes the JavaScript thread. Never keeps the process alive.
pub(super) struct Notifier {
    callback: Callback,
    notified: AtomicBool,
    deferred: Mutex<DeferredWakes>,
}

impl Wake for Notifier {
    fn wake(&self) {
        // Closing: nobody is left to receive anything. Full: a call is on its way.
        _ = self.callback.call((), ThreadsafeFunctionCallMode::NonBlocking);
    }
}

impl Notifier {
    /// Creates a notifier that calls `on_wake` on the JavaScript thread.
    pub(super) fn new(on_wake: &Function<'_, (), ()>) -> napi::Result<Arc<Self>> {
        let callback = on_wake
            .build_threadsafe_function::<()>()
            .callee_handled::<false>()
            .weak::<true>()
            .max_queue_size::<1>()
            .build()?;
        Ok(Arc::new(Self { callback, notified: AtomicBool::new(false), deferred: Mutex::default() }))
    }

    /// Notifies JavaScript that there is something to take. Does nothing where it has been notified already.
    pub(super) fn notify(self: &Arc<Self>) {
        if !self.notified.swap(true, Ordering::AcqRel) && !wake::defer(self) {
            self.wake();
        }
    }

    /// Begins a round of taking: what arrives from now on notifies again.
    pub(super) fn clear_notified(&self) {
        self.notified.store(false, Ordering::Release);
    }

    /// Keeps the wake-ups that a call requested until [`Notifier::flush`].
    pub(super) fn defer(&self, wakes: DeferredWakes) {
        lock(&self.deferred).append(wakes);
    }

    /// Wakes the threads that carry out the calls of this turn.
    pub(super) fn flush(&self) {
        let wakes = std::mem::take(&mut *lock(&self.deferred));
        drop(wakes);
    }
}
