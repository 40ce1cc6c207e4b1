//! The storage of queues in memory.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use super::super::file::Durability;
use super::super::job::{Job, State};
use super::super::schedule::Schedule;
use super::super::storage::{JobStorage, QueueRow};
use crate::backoff::random_name;
use crate::error::{Error, Result};
use crate::json::Json;

/// The sort key of the jobs of a queue and state: their order, then their seq.
type Position = (i64, i64, i64);

/// Jobs in memory, with one index per kind of lookup.
#[derive(Default)]
pub(in crate::queue) struct MemoryStorage {
    jobs: HashMap<i64, (Job, Json)>,
    ids: HashMap<(i64, Arc<str>), i64>,
    states: HashMap<(i64, State), BTreeSet<Position>>,
    waiting: HashMap<(i64, Arc<str>), BTreeSet<Position>>,
    delayed: BTreeSet<Position>,
    last_seq: i64,
    last_queue: i64,
    identity: Option<Arc<str>>,
}

fn position(job: &Job) -> Position {
    (job.order.0, job.order.1, job.seq)
}

impl MemoryStorage {
    fn index(&mut self, job: &Job) {
        let position = position(job);
        self.states.entry((job.queue, job.state)).or_default().insert(position);
        match job.state {
            State::Waiting => _ = self.waiting.entry((job.queue, job.name.clone())).or_default().insert(position),
            State::Delayed => _ = self.delayed.insert(position),
            State::Active | State::Completed | State::Failed => {}
        }
    }

    fn unindex(&mut self, job: &Job) {
        let position = position(job);
        if let Some(set) = self.states.get_mut(&(job.queue, job.state)) {
            set.remove(&position);
        }
        match job.state {
            State::Waiting => {
                let key = (job.queue, job.name.clone());
                if let Some(set) = self.waiting.get_mut(&key) {
                    set.remove(&position);
                    // Over time there can be many names, unlike queues.
                    if set.is_empty() {
                        self.waiting.remove(&key);
                    }
                }
            }
            State::Delayed => _ = self.delayed.remove(&position),
            State::Active | State::Completed | State::Failed => {}
        }
    }

    fn load(&self, positions: impl Iterator<Item = Position>) -> Vec<Job> {
        positions.filter_map(|(_, _, seq)| self.jobs.get(&seq)).map(|(job, _)| job.clone()).collect()
    }
}

impl JobStorage for MemoryStorage {
    fn queues(&mut self) -> Result<Vec<QueueRow>> {
        Ok(Vec::new())
    }

    fn add_queue(&mut self, name: &Arc<str>) -> Result<QueueRow> {
        self.last_queue += 1;
        Ok(QueueRow { key: self.last_queue, name: name.clone(), paused: false, counts: [0; 5], next: 1 })
    }

    fn save_queue(&mut self, _queue: &QueueRow) -> Result<()> {
        Ok(())
    }

    fn insert(&mut self, job: &Job, data: &Json) -> Result<i64> {
        self.last_seq += 1;
        let job = Job { seq: self.last_seq, ..job.clone() };
        self.index(&job);
        self.ids.insert((job.queue, job.id.clone()), job.seq);
        self.jobs.insert(job.seq, (job, data.clone()));
        Ok(self.last_seq)
    }

    fn update(&mut self, job: &Job) -> Result<()> {
        if let Some((old, _)) = self.jobs.get_mut(&job.seq) {
            let old = std::mem::replace(old, job.clone());
            self.unindex(&old);
            self.index(job);
        }
        Ok(())
    }

    fn mark_started(&mut self, job: &Job) -> Result<()> {
        if let Some((stored, _)) = self.jobs.get_mut(&job.seq) {
            stored.started = true;
        }
        Ok(())
    }

    fn delete(&mut self, job: &Job) -> Result<()> {
        if let Some((job, _)) = self.jobs.remove(&job.seq) {
            self.unindex(&job);
            self.ids.remove(&(job.queue, job.id));
        }
        Ok(())
    }

    fn find(&mut self, queue: i64, id: &str) -> Result<Option<Job>> {
        let seq = self.ids.get(&(queue, id.into()));
        Ok(seq.and_then(|seq| self.jobs.get(seq)).map(|(job, _)| job.clone()))
    }

    fn data(&mut self, seq: i64) -> Result<Json> {
        let found = self.jobs.get(&seq).map(|(_, data)| data.clone());
        found.ok_or_else(|| Error::corrupt(format!("job {seq} has no data")))
    }

    fn page(&mut self, queue: i64, state: State, newest_first: bool, offset: u64, limit: u64) -> Result<Vec<Job>> {
        let Some(set) = self.states.get(&(queue, state)) else { return Ok(Vec::new()) };
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let (offset, limit) = (size(offset), size(limit));
        Ok(if newest_first {
            self.load(set.iter().rev().skip(offset).take(limit).copied())
        } else {
            self.load(set.iter().skip(offset).take(limit).copied())
        })
    }

    fn first_waiting(&mut self, queue: i64, name: &str) -> Result<Option<Job>> {
        let first = self.waiting.get(&(queue, name.into())).and_then(BTreeSet::first);
        Ok(self.load(first.copied().into_iter()).pop())
    }

    fn due(&mut self, now_ms: u64, limit: u64) -> Result<Vec<Job>> {
        let due = self.delayed.iter().take_while(|(due, ..)| *due <= now_ms as i64);
        Ok(self.load(due.take(limit as usize).copied()))
    }

    fn shift_delayed(&mut self, by_ms: i64) -> Result<()> {
        for (_, _, seq) in self.delayed.clone() {
            if let Some(mut job) = self.jobs.get(&seq).map(|(job, _)| job.clone()) {
                job.order.0 = job.order.0.saturating_add(by_ms).max(0);
                self.update(&job)?;
            }
        }
        Ok(())
    }

    fn rebase_delayed(&mut self, _now_ms: u64) -> Result<()> {
        Ok(())
    }

    fn next_due(&mut self) -> Result<Option<u64>> {
        Ok(self.delayed.first().map(|(due, ..)| *due as u64))
    }

    fn schedules(&mut self) -> Result<Vec<Schedule>> {
        Ok(Vec::new())
    }

    fn save_schedule(&mut self, _schedule: &Schedule) -> Result<()> {
        Ok(())
    }

    fn delete_schedule(&mut self, _id: &str) -> Result<()> {
        Ok(())
    }

    fn begin_step(&mut self) -> Result<()> {
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        Ok(())
    }

    fn set_durability(&mut self, _durability: Durability) -> Result<()> {
        Ok(())
    }

    fn durability(&mut self) -> Result<Durability> {
        Ok(Durability::Os)
    }

    fn identity(&mut self) -> Result<Arc<str>> {
        Ok(self.identity.get_or_insert_with(|| random_name().into()).clone())
    }

    fn backup(&mut self, _path: &Path) -> Result<()> {
        Err(Error::invalid("a queue in memory has no files to copy"))
    }

    fn verify(&mut self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}
