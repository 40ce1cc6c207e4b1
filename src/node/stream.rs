//! Streams, as JavaScript calls them.

use std::sync::Arc;

use napi_derive::napi;

use crate::error::{Error, Result};
use crate::json::{self, to_json};
use crate::node::bridge::{Bridge, Reply, Shared, Source, guard, reply, reply_and_leave};
use crate::node::runtime;
use crate::node::store::{health_json, nothing, stats_json};
use crate::stream::{MemoryStream, MemoryStreamOptions, Message, Parking, RedisStream, StreamBackend, SubscribeSpec};
use crate::time::system_clock;
use crate::topic::check_name;

/// A stream of any backend.
#[napi]
pub struct NativeStream {
    pub(super) stream: Arc<dyn StreamBackend>,
    bridge: Arc<Shared>,
}

impl NativeStream {
    fn parking(&self, topic: &str, group: &str) -> Result<&dyn Parking> {
        check_name("topic", topic)?;
        check_name("group", group)?;
        self.stream.parking().ok_or_else(|| Error::invalid(format!("a {} stream parks nothing", self.stream.name())))
    }
}

#[napi]
impl NativeStream {
    /// Creates a stream in memory.
    #[napi(factory)]
    pub fn memory(bridge: &Bridge, options: String) -> napi::Result<Self> {
        guard(|| {
            let MemoryStreamOptions { retain } = json::options("", &options)?;
            let stream = Arc::new(MemoryStream::new(retain, system_clock()));
            Ok(Self { stream, bridge: bridge.shared.clone() })
        })
    }

    /// Creates a stream on Redis.
    #[napi(factory)]
    pub fn redis(bridge: &Bridge, options: String) -> napi::Result<Self> {
        guard(|| {
            let stream = RedisStream::new(json::secret_options("", &options)?, runtime());
            Ok(Self { stream: Arc::new(stream), bridge: bridge.shared.clone() })
        })
    }

    /// Opens it.
    #[napi]
    pub fn open(&self) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.stream.open()), nothing)
    }

    /// Publishes a message.
    #[napi]
    pub fn publish(&self, topic: String, message: String) -> napi::Result<Reply> {
        reply_and_leave(
            &self.bridge,
            || {
                check_name("topic", &topic)?;
                Ok(self.stream.publish(Message::parse(&topic, &message)?))
            },
            nothing,
        )
    }

    /// Subscribes and replies with `[id, single]`.
    #[napi]
    pub fn subscribe(&self, topic: String, options: String) -> napi::Result<Reply> {
        let bridge = self.bridge.clone();
        reply(
            &self.bridge,
            || {
                check_name("topic", &topic)?;
                let spec: SubscribeSpec = json::options("options", &options)?;
                Ok(self.stream.subscribe(&topic, spec, None).map(move |subscription| {
                    let source = Source::Stream(subscription.mailbox.clone());
                    let wake = bridge.subscribe(subscription.id, subscription.topic, source, subscription.shared);
                    subscription.mailbox.add_wake(subscription.id, wake);
                    (subscription.id, subscription.shared)
                }))
            },
            |answer| Some(to_json(&answer).to_string()),
        )
    }

    /// Ends a subscription.
    #[napi]
    pub fn unsubscribe(&self, id: f64) -> napi::Result<Reply> {
        self.bridge.unsubscribe(id as u64);
        reply(&self.bridge, || Ok(self.stream.unsubscribe(id as u64)), nothing)
    }

    /// Returns the topics and patterns with subscribers, as a JSON array.
    #[napi]
    pub fn topics(&self) -> napi::Result<String> {
        guard(|| Ok(to_json(&self.stream.topics().iter().map(|t| &**t).collect::<Vec<_>>()).to_string()))
    }

    /// Returns the number of subscribers of exactly this topic or pattern.
    #[napi]
    pub fn subscription_count(&self, topic: String) -> napi::Result<u32> {
        guard(|| Ok(u32::try_from(self.stream.subscription_count(&topic)).unwrap_or(u32::MAX)))
    }

    /// Replies with what a group parked on a topic, as a JSON array.
    #[napi]
    pub fn parked(&self, topic: String, group: String) -> napi::Result<Reply> {
        let parked = || Ok(self.parking(&topic, &group)?.parked(&topic, &group));
        reply(&self.bridge, parked, |parked| Some(to_json(&parked).to_string()))
    }

    /// Publishes it again; replies with how many.
    #[napi]
    pub fn replay_parked(&self, topic: String, group: String) -> napi::Result<Reply> {
        let replay = || Ok(self.parking(&topic, &group)?.replay_parked(&topic, &group));
        reply(&self.bridge, replay, |count| Some(count.to_string()))
    }

    /// Replies with whether it is usable.
    #[napi]
    pub fn health(&self) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.stream.health()), health_json)
    }

    /// Returns its counters.
    #[napi]
    pub fn stats(&self) -> napi::Result<String> {
        guard(|| Ok(stats_json(self.stream.stats())))
    }

    /// Closes it.
    #[napi]
    pub fn close(&self) -> napi::Result<Reply> {
        reply(&self.bridge, || Ok(self.stream.close()), nothing)
    }
}
