//! The driver of queues in memory: calls run at once, under a lock.

use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::super::driver::{Command, Driver, wait_for};
use super::super::engine::Engine;
use super::super::storage::JobStorage;
use super::storage::MemoryStorage;
use crate::error::Error;
use crate::op::BoxFuture;
use crate::sync::lock;
use crate::time::SharedClock;

/// Runs commands on the calling thread under a lock, and a timer for what is due later.
pub(in crate::queue) struct MemoryDriver {
    engine: Mutex<Engine>,
    clock: SharedClock,
    /// Wakes the timer when something is due earlier.
    rescheduled: Arc<Notify>,
    ended: AtomicBool,
}

impl MemoryDriver {
    pub(in crate::queue) fn start(runtime: &Handle, clock: SharedClock) -> Arc<Self> {
        let opener = Box::new(|| Ok(Box::new(MemoryStorage::default()) as Box<dyn JobStorage>));
        let rescheduled = Arc::new(Notify::new());
        let driver = Arc::new(Self {
            engine: Mutex::new(Engine::new("memory", clock.clone(), opener)),
            clock,
            rescheduled: rescheduled.clone(),
            ended: AtomicBool::new(false),
        });
        runtime.spawn(Self::run_timer(Arc::downgrade(&driver), rescheduled));
        driver
    }

    /// Runs the timer. It ends with the driver.
    async fn run_timer(driver: Weak<Self>, rescheduled: Arc<Notify>) {
        while let Some(this) = driver.upgrade().filter(|this| !this.ended.load(Ordering::Acquire)) {
            let wait = {
                let mut engine = lock(&this.engine);
                // Memory does not fail.
                _ = engine.commit_step();
                wait_for(engine.next_wake(), this.clock.monotonic_ms())
            };
            drop(this);
            _ = tokio::time::timeout(wait, rescheduled.notified()).await;
        }
    }
}

impl Driver for MemoryDriver {
    fn submit(&self, command: Command) {
        let (reply, end) = {
            let mut engine = lock(&self.engine);
            let before = engine.next_wake();
            let reply = command(Ok(&mut engine));
            let end = engine.commit_step();
            if engine.next_wake().is_some_and(|wake| before.is_none_or(|before| wake < before)) {
                self.rescheduled.notify_one();
            }
            (reply, end)
        };
        reply(end.err());
    }

    fn end(&self) -> BoxFuture<()> {
        self.ended.store(true, Ordering::Release);
        *lock(&self.engine) = Engine::new("memory", self.clock.clone(), Box::new(|| Err(Error::closed("the queue"))));
        self.rescheduled.notify_one();
        Box::pin(ready(Ok(())))
    }
}

impl Drop for MemoryDriver {
    fn drop(&mut self) {
        self.rescheduled.notify_one();
    }
}
