//! The logic of a run, without clock, store or queue: its state is the fold of its persisted events, and what to do
//! about it follows from the state and the flow's definition alone.
//!
//! - A step that waits for something is triggered once all of it is there and nothing of the step has been seen. What
//!   it is given is the first emit of each name.
//! - A step has failed when its `step.failed` is followed by no `step.retry`, `step.started` or `step.completed` of the
//!   same step. `data.willRetry`, where an event has it, decides at once.
//! - A run is **quiet** when no step is enqueued, running or retried. Only then it can end:
//!   - *failed*, if a failed step could have given another step what that one waits for, or if nothing waits for what
//!     failed and none of its siblings (which come from the same steps) completed;
//!   - *not yet*, if a step waits for something that may still come from outside: an emit that no step declares;
//!   - *completed* otherwise. A branch that was not taken does not hold a run up.
//! - `flow.completed`, `flow.failed` and `flow.cancel` end a run, whoever wrote them; what comes later changes nothing.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Number, Value};

use crate::error::{Error, Result};
use crate::event::EventId;
use crate::json::{self, Json, Object, push_string};
use crate::wiring::flow::definition::{FlowDefinition, Sources, Step};

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not at its end.
    Running,
    /// `flow.completed` is there.
    Completed,
    /// `flow.failed` is there.
    Failed,
    /// `flow.cancel` is there.
    Canceled,
}

impl Status {
    /// As the index has it.
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
    /// None where the event had none.
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
}

#[derive(Debug, Clone, PartialEq)]
struct End {
    status: Status,
    at: Number,
    error: Option<Box<str>>,
}

/// What a step is enqueued with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    /// The step.
    pub step: String,
    /// Its queue.
    pub queue: String,
    /// The job's data: `{ flowId, flowName, input }`.
    pub data: Json,
    /// The job's options: `{ jobId }`.
    pub opts: Json,
}

/// How a quiet run ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything that could be done is done.
    Completed {
        /// Whether every step has run: none is left that a late emit could still trigger.
        certain: bool,
    },
    /// A step failed that the run cannot do without.
    Failed {
        /// The step.
        step: String,
        /// What its event says about it.
        error: Option<Box<str>>,
        /// The id of that event.
        event: Box<str>,
        /// Whether the event says itself that no retry follows.
        certain: bool,
    },
}

impl Outcome {
    /// Whether no event that was made before now, and is still on its way, can change it.
    pub fn is_certain(&self) -> bool {
        match self {
            Self::Completed { certain } | Self::Failed { certain, .. } => *certain,
        }
    }
}

/// What to do about a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Steps to enqueue, in the order of the definition.
    pub triggers: Vec<Trigger>,
    /// How the run ends, if it does.
    pub outcome: Option<Outcome>,
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
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    /// What older events call the name.
    #[serde(borrow, default)]
    topic: Option<&'a RawValue>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    will_retry: Option<&'a RawValue>,
}

fn text(raw: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok().filter(|text: &String| !text.is_empty())
}

