//! The pure logic of a run, without clock, store or queue: its state is the fold of its persisted events, and the
//! decision depends only on that state and the flow's definition.
//!
//! - A step with subscriptions is triggered when all of them are met and the log has no event of the step. Its input is
//!   the first emit of each name.
//! - A step has failed when its `step.failed` is followed by no `step.retry`, `step.started` or `step.completed` of the
//!   same step. `data.willRetry` decides at once where an event has it.
//! - A run is **quiescent** when no step is enqueued, running or waiting for a retry. Only then can it end:
//!   - *failed*, if a failed step is a source of an unmet subscription, or if nothing subscribes to the failed step and
//!     none of its siblings (steps with the same sources) completed;
//!   - *not yet*, if a subscription may still be met from outside the flow, by an emit that no step declares;
//!   - *completed* otherwise. A branch that was not taken does not keep a run open.
//! - `flow.completed`, `flow.failed` and `flow.cancel` end a run, from any process; later events change nothing.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Number, Value};

use crate::error::{Error, Result};
use crate::event::{EventId, parseable};
use crate::json::{self, Json, Object};
use crate::wiring::flow::definition::{FlowDefinition, check_emit};

mod decision;
mod snapshot;

pub use decision::{Decision, Outcome, Trigger};
pub use snapshot::snapshot_of;

/// The status of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The run has not ended.
    Running,
    /// The log has `flow.completed`.
    Completed,
    /// The log has `flow.failed`.
    Failed,
    /// The log has `flow.cancel`.
    Canceled,
}

impl Status {
    /// Returns the status as the index has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum StepState {
    Active,
    Completed,
    Failed { event: Box<str>, error: Option<Box<str>>, certain: bool },
}

#[derive(Debug, Clone, PartialEq)]
struct Emit {
    ts: Number,
    /// None where the event has none.
    payload: Option<Json>,
}

/// The state of a run: a fold of its events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunState {
    last_id: Option<Arc<str>>,
    flow_name: Option<Arc<str>>,
    started_at: Option<Number>,
    last_activity: Option<Number>,
    steps: BTreeMap<Arc<str>, StepState>,
    emits: BTreeMap<Arc<str>, Emit>,
    end: Option<End>,
    /// The run's input, from `flow.start`.
    input: Option<Json>,
    /// The number of `flow.retry` events, and that at which each step was retried last.
    retries: u32,
    retried: BTreeMap<Arc<str>, u32>,
    has_start: bool,
    /// The trace contexts of what can trigger a step, with their place in the order of the events: of an emit by its name,
    /// of a completed step by `step:<name>`, of the start by an empty name.
    traces: BTreeMap<Box<str>, (usize, Box<str>)>,
}

#[derive(Debug, Clone, PartialEq)]
struct End {
    status: Status,
    at: Number,
    error: Option<Box<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    ts: Number,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    flow_name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    step_name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    traceparent: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    /// The name in events of older versions.
    #[serde(borrow, default)]
    topic: Option<&'a RawValue>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    will_retry: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

/// Longest trace context that is passed on: that of version 00 has 55 bytes.
const MAX_TRACEPARENT_BYTES: usize = 256;

/// Checks an event before it is published: the name of an emit.
///
/// # Errors
/// [`crate::error::Code::Invalid`], naming the field.
pub fn check_event(event: &str) -> Result<()> {
    #[derive(Deserialize)]
    struct Emit<'a> {
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
    }
    let Ok(Emit { data: Some(data) }) = serde_json::from_str::<Emit<'_>>(event) else { return Ok(()) };
    let data: Data<'_> = serde_json::from_str(data.get()).unwrap_or_default();
    match text(data.name).or_else(|| text(data.topic)) {
        Some(name) => check_emit("event.data.name", &name),
        None => Ok(()),
    }
}

fn text(raw: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok().filter(|text: &String| !text.is_empty())
}

/// Returns a text that is only shown.
fn message(raw: Option<&RawValue>) -> Option<Box<str>> {
    serde_json::from_str(&parseable(raw?.get())).ok().filter(|text: &String| !text.is_empty()).map(Into::into)
}

impl RunState {
    /// Folds the next record of the run's subject. A record that is not later than the last one changes nothing.
    ///
    /// # Errors
    /// [`crate::error::Code::Corrupt`] where the record cannot be parsed.
    pub fn fold(&mut self, record: &str) -> Result<()> {
        json::check_depth("event", record)?;
        let record: Record<'_> =
            serde_json::from_str(record).map_err(|e| Error::corrupt(format!("a stored event cannot be read: {e}")))?;
        if self.has_seen(&record.id) {
            return Ok(());
        }
        self.last_id = Some(record.id.as_ref().into());
        if record.kind == "flow.retry" {
            self.retry(record.ts);
            return Ok(());
        }
        // A failed run may be retried, and its other steps go on meanwhile.
        let is_failed = self.status() == Status::Failed;
        if self.end.is_some() && !is_failed {
            return Ok(());
        }
        let tracked = record.kind == "emit" || record.kind.starts_with("flow.") || record.kind.starts_with("step.");
        if !tracked {
            return Ok(());
        }
        if let Some(name) = text(record.flow_name)
            && (self.flow_name.is_none() || record.kind == "flow.start")
        {
            self.flow_name = Some(name.into());
        }
        self.started_at.get_or_insert_with(|| record.ts.clone());
        if !is_failed {
            self.last_activity = Some(record.ts.clone());
        }
        let data: Data<'_> = record.data.and_then(|data| serde_json::from_str(data.get()).ok()).unwrap_or_default();
        let mut end = |status| self.end = Some(End { status, at: record.ts.clone(), error: message(data.error) });
        match record.kind.as_ref() {
            "flow.start" => {
                self.has_start = true;
                self.note_trace("", record.traceparent);
                if self.input.is_none() {
                    self.input = data.input.map(|input| input.get().into());
                }
            }
            kind if is_failed && kind.starts_with("flow.") => {}
            "flow.completed" => end(Status::Completed),
            "flow.failed" => end(Status::Failed),
            "flow.cancel" => end(Status::Canceled),
            "emit" => {
                if let Some(name) = text(data.name).or_else(|| text(data.topic)) {
                    check_emit("event.data.name", &name)?;
                    self.note_trace(&name, record.traceparent);
                    let payload = data.payload.map(|payload| payload.get().into());
                    self.emits.entry(name.into()).or_insert(Emit { ts: record.ts, payload });
                }
            }
            kind => {
                if let Some(step) = text(record.step_name) {
                    if kind == "step.completed" {
                        self.note_trace(&format!("step:{step}"), record.traceparent);
                    }
                    self.fold_step(step.into(), kind, &record.id, &data);
                }
            }
        }
        Ok(())
    }

