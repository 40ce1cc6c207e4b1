//! The file store: embedded, durable, on SQLite.
//!
//! | file | what it does |
//! |---|---|
//! | this one | the adapter and its options |
//! | `backend`, `calls` | each call: what it does at once, and what it leaves to the writer |
//! | `registry` | one open store per directory in a process |
//! | `engine` | what the adapters on a directory share |
//! | `queue`, `writer`, `upkeep` | one thread writes, in groups, and tidies up between them |
//! | `readers` | connections that only read, and do not wait for the writer |
//! | `view`, `events`, `kv`, `index`, `docs`, `filter` | the operations, on a consistent view or in a transaction |
//! | `schema`, `import` | the file's tables and versions; what nvent's own file adapter left |
//! | `admin` | backup and verification |
//! | `fault` | what went wrong, in words |
//!
//! **Order.** Calls take effect in the order in which they are made. Writes go through one queue. A read runs at once
//! on a connection of its own, unless a write that it must see is still on its way: then it takes its turn in the queue.

mod admin;
mod backend;
mod calls;
mod docs;
mod engine;
mod events;
mod fault;
mod filter;
mod import;
mod index;
mod kv;
mod queue;
mod readers;
mod registry;
mod schema;
mod upkeep;
mod view;
mod writer;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;

use self::engine::Engine;
use super::{Stats, Stored};
use crate::error::{Error, Result};
use crate::fanout::Mailbox;
use crate::time::SharedClock;

/// What an acknowledged write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The process being killed.
    #[default]
    Os,
    /// Power loss too: one sync of the disk for all writes that wait.
    Disk,
}

/// What is removed in the background, so that logs do not grow for ever. Nothing, unless it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Events that are older.
    pub max_age_ms: Option<u64>,
    /// The oldest events of a subject that has more.
    pub max_events_per_subject: Option<u64>,
}

impl Retention {
    fn is_on(&self) -> bool {
        self.max_age_ms.is_some() || self.max_events_per_subject.is_some()
    }
}

/// How a file store is set up.
#[derive(Debug, Clone)]
pub struct FileOptions {
    /// Where `nvent.db` is, relative to the working directory. It is created, for this user only, where it is missing.
    pub data_dir: PathBuf,
    /// What this adapter's writes survive. Adapters on one directory may differ.
    pub durability: Durability,
    /// What is removed in the background. The adapter that was opened last decides for its directory.
    pub retention: Retention,
}

impl FileOptions {
    /// The defaults, in this directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), durability: Durability::default(), retention: Retention::default() }
    }
}

/// What [`FileStore::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verification {
    /// Rows looked at.
    pub rows: u64,
    /// What is wrong, in words. Nothing: every page and every row is as it was written.
    pub problems: Vec<String>,
}

#[derive(Default)]
struct Counters {
    appends: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    errors: AtomicU64,
}

impl Counters {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn stats(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        vec![
            ("appends", get(&self.appends)),
            ("reads", get(&self.reads)),
            // What the writer counts includes the appends.
            ("writes", get(&self.writes) - get(&self.appends)),
            ("errors", get(&self.errors)),
        ]
    }

    fn failed<T>(&self, result: &Result<T>) {
        if result.is_err() {
            Self::count(&self.errors);
        }
    }
}

/// What it is for, and where its events wait.
type Subscription = (Arc<str>, Arc<Mailbox<Stored>>);

#[derive(Default)]
struct State {
    engine: Option<Arc<Engine>>,
    closed: bool,
    subscriptions: HashMap<u64, Subscription>,
}

/// A store in a directory. All that this process has on one directory share what is open.
pub struct FileStore {
    options: FileOptions,
    clock: SharedClock,
    runtime: Handle,
    counters: Arc<Counters>,
    state: Mutex<State>,
}

impl FileStore {
    /// A store that is opened by its first call. Long reads run on `runtime`'s threads for blocking work.
    pub fn new(options: FileOptions, clock: SharedClock, runtime: Handle) -> Self {
        Self { options, clock, runtime, counters: Arc::default(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open store, or one that is being opened. One that could not be opened is tried again.
    fn engine(&self) -> Result<Arc<Engine>> {
        let mut state = self.state();
        if state.closed {
            return Err(Error::closed("the store"));
        }
        match &state.engine {
            Some(engine) if engine.queue.dead().is_none() => return Ok(engine.clone()),
            Some(dead) => _ = registry::release(dead),
            None => {}
        }
        state.engine = None;
        let engine = registry::acquire(&self.options, &self.clock)?;
        state.engine = Some(engine.clone());
        Ok(engine)
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = state.engine.take() {
            end_subscriptions(&engine, state.subscriptions.drain());
            registry::release(&engine);
        }
    }
}

fn end_subscriptions(engine: &Engine, subscriptions: impl IntoIterator<Item = (u64, Subscription)>) {
    for (id, (pattern, mailbox)) in subscriptions {
        engine.hub.remove(&pattern, id);
        mailbox.close();
    }
}