impl RunState {
    /// Takes the next event of the run's subject, as JSON text. An event that is not later than the last one changes
    /// nothing.
    pub fn fold(&mut self, record: &str) -> Result<()> {
        json::check_depth("event", record)?;
        let record: Record<'_> =
            serde_json::from_str(record).map_err(|e| Error::corrupt(format!("a stored event cannot be read: {e}")))?;
        if self.has_seen(&record.id) {
            return Ok(());
        }
        self.last_id = Some(record.id.as_ref().into());
        if self.end.is_some() {
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
        self.last_activity = Some(record.ts.clone());
        let data: Data<'_> = record.data.and_then(|data| serde_json::from_str(data.get()).ok()).unwrap_or_default();
        let mut end =
            |status| self.end = Some(End { status, at: record.ts.clone(), error: text(data.error).map(Into::into) });
        match record.kind.as_ref() {
            "flow.completed" => end(Status::Completed),
            "flow.failed" => end(Status::Failed),
            "flow.cancel" => end(Status::Canceled),
            "emit" => {
                if let Some(name) = text(data.name).or_else(|| text(data.topic)) {
                    let payload = data.payload.map(|payload| payload.get().into());
                    self.emits.entry(name.into()).or_insert(Emit { ts: record.ts, payload });
                }
            }
            kind => {
                if let Some(step) = text(record.step_name) {
                    self.fold_step(step.into(), kind, &record.id, &data);
                }
            }
        }
        Ok(())
    }

    fn fold_step(&mut self, step: Arc<str>, kind: &str, id: &str, data: &Data<'_>) {
        let state = match kind {
            "step.completed" => StepState::Completed,
            "step.started" | "step.retry" => StepState::Active,
            "step.failed" => match data.will_retry.map(RawValue::get) {
                Some("true") => StepState::Active,
                said => StepState::Failed {
                    event: id.into(),
                    error: text(data.error).map(Into::into),
                    certain: said == Some("false"),
                },
            },
            _ => return,
        };
        let slot = self.steps.entry(step).or_insert(StepState::Active);
        // A completion is final, whatever a duplicate of the job reports later.
        if *slot != StepState::Completed {
            *slot = state;
        }
    }

    /// Whether the event with this id is part of the state.
    pub fn has_seen(&self, id: &str) -> bool {
        let Some(last) = self.last_id.as_deref() else { return false };
        match (id.parse::<EventId>(), last.parse::<EventId>()) {
            (Ok(id), Ok(last)) => id <= last,
            // Ids that are not ours have no order.
            _ => id == last,
        }
    }

    /// The id of the last event that was folded.
    pub fn last_id(&self) -> Option<&Arc<str>> {
        self.last_id.as_ref()
    }

    /// The flow, where an event has told it.
    pub fn flow_name(&self) -> Option<&Arc<str>> {
        self.flow_name.as_ref()
    }

    /// How the run stands.
    pub fn status(&self) -> Status {
        self.end.as_ref().map_or(Status::Running, |end| end.status)
    }

    /// What the run is sorted by in the index. None as long as nothing happened that makes it a run.
    pub fn started_at(&self) -> Option<f64> {
        self.started_at.as_ref()?.as_f64()
    }

    /// The metadata of the run's index entry: absolute values, so that writing them twice changes nothing.
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

    /// Times of the emits, `a.b` as `b` in `a`: an index update takes no dotted keys.
    fn emitted_events(&self) -> Object {
        let flat = self.emits.iter().map(|(name, emit)| (name.to_string(), Value::Number(emit.ts.clone())));
        json::expand_dotted(flat.collect())
    }

    /// What to do, given the run's flow.
    pub fn decide(&self, run_id: &str, flow: &FlowDefinition) -> Decision {
        if self.end.is_some() || self.started_at.is_none() {
            return Decision::default();
        }
        let triggered: Vec<&Step> =
            flow.steps.iter().filter(|step| !self.steps.contains_key(&*step.name) && self.is_due(flow, step)).collect();
        let busy = !triggered.is_empty() || self.steps.values().any(|state| *state == StepState::Active);
        let triggers = triggered.into_iter().filter(|step| !flow.is_entry(step));
        Decision {
            triggers: triggers.map(|step| self.trigger(run_id, flow, step)).collect(),
            outcome: if busy { None } else { self.outcome(flow) },
        }
    }

    /// Whether a step is enqueued, by whoever starts the run or by us.
    fn is_due(&self, flow: &FlowDefinition, step: &Step) -> bool {
        flow.is_entry(step) || !step.subscribes.is_empty() && step.subscribes.iter().all(|name| self.is_met(name))
    }

    fn is_met(&self, subscription: &str) -> bool {
        let completed = |name: &str| self.steps.get(name) == Some(&StepState::Completed);
        self.emits.contains_key(subscription) || subscription.strip_prefix("step:").is_some_and(completed)
    }

    fn trigger(&self, run_id: &str, flow: &FlowDefinition, step: &Step) -> Trigger {
        let mut data = String::from("{\"flowId\":");
        push_string(&mut data, run_id);
        data.push_str(",\"flowName\":");
        push_string(&mut data, &flow.id);
        data.push_str(",\"input\":{");
        let payloads =
            step.subscribes.iter().filter_map(|name| Some((name, self.emits.get(name.as_str())?.payload.as_ref()?)));
        for (i, (name, payload)) in payloads.enumerate() {
            if i > 0 {
                data.push(',');
            }
            push_string(&mut data, name);
            data.push(':');
            data.push_str(payload);
        }
        data.push_str("}}");
        let mut opts = String::from("{\"jobId\":");
        push_string(&mut opts, &format!("{run_id}__{}", step.name));
        opts.push('}');
        Trigger { step: step.name.clone(), queue: step.queue.clone(), data: data.into(), opts: opts.into() }
    }

    /// How a quiet run ends.
    fn outcome(&self, flow: &FlowDefinition) -> Option<Outcome> {
        let waiting: Vec<&Step> = flow
            .steps
            .iter()
            .filter(|step| !self.steps.contains_key(&*step.name) && !step.subscribes.is_empty())
            .collect();
        let mut failed = flow.steps.iter().filter_map(|step| match self.steps.get(&*step.name)? {
            StepState::Failed { event, error, certain } => Some((step, event, error, *certain)),
            _ => None,
        });
        let fatal = failed.find(|(step, ..)| self.blocks(flow, step, &waiting) || self.ends_in_vain(flow, step));
        if let Some((step, event, error, certain)) = fatal {
            let (step, error, event) = (step.name.clone(), error.clone(), event.clone());
            return Some(Outcome::Failed { step, error, event, certain });
        }
        let certain = waiting.is_empty();
        self.nothing_may_come(flow, waiting).then_some(Outcome::Completed { certain })
    }

    fn unmet<'a>(&self, step: &'a Step) -> impl Iterator<Item = &'a String> {
        step.subscribes.iter().filter(|name| !self.is_met(name))
    }

    /// Whether a waiting step lacks something that could have come from this one.
    fn blocks(&self, flow: &FlowDefinition, failed: &Step, waiting: &[&Step]) -> bool {
        waiting.iter().any(|step| self.unmet(step).any(|name| comes_from(flow, name, failed)))
    }

    /// Whether no step was to go on from this one and none beside it came to a good end.
    fn ends_in_vain(&self, flow: &FlowDefinition, failed: &Step) -> bool {
        let is_last = !flow.steps.iter().any(|step| step.subscribes.iter().any(|name| comes_from(flow, name, failed)));
        let origin = origin(flow, failed);
        let is_completed = |step: &Step| self.steps.get(&*step.name) == Some(&StepState::Completed);
        is_last && !flow.steps.iter().any(|step| is_completed(step) && origin == self::origin(flow, step))
    }

    /// Whether none of the steps that wait can still get what it waits for.
    fn nothing_may_come(&self, flow: &FlowDefinition, mut waiting: Vec<&Step>) -> bool {
        loop {
            let before = waiting.clone();
            waiting.retain(|step| {
                self.unmet(step).all(|name| match flow.sources(name) {
                    Sources::Anywhere(_) => true,
                    Sources::Declared(sources) => sources.iter().any(|source| before.contains(source)),
                })
            });
            if waiting.len() == before.len() {
                return waiting.is_empty();
            }
        }
    }
}

fn comes_from(flow: &FlowDefinition, subscription: &str, step: &Step) -> bool {
    flow.sources(subscription).steps().iter().any(|source| source.name == step.name)
}

/// Where a step comes from: the steps that declare what it waits for, else the names themselves.
fn origin<'a>(flow: &'a FlowDefinition, step: &'a Step) -> BTreeSet<&'a str> {
    let mut origin = BTreeSet::new();
    for name in &step.subscribes {
        match flow.sources(name) {
            Sources::Declared(sources) => origin.extend(sources.iter().map(|source| source.name.as_str())),
            Sources::Anywhere(_) => _ = origin.insert(name.as_str()),
        }
    }
    origin
}
