//! What flow wiring persists, triggers and ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nvent_native::bus::Bus;
use nvent_native::error::{Code, Error};
use nvent_native::event::{Event, NewEvent};
use nvent_native::json::{Json, Object, parse_object, update_metadata};
use nvent_native::op::Op;
use nvent_native::store::{IndexEntry, IndexQuery};
use nvent_native::wiring::flow::{FlowOptions, FlowParts, FlowStore, FlowWiring};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::process::{FLOWS, Process, Recorded, count, event, publish, status, work};
use crate::support::{Fault, Jobs, Ledger, announce};

#[tokio::test]
async fn an_order_goes_through_fan_out_and_join_to_its_end() {
    let (ledger, jobs) = (Ledger::new(), Jobs::new());
    let process = Process::plain(&ledger, &jobs).await;
    process.start_run("r1");
    process.work("r1", "check");
    process.wiring.idle().await;
    assert_eq!(jobs.ids(), ["r1__pay", "r1__pack"]);
    assert_eq!(jobs.all()[0].queue, "money");
    process.work("r1", "pack");
    process.wiring.idle().await;
    assert_eq!((jobs.all().len(), status(&ledger, "r1")), (2, json!("running")));
    process.work("r1", "pay");
    process.wiring.idle().await;
    let ship = &jobs.all()[2];
    assert_eq!((ship.queue.as_str(), ship.name.as_str(), ship.id.as_str()), ("ship", "ship", "r1__ship"));
    let input = json!({ "order.packed": { "by": "pack" }, "order.paid": { "by": "pay" } });
    assert_eq!(Value::Object(ship.data.clone()), json!({ "flowId": "r1", "flowName": "order", "input": input }));
    process.work("r1", "ship");
    process.wiring.idle().await;

    let kinds = ledger.kinds("nq:flow:r1");
    assert_eq!((kinds.len(), kinds.last().unwrap().as_str()), (13, "flow.completed"));
    let (score, metadata) = ledger.entry("nq:flows:order", "r1").unwrap();
    assert_eq!(score, 1000.0);
    assert_eq!(metadata["status"], "completed");
    assert_eq!((&metadata["stepCount"], &metadata["completedSteps"]), (&json!(4), &json!(4)));
    assert_eq!((&metadata["startedAt"], &metadata["completedAt"]), (&json!(1000), &json!(1000)));
    assert_eq!(metadata["emittedEvents"]["order"].as_object().unwrap().len(), 3);
    let stats = process.wiring.stats();
    assert_eq!((stats.persisted, stats.triggered, stats.completed, stats.failed), (12, 3, 1, 0));
    assert_eq!((stats.lag, stats.lost, stats.errors), (0, 0, 0));
}

#[tokio::test]
async fn every_persisted_event_passes_the_bus_once_whoever_announces_it() {
    for announces in [true, false] {
        let (ledger, jobs, bus) = (Ledger::new(), Jobs::new(), Bus::new());
        let recorded = Recorded::on(&bus);
        let store = ledger.view(announces.then(|| announce(&bus)), |_| Fault::No);
        let process = Process::start(bus, store, &jobs, announces, FlowOptions::default()).await;
        process.start_run("r1");
        ["check", "pay", "pack", "ship"].iter().for_each(|step| process.work("r1", step));
        process.wiring.idle().await;
        assert_eq!(recorded.kinds(), ledger.kinds("nq:flow:r1"), "announces: {announces}");
        assert_eq!(count(&recorded.kinds(), "flow.completed"), 1);
    }
}

