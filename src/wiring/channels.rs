//! The table of channels: which events go where, as which message. A new channel is a row.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::bus::BusEvent;
use crate::error::{Error, Result};
use crate::event::{AnyEvent, Event};
use crate::json::push_string;
use crate::stream::Message;
use crate::topic::Glob;
use crate::wiring::template::Template;

/// Which channels there are.
#[derive(Debug, Clone)]
pub struct ChannelOptions {
    /// The channel `store-sync`.
    pub store_sync: bool,
    /// The channel `flow`.
    pub flow_events: bool,
    /// The channel `client`.
    pub client_messages: bool,
    /// Types that go to `flow:event:{runId}`; globs.
    pub flow_event_types: Vec<String>,
    /// Rows of the user's own.
    pub channels: Vec<ChannelDefinition>,
    /// The subject of a persisted event that came without one.
    pub run_subject: String,
    /// In `metadata.instanceId` of every message.
    pub instance_id: String,
}

impl ChannelOptions {
    /// The defaults, for this instance.
    pub fn new(instance_id: impl Into<String>) -> Self {
        Self {
            store_sync: true,
            flow_events: true,
            client_messages: false,
            flow_event_types: FLOW_EVENT_TYPES.map(str::to_owned).to_vec(),
            channels: Vec::new(),
            run_subject: super::RUN_SUBJECT.into(),
            instance_id: instance_id.into(),
        }
    }
}

/// A row of the user's own. Its messages' data is `{ event }`.
#[derive(Debug, Clone)]
pub struct ChannelDefinition {
    /// What it is counted as.
    pub name: String,
    /// Event types that it takes; globs.
    pub types: Vec<String>,
    /// Its topic, with fields of the event in braces.
    pub topic: String,
    /// The type of its messages; None is the event's own.
    pub kind: Option<String>,
}

/// The default of [`ChannelOptions::flow_event_types`].
pub const FLOW_EVENT_TYPES: [&str; 6] =
    ["flow.start", "flow.completed", "flow.failed", "flow.cancel", "flow.stalled", "emit"];

/// What `flow:trigger:{flowName}` tells: terminal events and emits.
const TRIGGER_TYPES: [&str; 4] = ["flow.completed", "flow.failed", "flow.cancel", "emit"];

/// The names of the built-in channels.
pub const BUILT_IN: [&str; 3] = ["store-sync", "flow", "client"];

/// What a row's messages have as data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// `{ subject, event }`
    Append,
    /// `{ runId, flowName, event }`
    Flow,
    /// `{ flowName, runId, cause, event }`
    Trigger,
    /// `{ event }`
    Event,
    /// `{ flowName, runId, status, ts }`, where the status of the run has changed.
    Status,
}

struct Row {
    /// Index into [`Router::channels`].
    channel: usize,
    types: Box<[Glob]>,
    topic: Template,
    /// None: the event's own type.
    kind: Option<Box<str>>,
    shape: Shape,
}

/// Whether it is enabled, its channel, types, topic, message type and shape.
type BuiltIn<'a> = (bool, &'a str, &'a [&'a str], &'a str, Option<&'a str>, Shape);

/// A message on its way, and the channel that it counts for.
#[derive(Debug)]
pub struct Routed {
    /// Index into [`Router::channels`].
    pub channel: usize,
    /// The message.
    pub message: Message,
}

/// The table, ready for use.
pub struct Router {
    rows: Vec<Row>,
    channels: Vec<Arc<str>>,
    run_subject: Template,
    /// Ends every message: metadata and the closing brace.
    tail: Box<str>,
}

impl Router {
    /// Builds the table; errors name the option.
    pub fn new(options: &ChannelOptions) -> Result<Self> {
        let mut router = Self {
            rows: Vec::new(),
            channels: Vec::new(),
            run_subject: Template::parse("subjects.run", &options.run_subject)?,
            tail: {
                let mut tail = String::from(",\"metadata\":{\"instanceId\":");
                push_string(&mut tail, &options.instance_id);
                tail + "}}"
            }
            .into(),
        };
        let flow_types: Vec<&str> = options.flow_event_types.iter().map(String::as_str).collect();
        let (any, status) = (["*"], ["flow.*", "step.*", "emit"]);
        #[rustfmt::skip]
        let built_in: [BuiltIn<'_>; 5] = [
            (options.store_sync,      "store-sync", &any,           "store-sync:append:{subject}", Some("store.append"), Shape::Append),
            (options.flow_events,     "flow",       &flow_types,    "flow:event:{runId}",          None,                 Shape::Flow),
            (options.flow_events,     "flow",       &TRIGGER_TYPES, "flow:trigger:{flowName}",     Some("flow.trigger"), Shape::Trigger),
            (options.client_messages, "client",     &any,           "client:flow:{runId}",         Some("flow.event"),   Shape::Event),
            (options.client_messages, "client",     &status,        "client:ui:flow:{flowName}",   Some("ui.flow"),      Shape::Status),
        ];
        for (enabled, name, types, topic, kind, shape) in built_in {
            if enabled {
                router.add(name, types, topic, kind, shape, "flowEventTypes")?;
            }
        }
        for (i, row) in options.channels.iter().enumerate() {
            let at = format!("channels[{i}]");
            if row.name.is_empty() || BUILT_IN.contains(&row.name.as_str()) {
                return Err(Error::invalid(format!(
                    "{at}.name: expected a name of its own, got {:?} ({} are built in)",
                    row.name,
                    BUILT_IN.join(", ")
                )));
            }
            if options.channels[..i].iter().any(|other| other.name == row.name) {
                return Err(Error::invalid(format!("{at}.name: {:?} is there twice", row.name)));
            }
            let types: Vec<&str> = row.types.iter().map(String::as_str).collect();
            router.add(&row.name, &types, &row.topic, row.kind.as_deref(), Shape::Event, &at)?;
        }
        Ok(router)
    }

