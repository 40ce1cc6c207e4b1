//! A queue while the process runs: its workers, and how many of its jobs are with them.

use std::collections::HashMap;
use std::sync::Arc;

use super::events::Run;
use super::job::State;
use super::options::WorkerOptions;
use super::storage::QueueRow;
use crate::fanout::{Mailbox, next_id};

/// Runs the jobs of one name.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) id: u64,
    /// The adapter that it belongs to.
    pub(super) owner: u64,
    name: Arc<str>,
    concurrency: usize,
    pub(super) mailbox: Arc<Mailbox<Run>>,
}

/// Whether an adapter's workers of a queue work.
#[derive(Clone, Copy, Default)]
struct Start {
    started: bool,
    /// Registered with `autorun: false`, and not resumed since.
    held: bool,
}

pub(super) struct Lane {
    pub(super) name: Arc<str>,
    /// What is stored; None where nothing is.
    pub(super) row: Option<QueueRow>,
    /// Jobs with workers, those that were removed meanwhile included.
    pub(super) active: usize,
    workers: Vec<Worker>,
    starts: HashMap<u64, Start>,
}

impl Lane {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name, row: None, active: 0, workers: Vec::new(), starts: HashMap::new() }
    }

    pub(super) fn paused(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.paused)
    }

    /// Adds a worker, or replaces the owner's worker of that name.
    pub(super) fn register(
        &mut self,
        owner: u64,
        name: &Arc<str>,
        options: WorkerOptions,
        mailbox: Arc<Mailbox<Run>>,
    ) -> u64 {
        self.starts.entry(owner).or_insert(Start { started: false, held: !options.autorun });
        let mut worker = Worker { id: next_id(), owner, name: name.clone(), concurrency: options.concurrency, mailbox };
        let id = worker.id;
        match self.workers.iter_mut().find(|other| other.owner == owner && other.name == *name) {
            Some(old) => {
                worker.concurrency = old.concurrency;
                *old = worker;
            }
            None => self.workers.push(worker),
        }
        id
    }

    pub(super) fn start(&mut self, owner: u64) {
        self.starts.entry(owner).or_default().started = true;
    }

    /// Resuming also starts workers that were registered with `autorun: false`.
    pub(super) fn lift_hold(&mut self, owner: u64) {
        if let Some(start) = self.starts.get_mut(&owner).filter(|start| start.held) {
            *start = Start { started: true, held: false };
        }
    }

    /// Forgets an owner's workers; whether there were any.
    pub(super) fn forget(&mut self, owner: u64) -> bool {
        self.workers.retain(|worker| worker.owner != owner);
        self.starts.remove(&owner).is_some()
    }

    /// Forgets one worker.
    pub(super) fn dismiss(&mut self, worker: u64) {
        self.workers.retain(|other| other.id != worker);
    }

    fn works(&self, worker: &Worker) -> bool {
        self.starts.get(&worker.owner).is_some_and(|start| start.started && !start.held)
    }

    /// The names whose jobs can run now.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.workers.iter().filter(|worker| self.works(worker)).map(|worker| worker.name.clone()).collect()
    }

    /// The newest worker for jobs of this name: after a hot reload the new code gets them.
    pub(super) fn worker(&self, name: &str) -> Option<Worker> {
        self.workers.iter().rev().find(|worker| *worker.name == *name && self.works(worker)).cloned()
    }

    /// Whether a job waits that may run now.
    pub(super) fn has_room(&self) -> bool {
        // The first worker decides; when its owner goes, the first of those that are left.
        let concurrency = self.workers.first().map_or(0, |worker| worker.concurrency);
        let waiting = self.row.as_ref().is_some_and(|row| !row.paused && row.counts[State::Waiting as usize] > 0);
        waiting && self.active < concurrency
    }
}
