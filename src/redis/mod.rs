//! Transport: the connections that the Redis backends share.
//!
//! The `redis` crate packs commands, parses replies and hashes scripts. Connections are made here, because only the owner of
//! the socket knows which commands were never sent (they wait for the next connection), which were sent and not answered
//! (a write may have been applied), and which subscriptions the server has confirmed.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | the address and credentials of the server, and all timeouts |
//! | [`socket`] | one socket: connects, authenticates, reads and writes |
//! | `tls` | roots, client certificates, and which TLS failures are permanent |
//! | `connection` | exchanges bytes over a socket and bounds how long a reply may take; shared by client and pub/sub |
//! | [`client`] | one multiplexed connection for ordinary commands, in the order of the calls |
//! | [`pubsub`] | one connection for subscriptions, which are restored after every outage |
//! | [`script`] | Lua scripts: loaded on each connection, sent whole when the server has lost them |
//! | [`request`] | a command, and what may be done with it when a connection breaks |
//! | [`reply`] | server errors as [`crate::Error`]s, and replies as Rust values |

pub mod client;
pub mod config;
mod connection;
pub mod pubsub;
pub mod reply;
pub mod request;
pub mod script;
pub mod socket;
mod tls;

pub use client::Client;
pub use config::{ConnectionFields, RedisConfig, SentinelAddress, Sentinels, Tls};
pub use request::Request;
pub use script::Script;
pub use tls::TlsOptions;

use std::time::Duration;

use crate::backoff::RetryBackoff;

/// Returns the delays between attempts to connect.
pub(crate) fn reconnect_backoff(config: &RedisConfig) -> RetryBackoff {
    RetryBackoff::new(Duration::from_millis(50), config.max_reconnect_delay)
}
