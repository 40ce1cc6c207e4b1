//! The options of the memory stream.

/// What a memory stream retains for `from_beginning`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retain {
    /// Limit of events per topic.
    pub max_events: Option<usize>,
    /// Limit of their age, in ms.
    pub max_age_ms: Option<u64>,
}
