//! Who wakes whom. Native threads wake JavaScript through one weak threadsafe function per environment, called once
//! however much is waiting; JavaScript wakes native threads once per turn, when all its calls of that turn are made.
//!
//! The function of JavaScript is held weakly: through it a context that loaded the package, such as a file of Jest's, would be
//! kept in memory for as long as the process runs. JavaScript keeps it while something is open.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use napi::Env;
use napi::bindgen_prelude::{FromNapiValue, Function, JsObjectValue, Object, Unknown};
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
        // Closing: nothing is left to receive anything. Full: a call is on its way.
        _ = self.callback.call((), ThreadsafeFunctionCallMode::NonBlocking);
    }
}

impl Notifier {
    /// Creates a notifier that calls `on_wake` on the JavaScript thread, as long as JavaScript keeps it.
    pub(super) fn new(env: &Env, on_wake: Function<'_, (), ()>) -> napi::Result<Arc<Self>> {
        let weak_ref: Function<'_, Function<'_, (), ()>, Unknown<'_>> =
            env.get_global()?.get_named_property("WeakRef")?;
        let target = Object::from_unknown(weak_ref.new_instance(on_wake)?)?.create_ref::<false>()?;
        // A function of native code belongs to the main context.
        let wake = env.create_function_from_closure::<(), (), _>("wake", move |call| {
            let target = target.get_value(call.env)?;
            let deref: Function<'_, (), Option<Function<'_, (), ()>>> = target.get_named_property("deref")?;
            match deref.apply(target, ())? {
                Some(on_wake) => on_wake.call(()),
                None => Ok(()),
            }
        })?;
        let callback = wake
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

    /// Leaves the wake-up of JavaScript to JavaScript, which is running: waking a thread by itself takes a turn of the event loop.
    /// Returns whether one was requested, which the caller reports to JavaScript. Other wake-ups happen.
    pub(super) fn leave(self: &Arc<Self>, mut wakes: DeferredWakes) -> bool {
        wakes.remove(self)
    }

    /// Wakes the threads that carry out the calls of this turn.
    pub(super) fn flush(&self) {
        let wakes = std::mem::take(&mut *lock(&self.deferred));
        drop(wakes);
    }
}
