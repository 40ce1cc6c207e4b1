//! Reads the messages of retained topics that a subscriber has missed.

use std::sync::Arc;

use ::redis::cmd;

use super::shared::Shared;
use super::subscriber::{OUTAGE, Subscriber};
use crate::error::Result;
use crate::event::EventId;
use crate::redis::pubsub::Channel;
use crate::redis::{Request, reconnect_backoff, reply};

/// Messages read at a time.
const MAX_MESSAGES_PER_READ: usize = 500;

/// Reads what a subscriber has missed until it is live.
pub(super) async fn catch_up(subscriber: Arc<Subscriber>, shared: Arc<Shared>) {
    let mut backoff = reconnect_backoff(&shared.config);
    loop {
        subscriber.begin_pass();
        let read = read_missed(&subscriber, &shared).await;
        if subscriber.is_closed() {
            return;
        }
        if let Err(error) = read {
            tracing::debug!(%error, topic = %subscriber.topic, "a subscriber cannot read what it missed, and tries again");
            tokio::time::sleep(backoff.next_delay()).await;
        } else if subscriber.end_pass() {
            return;
        }
    }
}

async fn read_missed(subscriber: &Subscriber, shared: &Shared) -> Result<()> {
    let is_exact = matches!(subscriber.channel, Channel::Exact(_));
    if subscriber.needs_start() {
        // The server could not be asked when the subscription was made, so what was published meanwhile is unknown.
        let tail_ids = shared.tail_ids(if is_exact { &subscriber.topic } else { "" });
        subscriber.start_at(tail_ids.await?)?;
        report_outage(subscriber, shared);
    }
    let topics = if is_exact {
        vec![subscriber.topic.to_string()]
    } else {
        let members = cmd("SMEMBERS").arg(shared.keys.topics()).take();
        shared.client.call(Request::read("SMEMBERS", members), reply::texts).await?
    };
    for topic in topics.iter().filter(|topic| subscriber.matches(topic)) {
        read_topic(subscriber, shared, topic).await?;
    }
    Ok(())
}

fn report_outage(subscriber: &Subscriber, shared: &Shared) {
    subscriber.mailbox.note_gap(OUTAGE);
    shared.count_gap();
}

async fn read_topic(subscriber: &Subscriber, shared: &Shared, topic: &str) -> Result<()> {
    let key = shared.keys.retained(topic);
    let mut known = subscriber.position(topic).filter(|last| *last != EventId::default());
    loop {
        // The last delivered entry is read again, which shows whether it has been removed.
        let from = subscriber.position(topic).map_or_else(|| "-".to_owned(), |last| last.to_string());
        let range = cmd("XRANGE").arg(&key).arg(from).arg("+").arg("COUNT").arg(MAX_MESSAGES_PER_READ).take();
        let entries = shared.client.call(Request::read("XRANGE", range), reply::list).await?;
        let is_full = entries.len() == MAX_MESSAGES_PER_READ;
        let entries = entries.into_iter().map(|entry| shared.entry(topic, entry)).collect::<Result<Vec<_>>>()?;
        if known.take().is_some_and(|last| entries.first().is_none_or(|entry| entry.id != last)) {
            // Trimmed, or lost by the server: the messages between cannot be read.
            report_outage(subscriber, shared);
        }
        for entry in entries {
            // A replay waits for a slow subscriber instead of overflowing its mailbox.
            subscriber.mailbox.wait_for_capacity().await;
            if subscriber.is_closed() {
                return Ok(());
            }
            subscriber.deliver_retained(topic, entry.id, entry.message.as_ref(), entry.own);
        }
        if !is_full {
            return Ok(());
        }
    }
}
