//! Reads the queues of a directory without its lock, also while another process has them open.

use std::path::Path;

use super::super::job::{JobCounts, JobState, State};
use super::super::storage::JobStorage;
use super::sqlite::SqliteStorage;
use crate::error::Result;
use crate::json::Json;

/// Queues that are only read: nothing is recovered, no job begins, no schedule fires.
pub struct QueueReader {
    storage: SqliteStorage,
}

impl QueueReader {
    /// Opens the database of a directory.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Self { storage: SqliteStorage::open_read_only(dir)? })
    }

    /// Returns the names of the queues with the counts of their jobs.
    pub fn queues(&mut self) -> Result<Vec<(String, JobCounts)>> {
        let rows = self.storage.queues()?;
        Ok(rows.into_iter().map(|row| (row.name.to_string(), JobCounts(row.counts, row.paused))).collect())
    }

    /// Returns a page of the jobs of a queue in these states, one state after the other, and the jobs that run next first.
    pub fn jobs(&mut self, queue: &str, states: &[JobState], offset: u64, limit: u64) -> Result<Vec<Json>> {
        let rows = self.storage.queues()?;
        let Some(row) = rows.into_iter().find(|row| &*row.name == queue) else { return Ok(Vec::new()) };
        let counts = JobCounts(row.counts, row.paused);
        let (mut skip, mut found) = (offset, Vec::new());
        for state in states {
            let left = limit - found.len() as u64;
            let Some(stored) = state.stored(row.paused).filter(|_| left > 0) else { continue };
            let newest_first = matches!(stored, State::Completed | State::Failed);
            for job in self.storage.page(row.key, stored, newest_first, skip, left)? {
                let data = self.storage.data(job.seq)?;
                found.push(job.to_json(&data, row.paused));
            }
            skip = skip.saturating_sub(counts.get(*state));
        }
        Ok(found)
    }

    /// Copies everything that is committed into a new file.
    pub fn backup(&mut self, path: &Path) -> Result<()> {
        self.storage.backup(path)
    }

    /// Reads everything. Returns what is wrong, in words.
    pub fn verify(&mut self) -> Result<Vec<String>> {
        self.storage.verify()
    }
}
