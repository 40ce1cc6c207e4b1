//! The contract of queues, over every backend.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::*;
use crate::error::Code;
use crate::fanout::{Delivery, Overflow};
use crate::time::ManualClock;

/// 2026-01-01T00:00:00Z.
const NEW_YEAR: u64 = 1_767_225_600_000;

/// Where the queues of one test are, and what time it is there.
struct Place {
    dir: Option<TempDir>,
    clock: Arc<ManualClock>,
}

impl Place {
    fn memory() -> Self {
        Self { dir: None, clock: ManualClock::at(NEW_YEAR) }
    }

    fn file() -> Self {
        Self { dir: Some(TempDir::new().unwrap()), ..Self::memory() }
    }

    fn open_with(&self, defaults: JobOptions) -> Arc<Queue> {
        let (clock, runtime) = (self.clock.clone(), Handle::current());
        Arc::new(match &self.dir {
            None => Queue::memory(defaults, clock, runtime),
            Some(dir) => Queue::file(dir.path().join("deep/queue"), Durability::Os, defaults, clock, runtime),
        })
    }

    fn open(&self) -> Arc<Queue> {
        self.open_with(JobOptions::default())
    }

    async fn advance(&self, queue: &Queue, ms: u64) {
        self.clock.advance(ms);
        queue.tick().await.unwrap();
    }
}

fn job(name: &str, opts: Value) -> NewJob {
    NewJob::parse("job", &json!({"name": name, "data": {"n": 1}, "opts": opts}).to_string()).unwrap()
}

/// A worker that does what the test says.
struct Hands(Arc<Mailbox<Run>>);

impl Hands {
    async fn on(queue: &Queue, name: &str, job_names: &[&str], concurrency: usize) -> Self {
        let hands = Self(worker_mailbox());
        for job_name in job_names {
            let options = WorkerOptions { concurrency, ..WorkerOptions::default() };
            queue.register_worker(name, job_name, options, hands.0.clone()).await.unwrap();
        }
        queue.start(name).await.unwrap();
        hands
    }

    /// The job that was handed over. Exact, as everything leaves before the call that caused it ends.
    fn taken(&self) -> Option<Run> {
        let mut out = Vec::new();
        self.0.take(1, &mut out);
        match out.pop()? {
            Delivery::Item(run) => Some(run),
            Delivery::Gap(gap) => panic!("{gap:?}"),
        }
    }

    fn begun(&self, queue: &Queue) -> Run {
        let run = self.taken().expect("a job was handed over");
        assert!(queue.begin(&run));
        run
    }

    fn ids(&self) -> Vec<String> {
        std::iter::from_fn(|| self.taken()).map(|run| id(&run)).collect()
    }
}

fn field(json: &str, name: &str) -> Value {
    serde_json::from_str::<Value>(json).unwrap()[name].clone()
}

fn id(run: &Run) -> String {
    field(&run.job, "id").as_str().unwrap().to_owned()
}

async fn state(queue: &Queue, name: &str, id: &str) -> Option<String> {
    queue.job(name, id).await.unwrap().map(|job| field(&job, "state").as_str().unwrap().to_owned())
}

/// Every event of a queue, in one mailbox.
async fn listen(queue: &Queue, name: &str) -> Arc<Mailbox<QueueEvent>> {
    let mailbox = Arc::new(Mailbox::new(10_000, Overflow::DropOldest));
    for kind in EventKind::ALL {
        queue.on(name, kind, mailbox.clone()).await.unwrap();
    }
    mailbox
}

fn told(mailbox: &Mailbox<QueueEvent>) -> Vec<(&'static str, Value)> {
    let mut out = Vec::new();
    mailbox.take(usize::MAX, &mut out);
    let event = |delivery| match delivery {
        Delivery::Item(QueueEvent { kind, payload, .. }) => (kind.as_str(), serde_json::from_str(&payload).unwrap()),
        Delivery::Gap(gap) => panic!("{gap:?}"),
    };
    out.into_iter().map(event).collect()
}

fn kinds(mailbox: &Mailbox<QueueEvent>) -> Vec<&'static str> {
    told(mailbox).into_iter().map(|(kind, _)| kind).collect()
}

