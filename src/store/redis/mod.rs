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
//! Every key that begins with `<prefix>:~` is the store's own, and refused as a name: documents
//! (`~documents:<collection>`, a hash from id to JSON), the last id of a deleted subject (`~deleted:<subject>`, a hash
//! that expires after a day), the kv keys that native instances wrote (`~kv`, a set, for `kv.clear('*')`), and the feed
//! (`~feed`, a stream, with its state in two hashes), and which process carries out which step of a run (`~claims:<subject>`, a
//! hash that expires, and `~holders`, a sorted set). Appends are announced on the channel `~appended`.
//!
//! Events that nvent's own adapters append are found within 5 s plus a second for each 2,000 keys of the database, see
//! `feed.rs`; a store subscription also gets them with the next native event of their subject.
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
//! | [`append`], [`index`] | those that take more than a line |
//! | [`calls`] | how requests are sent and replies converted |
//! | [`feed`], [`tail`] | one order over all subjects; store subscriptions, which follow it |
//! | [`consumer`] | leases, cursors and parked events of durable consumers |
//! | [`claims`] | which process carries out a step of a run |
//! | [`keys`] | every key and channel |
//! | [`record`], [`metadata`], [`text`] | events, index entries and values as Redis keeps them |
//! | [`page`] | the reply of a read of an index |
//! | [`scripts`] | the Lua scripts |

mod append;
mod backend;
mod calls;
mod claims;
mod config;
mod consumer;
mod feed;
mod index;
mod keys;
mod metadata;
mod page;
mod read;
mod record;
mod scripts;
mod tail;
mod text;

pub use backend::RedisStore;
pub use config::{RedisStoreOptions, Trim};
