//! An open store: the state that adapters share, and the thread that writes.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::background::{self, Background};
use super::config::FileStoreOptions;
use super::errors::writer_died;
use super::shared::Shared;
use super::write_queue::{Next, Step, WriteJob};
use super::writer::WriterState;
use crate::error::{Error, Result};
use crate::latch::Latch;
use crate::sync::lock;
use crate::time::SharedClock;

/// Most jobs in one transaction.
const MAX_GROUP: usize = 4_096;

/// An open store.
pub(super) struct OpenStore {
    shared: Shared,
    /// Set when the writer's thread has ended.
    pub(super) ended: Arc<Latch>,
    /// None before the database is open, and after it was closed.
    pub(super) writer: Mutex<Option<WriterState>>,
}

impl Deref for OpenStore {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl OpenStore {
    pub(super) fn new(dir: PathBuf, clock: SharedClock, options: &FileStoreOptions) -> Self {
        Self { shared: Shared::new(dir, clock, options), ended: Arc::default(), writer: Mutex::new(None) }
    }
}

/// Starts the writer's thread, which opens the database once `previous` has ended. `on_end` is called when the database
/// has been closed.
pub(super) fn start(
    store: Arc<OpenStore>,
    previous: Option<Arc<Latch>>,
    on_end: impl Fn(&OpenStore) + Send + 'static,
) -> Result<()> {
    let name = "nvent-writer".to_owned();
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        let _end = CloseOnDrop { store: &store, on_end: &on_end };
        if let Some(previous) = previous {
            previous.wait();
        }
        match WriterState::open(&store) {
            Ok(writer) => {
                *lock(&store.writer) = Some(writer);
                store.set_open(true);
                tracing::debug!(dir = %store.dir.display(), "the file store is open");
                run(&store);
            }
            Err(error) => {
                for job in store.queue.die(error.clone()) {
                    refuse(job, &error);
                }
            }
        }
    });
    thread.map(|_| ()).map_err(|e| Error::io(format!("cannot start the writer's thread: {e}")))
}

/// Closes the store, however the thread ends.
struct CloseOnDrop<'s> {
    store: &'s OpenStore,
    on_end: &'s dyn Fn(&OpenStore),
}

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        let store = self.store;
        let ended = || if std::thread::panicking() { writer_died() } else { Error::closed("the store") };
        let error = store.queue.dead().unwrap_or_else(ended);
        for job in store.queue.die(error.clone()) {
            refuse(job, &error);
        }
        store.set_open(false);
        store.subscribers.close();
        store.leases.close();
        store.readers.close();
        // Closing the last connection moves the WAL into the database; then the lock is released.
        drop(lock(&store.writer).take());
        (self.on_end)(store);
        tracing::debug!(dir = %store.dir.display(), "the file store is closed");
        store.ended.set();
    }
}

fn refuse(job: WriteJob, error: &Error) {
    if let Step::Done(finish) = (job.work)(Err(error)) {
        finish(&Err(error.clone()));
    }
}

fn run(store: &OpenStore) {
    let mut background = Background::default();
    let mut timeout = Some(Duration::ZERO);
    loop {
        let next = store.queue.next(timeout, MAX_GROUP);
        let mut writer = lock(&store.writer);
        let Some(writer) = writer.as_mut() else { return };
        match next {
            Next::Jobs(jobs) => {
                match jobs.iter().filter(|job| !job.is_background).count() {
                    0 => {}
                    group => store.commit_mode.observe(group),
                }
                writer.run(store, jobs);
            }
            Next::Nothing => {}
            Next::End => {
                if !store.is_read_only() {
                    background::finish_clears(writer, store);
                }
                return;
            }
        }
        timeout = if store.is_read_only() { None } else { background.run(writer, store) };
    }
}