/// Runs every test over every backend.
macro_rules! suite {
    ($($name:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Place::memory()).await;
            })+
        }
        mod file {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Place::file()).await;
            })+
        }
    };
}

suite! {
    an_id_that_is_there_is_not_enqueued_again,
    an_awaiting_job_is_forgotten_and_its_id_free,
    jobs_without_priority_run_first_then_lower_numbers_each_in_order,
    concurrency_is_per_queue_and_exact,
    nothing_starts_before_the_queue_is_started,
    workers_without_autorun_wait_for_resume,
    a_job_whose_name_has_no_worker_waits_and_holds_up_nobody,
    a_delayed_job_waits_for_its_time,
    attempts_are_made_with_backoff_until_one_succeeds_or_all_failed,
    exponential_backoff_doubles,
    an_attempt_that_takes_too_long_has_failed_and_its_result_is_late,
    time_runs_only_once_a_handler_has_begun,
    only_so_many_ended_jobs_are_kept,
    a_paused_queue_starts_nothing,
    events_tell_each_change_in_order,
    progress_is_told_and_kept,
    pages_have_what_runs_next_first_and_the_newest_end_first,
    a_removed_job_is_gone_and_its_outcome_ignored,
    cron_fires_on_time_and_missed_times_fire_once,
    a_schedule_ends_at_its_limit,
    scheduling_again_is_one_schedule,
    a_schedule_with_a_delay_is_one_job,
    closing_gives_back_what_has_not_begun_and_waits_for_the_rest,
    closing_does_not_wait_for_ever,
    after_close_every_call_says_so,
    a_closed_mailbox_gives_its_job_back,
    defaults_are_for_options_that_a_job_does_not_have,
    async_workers_run_everything_once,
    random_operations_keep_counts_and_states_true,
}

