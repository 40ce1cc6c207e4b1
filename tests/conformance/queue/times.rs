//! Schedules and timers.

use std::sync::atomic::{AtomicU64, Ordering};

use nvent_native::time::Clock;

use super::*;

fn every_minute() -> ScheduleOptions {
    ScheduleOptions::parse("opts", r#"{"repeat":{"pattern":"* * * * *","tz":"UTC"}}"#).unwrap()
}

pub(crate) async fn cron_fires_on_time_and_missed_times_fire_once(env: Env) {
    let queue = env.open();
    let worker = TestWorker::on(&queue, "q", &["a"], 100).await;
    let id = queue.schedule("q", job("a", json!({"attempts": 2})), every_minute()).await.unwrap();
    let next = async || field(&queue.scheduled("q").await.unwrap()[0], "nextRun");
    assert_eq!(next().await, NEW_YEAR + 60_000);
    env.advance(&queue, 59_999).await;
    assert!(worker.taken().is_none());
    env.advance(&queue, 1).await;
    assert_eq!(worker.ids(), [format!("{id}:{}", NEW_YEAR + 60_000)]);
    env.advance(&queue, 10 * 60_000 + 5).await;
    let delivery = worker.started(&queue);
    assert_eq!(field(&delivery.job, "opts")["attempts"], 2);
    assert!(worker.taken().is_none());
    assert_eq!(next().await, NEW_YEAR + 12 * 60_000);
    assert!(queue.remove_scheduled(&id).await.unwrap() && !queue.remove_scheduled(&id).await.unwrap());
    env.advance(&queue, 60_000).await;
    assert!(worker.taken().is_none() && queue.scheduled("q").await.unwrap().is_empty());
}

pub(crate) async fn a_schedule_ends_at_its_limit(env: Env) {
    let queue = env.open();
    let worker = TestWorker::on(&queue, "q", &["a"], 100).await;
    let when = ScheduleOptions::parse("opts", r#"{"cron":"*/10 * * * * *","repeat":{"limit":2}}"#).unwrap();
    queue.schedule("q", job("a", json!({})), when).await.unwrap();
    let fired =
        async || queue.scheduled("q").await.unwrap().iter().map(|one| field(one, "repeatCount")).collect::<Vec<_>>();
    assert_eq!(fired().await, [0]);
    for expected in [&[1][..], &[], &[]] {
        env.advance(&queue, 10_000).await;
        assert_eq!(fired().await, expected);
    }
    assert_eq!(worker.ids().len(), 2);
}

pub(crate) async fn scheduling_again_is_one_schedule(env: Env) {
    let queue = env.open();
    let worker = TestWorker::on(&queue, "q", &["a"], 100).await;
    let named = || job("a", json!({"jobId": "nightly"}));
    assert_eq!(&*queue.schedule("q", named(), every_minute()).await.unwrap(), "nightly");
    env.clock.advance(30_000);
    queue.schedule("q", named(), every_minute()).await.unwrap();
    let (first, second) = (job("a", json!({})), job("a", json!({})));
    let derived = queue.schedule("q", first, every_minute()).await.unwrap();
    assert_eq!(queue.schedule("q", second, every_minute()).await.unwrap(), derived);
    assert_eq!(queue.scheduled("q").await.unwrap().len(), 2);
    assert!(queue.remove_scheduled(&derived).await.unwrap());
    env.advance(&queue, 30_000).await;
    assert_eq!(worker.ids().len(), 1);
    // Again the same has fired as often as before.
    queue.schedule("q", named(), every_minute()).await.unwrap();
    assert_eq!(field(&queue.scheduled("q").await.unwrap()[0], "repeatCount"), 1);
    let hourly = || ScheduleOptions::parse("opts", r#"{"cron":"0 * * * *","repeat":{"tz":"UTC","limit":9}}"#).unwrap();
    queue.schedule("q", named(), hourly()).await.unwrap();
    // Its id is what makes it the same, not the name of its jobs.
    queue.schedule("q", job("b", json!({"jobId": "nightly"})), hourly()).await.unwrap();
    let scheduled = queue.scheduled("q").await.unwrap();
    assert_eq!(scheduled.len(), 1);
    let expected = json!({
        "id": "nightly", "jobName": "b", "queueName": "q", "pattern": "0 * * * *", "cron": "0 * * * *",
        "nextRun": NEW_YEAR + 3_600_000, "repeatCount": 0, "tz": "UTC", "limit": 9,
    });
    assert_eq!(serde_json::from_str::<Value>(&scheduled[0]).unwrap(), expected);
}

pub(crate) async fn a_schedule_whose_jobs_would_have_too_long_an_id_is_refused(env: Env) {
    let queue = env.open();
    let error = queue.schedule("q", job("a", json!({"jobId": "x".repeat(8_180)})), every_minute()).await.unwrap_err();
    assert!(error.code() == Code::Invalid && error.message().starts_with("the id of the schedule"), "{error}");
    assert!(queue.scheduled("q").await.unwrap().is_empty());
    queue.schedule("q", job("a", json!({"jobId": "x".repeat(8_170)})), every_minute()).await.unwrap();
}

pub(crate) async fn a_schedule_with_a_delay_is_one_job(env: Env) {
    let queue = env.open();
    let when = ScheduleOptions::parse("opts", r#"{"delay":1000}"#).unwrap();
    let id = queue.schedule("q", job("a", json!({"jobId": "x"})), when).await.unwrap();
    assert_eq!((&*id, state(&queue, "q", "x").await.as_deref()), ("x", Some("delayed")));
}

pub(crate) async fn a_delayed_job_that_is_due_is_queued_behind_what_waits(env: Env) {
    let queue = env.open();
    queue.enqueue("q", job("a", json!({"jobId": "delayed", "delay": 1_000}))).await.unwrap();
    queue.enqueue("q", job("a", json!({"jobId": "first"}))).await.unwrap();
    env.advance(&queue, 1_000).await;
    queue.enqueue("q", job("a", json!({"jobId": "last"}))).await.unwrap();
    let worker = TestWorker::on(&queue, "q", &["a"], 100).await;
    assert_eq!(worker.ids(), ["first", "delayed", "last"]);
}

pub(crate) async fn timers_go_off_by_themselves(env: Env) {
    let queue = (env.open)(JobOptions::default(), system_clock());
    let failed = Arc::new(Mailbox::new(10, Overflow::DropOldest));
    queue.on("q", EventKind::Failed, failed.clone()).await.unwrap();
    let worker = TestWorker::on(&queue, "q", &["a"], 1).await;
    queue.enqueue("q", job("a", json!({"delay": 20, "attempts": 2, "backoff": 20, "timeout": 20}))).await.unwrap();
    for made in 0..2 {
        let Some(Delivery::Item(delivery)) = worker.0.recv().await else { panic!("the job is missing") };
        assert_eq!(field(&delivery.job, "attemptsMade"), made);
        assert!(queue.start_attempt(&delivery));
    }
    assert!(matches!(failed.recv().await, Some(Delivery::Item(_))));
}

const HOUR: u64 = 3_600_000;

pub(crate) async fn a_clock_that_is_set_moves_no_delay(env: Env) {
    let queue = env.open();
    let worker = TestWorker::on(&queue, "q", &["a"], 100).await;
    queue.enqueue("q", job("a", json!({"jobId": "back", "delay": 10_000}))).await.unwrap();
    env.clock.set(NEW_YEAR - HOUR);
    queue.enqueue("q", job("a", json!({"jobId": "retried", "attempts": 2, "backoff": 20_000}))).await.unwrap();
    queue.fail(worker.started(&queue).token, "no luck").await.unwrap();
    env.advance(&queue, 9_999).await;
    assert!(worker.taken().is_none());
    env.advance(&queue, 1).await;
    assert_eq!(worker.ids(), ["back"]);
    env.clock.set(NEW_YEAR + 24 * HOUR);
    env.advance(&queue, 9_999).await;
    assert!(worker.taken().is_none());
    env.advance(&queue, 1).await;
    assert_eq!(worker.ids(), ["retried"]);
}

pub(crate) async fn a_clock_that_is_set_moves_no_timeout(env: Env) {
    let queue = env.open();
    let worker = TestWorker::on(&queue, "q", &["a"], 100).await;
    for id in ["x", "y"] {
        queue.enqueue("q", job("a", json!({"jobId": id, "timeout": 60_000}))).await.unwrap();
    }
    let (x, _y) = (worker.started(&queue), worker.started(&queue));
    env.clock.set(NEW_YEAR + HOUR);
    env.advance(&queue, 300).await;
    assert!(queue.complete(x.token, "1".into()).await.unwrap());
    env.clock.set(NEW_YEAR - HOUR);
    env.advance(&queue, 59_699).await;
    assert_eq!(state(&queue, "q", "y").await.as_deref(), Some("active"));
    env.advance(&queue, 1).await;
    assert_eq!(field(&queue.job("q", "y").await.unwrap().unwrap(), "failedReason"), "timed out after 60000 ms");
}

pub(crate) async fn schedules_follow_a_clock_that_is_set(env: Env) {
    let queue = env.open();
    let worker = TestWorker::on(&queue, "q", &["a"], 100).await;
    let each_second = ScheduleOptions::parse("opts", r#"{"cron":"* * * * * *","repeat":{"tz":"UTC"}}"#).unwrap();
    queue.schedule("q", job("a", json!({"jobId": "s"})), each_second).await.unwrap();
    for _ in 0..3 {
        env.advance(&queue, 1_000).await;
        assert_eq!(worker.ids().len(), 1);
    }
    // A minute is shown twice.
    env.clock.set(NEW_YEAR - 57_000);
    queue.tick().await.unwrap();
    for _ in 0..60 {
        env.advance(&queue, 1_000).await;
        assert_eq!(worker.ids().len(), 1);
    }
    // Times that were skipped fire once.
    env.clock.set(NEW_YEAR + HOUR);
    env.advance(&queue, 1).await;
    assert_eq!(worker.ids().len(), 1);
    assert!(worker.taken().is_none());
    env.advance(&queue, 999).await;
    assert_eq!(worker.ids().len(), 1);
}

pub(crate) async fn what_was_scheduled_while_the_clock_ran_ahead_runs_after_a_restart(env: Env) {
    env.clock.set(NEW_YEAR + 5 * 366 * 24 * HOUR);
    let queue = env.open();
    queue.schedule("q", job("a", json!({"jobId": "s"})), every_minute()).await.unwrap();
    queue.enqueue("q", job("a", json!({"jobId": "delayed", "delay": 10_000}))).await.unwrap();
    let queue = if env.is_durable {
        queue.close(CLOSE_TIMEOUT).await.unwrap();
        env.clock.set(NEW_YEAR);
        env.open()
    } else {
        env.clock.set(NEW_YEAR);
        queue
    };
    queue.tick().await.unwrap();
    assert_eq!(field(&queue.scheduled("q").await.unwrap()[0], "nextRun"), NEW_YEAR + 60_000);
    let worker = TestWorker::on(&queue, "q", &["a"], 100).await;
    env.advance(&queue, 9_999).await;
    assert!(worker.taken().is_none());
    env.advance(&queue, 1).await;
    assert_eq!(worker.ids(), ["delayed"]);
    env.advance(&queue, 50_000).await;
    assert_eq!(worker.ids(), [format!("s:{}", NEW_YEAR + 60_000)]);
}

pub(crate) async fn schedules_of_several_queues_never_collide(env: Env) {
    let queue = env.open();
    let a = queue.schedule("a:b", job("c", json!({})), every_minute()).await.unwrap();
    let b = queue.schedule("a", job("b:c", json!({})), every_minute()).await.unwrap();
    let nightly = || job("n", json!({"jobId": "nightly"}));
    let first = queue.schedule("one", nightly(), every_minute()).await.unwrap();
    let second = queue.schedule("two", nightly(), every_minute()).await.unwrap();
    let ids = [a.clone(), b.clone(), first.clone(), second.clone()];
    assert_eq!(std::collections::BTreeSet::from(ids).len(), 4);
    assert_eq!(&*first, "nightly");
    for name in ["a:b", "a", "one", "two"] {
        assert_eq!(queue.scheduled(name).await.unwrap().len(), 1, "{name}");
    }
    // Scheduled again they are themselves, also once the other is gone.
    assert_eq!(queue.schedule("a", job("b:c", json!({})), every_minute()).await.unwrap(), b);
    assert_eq!(queue.schedule("two", nightly(), every_minute()).await.unwrap(), second);
    assert!(queue.remove_scheduled(&first).await.unwrap() && queue.remove_scheduled(&a).await.unwrap());
    assert_eq!(queue.schedule("two", nightly(), every_minute()).await.unwrap(), second);
    assert_eq!(queue.schedule("a", job("b:c", json!({})), every_minute()).await.unwrap(), b);
    assert_eq!(queue.scheduled("two").await.unwrap().len(), 1);
    // Others have what would have been its ids.
    for id in ["x", "x@two"] {
        queue.schedule("one", job("m", json!({"jobId": id})), every_minute()).await.unwrap();
    }
    let x = || queue.schedule("two", job("m", json!({"jobId": "x"})), every_minute());
    let third = x().await.unwrap();
    assert!(!["x", "x@two"].contains(&&*third), "{third}");
    assert_eq!(x().await.unwrap(), third);
    assert_eq!((queue.scheduled("one").await.unwrap().len(), queue.scheduled("two").await.unwrap().len()), (2, 2));
    assert!(queue.remove_scheduled(&third).await.unwrap());
    let workers = (TestWorker::on(&queue, "a", &["b:c"], 9).await, TestWorker::on(&queue, "two", &["n"], 9).await);
    env.advance(&queue, 60_000).await;
    assert_eq!((workers.0.ids().len(), workers.1.ids().len()), (1, 1));
}

pub(crate) async fn a_delayed_schedule_is_removed_by_its_id(env: Env) {
    let queue = env.open();
    let when = || ScheduleOptions::parse("opts", r#"{"delay":1000}"#).unwrap();
    let id = queue.schedule("q", job("a", json!({})), when()).await.unwrap();
    assert!(queue.remove_scheduled(&id).await.unwrap() && !queue.remove_scheduled(&id).await.unwrap());
    assert_eq!(state(&queue, "q", &id).await, None);
    for name in ["q", "other"] {
        queue.schedule(name, job("a", json!({"jobId": "x"})), when()).await.unwrap();
    }
    let error = queue.remove_scheduled("x").await.unwrap_err();
    assert!(error.code() == Code::Invalid && error.message().contains("removeJob"), "{error}");
    queue.enqueue("q", job("a", json!({"jobId": "waits"}))).await.unwrap();
    assert!(!queue.remove_scheduled("waits").await.unwrap());
}

/// A clock that counts how often it is read.
struct ReadCounter(Arc<ManualClock>, AtomicU64);

impl Clock for ReadCounter {
    fn now_ms(&self) -> u64 {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.now_ms()
    }

    fn monotonic_ms(&self) -> u64 {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.monotonic_ms()
    }
}

pub(crate) async fn nothing_runs_while_nothing_is_due(env: Env) {
    env.clock.advance(3_600_000);
    let clock = Arc::new(ReadCounter(env.clock.clone(), AtomicU64::new(0)));
    let queue = (env.open)(JobOptions::default(), clock.clone());
    let comes_to_rest = async |what: &str| {
        let mut quiet = 0;
        for _ in 0..1_000 {
            let before = clock.1.load(Ordering::SeqCst);
            for _ in 0..100 {
                tokio::task::yield_now().await;
                std::thread::yield_now();
            }
            quiet = if clock.1.load(Ordering::SeqCst) == before { quiet + 1 } else { 0 };
            if quiet == 10 {
                return;
            }
        }
        panic!("the queue is busy with {what}");
    };
    comes_to_rest("nothing").await;
    queue.enqueue("q", job("a", json!({}))).await.unwrap();
    comes_to_rest("a job without a worker").await;
    queue.enqueue("q", job("a", json!({"delay": 3_600_000}))).await.unwrap();
    comes_to_rest("a delayed job").await;
    queue.schedule("q", job("a", json!({})), every_minute()).await.unwrap();
    comes_to_rest("a schedule").await;
    let worker = TestWorker::on(&queue, "q", &["a"], 1).await;
    worker.started(&queue);
    comes_to_rest("a job that runs").await;
}
