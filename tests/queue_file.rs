//! What only a queue on disk has: restarts, and several adapters of one process on one directory.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nvent_native::Code;
use nvent_native::fanout::{Delivery, Mailbox, Overflow};
use nvent_native::queue::{
    CLOSE_TIMEOUT, Durability, EventKind, FileQueueOptions, JobDelivery, JobState, NewJob, Queue, ScheduleOptions,
};
use nvent_native::queue::{WorkerOptions, worker_mailbox};
use nvent_native::time::{ManualClock, SharedClock};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Handle;

const DIR: &str = "NVENT_TEST_SECOND_QUEUE";

fn open(dir: &Path, clock: SharedClock) -> Queue {
    let options = FileQueueOptions { durability: Durability::Disk, ..FileQueueOptions::new(dir) };
    Queue::file(options, clock, Handle::current())
}

fn job(id: &str, opts: Value) -> NewJob {
    let mut job = json!({"name": "step", "data": {"für": "später"}, "opts": opts});
    job["opts"]["jobId"] = id.into();
    NewJob::parse("job", &job.to_string()).unwrap()
}

async fn work(queue: &Queue, concurrency: usize) -> Arc<Mailbox<JobDelivery>> {
    let mailbox = worker_mailbox();
    let options = WorkerOptions { concurrency, ..WorkerOptions::default() };
    queue.register_worker("q", "step", options, mailbox.clone()).await.unwrap();
    queue.start("q").await.unwrap();
    mailbox
}

async fn next(mailbox: &Mailbox<JobDelivery>) -> JobDelivery {
    match tokio::time::timeout(Duration::from_secs(20), mailbox.recv()).await.expect("a job comes") {
        Some(Delivery::Item(delivery)) => delivery,
        other => panic!("{other:?}"),
    }
}

fn id(delivery: &JobDelivery) -> String {
    serde_json::from_str::<Value>(&delivery.job).unwrap()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_restart_keeps_jobs_delays_pauses_and_schedules() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::at(1_767_225_600_000));
    let queue = open(dir.path(), clock.clone());
    let mailbox = work(&queue, 1).await;
    queue.enqueue("q", job("done", json!({"attempts": 3}))).await.unwrap();
    let delivery = next(&mailbox).await;
    assert!(queue.start_attempt(&delivery));
    queue.complete(delivery.token, r#"{"a":[1.50]}"#.into()).await.unwrap();
    queue.enqueue("q", job("delayed", json!({"delay": 1_000, "priority": 3}))).await.unwrap();
    let hourly = ScheduleOptions::parse("opts", r#"{"cron":"0 * * * *","repeat":{"tz":"UTC","limit":2}}"#).unwrap();
    queue.schedule("q", job("hourly", json!({})), hourly).await.unwrap();
    queue.pause("q").await.unwrap();
    queue.enqueue("q", job("paused", json!({}))).await.unwrap();
    let before = queue.jobs("q", &[], 0, None).await.unwrap();
    let scheduled = queue.scheduled("q").await.unwrap();
    queue.close(CLOSE_TIMEOUT).await.unwrap();

    let queue = open(dir.path(), clock.clone());
    assert_eq!(queue.jobs("q", &[], 0, None).await.unwrap(), before);
    assert_eq!(queue.scheduled("q").await.unwrap(), scheduled);
    assert!(queue.is_paused("q").await.unwrap());
    queue.close(CLOSE_TIMEOUT).await.unwrap();

    // Five hours later, all that time asleep.
    clock.advance(5 * 3_600_000);
    let queue = open(dir.path(), clock.clone());
    let mailbox = work(&queue, 10).await;
    assert!(mailbox.is_empty());
    queue.resume("q").await.unwrap();
    let mut ran = [next(&mailbox).await, next(&mailbox).await, next(&mailbox).await].map(|delivery| id(&delivery));
    ran.sort();
    assert_eq!(ran, ["delayed", "hourly:1767229200000", "paused"]);
    let counts = queue.counts("q").await.unwrap();
    assert_eq!((counts.get(JobState::Active), counts.get(JobState::Completed)), (3, 1));
    assert!(mailbox.is_empty());
}

#[tokio::test]
async fn a_pause_and_the_removal_of_a_schedule_are_kept_by_themselves() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::at(1_767_225_600_000));
    let queue = open(dir.path(), clock.clone());
    let hourly = || ScheduleOptions::parse("opts", r#"{"cron":"0 * * * *"}"#).unwrap();
    let removed = queue.schedule("q", job("removed", json!({})), hourly()).await.unwrap();
    queue.schedule("q", job("kept", json!({})), hourly()).await.unwrap();
    queue.pause("q").await.unwrap();
    queue.close(CLOSE_TIMEOUT).await.unwrap();

    let queue = open(dir.path(), clock.clone());
    assert!(queue.is_paused("q").await.unwrap());
    queue.resume("q").await.unwrap();
    assert!(queue.remove_scheduled(&removed).await.unwrap());
    queue.close(CLOSE_TIMEOUT).await.unwrap();

    let queue = open(dir.path(), clock.clone());
    assert!(!queue.is_paused("q").await.unwrap());
    let scheduled = queue.scheduled("q").await.unwrap();
    assert_eq!(scheduled.len(), 1, "{scheduled:?}");
    assert!(!queue.remove_scheduled(&removed).await.unwrap());
    queue.close(CLOSE_TIMEOUT).await.unwrap();
}

