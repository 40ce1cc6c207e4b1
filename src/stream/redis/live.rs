//! What the pub/sub connection reports, passed to the subscribers.

use std::sync::{Arc, Weak};

use super::catch_up::catch_up;
use super::shared::Shared;
use super::subscriber::{Resumption, Subscriber};
use super::wire;
use crate::redis::pubsub::{Channel, PubSubHandler};
use crate::stream::Message;
use crate::sync::read;

/// Does what a subscriber needs whose messages arrive again.
pub(super) fn resume(subscriber: &Arc<Subscriber>, resumption: Resumption, shared: &Arc<Shared>) {
    match resumption {
        Resumption::Complete => {}
        Resumption::WithGap => shared.count_gap(),
        Resumption::Behind => _ = shared.runtime.spawn(catch_up(subscriber.clone(), shared.clone())),
    }
}

/// Passes messages of the pub/sub connection to the subscribers of their channel.
pub(super) struct SubscriberHandler(pub(super) Weak<Shared>);

impl PubSubHandler for SubscriberHandler {
    fn on_message(&self, channel: &Channel, topic: &str, payload: &[u8]) {
        let Some(shared) = self.0.upgrade() else { return };
        if *channel == shared.gaps_channel {
            return shared.on_gap(payload);
        }
        // What a pattern receives of that channel is no message.
        if matches!(&shared.gaps_channel, Channel::Exact(gaps) if **gaps == *topic) {
            return;
        }
        let received = String::from_utf8_lossy(payload);
        let received = wire::read(&received);
        // What is not a JSON object was not published by an adapter.
        let Ok(message) = Message::parse(topic, &received.json) else { return };
        let own = received.origin.is_some_and(|origin| shared.is_own(origin));
        for subscriber in shared.of_channel(channel) {
            subscriber.on_message(&message, received.id, own);
        }
    }

    fn on_subscribed(&self, channel: &Channel) {
        let Some(shared) = self.0.upgrade() else { return };
        for subscriber in shared.of_channel(channel) {
            resume(&subscriber, subscriber.on_subscribed(), &shared);
        }
    }

    fn on_disconnected(&self) {
        let Some(shared) = self.0.upgrade() else { return };
        let all: Vec<_> = read(&shared.subscribers).values().flatten().cloned().collect();
        all.iter().for_each(|subscriber| subscriber.on_disconnected());
    }
}
