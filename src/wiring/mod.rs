//! Wiring: connects stores, streams, queues and the bus, which do not depend on each other.
//!
//! [`flow`] persists and tracks the runs of flows; [`coordinator`] publishes persisted events to the channels of a
//! stream, by the routing table in [`channels`]. Both subscribe to a [`crate::bus::Bus`] and queue its events, so
//! publishers never wait for them. They reach everything else through traits, which the native backends implement and
//! which other objects can be adapted to.

use std::sync::Arc;

use crate::fanout::Gap;
use crate::op::Op;
use crate::stream::{Message, StreamBackend};

pub mod channels;
pub mod coordinator;
pub mod flow;
pub mod run_status;
pub mod template;

/// The default subject of a run.
pub const RUN_SUBJECT: &str = "nq:flow:{runId}";

/// Runs between adapters until it is stopped.
pub trait Wiring: Send + Sync + 'static {
    /// Starts. Does nothing if started.
    fn start(&self) -> Op<()>;
    /// Accepts nothing new and completes pending work within a timeout. Idempotent; it can be started again.
    fn stop(&self) -> Op<()>;
}

/// The destination of the coordinator.
pub trait Publisher: Send + Sync + 'static {
    /// Publishes a message on its topic.
    fn publish(&self, message: Message) -> Op<()>;
    /// Returns whether messages arrive in the order of the calls while earlier calls are pending. Otherwise the messages
    /// of a subject are published one after the other.
    fn keeps_order(&self) -> bool;
    /// Returns whether subscribers of other processes receive what is published.
    fn is_shared(&self) -> bool {
        false
    }
    /// Returns whether a publish is done when it returns, see [`StreamBackend::is_immediate`].
    fn is_immediate(&self) -> bool {
        false
    }
    /// Returns whether a message on this topic need not be made, see [`StreamBackend::skip`].
    fn skip(&self, topic: &str) -> bool {
        let _ = topic;
        false
    }
    /// Reports that messages may be missing on topics that one of these globs matches, see [`StreamBackend::note_gap`]. By
    /// default it publishes a gap on each glob as if it were a topic.
    fn note_gap(&self, topics: &[Arc<str>], gap: Gap, now_ms: u64) -> Op<()> {
        let published: Vec<_> = topics.iter().map(|topic| self.publish(Message::gap(topic, gap, now_ms))).collect();
        Op::pending(async move {
            for published in published {
                published.await?;
            }
            Ok(())
        })
    }
    /// Records that an instance uses the stream, see [`StreamBackend::add_instance`].
    fn add_instance(&self, instance: &str) {
        let _ = instance;
    }
}

/// A native stream starts its work in the call, so messages arrive in the order of the calls.
impl Publisher for Arc<dyn StreamBackend> {
    fn publish(&self, message: Message) -> Op<()> {
        self.as_ref().publish(message)
    }

    fn keeps_order(&self) -> bool {
        true
    }

    fn is_shared(&self) -> bool {
        self.as_ref().is_shared()
    }

    fn is_immediate(&self) -> bool {
        self.as_ref().is_immediate()
    }

    fn skip(&self, topic: &str) -> bool {
        self.as_ref().skip(topic)
    }

    fn note_gap(&self, topics: &[Arc<str>], gap: Gap, _: u64) -> Op<()> {
        self.as_ref().note_gap(topics, gap)
    }

    fn add_instance(&self, instance: &str) {
        self.as_ref().add_instance(instance);
    }
}
