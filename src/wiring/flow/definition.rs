//! Flow definitions: steps and their subscriptions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::json::{self, Object};
use crate::name::{did_you_mean, is_near};

/// Limit of the dots in the name of an emit. Each is a level of the index entry, which nests no deeper than JSON may.
pub const MAX_EMIT_DOTS: usize = json::MAX_DEPTH - 12;

/// Checks the name of an emit.
///
/// # Errors
/// [`crate::error::Code::Invalid`] where it has more than [`MAX_EMIT_DOTS`] dots.
pub fn check_emit(what: &str, name: &str) -> Result<()> {
    let dots = name.bytes().filter(|byte| *byte == b'.').count();
    if dots > MAX_EMIT_DOTS {
        return Err(Error::invalid(format!("{what}: {dots} dots, and a name has at most {MAX_EMIT_DOTS}")));
    }
    Ok(())
}

/// A flow and its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowDefinition {
    /// The `flowName` of its runs.
    pub id: String,
    /// The step enqueued by the caller that starts a run. None: the steps without subscriptions.
    pub entry: Option<String>,
    /// Whether flow wiring enqueues the entry step of a run whose `flow.start` is in the log.
    pub starts_entry: bool,
    /// All steps, including the entry step, in the order of the definition.
    pub steps: Vec<Step>,
}