    fn add(
        &mut self,
        name: &str,
        types: &[&str],
        topic: &str,
        kind: Option<&str>,
        shape: Shape,
        at: &str,
    ) -> Result<()> {
        if let Some(i) = types.iter().position(|kind| kind.is_empty()) {
            return Err(Error::invalid(format!("{at}.types[{i}]: expected a non-empty string")));
        }
        if types.is_empty() && shape == Shape::Event {
            return Err(Error::invalid(format!("{at}.types: expected at least one type; \"*\" takes all")));
        }
        if kind == Some("") {
            return Err(Error::invalid(format!(
                "{at}.type: expected a non-empty string, or nothing for the event's own"
            )));
        }
        let channel = match self.channels.iter().position(|other| **other == *name) {
            Some(channel) => channel,
            None => {
                self.channels.push(name.into());
                self.channels.len() - 1
            }
        };
        let topic = Template::parse(&format!("{at}.topic"), topic)?;
        let types = types.iter().map(|kind| Glob::new(kind)).collect();
        self.rows.push(Row { channel, types, topic, kind: kind.map(Into::into), shape });
        Ok(())
    }

    /// The names of the channels that are there.
    pub fn channels(&self) -> &[Arc<str>] {
        &self.channels
    }

    /// The messages that an event becomes, in the order of the rows, and how many rows took it but could not name
    /// their topic.
    pub fn route(&self, event: &BusEvent, statuses: &mut Statuses, now_ms: u64) -> (Vec<Routed>, u64) {
        let (mut out, mut skipped) = (Vec::new(), 0);
        let Some(facts) = self.facts(event) else { return (out, 0) };
        for row in self.rows.iter().filter(|row| row.takes(facts.event.kind())) {
            let status = match row.shape {
                Shape::Status => match facts.run_id.and_then(|run| statuses.change(run, facts.event.kind())) {
                    Some(status) => status,
                    None => continue,
                },
                _ => "",
            };
            match row.topic.render(|field| facts.field(field)) {
                Some(topic) => {
                    let kind = row.kind.as_deref().unwrap_or(facts.event.kind());
                    let json = self.message(row, kind, &facts, status, now_ms);
                    out.push(Routed { channel: row.channel, message: Message::new(&topic, kind, json.into()) });
                }
                None => skipped += 1,
            }
        }
        (out, skipped)
    }

    /// The topics on which an event would be told.
    pub fn topics(&self, event: &BusEvent) -> Vec<String> {
        let Some(facts) = self.facts(event) else { return Vec::new() };
        let kind = facts.event.kind();
        // Whether a step's event changes the status is only known when it is routed; mostly it does not.
        let is_told = |row: &&Row| row.takes(kind) && (row.shape != Shape::Status || kind.starts_with("flow."));
        self.rows.iter().filter(is_told).filter_map(|row| row.topic.render(|field| facts.field(field))).collect()
    }

    /// What keeps the events of one subject in order: the subject, or what it is taken to be. None where the event is
    /// not stored.
    pub fn lane(&self, event: &BusEvent) -> Option<Arc<str>> {
        if let Some(subject) = &event.subject {
            return Some(subject.clone());
        }
        self.facts(event).map(|facts| facts.subject.unwrap_or_default().into())
    }

