//! Queues, as JavaScript calls them. Jobs come to JavaScript handlers like deliveries, and their outcome comes back by
//! token.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use napi_derive::napi;

use crate::error::Result;
use crate::fanout::{Mailbox, Overflow, next_id};
use crate::json::to_json;
use crate::node::bridge::{Bridge, Reply, Shared, Source, guard, reply};
use crate::node::bus::flush_buses;
use crate::node::runtime;
use crate::node::store::{array_json, nothing, optional_json};
use crate::op::Op;
use crate::queue::{
    EventKind, FileQueueOptions, JobState, MemoryQueueOptions, NewJob, Queue, QueueReader, ScheduleOptions,
    WorkerOptions, worker_mailbox,
};
use crate::time::system_clock;

/// Events of a queue that may wait for one listener.
const EVENT_BUFFER: usize = 100_000;

/// The queues of one adapter.
#[napi]
pub struct NativeQueue {
    pub(super) queue: Arc<Queue>,
    bridge: Arc<Shared>,
}

#[napi]
impl NativeQueue {
    /// Creates queues in memory.
    #[napi(factory)]
    pub fn memory(bridge: &Bridge, options: String) -> napi::Result<Self> {
        Self::create(bridge, || {
            Ok(Queue::memory(MemoryQueueOptions::parse("options", &options)?, system_clock(), runtime()))
        })
    }

    /// Creates queues in a directory.
    #[napi(factory)]
    pub fn file(bridge: &Bridge, options: String) -> napi::Result<Self> {
        Self::create(bridge, || {
            Ok(Queue::file(FileQueueOptions::parse("options", &options)?, system_clock(), runtime()))
        })
    }

    fn create(bridge: &Bridge, queue: impl FnOnce() -> Result<Queue>) -> napi::Result<Self> {
        guard(|| Ok(Self { queue: Arc::new(queue()?), bridge: bridge.shared.clone() }))
    }