#[tokio::test]
async fn adapters_on_one_directory_share_it_and_the_newest_gets_the_jobs() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::at(1_767_225_600_000));
    let old = open(&dir.path().join("."), clock.clone());
    let old_jobs = work(&old, 2).await;
    old.enqueue("q", job("1", json!({}))).await.unwrap();
    let first = next(&old_jobs).await;
    assert!(old.start_attempt(&first));
    // A hot reload: the new code is there before the old one is gone.
    let new = open(dir.path(), clock.clone());
    let new_jobs = work(&new, 5).await;
    for id in ["2", "3"] {
        old.enqueue("q", job(id, json!({}))).await.unwrap();
    }
    assert_eq!(id(&next(&new_jobs).await), "2");
    assert!(old_jobs.is_empty() && new_jobs.is_empty(), "two at a time: the first worker has decided");
    let closing = old.close(CLOSE_TIMEOUT);
    assert!(old.complete(first.token, "1".into()).await.unwrap());
    closing.await.unwrap();
    assert_eq!(id(&next(&new_jobs).await), "3");
    assert_eq!(old.open().await.unwrap_err().code(), Code::Closed);
    for id in ["4", "5", "6", "7"] {
        new.enqueue("q", job(id, json!({}))).await.unwrap();
    }
    let counts = new.counts("q").await.unwrap();
    assert_eq!((counts.get(JobState::Active), counts.get(JobState::Waiting)), (5, 1));
}

#[tokio::test]
async fn a_listener_ends_with_its_adapter_and_not_with_the_others_of_the_directory() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::at(1_000));
    let (closed, dropped, left) =
        (open(dir.path(), clock.clone()), open(dir.path(), clock.clone()), open(dir.path(), clock.clone()));
    let listen = async |queue: &Queue| {
        let mailbox = Arc::new(Mailbox::new(10, Overflow::DropOldest));
        queue.on("q", EventKind::Waiting, mailbox.clone()).await.unwrap();
        mailbox
    };
    let (of_closed, of_dropped, of_left) = (listen(&closed).await, listen(&dropped).await, listen(&left).await);
    closed.close(CLOSE_TIMEOUT).await.unwrap();
    drop(dropped);
    left.enqueue("q", job("a", json!({}))).await.unwrap();
    assert!(matches!(of_left.recv().await, Some(Delivery::Item(_))), "the one that is notified last");
    assert!(of_closed.is_empty() && of_dropped.is_empty());
    left.close(CLOSE_TIMEOUT).await.unwrap();
}

#[tokio::test]
async fn an_adapter_opens_while_the_last_one_still_closes() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::at(1_767_225_600_000));
    for round in 0..20 {
        let queue = open(dir.path(), clock.clone());
        assert_eq!(queue.counts("q").await.unwrap().get(JobState::Waiting), round);
        queue.enqueue("q", job(&round.to_string(), json!({}))).await.unwrap();
        // Nothing waits for it.
        drop(queue.close(CLOSE_TIMEOUT));
    }
}

