//! The options of a file store.

use std::path::PathBuf;

use serde::Deserialize;

use crate::disk::Durability;

/// The name of the database in the directory of a store.
pub(super) const DB_FILE: &str = "nvent.db";

/// What is removed in the background, so that logs do not grow for ever. Nothing, unless it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Retention {
    /// Events that are older, in milliseconds.
    pub max_age_ms: Option<u64>,
    /// The oldest events of a subject that has more.
    pub max_events_per_subject: Option<u64>,
}

impl Retention {
    /// Returns whether anything is removed.
    pub(super) fn is_on(&self) -> bool {
        self.max_age_ms.is_some() || self.max_events_per_subject.is_some()
    }
}

/// The options of a file store.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileStoreOptions {
    /// The directory of `nvent.db`, relative to the working directory. It is created, for this user only, where it is
    /// missing.
    pub data_dir: PathBuf,
    /// What this adapter's writes survive. Adapters on one directory may differ.
    #[serde(default)]
    pub durability: Durability,
    /// Opens what is there without the lock and writes nothing, also while another process has it open.
    #[serde(default)]
    pub read_only: bool,
    /// What is removed in the background. It must be the same for all adapters on a directory.
    #[serde(default)]
    pub retention: Retention,
}

impl FileStoreOptions {
    /// Returns the defaults for this directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            durability: Durability::default(),
            read_only: false,
            retention: Retention::default(),
        }
    }
}
