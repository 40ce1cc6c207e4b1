//! Jobs: ids, order, attempts, states, events.

use super::*;

pub(crate) async fn an_id_that_is_there_is_not_enqueued_again(env: Env) {
    let queue = env.open();
    let worker = TestWorker::on(&queue, "q", &["a"], 1).await;
    let again = async || {
        assert_eq!(&*queue.enqueue("q", job("a", json!({"jobId": "x"}))).await.unwrap(), "x");
        queue.counts("q").await.unwrap()
    };
    assert_eq!(again().await.get(JobState::Active), 1);
    assert_eq!(again().await.get(JobState::Waiting), 0);
    let delivery = worker.started(&queue);
    assert!(queue.complete(delivery.token, "1".into()).await.unwrap());
    let counts = again().await;
    assert_eq!(
        (counts.get(JobState::Completed), counts.get(JobState::Waiting), counts.get(JobState::Active)),
        (1, 0, 0)
    );
    // The same id in another queue is another job, and ids that are given are all different.
    queue.enqueue("other", job("a", json!({"jobId": "x"}))).await.unwrap();
    assert_eq!(queue.counts("other").await.unwrap().get(JobState::Waiting), 1);
    let given = queue.enqueue("other", job("a", json!({}))).await.unwrap();
    assert_ne!(given, queue.enqueue("other", job("a", json!({}))).await.unwrap());
}

