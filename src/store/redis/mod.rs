//! The Redis store: for applications that outgrow one machine, on keys that nvent's own adapters read and write.
//!
//! # What is interchangeable
//!
//! | what | where | how |
//! |---|---|---|
//! | events | stream `<subject>` | one field per field of the record, values as text ([`text`]), `ts` a field, the id the stream's |
//! | kv | string `<key>` | the value as text ([`text`]); `PX` with a time to live |
//! | index | sorted set `<key>` and hash `<key>:meta:<id>` | metadata flattened to dotted fields ([`metadata`]), `version` a field |
//!
//! nvent's adapters read all of it correctly, and what they write is read correctly, with two limits that are theirs: their
//! readers take `"00123"` in an index for a number, and do not see the null and `{}` that [`metadata::TAGS`] keeps there.
//! What they change in an entry with tags is seen, and tags that no longer match their field are ignored.
//!
//! # What only native instances see
//!
//! Documents (`<prefix>:~documents:<collection>`, a hash from id to JSON), the last id of a deleted subject
//! (`<prefix>:~deleted:<subject>`, a hash that expires after a day), and the channel on which appends are announced
//! (`<prefix>:~appended:<subject>`).
//!
//! # Atomicity and order
//!
//! Each call is one command or one script, sent in the order of the calls over one connection. When the server has
//! dropped its scripts (`SCRIPT FLUSH`), the calls in flight are sent again with the script's text; calls that were in
//! flight with them may then take effect first.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | options |
//! | [`backend`] | the calls of [`StoreBackend`](super::StoreBackend), each one command |
//! | [`tail`] | store subscriptions |
//! | [`keys`] | every key and channel |
//! | [`record`], [`metadata`], [`text`] | events, index entries and values as Redis keeps them |
//! | [`scripts`] | the Lua scripts |

mod backend;
mod config;
mod feed;
mod keys;
mod metadata;
mod record;
mod scripts;
mod tail;
mod text;

pub use backend::RedisStore;
pub use config::{RedisStoreOptions, Trim};