#[tokio::test]
async fn an_adapter_that_is_dropped_releases_its_directory_and_its_jobs() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::at(1_767_225_600_000));
    let queue = open(dir.path(), clock.clone());
    let mailbox = work(&queue, 1).await;
    queue.enqueue("q", job("x", json!({}))).await.unwrap();
    next(&mailbox).await;
    drop(queue);
    let queue = open(dir.path(), clock);
    let mailbox = work(&queue, 1).await;
    assert_eq!(id(&next(&mailbox).await), "x");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_an_error_and_opening_can_be_tried_again() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::at(1_767_225_600_000));
    let path = dir.path().join("queue.db");
    std::fs::write(&path, "this is a letter, and a rather long one, not a database at all".repeat(100)).unwrap();
    let queue = open(dir.path(), clock);
    let mailbox = worker_mailbox();
    queue.register_worker("q", "step", WorkerOptions::default(), mailbox.clone()).await.unwrap();
    let error = queue.start("q").await.unwrap_err();
    assert!(error.code() == Code::Corrupt && error.message().contains("queue.db"), "{error}");
    std::fs::remove_file(&path).unwrap();
    queue.enqueue("q", job("x", json!({}))).await.unwrap();
    assert_eq!(id(&next(&mailbox).await), "x");
}

#[tokio::test]
async fn a_log_whose_database_is_lost_is_kept() {
    let (base, clock) = (TempDir::new().unwrap(), ManualClock::at(1_767_225_600_000));
    let (from, dir) = (base.path().join("running"), base.path().join("data"));
    let queue = open(&from, clock.clone());
    queue.enqueue("q", job("x", json!({}))).await.unwrap();
    std::fs::create_dir(&dir).unwrap();
    std::fs::copy(from.join("queue.db-wal"), dir.join("queue.db-wal")).unwrap();
    let again = open(&dir, clock);
    for _ in 0..2 {
        let error = again.enqueue("q", job("y", json!({}))).await.unwrap_err();
        assert!(error.code() == Code::Corrupt && error.message().contains("restore queue.db"), "{error}");
    }
    std::fs::copy(from.join("queue.db"), dir.join("queue.db")).unwrap();
    assert!(again.job("q", "x").await.unwrap().is_some());
}

#[tokio::test]
async fn a_step_that_cannot_be_stored_is_an_error_and_stops_the_queue() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::at(1_767_225_600_000));
    let queue = open(dir.path(), clock.clone());
    let acknowledged = queue.enqueue("q", job("kept", json!({}))).await.unwrap();
    queue.close(CLOSE_TIMEOUT).await.unwrap();
    // The next job meets an index that refuses it, as a full disk would.
    let database = rusqlite::Connection::open(dir.path().join("queue.db")).unwrap();
    let refuse = "CREATE TRIGGER full BEFORE INSERT ON job_data BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
    database.execute_batch(refuse).unwrap();
    drop(database);
    let queue = open(dir.path(), clock.clone());
    let waiting = Arc::new(Mailbox::new(10, Overflow::DropOldest));
    queue.on("q", EventKind::Waiting, waiting.clone()).await.unwrap();
    let error = queue.enqueue("q", job("lost", json!({}))).await.unwrap_err();
    assert!(waiting.is_empty(), "no event is published for a job that was not stored");
    assert!(error.code() == Code::Io && error.message().contains("the disk is full"), "{error}");
    let error = queue.counts("q").await.unwrap_err();
    assert!(error.code() == Code::Io && error.message().contains("stopped"), "{error}");
    queue.close(CLOSE_TIMEOUT).await.unwrap();
    let queue = open(dir.path(), clock);
    let ids: Vec<_> = queue.jobs("q", &[], 0, None).await.unwrap();
    assert!(ids.len() == 1 && ids[0].contains(&*acknowledged), "{ids:?}");
}

