//! Handlers in Rust: what the boundary does for JavaScript, for everyone else.

use std::future::Future;
use std::sync::Arc;

use super::{Queue, Run, WorkerOptions, worker_mailbox};
use crate::error::Result;
use crate::fanout::Delivery;
use crate::json::Json;

impl Queue {
    /// Runs the jobs of a name with an async function: its result is the job's, its error the reason of a failure.
    /// It ends with the queue.
    pub fn work<F>(
        self: &Arc<Self>,
        queue: &str,
        job_name: &str,
        options: WorkerOptions,
        handler: impl Fn(Run) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<Json, String>> + Send + 'static,
    {
        let mailbox = worker_mailbox();
        drop(self.register_worker(queue, job_name, options, mailbox.clone()));
        let (this, mut closed) = (Arc::downgrade(self), self.closed.subscribe());
        let runtime = self.runtime.clone();
        self.runtime.spawn(async move {
            loop {
                let run = tokio::select! {
                    delivery = mailbox.recv() => match delivery {
                        Some(Delivery::Item(run)) => run,
                        Some(Delivery::Gap(_)) => continue,
                        None => return,
                    },
                    // An error means that the queue was dropped.
                    _ = closed.wait_for(|closed| *closed) => return,
                };
                if !this.upgrade().is_some_and(|queue| queue.begin(&run)) {
                    continue;
                }
                let (this, token, outcome) = (this.clone(), run.token, handler(run));
                runtime.spawn(async move {
                    let outcome = outcome.await;
                    if let Some(queue) = this.upgrade() {
                        // An outcome that cannot be stored is met again by whoever opens the queue next.
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
