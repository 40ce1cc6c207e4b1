//! The native backend of nvent: stores, streams, queues, an event bus, and the wiring between them.
//!
//! The layers, each importing only those below it:
//!
//! | layer | modules | what it does |
//! |---|---|---|
//! | boundary | [`node`] | what JavaScript can call; the only place that names napi |
//! | wiring | [`wiring`] | persists, tracks and routes events: flow wiring and the stream coordinator |
//! | adapters | [`store`], [`stream`], [`queue`], [`bus`] | each does one thing and knows none of the others |
//! | transport | [`redis`], [`http`] | the connection that the Redis backends share, and the client of webhooks |
//! | ground | [`event`], [`topic`], [`json`], [`fanout`], [`op`], [`health`], [`error`], [`time`], [`metrics`], `disk` | values and mechanisms |
//!
//! A store announces what it stored to a bus; operations begin when they are called, and are awaited for their result:
//!
//! ```
//! use std::sync::Arc;
//!
//! use nvent_native::bus::Bus;
//! use nvent_native::event::NewEvent;
//! use nvent_native::name::Subject;
//! use nvent_native::store::{Announce, EventQuery, MemoryStore, StoreBackend};
//! use nvent_native::time::system_clock;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> nvent_native::Result<()> {
//! let bus = Bus::new();
//! let announce: Announce = Arc::new(move |subject, event| bus.announce(subject, event));
//! let store = MemoryStore::new(system_clock());
//! let subject = Subject::new("nq:flow:abc")?;
//!
//! let first = store.append(subject, NewEvent::parse(r#"{"type":"flow.start"}"#)?, None, Some(announce));
//! let second = store.append(subject, NewEvent::parse(r#"{"type":"flow.completed"}"#)?, None, None);
//! assert!(second.await?.id() > first.await?.id(), "calls take effect in their order, however they are awaited");
//! assert_eq!(store.read(subject, EventQuery::default()).await?.len(), 2);
//! store.close().await?;
//! # Ok(())
//! # }
//! ```

mod backoff;
pub mod bus;
mod disk;
pub mod error;
pub mod event;
pub mod fanout;
pub mod health;
pub mod http;
pub mod json;
mod latch;
pub mod metrics;
pub mod name;
#[cfg(feature = "node")]
pub mod node;
pub mod op;
mod panic;
pub mod queue;
pub mod redis;
pub mod store;
pub mod stream;
mod sync;
pub mod time;
mod tls;
pub mod topic;
mod wake;
pub mod wiring;

pub use error::{Code, Error, Result};
