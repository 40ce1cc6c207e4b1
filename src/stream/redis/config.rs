//! The options of the Redis stream.

use std::time::Duration;

use serde::Deserialize;

use crate::redis::RedisConfig;

/// Which topics are retained, and how much of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetainTopics {
    /// Globs.
    pub topics: Vec<String>,
    /// About how many messages each topic keeps.
    #[serde(default = "RetainTopics::default_max_len")]
    pub max_len: u64,
    /// How many more each topic keeps while a group has not acknowledged them. None: ten times `max_len`, and at least
    /// [`RetainTopics::MIN_BACKLOG`]. What a group misses beyond that is reported to it as a gap.
    #[serde(skip)]
    pub max_backlog: Option<u64>,
}

impl RetainTopics {
    /// Default of `max_len`.
    pub const DEFAULT_MAX_LEN: u64 = 10_000;
    const fn default_max_len() -> u64 {
        Self::DEFAULT_MAX_LEN
    }

    /// Least default of `max_backlog`.
    pub const MIN_BACKLOG: u64 = 10_000;

    pub(super) fn backlog(&self) -> u64 {
        self.max_backlog.unwrap_or_else(|| self.max_len.saturating_mul(10).max(Self::MIN_BACKLOG))
    }
}

/// How groups handle failures.
#[derive(Debug, Clone, Copy)]
pub struct GroupOptions {
    /// Idle time after which the messages of a member are claimed by others.
    pub claim_idle_after: Duration,
    /// Delay before a message is delivered again after its first failure. It doubles with each further one.
    pub retry_delay: Duration,
    /// Deliveries of a message before it is parked.
    pub max_deliveries: u32,
    /// How long leaving a group waits for handlers that are running.
    pub drain_timeout: Duration,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            claim_idle_after: Duration::from_secs(30),
            retry_delay: Duration::from_millis(500),
            max_deliveries: 5,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// The options of a [`super::RedisStream`].
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RedisStreamOptions {
    /// The server.
    pub connection: RedisConfig,
    /// Prefix of the stream's own keys. Topics are used as they are given.
    pub prefix: String,
    /// Which topics are retained. None: no topic.
    pub retain: Option<RetainTopics>,
    /// How groups handle failures.
    #[serde(skip)]
    pub groups: GroupOptions,
}

impl Default for RedisStreamOptions {
    fn default() -> Self {
        Self {
            connection: RedisConfig::default(),
            prefix: "nvent".into(),
            retain: None,
            groups: GroupOptions::default(),
        }
    }
}
