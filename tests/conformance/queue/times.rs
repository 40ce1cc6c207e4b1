//! Schedules and timers.

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
    for left in [1, 0, 0] {
        env.advance(&queue, 10_000).await;
        assert_eq!(queue.scheduled("q").await.unwrap().len(), left);
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
    let hourly = ScheduleOptions::parse("opts", r#"{"cron":"0 * * * *","repeat":{"tz":"UTC"}}"#).unwrap();
    queue.schedule("q", named(), hourly).await.unwrap();
    let scheduled = queue.scheduled("q").await.unwrap();
    assert_eq!((scheduled.len(), field(&scheduled[0], "nextRun")), (1, json!(NEW_YEAR + 3_600_000)));
}

pub(crate) async fn a_schedule_with_a_delay_is_one_job(env: Env) {
    let queue = env.open();
    let when = ScheduleOptions::parse("opts", r#"{"delay":1000}"#).unwrap();
    let id = queue.schedule("q", job("a", json!({"jobId": "x"})), when).await.unwrap();
    assert_eq!((&*id, state(&queue, "q", "x").await.as_deref()), ("x", Some("delayed")));
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
