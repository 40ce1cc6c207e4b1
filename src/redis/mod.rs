//! Transport: the connections that the Redis backends share.
//!
//! The `redis` crate packs commands, parses replies and hashes scripts. Connections are made here, because only who
//! owns the socket knows what a caller must be told: which commands were never sent (they wait for the next connection),
//! which were sent and not answered (a write may have been applied), and which subscriptions the server has confirmed.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | where the server is and how long to wait; the password stays in here |
//! | [`link`] | one socket: connect, authenticate, read and write |
//! | [`client`] | one multiplexed connection for ordinary commands, in the order of the calls |
//! | [`pubsub`] | one connection for subscriptions, which come back after every outage |
//! | [`script`] | Lua scripts, loaded with each connection, sent whole when the server has lost them |
//! | [`request`] | a command, and what may be done with it when a connection breaks |
//! | [`reply`] | server errors as [`crate::Error`]s, and replies as Rust values |

pub mod client;
pub mod config;
pub mod link;
pub mod pubsub;
pub mod reply;
pub mod request;
pub mod script;

pub use client::Client;
pub use config::RedisConfig;
pub use request::Request;
pub use script::Script;

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How long to wait before the next attempt to connect: doubling from 50 ms to the cap, each between half and whole, so
/// that instances that lost the server together do not come back together.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    cap: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(50);

    pub(crate) fn new(cap: Duration) -> Self {
        Self { next: Self::FIRST.min(cap), cap }
    }

    pub(crate) fn delay(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.cap);
        whole.mul_f64(0.5 + 0.5 * random_u64() as f64 / u64::MAX as f64)
    }
}

/// Random enough for jitter and for names that must not meet.
pub(crate) fn random_u64() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_with_jitter() {
        let mut backoff = Backoff::new(Duration::from_secs(2));
        let delays: Vec<_> = (0..50).map(|_| backoff.delay()).collect();
        assert!(delays[0] <= Duration::from_millis(50));
        assert!(delays.iter().skip(10).all(|d| (1..=2).contains(&d.as_secs()) && *d <= Duration::from_secs(2)));
        assert!(delays[10..].windows(2).any(|w| w[0] != w[1]));
    }
}
