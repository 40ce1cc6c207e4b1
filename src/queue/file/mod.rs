//! Queues in a directory: one thread owns the database, and commits together the calls that arrived during its last
//! commit.

mod backend;
mod config;
mod import;
mod reader;
mod sqlite;

pub(super) use backend::FileDriver;
pub use config::FileQueueOptions;

pub use crate::disk::Durability;
pub use reader::QueueReader;