async fn an_id_that_is_there_is_not_enqueued_again(place: Place) {
    let queue = place.open();
    let hands = Hands::on(&queue, "q", &["a"], 1).await;
    let again = async || {
        assert_eq!(&*queue.enqueue("q", job("a", json!({"jobId": "x"}))).await.unwrap(), "x");
        queue.counts("q").await.unwrap()
    };
    assert_eq!(again().await.get(JobState::Active), 1);
    assert_eq!(again().await.get(JobState::Waiting), 0);
    let run = hands.begun(&queue);
    assert!(queue.complete(run.token, "1".into()).await.unwrap());
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

async fn an_awaiting_job_is_forgotten_and_its_id_free(place: Place) {
    let queue = place.open();
    let events = listen(&queue, "q").await;
    let hands = Hands::on(&queue, "q", &["a"], 1).await;
    queue.enqueue("q", job("a", json!({"jobId": "x"}))).await.unwrap();
    let run = hands.begun(&queue);
    queue.complete(run.token, r#"{"ok":1,"awaiting":true}"#.into()).await.unwrap();
    assert_eq!(state(&queue, "q", "x").await, None);
    assert_eq!(queue.counts("q").await.unwrap(), JobCounts::default());
    assert_eq!(kinds(&events), ["waiting", "active"]);
    queue.enqueue("q", job("a", json!({"jobId": "x"}))).await.unwrap();
    let run = hands.begun(&queue);
    queue.complete(run.token, r#"{"inner":{"awaiting":true},"awaiting":"no"}"#.into()).await.unwrap();
    assert_eq!(state(&queue, "q", "x").await.as_deref(), Some("completed"));
}

async fn jobs_without_priority_run_first_then_lower_numbers_each_in_order(place: Place) {
    let queue = place.open();
    for (id, priority) in [("c", 5), ("d", 5), ("b", 1), ("e", 9)] {
        queue.enqueue("q", job("a", json!({"jobId": id, "priority": priority}))).await.unwrap();
    }
    for id in ["1", "2", "3"] {
        queue.enqueue("q", job("a", json!({"jobId": id}))).await.unwrap();
    }
    let hands = Hands::on(&queue, "q", &["a"], 100).await;
    assert_eq!(hands.ids(), ["1", "2", "3", "b", "c", "d", "e"]);
}

async fn concurrency_is_per_queue_and_exact(place: Place) {
    let queue = place.open();
    let hands = Hands::on(&queue, "q", &["a", "b"], 3).await;
    // The first worker has decided.
    let more = WorkerOptions { concurrency: 50, ..WorkerOptions::default() };
    queue.register_worker("q", "c", more, hands.0.clone()).await.unwrap();
    for n in 0..12 {
        queue.enqueue("q", job(["a", "b", "c"][n % 3], json!({"jobId": n.to_string()}))).await.unwrap();
    }
    let mut running: Vec<Run> = (0..3).map(|_| hands.begun(&queue)).collect();
    for next in 3..12 {
        assert!(hands.taken().is_none());
        let run = running.remove(0);
        queue.complete(run.token, "null".into()).await.unwrap();
        let run = hands.begun(&queue);
        assert_eq!(id(&run), next.to_string());
        running.push(run);
    }
}

async fn nothing_starts_before_the_queue_is_started(place: Place) {
    let queue = place.open();
    let mailbox = worker_mailbox();
    queue.enqueue("q", job("a", json!({"jobId": "before"}))).await.unwrap();
    queue.register_worker("q", "a", WorkerOptions::default(), mailbox.clone()).await.unwrap();
    queue.enqueue("q", job("a", json!({"jobId": "after"}))).await.unwrap();
    assert!(mailbox.is_empty());
    queue.start("q").await.unwrap();
    let run = Hands(mailbox).begun(&queue);
    assert_eq!(id(&run), "before");
    let job: Value = serde_json::from_str(&run.job).unwrap();
    let expected = json!({
        "id": "before", "name": "a", "data": {"n": 1}, "opts": {"jobId": "before", "attempts": 1}, "state": "active",
        "attemptsMade": 0, "timestamp": NEW_YEAR, "processedOn": NEW_YEAR
    });
    assert_eq!(job, expected);
}

async fn workers_without_autorun_wait_for_resume(place: Place) {
    let queue = place.open();
    let hands = Hands(worker_mailbox());
    let options = WorkerOptions { autorun: false, ..WorkerOptions::default() };
    queue.register_worker("q", "a", options, hands.0.clone()).await.unwrap();
    queue.enqueue("q", job("a", json!({}))).await.unwrap();
    queue.start("q").await.unwrap();
    assert!(hands.taken().is_none());
    queue.resume("q").await.unwrap();
    hands.begun(&queue);
}

async fn a_job_whose_name_has_no_worker_waits_and_holds_up_nobody(place: Place) {
    let queue = place.open();
    for (id, name, priority) in [("1", "nobody", 0), ("2", "a", 7), ("3", "nobody", 0), ("4", "b", 1)] {
        queue.enqueue("q", job(name, json!({"jobId": id, "priority": priority}))).await.unwrap();
    }
    let hands = Hands::on(&queue, "q", &["a", "b"], 10).await;
    assert_eq!(hands.ids(), ["4", "2"]);
    assert_eq!(queue.counts("q").await.unwrap().get(JobState::Waiting), 2);
    queue.register_worker("q", "nobody", WorkerOptions::default(), hands.0.clone()).await.unwrap();
    assert_eq!(hands.ids(), ["1", "3"]);
}

async fn a_delayed_job_waits_for_its_time(place: Place) {
    let queue = place.open();
    let hands = Hands::on(&queue, "q", &["a"], 10).await;
    queue.enqueue("q", job("a", json!({"jobId": "later", "delay": 2_000}))).await.unwrap();
    queue.enqueue("q", job("a", json!({"jobId": "sooner", "delay": 1_000}))).await.unwrap();
    assert_eq!(state(&queue, "q", "later").await.as_deref(), Some("delayed"));
    place.advance(&queue, 999).await;
    assert!(hands.taken().is_none());
    place.advance(&queue, 1).await;
    assert_eq!(hands.ids(), ["sooner"]);
    place.advance(&queue, 10_000).await;
    assert_eq!(hands.ids(), ["later"]);
}

async fn attempts_are_made_with_backoff_until_one_succeeds_or_all_failed(place: Place) {
    let queue = place.open();
    let events = listen(&queue, "q").await;
    let hands = Hands::on(&queue, "q", &["a"], 1).await;
    queue.enqueue("q", job("a", json!({"jobId": "x", "attempts": 3, "backoff": 100}))).await.unwrap();
    for made in 0..3 {
        let run = hands.begun(&queue);
        assert_eq!(field(&run.job, "attemptsMade"), made);
        assert!(queue.fail(run.token, "no luck").await.unwrap());
        assert!(!queue.fail(run.token, "again").await.unwrap());
        place.advance(&queue, 99).await;
        assert!(hands.taken().is_none());
        place.advance(&queue, 1).await;
    }
    let failed = queue.job("q", "x").await.unwrap().unwrap();
    assert_eq!((field(&failed, "state"), field(&failed, "failedReason")), (json!("failed"), json!("no luck")));
    assert_eq!(field(&failed, "attemptsMade"), 3);
    let events = told(&events);
    let kinds: Vec<_> = events.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, ["waiting", "active", "delayed", "waiting", "active", "delayed", "waiting", "active", "failed"]);
    assert_eq!(events[2].1["delay"], 100);
    assert_eq!(events[8].1, json!({"jobId": "x", "name": "a", "attemptsMade": 3, "failedReason": "no luck"}));
    // Without a backoff the next attempt is due at once.
    queue.enqueue("q", job("a", json!({"jobId": "y", "attempts": 2}))).await.unwrap();
    queue.fail(hands.begun(&queue).token, "no luck").await.unwrap();
    queue.complete(hands.begun(&queue).token, "7".into()).await.unwrap();
    let done = queue.job("q", "y").await.unwrap().unwrap();
    assert_eq!((field(&done, "returnvalue"), field(&done, "failedReason")), (json!(7), Value::Null));
}

async fn exponential_backoff_doubles(place: Place) {
    let queue = place.open();
    let hands = Hands::on(&queue, "q", &["a"], 1).await;
    let backoff = json!({"type": "exponential", "delay": 100});
    queue.enqueue("q", job("a", json!({"attempts": 4, "backoff": backoff}))).await.unwrap();
    for wait in [100, 200, 400] {
        queue.fail(hands.begun(&queue).token, "no").await.unwrap();
        place.advance(&queue, wait - 1).await;
        assert!(hands.taken().is_none());
        place.advance(&queue, 1).await;
    }
    hands.begun(&queue);
}

async fn an_attempt_that_takes_too_long_has_failed_and_its_result_is_late(place: Place) {
    let queue = place.open();
    let hands = Hands::on(&queue, "q", &["a"], 1).await;
    queue.enqueue("q", job("a", json!({"jobId": "x", "timeout": 500, "attempts": 2}))).await.unwrap();
    let first = hands.begun(&queue);
    place.advance(&queue, 499).await;
    assert_eq!(state(&queue, "q", "x").await.as_deref(), Some("active"));
    place.advance(&queue, 1).await;
    let second = hands.begun(&queue);
    assert!(!queue.complete(first.token, "\"late\"".into()).await.unwrap());
    assert!(!queue.progress(first.token, "1".into()).await.unwrap());
    assert_eq!(state(&queue, "q", "x").await.as_deref(), Some("active"));
    place.advance(&queue, 500).await;
    let failed = queue.job("q", "x").await.unwrap().unwrap();
    assert_eq!(field(&failed, "failedReason"), "timed out after 500 ms");
    assert!(!queue.complete(second.token, "1".into()).await.unwrap());
    // The slot is free.
    queue.enqueue("q", job("a", json!({}))).await.unwrap();
    hands.begun(&queue);
}

async fn time_runs_only_once_a_handler_has_begun(place: Place) {
    let queue = place.open();
    let hands = Hands::on(&queue, "q", &["a"], 1).await;
    queue.enqueue("q", job("a", json!({"jobId": "x", "timeout": 500}))).await.unwrap();
    place.advance(&queue, 10_000).await;
    let run = hands.begun(&queue);
    place.advance(&queue, 400).await;
    assert!(queue.complete(run.token, "1".into()).await.unwrap());
}

async fn only_so_many_ended_jobs_are_kept(place: Place) {
    let queue = place.open();
    let hands = Hands::on(&queue, "q", &["a"], 1).await;
    for n in 0..5 {
        queue.enqueue("q", job("a", json!({"jobId": n.to_string(), "removeOnComplete": 2}))).await.unwrap();
        queue.complete(hands.begun(&queue).token, "1".into()).await.unwrap();
    }
    queue.enqueue("q", job("a", json!({"jobId": "gone", "removeOnFail": true}))).await.unwrap();
    queue.fail(hands.begun(&queue).token, "no").await.unwrap();
    let left = queue.jobs("q", &[], 0, None).await.unwrap();
    assert_eq!(left.iter().map(|job| field(job, "id")).collect::<Vec<_>>(), ["4", "3"]);
    let counts = queue.counts("q").await.unwrap();
    assert_eq!((counts.get(JobState::Completed), counts.get(JobState::Failed)), (2, 0));
    // An id that is not kept is free.
    queue.enqueue("q", job("a", json!({"jobId": "gone"}))).await.unwrap();
    hands.begun(&queue);
}

async fn a_paused_queue_starts_nothing(place: Place) {
    let queue = place.open();
    let events = listen(&queue, "q").await;
    let hands = Hands::on(&queue, "q", &["a"], 1).await;
    assert!(!queue.is_paused("q").await.unwrap());
    queue.pause("q").await.unwrap();
    queue.pause("q").await.unwrap();
    queue.enqueue("q", job("a", json!({"jobId": "x"}))).await.unwrap();
    assert!(queue.is_paused("q").await.unwrap() && hands.taken().is_none());
    assert_eq!(state(&queue, "q", "x").await.as_deref(), Some("paused"));
    let counts = queue.counts("q").await.unwrap();
    assert_eq!((counts.get(JobState::Paused), counts.get(JobState::Waiting)), (1, 0));
    assert_eq!(queue.jobs("q", &[JobState::Waiting, JobState::Paused], 0, None).await.unwrap().len(), 1);
    queue.resume("q").await.unwrap();
    hands.begun(&queue);
    assert_eq!(kinds(&events), ["paused", "waiting", "active"]);
}

async fn events_tell_each_change_in_order(place: Place) {
    let queue = place.open();
    let events = listen(&queue, "q").await;
    let elsewhere = listen(&queue, "elsewhere").await;
    let hands = Hands::on(&queue, "q", &["a"], 1).await;
    queue.enqueue("q", job("a", json!({"jobId": "x"}))).await.unwrap();
    queue.complete(hands.begun(&queue).token, r#"{"sum":3}"#.into()).await.unwrap();
    queue.enqueue("q", job("a", json!({"jobId": "x"}))).await.unwrap();
    let expected = [
        ("waiting", json!({"jobId": "x", "name": "a", "attemptsMade": 0})),
        ("active", json!({"jobId": "x", "name": "a", "attemptsMade": 0})),
        ("completed", json!({"jobId": "x", "name": "a", "attemptsMade": 1, "returnvalue": {"sum": 3}})),
    ];
    assert_eq!(told(&events), expected);
    assert!(elsewhere.is_empty());
    let only = Arc::new(Mailbox::new(10, Overflow::DropOldest));
    let id = queue.on("q", EventKind::Waiting, only.clone()).await.unwrap();
    queue.off(id).await.unwrap();
    queue.enqueue("q", job("a", json!({}))).await.unwrap();
    assert!(only.is_empty());
}

async fn progress_is_told_and_kept(place: Place) {
    let queue = place.open();
    let events = listen(&queue, "q").await;
    let hands = Hands::on(&queue, "q", &["a"], 1).await;
    queue.enqueue("q", job("a", json!({"jobId": "x"}))).await.unwrap();
    let run = hands.begun(&queue);
    assert!(queue.progress(run.token, "40".into()).await.unwrap());
    assert_eq!(field(&queue.job("q", "x").await.unwrap().unwrap(), "progress"), 40);
    assert_eq!(told(&events).pop().unwrap().1["progress"], 40);
}

async fn pages_have_what_runs_next_first_and_the_newest_end_first(place: Place) {
    let queue = place.open();
    for n in 0..5 {
        queue.enqueue("q", job("a", json!({"jobId": format!("done{n}")}))).await.unwrap();
    }
    let hands = Hands::on(&queue, "q", &["a"], 5).await;
    while let Some(run) = hands.taken() {
        queue.complete(run.token, "1".into()).await.unwrap();
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

async fn a_removed_job_is_gone_and_its_outcome_ignored(place: Place) {
    let queue = place.open();
    let hands = Hands::on(&queue, "q", &["a"], 1).await;
    for id in ["x", "y"] {
        queue.enqueue("q", job("a", json!({"jobId": id}))).await.unwrap();
    }
    let run = hands.begun(&queue);
    assert!(queue.remove_job("q", "x").await.unwrap());
    assert!(!queue.remove_job("q", "x").await.unwrap() && !queue.remove_job("nowhere", "x").await.unwrap());
    // Its handler still runs, so the next one has to wait.
    assert!(hands.taken().is_none());
    queue.enqueue("q", job("a", json!({"jobId": "x"}))).await.unwrap();
    assert!(!queue.complete(run.token, "1".into()).await.unwrap());
    assert_eq!(state(&queue, "q", "x").await.as_deref(), Some("waiting"));
    assert_eq!(hands.ids(), ["y"]);
    queue.enqueue("q", job("a", json!({"jobId": "z", "delay": 5}))).await.unwrap();
    assert!(queue.remove_job("q", "z").await.unwrap());
    assert_eq!(queue.counts("q").await.unwrap().get(JobState::Delayed), 0);
}

fn every_minute() -> ScheduleOptions {
    ScheduleOptions::parse("opts", r#"{"repeat":{"pattern":"* * * * *","tz":"UTC"}}"#).unwrap()
}

async fn cron_fires_on_time_and_missed_times_fire_once(place: Place) {
    let queue = place.open();
    let hands = Hands::on(&queue, "q", &["a"], 100).await;
    let id = queue.schedule("q", job("a", json!({"attempts": 2})), every_minute()).await.unwrap();
    let next = async || field(&queue.scheduled("q").await.unwrap()[0], "nextRun");
    assert_eq!(next().await, NEW_YEAR + 60_000);
    place.advance(&queue, 59_999).await;
    assert!(hands.taken().is_none());
    place.advance(&queue, 1).await;
    assert_eq!(hands.ids(), [format!("{id}:{}", NEW_YEAR + 60_000)]);
    place.advance(&queue, 10 * 60_000 + 5).await;
    let run = hands.begun(&queue);
    assert_eq!(field(&run.job, "opts")["attempts"], 2);
    assert!(hands.taken().is_none());
    assert_eq!(next().await, NEW_YEAR + 12 * 60_000);
    assert!(queue.remove_scheduled(&id).await.unwrap() && !queue.remove_scheduled(&id).await.unwrap());
    place.advance(&queue, 60_000).await;
    assert!(hands.taken().is_none() && queue.scheduled("q").await.unwrap().is_empty());
}

async fn a_schedule_ends_at_its_limit(place: Place) {
    let queue = place.open();
    let hands = Hands::on(&queue, "q", &["a"], 100).await;
    let when = ScheduleOptions::parse("opts", r#"{"cron":"*/10 * * * * *","repeat":{"limit":2}}"#).unwrap();
    queue.schedule("q", job("a", json!({})), when).await.unwrap();
    for left in [1, 0, 0] {
        place.advance(&queue, 10_000).await;
        assert_eq!(queue.scheduled("q").await.unwrap().len(), left);
    }
    assert_eq!(hands.ids().len(), 2);
}

async fn scheduling_again_is_one_schedule(place: Place) {
    let queue = place.open();
    let hands = Hands::on(&queue, "q", &["a"], 100).await;
    let named = || job("a", json!({"jobId": "nightly"}));
    assert_eq!(&*queue.schedule("q", named(), every_minute()).await.unwrap(), "nightly");
    place.clock.advance(30_000);
    queue.schedule("q", named(), every_minute()).await.unwrap();
    let (first, second) = (job("a", json!({})), job("a", json!({})));
    let derived = queue.schedule("q", first, every_minute()).await.unwrap();
    assert_eq!(queue.schedule("q", second, every_minute()).await.unwrap(), derived);
    assert_eq!(queue.scheduled("q").await.unwrap().len(), 2);
    assert!(queue.remove_scheduled(&derived).await.unwrap());
    place.advance(&queue, 30_000).await;
    assert_eq!(hands.ids().len(), 1);
    let hourly = ScheduleOptions::parse("opts", r#"{"cron":"0 * * * *","repeat":{"tz":"UTC"}}"#).unwrap();
    queue.schedule("q", named(), hourly).await.unwrap();
    let scheduled = queue.scheduled("q").await.unwrap();
    assert_eq!((scheduled.len(), field(&scheduled[0], "nextRun")), (1, json!(NEW_YEAR + 3_600_000)));
}

async fn a_schedule_with_a_delay_is_one_job(place: Place) {
    let queue = place.open();
    let when = ScheduleOptions::parse("opts", r#"{"delay":1000}"#).unwrap();
    let id = queue.schedule("q", job("a", json!({"jobId": "x"})), when).await.unwrap();
    assert_eq!((&*id, state(&queue, "q", "x").await.as_deref()), ("x", Some("delayed")));
}

async fn closing_gives_back_what_has_not_begun_and_waits_for_the_rest(place: Place) {
    let queue = place.open();
    let hands = Hands::on(&queue, "q", &["a"], 2).await;
    for id in ["begun", "not", "never"] {
        queue.enqueue("q", job("a", json!({"jobId": id}))).await.unwrap();
    }
    let (begun, not) = (hands.begun(&queue), hands.taken().unwrap());
    let closing = queue.close(CLOSE_LIMIT);
    let again = queue.close(CLOSE_LIMIT);
    assert!(queue.complete(begun.token, "1".into()).await.unwrap());
    assert_eq!(closing.await.unwrap(), 0);
    assert_eq!(again.await.unwrap(), 0);
    assert!(!queue.begin(&not) && hands.taken().is_none());
    if place.dir.is_some() {
        let queue = place.open();
        assert_eq!(state(&queue, "q", "begun").await.as_deref(), Some("completed"));
        let given_back = queue.job("q", "not").await.unwrap().unwrap();
        assert_eq!((field(&given_back, "state"), field(&given_back, "attemptsMade")), (json!("waiting"), json!(0)));
        assert_eq!(Hands::on(&queue, "q", &["a"], 2).await.ids(), ["not", "never"]);
    }
}

async fn closing_does_not_wait_for_ever(place: Place) {
    let queue = place.open();
    let hands = Hands::on(&queue, "q", &["a"], 2).await;
    queue.enqueue("q", job("a", json!({"jobId": "x", "attempts": 2}))).await.unwrap();
    let run = hands.begun(&queue);
    assert_eq!(queue.close(Duration::from_millis(1)).await.unwrap(), 1);
    assert!(queue.complete(run.token, "1".into()).await.is_ok_and(|counted| !counted) || place.dir.is_some());
    if place.dir.is_some() {
        let queue = place.open();
        let job = queue.job("q", "x").await.unwrap().unwrap();
        assert_eq!((field(&job, "state"), field(&job, "attemptsMade")), (json!("waiting"), json!(1)));
    }
}

async fn after_close_every_call_says_so(place: Place) {
    let queue = place.open();
    queue.enqueue("q", job("a", json!({}))).await.unwrap();
    queue.close(CLOSE_LIMIT).await.unwrap();
    let errors = [
        queue.open().await.unwrap_err(),
        queue.enqueue("q", job("a", json!({}))).await.unwrap_err(),
        queue.counts("q").await.unwrap_err(),
        queue.on("q", EventKind::Active, Arc::new(Mailbox::new(1, Overflow::DropOldest))).await.unwrap_err(),
        queue.start("q").await.unwrap_err(),
    ];
    assert!(errors.iter().all(|error| error.code() == Code::Closed), "{errors:?}");
}

async fn a_closed_mailbox_gives_its_job_back(place: Place) {
    let queue = place.open();
    let hands = Hands::on(&queue, "q", &["a"], 1).await;
    hands.0.close();
    queue.enqueue("q", job("a", json!({"jobId": "x"}))).await.unwrap();
    assert_eq!(state(&queue, "q", "x").await.as_deref(), Some("waiting"));
    let hands = Hands::on(&queue, "q", &["a"], 1).await;
    assert_eq!(field(&hands.begun(&queue).job, "attemptsMade"), 0);
}

async fn defaults_are_for_options_that_a_job_does_not_have(place: Place) {
    let queue = place.open_with(JobOptions::parse("defaults", r#"{"attempts":4,"backoff":10,"jobId":"no"}"#).unwrap());
    let id = queue.enqueue("q", job("a", json!({"attempts": 2}))).await.unwrap();
    let opts = field(&queue.job("q", &id).await.unwrap().unwrap(), "opts");
    assert_eq!(opts, json!({"attempts": 2, "backoff": {"type": "fixed", "delay": 10}}));
    assert_ne!(&*id, "no");
    let error = queue.enqueue("", job("a", json!({}))).await.unwrap_err();
    assert!(error.code() == Code::Invalid && error.message().starts_with("queue:"));
}

async fn async_workers_run_everything_once(place: Place) {
    let queue = place.open();
    let done = Arc::new(Mailbox::new(10_000, Overflow::DropOldest));
    queue.on("q", EventKind::Completed, done.clone()).await.unwrap();
    let options = WorkerOptions { concurrency: 8, ..WorkerOptions::default() };
    queue.work("q", "a", options, async |run: Run| {
        tokio::task::yield_now().await;
        Ok(field(&run.job, "attemptsMade").to_string().into())
    });
    queue.start("q").await.unwrap();
    let enqueued: Vec<_> = (0..500).map(|n| queue.enqueue("q", job("a", json!({"jobId": n.to_string()})))).collect();
    for op in enqueued {
        op.await.unwrap();
    }
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 500 {
        let Some(Delivery::Item(event)) = done.recv().await else { panic!("an event is missing") };
        assert!(seen.insert(field(&event.payload, "jobId").to_string()), "{event:?} was told twice");
    }
    assert_eq!(queue.close(CLOSE_LIMIT).await.unwrap(), 0);
}

/// What must hold after whatever was done: counts are what pages show, and nobody runs more than allowed.
async fn random_operations_keep_counts_and_states_true(place: Place) {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut queue = place.open();
    let mut hands = Hands::on(&queue, "q", &["a", "b"], 3).await;
    let mut running: Vec<Run> = Vec::new();
    for step in 0..1_500 {
        let some_id = format!("id{}", next(60));
        match next(12) {
            0..=3 => {
                let keep = [json!(true), json!(3), json!(false)];
                let opts = json!({
                    "jobId": some_id, "priority": next(3), "attempts": 1 + next(3), "delay": 50 * (next(3) / 2),
                    "backoff": next(100), "timeout": 100 + next(200), "removeOnComplete": keep.get(next(3) as usize),
                });
                queue.enqueue("q", job(["a", "b", "nobody"][next(3) as usize], opts)).await.unwrap();
            }
            4..=6 if !running.is_empty() => {
                let run = running.swap_remove(next(running.len() as u64) as usize);
                match next(4) {
                    0 => _ = queue.fail(run.token, "no").await.unwrap(),
                    1 => _ = queue.complete(run.token, r#"{"awaiting":true}"#.into()).await.unwrap(),
                    _ => _ = queue.complete(run.token, "1".into()).await.unwrap(),
                }
            }
            7 => _ = queue.remove_job("q", &some_id).await.unwrap(),
            8 => queue.pause("q").await.unwrap(),
            9 => queue.resume("q").await.unwrap(),
            10 if next(8) == 0 && place.dir.is_some() => {
                queue.close(Duration::ZERO).await.unwrap();
                running.clear();
                queue = place.open();
                hands = Hands::on(&queue, "q", &["a", "b"], 3).await;
            }
            _ => place.advance(&queue, next(120)).await,
        }
        while let Some(run) = hands.taken() {
            assert!(queue.begin(&run));
            running.push(run);
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
