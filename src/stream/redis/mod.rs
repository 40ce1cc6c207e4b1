//! The Redis stream: pub/sub between processes, and retained topics.
//!
//! Channels are named like topics and carry the event's JSON, as with nvent's own adapter, so instances with either adapter
//! receive each other's messages. Topics that match [`RetainTopics::topics`] are also kept in a Redis stream, and no
//! message on them is missed: subscribers catch up after an outage and can start at the beginning, and groups receive each
//! message once and acknowledge it. This holds for what native instances with the same `retain` publish; others publish
//! without retaining.
//!
//! | | not retained | retained |
//! |---|---|---|
//! | after an outage | a gap, before the next message | the missed messages; a gap only if some have been removed |
//! | the message on the wire | the event (see [`wire`]) | the event with one more field, which native subscribers remove |
//!
//! | module | what it does |
//! |---|---|
//! | [`backend`] | the stream: publishes, and registers subscribers |
//! | [`subscriber`], [`catch_up`] | one subscriber: live messages, and reading what it missed |
//! | [`live`] | passes what the pub/sub connection reports to the subscribers |
//! | [`group`] | one consumer group on this adapter: claims, acknowledgements, retries |
//! | [`parked`] | messages whose handlers failed too often |
//! | [`shared`] | what subscribers and groups share: the client, the keys, who is subscribed |

mod backend;
mod catch_up;
mod config;
mod group;
mod keys;
mod live;
mod parked;
mod scripts;
mod shared;
mod subscriber;
mod wire;

pub use backend::RedisStream;
pub use config::{GroupOptions, RedisStreamOptions, RetainTopics};
pub use parked::MAX_PARKED;
