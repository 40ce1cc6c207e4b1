//! What follows from the state of a run: the steps to enqueue, and its end.

use std::collections::BTreeSet;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::{RunState, StepState};
use crate::json::{self, Json, Object};
use crate::wiring::flow::definition::{FlowDefinition, Sources, Step};

/// A step to enqueue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    /// The step.
    pub step: String,
    /// Its queue.
    pub queue: String,
    /// The job's data: `{ flowId, flowName, input }`.
    pub data: Json,
    /// The job's options: `{ jobId, traceparent? }` and those of the step.
    pub opts: Json,
    /// The job's id, `<run>__<step>`, with `__retry-<n>` after the n-th retry of the run.
    pub job_id: String,
}

/// The end of a quiescent run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// No step can run any more, and none failed that the run depends on.
    Completed {
        /// Whether every step has run, so that no late emit can trigger one.
        certain: bool,
    },
    /// A step failed that the run depends on.
    Failed {
        /// The step.
        step: String,
        /// The error in its event.
        error: Option<Box<str>>,
        /// The id of that event.
        event: Box<str>,
        /// Whether the event states that no retry follows.
        certain: bool,
    },
}

impl Outcome {
    /// Returns whether no event in flight can change it.
    pub fn is_certain(&self) -> bool {
        match self {
            Self::Completed { certain } | Self::Failed { certain, .. } => *certain,
        }
    }
}

/// The effects of a run's state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Steps to enqueue, in the order of the definition.
    pub triggers: Vec<Trigger>,
    /// The end of the run, if it ends.
    pub outcome: Option<Outcome>,
}

/// The data of a step's job.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JobData<'a> {
    flow_id: &'a str,
    flow_name: &'a str,
    input: Input<'a>,
}

/// The input of a step.
enum Input<'a> {
    /// The run's input, as JSON text: that of the entry step.
    Run(&'a str),
    /// Payloads by name, in the order of the subscriptions.
    Payloads(Vec<(&'a str, &'a RawValue)>),
}

impl Serialize for Input<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Run(text) => {
                serde_json::from_str::<&RawValue>(text).map_err(serde::ser::Error::custom)?.serialize(serializer)
            }
            Self::Payloads(payloads) => serializer.collect_map(payloads.iter().copied()),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JobOptions<'a> {
    job_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(flatten)]
    options: &'a Object,
}

impl RunState {
    /// Decides the effects, given the run's flow.
    pub fn decide(&self, run_id: &str, flow: &FlowDefinition) -> Decision {
        if self.end.is_some() || self.started_at.is_none() {
            return Decision::default();
        }
        let triggered: Vec<&Step> =
            flow.steps.iter().filter(|step| !self.steps.contains_key(&*step.name) && self.is_due(flow, step)).collect();
        let busy = !triggered.is_empty() || self.steps.values().any(|state| *state == StepState::Active);
        let triggers = triggered.into_iter().filter(|step| {
            !flow.is_entry(step) || self.retried.contains_key(&*step.name) || flow.starts_entry && self.input.is_some()
        });
        Decision {
            triggers: triggers.map(|step| self.trigger(run_id, flow, step)).collect(),
            outcome: if busy { None } else { self.outcome(flow) },
        }
    }

    /// Returns whether a step is enqueued or running, so that its end is missing in the log.
    pub fn is_open(&self, flow: &FlowDefinition, step: &Step) -> bool {
        if self.end.is_some() {
            return false;
        }
        match self.steps.get(&*step.name) {
            None => self.is_due(flow, step),
            Some(state) => *state == StepState::Active,
        }
    }

    /// Returns whether a step has begun and not ended.
    pub fn is_active(&self, step: &Step) -> bool {
        self.steps.get(&*step.name) == Some(&StepState::Active)
    }

    /// Returns how to enqueue a step once more whose job is lost. None where its input is not in the log.
    pub fn trigger_again(&self, run_id: &str, flow: &FlowDefinition, step: &Step) -> Option<Trigger> {
        (!flow.is_entry(step) || self.input.is_some()).then(|| self.trigger(run_id, flow, step))
    }

    /// Returns the id of a step's job: `<run>__<step>`, with `__retry-<n>` after the n-th retry of the run.
    pub fn job_id(&self, run_id: &str, step: &str) -> String {
        match self.retried.get(step) {
            None => format!("{run_id}__{step}"),
            Some(retry) => format!("{run_id}__{step}__retry-{retry}"),
        }
    }