    /// Opens the queues.
    #[napi]
    pub fn open(&self) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.queue.open()), nothing)
    }

    /// Adds a job; replies with its id.
    #[napi]
    pub fn enqueue(&self, queue: String, job: String) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || Ok(self.queue.enqueue(&queue, NewJob::parse("job", &job)?)),
            |id| Some(to_json(&*id).to_string()),
        )
    }

    /// Adds a job for later, or again and again; replies with the id of the schedule.
    #[napi]
    pub fn schedule(&self, queue: String, job: String, options: String) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || {
                let when = ScheduleOptions::parse("options", &options)?;
                Ok(self.queue.schedule(&queue, NewJob::parse("job", &job)?, when))
            },
            |id| Some(to_json(&*id).to_string()),
        )
    }

    /// Reads a job.
    #[napi]
    pub fn job(&self, queue: String, id: String) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.queue.job(&queue, &id)), optional_json)
    }

    /// Reads a page of the jobs in these states.
    #[napi]
    pub fn jobs(&self, queue: String, states: Vec<String>, offset: f64, limit: Option<f64>) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || {
                let states: Vec<_> =
                    states.iter().map(|name| JobState::parse("query.state", name)).collect::<Result<_>>()?;
                Ok(self.queue.jobs(&queue, &states, offset as u64, limit.map(|n| n as u64)))
            },
            |jobs| Some(array_json(&jobs, |out, job| out.push_str(job))),
        )
    }

    /// Counts the jobs of each state.
    #[napi]
    pub fn counts(&self, queue: String) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.queue.counts(&queue)), |counts| Some(counts.to_json().to_string()))
    }

    /// Lists the schedules of a queue.
    #[napi]
    pub fn scheduled(&self, queue: String) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || Ok(self.queue.scheduled(&queue)),
            |rows| Some(array_json(&rows, |out, row| out.push_str(row))),
        )
    }

    /// Removes a schedule.
    #[napi]
    pub fn remove_scheduled(&self, id: String) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.queue.remove_scheduled(&id)), |removed| Some(removed.to_string()))
    }

    /// Removes a job.
    #[napi]
    pub fn remove_job(&self, queue: String, id: String) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.queue.remove_job(&queue, &id)), |removed| Some(removed.to_string()))
    }

    /// Makes a failed job wait for one more attempt.
    #[napi]
    pub fn retry_job(&self, queue: String, id: String) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.queue.retry_job(&queue, &id)), |retried| Some(retried.to_string()))
    }

    /// Sets whether workers of further queues wait for `start`.
    #[napi]
    pub fn hold_workers(&self, is_held: bool) {
        self.queue.hold_workers(is_held);
    }

    /// Replies whether the queues are usable: `{ ok, backend, detail? }`.
    #[napi]
    pub fn health(&self) -> napi::Result<Reply> {
        let name = self.queue.name();
        reply(
            &self.bridge,
            || Ok(self.queue.durability().map(move |_| name)),
            |backend| Some(format!("{{\"ok\":true,\"backend\":\"{backend}\"}}")),
        )
    }

    /// Copies all queues into a new file.
    #[napi]
    pub fn backup(&self, path: String) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.queue.backup(Path::new(&path))), nothing)
    }

    /// Reads everything; replies with `{ ok, problems }`.
    #[napi]
    pub fn verify(&self) -> napi::Result<Reply> {
        reply(
            &self.bridge,
            || Ok(self.queue.verify()),
            |problems| Some(to_json(&serde_json::json!({"ok": problems.is_empty(), "problems": problems})).to_string()),
        )
    }

    /// Returns whether a queue is paused.
    #[napi]
    pub fn is_paused(&self, queue: String) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.queue.is_paused(&queue)), |paused| Some(paused.to_string()))
    }

    /// Pauses a queue.
    #[napi]
    pub fn pause(&self, queue: String) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.queue.pause(&queue)), nothing)
    }

    /// Resumes a queue.
    #[napi]
    pub fn resume(&self, queue: String) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.queue.resume(&queue)), nothing)
    }

    /// Delivers events of a queue; replies with the id of the subscription.
    #[napi]
    pub fn on(&self, queue: String, event: String) -> napi::Result<Reply> {
        let bridge = self.bridge.clone();
        reply(
            &self.bridge,
            || {
                let kind = EventKind::parse("event", &event)?;
                let mailbox = Arc::new(Mailbox::new(EVENT_BUFFER, Overflow::DropOldest));
                Ok(self.queue.on(&queue, kind, mailbox.clone()).map(move |id| {
                    let wake = bridge.subscribe(id, queue.into(), Source::QueueEvents(mailbox.clone()), false);
                    mailbox.add_wake(id, wake);
                    id
                }))
            },
            |id| Some(id.to_string()),
        )
    }

    /// Removes a subscription of `on`.
    #[napi]
    pub fn off(&self, id: f64) -> napi::Result<Reply> {
        self.bridge.unsubscribe(id as u64);
        reply(&self.bridge, || Ok(self.queue.off(id as u64)), nothing)
    }

    /// Delivers the cancellations of attempts, `{ token, reason }`; replies with the id of the subscription.
    #[napi]
    pub fn cancellations(&self) -> napi::Result<Reply> {
        let bridge = self.bridge.clone();
        reply(
            &self.bridge,
            || {
                let (id, mailbox) = (next_id(), Arc::new(Mailbox::new(usize::MAX, Overflow::DropNewest)));
                let source = Source::Cancellations(mailbox.clone());
                mailbox.add_wake(id, bridge.subscribe(id, "".into(), source, false));
                Ok(self.queue.set_cancellations(mailbox).map(move |()| id))
            },
            |id| Some(id.to_string()),
        )
    }

    /// Starts the attempt of a delivered job: its handler is called now. False: the job was revoked.
    #[napi]
    pub fn start_attempt(&self, token: f64) -> bool {
        self.queue.start_accepted(token as u64)
    }

    /// Delivers jobs of a name, as `{ token, job }`, to be answered by `complete` or `fail`; replies with the id of the
    /// subscription.
    #[napi]
    pub fn register_worker(&self, queue: String, job_name: String, options: String) -> napi::Result<Reply> {
        let bridge = self.bridge.clone();
        let owner = Arc::downgrade(&self.queue);
        reply(
            &self.bridge,
            || {
                let options = WorkerOptions::parse("options", &options)?;
                let mailbox = worker_mailbox();
                Ok(self.queue.register_worker(&queue, &job_name, options, mailbox.clone()).map(move |id| {
                    let source = Source::Jobs(mailbox.clone(), owner);
                    let wake = bridge.subscribe(id, queue.into(), source, false);
                    mailbox.add_wake(id, wake);
                    id
                }))
            },
            |id| Some(id.to_string()),
        )
    }

    /// Starts the workers of a queue.
    #[napi]
    pub fn start(&self, queue: String) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.queue.start(&queue)), nothing)
    }

    /// Ends a job whose handler succeeded, after the events that the handler published have been stored.
    #[napi]
    pub fn complete(&self, token: f64, result: String) -> napi::Result<Reply> {
        let settle = move |queue: &Arc<Queue>| queue.complete(token as u64, result.into());
        reply(&self.bridge, || Ok(self.after_flush(token as u64, settle)), |known| Some(known.to_string()))
    }

    /// Ends an attempt whose handler failed, after the events that the handler published have been stored.
    #[napi]
    pub fn fail(&self, token: f64, reason: String) -> napi::Result<Reply> {
        let settle = move |queue: &Arc<Queue>| queue.fail(token as u64, &reason);
        reply(&self.bridge, || Ok(self.after_flush(token as u64, settle)), |known| Some(known.to_string()))
    }

    /// Frees the place of an attempt whose handler has settled and whose outcome follows.
    #[napi]
    pub fn settled(&self, token: f64) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.queue.handler_settled(token as u64)), nothing)
    }

    /// Stores the progress of a handler.
    #[napi]
    pub fn progress(&self, token: f64, progress: String) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.queue.progress(token as u64, progress.into())), |known| Some(known.to_string()))
    }

    /// Stops the workers; running handlers have `timeout_ms`. Everything else goes on until `close`.
    #[napi]
    pub fn drain(&self, timeout_ms: f64) -> napi::Result<Reply> {
        let timeout = Duration::from_millis(timeout_ms as u64);
        reply(&self.bridge, || Ok(self.queue.drain(timeout)), |()| None)
    }

    /// Closes the queues; handlers have `limit_ms` to settle.
    #[napi]
    pub fn close(&self, limit_ms: f64) -> napi::Result<Reply> {
        let limit = Duration::from_millis(limit_ms as u64);
        reply(&self.bridge, || Ok(self.queue.close(limit)), |interrupted| Some(interrupted.to_string()))
    }
}

