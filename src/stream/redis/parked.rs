//! Parked messages: those whose handlers in a group failed too often.

use std::collections::HashMap;

use ::redis::{Value, cmd};
use serde_json::value::RawValue;

use super::scripts;
use super::shared::Shared;
use crate::error::{Error, Result};
use crate::op::Op;
use crate::redis::{Request, reply};
use crate::stream::Parked;

/// Limit of the messages that a group has parked on one topic. Older ones are removed.
pub const MAX_PARKED: usize = 10_000;

/// Limit of the messages that one replay publishes.
const MAX_REPLAYED: usize = 1_000;

/// Converts an entry of the stream of parked messages.
fn from_entry(entry: Value) -> Result<Parked> {
    let incomplete = || Error::corrupt("Redis sent an incomplete parked message");
    let fields = reply::list(entry)?.into_iter().nth(1).ok_or_else(incomplete)?;
    let mut fields: HashMap<_, _> = reply::pairs(fields)?.into_iter().collect();
    let mut field = |name| fields.remove(name).ok_or_else(incomplete);
    Ok(Parked {
        id: field("id")?,
        deliveries: field("deliveries")?.parse().map_err(|_| incomplete())?,
        event: RawValue::from_string(field("message")?).map_err(|_| incomplete())?,
    })
}

/// Returns what a group has parked on a topic, oldest first.
pub(super) fn list(shared: &Shared, topic: &str, group: &str) -> Op<Vec<Parked>> {
    let range = cmd("XRANGE").arg(shared.keys.parked(topic, group)).arg("-").arg("+").take();
    shared
        .client
        .call(Request::read("parked", range), |entries| reply::list(entries)?.into_iter().map(from_entry).collect())
}

/// Publishes what a group has parked on a topic again, and removes it. Returns the number of messages, at most
/// [`MAX_REPLAYED`].
pub(super) fn replay(shared: &Shared, topic: &str, group: &str, (max_len, max_backlog): (u64, u64)) -> Op<u64> {
    let keys = &shared.keys;
    let mut call = scripts::REPLAY.call(&[
        &keys.retained(topic),
        &keys.topics(),
        &keys.sequence(),
        &keys.trimmed(topic),
        &keys.parked(topic, group),
    ]);
    call.arg(topic).arg(max_len).arg(max_backlog).arg(MAX_REPLAYED);
    shared.client.call(Request::write("replayParked", call).of(&scripts::REPLAY), |count| {
        reply::int(count).map(|count| u64::try_from(count).unwrap_or(0))
    })
}
