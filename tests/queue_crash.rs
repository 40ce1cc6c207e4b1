//! A process that is killed with jobs in flight: nothing acknowledged is lost, and every job runs to its end.
//!
//! The process that dies is this test binary, run again with [`DIR`] set.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nvent_native::Code;
use nvent_native::fanout::{Delivery, Mailbox, Overflow};
use nvent_native::queue::{
    EventKind, FileQueueOptions, JobDelivery, JobState, NewJob, Queue, WorkerOptions, worker_mailbox,
};
use nvent_native::time::system_clock;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Handle;

/// Where the process that dies has its queue.
const DIR: &str = "QUEUE_CRASH_DIR";
const IN_FLIGHT: usize = 50;
const ALL: usize = 60;

fn open(dir: &Path) -> Arc<Queue> {
    Arc::new(Queue::file(FileQueueOptions::new(dir), system_clock(), Handle::current()))
}

fn job(id: usize) -> NewJob {
    NewJob::parse("job", &json!({"name": "step", "data": id, "opts": {"jobId": id.to_string()}}).to_string()).unwrap()
}

fn print_line(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n> {line}").unwrap();
    out.flush().unwrap();
}

/// Runs one test of this binary again, as the process that dies.
fn spawn(test: &str, dir: &Path) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    (child, lines.filter_map(|line| line.strip_prefix("> ").map(str::to_owned)))
}

/// Kills the process with SIGKILL.
fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Takes jobs, starts them where `begin` is set, and never ends one.
async fn hold(dir: &Path, begin: bool) -> ! {
    let queue = open(dir);
    let mailbox = worker_mailbox();
    let options = WorkerOptions { concurrency: IN_FLIGHT, ..WorkerOptions::default() };
    queue.register_worker("q", "step", options, mailbox.clone()).await.unwrap();
    queue.start("q").await.unwrap();
    for id in 0..ALL {
        queue.enqueue("q", job(id)).await.unwrap();
    }
    for _ in 0..IN_FLIGHT {
        let Some(Delivery::Item(delivery)) = mailbox.recv().await else { panic!("a job is missing") };
        assert!(!begin || queue.start_attempt(&delivery));
    }
    // Behind everything above.
    assert_eq!(queue.counts("q").await.unwrap().get(JobState::Active), IN_FLIGHT as u64);
    print_line("in flight");
    std::future::pending().await
}

/// Runs what was left behind; how many attempts each job took, by id.
async fn finish(dir: &Path) -> Vec<u64> {
    let queue = open(dir);
    let done = Arc::new(Mailbox::new(1_000, Overflow::DropOldest));
    queue.on("q", EventKind::Completed, done.clone()).await.unwrap();
    let options = WorkerOptions { concurrency: 7, ..WorkerOptions::default() };
    queue.work("q", "step", options, async |_: JobDelivery| Ok("true".into()));
    queue.start("q").await.unwrap();
    let mut attempts = vec![0; ALL];
    for _ in 0..ALL {
        let event = tokio::time::timeout(Duration::from_secs(30), done.recv()).await.expect("every job ends");
        let Some(Delivery::Item(event)) = event else { panic!("{event:?}") };
        let payload: Value = serde_json::from_str(&event.payload).unwrap();
        let id: usize = payload["jobId"].as_str().unwrap().parse().unwrap();
        assert_eq!(attempts[id], 0, "job {id} ended twice");
        attempts[id] = payload["attemptsMade"].as_u64().unwrap();
    }
    assert_eq!(queue.counts("q").await.unwrap().get(JobState::Completed), ALL as u64);
    queue.close(Duration::from_secs(10)).await.unwrap();
    attempts
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_had_begun_run_again_and_the_attempt_counts() {
    if let Some(dir) = std::env::var_os(DIR) {
        hold(Path::new(&dir), true).await;
    }
    let dir = TempDir::new().unwrap();
    let (child, mut lines) = spawn("jobs_that_had_begun_run_again_and_the_attempt_counts", dir.path());
    assert_eq!(lines.next().as_deref(), Some("in flight"));
    let locked = open(dir.path()).open().await.unwrap_err();
    assert_eq!(locked.code(), Code::Locked, "{locked}");
    kill(child);
    let attempts = finish(dir.path()).await;
    assert_eq!(attempts, [[2; IN_FLIGHT].as_slice(), &[1; ALL - IN_FLIGHT]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_had_not_begun_run_as_if_nothing_had_happened() {
    if let Some(dir) = std::env::var_os(DIR) {
        hold(Path::new(&dir), false).await;
    }
    let dir = TempDir::new().unwrap();
    let (child, mut lines) = spawn("jobs_that_had_not_begun_run_as_if_nothing_had_happened", dir.path());
    assert_eq!(lines.next().as_deref(), Some("in flight"));
    kill(child);
    assert_eq!(finish(dir.path()).await, [1; ALL]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_takes_its_process_down_again_and_again_fails_in_the_end() {
    if let Some(dir) = std::env::var_os(DIR) {
        hold_one(Path::new(&dir)).await;
    }
    let dir = TempDir::new().unwrap();
    for _ in 0..4 {
        let (child, mut lines) =
            spawn("a_job_that_takes_its_process_down_again_and_again_fails_in_the_end", dir.path());
        assert_eq!(lines.next().as_deref(), Some("in flight"));
        kill(child);
    }
    let failed = open(dir.path()).job("q", "0").await.unwrap().unwrap();
    let failed: Value = serde_json::from_str(&failed).unwrap();
    assert_eq!((&failed["state"], &failed["attemptsMade"]), (&json!("failed"), &json!(4)), "{failed}");
    assert!(failed["failedReason"].as_str().unwrap().starts_with("stalled 4 times"), "{failed}");
}

async fn hold_one(dir: &Path) -> ! {
    let queue = open(dir);
    let mailbox = worker_mailbox();
    queue.register_worker("q", "step", WorkerOptions::default(), mailbox.clone()).await.unwrap();
    queue.start("q").await.unwrap();
    queue.enqueue("q", job(0)).await.unwrap();
    let Some(Delivery::Item(delivery)) = mailbox.recv().await else { panic!("the job is missing") };
    assert!(queue.start_attempt(&delivery));
    queue.counts("q").await.unwrap();
    print_line("in flight");
    std::future::pending().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_kill_at_any_moment() {
    if let Some(dir) = std::env::var_os(DIR) {
        let queue = open(Path::new(&dir));
        for first in (0..).step_by(8) {
            let together: Vec<_> = (first..first + 8).map(|id| queue.enqueue("q", job(id))).collect();
            for op in together {
                print_line(&op.await.unwrap());
            }
        }
    }
    for acknowledged in [1, 100, 333] {
        let dir = TempDir::new().unwrap();
        let (child, mut lines) = spawn("what_was_acknowledged_is_there_after_a_kill_at_any_moment", dir.path());
        // It goes on while these are read: the kill comes in the middle of a later one.
        let acknowledged: BTreeSet<String> = lines.by_ref().take(acknowledged).collect();
        kill(child);
        let queue = open(dir.path());
        let jobs = queue.jobs("q", &[JobState::Waiting], 0, None).await.unwrap();
        let kept: BTreeSet<String> = jobs
            .iter()
            .map(|job| serde_json::from_str::<Value>(job).unwrap()["id"].as_str().unwrap().to_owned())
            .collect();
        assert!(acknowledged.is_subset(&kept), "lost: {:?}", acknowledged.difference(&kept));
        assert_eq!(queue.counts("q").await.unwrap().get(JobState::Waiting), kept.len() as u64);
    }
}
