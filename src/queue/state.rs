//! A queue in memory: its stored row, its workers, and how many jobs they have.

use std::collections::HashMap;
use std::sync::Arc;

use super::delivery::JobDelivery;
use super::job::State;
use super::metrics::QueueMetrics;
use super::options::WorkerOptions;
use super::storage::QueueRow;
use crate::fanout::{Mailbox, next_id};

/// A worker: runs the jobs of one name.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) id: u64,
    /// The [`super::Queue`] that registered it.
    pub(super) owner: u64,
    name: Arc<str>,
    concurrency: usize,
    /// How long its handlers may ignore a timeout, in ms.
    pub(super) abandon_after: u64,
    pub(super) mailbox: Arc<Mailbox<JobDelivery>>,
}

/// Whether the workers of an owner may get jobs.
#[derive(Clone, Copy, Default)]
struct WorkerGate {
    started: bool,
    /// Registered with `autorun: false`, and not resumed since.
    held: bool,
}

pub(super) struct QueueState {
    pub(super) name: Arc<str>,
    /// The stored row; None where nothing was ever stored.
    pub(super) row: Option<QueueRow>,
    /// How many jobs are with workers, removed ones included.
    pub(super) active: usize,
    pub(super) metrics: QueueMetrics,
    workers: Vec<Worker>,
    gates: HashMap<u64, WorkerGate>,
}

impl QueueState {
    pub(super) fn new(backend: &'static str, name: Arc<str>) -> Self {
        let metrics = QueueMetrics::new(backend, name.clone());
        Self { name, row: None, active: 0, metrics, workers: Vec::new(), gates: HashMap::new() }
    }

    pub(super) fn paused(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.paused)
    }

    /// Adds a worker, which runs at once unless `is_held`, where it waits for [`QueueState::start`]. Returns its id, and the owner's worker of that name that it replaces.
    pub(super) fn register(
        &mut self,
        owner: u64,
        name: &Arc<str>,
        options: WorkerOptions,
        is_held: bool,
        mailbox: Arc<Mailbox<JobDelivery>>,
    ) -> (u64, Option<Worker>) {
        self.gates.entry(owner).or_insert(WorkerGate { started: !is_held, held: !options.autorun });
        let WorkerOptions { concurrency, abandon_after, .. } = options;
        let mut worker = Worker { id: next_id(), owner, name: name.clone(), concurrency, abandon_after, mailbox };
        let id = worker.id;
        let replaced = match self.workers.iter_mut().find(|other| other.owner == owner && other.name == *name) {
            Some(old) => {
                worker.concurrency = old.concurrency;
                Some(std::mem::replace(old, worker))
            }
            None => {
                self.workers.push(worker);
                None
            }
        };
        (id, replaced)
    }

    pub(super) fn start(&mut self, owner: u64) {
        self.gates.entry(owner).or_default().started = true;
    }

    /// Starts workers that were registered with `autorun: false`.
    pub(super) fn clear_hold(&mut self, owner: u64) {
        if let Some(start) = self.gates.get_mut(&owner).filter(|start| start.held) {
            *start = WorkerGate { started: true, held: false };
        }
    }

    /// Removes an owner's workers. Returns whether there were any.
    pub(super) fn remove_owner(&mut self, owner: u64) -> bool {
        self.workers.retain(|worker| worker.owner != owner);
        self.gates.remove(&owner).is_some()
    }

    /// Removes one worker.
    pub(super) fn remove_worker(&mut self, worker: u64) {
        self.workers.retain(|other| other.id != worker);
    }

    fn is_running(&self, worker: &Worker) -> bool {
        self.gates.get(&worker.owner).is_some_and(|start| start.started && !start.held)
    }

    /// Returns the names whose jobs have a worker that runs.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.workers.iter().filter(|worker| self.is_running(worker)).map(|worker| worker.name.clone()).collect()
    }

    /// Returns the newest worker for jobs of this name: after a hot reload the new code gets them.
    pub(super) fn worker(&self, name: &str) -> Option<Worker> {
        self.workers.iter().rev().find(|worker| *worker.name == *name && self.is_running(worker)).cloned()
    }

    /// Returns whether a job waits and may run.
    pub(super) fn has_room(&self) -> bool {
        // The first worker that is registered decides.
        let concurrency = self.workers.first().map_or(0, |worker| worker.concurrency);
        let waiting = self.row.as_ref().is_some_and(|row| !row.paused && row.counts[State::Waiting as usize] > 0);
        waiting && self.active < concurrency
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fanout::Overflow;

    fn options(concurrency: usize, autorun: bool) -> WorkerOptions {
        WorkerOptions { concurrency, autorun, ..WorkerOptions::default() }
    }

    fn mailbox() -> Arc<Mailbox<JobDelivery>> {
        Arc::new(Mailbox::new(1, Overflow::DropOldest))
    }

    #[test]
    fn the_newest_worker_that_runs_gets_a_job_and_each_owner_starts_its_own() {
        let mut queue = QueueState::new("memory", "q".into());
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let id = |queue: &QueueState, name: &str| queue.worker(name).map(|worker| worker.id);
        let (first, replaced) = queue.register(1, &a, options(2, true), false, mailbox());
        assert!(replaced.is_none());
        let (second, _) = queue.register(2, &a, options(5, false), true, mailbox());
        let (other, _) = queue.register(1, &b, options(9, true), false, mailbox());
        assert_eq!((id(&queue, "a"), id(&queue, "b"), id(&queue, "c")), (Some(first), Some(other), None));
        queue.start(2);
        assert_eq!(id(&queue, "a"), Some(first), "it was registered to wait for a resume");
        queue.clear_hold(1);
        assert_eq!(id(&queue, "a"), Some(first), "a resume by another owner");
        queue.clear_hold(2);
        assert_eq!(id(&queue, "a"), Some(second));
        assert_eq!(queue.names(), [a.clone(), a.clone(), b.clone()]);
        // A worker is replaced by one of its owner and name alone.
        let (again, replaced) = queue.register(1, &a, options(7, true), false, mailbox());
        assert_eq!((replaced.unwrap().id, queue.workers.len()), (first, 3));
        assert_eq!(queue.workers[0].concurrency, 2, "that of the one it replaces");
        queue.remove_worker(second);
        assert_eq!(id(&queue, "a"), Some(again));
        assert!(queue.remove_owner(2) && !queue.remove_owner(2) && !queue.remove_owner(3));
        assert_eq!((queue.names().len(), id(&queue, "b")), (2, Some(other)));
        assert!(queue.remove_owner(1) && queue.workers.is_empty());
        assert_eq!((queue.names().len(), id(&queue, "b")), (0, None));
    }

    #[test]
    fn a_worker_that_waits_for_the_start_of_its_queue_gets_nothing_before() {
        let mut queue = QueueState::new("memory", "q".into());
        let name: Arc<str> = "a".into();
        queue.register(1, &name, options(1, true), true, mailbox());
        queue.clear_hold(1);
        assert!(queue.names().is_empty(), "nothing was held");
        queue.start(1);
        assert_eq!(queue.names(), [name]);
    }
}
