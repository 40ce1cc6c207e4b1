//! How a call is carried out: at once on the caller's thread, by the writer, or on a thread for blocking work.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::engine::Engine;
use super::queue::{Job, Scope, Step};
use super::readers::Reader;
use super::view::{Budget, Tx, View};
use super::{Counters, Durability, FileStore};
use crate::error::{Error, Result};
use crate::op::{Completion, Op, completion};

/// How much of the database a read may have to look at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// One row.
    Point,
    /// As many as there are.
    Range,
}

/// In the transaction, or the reason why there is none.
pub(super) fn within<T>(tx: Result<&mut Tx<'_>, &Error>, work: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
    work(tx.map_err(Error::clone)?)
}

/// The error of an operation whose thread has ended under it.
pub(super) fn gone() -> Error {
    Error::io("the store's thread ended before the operation did: close the store and open it again").maybe_applied()
}

impl FileStore {
    /// A write.
    pub(super) fn write<T: Send + 'static>(
        &self,
        scope: Scope,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        self.write_then(scope, work, |_, _| {})
    }

    /// A write; `after` is called when it is committed, before the operation ends.
    pub(super) fn write_then<T: Send + 'static>(
        &self,
        scope: Scope,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
        after: impl FnOnce(&Engine, &T) + Send + 'static,
    ) -> Op<T> {
        Counters::count(&self.counters.writes);
        let engine = match self.engine() {
            Ok(engine) => engine,
            Err(error) => return self.failed(error),
        };
        let (completer, completion) = completion(gone);
        let (counters, shared) = (self.counters.clone(), engine.clone());
        let job = self.job(true, move |tx| {
            let result = within(tx, work);
            Step::Done(Box::new(move |outcome| {
                let result = outcome.clone().and(result);
                counters.failed(&result);
                if let Ok(value) = &result {
                    after(&shared, value);
                }
                completer.complete(result);
            }))
        });
        match self.commit_now(&engine, scope, job) {
            Some(job) => self.queue(&engine, scope, job, completion),
            None => completion.into_op(),
        }
    }

    /// Runs a write on this thread, if that is quicker and keeps it waiting for nobody and no disk. Otherwise the job
    /// comes back.
    fn commit_now(&self, engine: &Arc<Engine>, scope: Scope, job: Job) -> Option<Job> {
        if job.durable || !engine.is_open() || !engine.pace.is_slow() {
            return Some(job);
        }
        let Ok(mut core) = engine.core.try_lock() else { return Some(job) };
        let Some(core) = core.as_mut().filter(|core| core.is_quick()) else { return Some(job) };
        if !engine.queue.claim(scope) {
            return Some(job);
        }
        let job = core.run_now(engine, job);
        match &job {
            None => {
                engine.gauges.inline_writes.fetch_add(1, Ordering::Relaxed);
                if std::mem::take(&mut core.memory.news) {
                    engine.queue.nudge();
                }
            }
            // It gives its place back, and is queued like any other.
            Some(_) => engine.queue.finished(1),
        }
        job
    }

    pub(super) fn job(
        &self,
        writes: bool,
        work: impl FnOnce(Result<&mut Tx<'_>, &Error>) -> Step + Send + 'static,
    ) -> Job {
        Job { work: Box::new(work), writes, durable: self.options.durability == Durability::Disk }
    }

    pub(super) fn queue<T: Send + 'static>(
        &self,
        engine: &Engine,
        scope: Scope,
        job: Job,
        completion: Completion<T>,
    ) -> Op<T> {
        match engine.queue.push(scope, job) {
            Ok(()) => Op::Completion(completion),
            Err(error) => self.failed(error),
        }
    }

    pub(super) fn failed<T>(&self, error: Error) -> Op<T> {
        Counters::count(&self.counters.errors);
        Op::Ready(Err(error))
    }

    /// A read of one row.
    pub(super) fn point<T: Send + 'static>(
        &self,
        scope: Scope,
        read: impl Fn(&View<'_>) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        self.read_view(scope, Extent::Point, move |view, _| read(view).map(Some))
    }

    /// A read: at once if nothing that it must see is on its way, and to the end if that is short. `read` answers None
    /// where the budget does not last; then it is called again, without one, where it may take its time.
    pub(super) fn read_view<T: Send + 'static>(
        &self,
        scope: Scope,
        extent: Extent,
        read: impl Fn(&View<'_>, Budget) -> Result<Option<T>> + Send + 'static,
    ) -> Op<T> {
        Counters::count(&self.counters.reads);
        let engine = match self.engine() {
            Ok(engine) => engine,
            Err(error) => return self.failed(error),
        };
        if engine.is_open() && !engine.queue.concerns(scope) {
            return self.read_now(&engine, extent, read);
        }
        let (completer, completion) = completion(gone);
        let (counters, runtime, shared) = (self.counters.clone(), self.runtime.clone(), engine.clone());
        let job = self.job(false, move |tx| match within(tx, |tx| read(&tx.view, Budget::short())) {
            Ok(None) => Step::Long(Box::new(move |reader| {
                runtime.spawn_blocking(move || {
                    let result = reader.and_then(|reader| to_the_end(&shared, &reader, &read));
                    counters.failed(&result);
                    completer.complete(result);
                });
            })),
            result => Step::Done(Box::new(move |outcome| {
                let result = outcome.clone().and(result.and_then(|found| found.ok_or_else(gone)));
                counters.failed(&result);
                completer.complete(result);
            })),
        });
        self.queue(&engine, Scope::Nothing, job, completion)
    }

    fn read_now<T: Send + 'static>(
        &self,
        engine: &Arc<Engine>,
        extent: Extent,
        read: impl Fn(&View<'_>, Budget) -> Result<Option<T>> + Send + 'static,
    ) -> Op<T> {
        let short = || {
            let reader = engine.readers.get()?;
            if extent == Extent::Range {
                reader.freeze()?;
            }
            let found = read(&engine.view(reader.conn()?), Budget::short())?;
            Ok((found, reader))
        };
        match short() {
            Ok((Some(found), _)) => Op::ok(found),
            Ok((None, reader)) => {
                let (engine, counters) = (engine.clone(), self.counters.clone());
                let task = self.runtime.spawn_blocking(move || {
                    let result = to_the_end(&engine, &reader, &read);
                    counters.failed(&result);
                    result
                });
                Op::pending(async move { task.await.unwrap_or_else(|_| Err(gone())) })
            }
            Err(error) => self.failed(error),
        }
    }
}

fn to_the_end<T>(engine: &Engine, reader: &Reader, read: impl Fn(&View<'_>, Budget) -> Result<Option<T>>) -> Result<T> {
    read(&engine.view(reader.conn()?), Budget::unlimited())?.ok_or_else(gone)
}
