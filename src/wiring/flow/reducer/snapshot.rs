//! The state of a run as a person reads it: the metadata of its index entry, and what each step does or waits for.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{RunState, StepState};
use crate::error::{Error, Result};
use crate::event::parseable;
use crate::json::Object;
use crate::wiring::flow::definition::{FlowDefinition, parse_flows};

impl RunState {
    /// Returns the state with its steps, emits and input. A step is `waiting` (with the subscriptions that are `unmet`),
    /// `enqueued`, `active`, `completed` or `failed`. Steps that have not begun are known from the flow's definition only.
    pub fn snapshot(&self, flow: Option<&FlowDefinition>) -> Object {
        let mut out = self.metadata(flow);
        let mut steps = Object::new();
        for step in flow.into_iter().flat_map(|flow| &flow.steps) {
            let is_open = flow.is_some_and(|flow| self.is_open(flow, step));
            let state = if is_open && self.started_at.is_some() {
                json!({ "state": "enqueued" })
            } else {
                json!({ "state": "waiting", "unmet": self.unmet(step).collect::<Vec<_>>() })
            };
            steps.insert(step.name.clone(), state);
        }
        for (name, state) in &self.steps {
            let state = match state {
                StepState::Active => json!({ "state": "active" }),
                StepState::Completed => json!({ "state": "completed" }),
                StepState::Failed { error, .. } => json!({ "state": "failed", "error": error }),
            };
            steps.insert(name.to_string(), state);
        }
        let value = |text: &str| serde_json::from_str::<Value>(&parseable(text)).unwrap_or_default();
        let emits = self.emits.iter().map(|(name, emit)| {
            let payload = emit.payload.as_deref().map(value);
            (name.to_string(), json!({ "ts": emit.ts, "payload": payload }))
        });
        out.remove("emittedEvents");
        out.insert("emits".into(), Value::Object(emits.collect()));
        out.insert("steps".into(), Value::Object(steps));
        out.insert("retries".into(), self.retries.into());
        if let Some(input) = &self.input {
            out.insert("input".into(), value(input));
        }
        out
    }
}

/// Folds events, a JSON array in the order of the log, and returns the state after the last one. `flow` is a definition as
/// JSON.
///
/// # Errors
/// [`crate::error::Code::Invalid`] where the definition or the array is not usable, [`crate::error::Code::Corrupt`] where an
/// event is.
pub fn snapshot_of(flow: Option<&str>, events: &str) -> Result<Object> {
    let flows = flow.map(|flow| parse_flows(&format!("[{flow}]"))).transpose()?.unwrap_or_default();
    let mut state = RunState::default();
    let events: Vec<&RawValue> = serde_json::from_str(events).map_err(|e| Error::invalid(format!("events: {e}")))?;
    for event in events {
        state.fold(event.get())?;
    }
    Ok(state.snapshot(flows.values().next().map(|flow| &**flow)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: &str = r#"{"id":"f","entry":{"step":"a","emits":["x"]},"steps":{"b":{"subscribes":["x","y"]},"c":{"subscribes":["x"]}}}"#;

    fn steps(events: &str) -> Value {
        snapshot_of(Some(FLOW), events).unwrap()["steps"].clone()
    }

    #[test]
    fn a_step_is_waiting_enqueued_active_or_over() {
        let start = r#"{"id":"1-0","ts":1,"type":"flow.start","flowName":"f"}"#;
        assert_eq!(steps("[]")["a"]["state"], "waiting");
        let begun = steps(&format!("[{start}]"));
        assert_eq!(begun["a"]["state"], "enqueued");
        assert_eq!(begun["b"], json!({ "state": "waiting", "unmet": ["x", "y"] }));
        let emitted = steps(&format!(
            r#"[{start},{{"id":"2-0","ts":2,"type":"emit","stepName":"a","data":{{"name":"x","payload":7}}}},
                {{"id":"3-0","ts":3,"type":"step.completed","stepName":"a"}},
                {{"id":"4-0","ts":4,"type":"step.failed","stepName":"c","data":{{"error":"no","willRetry":false}}}}]"#
        ));
        assert_eq!(emitted["a"]["state"], "completed");
        assert_eq!(emitted["b"], json!({ "state": "waiting", "unmet": ["y"] }));
        assert_eq!(emitted["c"], json!({ "state": "failed", "error": "no" }));
    }

    #[test]
    fn without_a_definition_it_has_the_steps_of_the_log() {
        let events = r#"[{"id":"1-0","ts":1,"type":"step.started","stepName":"a"}]"#;
        let state = snapshot_of(None, events).unwrap();
        assert_eq!(state["steps"], json!({ "a": { "state": "active" } }));
        assert_eq!(state["status"], "running");
    }

    #[test]
    fn what_is_no_array_or_no_definition_is_refused() {
        assert!(snapshot_of(None, "{}").is_err());
        assert!(snapshot_of(Some("{}"), "[]").is_err());
    }
}
