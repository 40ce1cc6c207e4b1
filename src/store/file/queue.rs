//! The queue to the writer: what is to be done, in the order in which it was called for.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::readers::Reader;
use super::view::Tx;
use crate::error::{Error, Result};
use crate::wake::{self, Wake};

/// What a call changes, or needs to see the changes of.
#[derive(Clone, Copy)]
pub(super) enum Scope {
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

impl Scope {
    pub(super) fn subject(name: &str) -> Self {
        Self::One(hash(("subject", name)))
    }

    pub(super) fn key(name: &str) -> Self {
        Self::Key(hash(("key", name)))
    }

    /// A change of an entry, or a read of it alone.
    pub(super) fn entry(kind: &str, collection: &str, id: &str) -> Self {
        Self::Both(hash((kind, collection, id)), hash((kind, collection)))
    }

    /// A read of a whole collection.
    pub(super) fn collection(kind: &str, collection: &str) -> Self {
        Self::One(hash((kind, collection)))
    }
}

fn hash(what: impl Hash) -> u64 {
    static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    STATE.hash_one(what)
}

/// Called when a job's transaction is over, with how it ended.
pub(super) type Finish = Box<dyn FnOnce(&Result<()>) + Send>;

/// What a job came to within its transaction.
pub(super) enum Step {
    /// It is done; this is to be told after the commit.
    Done(Finish),
    /// A long read: it goes on on a reader of its own that sees what the job would have seen.
    Long(Box<dyn FnOnce(Result<Reader>) + Send>),
}

/// The work of a job: in a transaction, or refused.
pub(super) type Work = Box<dyn FnOnce(Result<&mut Tx<'_>, &Error>) -> Step + Send>;

/// A call on its way to the writer.
pub(super) struct Job {
    pub(super) work: Work,
    /// It changes something: refused once a write has failed.
    pub(super) writes: bool,
    /// It survives power loss once it is acknowledged.
    pub(super) durable: bool,
}

/// So many jobs are worth a transaction, whether or not the caller has more.
const ENOUGH: usize = 64;

struct State {
    jobs: VecDeque<Job>,
    /// Jobs ever queued, and how many of them are over.
    queued: u64,
    done: u64,
    /// The last job that changes a thing, by the thing's hash, as long as it is not over.
    touched: HashMap<u64, u64>,
    keys_touched: u64,
    asleep: bool,
    /// The caller has more: it wakes the writer when it is through.
    more: bool,
    nudged: bool,
    ending: bool,
    dead: Option<Error>,
}

/// The queue.
pub(super) struct Queue {
    state: Mutex<State>,
    arrival: Condvar,
}

/// What the writer is to do next.
pub(super) enum Next {
    /// These jobs.
    Jobs(VecDeque<Job>),
    /// Nobody called for anything: there may be work in the background.
    Nothing,
    /// End: nobody is left who could call.
    End,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                queued: 0,
                done: 0,
                touched: HashMap::new(),
                keys_touched: 0,
                asleep: false,
                more: false,
                nudged: false,
                ending: false,
                dead: None,
            }),
            arrival: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job, unless the writer has ended. Jobs that a caller has in one turn are taken together.
    pub(super) fn push(self: &Arc<Self>, scope: Scope, job: Job) -> Result<()> {
        let left = wake::defer(self);
        let mut state = self.lock();
        if let Some(error) = &state.dead {
            return Err(error.clone());
        }
        state.queued += 1;
        if job.writes {
            let at = state.queued;
            state.touch(scope, at);
        }
        state.jobs.push_back(job);
        state.more = left && state.jobs.len() < ENOUGH;
        if !state.more && std::mem::take(&mut state.asleep) {
            drop(state);
            self.arrival.notify_one();
        }
        Ok(())
    }

    /// Takes a place in the order for a write that runs at once, if nothing is queued or under way. The caller has
    /// locked the core, so nobody else runs anything meanwhile.
    pub(super) fn claim(&self, scope: Scope) -> bool {
        let mut state = self.lock();
        let free = state.dead.is_none() && state.done == state.queued;
        if free {
            state.queued += 1;
            let at = state.queued;
            state.touch(scope, at);
        }
        free
    }

    /// Whether a read of this must take its turn behind what is queued.
    pub(super) fn concerns(&self, scope: Scope) -> bool {
        let state = self.lock();
        if state.done == state.queued {
            return false;
        }
        let changes = |what: &u64| state.touched.contains_key(what);
        match scope {
            Scope::Nothing => false,
            Scope::One(what) | Scope::Both(what, _) => changes(&what),
            Scope::Key(what) => changes(&what) || state.keys_touched > state.done,
            Scope::AnyKey | Scope::All => true,
        }
    }

    /// Waits for jobs, at most so long, and takes up to `max` of them.
    pub(super) fn next(&self, patience: Option<Duration>, max: usize) -> Next {
        let mut state = self.lock();
        if patience != Some(Duration::ZERO) {
            // Asked again after each wake, as there may be more to come by then.
            let waits = |state: &mut State| {
                state.asleep = !state.has_jobs() && !state.ending && !state.nudged;
                state.asleep
            };
            state = match patience {
                Some(patience) => {
                    self.arrival.wait_timeout_while(state, patience, waits).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.arrival.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner),
            };
            state.asleep = false;
        }
        state.nudged = false;
        if state.has_jobs() {
            if state.jobs.len() <= max {
                return Next::Jobs(std::mem::take(&mut state.jobs));
            }
            let rest = state.jobs.split_off(max);
            return Next::Jobs(std::mem::replace(&mut state.jobs, rest));
        }
        if state.ending { Next::End } else { Next::Nothing }
    }

    /// So many more jobs are over.
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

    /// Jobs that wait or are under way.
    pub(super) fn depth(&self) -> u64 {
        let state = self.lock();
        state.queued - state.done
    }

    /// DeferredWakes the writer to look for work in the background.
    pub(super) fn nudge(&self) {
        self.lock().nudged = true;
        self.arrival.notify_one();
    }

    /// Lets the writer end when it has done what is queued.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ending = true;
        state.asleep = false;
        drop(state);
        self.arrival.notify_one();
    }

    /// Nothing is taken from now on; what waited is handed back.
    pub(super) fn die(&self, error: Error) -> VecDeque<Job> {
        let mut state = self.lock();
        state.dead = Some(error);
        std::mem::take(&mut state.jobs)
    }

    /// Why nothing is taken any more.
    pub(super) fn dead(&self) -> Option<Error> {
        self.lock().dead.clone()
    }
}

impl Wake for Queue {
    fn wake(&self) {
        let mut state = self.lock();
        state.more = false;
        if std::mem::take(&mut state.asleep) {
            drop(state);
            self.arrival.notify_one();
        }
    }
}

impl State {
    /// Whether there is something for the writer to take now.
    fn has_jobs(&self) -> bool {
        !self.jobs.is_empty() && (!self.more || self.ending)
    }

    fn touch(&mut self, scope: Scope, at: u64) {
        match scope {
            Scope::Nothing | Scope::All => {}
            Scope::One(what) | Scope::Key(what) => _ = self.touched.insert(what, at),
            Scope::Both(entry, collection) => {
                self.touched.insert(entry, at);
                self.touched.insert(collection, at);
            }
            Scope::AnyKey => self.keys_touched = at,
        }
    }
}
