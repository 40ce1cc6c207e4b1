//! Jobs in memory.

use std::collections::{BTreeSet, HashMap};
use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::driver::{Command, Driver, wait_for};
use super::engine::Engine;
use super::job::{Job, State};
use super::schedule::Schedule;
use super::storage::{JobStorage, QueueRow};
use crate::error::{Error, Result};
use crate::json::Json;
use crate::op::BoxFuture;
use crate::time::SharedClock;

/// What jobs of a queue and state are sorted by: their order, then their seq.
type Position = (i64, i64, i64);

/// Jobs in memory: as many indexes as there are questions.
#[derive(Default)]
pub(super) struct MemoryStorage {
    jobs: HashMap<i64, (Job, Json)>,
    ids: HashMap<(i64, Arc<str>), i64>,
    states: HashMap<(i64, State), BTreeSet<Position>>,
    waiting: HashMap<(i64, Arc<str>), BTreeSet<Position>>,
    delayed: BTreeSet<Position>,
    last_seq: i64,
    last_queue: i64,
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
                    // Names may be many over time, unlike queues.
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

    fn begin(&mut self, job: &Job) -> Result<()> {
        if let Some((stored, _)) = self.jobs.get_mut(&job.seq) {
            stored.begun = true;
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

    fn survive_power_loss(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Runs commands at once, under a lock, and a timer for what is due later.
pub(super) struct MemoryDriver {
    engine: Mutex<Engine>,
    clock: SharedClock,
    /// Tells the timer to look again.
    sooner: Arc<Notify>,
    ended: AtomicBool,
}

impl MemoryDriver {
    pub(super) fn start(runtime: &Handle, clock: SharedClock) -> Arc<Self> {
        let opener = Box::new(|| Ok(Box::new(MemoryStorage::default()) as Box<dyn JobStorage>));
        let sooner = Arc::new(Notify::new());
        let driver = Arc::new(Self {
            engine: Mutex::new(Engine::new(clock.clone(), opener)),
            clock,
            sooner: sooner.clone(),
            ended: AtomicBool::new(false),
        });
        runtime.spawn(Self::keep_time(Arc::downgrade(&driver), sooner));
        driver
    }

    /// The timer. It ends with the driver.
    async fn keep_time(driver: Weak<Self>, sooner: Arc<Notify>) {
        while let Some(this) = driver.upgrade().filter(|this| !this.ended.load(Ordering::Acquire)) {
            let wait = {
                let mut engine = this.lock();
                // Memory does not fail.
                _ = engine.finish_step();
                wait_for(engine.next_wake(), this.clock.now_ms())
            };
            drop(this);
            _ = tokio::time::timeout(wait, sooner.notified()).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Engine> {
        // A panic under this lock would be a defect of ours; the data is plain, and refusing for ever would not mend it.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver for MemoryDriver {
    fn submit(&self, command: Command) {
        let (reply, end) = {
            let mut engine = self.lock();
            let before = engine.next_wake();
            let reply = command(Ok(&mut engine));
            let end = engine.finish_step();
            if engine.next_wake().is_some_and(|wake| before.is_none_or(|before| wake < before)) {
                self.sooner.notify_one();
            }
            (reply, end)
        };
        reply(end.err());
    }

    fn end(&self) -> BoxFuture<()> {
        self.ended.store(true, Ordering::Release);
        *self.lock() = Engine::new(self.clock.clone(), Box::new(|| Err(Error::closed("the queue"))));
        self.sooner.notify_one();
        Box::pin(ready(Ok(())))
    }
}

impl Drop for MemoryDriver {
    fn drop(&mut self) {
        self.sooner.notify_one();
    }
}
