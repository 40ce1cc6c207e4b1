//! The queue of jobs for the writer, in the order of the calls.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::readers::Reader;
use super::view::Tx;
use crate::error::{Error, Result};
use crate::sync::lock;
use crate::wake::{self, Wake};

/// What a call changes, or reads.
#[derive(Clone, Copy)]
pub(super) enum Footprint {
    /// Nothing in particular.
    Nothing,
    /// One thing.
    One(u64),
    /// An entry and the collection that it is in.
    Both(u64, u64),
    /// One key.
    Key(u64),
    /// Any key.
    AnyKey,
    /// Everything.
    All,
}

impl Footprint {
    pub(super) fn subject(name: &str) -> Self {
        Self::One(hash(("subject", name)))
    }

    pub(super) fn consumer(name: &str) -> Self {
        Self::One(hash(("consumer", name)))
    }

    pub(super) fn key(name: &str) -> Self {
        Self::Key(hash(("key", name)))
    }

    /// Returns the footprint of a change or a read of one entry.
    pub(super) fn entry(kind: &str, collection: &str, id: &str) -> Self {
        Self::Both(hash((kind, collection, id)), hash((kind, collection)))
    }

    /// Returns the footprint of a read of a collection.
    pub(super) fn collection(kind: &str, collection: &str) -> Self {
        Self::One(hash((kind, collection)))
    }
}

fn hash(what: impl Hash) -> u64 {
    static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    STATE.hash_one(what)
}

/// Called with the outcome of the job's transaction.
pub(super) type Finish = Box<dyn FnOnce(&Result<()>) + Send>;

/// The outcome of a job within its transaction.
pub(super) enum Step {
    /// Done. The callback is called after the commit.
    Done(Finish),
    /// A long read, which continues on a reader that sees the database as this job would.
    Detach(Box<dyn FnOnce(Result<Reader>) + Send>),
}

/// The work of a job, in a transaction or with the reason why there is none.
pub(super) type Work = Box<dyn FnOnce(Result<&mut Tx<'_>, &Error>) -> Step + Send>;

/// A call that the writer carries out.
pub(super) struct WriteJob {
    pub(super) work: Work,
    /// It changes something: refused once a write has failed.
    pub(super) writes: bool,
    /// It survives power loss once it is acknowledged.
    pub(super) durable: bool,
    /// No caller waits for it: when it comes says nothing about when writes come.
    pub(super) is_background: bool,
}

/// Number of queued jobs at which the writer is woken although the caller may queue more.
const WAKE_THRESHOLD: usize = 64;

struct State {
    jobs: VecDeque<WriteJob>,
    /// Jobs queued since the beginning, and jobs done.
    queued: u64,
    done: u64,
    /// The last unfinished job that changes something, by the hash of that.
    touched: HashMap<u64, u64>,
    keys_touched: u64,
    asleep: bool,
    /// Jobs, from the first on, that the writer may take. Callers that queue more in their turn release theirs at its end.
    released: usize,
    woken: bool,
    ending: bool,
    dead: Option<Error>,
}

/// The queue of jobs for the writer.
pub(super) struct WriteQueue {
    state: Mutex<State>,
    arrival: Condvar,
}

/// What the writer does next.
pub(super) enum Next {
    /// These jobs.
    Jobs(VecDeque<WriteJob>),
    /// There is no job: background work may be due.
    Nothing,
    /// Close the store: the last adapter was closed.
    End,
}

impl WriteQueue {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                queued: 0,
                done: 0,
                touched: HashMap::new(),
                keys_touched: 0,
                asleep: false,
                released: 0,
                woken: false,
                ending: false,
                dead: None,
            }),
            arrival: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Queues a job, unless the writer has ended. Jobs queued in one turn of a caller are committed together.
    pub(super) fn push(self: &Arc<Self>, footprint: Footprint, job: WriteJob) -> Result<()> {
        let deferred = wake::defer(self);
        let mut state = self.lock();
        if let Some(error) = &state.dead {
            return Err(error.clone());
        }
        state.queued += 1;
        if job.writes {
            let at = state.queued;
            state.touch(footprint, at);
        }
        state.jobs.push_back(job);
        if !deferred || state.jobs.len() - state.released >= WAKE_THRESHOLD {
            state.released = state.jobs.len();
        }
        if state.released > 0 && std::mem::take(&mut state.asleep) {
            drop(state);
            self.arrival.notify_one();
        }
        Ok(())
    }

    /// Reserves the next place in the order for a write on the calling thread, if nothing is queued or in flight. The
    /// caller holds the writer's lock.
    pub(super) fn try_claim_inline(&self, footprint: Footprint) -> bool {
        let mut state = self.lock();
        let free = state.dead.is_none() && state.done == state.queued;
        if free {
            state.queued += 1;
            let at = state.queued;
            state.touch(footprint, at);
        }
        free
    }

    /// Returns whether a read must be queued behind a write.
    pub(super) fn conflicts_with(&self, footprint: Footprint) -> bool {
        let state = self.lock();
        if state.done == state.queued {
            return false;
        }
        let changes = |what: &u64| state.touched.contains_key(what);
        match footprint {
            Footprint::Nothing => false,
            Footprint::One(what) | Footprint::Both(what, _) => changes(&what),
            Footprint::Key(what) => changes(&what) || state.keys_touched > state.done,
            Footprint::AnyKey | Footprint::All => true,
        }
    }

    /// Waits for jobs until the timeout, and takes up to `max` of them.
    pub(super) fn next(&self, timeout: Option<Duration>, max: usize) -> Next {
        let mut state = self.lock();
        if timeout != Some(Duration::ZERO) {
            // Evaluated after each wake-up, as more jobs may be expected by then.
            let waits = |state: &mut State| {
                state.asleep = !state.has_jobs() && !state.ending && !state.woken;
                state.asleep
            };
            state = match timeout {
                Some(timeout) => {
                    self.arrival.wait_timeout_while(state, timeout, waits).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.arrival.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner),
            };
            state.asleep = false;
        }
        state.woken = false;
        if state.has_jobs() {
            // Those that are not released are taken along.
            let rest = if state.jobs.len() > max { state.jobs.split_off(max) } else { VecDeque::new() };
            state.released = rest.len();
            return Next::Jobs(std::mem::replace(&mut state.jobs, rest));
        }
        if state.ending { Next::End } else { Next::Nothing }
    }

    /// Records that jobs are done.
    pub(super) fn finished(&self, count: u64) {
        let mut state = self.lock();
        state.done += count;
        let done = state.done;
        if done == state.queued {
            state.touched.clear();
        } else {
            state.touched.retain(|_, at| *at > done);
        }
    }

    /// Returns the number of jobs that are queued or in flight.
    pub(super) fn depth(&self) -> u64 {
        let state = self.lock();
        state.queued - state.done
    }

    /// Wakes the writer to look for background work.
    pub(super) fn wake_idle(&self) {
        self.lock().woken = true;
        self.arrival.notify_one();
    }

    /// Ends the writer after what is queued.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ending = true;
        state.asleep = false;
        drop(state);
        self.arrival.notify_one();
    }

    /// Refuses jobs from now on. Returns those that were queued.
    pub(super) fn die(&self, error: Error) -> VecDeque<WriteJob> {
        let mut state = self.lock();
        state.dead = Some(error);
        state.released = 0;
        std::mem::take(&mut state.jobs)
    }

    /// Returns why jobs are refused, if they are.
    pub(super) fn dead(&self) -> Option<Error> {
        self.lock().dead.clone()
    }
}