#[tokio::test]
async fn a_job_whose_adapter_was_closed_stalls_and_runs_on_another() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::at(1_767_225_600_000));
    let (leaving, staying) = (open(dir.path(), clock.clone()), open(dir.path(), clock));
    let stalled = Arc::new(Mailbox::new(10, Overflow::DropOldest));
    staying.on("q", EventKind::Stalled, stalled.clone()).await.unwrap();
    let mailbox = work(&leaving, 2).await;
    for id in ["started", "not"] {
        leaving.enqueue("q", job(id, json!({"attempts": 2}))).await.unwrap();
    }
    assert!(leaving.start_attempt(&next(&mailbox).await));
    assert_eq!(leaving.close(Duration::ZERO).await.unwrap(), 1);
    let Some(Delivery::Item(event)) = stalled.recv().await else { panic!("the event is missing") };
    assert_eq!(*event.payload, *r#"{"jobId":"started","name":"step","attemptsMade":1}"#);
    assert!(stalled.is_empty());
    let mailbox = work(&staying, 2).await;
    assert_eq!([id(&next(&mailbox).await), id(&next(&mailbox).await)], ["started", "not"]);
}

/// What is not to be read is made unreadable: reading it would be an error.
#[tokio::test]
async fn of_100_000_waiting_jobs_only_those_are_read_that_are_asked_for() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::at(1_767_225_600_000));
    let queue = open(dir.path(), clock.clone());
    let enqueued: Vec<_> = (0..100_000).map(|n| queue.enqueue("q", job(&n.to_string(), json!({})))).collect();
    for op in enqueued {
        op.await.unwrap();
    }
    queue.close(CLOSE_TIMEOUT).await.unwrap();
    let database = rusqlite::Connection::open(dir.path().join("queue.db")).unwrap();
    let spoil = "UPDATE jobs SET options = 'spoilt' WHERE CAST(id AS INTEGER) BETWEEN 5 AND 99994;
                 DELETE FROM job_data WHERE seq IN (SELECT seq FROM jobs WHERE options = 'spoilt')";
    database.execute_batch(spoil).unwrap();
    drop(database);

    let queue = open(dir.path(), clock);
    let counts = async || {
        let counts = queue.counts("q").await.unwrap();
        (counts.get(JobState::Waiting), counts.get(JobState::Active))
    };
    let page = async |offset| {
        let jobs = queue.jobs("q", &[JobState::Waiting], offset, Some(5)).await.unwrap();
        jobs.iter().map(|job| serde_json::from_str::<Value>(job).unwrap()["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(counts().await, (100_000, 0));
    assert_eq!(page(0).await, ["0", "1", "2", "3", "4"]);
    assert_eq!(page(99_995).await, ["99995", "99996", "99997", "99998", "99999"]);
    let mailbox = work(&queue, 5).await;
    for n in 0..5 {
        assert_eq!(id(&next(&mailbox).await), n.to_string());
    }
    assert_eq!(counts().await, (99_995, 5));
    let error = queue.jobs("q", &[JobState::Waiting], 0, Some(1)).await.unwrap_err();
    assert_eq!(error.code(), Code::Corrupt, "{error}");
}

#[tokio::test]
async fn a_queue_on_disk_is_on_disk_also_when_its_first_opening_failed() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::at(1_767_225_600_000));
    let path = dir.path().join("queue.db");
    std::fs::write(&path, "no database at all, and rather long".repeat(100)).unwrap();
    let queue = open(dir.path(), clock.clone());
    assert_eq!(queue.open().await.unwrap_err().code(), Code::Corrupt);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(queue.durability().await.unwrap(), Durability::Disk);
    queue.close(CLOSE_TIMEOUT).await.unwrap();
    let lenient = Queue::file(FileQueueOptions::new(dir.path()), clock, Handle::current());
    assert_eq!(lenient.durability().await.unwrap(), Durability::Os);
}

