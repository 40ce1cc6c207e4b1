//! The HTTP client of webhooks: one signed POST, to an address that was checked.
//!
//! | module | what it does |
//! |---|---|
//! | `address` | which addresses are not public |
//! | `connect` | resolves, checks every address, and connects to the ones that were checked |
//! | `client` | bounds a request in size and time, keeps connections alive, follows no redirect |
//! | `signature` | signs and verifies as [Standard Webhooks](https://www.standardwebhooks.com) has it |
//!
//! HTTP/1.1 is hyper's. Connecting is our own, because the address that is connected to must be the one that was checked: a
//! name may resolve differently the second time. The crate `standardwebhooks` is not used: it signs UTF-8 only, and
//! reads the system's clock.

mod address;
mod client;
mod connect;
mod signature;

pub use address::{AddressKind, classify};
pub use client::{ClientOptions, HttpClient, PostRequest, PostResponse, check_request};
pub use connect::{Resolve, SystemResolver};
pub use signature::{Secret, sign, verify};
