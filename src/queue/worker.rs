//! Workers whose handler is an async function in Rust.

use std::future::Future;
use std::sync::Arc;

use super::{JobDelivery, Queue, WorkerOptions, worker_mailbox};
use crate::error::Result;
use crate::fanout::Delivery;
use crate::json::Json;

impl Queue {
    /// Registers an async function as worker: its result is the job's, its error the reason of a failure. It ends with
    /// the queue.
    pub fn work<F>(
        self: &Arc<Self>,
        queue: &str,
        job_name: &str,
        options: WorkerOptions,
        handler: impl Fn(JobDelivery) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<Json, String>> + Send + 'static,
    {
        let mailbox = worker_mailbox();
        drop(self.register_worker(queue, job_name, options, mailbox.clone()));
        let (this, mut closed) = (Arc::downgrade(self), self.closed.subscribe());
        let runtime = self.runtime.clone();
        self.runtime.spawn(async move {
            loop {
                let delivery = tokio::select! {
                    delivery = mailbox.recv() => match delivery {
                        Some(Delivery::Item(delivery)) => delivery,
                        Some(Delivery::Gap(_)) => continue,
                        None => return,
                    },
                    // An error means that the queue was dropped.
                    _ = closed.wait_for(|closed| *closed) => return,
                };
                if !this.upgrade().is_some_and(|queue| queue.start_attempt(&delivery)) {
                    continue;
                }
                let (this, token) = (this.clone(), delivery.token);
                let (cancelled, outcome) = (delivery.clone(), handler(delivery));
                runtime.spawn(async move {
                    // A handler that is to be given up is dropped.
                    let outcome = tokio::select! {
                        outcome = outcome => outcome,
                        () = cancelled.cancelled() => Err("cancelled".into()),
                    };
                    if let Some(queue) = this.upgrade() {
                        // A job whose outcome cannot be stored runs again when the queue is opened the next time.
                        drop(match outcome {
                            Ok(result) => queue.complete(token, result),
                            Err(reason) => queue.fail(token, &reason),
                        });
                    }
                });
            }
        });
    }
}
