//! Jobs that repeat.

use std::sync::Arc;

use serde_json::{Value, json};

use super::calendar::Repeat;
use super::options::JobOptions;
use crate::json::{Json, Object, to_json};

/// A job that repeats, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    /// Unique over all queues.
    pub(super) id: Arc<str>,
    pub(super) queue: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) data: Json,
    pub(super) options: JobOptions,
    pub(super) repeat: Repeat,
    /// How many times it has fired.
    pub(super) fired: u32,
    /// When it fires next, in ms.
    pub(super) next: u64,
}

impl Schedule {
    /// Derives the id of a schedule without one, so that scheduling the same again replaces it.
    pub(super) fn derived_id(queue: &str, name: &str, repeat: &Repeat) -> Arc<str> {
        let zone = repeat.tz.as_deref().map(|tz| format!(":{tz}")).unwrap_or_default();
        format!("repeat:{queue}:{name}:{}{zone}", repeat.pattern).into()
    }

    /// Serialises the schedule for callers. `nextRun` is in ms.
    pub(super) fn to_json(&self) -> Json {
        let mut object = Object::new();
        let fields: [(&str, Value); 6] = [
            ("id", json!(*self.id)),
            ("jobName", json!(*self.name)),
            ("queueName", json!(*self.queue)),
            ("pattern", json!(*self.repeat.pattern)),
            ("cron", json!(*self.repeat.pattern)),
            ("nextRun", json!(self.next)),
        ];
        object.extend(fields.map(|(key, value)| (key.to_owned(), value)));
        object.insert("repeatCount".into(), self.fired.into());
        if let Some(tz) = &self.repeat.tz {
            object.insert("tz".into(), json!(**tz));
        }
        if let Some(limit) = self.repeat.limit {
            object.insert("limit".into(), limit.into());
        }
        to_json(&object)
    }
}
