//! What flow wiring does when its parts fail, hang, are full or are stopped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use nvent_native::bus::Bus;
use nvent_native::error::{Code, Error};
use nvent_native::wiring::Wiring;
use nvent_native::wiring::flow::FlowOptions;
use serde_json::{Value, json};

use crate::process::{Process, Recorded, count, status};
use crate::support::{Fault, Jobs, Ledger};

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_store_loses_nothing_and_keeps_the_order() {
    let (ledger, jobs) = (Ledger::new(), Jobs::new());
    let calls = Mutex::new(HashMap::<String, usize>::new());
    // Of each kind of call two fail, then one succeeds.
    let process = Process::faulty(&ledger, &jobs, move |what| {
        let mut calls = calls.lock().unwrap();
        let n = calls.entry(what.to_owned()).or_default();
        *n += 1;
        match *n % 3 {
            0 => Fault::No,
            _ => Fault::Fail(Error::unavailable("the store is away")),
        }
    })
    .await;
    process.start_run("r1");
    ["check", "pay", "pack", "ship"].iter().for_each(|step| process.work("r1", step));
    process.wiring.idle().await;
    let kinds = ledger.kinds("nq:flow:r1");
    assert_eq!((kinds.len(), kinds[0].as_str(), kinds[12].as_str()), (13, "flow.start", "flow.completed"));
    let steps: Vec<Value> = ledger.events("nq:flow:r1").into_iter().map(|event| event["stepName"].clone()).collect();
    assert_eq!(steps[1..4], [json!("check"), json!("check"), json!("check")]);
    let stats = process.wiring.stats();
    assert!(stats.retries > 0 && stats.lost == 0 && stats.errors == 0, "{stats:?}");
    assert_eq!(status(&ledger, "r1"), "completed");
}

#[tokio::test(start_paused = true)]
async fn an_append_without_an_answer_is_not_repeated() {
    let (ledger, jobs) = (Ledger::new(), Jobs::new());
    // The first answer of each kind is lost, and the second log line does not arrive although it might have.
    let calls = Mutex::new(HashMap::<String, usize>::new());
    let process = Process::faulty(&ledger, &jobs, move |what| {
        let mut calls = calls.lock().unwrap();
        let n = calls.entry(what.to_owned()).or_default();
        *n += 1;
        match (what, *n) {
            ("append log", 2) => Fault::Fail(Error::unavailable("no answer").maybe_applied()),
            (_, 1) if what.starts_with("append") && what != "append log" => Fault::LoseAnswer,
            _ => Fault::No,
        }
    })
    .await;
    let recorded = Recorded::on(&process.bus);
    process.start_run("r1");
    // The same twice is two events.
    process.emit_event("r1", "log", None, json!({ "line": 1 }));
    process.emit_event("r1", "log", None, json!({ "line": 1 }));
    ["check", "pay", "pack", "ship"].iter().for_each(|step| process.work("r1", step));
    process.wiring.idle().await;
    let kinds = ledger.kinds("nq:flow:r1");
    assert_eq!((kinds.len(), count(&kinds, "log"), count(&kinds, "flow.completed")), (15, 2, 1), "{kinds:?}");
    let mut published = recorded.kinds();
    published.sort();
    let mut stored = kinds.clone();
    stored.sort();
    assert_eq!(published, stored);
}

#[tokio::test(start_paused = true)]
async fn a_call_of_a_store_of_ones_own_that_is_never_answered_is_repeated_and_an_append_looked_up() {
    let (ledger, jobs) = (Ledger::new(), Jobs::new());
    let calls = Mutex::new(HashMap::<String, usize>::new());
    let process = Process::faulty(&ledger, &jobs, move |what| {
        let mut calls = calls.lock().unwrap();
        let n = calls.entry(what.to_owned()).or_default();
        *n += 1;
        if *n % 2 == 1 { Fault::Unanswered } else { Fault::No }
    })
    .await;
    process.start_run("r1");
    ["check", "pay", "pack", "ship"].iter().for_each(|step| process.work("r1", step));
    process.wiring.idle().await;
    let kinds = ledger.kinds("nq:flow:r1");
    assert_eq!((kinds.len(), count(&kinds, "flow.start"), count(&kinds, "flow.completed")), (13, 1, 1), "{kinds:?}");
    let stats = process.wiring.stats();
    assert!(stats.retries > 0 && stats.lost == 0 && stats.errors == 0, "{stats:?}");
    assert_eq!(status(&ledger, "r1"), "completed");
}

