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

static OPEN: LazyLock<Mutex<HashMap<Key, Entry>>> = LazyLock::new(Mutex::default);

/// The directory, and whether it is only read.
type Key = (PathBuf, bool);

fn open_stores() -> MutexGuard<'static, HashMap<Key, Entry>> {
    lock(&OPEN)
}

/// Returns the open store of a directory and counts one user more. If a store is being closed there, the writer of the
/// new one waits for its end.
pub(super) fn acquire(options: &FileStoreOptions, clock: &SharedClock) -> Result<Arc<OpenStore>> {
    let dir =
        if options.read_only { disk::existing_dir(&options.data_dir)? } else { disk::prepare_dir(&options.data_dir)? };
    let key = (dir.clone(), options.read_only);
    let mut stores = open_stores();
    let previous = match stores.get_mut(&key) {
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
    let store = Arc::new(OpenStore::new(dir, clock.clone(), options));
    open_store::start(store.clone(), previous, remove)?;
    stores.insert(key, Entry { store: store.clone(), users: 1 });
    Ok(store)
}

/// Counts one user less. The last one closes the store. Returns whether this was the last.
pub(super) fn release(store: &Arc<OpenStore>) -> bool {
    let mut stores = open_stores();
    let Some(entry) = stores.get_mut(&key_of(store)).filter(|entry| Arc::ptr_eq(&entry.store, store)) else {
        return true;
    };
    entry.users -= 1;
    let last = entry.users == 0;
    if last {
        store.queue.end();
    }
    last
}

fn key_of(store: &OpenStore) -> Key {
    (store.dir.clone(), store.is_read_only())
}

/// Removes a store that was closed.
fn remove(store: &OpenStore) {
    let mut stores = open_stores();
    let key = key_of(store);
    if stores.get(&key).is_some_and(|entry| std::ptr::eq(&*entry.store, store)) {
        stores.remove(&key);
    }
}
