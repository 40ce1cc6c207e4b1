//! What queues in a directory are made with.

use std::path::PathBuf;

use serde::Deserialize;

use super::super::options::JobOptions;
use super::super::parse;
use crate::disk::Durability;

/// Options of [`Queue::file`](super::super::Queue::file).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileQueueOptions {
    /// The directory of the queues. Created on first use.
    pub data_dir: PathBuf,
    /// What an acknowledged change survives.
    #[serde(default)]
    pub durability: Durability,
    /// Defaults for options that a job does not have.
    #[serde(default, deserialize_with = "parse::default_job_options")]
    pub default_job_options: JobOptions,
}

impl FileQueueOptions {
    /// Creates options with the defaults.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            durability: Durability::default(),
            default_job_options: JobOptions::default(),
        }
    }

    /// Reads a JSON object; `base` is the path of the object in messages.
    pub fn parse(base: &str, json: &str) -> crate::Result<Self> {
        crate::json::options(base, json)
    }
}