#[tokio::test]
async fn a_backup_is_a_whole_queue_and_replaces_nothing() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::at(1_767_225_600_000));
    let queue = open(dir.path(), clock.clone());
    queue.enqueue("q", job("kept", json!({"priority": 3}))).await.unwrap();
    let restored = dir.path().join("restored");
    std::fs::create_dir(&restored).unwrap();
    let path = restored.join("queue.db");
    // What another program put there is not followed.
    let precious = dir.path().join("precious");
    std::fs::write(&precious, "precious").unwrap();
    std::os::unix::fs::symlink(&precious, restored.join("queue.db.partial")).unwrap();
    queue.backup(&path).await.unwrap();
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
    let error = queue.backup(&path).await.unwrap_err();
    assert!(error.code() == Code::Invalid && error.message().contains("queue.db"), "{error}");
    assert_eq!(queue.backup(&restored.join("no/such/dir")).await.unwrap_err().code(), Code::Io);
    // A backup that failed does not stop the queue.
    queue.enqueue("q", job("later", json!({}))).await.unwrap();
    let copy = open(&restored, clock);
    assert_eq!(copy.verify().await.unwrap(), Vec::<String>::new());
    let jobs = copy.jobs("q", &[], 0, None).await.unwrap();
    assert!(jobs.len() == 1 && jobs[0].contains(r#""id":"kept""#), "{jobs:?}");
    let names: Vec<_> = std::fs::read_dir(&restored).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().ends_with(".partial")), "{names:?}");
}

#[tokio::test]
async fn verify_finds_what_is_damaged() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::at(1_767_225_600_000));
    let queue = open(dir.path(), clock.clone());
    for id in ["lost", "torn", "whole"] {
        queue.enqueue("q", job(id, json!({}))).await.unwrap();
    }
    assert_eq!(queue.verify().await.unwrap(), Vec::<String>::new());
    queue.close(CLOSE_TIMEOUT).await.unwrap();
    let database = rusqlite::Connection::open(dir.path().join("queue.db")).unwrap();
    let damage = "DELETE FROM job_data WHERE seq = 1; UPDATE job_data SET data = '{' WHERE seq = 2; UPDATE queues SET waiting = 7";
    database.execute_batch(damage).unwrap();
    drop(database);
    let problems = open(dir.path(), clock).verify().await.unwrap();
    let expected = [
        "job lost: its data is missing",
        "job torn: its data is no JSON",
        "queue q: its counts are not those of its jobs",
    ];
    assert_eq!(problems, expected);
}

/// Writes a job into the files of nvent's own queue, as it does.
fn old_job(dir: &Path, queue: &str, mut job: Value) {
    let jobs = dir.join(queue).join("jobs");
    std::fs::create_dir_all(&jobs).unwrap();
    job["data"]["__queueName"] = queue.into();
    let path = jobs.join(format!("{}.json", job["id"].as_str().unwrap()));
    std::fs::write(path, serde_json::to_string_pretty(&job).unwrap()).unwrap();
}

#[tokio::test]
async fn waiting_jobs_of_nvents_own_queue_are_imported_once() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::at(1_767_225_600_000));
    let queue_dir = dir.path();
    let job = |id: &str, state: &str, timestamp: u64| json!({"id": id, "name": "step", "data": {"flowId": id}, "state": state, "timestamp": timestamp, "attemptsMade": 0});
    let mut retried = job("retried", "waiting", 3);
    retried["attemptsMade"] = 1.into();
    retried["opts"] =
        json!({"jobId": "retried", "attempts": 3, "backoff": {"type": "fixed", "delay": 5}, "unknown": 1});
    let mut delayed = job("delayed", "delayed", 1_767_225_600_000_u64);
    delayed["opts"] = json!({"delay": 60_000});
    for old in [job("second", "waiting", 2), job("first", "active", 1), retried, delayed, job("ended", "completed", 1)]
    {
        old_job(queue_dir, "q", old);
    }
    old_job(queue_dir, "other", job("x", "waiting", 1));
    std::fs::write(queue_dir.join("q/jobs/torn.json"), r#"{"id":"torn","na"#).unwrap();
    let queue = open(queue_dir, clock.clone());
    let mailbox = work(&queue, 10).await;
    let jobs = [next(&mailbox).await, next(&mailbox).await, next(&mailbox).await];
    assert_eq!(jobs.each_ref().map(id), ["first", "second", "retried"]);
    let third: Value = serde_json::from_str(&jobs[2].job).unwrap();
    assert_eq!(
        (&third["data"], &third["attemptsMade"], &third["opts"]["attempts"]),
        (&json!({"flowId": "retried"}), &json!(1), &json!(3))
    );
    let counts = queue.counts("q").await.unwrap();
    assert_eq!(
        [JobState::Waiting, JobState::Active, JobState::Delayed, JobState::Completed].map(|s| counts.get(s)),
        [0, 3, 1, 0]
    );
    assert_eq!(queue.counts("other").await.unwrap().get(JobState::Waiting), 1);
    assert_eq!(queue.verify().await.unwrap(), Vec::<String>::new());
    for delivery in jobs {
        assert!(queue.start_attempt(&delivery));
        queue.complete(delivery.token, "1".into()).await.unwrap();
    }
    clock.advance(60_000);
    queue.tick().await.unwrap();
    assert_eq!(id(&next(&mailbox).await), "delayed");
    queue.close(Duration::ZERO).await.unwrap();
    let queue = open(queue_dir, clock);
    assert_eq!(queue.counts("q").await.unwrap().get(JobState::Completed), 3);
    assert_eq!(queue.counts("other").await.unwrap().get(JobState::Waiting), 1);
}