    /// Returns whether a job of a step belongs to an attempt before the last retry of the run.
    pub fn is_superseded(&self, run_id: &str, step: &str, job_id: &str) -> bool {
        self.retried.contains_key(step) && !job_id.starts_with(&self.job_id(run_id, step))
    }

    /// Returns whether a step is enqueued, by the caller that starts the run or by the wiring.
    fn is_due(&self, flow: &FlowDefinition, step: &Step) -> bool {
        flow.is_entry(step) || !step.subscribes.is_empty() && step.subscribes.iter().all(|name| self.is_met(name))
    }

    fn is_met(&self, subscription: &str) -> bool {
        let completed = |name: &str| self.steps.get(name) == Some(&StepState::Completed);
        self.emits.contains_key(subscription) || subscription.strip_prefix("step:").is_some_and(completed)
    }

    fn trigger(&self, run_id: &str, flow: &FlowDefinition, step: &Step) -> Trigger {
        let payload = |name: &String| {
            let payload = self.emits.get(name.as_str())?.payload.as_deref()?;
            serde_json::from_str::<&RawValue>(payload).ok()
        };
        let input = match &self.input {
            Some(input) if flow.is_entry(step) => Input::Run(input),
            _ => Input::Payloads(
                step.subscribes.iter().filter_map(|name| Some((name.as_str(), payload(name)?))).collect(),
            ),
        };
        let data = json::to_json(&JobData { flow_id: run_id, flow_name: &flow.id, input });
        let job_id = self.job_id(run_id, &step.name);
        let opts = json::to_json(&JobOptions {
            job_id: &job_id,
            traceparent: self.trace_of(flow, step),
            options: &step.job_options,
        });
        Trigger { step: step.name.clone(), queue: step.queue.clone(), data, opts, job_id }
    }

    /// Returns the trace context of the event that triggers a step: the last of those that it waits for.
    fn trace_of(&self, flow: &FlowDefinition, step: &Step) -> Option<&str> {
        if flow.is_entry(step) {
            return self.traces.get("").map(|(_, traceparent)| &**traceparent);
        }
        let traces = step.subscribes.iter().filter_map(|name| self.traces.get(name.as_str()));
        traces.max_by_key(|(place, _)| place).map(|(_, traceparent)| &**traceparent)
    }

    /// Returns how a quiescent run ends, if it ends.
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
        let fatal = failed.find(|(step, ..)| self.blocks(flow, step, &waiting) || self.is_failed_leaf(flow, step));
        if let Some((step, event, error, certain)) = fatal {
            let (step, error, event) = (step.name.clone(), error.clone(), event.clone());
            return Some(Outcome::Failed { step, error, event, certain });
        }
        let certain = waiting.is_empty();
        self.no_pending_sources(flow, waiting).then_some(Outcome::Completed { certain })
    }

    /// Returns the subscriptions of a step that are not met.
    pub(super) fn unmet<'a>(&self, step: &'a Step) -> impl Iterator<Item = &'a String> {
        step.subscribes.iter().filter(|name| !self.is_met(name))
    }

    /// Returns whether the failed step is a source of an unmet subscription.
    fn blocks(&self, flow: &FlowDefinition, failed: &Step, waiting: &[&Step]) -> bool {
        waiting.iter().any(|step| self.unmet(step).any(|name| comes_from(flow, name, failed)))
    }

    /// Returns whether nothing subscribes to the failed step and none of its siblings completed.
    fn is_failed_leaf(&self, flow: &FlowDefinition, failed: &Step) -> bool {
        let is_last = !flow.steps.iter().any(|step| step.subscribes.iter().any(|name| comes_from(flow, name, failed)));
        let origin = origin(flow, failed);
        let is_completed = |step: &Step| self.steps.get(&*step.name) == Some(&StepState::Completed);
        is_last && !flow.steps.iter().any(|step| is_completed(step) && origin == self::origin(flow, step))
    }

    /// Returns whether no waiting step can be triggered any more.
    fn no_pending_sources(&self, flow: &FlowDefinition, mut waiting: Vec<&Step>) -> bool {
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

/// Returns the sources of a step: the steps that declare its subscriptions, else the names themselves.
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