#[tokio::test]
async fn only_events_of_runs_are_persisted() {
    let (ledger, jobs) = (Ledger::new(), Jobs::new());
    let process = Process::plain(&ledger, &jobs).await;
    publish(&process.bus, json!({ "type": "flow.start", "flowName": "order" }));
    publish(&process.bus, json!({ "type": "flow.start", "runId": "", "flowName": "order" }));
    publish(&process.bus, json!({ "type": "noted", "runId": "r1", "extra": { "kept": [1] } }));
    process.wiring.idle().await;
    let events = ledger.events("nq:flow:r1");
    assert_eq!((events.len(), &events[0]["extra"]), (1, &json!({ "kept": [1] })));
    assert_eq!(process.wiring.stats().persisted, 1);
    assert_eq!(ledger.entry("nq:flows:order", "r1"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_runs_interleave_and_each_ends_once() {
    const RUNS: usize = 300;
    let (ledger, bus) = (Ledger::new(), Bus::new());
    let jobs = Jobs::with(
        {
            let bus = bus.clone();
            move |job| work(&bus, job.data["flowId"].as_str().unwrap(), &job.name)
        },
        |_| None,
    );
    // Fewer states than runs, so that some are folded anew.
    let options = FlowOptions { max_idle: 20, ..FlowOptions::default() };
    let process = Process::start(bus.clone(), ledger.announcing(&bus), &jobs, true, options).await;
    let names: Vec<String> = (0..RUNS).map(|i| format!("run-{i}")).collect();
    names.iter().for_each(|run| process.start_run(run));
    for kind in ["step.started", "emit", "step.completed"] {
        let data = json!({ "name": "order.checked", "payload": 1 });
        names.iter().for_each(|run| process.emit_event(run, kind, Some("check"), data.clone()));
    }
    process.wiring.idle().await;
    for run in &names {
        let subject = format!("nq:flow:{run}");
        let events = ledger.events(&subject);
        let of_check: Vec<&Value> = events.iter().filter(|e| e["stepName"] == "check").map(|e| &e["type"]).collect();
        assert_eq!(of_check, ["step.started", "emit", "step.completed"], "{run}");
        let kinds = ledger.kinds(&subject);
        assert_eq!((kinds.len(), count(&kinds, "flow.completed")), (13, 1), "{run}: {kinds:?}");
        assert_eq!(status(&ledger, run), "completed", "{run}");
    }
    assert_eq!(jobs.all().len(), 3 * RUNS);
    assert_eq!(process.wiring.stats().completed, RUNS as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_share_a_store_agree_on_one_end() {
    let (ledger, jobs) = (Ledger::new(), Jobs::new());
    let (a, b) = (Process::plain(&ledger, &jobs).await, Process::plain(&ledger, &jobs).await);
    for i in 0..100 {
        let run = format!("run-{i}");
        a.start_run(&run);
        a.work(&run, "check");
        a.wiring.idle().await;
        a.work(&run, "pay");
        b.work(&run, "pack");
        a.wiring.idle().await;
        b.wiring.idle().await;
        // Both see the last event at the same time.
        let (first, second) =
            (event(&run, "step.completed", Some("ship"), json!({})), json!({ "type": "log", "runId": run }));
        publish(&a.bus, first);
        publish(&b.bus, second);
        a.wiring.idle().await;
        b.wiring.idle().await;
        let kinds = ledger.kinds(&format!("nq:flow:{run}"));
        assert_eq!(count(&kinds, "flow.completed"), 1, "{kinds:?}");
        assert_eq!(status(&ledger, &run), "completed");
    }
    assert_eq!(jobs.all().len(), 300);
    assert_eq!(a.wiring.stats().completed + b.wiring.stats().completed, 100);
}

#[tokio::test]
async fn what_another_process_stores_meanwhile_is_not_overlooked() {
    let (ledger, jobs, bus) = (Ledger::new(), Jobs::new(), Bus::new());
    let elsewhere = ledger.view(None, |_| Fault::No);
    let once = AtomicBool::new(true);
    // Between our reading the log and our writing the index another process cancels the run.
    let store = ledger.view(Some(announce(&bus)), move |what| {
        if what == "index_update" && once.swap(false, Ordering::Relaxed) {
            let cancel = NewEvent::parse(&event("r1", "flow.cancel", None, json!({})).to_string()).unwrap();
            drop(elsewhere.append("nq:flow:r1", cancel, None));
        }
        Fault::No
    });
    let process = Process::start(bus, store, &jobs, true, FlowOptions::default()).await;
    process.start_run("r1");
    process.wiring.idle().await;
    assert_eq!(status(&ledger, "r1"), "canceled");
}

#[tokio::test]
async fn what_an_application_appends_itself_counts_as_well() {
    let (ledger, jobs, bus) = (Ledger::new(), Jobs::new(), Bus::new());
    let store = ledger.announcing(&bus);
    let process = Process::start(bus.clone(), store.clone(), &jobs, true, FlowOptions::default()).await;
    let append = |event: Value| store.append("nq:flow:r1", NewEvent::parse(&event.to_string()).unwrap(), None);
    append(event("r1", "flow.start", None, json!({}))).await.unwrap();
    process.wiring.idle().await;
    // Where it is stored says which run it belongs to.
    append(json!({ "type": "emit", "runId": "r2", "data": { "name": "order.checked" } })).await.unwrap();
    process.wiring.idle().await;
    assert_eq!(jobs.ids(), ["r1__pay", "r1__pack"]);
    assert_eq!((process.wiring.stats().persisted, status(&ledger, "r1")), (0, json!("running")));
}

#[tokio::test]
async fn persisted_events_of_other_subjects_are_ignored() {
    let (ledger, jobs, bus) = (Ledger::new(), Jobs::new(), Bus::new());
    let store = ledger.announcing(&bus);
    let process = Process::start(bus.clone(), store.clone(), &jobs, true, FlowOptions::default()).await;
    let start = NewEvent::parse(&event("r1", "flow.start", None, json!({})).to_string()).unwrap();
    store.append("audit:r1", start, None).await.unwrap();
    process.wiring.idle().await;
    assert_eq!(ledger.entry("nq:flows:order", "r1"), None);
}

#[tokio::test]
async fn a_canceled_run_triggers_nothing_more() {
    let (ledger, jobs) = (Ledger::new(), Jobs::new());
    let process = Process::plain(&ledger, &jobs).await;
    process.start_run("r1");
    process.emit_event("r1", "flow.cancel", None, json!({}));
    process.work("r1", "check");
    process.wiring.idle().await;
    assert_eq!((status(&ledger, "r1"), jobs.calls()), (json!("canceled"), 0));
    let kinds = ledger.kinds("nq:flow:r1");
    assert_eq!((kinds.len(), count(&kinds, "flow.completed")), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn a_failure_ends_the_run_once_no_retry_has_followed() {
    let (ledger, jobs) = (Ledger::new(), Jobs::new());
    let process = Process::plain(&ledger, &jobs).await;
    for run in ["retried", "failed"] {
        process.start_run(run);
        process.emit_event(run, "step.failed", Some("check"), json!({ "error": "no stock" }));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    process.emit_event("retried", "step.retry", Some("check"), json!({}));
    process.wiring.idle().await;
    assert_eq!((status(&ledger, "retried"), status(&ledger, "failed")), (json!("running"), json!("failed")));
    let failed = ledger.events("nq:flow:failed").pop().unwrap();
    assert_eq!(
        (&failed["type"], &failed["data"]),
        (&json!("flow.failed"), &json!({ "stepName": "check", "error": "no stock" }))
    );
    process.work("retried", "check");
    process.wiring.idle().await;
    assert_eq!(jobs.ids(), ["retried__pay", "retried__pack"]);
    assert_eq!(process.wiring.stats().failed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_replaces_another_is_waited_for_from_its_own_time_on() {
    let (ledger, jobs) = (Ledger::new(), Jobs::new());
    let process = Process::plain(&ledger, &jobs).await;
    process.start_run("r1");
    process.emit_event("r1", "step.failed", Some("check"), json!({ "error": "no stock" }));
    tokio::time::sleep(Duration::from_millis(400)).await;
    process.emit_event("r1", "step.failed", Some("check"), json!({ "error": "no answer" }));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(status(&ledger, "r1"), json!("running"), "the delay of the first is over, that of the second is not");
    process.wiring.idle().await;
    assert_eq!(
        ledger.events("nq:flow:r1").pop().unwrap()["data"],
        json!({ "stepName": "check", "error": "no answer" })
    );
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_says_it_is_final_ends_the_run_at_once() {
    let (ledger, jobs) = (Ledger::new(), Jobs::new());
    let process = Process::plain(&ledger, &jobs).await;
    let before = tokio::time::Instant::now();
    process.start_run("r1");
    process.emit_event("r1", "step.failed", Some("check"), json!({ "willRetry": false }));
    process.wiring.idle().await;
    assert_eq!((status(&ledger, "r1"), before.elapsed()), (json!("failed"), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn an_emit_that_comes_after_its_step_was_done_is_not_too_late() {
    let (ledger, jobs) = (Ledger::new(), Jobs::new());
    let process = Process::plain(&ledger, &jobs).await;
    process.start_run("r1");
    process.emit_event("r1", "step.completed", Some("check"), json!({}));
    tokio::time::sleep(Duration::from_millis(100)).await;
    process.emit_event("r1", "emit", Some("check"), json!({ "name": "order.checked" }));
    process.wiring.idle().await;
    assert_eq!((status(&ledger, "r1"), jobs.all().len()), (json!("running"), 2));
}

#[tokio::test]
async fn a_flow_that_is_defined_later_takes_up_its_runs() {
    let (ledger, jobs) = (Ledger::new(), Jobs::new());
    let process = Process::plain(&ledger, &jobs).await;
    process.wiring.set_flows("[]").unwrap();
    process.start_run("r1");
    process.work("r1", "check");
    process.wiring.idle().await;
    assert_eq!((jobs.all().len(), status(&ledger, "r1")), (0, json!("running")));
    process.wiring.set_flows(FLOWS).unwrap();
    process.wiring.idle().await;
    assert_eq!(jobs.ids(), ["r1__pay", "r1__pack"]);
}

/// A store that is not ours: it gives ids of its own and ignores `after`.
#[derive(Default)]
struct Foreign {
    log: Mutex<Vec<Event>>,
    index: Mutex<Option<Object>>,
    /// What every page of an index is. None: it cannot be read.
    page: Option<Vec<IndexEntry>>,
}

impl FlowStore for Foreign {
    fn append(&self, _subject: &str, event: NewEvent, _after: Option<&str>) -> Op<Event> {
        let mut log = self.log.lock().unwrap();
        let mut record = parse_object("event", event.json()).unwrap();
        record.insert("id".into(), format!("event-{}", log.len()).into());
        record.insert("ts".into(), 5.into());
        log.push(Event::parse(&Value::Object(record).to_string()).unwrap());
        Op::ok(log[log.len() - 1].clone())
    }

    fn read(&self, _subject: &str, _after: Option<&str>) -> Op<Vec<Json>> {
        Op::ok(self.log.lock().unwrap().iter().map(|event| event.json().clone()).collect())
    }

    fn index_add(&self, _key: &str, _id: &str, _score: f64, metadata: Object) -> Op<()> {
        *self.index.lock().unwrap() = Some(metadata);
        Op::ok(())
    }

    fn index_update(&self, _key: &str, _id: &str, patch: Object) -> Op<bool> {
        Op::ok(self.index.lock().unwrap().as_mut().is_some_and(|metadata| update_metadata(metadata, patch, None)))
    }

    fn index_read(&self, _key: &str, _query: IndexQuery) -> Op<Vec<IndexEntry>> {
        Op::Ready(self.page.clone().ok_or_else(|| Error::invalid("no such method")))
    }
}

#[tokio::test]
async fn a_store_that_takes_no_notice_of_an_offset_ends_recovery_all_the_same() {
    let entry = |id: String| IndexEntry { id: id.into(), score: 1.0, metadata: "{}".into() };
    // More than a page, and one that has no id.
    let page = (0..12_000).map(|n| entry(format!("r{n}"))).chain([entry(String::new())]).collect();
    let (store, jobs) = (Arc::new(Foreign { page: Some(page), ..Foreign::default() }), Jobs::new());
    let process = Process::start(Bus::new(), store, &jobs, false, FlowOptions::default()).await;
    process.wiring.idle().await;
    assert_eq!(process.wiring.stats().errors, 0);
}

#[tokio::test]
async fn a_store_with_ids_of_its_own_works() {
    let (store, jobs, bus) = (Arc::new(Foreign::default()), Jobs::new(), Bus::new());
    let recorded = Recorded::on(&bus);
    let process = Process::start(bus, store.clone(), &jobs, false, FlowOptions::default()).await;
    process.start_run("r1");
    for step in ["check", "pay", "pack", "ship"] {
        process.work("r1", step);
        process.wiring.idle().await;
    }
    assert_eq!(jobs.ids(), ["r1__pay", "r1__pack", "r1__ship"]);
    assert_eq!((recorded.kinds().len(), count(&recorded.kinds(), "flow.completed")), (13, 1));
    let metadata = store.index.lock().unwrap().clone().unwrap();
    assert_eq!((&metadata["status"], &metadata["completedSteps"]), (&json!("completed"), &json!(4)));
    assert_eq!((jobs.calls(), process.wiring.stats().errors), (3, 1), "only the search for old runs failed");
}

#[tokio::test]
async fn subjects_of_ones_own_are_used_for_runs_and_index() {
    let (ledger, jobs, bus) = (Ledger::new(), Jobs::new(), Bus::new());
    let options = FlowOptions {
        run_subject: "app:flow:run:{runId}".into(),
        run_index: "app:flow:runs:{flowName}".into(),
        ..FlowOptions::default()
    };
    let process = Process::start(bus.clone(), ledger.announcing(&bus), &jobs, true, options).await;
    process.start_run("r1");
    process.wiring.idle().await;
    assert_eq!(ledger.kinds("app:flow:run:r1"), ["flow.start"]);
    assert!(ledger.entry("app:flow:runs:order", "r1").is_some());
}

#[tokio::test]
async fn subjects_that_cannot_work_are_refused() {
    for (run, index, place) in [
        ("nq:flow", "nq:flows", "subjects.run"),
        ("nq:{runId}:{stepName}", "nq:flows", "subjects.run"),
        ("nq:{runId}", "nq:{runId}", "subjects.runIndex"),
        ("nq:{runId", "nq", "subjects.run"),
    ] {
        let (bus, ledger) = (Bus::new(), Ledger::new());
        let options = FlowOptions { run_subject: run.into(), run_index: index.into(), ..FlowOptions::default() };
        let parts = FlowParts {
            announce: announce(&bus),
            store: ledger.announcing(&bus),
            bus,
            store_announces: true,
            queue: None,
        };
        let error = FlowWiring::new(parts, &options, Handle::current()).err().unwrap();
        assert!(error.code() == Code::Invalid && error.message().contains(place), "{error}");
    }
}
