//! What queues in memory are made with.

use serde::Deserialize;

use super::super::options::JobOptions;
use super::super::parse;
use crate::error::Result;

/// Options of [`Queue::memory`](super::super::Queue::memory).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MemoryQueueOptions {
    /// Defaults for options that a job does not have.
    #[serde(deserialize_with = "parse::default_job_options")]
    pub default_job_options: JobOptions,
}

impl MemoryQueueOptions {
    /// Reads a JSON object; `base` is the path of the object in messages.
    pub fn parse(base: &str, json: &str) -> Result<Self> {
        crate::json::options(base, json)
    }
}
