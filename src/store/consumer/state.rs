//! What a store keeps of a consumer.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::json::{self, Json};
use crate::store::feed::Position;

/// What is stored of a consumer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConsumerState {
    /// Every event up to here was handled or parked. None: it begins with the first event.
    pub position: Option<Position>,
    /// Events that retention or trimming removed before it had them, and that were not yet reported to it.
    pub missed: u64,
    /// Number of its parked events.
    pub parked: u64,
}

/// A change of a consumer, stored in one step.
#[derive(Debug, Clone, Default)]
pub struct ConsumerChange {
    /// The new cursor. None: it stays.
    pub position: Option<Position>,
    /// Which events it consumes: what retention removes of others is not counted as missed.
    pub filter: Option<ConsumerFilter>,
    /// How many missed events have been reported.
    pub missed_reported: u64,
    /// Events to park. One that is parked already is replaced.
    pub park: Vec<ParkedEvent>,
    /// Positions of parked events that have been handled.
    pub unpark: Vec<Position>,
}

/// Which events a consumer consumes, as globs. Empty: all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsumerFilter {
    /// Subjects.
    pub subjects: Vec<Arc<str>>,
    /// Types.
    pub types: Vec<Arc<str>>,
}

impl ConsumerChange {
    /// Returns whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.position.is_none()
            && self.filter.is_none()
            && self.missed_reported == 0
            && self.park.is_empty()
            && self.unpark.is_empty()
    }
}

/// An event whose handler failed too often.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParkedEvent {
    /// Where it is in the feed.
    pub position: Position,
    /// Where it was stored.
    pub subject: Arc<str>,
    /// The record. It is kept also when the log loses it.
    #[serde(serialize_with = "json::raw")]
    pub event: Json,
    /// Deliveries so far.
    pub attempts: u32,
    /// The last error.
    pub reason: String,
    /// When it was parked, in ms of Unix time.
    #[serde(rename = "parkedAt")]
    pub parked_at_ms: u64,
}

/// A consumer in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsumerInfo {
    /// Its name.
    pub name: Arc<str>,
    /// Every event up to here was handled or parked.
    pub position: Option<Position>,
    /// Number of its parked events.
    pub parked: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_empty_only_where_it_stores_nothing() {
        let parked = ParkedEvent {
            position: 1.into(),
            subject: "s".into(),
            event: "{}".into(),
            attempts: 1,
            reason: "fails".into(),
            parked_at_ms: 1,
        };
        let empty = ConsumerChange::default;
        assert!(empty().is_empty());
        for change in [
            ConsumerChange { position: Some(1.into()), ..empty() },
            ConsumerChange { filter: Some(ConsumerFilter::default()), ..empty() },
            ConsumerChange { missed_reported: 1, ..empty() },
            ConsumerChange { park: vec![parked], ..empty() },
            ConsumerChange { unpark: vec![1.into()], ..empty() },
        ] {
            assert!(!change.is_empty(), "{change:?}");
        }
    }
}
