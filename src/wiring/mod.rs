//! Wiring: what connects stores, streams, queues and the bus, none of which knows another.
//!
//! [`flow`] persists and tracks the runs of flows; [`coordinator`] routes what was persisted to the channels of a
//! stream, by the one table in [`channels`]. Both listen to a [`crate::bus::Bus`] with a queue of their own, so whoever
//! publishes there never waits for them. They reach everything else through the traits here, which the native backends
//! implement and which anything else can be adapted to.

use std::sync::Arc;

use crate::op::Op;
use crate::stream::{Message, StreamBackend};

pub mod channels;
pub mod coordinator;
pub mod flow;
pub mod template;

/// The default subject of a run.
pub const RUN_SUBJECT: &str = "nq:flow:{runId}";

/// Something that runs between adapters until it is stopped.
pub trait Wiring: Send + Sync + 'static {
    /// Begins. Does nothing where it has begun already.
    fn start(&self) -> Op<()>;
    /// Takes nothing new and finishes what is under way, within a deadline. Idempotent; it can be started again.
    fn stop(&self) -> Op<()>;
}

/// Where the coordinator publishes.
pub trait Publisher: Send + Sync + 'static {
    /// Publishes a message on its topic.
    fn publish(&self, message: Message) -> Op<()>;
    /// Whether messages arrive in the order of the calls although an earlier one is still pending. Where that is not
    /// known, the messages of a subject are published one after the other.
    fn keeps_order(&self) -> bool;
}

/// A native stream starts its work in the call, so the order of the calls is the order of arrival.
impl Publisher for Arc<dyn StreamBackend> {
    fn publish(&self, message: Message) -> Op<()> {
        self.as_ref().publish(message)
    }

    fn keeps_order(&self) -> bool {
        true
    }
}