impl Wake for WriteQueue {
    fn wake(&self) {
        let mut state = self.lock();
        state.released = state.jobs.len();
        if state.released > 0 && std::mem::take(&mut state.asleep) {
            drop(state);
            self.arrival.notify_one();
        }
    }
}

impl State {
    /// Returns whether there are jobs for the writer to take now.
    fn has_jobs(&self) -> bool {
        self.released > 0 || (self.ending && !self.jobs.is_empty())
    }

    fn touch(&mut self, footprint: Footprint, at: u64) {
        match footprint {
            Footprint::Nothing | Footprint::All => {}
            Footprint::One(what) | Footprint::Key(what) => _ = self.touched.insert(what, at),
            Footprint::Both(entry, collection) => {
                self.touched.insert(entry, at);
                self.touched.insert(collection, at);
            }
            Footprint::AnyKey => self.keys_touched = at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &Arc<WriteQueue>) {
        let work: Work = Box::new(|_| Step::Done(Box::new(|_| {})));
        queue.push(Footprint::Nothing, WriteJob { work, writes: true, durable: false, is_background: false }).unwrap();
    }

    fn taken(queue: &WriteQueue) -> usize {
        match queue.next(Some(Duration::ZERO), 100) {
            Next::Jobs(jobs) => jobs.len(),
            Next::Nothing | Next::End => 0,
        }
    }

    #[test]
    fn a_turn_that_goes_on_holds_up_its_own_jobs_and_no_others() {
        let queue = Arc::new(WriteQueue::new());
        wake::coalesce_wakes(|| {
            push(&queue);
            assert_eq!(taken(&queue), 0, "more may come in this turn");
            std::thread::scope(|scope| _ = scope.spawn(|| wake::coalesce_wakes(|| push(&queue))));
            assert_eq!(taken(&queue), 2, "another thread's turn has ended");
            std::thread::scope(|scope| _ = scope.spawn(|| wake::coalesce_wakes(|| push(&queue))));
            push(&queue);
            assert_eq!(taken(&queue), 2, "what was released stays so");
            (0..WAKE_THRESHOLD).for_each(|_| push(&queue));
            assert_eq!(taken(&queue), WAKE_THRESHOLD, "so many are worth a transaction");
            push(&queue);
        });
        assert_eq!(taken(&queue), 1);
    }
}