#[tokio::test]
async fn what_the_store_refuses_is_counted_as_lost_and_the_rest_goes_on() {
    let (ledger, jobs) = (Ledger::new(), Jobs::new());
    let process = Process::faulty(&ledger, &jobs, |what| match what {
        "append log" => Fault::Fail(Error::invalid("not this")),
        _ => Fault::No,
    })
    .await;
    process.start_run("r1");
    process.emit_event("r1", "log", None, json!({}));
    process.work("r1", "check");
    process.wiring.idle().await;
    assert_eq!((process.wiring.stats().lost, process.wiring.stats().persisted), (1, 4));
    assert_eq!(jobs.all().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_away_is_tried_again_and_one_that_refuses_at_the_next_event() {
    let ledger = Ledger::new();
    let jobs = Jobs::with(
        |_| {},
        |call| match call {
            1 => Some(Error::unavailable("the queue is away")),
            3 => Some(Error::invalid("no such queue")),
            _ => None,
        },
    );
    let process = Process::plain(&ledger, &jobs).await;
    process.start_run("r1");
    process.emit_event("r1", "emit", Some("check"), json!({ "name": "order.checked" }));
    process.wiring.idle().await;
    assert_eq!((jobs.ids(), process.wiring.stats().errors), (vec!["r1__pay".to_owned()], 1));
    process.emit_event("r1", "step.completed", Some("check"), json!({}));
    process.wiring.idle().await;
    assert_eq!(jobs.ids(), ["r1__pay", "r1__pack"]);
    assert_eq!(jobs.calls(), 4, "what was enqueued is not enqueued again");
}

#[tokio::test]
async fn a_new_process_goes_on_where_the_old_one_was_killed() {
    let (ledger, lost_jobs) = (Ledger::new(), Jobs::new());
    let old = Process::faulty(&ledger, &lost_jobs, |what| match what {
        "append flow.completed" => Fault::Fail(Error::new(Code::Closed, "killed")),
        _ => Fault::No,
    })
    .await;
    for run in ["waits", "works", "is done"] {
        old.start_run(run);
        old.work(run, "check");
    }
    old.emit_event("works", "step.started", Some("pay"), json!({}));
    ["pay", "pack", "ship"].iter().for_each(|step| old.work("is done", step));
    old.wiring.idle().await;
    drop(old);
    assert_eq!(status(&ledger, "is done"), "running");

    let jobs = Jobs::new();
    let new = Process::plain(&ledger, &jobs).await;
    new.wiring.idle().await;
    let mut ids = jobs.ids();
    ids.sort();
    assert_eq!(ids, ["waits__pack", "waits__pay", "works__pack"]);
    assert_eq!((status(&ledger, "is done"), new.wiring.stats().completed), (json!("completed"), 1));
}

#[tokio::test]
async fn stop_finishes_what_was_received_and_a_later_start_goes_on() {
    let (ledger, jobs) = (Ledger::new(), Jobs::new());
    let process = Process::plain(&ledger, &jobs).await;
    process.start_run("r1");
    process.work("r1", "check");
    let (first, second) = (process.wiring.stop(), process.wiring.stop());
    process.start_run("r2");
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!((ledger.kinds("nq:flow:r1").len(), ledger.kinds("nq:flow:r2").len()), (4, 0));
    assert!(process.bus.is_empty());
    process.wiring.start().await.unwrap();
    process.wiring.start().await.unwrap();
    process.work("r1", "pay");
    process.wiring.idle().await;
    assert_eq!(ledger.kinds("nq:flow:r1").len(), 7);
}

#[tokio::test(start_paused = true)]
async fn stop_ends_at_its_deadline_when_the_store_hangs() {
    let (ledger, jobs) = (Ledger::new(), Jobs::new());
    let process = Process::faulty(&ledger, &jobs, |what| match what.starts_with("append") {
        true => Fault::Hang,
        false => Fault::No,
    })
    .await;
    process.start_run("r1");
    process.start_run("r2");
    process.emit_event("r2", "log", None, json!({}));
    let before = tokio::time::Instant::now();
    process.wiring.stop().await.unwrap();
    assert_eq!(before.elapsed().as_secs(), 5);
    let stats = process.wiring.stats();
    assert_eq!((stats.lost, stats.lag), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_start_after_a_stop_that_cancelled_its_work_goes_on() {
    let (ledger, jobs) = (Ledger::new(), Jobs::new());
    let hangs = Arc::new(AtomicBool::new(true));
    let process = Process::faulty(&ledger, &jobs, {
        let hangs = hangs.clone();
        move |what| match what.starts_with("append") && hangs.load(Ordering::SeqCst) {
            true => Fault::Hang,
            false => Fault::No,
        }
    })
    .await;
    process.start_run("r1");
    process.wiring.stop().await.unwrap();
    assert_eq!(process.wiring.stats().lost, 1);
    hangs.store(false, Ordering::SeqCst);
    process.wiring.start().await.unwrap();
    process.start_run("r2");
    process.work("r2", "check");
    process.wiring.idle().await;
    assert_eq!((status(&ledger, "r2"), process.wiring.stats().lost), (json!("running"), 1));
    assert_eq!(jobs.ids(), ["r2__pay", "r2__pack"]);
}

#[tokio::test]
async fn wiring_that_is_dropped_leaves_the_bus() {
    let (ledger, jobs) = (Ledger::new(), Jobs::new());
    let Process { bus, wiring } = Process::plain(&ledger, &jobs).await;
    assert!(!bus.is_empty());
    drop(wiring);
    assert!(bus.is_empty());
}

#[tokio::test]
async fn events_beyond_the_bound_are_dropped_and_counted() {
    let (ledger, jobs, bus) = (Ledger::new(), Jobs::new(), Bus::new());
    let options = FlowOptions { max_ingress: 2, ..FlowOptions::default() };
    let process = Process::start(bus.clone(), ledger.announcing(&bus), &jobs, true, options).await;
    (0..5).for_each(|_| process.start_run("r1"));
    assert_eq!((process.wiring.stats().lag, process.wiring.stats().lost), (2, 3));
    process.wiring.idle().await;
    assert_eq!((process.wiring.stats().lag, process.wiring.stats().persisted), (0, 2));
}