pub(crate) async fn an_awaiting_job_is_removed_and_its_id_free(env: Env) {
    let queue = env.open();
    let events = subscribe(&queue, "q").await;
    let worker = TestWorker::on(&queue, "q", &["a"], 1).await;
    queue.enqueue("q", job("a", json!({"jobId": "x"}))).await.unwrap();
    let delivery = worker.started(&queue);
    queue.complete(delivery.token, r#"{"ok":1,"awaiting":true}"#.into()).await.unwrap();
    assert_eq!(state(&queue, "q", "x").await, None);
    assert_eq!(queue.counts("q").await.unwrap(), JobCounts::default());
    assert_eq!(kinds(&events), ["waiting", "active"]);
    queue.enqueue("q", job("a", json!({"jobId": "x"}))).await.unwrap();
    let delivery = worker.started(&queue);
    queue.complete(delivery.token, r#"{"inner":{"awaiting":true},"awaiting":"no"}"#.into()).await.unwrap();
    assert_eq!(state(&queue, "q", "x").await.as_deref(), Some("completed"));
}

pub(crate) async fn jobs_without_priority_run_first_then_lower_numbers_each_in_order(env: Env) {
    let queue = env.open();
    for (id, priority) in [("c", 5), ("d", 5), ("b", 1), ("e", 9)] {
        queue.enqueue("q", job("a", json!({"jobId": id, "priority": priority}))).await.unwrap();
    }
    for id in ["1", "2", "3"] {
        queue.enqueue("q", job("a", json!({"jobId": id}))).await.unwrap();
    }
    let worker = TestWorker::on(&queue, "q", &["a"], 100).await;
    assert_eq!(worker.ids(), ["1", "2", "3", "b", "c", "d", "e"]);
}

pub(crate) async fn a_lifo_job_runs_before_those_of_its_priority(env: Env) {
    let queue = env.open();
    for (id, lifo, priority) in [("c", false, 0), ("b", true, 0), ("d", false, 1), ("a", true, 0)] {
        queue.enqueue("q", job("a", json!({"jobId": id, "lifo": lifo, "priority": priority}))).await.unwrap();
    }
    let worker = TestWorker::on(&queue, "q", &["a"], 2).await;
    let last = worker.taken().unwrap();
    assert_eq!(id(&last), "a");
    // What is given back keeps its env.
    drop(worker);
    queue.close(CLOSE_TIMEOUT).await.unwrap();
    if env.is_durable {
        let queue = env.open();
        assert_eq!(TestWorker::on(&queue, "q", &["a"], 9).await.ids(), ["a", "b", "c", "d"]);
    }
}

pub(crate) async fn concurrency_is_per_queue_and_exact(env: Env) {
    let queue = env.open();
    let worker = TestWorker::on(&queue, "q", &["a", "b"], 3).await;
    // The first worker has decided.
    let more = WorkerOptions { concurrency: 50, ..WorkerOptions::default() };
    queue.register_worker("q", "c", more, worker.0.clone()).await.unwrap();
    for n in 0..12 {
        queue.enqueue("q", job(["a", "b", "c"][n % 3], json!({"jobId": n.to_string()}))).await.unwrap();
    }
    let mut running: Vec<JobDelivery> = (0..3).map(|_| worker.started(&queue)).collect();
    for next in 3..12 {
        assert!(worker.taken().is_none());
        let delivery = running.remove(0);
        queue.complete(delivery.token, "null".into()).await.unwrap();
        let delivery = worker.started(&queue);
        assert_eq!(id(&delivery), next.to_string());
        running.push(delivery);
    }
}

pub(crate) async fn a_worker_runs_by_itself(env: Env) {
    let queue = env.open();
    queue.enqueue("q", job("a", json!({"jobId": "before"}))).await.unwrap();
    let worker = TestWorker(worker_mailbox());
    let options = WorkerOptions { concurrency: 5, ..WorkerOptions::default() };
    queue.register_worker("q", "a", options, worker.0.clone()).await.unwrap();
    assert_eq!(worker.ids(), ["before"]);
    queue.enqueue("q", job("a", json!({"jobId": "after"}))).await.unwrap();
    assert_eq!(worker.ids(), ["after"]);
}

pub(crate) async fn workers_that_are_held_wait_for_start(env: Env) {
    let queue = env.open();
    let mailbox = worker_mailbox();
    queue.hold_workers(true);
    queue.enqueue("q", job("a", json!({"jobId": "before"}))).await.unwrap();
    queue.register_worker("q", "a", WorkerOptions::default(), mailbox.clone()).await.unwrap();
    queue.enqueue("q", job("a", json!({"jobId": "after"}))).await.unwrap();
    assert!(mailbox.is_empty());
    queue.start("q").await.unwrap();
    let delivery = TestWorker(mailbox).started(&queue);
    assert_eq!(id(&delivery), "before");
    let job: Value = serde_json::from_str(&delivery.job).unwrap();
    let expected = json!({
        "id": "before", "name": "a", "data": {"n": 1}, "opts": {"jobId": "before", "attempts": 1}, "state": "active",
        "attemptsMade": 0, "timestamp": NEW_YEAR, "processedOn": NEW_YEAR
    });
    assert_eq!(job, expected);
}

pub(crate) async fn workers_without_autorun_wait_for_resume(env: Env) {
    let queue = env.open();
    let worker = TestWorker(worker_mailbox());
    let options = WorkerOptions { autorun: false, ..WorkerOptions::default() };
    queue.register_worker("q", "a", options, worker.0.clone()).await.unwrap();
    queue.enqueue("q", job("a", json!({}))).await.unwrap();
    queue.start("q").await.unwrap();
    assert!(worker.taken().is_none());
    queue.resume("q").await.unwrap();
    worker.started(&queue);
}

pub(crate) async fn a_job_whose_name_has_no_worker_waits_and_holds_up_nobody(env: Env) {
    let queue = env.open();
    for (id, name, priority) in [("1", "unhandled", 0), ("2", "a", 7), ("3", "unhandled", 0), ("4", "b", 1)] {
        queue.enqueue("q", job(name, json!({"jobId": id, "priority": priority}))).await.unwrap();
    }
    let worker = TestWorker::on(&queue, "q", &["a", "b"], 10).await;
    assert_eq!(worker.ids(), ["4", "2"]);
    assert_eq!(queue.counts("q").await.unwrap().get(JobState::Waiting), 2);
    queue.register_worker("q", "unhandled", WorkerOptions::default(), worker.0.clone()).await.unwrap();
    assert_eq!(worker.ids(), ["1", "3"]);
}

pub(crate) async fn a_delayed_job_waits_for_its_time(env: Env) {
    let queue = env.open();
    let worker = TestWorker::on(&queue, "q", &["a"], 10).await;
    queue.enqueue("q", job("a", json!({"jobId": "later", "delay": 2_000}))).await.unwrap();
    queue.enqueue("q", job("a", json!({"jobId": "sooner", "delay": 1_000}))).await.unwrap();
    assert_eq!(state(&queue, "q", "later").await.as_deref(), Some("delayed"));
    env.advance(&queue, 999).await;
    assert!(worker.taken().is_none());
    env.advance(&queue, 1).await;
    assert_eq!(worker.ids(), ["sooner"]);
    env.advance(&queue, 10_000).await;
    assert_eq!(worker.ids(), ["later"]);
}

pub(crate) async fn attempts_are_made_with_backoff_until_one_succeeds_or_all_failed(env: Env) {
    let queue = env.open();
    let events = subscribe(&queue, "q").await;
    let worker = TestWorker::on(&queue, "q", &["a"], 1).await;
    queue.enqueue("q", job("a", json!({"jobId": "x", "attempts": 3, "backoff": 100}))).await.unwrap();
    for made in 0..3 {
        let delivery = worker.started(&queue);
        assert_eq!(field(&delivery.job, "attemptsMade"), made);
        assert!(queue.fail(delivery.token, "no luck").await.unwrap());
        assert!(!queue.fail(delivery.token, "again").await.unwrap());
        env.advance(&queue, 99).await;
        assert!(worker.taken().is_none());
        env.advance(&queue, 1).await;
    }
    let failed = queue.job("q", "x").await.unwrap().unwrap();
    assert_eq!((field(&failed, "state"), field(&failed, "failedReason")), (json!("failed"), json!("no luck")));
    assert_eq!(field(&failed, "attemptsMade"), 3);
    let events = drain_events(&events);
    let kinds: Vec<_> = events.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, ["waiting", "active", "delayed", "waiting", "active", "delayed", "waiting", "active", "failed"]);
    assert_eq!((&events[2].1["delay"], &events[2].1["job"]["state"]), (&json!(100), &json!("delayed")));
    assert_eq!(events[3].1["job"]["failedReason"], "no luck");
    assert_eq!(
        events[8].1,
        json!({"jobId": "x", "name": "a", "attemptsMade": 3, "maxAttempts": 3, "failedReason": "no luck"})
    );
    // Without a backoff the next attempt is due at once.
    queue.enqueue("q", job("a", json!({"jobId": "y", "attempts": 2}))).await.unwrap();
    queue.fail(worker.started(&queue).token, "no luck").await.unwrap();
    queue.complete(worker.started(&queue).token, "7".into()).await.unwrap();
    let done = queue.job("q", "y").await.unwrap().unwrap();
    assert_eq!((field(&done, "returnvalue"), field(&done, "failedReason")), (json!(7), Value::Null));
}

pub(crate) async fn exponential_backoff_doubles(env: Env) {
    let queue = env.open();
    let worker = TestWorker::on(&queue, "q", &["a"], 1).await;
    let backoff = json!({"type": "exponential", "delay": 100});
    queue.enqueue("q", job("a", json!({"attempts": 4, "backoff": backoff}))).await.unwrap();
    for wait in [100, 200, 400] {
        queue.fail(worker.started(&queue).token, "no").await.unwrap();
        env.advance(&queue, wait - 1).await;
        assert!(worker.taken().is_none());
        env.advance(&queue, 1).await;
    }
    worker.started(&queue);
}

pub(crate) async fn an_attempt_that_takes_too_long_keeps_its_place_until_its_handler_has_settled(env: Env) {
    let queue = env.open();
    let cancellations = Arc::new(Mailbox::new(100, Overflow::DropNewest));
    queue.set_cancellations(cancellations.clone()).await.unwrap();
    let failed = Arc::new(Mailbox::new(100, Overflow::DropNewest));
    queue.on("q", EventKind::Failed, failed.clone()).await.unwrap();
    let worker = TestWorker::on(&queue, "q", &["a"], 1).await;
    for id in ["x", "other"] {
        queue.enqueue("q", job("a", json!({"jobId": id, "timeout": 500, "attempts": 2, "lifo": true}))).await.unwrap();
    }
    let first = worker.started(&queue);
    env.advance(&queue, 499).await;
    assert!(cancellations.is_empty());
    env.advance(&queue, 1).await;
    assert_eq!(cancelled(&cancellations), [(first.token, CancelReason::TimedOut)]);
    // Neither its own next attempt nor another job starts beside it.
    assert!(worker.taken().is_none());
    assert_eq!(state(&queue, "q", &id(&first)).await.as_deref(), Some("active"));
    assert!(!queue.progress(first.token, "1".into()).await.unwrap());
    assert!(!queue.complete(first.token, "\"late\"".into()).await.unwrap());
    let second = worker.started(&queue);
    assert_eq!((id(&second), field(&second.job, "attemptsMade")), (id(&first), json!(1)));
    // The last attempt fails the job at once, and keeps its place as well.
    env.advance(&queue, 500).await;
    let job = queue.job("q", &id(&first)).await.unwrap().unwrap();
    assert_eq!((field(&job, "state"), field(&job, "failedReason")), (json!("failed"), json!("timed out after 500 ms")));
    assert_eq!((drain_events(&failed).len(), field(&job, "attemptsMade")), (1, json!(2)));
    assert!(worker.taken().is_none());
    assert!(!queue.complete(second.token, "1".into()).await.unwrap());
    assert_ne!(id(&worker.started(&queue)), id(&first));
}

pub(crate) async fn a_handler_that_ignores_its_timeout_loses_its_place_in_the_end(env: Env) {
    let queue = env.open();
    let cancellations = Arc::new(Mailbox::new(100, Overflow::DropNewest));
    queue.set_cancellations(cancellations.clone()).await.unwrap();
    let worker = TestWorker(worker_mailbox());
    let options = WorkerOptions { abandon_after: 2_000, ..WorkerOptions::default() };
    queue.register_worker("q", "a", options, worker.0.clone()).await.unwrap();
    queue.start("q").await.unwrap();
    queue.enqueue("q", job("a", json!({"jobId": "x", "timeout": 500, "attempts": 2}))).await.unwrap();
    for made in 0..2 {
        let attempt = worker.started(&queue);
        assert_eq!(field(&attempt.job, "attemptsMade"), made);
        env.advance(&queue, 500).await;
        env.advance(&queue, 1_999).await;
        assert!(worker.taken().is_none());
        env.advance(&queue, 1).await;
        let expected = [(attempt.token, CancelReason::TimedOut), (attempt.token, CancelReason::Abandoned)];
        assert_eq!(cancelled(&cancellations), expected);
        assert!(!queue.complete(attempt.token, "1".into()).await.unwrap());
    }
    assert_eq!(state(&queue, "q", "x").await.as_deref(), Some("failed"));
    queue.enqueue("q", job("a", json!({"jobId": "y"}))).await.unwrap();
    assert_eq!(worker.ids(), ["y"]);
}

pub(crate) async fn a_handler_is_cancelled_when_its_job_is_removed_or_its_queue_closes(env: Env) {
    let queue = env.open();
    let cancellations = Arc::new(Mailbox::new(100, Overflow::DropNewest));
    queue.set_cancellations(cancellations.clone()).await.unwrap();
    let worker = TestWorker::on(&queue, "q", &["a"], 2).await;
    for id in ["removed", "closed"] {
        queue.enqueue("q", job("a", json!({"jobId": id}))).await.unwrap();
    }
    let (removed, closed) = (worker.started(&queue), worker.started(&queue));
    queue.remove_job("q", "removed").await.unwrap();
    assert_eq!(cancelled(&cancellations), [(removed.token, CancelReason::Removed)]);
    removed.cancelled().await;
    assert!(!queue.complete(removed.token, "1".into()).await.unwrap());
    assert_eq!(queue.close(Duration::ZERO).await.unwrap(), 1);
    assert_eq!(cancelled(&cancellations), [(closed.token, CancelReason::Closed)]);
}

pub(crate) async fn nothing_starts_once_a_queue_is_paused(env: Env) {
    let queue = env.open();
    let worker = TestWorker::on(&queue, "q", &["a"], 600).await;
    for n in 0..600 {
        queue.enqueue("q", job("a", json!({"jobId": n.to_string()}))).await.unwrap();
    }
    let delivered: Vec<_> = (0..600).map(|_| worker.taken().unwrap()).collect();
    assert!(queue.start_attempt(&delivered[0]) && queue.accept(delivered[1].clone()));
    queue.pause("q").await.unwrap();
    assert!(delivered.iter().all(|delivery| !queue.start_attempt(delivery)));
    assert!(!queue.start_accepted(delivered[1].token) && !queue.accept(delivered[2].clone()));
    let counts = queue.counts("q").await.unwrap();
    assert_eq!((counts.get(JobState::Active), counts.get(JobState::Paused)), (1, 599));
    queue.resume("q").await.unwrap();
    assert_eq!(worker.ids(), (1..600).map(|n| n.to_string()).collect::<Vec<_>>());
}

pub(crate) async fn a_worker_that_replaces_another_gets_its_jobs(env: Env) {
    let queue = env.open();
    let old = TestWorker::on(&queue, "q", &["a"], 3).await;
    for id in ["1", "2", "3"] {
        queue.enqueue("q", job("a", json!({"jobId": id}))).await.unwrap();
    }
    let (first, second) = (old.started(&queue), old.taken().unwrap());
    let new = TestWorker::on(&queue, "q", &["a"], 3).await;
    assert_eq!(new.ids(), ["2", "3"]);
    assert!(!queue.start_attempt(&second) && old.taken().is_none());
    assert!(queue.complete(first.token, "1".into()).await.unwrap());
}

pub(crate) async fn time_runs_only_once_a_handler_has_begun(env: Env) {
    let queue = env.open();
    let worker = TestWorker::on(&queue, "q", &["a"], 1).await;
    queue.enqueue("q", job("a", json!({"jobId": "x", "timeout": 500}))).await.unwrap();
    env.advance(&queue, 10_000).await;
    let delivery = worker.started(&queue);
    env.advance(&queue, 400).await;
    assert!(queue.complete(delivery.token, "1".into()).await.unwrap());
}

pub(crate) async fn only_so_many_ended_jobs_are_kept(env: Env) {
    let queue = env.open();
    let worker = TestWorker::on(&queue, "q", &["a"], 1).await;
    for n in 0..5 {
        queue.enqueue("q", job("a", json!({"jobId": n.to_string(), "removeOnComplete": 2}))).await.unwrap();
        queue.complete(worker.started(&queue).token, "1".into()).await.unwrap();
    }
    queue.enqueue("q", job("a", json!({"jobId": "gone", "removeOnFail": true}))).await.unwrap();
    queue.fail(worker.started(&queue).token, "no").await.unwrap();
    let left = queue.jobs("q", &[], 0, None).await.unwrap();
    assert_eq!(left.iter().map(|job| field(job, "id")).collect::<Vec<_>>(), ["4", "3"]);
    let counts = queue.counts("q").await.unwrap();
    assert_eq!((counts.get(JobState::Completed), counts.get(JobState::Failed)), (2, 0));
    // An id that is not kept is free.
    queue.enqueue("q", job("a", json!({"jobId": "gone"}))).await.unwrap();
    worker.started(&queue);
}

pub(crate) async fn ended_jobs_are_kept_only_so_long(env: Env) {
    let queue = env.open();
    let worker = TestWorker::on(&queue, "q", &["a"], 1).await;
    for n in 0..5 {
        let keep = json!({"age": 20, "count": 3});
        queue.enqueue("q", job("a", json!({"jobId": n.to_string(), "removeOnComplete": keep}))).await.unwrap();
        queue.complete(worker.started(&queue).token, "1".into()).await.unwrap();
        env.advance(&queue, 15_000).await;
    }
    let left = queue.jobs("q", &[], 0, None).await.unwrap();
    assert_eq!(left.iter().map(|job| field(job, "id")).collect::<Vec<_>>(), ["4", "3"]);
    assert_eq!(queue.counts("q").await.unwrap().get(JobState::Completed), 2);
}

pub(crate) async fn a_paused_queue_starts_nothing(env: Env) {
    let queue = env.open();
    let events = subscribe(&queue, "q").await;
    let worker = TestWorker::on(&queue, "q", &["a"], 1).await;
    assert!(!queue.is_paused("q").await.unwrap());
    queue.pause("q").await.unwrap();
    queue.pause("q").await.unwrap();
    queue.enqueue("q", job("a", json!({"jobId": "x"}))).await.unwrap();
    assert!(queue.is_paused("q").await.unwrap() && worker.taken().is_none());
    assert_eq!(state(&queue, "q", "x").await.as_deref(), Some("paused"));
    let counts = queue.counts("q").await.unwrap();
    assert_eq!((counts.get(JobState::Paused), counts.get(JobState::Waiting)), (1, 0));
    assert_eq!(queue.jobs("q", &[JobState::Waiting, JobState::Paused], 0, None).await.unwrap().len(), 1);
    queue.resume("q").await.unwrap();
    worker.started(&queue);
    assert_eq!(kinds(&events), ["paused", "waiting", "active"]);
}

pub(crate) async fn events_are_published_for_each_change_in_order(env: Env) {
    let queue = env.open();
    let events = subscribe(&queue, "q").await;
    let elsewhere = subscribe(&queue, "elsewhere").await;
    let worker = TestWorker::on(&queue, "q", &["a"], 1).await;
    queue.enqueue("q", job("a", json!({"jobId": "x"}))).await.unwrap();
    queue.complete(worker.started(&queue).token, r#"{"sum":3}"#.into()).await.unwrap();
    queue.enqueue("q", job("a", json!({"jobId": "x"}))).await.unwrap();
    let waiting = json!({
        "id": "x", "name": "a", "data": {"n": 1}, "opts": {"jobId": "x", "attempts": 1}, "state": "waiting",
        "attemptsMade": 0, "timestamp": NEW_YEAR,
    });
    let expected = [
        ("waiting", json!({"jobId": "x", "name": "a", "attemptsMade": 0, "job": waiting})),
        ("active", json!({"jobId": "x", "name": "a", "attemptsMade": 0})),
        ("completed", json!({"jobId": "x", "name": "a", "attemptsMade": 1, "returnvalue": {"sum": 3}})),
    ];
    assert_eq!(drain_events(&events), expected);
    assert!(elsewhere.is_empty());
    let only = Arc::new(Mailbox::new(10, Overflow::DropOldest));
    let id = queue.on("q", EventKind::Waiting, only.clone()).await.unwrap();
    queue.off(id).await.unwrap();
    queue.enqueue("q", job("a", json!({}))).await.unwrap();
    assert!(only.is_empty());
}

pub(crate) async fn progress_is_published_and_kept(env: Env) {
    let queue = env.open();
    let events = subscribe(&queue, "q").await;
    let worker = TestWorker::on(&queue, "q", &["a"], 1).await;
    queue.enqueue("q", job("a", json!({"jobId": "x"}))).await.unwrap();
    let delivery = worker.started(&queue);
    assert!(queue.progress(delivery.token, "40".into()).await.unwrap());
    assert_eq!(field(&queue.job("q", "x").await.unwrap().unwrap(), "progress"), 40);
    assert_eq!(drain_events(&events).pop().unwrap().1["progress"], 40);
}

pub(crate) async fn pages_have_what_runs_next_first_and_the_newest_end_first(env: Env) {
    let queue = env.open();
    for n in 0..5 {
        queue.enqueue("q", job("a", json!({"jobId": format!("done{n}")}))).await.unwrap();
    }
    let worker = TestWorker::on(&queue, "q", &["a"], 5).await;
    while let Some(delivery) = worker.taken() {
        queue.complete(delivery.token, "1".into()).await.unwrap();
    }
    for n in 0..5 {
        queue.enqueue("q", job("b", json!({"jobId": format!("wait{n}"), "priority": 10 - n}))).await.unwrap();
    }
    let page = async |states: &[JobState], offset, limit| -> Vec<String> {
        let jobs = queue.jobs("q", states, offset, limit).await.unwrap();
        jobs.iter().map(|job| field(job, "id").as_str().unwrap().to_owned()).collect()
    };
    use JobState::{Completed, Failed, Waiting};
    assert_eq!(page(&[Waiting], 1, Some(2)).await, ["wait3", "wait2"]);
    assert_eq!(page(&[Completed], 0, Some(2)).await, ["done4", "done3"]);
    assert_eq!(page(&[Waiting, Failed, Completed, Waiting], 3, Some(4)).await, ["wait1", "wait0", "done4", "done3"]);
    assert_eq!(page(&[], 0, None).await.len(), 10);
    assert_eq!(page(&[Waiting, Completed], 9, Some(5)).await, ["done0"]);
    assert!(page(&[Waiting], 5, None).await.is_empty() && page(&[Waiting], 0, Some(0)).await.is_empty());
    assert!(queue.jobs("never seen", &[], 0, None).await.unwrap().is_empty());
}

pub(crate) async fn a_removed_job_is_gone_and_its_outcome_ignored(env: Env) {
    let queue = env.open();
    let worker = TestWorker::on(&queue, "q", &["a"], 1).await;
    for id in ["x", "y"] {
        queue.enqueue("q", job("a", json!({"jobId": id}))).await.unwrap();
    }
    let delivery = worker.started(&queue);
    assert!(queue.remove_job("q", "x").await.unwrap());
    assert!(!queue.remove_job("q", "x").await.unwrap() && !queue.remove_job("nowhere", "x").await.unwrap());
    // Its handler still runs, so the next one has to wait.
    assert!(worker.taken().is_none());
    queue.enqueue("q", job("a", json!({"jobId": "x"}))).await.unwrap();
    assert!(!queue.complete(delivery.token, "1".into()).await.unwrap());
    assert_eq!(state(&queue, "q", "x").await.as_deref(), Some("waiting"));
    assert_eq!(worker.ids(), ["y"]);
    queue.enqueue("q", job("a", json!({"jobId": "z", "delay": 5}))).await.unwrap();
    assert!(queue.remove_job("q", "z").await.unwrap());
    assert_eq!(queue.counts("q").await.unwrap().get(JobState::Delayed), 0);
}

pub(crate) async fn a_settled_handler_frees_its_place_before_its_outcome_is_committed(env: Env) {
    let queue = env.open();
    let worker = TestWorker::on(&queue, "q", &["a"], 1).await;
    for id in ["x", "y"] {
        queue.enqueue("q", job("a", json!({"jobId": id, "timeout": 500}))).await.unwrap();
    }
    let first = worker.started(&queue);
    queue.handler_settled(first.token).await.unwrap();
    let second = worker.started(&queue);
    assert_eq!(state(&queue, "q", "x").await.as_deref(), Some("active"));
    env.advance(&queue, 400).await;
    queue.handler_settled(second.token).await.unwrap();
    env.advance(&queue, 10_000).await;
    assert!(queue.complete(first.token, "1".into()).await.unwrap());
    assert!(queue.fail(second.token, "no luck").await.unwrap());
    assert_eq!(state(&queue, "q", "x").await.as_deref(), Some("completed"));
    assert_eq!(state(&queue, "q", "y").await.as_deref(), Some("failed"));
    queue.enqueue("q", job("a", json!({"jobId": "z"}))).await.unwrap();
    queue.enqueue("q", job("a", json!({"jobId": "later"}))).await.unwrap();
    assert_eq!(worker.ids(), ["z"]);
}

/// With a clock that goes on at each look, as a real one may.
pub(crate) async fn an_age_of_0_keeps_the_job_that_ended_last(env: Env) {
    struct RunningClock(std::sync::atomic::AtomicU64);
    impl nvent_native::time::Clock for RunningClock {
        fn now_ms(&self) -> u64 {
            self.0.fetch_add(7, std::sync::atomic::Ordering::Relaxed)
        }
        fn monotonic_ms(&self) -> u64 {
            0
        }
    }
    let queue = (env.open)(JobOptions::default(), Arc::new(RunningClock(NEW_YEAR.into())));
    let worker = TestWorker::on(&queue, "q", &["a"], 1).await;
    for id in ["old", "new"] {
        queue.enqueue("q", job("a", json!({"jobId": id, "removeOnComplete": {"age": 0}}))).await.unwrap();
        queue.complete(worker.started(&queue).token, "1".into()).await.unwrap();
        assert_eq!(state(&queue, "q", id).await.as_deref(), Some("completed"));
    }
    assert_eq!(state(&queue, "q", "old").await, None);
}

pub(crate) async fn a_failed_job_is_tried_once_more_when_asked(env: Env) {
    let queue = env.open();
    let worker = TestWorker::on(&queue, "q", &["a"], 1).await;
    queue.enqueue("q", job("a", json!({"jobId": "x", "attempts": 2}))).await.unwrap();
    assert!(!queue.retry_job("q", "x").await.unwrap() && !queue.retry_job("q", "y").await.unwrap());
    assert!(!queue.retry_job("nowhere", "x").await.unwrap());
    for _ in 0..2 {
        queue.fail(worker.started(&queue).token, "no luck").await.unwrap();
    }
    assert_eq!(state(&queue, "q", "x").await.as_deref(), Some("failed"));
    assert!(queue.retry_job("q", "x").await.unwrap());
    let again = worker.started(&queue);
    assert_eq!((field(&again.job, "attemptsMade"), field(&again.job, "failedReason")), (json!(2), Value::Null));
    assert!(!queue.retry_job("q", "x").await.unwrap());
    queue.fail(again.token, "still not").await.unwrap();
    assert_eq!(state(&queue, "q", "x").await.as_deref(), Some("failed"));
    assert!(queue.retry_job("q", "x").await.unwrap());
    queue.complete(worker.started(&queue).token, "1".into()).await.unwrap();
    assert!(!queue.retry_job("q", "x").await.unwrap());
    let counts = queue.counts("q").await.unwrap();
    assert_eq!((counts.get(JobState::Completed), counts.get(JobState::Failed)), (1, 0));
}

pub(crate) async fn a_job_is_not_tried_again_beside_its_last_handler(env: Env) {
    let queue = env.open();
    let worker = TestWorker::on(&queue, "q", &["a"], 5).await;
    queue.enqueue("q", job("a", json!({"jobId": "x", "timeout": 500}))).await.unwrap();
    let late = worker.started(&queue);
    env.advance(&queue, 500).await;
    assert_eq!(state(&queue, "q", "x").await.as_deref(), Some("failed"));
    assert!(queue.retry_job("q", "x").await.unwrap());
    assert!(worker.taken().is_none());
    assert!(!queue.complete(late.token, "1".into()).await.unwrap());
    let again = worker.started(&queue);
    assert_eq!(field(&again.job, "attemptsMade"), 1);
    assert!(queue.complete(again.token, "1".into()).await.unwrap());
}

pub(crate) async fn ended_jobs_do_not_pile_up(env: Env) {
    let queue = env.open();
    let worker = TestWorker::on(&queue, "q", &["a"], 20_000).await;
    let ops: Vec<_> = (0..10_050).map(|_| queue.enqueue("q", job("a", json!({})))).collect();
    for op in ops {
        op.await.unwrap();
    }
    let started: Vec<_> = (0..10_050).map(|_| worker.started(&queue).token).collect();
    let ops: Vec<_> = started.into_iter().map(|token| queue.complete(token, "1".into())).collect();
    for op in ops {
        op.await.unwrap();
    }
    assert_eq!(queue.counts("q").await.unwrap().get(JobState::Completed), 10_000);
}
