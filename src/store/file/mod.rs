//! The file store: embedded, durable, on SQLite.
//!
//! | file | what it does |
//! |---|---|
//! | `config` | options |
//! | `backend`, `maintenance` | the contract of stores; backup and verification |
//! | `adapter` | where each call runs: on the caller's thread, on the writer's, or on one for blocking work |
//! | `subscription` | subscriptions that are behind read from the feed |
//! | `registry` | one open store per directory in a process |
//! | `open_store` | an open store, and the thread that writes |
//! | `background` | what the writer does between jobs |
//! | `writer` | transactions that commit jobs in groups |
//! | `shared` | what all of these share |
//! | `write_queue` | the jobs that wait for the writer, in order |
//! | `readers` | connections that only read, and do not wait for the writer |
//! | `events`, `feed`, `kv`, `index`, `docs` | the operations, on a consistent view or in a transaction |
//! | `view`, `filter` | views, transactions, and filters over stored text |
//! | `schema`, `import` | the file's tables and versions; taking over nvent's own file store |
//! | `errors`, `latch` | error texts; a latch for threads and tasks |
//!
//! Each imports only files further down.
//!
//! **Order.** Calls take effect in the order in which they are made. Writes go through one queue. A read runs at once
//! on a connection of its own, unless a write that it must see is queued: then it is queued behind that.

mod adapter;
mod backend;
mod background;
mod config;
mod docs;
mod errors;
mod events;
mod feed;
mod filter;
mod import;
mod index;
mod kv;
mod maintenance;
mod open_store;
mod readers;
mod registry;
mod schema;
mod shared;
mod subscription;
mod transfer;
mod view;
mod write_queue;
mod writer;

pub use adapter::FileStore;
pub use config::{FileStoreOptions, Retention};

pub use crate::disk::Durability;

/// Returns the version of SQLite that is linked in.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}
