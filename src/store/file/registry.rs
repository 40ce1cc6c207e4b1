//! The open stores of this process: every adapter on one directory shares one.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

use super::config::FileStoreOptions;
use super::errors;
use super::open_store::{self, OpenStore};
use crate::disk;
use crate::error::Result;
use crate::sync::lock;
use crate::time::SharedClock;

struct Entry {
    store: Arc<OpenStore>,
    users: usize,
}

static OPEN: LazyLock<Mutex<HashMap<PathBuf, Entry>>> = LazyLock::new(Mutex::default);

fn open_stores() -> MutexGuard<'static, HashMap<PathBuf, Entry>> {
    lock(&OPEN)
}

/// Returns the open store of a directory and counts one user more. If a store is being closed there, the writer of the
/// new one waits for its end.
pub(super) fn acquire(options: &FileStoreOptions, clock: &SharedClock) -> Result<Arc<OpenStore>> {
    let dir = disk::prepare_dir(&options.data_dir)?;
    let mut stores = open_stores();
    let previous = match stores.get_mut(&dir) {
        // After a failed write it is replaced. Adapters that still use it use the new one from their next call on.
        Some(entry) if entry.store.failed().is_some() => {
            entry.store.queue.end();
            Some(entry.store.ended.clone())
        }
        Some(entry) if entry.users > 0 && entry.store.queue.dead().is_none() => {
            if entry.store.retention() != options.retention {
                return Err(errors::other_retention(&dir));
            }
            entry.users += 1;
            return Ok(entry.store.clone());
        }
        Some(entry) => Some(entry.store.ended.clone()),
        None => None,
    };
    let store = Arc::new(OpenStore::new(dir.clone(), clock.clone(), options.retention));
    open_store::start(store.clone(), previous, remove)?;
    stores.insert(dir, Entry { store: store.clone(), users: 1 });
    Ok(store)
}

/// Counts one user less. The last one closes the store. Returns whether this was the last.
pub(super) fn release(store: &Arc<OpenStore>) -> bool {
    let mut stores = open_stores();
    let Some(entry) = stores.get_mut(&store.dir).filter(|entry| Arc::ptr_eq(&entry.store, store)) else {
        return true;
    };
    entry.users -= 1;
    let last = entry.users == 0;
    if last {
        store.queue.end();
    }
    last
}

/// Removes a store that was closed.
fn remove(store: &OpenStore) {
    let mut stores = open_stores();
    if stores.get(&store.dir).is_some_and(|entry| std::ptr::eq(&*entry.store, store)) {
        stores.remove(&store.dir);
    }
}
