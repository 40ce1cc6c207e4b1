//! The contract of queues, over every backend.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::*;
use crate::error::Code;
use crate::fanout::{Delivery, Overflow};
use crate::time::ManualClock;

/// 2026-01-01T00:00:00Z.
const NEW_YEAR: u64 = 1_767_225_600_000;

/// Where the queues of one test are, and what time it is there.
struct Place {
    dir: Option<TempDir>,
    clock: Arc<ManualClock>,
}

impl Place {
    fn memory() -> Self {
        Self { dir: None, clock: ManualClock::at(NEW_YEAR) }
    }

    fn file() -> Self {
        Self { dir: Some(TempDir::new().unwrap()), ..Self::memory() }
    }

    fn open_with(&self, defaults: JobOptions) -> Arc<Queue> {
        let (clock, runtime) = (self.clock.clone(), Handle::current());
        Arc::new(match &self.dir {
            None => Queue::memory(defaults, clock, runtime),
            Some(dir) => Queue::file(dir.path().join("deep/queue"), Durability::Os, defaults, clock, runtime),
        })
    }

    fn open(&self) -> Arc<Queue> {
        self.open_with(JobOptions::default())
    }

    async fn advance(&self, queue: &Queue, ms: u64) {
        self.clock.advance(ms);
        queue.tick().await.unwrap();
    }
}

fn job(name: &str, opts: Value) -> NewJob {
    NewJob::parse("job", &json!({"name": name, "data": {"n": 1}, "opts": opts}).to_string()).unwrap()
}

/// A worker that does what the test says.
struct Hands(Arc<Mailbox<Run>>);

impl Hands {
    async fn on(queue: &Queue, name: &str, job_names: &[&str], concurrency: usize) -> Self {
        let hands = Self(worker_mailbox());
        for job_name in job_names {
            let options = WorkerOptions { concurrency, ..WorkerOptions::default() };
            queue.register_worker(name, job_name, options, hands.0.clone()).await.unwrap();
        }
        queue.start(name).await.unwrap();
        hands
    }

    /// The job that was handed over. Exact, as everything leaves before the call that caused it ends.
    fn taken(&self) -> Option<Run> {
        let mut out = Vec::new();
        self.0.take(1, &mut out);
        match out.pop()? {
            Delivery::Item(run) => Some(run),
            Delivery::Gap(gap) => panic!("{gap:?}"),
        }
    }

    fn begun(&self, queue: &Queue) -> Run {
        let run = self.taken().expect("a job was handed over");
        assert!(queue.begin(&run));
        run
    }

    fn ids(&self) -> Vec<String> {
        std::iter::from_fn(|| self.taken()).map(|run| id(&run)).collect()
    }
}

fn field(json: &str, name: &str) -> Value {
    serde_json::from_str::<Value>(json).unwrap()[name].clone()
}

fn id(run: &Run) -> String {
    field(&run.job, "id").as_str().unwrap().to_owned()
}

async fn state(queue: &Queue, name: &str, id: &str) -> Option<String> {
    queue.job(name, id).await.unwrap().map(|job| field(&job, "state").as_str().unwrap().to_owned())
}

/// Every event of a queue, in one mailbox.
async fn listen(queue: &Queue, name: &str) -> Arc<Mailbox<QueueEvent>> {
    let mailbox = Arc::new(Mailbox::new(10_000, Overflow::DropOldest));
    for kind in EventKind::ALL {
        queue.on(name, kind, mailbox.clone()).await.unwrap();
    }
    mailbox
}

fn told(mailbox: &Mailbox<QueueEvent>) -> Vec<(&'static str, Value)> {
    let mut out = Vec::new();
    mailbox.take(usize::MAX, &mut out);
    let event = |delivery| match delivery {
        Delivery::Item(QueueEvent { kind, payload, .. }) => (kind.as_str(), serde_json::from_str(&payload).unwrap()),
        Delivery::Gap(gap) => panic!("{gap:?}"),
    };
    out.into_iter().map(event).collect()
}

fn kinds(mailbox: &Mailbox<QueueEvent>) -> Vec<&'static str> {
    told(mailbox).into_iter().map(|(kind, _)| kind).collect()
}

/// Runs every test of a module over every backend.
macro_rules! suite {
    ($($name:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Place::memory()).await;
            })+
        }
        mod file {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Place::file()).await;
            })+
        }
    };
}

mod jobs;
mod lifetime;
mod times;
