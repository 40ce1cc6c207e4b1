//! Fan-out: who is subscribed to which topic, and a bounded mailbox for each subscriber.
//!
//! A publisher only pushes, so no subscriber can block it; what happens when a mailbox is full is the subscriber's overflow
//! policy. Streams and store subscriptions deliver through this module on every backend.

mod mailbox;
mod patterns;
mod registry;

pub(crate) use mailbox::check_buffer;
pub use mailbox::{
    BLOCK_SLACK, DEFAULT_BUFFER, Delivery, Gap, GapReason, MAX_BUFFER, Mailbox, OnReady, Overflow, Push,
};
pub use registry::{Subscriber, TopicRegistry};

use std::sync::atomic::{AtomicU64, Ordering};

/// Returns an id that is unique in this process.
pub fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
