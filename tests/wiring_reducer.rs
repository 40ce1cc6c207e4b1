//! The logic of a run as tables: these events, then this is to be done.

use nvent_native::wiring::flow::definition::{FlowDefinition, MAX_EMIT_DOTS, parse_flows};
use nvent_native::wiring::flow::reducer::{Decision, Outcome, RunState, Status};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Returns the record of `start`, `cancel`, `completed`, `emit x`, `started a`, `done a`, `failed a`, `retry a`, `log`.
fn record(id: usize, text: &str) -> Value {
    let (kind, name) = text.split_once(' ').unwrap_or((text, ""));
    let base = |kind: &str| json!({ "id": format!("{id}-0"), "ts": id, "type": kind, "runId": "r", "flowName": "f" });
    let with = |mut event: Value, more: Value| {
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    match kind {
        "start" | "cancel" | "completed" => base(&format!("flow.{kind}")),
        "log" => base("log"),
        "emit" => with(
            base("emit"),
            json!({ "stepName": "s", "data": { "name": name, "payload": { "of": name, "at": id } } }),
        ),
        "started" | "retry" => with(base(&format!("step.{kind}")), json!({ "stepName": name })),
        "done" => with(base("step.completed"), json!({ "stepName": name, "data": { "result": 1 } })),
        "failed" => {
            with(base("step.failed"), json!({ "stepName": name, "data": { "error": format!("{name} broke") } }))
        }
        other => panic!("no event {other:?}"),
    }
}

fn fold(events: &[&str]) -> RunState {
    let mut state = RunState::default();
    events.iter().enumerate().for_each(|(i, text)| state.fold(&record(i + 1, text).to_string()).unwrap());
    state
}

/// Returns an order flow: a fan-out, a join, and a step that waits for a step.
fn order() -> std::sync::Arc<FlowDefinition> {
    flow(json!({
        "id": "f", "entry": { "step": "check", "emits": ["checked"] },
        "steps": {
            "pay": { "subscribes": ["checked"], "emits": ["paid"], "queue": "money" },
            "pack": { "subscribes": ["checked"], "emits": ["packed"] },
            "ship": { "subscribes": ["packed", "paid"] },
            "thank": { "subscribes": ["step:ship"] },
        }
    }))
}

fn flow(definition: Value) -> std::sync::Arc<FlowDefinition> {
    parse_flows(&json!([definition]).to_string()).unwrap().into_values().next().unwrap()
}

/// Returns the decision in short: steps to enqueue, then `completed`, `failed:<step>`, or nothing.
fn decide(flow: &FlowDefinition, events: &[&str]) -> String {
    short(&fold(events).decide("r", flow))
}

fn short(decision: &Decision) -> String {
    let mut words: Vec<String> = decision.triggers.iter().map(|trigger| trigger.step.to_string()).collect();
    match &decision.outcome {
        Some(Outcome::Completed { .. }) => words.push("completed".into()),
        Some(Outcome::Failed { step, .. }) => words.push(format!("failed:{step}")),
        None => {}
    }
    words.join(" ")
}

#[track_caller]
fn table(flow: &FlowDefinition, rows: &[(&str, &[&str], &str)]) {
    for (what, events, expected) in rows {
        assert_eq!(decide(flow, events), *expected, "{what}: {events:?}");
    }
}

#[test]
fn steps_are_triggered_when_everything_they_wait_for_is_there() {
    table(
        &order(),
        &[
            ("the entry step is not ours", &["start"], ""),
            ("fan-out, in the order of the definition", &["start", "started check", "emit checked"], "pay pack"),
            ("what has been seen is not triggered again", &["start", "emit checked", "started pay"], "pack"),
            ("a join waits", &["start", "emit checked", "done check", "done pay", "emit paid", "started pack"], ""),
            (
                "a join goes on",
                &["start", "emit checked", "done check", "emit paid", "done pay", "emit packed", "done pack"],
                "ship",
            ),
            (
                "the order of emits does not matter",
                &["emit packed", "emit paid", "start", "done check", "done pay", "done pack"],
                "ship",
            ),
            ("a step is waited for by name", &["start", "done check", "done pay", "done pack", "done ship"], "thank"),
            ("an emit without subscriptions", &["start", "emit noise"], ""),
        ],
    );
}

#[test]
fn a_run_completes_when_everything_triggered_is_done() {
    let all = [
        "start",
        "emit checked",
        "done check",
        "emit paid",
        "done pay",
        "emit packed",
        "done pack",
        "done ship",
        "done thank",
    ];
    table(
        &order(),
        &[
            ("all done", &all, "completed"),
            (
                "duplicates change nothing",
                &[&all[..], &["done thank", "started pay", "failed pay"]].concat(),
                "completed",
            ),
            ("a completion is final", &[&all[..], &["failed thank"]].concat(), "completed"),
            ("one is under way", &[&all[..8], &["started thank"]].concat(), ""),
            ("a branch that was not taken", &["start", "started check", "done check"], "completed"),
            ("before anything happened", &[], ""),
            ("a log line makes no run", &["log"], ""),
        ],
    );
}

#[test]
fn a_name_with_more_dots_than_a_run_can_keep_is_refused_where_it_is_subscribed_to() {
    let with = |dots: usize| {
        let name = vec!["x"; dots + 1].join(".");
        parse_flows(&json!([{ "id": "f", "steps": { "a": { "subscribes": [name] } } }]).to_string())
    };
    assert!(with(MAX_EMIT_DOTS).is_ok());
    let error = with(MAX_EMIT_DOTS + 1).unwrap_err();
    assert!(error.message().contains("flows[0].steps.a.subscribes[0]"), "{error}");
}

#[test]
fn no_step_of_a_run_that_has_ended_is_open() {
    let order = order();
    let is_open = |events: &[&str], step: &str| fold(events).is_open(&order, order.step(step).unwrap());
    let under_way = ["start", "emit checked", "done check", "started pay"];
    assert!(is_open(&under_way, "pay") && is_open(&under_way, "pack"));
    assert!(!is_open(&under_way, "check") && !is_open(&under_way, "ship"));
    let canceled = [&under_way[..], &["cancel"]].concat();
    assert!(!is_open(&canceled, "pay") && !is_open(&canceled, "pack"));
}

#[test]
fn the_flow_of_a_run_is_that_of_its_first_event_until_it_is_started() {
    let event = |id: usize, kind: &str, flow: &str| json!({ "id": format!("{id}-0"), "ts": id, "type": kind, "runId": "r", "flowName": flow, "stepName": "s" });
    let mut state = RunState::default();
    for (id, kind, flow, expected) in [
        (1, "step.started", "early", "early"),
        (2, "step.completed", "late", "early"),
        (3, "flow.start", "own", "own"),
        (4, "step.started", "other", "own"),
    ] {
        state.fold(&event(id, kind, flow).to_string()).unwrap();
        assert_eq!(&**state.flow_name().unwrap(), expected, "after event {id}");
    }
}

#[test]
fn a_snapshot_has_what_was_emitted_and_how_often_the_run_was_retried() {
    let retry = json!({ "id": "9-0", "ts": 9, "type": "flow.retry", "runId": "r", "flowName": "f" });
    let mut state = fold(&["start", "emit checked", "done check", "failed pay"]);
    let failed = json!({ "id": "8-0", "ts": 8, "type": "flow.failed", "runId": "r", "flowName": "f" });
    state.fold(&failed.to_string()).unwrap();
    state.fold(&retry.to_string()).unwrap();
    let snapshot = state.snapshot(Some(&order()));
    assert_eq!(snapshot["emits"], json!({ "checked": { "ts": 2, "payload": { "of": "checked", "at": 2 } } }));
    assert_eq!(snapshot["retries"], 1);
}

#[test]
fn a_record_that_is_nested_too_deeply_is_an_error() {
    let deep = format!(r#"{{"id":"2-0","ts":2,"type":"log","data":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let mut state = fold(&["start"]);
    assert!(state.fold(&deep).is_err());
    assert!(!state.has_seen("2-0"));
}

#[test]
fn a_run_waits_for_what_may_come_from_outside() {
    let approval = flow(json!({
        "id": "f", "entry": { "step": "ask", "emits": ["asked"] },
        "steps": { "act": { "subscribes": ["approved"], "emits": ["acted"] }, "notify": { "subscribes": ["acted"] }, "skip": { "subscribes": ["refused", "asked"] } }
    }));
    table(
        &approval,
        &[
            ("no step of the flow emits it", &["start", "done ask"], ""),
            ("it came", &["start", "done ask", "emit approved"], "act"),
            ("it came early", &["emit approved", "start"], "act"),
            ("the other one may still come", &["start", "emit asked", "done ask", "emit approved", "done act"], ""),
            ("nor can the other one", &["start", "done ask", "emit approved", "done act"], "completed"),
        ],
    );
}

#[test]
fn a_failure_ends_a_run_only_when_it_blocks_and_all_else_is_quiet() {
    table(
        &order(),
        &[
            ("the entry step failed", &["start", "started check", "failed check"], "failed:check"),
            ("another branch goes on", &["start", "emit checked", "done check", "failed pay", "started pack"], ""),
            ("another branch is still to go on", &["start", "emit checked", "done check", "failed pay"], "pack"),
            (
                "until it is quiet",
                &["start", "emit checked", "done check", "failed pay", "emit packed", "done pack"],
                "failed:pay",
            ),
            (
                "it had given what was waited for",
                &[
                    "start",
                    "emit checked",
                    "done check",
                    "emit paid",
                    "failed pay",
                    "emit packed",
                    "done pack",
                    "done ship",
                    "done thank",
                ],
                "completed",
            ),
            (
                "the last step failed",
                &[
                    "start",
                    "emit checked",
                    "done check",
                    "emit paid",
                    "done pay",
                    "emit packed",
                    "done pack",
                    "done ship",
                    "failed thank",
                ],
                "failed:thank",
            ),
        ],
    );
}

#[test]
fn a_last_step_that_fails_is_made_up_for_by_a_sibling() {
    let notify = flow(json!({
        "id": "f", "entry": { "step": "a", "emits": ["x", "y"] },
        "steps": { "mail": { "subscribes": ["x"] }, "sms": { "subscribes": ["y"] } }
    }));
    let before = ["start", "emit x", "emit y", "done a"];
    let after = |more: [&'static str; 2]| [&before[..], &more].concat();
    table(
        &notify,
        &[
            ("one of two", &after(["failed mail", "done sms"]), "completed"),
            ("both", &after(["failed mail", "failed sms"]), "failed:mail"),
        ],
    );
}

#[test]
fn a_retry_is_no_failure() {
    table(
        &order(),
        &[
            ("retried", &["start", "failed check", "retry check"], ""),
            ("retried and started again", &["start", "failed check", "retry check", "started check"], ""),
            ("started again", &["start", "failed check", "started check"], ""),
            ("retried to no avail", &["start", "retry check", "failed check"], "failed:check"),
            (
                "twice",
                &["start", "failed check", "retry check", "failed check", "retry check", "emit checked"],
                "pay pack",
            ),
            (
                "it went well in the end",
                &["start", "failed check", "retry check", "emit checked", "done check"],
                "pay pack",
            ),
        ],
    );
}

#[test]
fn an_event_may_say_itself_whether_a_retry_follows() {
    let said = |will_retry: bool| {
        let mut state = fold(&["start"]);
        let event = json!({ "id": "9-0", "ts": 9, "type": "step.failed", "stepName": "check", "data": { "willRetry": will_retry } });
        state.fold(&event.to_string()).unwrap();
        state.decide("r", &order()).outcome
    };
    assert_eq!(said(true), None);
    assert!(matches!(said(false), Some(Outcome::Failed { certain: true, .. })));
}

#[test]
fn a_completion_is_certain_when_no_step_was_left_out() {
    let outcome = |events: &[&str]| fold(events).decide("r", &order()).outcome;
    assert_eq!(outcome(&["start", "done check"]), Some(Outcome::Completed { certain: false }));
    let all = ["start", "done check", "done pay", "done pack", "done ship", "done thank"];
    assert_eq!(outcome(&all), Some(Outcome::Completed { certain: true }));
}

#[test]
fn a_run_that_is_over_stays_over() {
    for (end, status) in [("cancel", Status::Canceled), ("completed", Status::Completed)] {
        let mut state = fold(&["start", "emit checked", end]);
        let at_the_end = state.metadata(None);
        for (i, late) in ["started check", "done check", "emit paid", "start", "cancel"].iter().enumerate() {
            state.fold(&record(10 + i, late).to_string()).unwrap();
            assert_eq!(short(&state.decide("r", &order())), "", "{late} after {end}");
        }
        assert_eq!((state.status(), state.metadata(None)), (status, at_the_end));
    }
}

#[test]
fn without_an_entry_the_steps_that_wait_for_nothing_are_the_entries() {
    let open = flow(json!({ "id": "f", "steps": { "a": {}, "b": {}, "c": { "subscribes": ["step:a", "step:b"] } } }));
    table(
        &open,
        &[
            ("they are not ours", &["start"], ""),
            ("both are waited for", &["start", "done a"], ""),
            ("then the join", &["start", "done a", "done b"], "c"),
            ("and the end", &["start", "done a", "done b", "done c"], "completed"),
        ],
    );
}

#[test]
fn a_job_carries_the_first_payload_of_each_name_and_its_id() {
    let events = ["start", "emit packed", "emit paid", "emit packed", "done pack", "done pay", "done check"];
    let decision = fold(&events).decide("r\"1", &order());
    let trigger = &decision.triggers[0];
    let data: Value = serde_json::from_str(&trigger.data).unwrap();
    let input = json!({ "packed": { "of": "packed", "at": 2 }, "paid": { "of": "paid", "at": 3 } });
    assert_eq!(data, json!({ "flowId": "r\"1", "flowName": "f", "input": input }));
    assert_eq!(&*trigger.opts, r#"{"jobId":"r\"1__ship"}"#);
    assert_eq!((&*trigger.step, &*trigger.queue), ("ship", "ship"));
    let fan_out = fold(&["start", "emit checked"]).decide("r", &order());
    assert_eq!(&*fan_out.triggers[0].queue, "money");
}

#[test]
fn a_job_carries_the_trace_of_the_event_that_triggered_it() {
    let flow = order();
    let mut state = RunState::default();
    let events = ["start", "emit checked", "emit paid", "emit packed", "emit paid", "done ship"];
    let opts = |state: &RunState, step: &str| -> Value {
        let step = flow.steps.iter().find(|other| other.name == step).unwrap();
        serde_json::from_str(&state.trigger_again("r", &flow, step).unwrap().opts).unwrap()
    };
    for (i, text) in events.into_iter().enumerate() {
        let mut event = record(i + 1, text);
        event["traceparent"] = format!("00-trace-{i}").into();
        event["data"]["input"] = 1.into();
        state.fold(&event.to_string()).unwrap();
    }
    assert_eq!(opts(&state, "check")["traceparent"], "00-trace-0");
    assert_eq!(opts(&state, "pay")["traceparent"], "00-trace-1");
    // The last of those that it waits for; a repeated emit triggers nothing.
    assert_eq!(opts(&state, "ship")["traceparent"], "00-trace-3");
    assert_eq!(opts(&state, "thank")["traceparent"], "00-trace-5");

    let mut state = fold(&["start", "emit checked"]);
    let mut odd = record(9, "emit packed");
    odd["traceparent"] = json!({ "not": "text" });
    state.fold(&odd.to_string()).unwrap();
    assert_eq!(opts(&state, "pay"), json!({ "jobId": "r__pay" }));
    assert_eq!(opts(&state, "ship"), json!({ "jobId": "r__ship" }));
}

#[test]
fn a_waited_for_step_and_an_emit_without_payload_give_no_input() {
    let open =
        flow(json!({ "id": "f", "entry": { "step": "a" }, "steps": { "b": { "subscribes": ["step:a", "x"] } } }));
    let mut state = fold(&["start", "done a"]);
    state.fold(r#"{"id":"9-0","ts":9,"type":"emit","data":{"name":"x"}}"#).unwrap();
    let decision = state.decide("r", &open);
    assert_eq!(&*decision.triggers[0].data, r#"{"flowId":"r","flowName":"f","input":{}}"#);
}

#[test]
fn the_index_entry_has_the_status_of_the_run() {
    let events = ["start", "emit a.b", "emit a.c", "emit d", "emit d.e", "done check", "failed pay"];
    let mut state = fold(&events);
    assert_eq!(
        Value::Object(state.metadata(Some(&order()))),
        json!({
            "status": "running", "flowName": "f", "startedAt": 1, "lastActivityAt": 7, "stepCount": 5, "completedSteps": 1,
            "emittedEvents": { "a": { "b": 2, "c": 3 }, "d": { "e": 5 } }
        })
    );
    state.fold(r#"{"id":"8-0","ts":8,"type":"flow.failed","data":{"error":"pay broke"}}"#).unwrap();
    let metadata = state.metadata(None);
    assert_eq!((&metadata["status"], &metadata["completedAt"]), (&json!("failed"), &json!(8)));
    assert_eq!((&metadata["error"], &metadata["stepCount"]), (&json!("pay broke"), &json!(2)));
    assert_eq!(state.started_at(), Some(1.0));
}

#[test]
fn events_of_any_shape_are_folded_or_refused_but_never_misread() {
    let mut state = fold(&["start"]);
    for odd in [
        json!({ "type": "emit" }),
        json!({ "type": "emit", "data": null }),
        json!({ "type": "emit", "data": { "name": 5 } }),
        json!({ "type": "step.completed" }),
        json!({ "type": "step.completed", "stepName": { "a": 1 } }),
        json!({ "type": "step.failed", "stepName": "x", "data": "text" }),
        json!({ "type": "flow.start", "flowName": 7 }),
    ] {
        let mut event = odd;
        event["id"] = "9-0".into();
        event["ts"] = 9.into();
        state.clone().fold(&event.to_string()).unwrap();
    }
    let before = state.clone();
    for bad in ["", "[]", "{}", r#"{"type":"emit"}"#] {
        assert!(state.fold(bad).is_err(), "{bad:?}");
    }
    assert_eq!(state, before);
}

/// Returns a strategy for any events of the order flow, in any order.
fn histories() -> impl Strategy<Value = Vec<String>> {
    let step = prop::sample::select(vec!["check", "pay", "pack", "ship", "thank", "other"]);
    let event = prop_oneof![
        8 => (prop::sample::select(vec!["started", "done", "failed", "retry"]), step).prop_map(|(kind, step)| format!("{kind} {step}")),
        4 => prop::sample::select(vec!["checked", "paid", "packed", "noise"]).prop_map(|name| format!("emit {name}")),
        1 => prop::sample::select(vec!["start", "log", "cancel", "completed"]).prop_map(str::to_owned),
    ];
    prop::collection::vec(event, 0..40)
}

proptest! {
    #[test]
    fn a_state_is_the_same_however_often_its_fold_is_interrupted_and_repeated(events in histories(), cut in 0_usize..40, back in 0_usize..40) {
        let texts: Vec<&str> = events.iter().map(String::as_str).collect();
        let whole = fold(&texts);
        let cut = cut.min(texts.len());
        let mut resumed = fold(&texts[..cut]);
        for (i, text) in texts.iter().enumerate().skip(cut.saturating_sub(back)) {
            resumed.fold(&record(i + 1, text).to_string()).unwrap();
        }
        prop_assert_eq!(&whole, &resumed);
        prop_assert_eq!(whole.decide("r", &order()), resumed.decide("r", &order()));
    }

    #[test]
    fn a_log_whose_ids_have_no_order_may_be_folded_twice(events in histories()) {
        let mut state = RunState::default();
        let mut fold = || {
            for (i, text) in events.iter().enumerate() {
                let mut event = record(i + 1, text);
                event["id"] = format!("event-{i}").into();
                state.fold(&event.to_string()).unwrap();
            }
            state.clone()
        };
        let once = fold();
        prop_assert_eq!(once, fold());
    }

    #[test]
    fn a_run_never_ends_while_something_is_to_be_done(events in histories()) {
        let texts: Vec<&str> = events.iter().map(String::as_str).collect();
        let decision = fold(&texts).decide("r", &order());
        prop_assert!(decision.outcome.is_none() || decision.triggers.is_empty());
    }

    #[test]
    fn a_run_whose_workers_do_their_work_always_ends(choices in prop::collection::vec((any::<bool>(), 0_usize..8), 200)) {
        // A worker takes any open job and either does it or fails for good; the flow says what it then emits.
        let flow = order();
        let (mut state, mut open, mut id) = (RunState::default(), vec!["check".to_owned()], 1);
        let mut fold = |state: &mut RunState, text: String| {
            state.fold(&record(id, &text).to_string()).unwrap();
            id += 1;
        };
        fold(&mut state, "start".into());
        for (succeeds, pick) in choices {
            let decision = state.decide("r", &flow);
            if decision.outcome.is_some() {
                return Ok(());
            }
            for trigger in decision.triggers {
                fold(&mut state, format!("started {}", trigger.step));
                open.push(trigger.step.to_string());
            }
            prop_assert!(!open.is_empty(), "nothing is open, and the run goes on: {:?}", state);
            let step = open.swap_remove(pick % open.len());
            if succeeds {
                let emits = flow.steps.iter().find(|other| *other.name == *step).and_then(|step| step.emits.clone());
                emits.into_iter().flatten().for_each(|name| fold(&mut state, format!("emit {name}")));
            }
            fold(&mut state, format!("{} {step}", if succeeds { "done" } else { "failed" }));
        }
        prop_assert!(false, "the run did not end");
    }
}