impl NativeQueue {
    /// Calls `settle` when every event published so far in this environment has been stored.
    fn after_flush(&self, token: u64, settle: impl FnOnce(&Arc<Queue>) -> Op<bool> + Send + 'static) -> Op<bool> {
        match flush_buses(&self.bridge) {
            Op::Ready(_) => settle(&self.queue),
            flushed => {
                let queue = self.queue.clone();
                // Only the end of this job waits: the next one may start.
                drop(queue.handler_settled(token));
                Op::pending(async move {
                    flushed.await?;
                    settle(&queue).await
                })
            }
        }
    }
}

impl Drop for NativeQueue {
    /// Closes the queues without waiting: the environment ended, and with it the handlers.
    fn drop(&mut self) {
        drop(self.queue.close(Duration::ZERO));
    }
}

/// Queues of a directory that are only read. Calls are synchronous: they are made by a command, not by a server.
#[napi]
pub struct NativeQueueReader {
    reader: QueueReader,
}

#[napi]
impl NativeQueueReader {
    /// Opens the queues of a directory.
    #[napi(constructor)]
    pub fn new(dir: String) -> napi::Result<Self> {
        guard(|| Ok(Self { reader: QueueReader::open(Path::new(&dir))? }))
    }

    /// Returns the queues with the counts of their jobs.
    #[napi]
    pub fn queues(&mut self) -> napi::Result<String> {
        guard(|| {
            let queues = self.reader.queues()?;
            Ok(array_json(&queues, |out, (name, counts)| {
                out.push_str(&format!("{{\"queue\":{},\"counts\":{}}}", to_json(name), counts.to_json()));
            }))
        })
    }

    /// Returns a page of the jobs of a queue.
    #[napi]
    pub fn jobs(&mut self, queue: String, states: Vec<String>, offset: f64, limit: f64) -> napi::Result<String> {
        guard(|| {
            let states: Vec<_> = states.iter().map(|name| JobState::parse("state", name)).collect::<Result<_>>()?;
            let jobs = self.reader.jobs(&queue, &states, offset as u64, limit as u64)?;
            Ok(array_json(&jobs, |out, job| out.push_str(job)))
        })
    }

    /// Copies the queues into a new file.
    #[napi]
    pub fn backup(&mut self, path: String) -> napi::Result<()> {
        guard(|| self.reader.backup(Path::new(&path)))
    }

    /// Returns what is wrong, in words.
    #[napi]
    pub fn verify(&mut self) -> napi::Result<Vec<String>> {
        guard(|| self.reader.verify())
    }
}
