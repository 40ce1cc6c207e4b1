//! The contract of queues, as tests over every backend. A backend is added with one line, `queue_conformance!(name, env)`.

pub(crate) mod jobs;
pub(crate) mod lifetime;
pub(crate) mod times;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Handle;

use nvent_native::Code;
use nvent_native::fanout::{Delivery, Mailbox, Overflow};
use nvent_native::queue::{
    CLOSE_TIMEOUT, CancelReason, Cancellation, EventKind, FileQueueOptions, JobCounts, JobDelivery, JobOptions,
    JobState, MemoryQueueOptions, NewJob, Queue, QueueEvent, ScheduleOptions, WorkerOptions, worker_mailbox,
};
use nvent_native::time::{ManualClock, SharedClock, system_clock};

/// 2026-01-01T00:00:00Z.
const NEW_YEAR: u64 = 1_767_225_600_000;

/// Opens queues on the directory of one test, or in memory.
type Open = Box<dyn Fn(JobOptions, SharedClock) -> Queue>;

/// The backend and the clock of one test.
pub(crate) struct Env {
    pub(crate) open: Open,
    /// Whether queues that are opened later have the jobs of earlier ones.
    pub(crate) is_durable: bool,
    clock: Arc<ManualClock>,
    _dir: Option<TempDir>,
}

impl Env {
    pub(crate) fn memory() -> Self {
        let open: Open = Box::new(|default_job_options, clock| {
            Queue::memory(MemoryQueueOptions { default_job_options }, clock, Handle::current())
        });
        Self { open, is_durable: false, clock: ManualClock::at(NEW_YEAR), _dir: None }
    }

    pub(crate) fn file() -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("deep/queue");
        let open: Open = Box::new(move |default_job_options, clock| {
            let options = FileQueueOptions { default_job_options, ..FileQueueOptions::new(&path) };
            Queue::file(options, clock, Handle::current())
        });
        Self { open, is_durable: true, clock: ManualClock::at(NEW_YEAR), _dir: Some(dir) }
    }

    fn open_with(&self, defaults: JobOptions) -> Arc<Queue> {
        Arc::new((self.open)(defaults, self.clock.clone()))
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
struct TestWorker(Arc<Mailbox<JobDelivery>>);

impl TestWorker {
    async fn on(queue: &Queue, name: &str, job_names: &[&str], concurrency: usize) -> Self {
        let worker = Self(worker_mailbox());
        queue.hold_workers(true);
        for job_name in job_names {
            let options = WorkerOptions { concurrency, ..WorkerOptions::default() };
            queue.register_worker(name, job_name, options, worker.0.clone()).await.unwrap();
        }
        queue.hold_workers(false);
        queue.start(name).await.unwrap();
        worker
    }

    /// Takes the job that was delivered. Exact, as deliveries are made before the call that caused them ends.
    fn taken(&self) -> Option<JobDelivery> {
        let mut out = Vec::new();
        self.0.take(1, &mut out);
        match out.pop()? {
            Delivery::Item(delivery) => Some(delivery),
            Delivery::Gap(gap) => panic!("{gap:?}"),
        }
    }

    fn started(&self, queue: &Queue) -> JobDelivery {
        let delivery = self.taken().expect("a job was handed over");
        assert!(queue.start_attempt(&delivery));
        delivery
    }

    fn ids(&self) -> Vec<String> {
        std::iter::from_fn(|| self.taken()).map(|delivery| id(&delivery)).collect()
    }
}

fn field(json: &str, name: &str) -> Value {
    serde_json::from_str::<Value>(json).unwrap()[name].clone()
}

fn id(delivery: &JobDelivery) -> String {
    field(&delivery.job, "id").as_str().unwrap().to_owned()
}

async fn state(queue: &Queue, name: &str, id: &str) -> Option<String> {
    queue.job(name, id).await.unwrap().map(|job| field(&job, "state").as_str().unwrap().to_owned())
}

/// Subscribes one mailbox to every event of a queue.
async fn subscribe(queue: &Queue, name: &str) -> Arc<Mailbox<QueueEvent>> {
    let mailbox = Arc::new(Mailbox::new(10_000, Overflow::DropOldest));
    for kind in EventKind::ALL {
        queue.on(name, kind, mailbox.clone()).await.unwrap();
    }
    mailbox
}

fn drain_events(mailbox: &Mailbox<QueueEvent>) -> Vec<(&'static str, Value)> {
    let mut out = Vec::new();
    mailbox.take(usize::MAX, &mut out);
    let event = |delivery| match delivery {
        Delivery::Item(QueueEvent { kind, payload, .. }) => (kind.as_str(), serde_json::from_str(&payload).unwrap()),
        Delivery::Gap(gap) => panic!("{gap:?}"),
    };
    out.into_iter().map(event).collect()
}

fn cancelled(mailbox: &Mailbox<Cancellation>) -> Vec<(u64, CancelReason)> {
    let mut out = Vec::new();
    mailbox.take(usize::MAX, &mut out);
    let cancellation = |delivery| match delivery {
        Delivery::Item(Cancellation { token, reason }) => (token, reason),
        Delivery::Gap(gap) => panic!("{gap:?}"),
    };
    out.into_iter().map(cancellation).collect()
}

fn kinds(mailbox: &Mailbox<QueueEvent>) -> Vec<&'static str> {
    drain_events(mailbox).into_iter().map(|(kind, _)| kind).collect()
}

