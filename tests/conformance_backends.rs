//! The contracts over the backends that need nothing but this process.

mod conformance;
#[path = "conformance/queue/mod.rs"]
mod queue_suite;

use std::sync::Arc;

use conformance::{Capabilities, TestBackend};
use nvent_native::store::file::{FileStore, FileStoreOptions};
use nvent_native::store::{MemoryStore, StoreBackend};
use nvent_native::stream::{MemoryStream, Retain, StreamBackend};
use nvent_native::time::ManualClock;
use tokio::runtime::Handle;

/// 2026-01-01T00:00:00Z.
const NEW_YEAR: u64 = 1_767_225_600_000;

async fn memory() -> TestBackend<dyn StoreBackend> {
    let clock = ManualClock::at(NEW_YEAR);
    let backend = Arc::new(MemoryStore::new(clock.clone()));
    TestBackend { backend, capabilities: Capabilities { clock: Some(clock) }, _guard: Box::new(()) }
}

async fn file() -> TestBackend<dyn StoreBackend> {
    let (clock, dir) = (ManualClock::at(NEW_YEAR), tempfile::tempdir().unwrap());
    let backend = Arc::new(FileStore::new(FileStoreOptions::new(dir.path()), clock.clone(), Handle::current()));
    TestBackend { backend, capabilities: Capabilities { clock: Some(clock) }, _guard: Box::new(dir) }
}

async fn memory_stream() -> TestBackend<dyn StreamBackend> {
    let backend = Arc::new(MemoryStream::new(Some(Retain::default()), ManualClock::at(NEW_YEAR)));
    TestBackend { backend, capabilities: Capabilities::default(), _guard: Box::new(()) }
}

store_conformance!(memory_store, crate::memory);
store_conformance!(file_store, crate::file);
feed_conformance!(memory_feed, crate::memory);
feed_conformance!(file_feed, crate::file);
consumer_conformance!(memory_consumer, crate::memory);
consumer_conformance!(file_consumer, crate::file);
stream_conformance!(memory_stream, crate::memory_stream);
queue_conformance!(memory_queue, crate::queue_suite::Env::memory);
queue_conformance!(file_queue, crate::queue_suite::Env::file);
