//! The options of the memory stream.

use serde::Deserialize;

/// The options of a memory stream.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryStreamOptions {
    /// Absent: nothing is retained.
    pub retain: Option<Retain>,
}

/// What a memory stream retains for `from_beginning`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Retain {
    /// Limit of events per topic.
    pub max_events: Option<usize>,
    /// Limit of their age, in ms.
    pub max_age_ms: Option<u64>,
}
