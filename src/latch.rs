//! A latch that is set once, and waited for by threads and by tasks.

use std::sync::{Condvar, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::sync::lock;

/// Set once; waiting for it ends then, also for those who come later.
#[derive(Default)]
pub(crate) struct Latch {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    set: bool,
    tasks: Vec<oneshot::Sender<()>>,
}

impl Latch {
    /// Sets it and wakes all who wait.
    pub(crate) fn set(&self) {
        let mut state = lock(&self.state);
        state.set = true;
        for task in state.tasks.drain(..) {
            // A task that was dropped does not wait any more.
            let _ = task.send(());
        }
        self.changed.notify_all();
    }

    /// Blocks this thread until it is set.
    pub(crate) fn wait(&self) {
        let waiting = self.changed.wait_while(lock(&self.state), |state| !state.set);
        drop(waiting.unwrap_or_else(PoisonError::into_inner));
    }

    /// Returns a future that resolves when it is set. It is registered before this returns.
    pub(crate) fn waiter(&self) -> impl Future<Output = ()> + Send + use<> {
        let (sender, receiver) = oneshot::channel();
        let mut state = lock(&self.state);
        if state.set {
            let _ = sender.send(());
        } else {
            state.tasks.push(sender);
        }
        async move {
            let _ = receiver.await;
        }
    }
}