/// A step of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its name, also the name of its jobs.
    pub name: String,
    /// Names of emits, or `step:<name>` for the completion of a step. The step is triggered when all are met.
    pub subscribes: Vec<String>,
    /// Names that it may emit. None: anything.
    pub emits: Option<Vec<String>>,
    /// The queue of its jobs; by default the step's name, as in nvent.
    pub queue: String,
    /// Options of its jobs besides the id.
    pub job_options: Object,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawFlow {
    id: String,
    #[serde(default)]
    starts_entry: bool,
    #[serde(default)]
    entry: Option<RawEntry>,
    steps: Object,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEntry {
    step: String,
    #[serde(default)]
    queue: Option<String>,
    #[serde(default)]
    emits: Option<Vec<String>>,
    #[serde(default)]
    job_options: Object,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct RawStep {
    #[serde(default)]
    subscribes: Option<Vec<String>>,
    #[serde(default)]
    emits: Option<Vec<String>>,
    #[serde(default)]
    queue: Option<String>,
    #[serde(default)]
    job_options: Object,
}

/// Fields of a definition, of its entry and of a step. Those with `jobOptions` and `startsEntry` are added by defineFlow.
const FLOW_FIELDS: &[&str] = &["id", "entry", "steps", "startsEntry"];
const ENTRY_FIELDS: &[&str] = &["step", "queue", "emits", "jobOptions"];
const STEP_FIELDS: &[&str] = &["subscribes", "emits", "queue", "jobOptions"];

/// Refuses fields that are not known, which are mostly misspelt.
fn check_fields(at: &str, value: &Value, known: &[&str]) -> Result<()> {
    let Value::Object(object) = value else { return Ok(()) };
    match object.keys().find(|field| !known.contains(&field.as_str())) {
        None => Ok(()),
        Some(field) => Err(Error::invalid(format!("{at}.{field}: unknown option{}", did_you_mean(field, known)))),
    }
}

fn read<T: DeserializeOwned>(at: &str, value: Value) -> Result<T> {
    T::deserialize(value).map_err(|e| Error::invalid(format!("{at}: {e}")))
}

/// Flow definitions by name.
pub type Flows = BTreeMap<String, Arc<FlowDefinition>>;

/// Parses a JSON array of definitions.
///
/// # Errors
/// [`crate::error::Code::Invalid`], naming the path of the unusable value.
pub fn parse_flows(text: &str) -> Result<Flows> {
    let Value::Array(items) = json::parse("flows", text)? else {
        return Err(Error::invalid("flows: expected an array of flow definitions"));
    };
    let mut flows = Flows::new();
    for (i, item) in items.into_iter().enumerate() {
        let at = format!("flows[{i}]");
        let flow = FlowDefinition::read(&at, item)?;
        if flows.contains_key(&flow.id) {
            return Err(Error::invalid(format!("{at}.id: the flow {:?} is defined twice", flow.id)));
        }
        flows.insert(flow.id.clone(), Arc::new(flow));
    }
    Ok(flows)
}

impl FlowDefinition {
    fn read(at: &str, value: Value) -> Result<Self> {
        check_fields(at, &value, FLOW_FIELDS)?;
        check_fields(&format!("{at}.entry"), &value["entry"], ENTRY_FIELDS)?;
        let raw: RawFlow = read(at, value)?;
        if raw.id.is_empty() {
            return Err(Error::invalid(format!("{at}.id: expected a non-empty string")));
        }
        let mut steps = Vec::with_capacity(raw.steps.len() + 1);
        for (name, value) in raw.steps {
            check_fields(&format!("{at}.steps.{name}"), &value, STEP_FIELDS)?;
            let step: RawStep = match value {
                Value::Null => RawStep::default(),
                value => read(&format!("{at}.steps.{name}"), value)?,
            };
            steps.push(Step {
                queue: step.queue.unwrap_or_else(|| name.clone()),
                subscribes: step.subscribes.unwrap_or_default(),
                emits: step.emits,
                job_options: step.job_options,
                name,
            });
        }
        let entry = raw.entry.map(|entry| {
            let name = entry.step;
            match steps.iter_mut().find(|step| step.name == name) {
                Some(step) => {
                    step.emits = step.emits.take().or(entry.emits);
                    step.subscribes.clear();
                }
                None => {
                    let queue = entry.queue.unwrap_or_else(|| name.clone());
                    let step = Step {
                        name: name.clone(),
                        subscribes: Vec::new(),
                        emits: entry.emits,
                        queue,
                        job_options: entry.job_options,
                    };
                    steps.insert(0, step);
                }
            }
            name
        });
        let flow = Self { id: raw.id, entry, starts_entry: raw.starts_entry, steps };
        flow.check(at)?;
        Ok(flow)
    }

    /// Refuses subscriptions that can never be met.
    fn check(&self, at: &str) -> Result<()> {
        let declared: BTreeSet<&str> =
            self.steps.iter().flat_map(|step| step.emits.iter().flatten()).map(String::as_str).collect();
        for step in &self.steps {
            for (i, subscription) in step.subscribes.iter().enumerate() {
                let at = format!("{at}.steps.{}.subscribes[{i}]", step.name);
                check_emit(&at, subscription)?;
                if let Some(name) = subscription.strip_prefix("step:")
                    && self.step(name).is_none()
                {
                    let names: Vec<&str> = self.steps.iter().map(|step| step.name.as_str()).collect();
                    return Err(Error::invalid(format!(
                        "{at}: there is no step {name:?} (steps: {})",
                        names.join(", ")
                    )));
                }
                // A name that no step emits may come from outside the flow, unless it is a misspelling.
                let is_misspelt = |emit: &&&str| subscription.len() > 4 && is_near(emit, subscription);
                if let Sources::Anywhere(sources) = self.sources(subscription)
                    && sources.is_empty()
                    && let Some(emit) = declared.iter().find(is_misspelt)
                {
                    return Err(Error::invalid(format!(
                        "{at}: no step emits {subscription:?}; did you mean {emit:?}? Add the name to the emits of a step \
                         if it is emitted"
                    )));
                }
            }
        }
        let mut reachable: BTreeSet<&str> = BTreeSet::new();
        loop {
            let can_run = |step: &&Step| {
                self.is_entry(step)
                    || !step.subscribes.is_empty()
                        && step.subscribes.iter().all(|subscription| match self.sources(subscription) {
                            Sources::Anywhere(_) => true,
                            Sources::Declared(sources) => {
                                sources.iter().any(|source| reachable.contains(source.name.as_str()))
                            }
                        })
            };
            let next: BTreeSet<&str> = self.steps.iter().filter(can_run).map(|step| step.name.as_str()).collect();
            if next.len() == reachable.len() {
                break;
            }
            reachable = next;
        }
        let stuck: Vec<&str> =
            self.steps.iter().map(|step| &*step.name).filter(|name| !reachable.contains(name)).collect();
        // A step without subscriptions that is not the entry is enqueued by the application.
        let stuck: Vec<&str> =
            stuck.into_iter().filter(|name| self.step(name).is_some_and(|step| !step.subscribes.is_empty())).collect();
        if !stuck.is_empty() {
            return Err(Error::invalid(format!(
                "{at}.steps: {} can never run, because they wait for each other",
                stuck.join(", ")
            )));
        }
        Ok(())
    }

    /// Returns the step of this name.
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// Returns the queues of its steps, each once.
    pub fn queues(&self) -> BTreeSet<&str> {
        self.steps.iter().map(|step| step.queue.as_str()).collect()
    }

    /// Returns whether this step is enqueued by the caller that starts a run.
    pub fn is_entry(&self, step: &Step) -> bool {
        match &self.entry {
            Some(entry) => *entry == step.name,
            None => step.subscribes.is_empty(),
        }
    }

    /// Returns the steps that can meet a subscription.
    pub fn sources(&self, subscription: &str) -> Sources<'_> {
        if let Some(name) = subscription.strip_prefix("step:") {
            return match self.steps.iter().find(|step| *step.name == *name) {
                Some(step) => Sources::Declared(vec![step]),
                None => Sources::Anywhere(Vec::new()),
            };
        }
        let declares = |step: &&Step| {
            let own = |emit: &str| {
                subscription.strip_prefix(&*step.name).and_then(|rest| rest.strip_prefix('.')) == Some(emit)
            };
            step.emits.iter().flatten().any(|emit| *emit == *subscription || own(emit))
        };
        let declared: Vec<&Step> = self.steps.iter().filter(declares).collect();
        if declared.is_empty() {
            Sources::Anywhere(self.steps.iter().filter(|step| step.emits.is_none()).collect())
        } else {
            Sources::Declared(declared)
        }
    }
}

/// The sources of a subscription.
#[derive(Debug)]
pub enum Sources<'a> {
    /// Only these steps.
    Declared(Vec<&'a Step>),
    /// Publishers outside the flow, or these steps, which do not declare their emits.
    Anywhere(Vec<&'a Step>),
}

impl<'a> Sources<'a> {
    /// Returns the steps.
    pub fn steps(&self) -> &[&'a Step] {
        match self {
            Self::Declared(steps) | Self::Anywhere(steps) => steps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_read_with_its_defaults() {
        let flows = parse_flows(
            r#"[{"id":"order","entry":{"step":"check","emits":["ok"]},"steps":{"pay":{"subscribes":["ok"],"queue":"money"},"ship":null}}]"#,
        )
        .unwrap();
        let flow = &flows["order"];
        let names: Vec<&str> = flow.steps.iter().map(|step| &*step.name).collect();
        assert_eq!(names, ["check", "pay", "ship"]);
        assert_eq!((&*flow.steps[0].queue, &*flow.steps[1].queue, &*flow.steps[2].queue), ("check", "money", "ship"));
        assert!(flow.is_entry(&flow.steps[0]) && !flow.is_entry(&flow.steps[2]));
    }

    #[test]
    fn errors_name_the_path() {
        for (text, place) in [
            ("{}", "flows:"),
            (r#"[{"steps":{}}]"#, "flows[0]"),
            (r#"[{"id":"a","steps":{"x":{"subscribes":"y"}}}]"#, "flows[0].steps.x"),
            (r#"[{"id":"a","steps":{}},{"id":"a","steps":{}}]"#, "flows[1].id"),
            (r#"[{"id":"","steps":{}}]"#, "flows[0].id"),
            (r#"[{"id":"a","step":{},"steps":{}}]"#, "flows[0].step: unknown option; did you mean \"steps\"?"),
            (r#"[{"id":"a","entry":{"step":"x","emit":[]},"steps":{}}]"#, "flows[0].entry.emit: unknown option"),
            (
                r#"[{"id":"a","steps":{"x":{"subscribe":["y"]}}}]"#,
                "flows[0].steps.x.subscribe: unknown option; did you mean",
            ),
            (
                r#"[{"id":"a","entry":{"step":"x"},"steps":{"y":{"subscribes":["step:z"]}}}]"#,
                "no step \"z\" (steps: x, y)",
            ),
            (
                r#"[{"id":"a","entry":{"step":"x","emits":["order.paid"]},"steps":{"y":{"subscribes":["order.payd"],"emits":[]}}}]"#,
                "did you mean \"order.paid\"?",
            ),
            (
                r#"[{"id":"a","entry":{"step":"x"},"steps":{"y":{"subscribes":["step:z"]},"z":{"subscribes":["step:y"]}}}]"#,
                "y, z can never run",
            ),
        ] {
            let error = parse_flows(text).unwrap_err();
            assert!(error.message().contains(place), "{text}: {error}");
        }
    }

    #[test]
    fn sources_are_the_steps_that_declare_an_emit_or_any_publisher() {
        let flows = parse_flows(
            r#"[{"id":"f","entry":{"step":"a","emits":["x"]},"steps":{"b":{"emits":["y"]},"c":{},"d":{"subscribes":["x"]}}}]"#,
        )
        .unwrap();
        let names = |subscription: &str| {
            let sources = flows["f"].sources(subscription);
            let names: Vec<String> = sources.steps().iter().map(|step| step.name.to_string()).collect();
            (matches!(sources, Sources::Declared(_)), names.join(","))
        };
        assert_eq!(names("x"), (true, "a".into()));
        assert_eq!(names("b.y"), (true, "b".into()));
        assert_eq!(names("step:c"), (true, "c".into()));
        assert_eq!(names("step:unknown"), (false, String::new()));
        assert_eq!(names("z"), (false, "c,d".into()));
    }
}
