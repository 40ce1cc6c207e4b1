//! Closing, and everything at once.

use super::*;

pub(crate) async fn closing_gives_back_what_has_not_begun_and_waits_for_the_rest(env: Env) {
    let queue = env.open();
    let events = subscribe(&queue, "q").await;
    let worker = TestWorker::on(&queue, "q", &["a"], 2).await;
    for id in ["started", "not", "never"] {
        queue.enqueue("q", job("a", json!({"jobId": id}))).await.unwrap();
    }
    let (started, not) = (worker.started(&queue), worker.taken().unwrap());
    let closing = queue.close(CLOSE_TIMEOUT);
    let again = queue.close(CLOSE_TIMEOUT);
    assert!(queue.complete(started.token, "1".into()).await.unwrap());
    assert_eq!(closing.await.unwrap(), 0);
    assert_eq!(again.await.unwrap(), 0);
    assert!(!queue.start_attempt(&not) && worker.taken().is_none());
    let waiting = ["waiting", "active", "waiting", "active", "waiting"];
    assert_eq!(kinds(&events), [&waiting[..], &["waiting", "completed"]].concat());
    if env.is_durable {
        let queue = env.open();
        assert_eq!(state(&queue, "q", "started").await.as_deref(), Some("completed"));
        let given_back = queue.job("q", "not").await.unwrap().unwrap();
        assert_eq!((field(&given_back, "state"), field(&given_back, "attemptsMade")), (json!("waiting"), json!(0)));
        assert_eq!(TestWorker::on(&queue, "q", &["a"], 2).await.ids(), ["not", "never"]);
    }
}

pub(crate) async fn closing_does_not_wait_for_ever(env: Env) {
    let queue = env.open();
    let worker = TestWorker::on(&queue, "q", &["a"], 2).await;
    queue.enqueue("q", job("a", json!({"jobId": "x", "attempts": 2}))).await.unwrap();
    let delivery = worker.started(&queue);
    assert_eq!(queue.close(Duration::from_millis(1)).await.unwrap(), 1);
    assert!(queue.complete(delivery.token, "1".into()).await.is_ok_and(|counted| !counted) || env.is_durable);
    if env.is_durable {
        let queue = env.open();
        let job = queue.job("q", "x").await.unwrap().unwrap();
        assert_eq!((field(&job, "state"), field(&job, "attemptsMade")), (json!("waiting"), json!(1)));
    }
}

pub(crate) async fn after_close_every_call_says_so(env: Env) {
    let queue = env.open();
    queue.enqueue("q", job("a", json!({}))).await.unwrap();
    queue.close(CLOSE_TIMEOUT).await.unwrap();
    let errors = [
        queue.open().await.unwrap_err(),
        queue.enqueue("q", job("a", json!({}))).await.unwrap_err(),
        queue.counts("q").await.unwrap_err(),
        queue.on("q", EventKind::Active, Arc::new(Mailbox::new(1, Overflow::DropOldest))).await.unwrap_err(),
        queue.start("q").await.unwrap_err(),
    ];
    assert!(errors.iter().all(|error| error.code() == Code::Closed), "{errors:?}");
}

pub(crate) async fn a_closed_mailbox_gives_its_job_back(env: Env) {
    let queue = env.open();
    let worker = TestWorker::on(&queue, "q", &["a"], 1).await;
    worker.0.close();
    queue.enqueue("q", job("a", json!({"jobId": "x"}))).await.unwrap();
    assert_eq!(state(&queue, "q", "x").await.as_deref(), Some("waiting"));
    let worker = TestWorker::on(&queue, "q", &["a"], 1).await;
    assert_eq!(field(&worker.started(&queue).job, "attemptsMade"), 0);
}

