//! The native backend of nvent: stores, streams, queues, an event bus, and the wiring between them.
//!
//! The layers, each importing only those below it:
//!
//! | layer | modules | what it does |
//! |---|---|---|
//! | boundary | [`node`] | what JavaScript can call; the only place that names napi |
//! | wiring | [`wiring`] | persists, tracks and routes events: flow wiring and the stream coordinator |
//! | adapters | [`store`], [`stream`], [`queue`], [`bus`] | each does one thing and knows none of the others |
//! | transport | [`redis`] | the connection that the Redis backends share |
//! | ground | [`event`], [`topic`], [`json`], [`fanout`], [`op`], [`health`], [`error`], [`time`], `disk` | values and mechanisms |

mod backoff;
pub mod bus;
mod disk;
pub mod error;
pub mod event;
pub mod fanout;
pub mod health;
pub mod json;
mod latch;
pub mod name;
#[cfg(feature = "node")]
pub mod node;
pub mod op;
pub mod queue;
pub mod redis;
pub mod store;
pub mod stream;
mod sync;
pub mod time;
pub mod topic;
mod wake;
pub mod wiring;

pub use error::{Code, Error, Result};