    /// Keeps the first trace context of what can trigger a step.
    fn note_trace(&mut self, source: &str, traceparent: Option<&RawValue>) {
        if let Some(traceparent) = text(traceparent).filter(|context| context.len() <= MAX_TRACEPARENT_BYTES) {
            let place = self.traces.len();
            self.traces.entry(source.into()).or_insert((place, traceparent.into()));
        }
    }

    /// Reopens a failed run: its failed steps run again.
    fn retry(&mut self, ts: Number) {
        if self.status() != Status::Failed {
            return;
        }
        self.end = None;
        self.last_activity = Some(ts);
        self.retries += 1;
        let failed: Vec<Arc<str>> = self
            .steps
            .iter()
            .filter(|(_, state)| matches!(state, StepState::Failed { .. }))
            .map(|(step, _)| step.clone())
            .collect();
        for step in failed {
            self.steps.remove(&step);
            self.retried.insert(step, self.retries);
        }
    }

    fn fold_step(&mut self, step: Arc<str>, kind: &str, id: &str, data: &Data<'_>) {
        let state = match kind {
            "step.completed" => StepState::Completed,
            "step.started" | "step.retry" => StepState::Active,
            "step.failed" => match data.will_retry.map(RawValue::get) {
                Some("true") => StepState::Active,
                said => {
                    StepState::Failed { event: id.into(), error: message(data.error), certain: said == Some("false") }
                }
            },
            _ => return,
        };
        let slot = self.steps.entry(step).or_insert(StepState::Active);
        // A completion is final, also if a duplicate of the job reports later.
        if *slot != StepState::Completed {
            *slot = state;
        }
    }

    /// Returns whether the event with this id is part of the state.
    pub fn has_seen(&self, id: &str) -> bool {
        let Some(last) = self.last_id.as_deref() else { return false };
        match (id.parse::<EventId>(), last.parse::<EventId>()) {
            (Ok(id), Ok(last)) => id <= last,
            // Foreign ids have no order.
            _ => id == last,
        }
    }

    /// Returns the id of the last folded event.
    pub fn last_id(&self) -> Option<&Arc<str>> {
        self.last_id.as_ref()
    }

    /// Returns the flow name, if an event has one.
    pub fn flow_name(&self) -> Option<&Arc<str>> {
        self.flow_name.as_ref()
    }

    /// Returns the status.
    pub fn status(&self) -> Status {
        self.end.as_ref().map_or(Status::Running, |end| end.status)
    }

    /// Returns whether the log has a `flow.start`.
    pub fn has_start(&self) -> bool {
        self.has_start
    }

    /// Returns whether the run was retried after a failure.
    pub fn is_retried(&self) -> bool {
        self.retries > 0
    }

    /// Returns the run's score in the index: its start in Unix milliseconds. None until an event of the run is folded.
    pub fn started_at(&self) -> Option<f64> {
        self.started_at.as_ref()?.as_f64()
    }

    /// Returns the metadata of the run's index entry: absolute values, so that writing them is idempotent.
    pub fn metadata(&self, flow: Option<&FlowDefinition>) -> Object {
        let completed = self.steps.values().filter(|state| **state == StepState::Completed).count();
        let defined = flow.into_iter().flat_map(|flow| &flow.steps).map(|step| &*step.name);
        let steps: BTreeSet<&str> = defined.chain(self.steps.keys().map(|name| &**name)).collect();
        let mut out = Object::new();
        let mut put = |key: &str, value: Value| _ = out.insert(key.into(), value);
        put("status", self.status().as_str().into());
        if let Some(name) = &self.flow_name {
            put("flowName", (**name).into());
        }
        for (key, time) in [("startedAt", &self.started_at), ("lastActivityAt", &self.last_activity)] {
            if let Some(time) = time {
                put(key, Value::Number(time.clone()));
            }
        }
        put("stepCount", steps.len().into());
        put("completedSteps", completed.into());
        put("emittedEvents", Value::Object(self.emitted_events()));
        if let Some(end) = &self.end {
            put("completedAt", Value::Number(end.at.clone()));
            if let Some(error) = &end.error {
                put("error", (**error).into());
            }
        }
        out
    }

    /// Returns the times of the emits, with `a.b` as `b` in `a`, because an index update refuses dotted keys.
    fn emitted_events(&self) -> Object {
        // A name that nests too deep is left out of the index; the run and its steps are not affected.
        let named = self.emits.iter().filter(|(name, _)| name.matches('.').count() < json::MAX_DEPTH / 2);
        let flat = named.map(|(name, emit)| (name.to_string(), Value::Number(emit.ts.clone())));
        json::expand_dotted("emittedEvents", flat.collect()).unwrap_or_default()
    }
}