pub(crate) async fn defaults_are_for_options_that_a_job_does_not_have(env: Env) {
    let queue = env.open_with(JobOptions::parse("defaults", r#"{"attempts":4,"backoff":10,"jobId":"no"}"#).unwrap());
    let id = queue.enqueue("q", job("a", json!({"attempts": 2}))).await.unwrap();
    let opts = field(&queue.job("q", &id).await.unwrap().unwrap(), "opts");
    assert_eq!(opts, json!({"attempts": 2, "backoff": {"type": "fixed", "delay": 10}}));
    assert_ne!(&*id, "no");
    let error = queue.enqueue("", job("a", json!({}))).await.unwrap_err();
    assert!(error.code() == Code::Invalid && error.message().starts_with("queue:"));
}

pub(crate) async fn async_workers_run_everything_once(env: Env) {
    let queue = env.open();
    let done = Arc::new(Mailbox::new(10_000, Overflow::DropOldest));
    queue.on("q", EventKind::Completed, done.clone()).await.unwrap();
    let options = WorkerOptions { concurrency: 8, ..WorkerOptions::default() };
    queue.work("q", "a", options, async |delivery: JobDelivery| {
        tokio::task::yield_now().await;
        Ok(field(&delivery.job, "attemptsMade").to_string().into())
    });
    queue.start("q").await.unwrap();
    let enqueued: Vec<_> = (0..500).map(|n| queue.enqueue("q", job("a", json!({"jobId": n.to_string()})))).collect();
    for op in enqueued {
        op.await.unwrap();
    }
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 500 {
        let Some(Delivery::Item(event)) = done.recv().await else { panic!("an event is missing") };
        assert!(seen.insert(field(&event.payload, "jobId").to_string()), "{event:?} was published twice");
    }
    assert_eq!(queue.close(CLOSE_TIMEOUT).await.unwrap(), 0);
}

/// What must hold after whatever was done: counts are what pages show, and no worker runs more than allowed.
pub(crate) async fn random_operations_keep_counts_and_states_true(env: Env) {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut queue = env.open();
    let mut worker = TestWorker::on(&queue, "q", &["a", "b"], 3).await;
    let mut running: Vec<JobDelivery> = Vec::new();
    for step in 0..1_500 {
        let some_id = format!("id{}", next(60));
        match next(12) {
            0..=3 => {
                let keep = [json!(true), json!(3), json!(false)];
                let opts = json!({
                    "jobId": some_id, "priority": next(3), "attempts": 1 + next(3), "delay": 50 * (next(3) / 2),
                    "backoff": next(100), "timeout": 100 + next(200), "removeOnComplete": keep.get(next(3) as usize),
                });
                queue.enqueue("q", job(["a", "b", "unhandled"][next(3) as usize], opts)).await.unwrap();
            }
            4..=6 if !running.is_empty() => {
                let delivery = running.swap_remove(next(running.len() as u64) as usize);
                match next(4) {
                    0 => _ = queue.fail(delivery.token, "no").await.unwrap(),
                    1 => _ = queue.complete(delivery.token, r#"{"awaiting":true}"#.into()).await.unwrap(),
                    _ => _ = queue.complete(delivery.token, "1".into()).await.unwrap(),
                }
            }
            7 => _ = queue.remove_job("q", &some_id).await.unwrap(),
            8 => queue.pause("q").await.unwrap(),
            9 => queue.resume("q").await.unwrap(),
            10 if next(8) == 0 && env.is_durable => {
                queue.close(Duration::ZERO).await.unwrap();
                running.clear();
                queue = env.open();
                worker = TestWorker::on(&queue, "q", &["a", "b"], 3).await;
            }
            _ => env.advance(&queue, next(120)).await,
        }
        while let Some(delivery) = worker.taken() {
            assert!(queue.start_attempt(&delivery));
            running.push(delivery);
        }
        let counts = queue.counts("q").await.unwrap();
        assert!(counts.get(JobState::Active) <= 3, "step {step}");
        for state in JobState::ALL {
            let jobs = queue.jobs("q", &[state], 0, None).await.unwrap();
            assert_eq!(jobs.len() as u64, counts.get(state), "step {step}: {state:?}");
            assert!(jobs.iter().all(|job| field(job, "state") == state.as_str()), "step {step}: {state:?}");
        }
    }
}

/// A handler that enqueues while its queue drains succeeds, and what it enqueued is kept.
pub(crate) async fn jobs_are_enqueued_until_the_last_handler_has_ended(env: Env) {
    let queue = env.open();
    let worker = TestWorker::on(&queue, "q", &["a"], 2).await;
    queue.enqueue("q", job("a", json!({"jobId": "first"}))).await.unwrap();
    let first = worker.started(&queue);
    let closing = queue.close(CLOSE_TIMEOUT);
    queue.enqueue("q", job("a", json!({"jobId": "next"}))).await.unwrap();
    let later = ScheduleOptions::parse("opts", r#"{"delay":1000}"#).unwrap();
    queue.schedule("q", job("a", json!({"jobId": "later"})), later).await.unwrap();
    assert_eq!(state(&queue, "q", "next").await.as_deref(), Some("waiting"));
    let error = queue.register_worker("q", "a", WorkerOptions::default(), worker_mailbox()).await.unwrap_err();
    assert_eq!(error.code(), Code::Closed);
    assert_eq!(queue.start("q").await.unwrap_err().code(), Code::Closed);
    assert!(queue.complete(first.token, "1".into()).await.unwrap());
    closing.await.unwrap();
    assert!(worker.taken().is_none());
    assert_eq!(queue.enqueue("q", job("a", json!({}))).await.unwrap_err().code(), Code::Closed);
    if env.is_durable {
        let queue = env.open();
        let worker = TestWorker::on(&queue, "q", &["a"], 2).await;
        assert_eq!(worker.ids(), ["next"]);
        assert_eq!(state(&queue, "q", "later").await.as_deref(), Some("delayed"));
    }
}