/// One test for each behaviour and backend, named after the behaviour.
#[macro_export]
macro_rules! queue_conformance {
    ($backend:ident, $env:path) => {
        mod $backend {
            $crate::queue_behaviours! { jobs, $env:
                an_id_that_is_there_is_not_enqueued_again
                an_awaiting_job_is_removed_and_its_id_free
                jobs_without_priority_run_first_then_lower_numbers_each_in_order
                a_lifo_job_runs_before_those_of_its_priority
                concurrency_is_per_queue_and_exact
                a_worker_runs_by_itself
                workers_that_are_held_wait_for_start
                a_failed_job_is_tried_once_more_when_asked
                a_job_is_not_tried_again_beside_its_last_handler
                ended_jobs_do_not_pile_up
                workers_without_autorun_wait_for_resume
                a_job_whose_name_has_no_worker_waits_and_holds_up_nobody
                a_delayed_job_waits_for_its_time
                attempts_are_made_with_backoff_until_one_succeeds_or_all_failed
                exponential_backoff_doubles
                an_attempt_that_takes_too_long_keeps_its_place_until_its_handler_has_settled
                a_handler_that_ignores_its_timeout_loses_its_place_in_the_end
                a_handler_is_cancelled_when_its_job_is_removed_or_its_queue_closes
                nothing_starts_once_a_queue_is_paused
                a_worker_that_replaces_another_gets_its_jobs
                a_settled_handler_frees_its_place_before_its_outcome_is_committed
                time_runs_only_once_a_handler_has_begun
                only_so_many_ended_jobs_are_kept
                ended_jobs_are_kept_only_so_long
                an_age_of_0_keeps_the_job_that_ended_last
                a_paused_queue_starts_nothing
                events_are_published_for_each_change_in_order
                progress_is_published_and_kept
                pages_have_what_runs_next_first_and_the_newest_end_first
                a_removed_job_is_gone_and_its_outcome_ignored
            }
            $crate::queue_behaviours! { lifetime, $env:
                closing_gives_back_what_has_not_begun_and_waits_for_the_rest
                closing_does_not_wait_for_ever
                jobs_are_enqueued_until_the_last_handler_has_ended
                after_close_every_call_says_so
                a_closed_mailbox_gives_its_job_back
                defaults_are_for_options_that_a_job_does_not_have
                async_workers_run_everything_once
                random_operations_keep_counts_and_states_true
            }
            $crate::queue_behaviours! { times, $env:
                cron_fires_on_time_and_missed_times_fire_once
                a_schedule_ends_at_its_limit
                scheduling_again_is_one_schedule
                a_schedule_with_a_delay_is_one_job
                a_schedule_whose_jobs_would_have_too_long_an_id_is_refused
                a_delayed_job_that_is_due_is_queued_behind_what_waits
                timers_go_off_by_themselves
                nothing_runs_while_nothing_is_due
                schedules_of_several_queues_never_collide
                a_delayed_schedule_is_removed_by_its_id
                a_clock_that_is_set_moves_no_delay
                a_clock_that_is_set_moves_no_timeout
                schedules_follow_a_clock_that_is_set
                what_was_scheduled_while_the_clock_ran_ahead_runs_after_a_restart
            }
        }
    };
}

/// The tests of one module of the suite.
#[macro_export]
macro_rules! queue_behaviours {
    ($module:ident, $env:path: $($behaviour:ident)*) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $behaviour() {
                    $crate::queue_suite::$module::$behaviour($env()).await;
                }
            )*
        }
    };
}
