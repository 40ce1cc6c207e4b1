//! The adapter, and where its calls run: on the caller's thread, on the writer's, or on one for blocking work.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::Durability;
use super::config::FileStoreOptions;
use super::errors::{self, writer_died};
use super::open_store::OpenStore;
use super::readers::Reader;
use super::registry;
use super::view::{Budget, Tx, View};
use super::write_queue::{Footprint, Step, WriteJob};
use crate::disk;
use crate::error::{Error, Result};
use crate::fanout::Mailbox;
use crate::metrics::{APPEND, Histogram};
use crate::op::{Completion, Op, completion};
use crate::store::{Stats, Stored};
use crate::sync::lock;
use crate::time::SharedClock;

/// How much of the database a read may have to look at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// One row.
    Point,
    /// As many as there are.
    Range,
}

/// Runs `work` in the transaction, or returns the reason why there is none.
pub(super) fn within<T>(tx: Result<&mut Tx<'_>, &Error>, work: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
    work(tx.map_err(Error::clone)?)
}

/// Calls of one adapter.
pub(super) struct Counters {
    pub(super) appends: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) append_seconds: Arc<Histogram>,
}

impl Default for Counters {
    fn default() -> Self {
        let (appends, reads, writes, errors) = Default::default();
        Self { appends, reads, writes, errors, append_seconds: APPEND.with(&["file"]) }
    }
}

impl Counters {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        vec![
            ("appends", get(&self.appends)),
            ("reads", get(&self.reads)),
            // What the writer counts includes the appends.
            ("writes", get(&self.writes) - get(&self.appends)),
            ("errors", get(&self.errors)),
        ]
    }

    /// Counts a result that is an error.
    pub(super) fn count_error<T>(&self, result: &Result<T>) {
        if result.is_err() {
            Self::count(&self.errors);
        }
    }
}

/// A pattern, and where its events wait.
type Subscription = (Arc<str>, Arc<Mailbox<Stored>>);

#[derive(Default)]
pub(super) struct State {
    pub(super) store: Option<Arc<OpenStore>>,
    pub(super) closed: bool,
    pub(super) subscriptions: HashMap<u64, Subscription>,
    /// The leases of consumers on this adapter, which are lost when it is closed.
    pub(super) leases: Vec<Weak<watch::Sender<bool>>>,
}

/// A store in a directory. All that this process has on one directory share what is open.
pub struct FileStore {
    options: FileStoreOptions,
    pub(super) clock: SharedClock,
    pub(super) runtime: Handle,
    pub(super) counters: Arc<Counters>,
    state: Mutex<State>,
}

