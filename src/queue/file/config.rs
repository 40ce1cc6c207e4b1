//! What queues in a directory are made with.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, de::Error as _};

use super::super::options::JobOptions;
use super::super::parse;

/// What an acknowledged change survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The process being killed.
    #[default]
    Os,
    /// Power loss too: one fsync for all changes that wait.
    Disk,
}

/// Options of [`Queue::file`](super::super::Queue::file).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileQueueOptions {
    /// The directory of the queues. Created on first use.
    pub data_dir: PathBuf,
    /// What an acknowledged change survives.
    #[serde(default, deserialize_with = "durability")]
    pub durability: Durability,
    /// Defaults for options that a job does not have.
    #[serde(default, deserialize_with = "parse::default_job_options")]
    pub default_job_options: JobOptions,
}

impl FileQueueOptions {
    /// Options with the defaults.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            durability: Durability::default(),
            default_job_options: JobOptions::default(),
        }
    }

    /// Reads a JSON object; `base` is the path of the object in messages.
    pub fn parse(base: &str, json: &str) -> crate::Result<Self> {
        parse::options(base, json)
    }
}

fn durability<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Durability, D::Error> {
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("os") => Ok(Durability::Os),
        Some("disk") => Ok(Durability::Disk),
        Some(other) => Err(D::Error::custom(format!("durability: {other:?} is not known; 'os' and 'disk' are"))),
    }
}
