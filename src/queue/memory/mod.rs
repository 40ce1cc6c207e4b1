//! Queues in memory.

mod backend;
mod config;
mod storage;

pub(super) use backend::MemoryDriver;
pub use config::MemoryQueueOptions;
