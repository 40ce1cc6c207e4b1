//! The open stores of this process: every adapter on one directory shares one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::engine::Engine;
use super::{FileOptions, writer};
use crate::disk;
use crate::error::Result;
use crate::time::SharedClock;

struct Entry {
    engine: Arc<Engine>,
    users: usize,
}

static OPEN: LazyLock<Mutex<HashMap<PathBuf, Entry>>> = LazyLock::new(Mutex::default);

fn open_stores() -> MutexGuard<'static, HashMap<PathBuf, Entry>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The open store of a directory, one user more. A store that is being closed is waited for (by the new one's writer).
pub(super) fn acquire(options: &FileOptions, clock: &SharedClock) -> Result<Arc<Engine>> {
    let dir = disk::prepare_dir(&options.data_dir)?;
    let mut stores = open_stores();
    let previous = match stores.get_mut(&dir) {
        Some(entry) if entry.users > 0 && entry.engine.queue.dead().is_none() => {
            entry.users += 1;
            entry.engine.set_retention(options.retention);
            return Ok(entry.engine.clone());
        }
        Some(entry) => Some(entry.engine.ended.clone()),
        None => None,
    };
    let engine = Arc::new(Engine::new(dir.clone(), clock.clone(), options.retention));
    writer::start(engine.clone(), previous)?;
    stores.insert(dir, Entry { engine: engine.clone(), users: 1 });
    Ok(engine)
}

/// One user less. The last one ends the store; whether this was it.
pub(super) fn release(engine: &Arc<Engine>) -> bool {
    let mut stores = open_stores();
    let Some(entry) = stores.get_mut(&engine.dir).filter(|entry| Arc::ptr_eq(&entry.engine, engine)) else {
        return true;
    };
    entry.users -= 1;
    let last = entry.users == 0;
    if last {
        engine.queue.end();
    }
    last
}

/// Forgets a store that has ended.
pub(super) fn forget(dir: &Path, engine: &Engine) {
    let mut stores = open_stores();
    if stores.get(dir).is_some_and(|entry| std::ptr::eq(&*entry.engine, engine)) {
        stores.remove(dir);
    }
}

/// Set once, when a store has ended: both threads and tasks can wait for it.
#[derive(Default)]
pub(super) struct Ended {
    state: Mutex<(bool, Vec<oneshot::Sender<()>>)>,
    signal: Condvar,
}

impl Ended {
    pub(super) fn set(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = true;
        for waiter in state.1.drain(..) {
            // One that does not wait any more is fine.
            let _ = waiter.send(());
        }
        self.signal.notify_all();
    }

    pub(super) fn wait(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.signal.wait_while(state, |state| !state.0).unwrap_or_else(PoisonError::into_inner));
    }

    /// Resolves when it is set. The waiter is registered before this returns.
    pub(super) fn waiter(&self) -> impl Future<Output = ()> + Send + 'static {
        let (tell, told) = oneshot::channel();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 {
            let _ = tell.send(());
        } else {
            state.1.push(tell);
        }
        async move {
            let _ = told.await;
        }
    }
}