    fn facts<'a>(&self, event: &'a BusEvent) -> Option<Facts<'a>> {
        let AnyEvent::Stored(stored) = &event.event else { return None };
        let subject = match &event.subject {
            Some(subject) => Some(Cow::Borrowed(&**subject)),
            None => self
                .run_subject
                .render(|field| match field {
                    "runId" => stored.run_id().map(Cow::Borrowed),
                    "flowName" => stored.flow_name().map(Cow::Borrowed),
                    _ => None,
                })
                .map(Cow::Owned),
        };
        let run_id = stored.run_id().or_else(|| event.subject.as_deref()?.rsplit(':').next());
        Some(Facts { event: stored, subject, run_id: run_id.filter(|id| !id.is_empty()), fields: OnceCell::new() })
    }

    fn message(&self, row: &Row, kind: &str, facts: &Facts<'_>, status: &str, now_ms: u64) -> String {
        let mut out = String::with_capacity(facts.event.json().len() + 256);
        out.push_str("{\"type\":");
        push_string(&mut out, kind);
        out.push_str(",\"data\":{");
        let mut separator = "";
        let mut text = |out: &mut String, key: &str, value: Option<&str>| {
            if let Some(value) = value {
                out.push_str(separator);
                push_string(out, key);
                out.push(':');
                push_string(out, value);
                separator = ",";
            }
        };
        match row.shape {
            Shape::Append => text(&mut out, "subject", facts.subject.as_deref()),
            Shape::Event => {}
            Shape::Flow => {
                text(&mut out, "runId", facts.run_id);
                text(&mut out, "flowName", facts.event.flow_name());
            }
            Shape::Trigger | Shape::Status => {
                text(&mut out, "flowName", facts.event.flow_name());
                text(&mut out, "runId", facts.run_id);
            }
        }
        match row.shape {
            Shape::Trigger => text(&mut out, "cause", Some(facts.event.kind())),
            Shape::Status => text(&mut out, "status", Some(status)),
            Shape::Append | Shape::Event | Shape::Flow => {}
        }
        out.push_str(separator);
        if row.shape == Shape::Status {
            out.push_str("\"ts\":");
            out.push_str(facts.raw("ts").unwrap_or("null"));
        } else {
            out.push_str("\"event\":");
            out.push_str(facts.event.json());
        }
        out.push_str(&format!("}},\"timestamp\":{now_ms}"));
        out.push_str(&self.tail);
        out
    }
}

impl Row {
    fn takes(&self, kind: &str) -> bool {
        self.types.iter().any(|glob| glob.matches(kind))
    }
}

/// What rows ask about one event.
struct Facts<'a> {
    event: &'a Event,
    subject: Option<Cow<'a, str>>,
    run_id: Option<&'a str>,
    /// Read once, and only where a row names a field of its own.
    fields: OnceCell<HashMap<Cow<'a, str>, &'a RawValue>>,
}

impl<'a> Facts<'a> {
    fn raw(&self, name: &str) -> Option<&'a str> {
        let fields = self.fields.get_or_init(|| serde_json::from_str(self.event.json()).unwrap_or_default());
        fields.get(name).map(|raw| raw.get())
    }

    fn field(&self, name: &str) -> Option<Cow<'a, str>> {
        match name {
            "subject" => self.subject.clone(),
            "runId" => self.run_id.map(Cow::Borrowed),
            "flowName" => self.event.flow_name().map(Cow::Borrowed),
            "type" => Some(Cow::Borrowed(self.event.kind())),
            _ => {
                let raw = self.raw(name)?;
                match raw.as_bytes().first()? {
                    b'"' => serde_json::from_str::<String>(raw).ok().map(Cow::Owned),
                    b'-' | b'0'..=b'9' => Some(Cow::Borrowed(raw)),
                    _ => None,
                }
            }
        }
    }
}

/// How many runs [`Statuses`] remembers at least; it forgets the oldest before twice as many.
const REMEMBERED_RUNS: usize = 10_000;

/// The last status told of each run, so that only changes are told. A forgotten run is told again.
#[derive(Default)]
pub struct Statuses {
    recent: HashMap<Box<str>, &'static str>,
    older: HashMap<Box<str>, &'static str>,
}

impl Statuses {
    /// The status that this event changes the run to, if it changes it. The first terminal one is final, and a stalled
    /// run that moves is running again.
    fn change(&mut self, run_id: &str, kind: &str) -> Option<&'static str> {
        let last = self.recent.get(run_id).or_else(|| self.older.get(run_id)).copied();
        let status = match (kind, last) {
            (_, Some("completed" | "failed" | "canceled")) => return None,
            ("flow.start", _) => "running",
            ("flow.completed", _) => "completed",
            ("flow.failed", _) => "failed",
            ("flow.cancel", _) => "canceled",
            ("flow.stalled", _) => "stalled",
            (kind, Some("stalled")) if kind == "emit" || kind.starts_with("step.") => "running",
            _ => return None,
        };
        if last == Some(status) {
            return None;
        }
        if self.recent.len() >= REMEMBERED_RUNS {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(run_id.into(), status);
        Some(status)
    }
}
