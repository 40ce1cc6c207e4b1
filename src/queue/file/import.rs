//! Taking over the waiting jobs of nvent's own file queue.
//!
//! It keeps one file per job, `<queue>/jobs/<id>.json`: `{ id, name, data, opts?, state, timestamp, attemptsMade }`, with
//! the queue in `data.__queueName` as well. Jobs that wait, are delayed or were at work are imported once, when the
//! database is created; ended jobs are not. The files stay.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::super::job::{Job, State};
use super::super::options::JobOptions;
use super::super::storage::{JobStorage, QueueRow};
use crate::error::Result;
use crate::json::{Json, Object, check_depth, to_json};
use crate::topic::check_name;

/// Problems that are listed.
const MAX_PROBLEMS: usize = 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JobFile {
    id: String,
    name: String,
    #[serde(default)]
    data: serde_json::Value,
    #[serde(default)]
    opts: Object,
    state: String,
    #[serde(default)]
    timestamp: u64,
    #[serde(default)]
    attempts_made: u32,
}

/// Imports the jobs in a directory. Files that cannot be read are reported and skipped.
pub(super) fn import(storage: &mut dyn JobStorage, dir: &Path) -> Result<()> {
    let mut problems = Vec::new();
    let mut jobs: Vec<(Arc<str>, JobFile)> = Vec::new();
    for queue in sorted_entries(dir) {
        for path in
            sorted_entries(&queue.join("jobs")).into_iter().filter(|path| path.extension() == Some("json".as_ref()))
        {
            match read(&path, &queue) {
                Ok(Some(job)) => jobs.push(job),
                Ok(None) => {}
                Err(problem) => problems.push(format!("{}: {problem}", path.display())),
            }
        }
    }
    // In the order in which they were enqueued.
    jobs.sort_by_key(|(_, job)| job.timestamp);
    let mut queues: Vec<QueueRow> = Vec::new();
    let count = jobs.len();
    for (queue, file) in jobs {
        let at = match queues.iter().position(|row| row.name == queue) {
            Some(at) => at,
            None => {
                queues.push(storage.add_queue(&queue)?);
                queues.len() - 1
            }
        };
        add(storage, &mut queues[at], file)?;
    }
    queues.iter().try_for_each(|row| storage.save_queue(row))?;
    if count > 0 || !problems.is_empty() {
        let skipped = if problems.is_empty() {
            String::new()
        } else {
            format!("; skipped {}: {}", problems.len(), problems[..problems.len().min(MAX_PROBLEMS)].join("; "))
        };
        tracing::warn!(
            code = "NVENT_IMPORT",
            "imported {count} waiting jobs of nvent's own file queue from {}; its files were left as they are{skipped}",
            dir.display()
        );
    }
    Ok(())
}

fn sorted_entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Reads the file of a job. Returns None where the job has ended.
fn read(path: &Path, queue: &Path) -> std::result::Result<Option<(Arc<str>, JobFile)>, String> {
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    check_depth("the job", &text).map_err(|e| e.message().to_owned())?;
    let mut job: JobFile = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    if !matches!(job.state.as_str(), "waiting" | "delayed" | "active" | "paused") {
        return Ok(None);
    }
    let named = job.data.as_object_mut().and_then(|data| data.shift_remove("__queueName"));
    let folder = queue.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let queue = named.and_then(|name| name.as_str().map(str::to_owned)).unwrap_or(folder);
    for (what, name) in [("id", &job.id), ("name", &job.name), ("queue", &queue)] {
        check_name(what, name).map_err(|e| e.message().to_owned())?;
    }
    Ok(Some((queue.into(), job)))
}

fn add(storage: &mut dyn JobStorage, row: &mut QueueRow, file: JobFile) -> Result<()> {
    let id: Arc<str> = file.id.into();
    if storage.find(row.key, &id)?.is_some() {
        return Ok(());
    }
    // An option that means nothing here is left out rather than the job.
    let mut options = JobOptions::default();
    for (key, value) in file.opts {
        let one = Object::from_iter([(key, value)]);
        options = JobOptions::parse("opts", &to_json(&one)).unwrap_or_default().or(&options);
    }
    options.job_id = Some(id.clone());
    let state = if file.state == "delayed" { State::Delayed } else { State::Waiting };
    let mut job = Job {
        seq: 0,
        queue: row.key,
        id,
        name: file.name.into(),
        order: (0, 0),
        state,
        timestamp: file.timestamp,
        processed_on: None,
        finished_on: None,
        attempts_made: file.attempts_made,
        started: false,
        stalls: 0,
        progress: None,
        returnvalue: None,
        failed_reason: None,
        options: Arc::new(options),
    };
    let number = row.next;
    row.next += 1;
    row.counts[state as usize] += 1;
    let due = file.timestamp.saturating_add(job.options.delay.unwrap_or(0));
    job.order = match state {
        State::Delayed => (i64::try_from(due).unwrap_or(i64::MAX), number),
        _ => job.waiting_order(number),
    };
    let data: Json = to_json(&file.data);
    job.seq = storage.insert(&job, &data)?;
    storage.update(&job)
}