impl FileStore {
    /// Creates a store that is opened by its first call. Long reads run on `runtime`'s threads for blocking work.
    pub fn new(mut options: FileStoreOptions, clock: SharedClock, runtime: Handle) -> Self {
        options.data_dir = disk::absolute(options.data_dir);
        Self { options, clock, runtime, counters: Arc::default(), state: Mutex::default() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Returns the open store, or one that is being opened. One that could not be opened is opened again.
    pub(super) fn store(&self) -> Result<Arc<OpenStore>> {
        let mut state = self.state();
        if state.closed {
            return Err(Error::closed("the store"));
        }
        match &state.store {
            Some(store) if store.queue.dead().is_none() => return Ok(store.clone()),
            Some(dead) => _ = registry::release(dead),
            None => {}
        }
        state.store = None;
        let store = registry::acquire(&self.options, &self.clock)?;
        state.store = Some(store.clone());
        Ok(store)
    }
}

impl FileStore {
    /// Returns the open store for a write.
    pub(super) fn writable(&self) -> Result<Arc<OpenStore>> {
        if self.options.read_only {
            return Err(errors::read_only(&self.options.data_dir));
        }
        self.store()
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(store) = state.store.take() {
            end_subscriptions(&store, state.subscriptions.drain());
            registry::release(&store);
        }
    }
}

/// Ends subscriptions and closes their mailboxes.
pub(super) fn end_subscriptions(store: &OpenStore, subscriptions: impl IntoIterator<Item = (u64, Subscription)>) {
    for (id, (pattern, mailbox)) in subscriptions {
        store.subscribers.remove(&pattern, id);
        mailbox.close();
    }
}

impl FileStore {
    /// Starts a write.
    pub(super) fn write<T: Send + 'static>(
        &self,
        footprint: Footprint,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        self.write_then(footprint, |tx| work(tx).map(|value| (value, ())), |_, _, ()| {})
    }

    /// Starts a write for which no caller waits, on the writer's thread.
    pub(super) fn write_in_background(
        &self,
        footprint: Footprint,
        work: impl FnOnce(&mut Tx<'_>) -> Result<()> + Send + 'static,
    ) -> Op<()> {
        Counters::count(&self.counters.writes);
        let store = match self.writable() {
            Ok(store) => store,
            Err(error) => return self.failed(error),
        };
        let (completer, completion) = completion(writer_died);
        let counters = self.counters.clone();
        let mut job = self.job(true, move |tx| {
            let result = within(tx, work);
            Step::Done(Box::new(move |outcome| {
                let result = outcome.clone().and(result);
                counters.count_error(&result);
                completer.complete(result);
            }))
        });
        job.is_background = true;
        self.queue(&store, footprint, job, completion)
    }

    /// Starts a write. `after` is called with both results of `work` when it is committed, before the operation completes
    /// with the first.
    pub(super) fn write_then<T: Send + 'static, U: Send + 'static>(
        &self,
        footprint: Footprint,
        work: impl FnOnce(&mut Tx<'_>) -> Result<(T, U)> + Send + 'static,
        after: impl FnOnce(&Arc<OpenStore>, &T, U) + Send + 'static,
    ) -> Op<T> {
        Counters::count(&self.counters.writes);
        let store = match self.writable() {
            Ok(store) => store,
            Err(error) => return self.failed(error),
        };
        let (completer, completion) = completion(writer_died);
        let (counters, shared) = (self.counters.clone(), store.clone());
        let job = self.job(true, move |tx| {
            let result = within(tx, work);
            Step::Done(Box::new(move |outcome| {
                let result = outcome.clone().and(result);
                counters.count_error(&result);
                completer.complete(result.map(|(value, more)| {
                    after(&shared, &value, more);
                    value
                }));
            }))
        });
        match self.commit_now(&store, footprint, job) {
            Some(job) => self.queue(&store, footprint, job, completion),
            None => completion.into_op(),
        }
    }

    /// Commits on the calling thread if that needs neither a lock wait nor an fsync. Returns the job if it must be queued.
    fn commit_now(&self, store: &Arc<OpenStore>, footprint: Footprint, job: WriteJob) -> Option<WriteJob> {
        if job.durable || !store.is_open() || !store.commit_mode.is_inline() {
            return Some(job);
        }
        let Ok(mut writer) = store.writer.try_lock() else { return Some(job) };
        let Some(writer) = writer.as_mut() else { return Some(job) };
        if !writer.is_quick() || !store.queue.try_claim_inline(footprint) {
            return Some(job);
        }
        let job = writer.run_now(store, job);
        match &job {
            None => {
                store.gauges.inline_writes.fetch_add(1, Ordering::Relaxed);
                if std::mem::take(&mut writer.cache.background_work) {
                    store.queue.wake_idle();
                }
            }
            // It is queued like any other.
            Some(_) => store.queue.finished(1),
        }
        job
    }

    pub(super) fn job(
        &self,
        writes: bool,
        work: impl FnOnce(Result<&mut Tx<'_>, &Error>) -> Step + Send + 'static,
    ) -> WriteJob {
        let durable = self.options.durability == Durability::Disk;
        WriteJob { work: Box::new(work), writes, durable, is_background: false }
    }

    pub(super) fn queue<T: Send + 'static>(
        &self,
        store: &OpenStore,
        footprint: Footprint,
        job: WriteJob,
        completion: Completion<T>,
    ) -> Op<T> {
        match store.queue.push(footprint, job) {
            Ok(()) => Op::Completion(completion),
            Err(error) => self.failed(error),
        }
    }

    pub(super) fn failed<T>(&self, error: Error) -> Op<T> {
        Counters::count(&self.counters.errors);
        Op::Ready(Err(error))
    }

    /// Starts a read of one row.
    pub(super) fn point<T: Send + 'static>(
        &self,
        footprint: Footprint,
        read: impl Fn(&View<'_>) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        self.read_view(footprint, Extent::Point, move |view, _| read(view).map(Some))
    }

    /// Starts a read. It runs on the calling thread unless it must see a write that is queued. If `read` returns None, because
    /// the budget was spent, it is called again without one on a thread for blocking work.
    pub(super) fn read_view<T: Send + 'static>(
        &self,
        footprint: Footprint,
        extent: Extent,
        read: impl Fn(&View<'_>, Budget) -> Result<Option<T>> + Send + 'static,
    ) -> Op<T> {
        Counters::count(&self.counters.reads);
        let store = match self.store() {
            Ok(store) => store,
            Err(error) => return self.failed(error),
        };
        if store.is_open() && !store.queue.conflicts_with(footprint) {
            return self.read_now(&store, extent, read);
        }
        let (completer, completion) = completion(writer_died);
        let (counters, runtime, shared) = (self.counters.clone(), self.runtime.clone(), store.clone());
        let job = self.job(false, move |tx| match within(tx, |tx| read(&tx.view, Budget::short())) {
            Ok(None) => Step::Detach(Box::new(move |reader| {
                runtime.spawn_blocking(move || {
                    let result = reader.and_then(|reader| read_unbounded(&shared, &reader, &read));
                    counters.count_error(&result);
                    completer.complete(result);
                });
            })),
            result => Step::Done(Box::new(move |outcome| {
                let result = outcome.clone().and(result.and_then(|found| found.ok_or_else(writer_died)));
                counters.count_error(&result);
                completer.complete(result);
            })),
        });
        self.queue(&store, Footprint::Nothing, job, completion)
    }

    fn read_now<T: Send + 'static>(
        &self,
        store: &Arc<OpenStore>,
        extent: Extent,
        read: impl Fn(&View<'_>, Budget) -> Result<Option<T>> + Send + 'static,
    ) -> Op<T> {
        let bounded = || {
            let reader = store.readers.get()?;
            if extent == Extent::Range {
                reader.begin_snapshot()?;
            }
            let found = read(&store.view(reader.conn()?), Budget::short())?;
            Ok((found, reader))
        };
        match bounded() {
            Ok((Some(found), _)) => Op::ok(found),
            Ok((None, reader)) => {
                let (store, counters) = (store.clone(), self.counters.clone());
                let task = self.runtime.spawn_blocking(move || {
                    let result = read_unbounded(&store, &reader, &read);
                    counters.count_error(&result);
                    result
                });
                Op::pending(async move { task.await.unwrap_or_else(|_| Err(writer_died())) })
            }
            Err(error) => self.failed(error),
        }
    }
}

fn read_unbounded<T>(
    store: &OpenStore,
    reader: &Reader,
    read: impl Fn(&View<'_>, Budget) -> Result<Option<T>>,
) -> Result<T> {
    read(&store.view(reader.conn()?), Budget::unlimited())?.ok_or_else(writer_died)
}