#[cfg(unix)]
#[tokio::test]
async fn nothing_is_acknowledged_once_the_directory_was_deleted_under_an_open_queue() {
    let (base, clock) = (TempDir::new().unwrap(), ManualClock::at(0));
    let dir = base.path().join("data");
    let queue = open(&dir, clock.clone());
    queue.enqueue("q", job("first", json!({}))).await.unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    for n in 0..20 {
        let error = queue.enqueue("q", job(&n.to_string(), json!({}))).await.unwrap_err();
        assert_eq!(error.code(), Code::Io);
        assert!(error.message().contains("deleted, replaced or emptied"), "{error}");
    }
    assert_eq!(queue.counts("q").await.unwrap_err().code(), Code::Io);
    queue.close(CLOSE_TIMEOUT).await.unwrap();

    let again = open(&dir, clock);
    again.enqueue("q", job("second", json!({}))).await.unwrap();
    again.close(CLOSE_TIMEOUT).await.unwrap();
}

#[tokio::test]
async fn nothing_is_acknowledged_once_the_database_was_emptied_under_an_open_queue() {
    let (base, clock) = (TempDir::new().unwrap(), ManualClock::at(0));
    let queue = open(base.path(), clock.clone());
    queue.enqueue("q", job("first", json!({}))).await.unwrap();
    // The log goes into the database.
    queue.close(CLOSE_TIMEOUT).await.unwrap();
    let queue = open(base.path(), clock);
    queue.enqueue("q", job("second", json!({}))).await.unwrap();
    std::fs::write(base.path().join("queue.db"), "").unwrap();
    for n in 0..20 {
        // Corrupt where something read the file first.
        let error = queue.enqueue("q", job(&n.to_string(), json!({}))).await.unwrap_err();
        assert!(matches!(error.code(), Code::Io | Code::Corrupt), "{error}");
    }
    queue.close(CLOSE_TIMEOUT).await.unwrap();
}

/// Runs as a second process on a directory: not a test of its own.
#[tokio::test]
async fn second_process() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let queue = open(Path::new(&dir), ManualClock::at(0));
    println!("opened: {:?}", queue.open().await.map_err(|error| error.code()));
}

#[cfg(unix)]
#[tokio::test]
async fn a_second_process_is_locked_out_also_when_the_lock_file_was_deleted() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::at(0));
    let queue = open(dir.path(), clock);
    queue.enqueue("q", job("first", json!({}))).await.unwrap();
    std::fs::remove_file(dir.path().join("queue.lock")).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "second_process", "--nocapture"]).env(DIR, dir.path()).stderr(Stdio::null());
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(output.contains("opened: Err(Locked)"), "{output}");
    queue.enqueue("q", job("second", json!({}))).await.unwrap();
    queue.close(CLOSE_TIMEOUT).await.unwrap();
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(output.contains("opened: Ok(())"), "{output}");
}
