//! The routing table: which events are published on which topics, as which messages. A new channel is a row.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::bus::BusEvent;
use crate::error::{Error, Result};
use crate::event::{AnyEvent, Event};
use crate::json::push_string;
use crate::stream::Message;
use crate::topic::Glob;
use crate::wiring::run_status::RunStatusTracker;
use crate::wiring::template::Template;

/// Options of the channels.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ChannelOptions {
    /// The channel `store-sync`.
    #[serde(rename = "enableStoreSync")]
    pub store_sync: bool,
    /// The channel `flow`.
    #[serde(rename = "enableFlowEvents")]
    pub flow_events: bool,
    /// The channel `client`.
    #[serde(rename = "enableClientMessages")]
    pub client_messages: bool,
    /// Globs of the types published on `flow:event:{runId}`.
    pub flow_event_types: Vec<String>,
    /// User-defined rows.
    pub channels: Vec<ChannelDefinition>,
    /// The subject of a persisted event that was published without one.
    pub run_subject: String,
    /// `metadata.instanceId` of every message.
    pub instance_id: String,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self::new("")
    }
}

impl ChannelOptions {
    /// Returns the defaults for this instance.
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

/// A user-defined row. The data of its messages is `{ event }`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelDefinition {
    /// The name under which it is counted.
    pub name: String,
    /// Globs of the event types that it matches.
    pub types: Vec<String>,
    /// The template of its topic, with fields of the event in braces.
    pub topic: String,
    /// The type of its messages. None is the event's own.
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

/// The default of [`ChannelOptions::flow_event_types`].
pub const FLOW_EVENT_TYPES: [&str; 6] =
    ["flow.start", "flow.completed", "flow.failed", "flow.cancel", "flow.stalled", "emit"];

/// Types published on `flow:trigger:{flowName}`: terminal events and emits.
const TRIGGER_TYPES: [&str; 4] = ["flow.completed", "flow.failed", "flow.cancel", "emit"];

/// The data of a row's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PayloadKind {
    /// `{ subject, event }`
    Append,
    /// `{ runId, flowName, event }`
    Flow,
    /// `{ flowName, runId, cause, event }`
    Trigger,
    /// `{ event }`
    Event,
    /// `{ flowName, runId, status, ts }`, published when the status of the run changes.
    Status,
}

struct ChannelRule {
    /// Index into [`Router::channels`].
    channel: usize,
    types: Box<[Glob]>,
    topic: Template,
    /// None: the event's own type.
    kind: Option<Box<str>>,
    payload: PayloadKind,
}

/// Whether it is enabled, channel, types, topic, message type and payload.
type BuiltIn<'a> = (bool, &'a str, &'a [&'a str], &'a str, Option<&'a str>, PayloadKind);

/// An event of a feed to route.
pub struct FeedEvent<'a> {
    /// The event.
    pub event: &'a BusEvent,
    /// Where it is in the feed.
    pub position: &'a str,
    /// The instance that appended it. None: it is not known, and taken for this one.
    pub appended_by: Option<&'a Arc<str>>,
}

/// A message and the channel that it is counted for.
#[derive(Debug)]
pub struct Routed {
    /// Index into [`Router::channels`].
    pub channel: usize,
    /// The message.
    pub message: Message,
}

/// The compiled table.
pub struct Router {
    rows: Vec<ChannelRule>,
    channels: Vec<Arc<str>>,
    run_subject: Template,
    instance: Arc<str>,
}

impl Router {
    /// Compiles the table.
    ///
    /// # Errors
    /// [`crate::error::Code::Invalid`], naming the option.
    pub fn new(options: &ChannelOptions) -> Result<Self> {
        let mut router = Self {
            rows: Vec::new(),
            channels: Vec::new(),
            run_subject: Template::parse("subjects.run", &options.run_subject)?,
            instance: options.instance_id.as_str().into(),
        };
        let flow_types: Vec<&str> = options.flow_event_types.iter().map(String::as_str).collect();
        let (any, status) = (["*"], ["flow.*", "step.*", "emit"]);
        #[rustfmt::skip]
        let built_in: &[BuiltIn<'_>] = &[
            (options.store_sync,      "store-sync", &any,           "store-sync:append:{subject}", Some("store.append"), PayloadKind::Append),
            (options.flow_events,     "flow",       &flow_types,    "flow:event:{runId}",          None,                 PayloadKind::Flow),
            (options.flow_events,     "flow",       &TRIGGER_TYPES, "flow:trigger:{flowName}",     Some("flow.trigger"), PayloadKind::Trigger),
            (options.client_messages, "client",     &any,           "client:flow:{runId}",         Some("flow.event"),   PayloadKind::Event),
            (options.client_messages, "client",     &status,        "client:ui:flow:{flowName}",   Some("ui.flow"),      PayloadKind::Status),
        ];
        for &(enabled, name, types, topic, kind, payload) in built_in {
            if enabled {
                router.add(name, types, topic, kind, payload, "flowEventTypes")?;
            }
        }
        for (i, row) in options.channels.iter().enumerate() {
            let at = format!("channels[{i}]");
            if row.name.is_empty() || built_in.iter().any(|(_, name, ..)| *name == row.name) {
                let mut names: Vec<&str> = built_in.iter().map(|(_, name, ..)| *name).collect();
                names.dedup();
                return Err(Error::invalid(format!(
                    "{at}.name: {:?} is not usable: expected a non-empty name other than the built-in {}",
                    row.name,
                    names.join(", ")
                )));
            }
            if options.channels[..i].iter().any(|other| other.name == row.name) {
                return Err(Error::invalid(format!("{at}.name: {:?} is used by another channel", row.name)));
            }
            let types: Vec<&str> = row.types.iter().map(String::as_str).collect();
            router.add(&row.name, &types, &row.topic, row.kind.as_deref(), PayloadKind::Event, &at)?;
        }
        Ok(router)
    }

    fn add(
        &mut self,
        name: &str,
        types: &[&str],
        topic: &str,
        kind: Option<&str>,
        payload: PayloadKind,
        at: &str,
    ) -> Result<()> {
        if let Some(i) = types.iter().position(|kind| kind.is_empty()) {
            return Err(Error::invalid(format!("{at}.types[{i}]: expected a non-empty string")));
        }
        if types.is_empty() && payload == PayloadKind::Event {
            return Err(Error::invalid(format!("{at}.types: expected at least one type; \"*\" matches all")));
        }
        if kind == Some("") {
            return Err(Error::invalid(format!(
                "{at}.type: expected a non-empty string; omit it to use the event's type"
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
        self.rows.push(ChannelRule { channel, types, topic, kind: kind.map(Into::into), payload });
        Ok(())
    }

    /// Returns the name of this instance.
    pub fn instance(&self) -> &Arc<str> {
        &self.instance
    }

    /// Returns the names of the enabled channels.
    pub fn channels(&self) -> &[Arc<str>] {
        &self.channels
    }

    /// Returns globs of the topics that messages are published on, each once.
    pub fn topic_globs(&self) -> Vec<Arc<str>> {
        let mut globs: Vec<Arc<str>> = self.rows.iter().map(|row| row.topic.glob().into()).collect();
        globs.sort_unstable();
        globs.dedup();
        globs
    }

    /// Returns the messages of an event in the order of the rows, and the number of rows that matched it but could not
    /// render their topic.
    pub fn route(&self, event: &BusEvent, statuses: &mut RunStatusTracker, now_ms: u64) -> (Vec<Routed>, u64) {
        self.route_with(event, None, statuses, now_ms, |_, _| false)
    }

    /// Routes an event of a feed: the metadata of its messages has the event's id and its position in the feed, and names the
    /// instance that appended it. Where `skip` returns true for a channel and a topic, no message is made.
    pub fn route_at(
        &self,
        at: &FeedEvent<'_>,
        statuses: &mut RunStatusTracker,
        now_ms: u64,
        skip: impl FnMut(usize, &str) -> bool,
    ) -> (Vec<Routed>, u64) {
        self.route_with(at.event, Some(at), statuses, now_ms, skip)
    }

    fn route_with(
        &self,
        event: &BusEvent,
        at: Option<&FeedEvent<'_>>,
        statuses: &mut RunStatusTracker,
        now_ms: u64,
        mut skip: impl FnMut(usize, &str) -> bool,
    ) -> (Vec<Routed>, u64) {
        let (mut out, mut skipped) = (Vec::new(), 0);
        let Some(view) = self.view(event) else { return (out, 0) };
        let other = at.and_then(|at| at.appended_by).filter(|instance| **instance != self.instance);
        let mut metadata = String::new();
        for row in self.rows.iter().filter(|row| row.matches(view.event.kind())) {
            let status = match row.payload {
                PayloadKind::Status => {
                    match view.run_id.and_then(|run| statuses.change(run, view.event.kind(), view.event.id())) {
                        Some(status) => status,
                        None => continue,
                    }
                }
                _ => "",
            };
            match row.topic.render(|field| view.field(field)) {
                Some(topic) if skip(row.channel, &topic) => {}
                Some(topic) => {
                    if metadata.is_empty() {
                        self.push_metadata(&mut metadata, view.event.id(), at, other);
                    }
                    let kind = row.kind.as_deref().unwrap_or(view.event.kind());
                    let json = self.message(row, kind, &view, status, &metadata, now_ms);
                    let message = Message::on_behalf_of(other.cloned(), &topic, kind, json.into());
                    out.push(Routed { channel: row.channel, message });
                }
                None => skipped += 1,
            }
        }
        (out, skipped)
    }

    fn push_metadata(&self, out: &mut String, event_id: &str, at: Option<&FeedEvent<'_>>, other: Option<&Arc<str>>) {
        out.push_str(",\"metadata\":{\"instanceId\":");
        push_string(out, other.unwrap_or(&self.instance));
        if let Some(at) = at {
            out.push_str(",\"eventId\":");
            push_string(out, event_id);
            out.push_str(",\"position\":");
            push_string(out, at.position);
        }
    }

    /// Returns the topics on which an event would be published.
    pub fn topics(&self, event: &BusEvent) -> Vec<String> {
        let Some(view) = self.view(event) else { return Vec::new() };
        let kind = view.event.kind();
        // Whether a step's event changes the status is known only when it is routed; mostly it does not.
        let is_affected =
            |row: &&ChannelRule| row.matches(kind) && (row.payload != PayloadKind::Status || kind.starts_with("flow."));
        self.rows.iter().filter(is_affected).filter_map(|row| row.topic.render(|field| view.field(field))).collect()
    }

    /// Returns the partition of an event, within which order is kept: its subject. None where the event is not stored.
    pub fn partition(&self, event: &BusEvent) -> Option<Arc<str>> {
        if let Some(subject) = &event.subject {
            return Some(subject.clone());
        }
        self.view(event).map(|view| view.subject.unwrap_or_default().into())
    }

    fn view<'a>(&self, event: &'a BusEvent) -> Option<EventView<'a>> {
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
        Some(EventView { event: stored, subject, run_id: run_id.filter(|id| !id.is_empty()), fields: OnceCell::new() })
    }

    fn message(
        &self,
        row: &ChannelRule,
        kind: &str,
        view: &EventView<'_>,
        status: &str,
        metadata: &str,
        now_ms: u64,
    ) -> String {
        let mut out = String::with_capacity(view.event.json().len() + 256);
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
        match row.payload {
            PayloadKind::Append => text(&mut out, "subject", view.subject.as_deref()),
            PayloadKind::Event => {}
            PayloadKind::Flow => {
                text(&mut out, "runId", view.run_id);
                text(&mut out, "flowName", view.event.flow_name());
            }
            PayloadKind::Trigger | PayloadKind::Status => {
                text(&mut out, "flowName", view.event.flow_name());
                text(&mut out, "runId", view.run_id);
            }
        }
        match row.payload {
            PayloadKind::Trigger => text(&mut out, "cause", Some(view.event.kind())),
            PayloadKind::Status => text(&mut out, "status", Some(status)),
            PayloadKind::Append | PayloadKind::Event | PayloadKind::Flow => {}
        }
        out.push_str(separator);
        if row.payload == PayloadKind::Status {
            out.push_str("\"ts\":");
            out.push_str(view.raw("ts").unwrap_or("null"));
        } else {
            out.push_str("\"event\":");
            out.push_str(view.event.json());
        }
        out.push_str(&format!("}},\"timestamp\":{now_ms}"));
        out.push_str(metadata);
        out.push_str("}}");
        out
    }
}

impl ChannelRule {
    fn matches(&self, kind: &str) -> bool {
        self.types.iter().any(|glob| glob.matches(kind))
    }
}

/// The fields of an event that rows read.
struct EventView<'a> {
    event: &'a Event,
    subject: Option<Cow<'a, str>>,
    run_id: Option<&'a str>,
    /// Parsed once, when a row first reads a field that has no accessor.
    fields: OnceCell<HashMap<Cow<'a, str>, &'a RawValue>>,
}

impl<'a> EventView<'a> {
    fn raw(&self, name: &str) -> Option<&'a str> {
        let fields = self.fields.get_or_init(|| serde_json::from_str(self.event.json()).unwrap_or_default());
        fields.get(name).map(|raw| raw.get())
    }

    /// Returns the value at a dotted path.
    fn raw_at(&self, path: &str) -> Option<&'a str> {
        let mut segments = path.split('.');
        let mut raw = self.raw(segments.next()?)?;
        for segment in segments {
            let fields: HashMap<Cow<'a, str>, &'a RawValue> = serde_json::from_str(raw).ok()?;
            raw = fields.get(segment)?.get();
        }
        Some(raw)
    }

    fn field(&self, name: &str) -> Option<Cow<'a, str>> {
        match name {
            "subject" => self.subject.clone(),
            "runId" => self.run_id.map(Cow::Borrowed),
            "flowName" => self.event.flow_name().map(Cow::Borrowed),
            "type" => Some(Cow::Borrowed(self.event.kind())),
            _ => {
                let raw = self.raw(name).or_else(|| self.raw_at(name))?;
                match raw.as_bytes().first()? {
                    b'"' => serde_json::from_str::<String>(raw).ok().map(Cow::Owned),
                    b'-' | b'0'..=b'9' => Some(Cow::Borrowed(raw)),
                    _ => None,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn event(subject: Option<&str>, json: Value) -> BusEvent {
        BusEvent { subject: subject.map(Into::into), event: AnyEvent::Stored(Event::parse(&json.to_string()).unwrap()) }
    }

    fn router(change: impl FnOnce(&mut ChannelOptions)) -> Router {
        let mut options = ChannelOptions { client_messages: true, ..ChannelOptions::new("me") };
        change(&mut options);
        Router::new(&options).unwrap()
    }

    #[test]
    fn a_message_of_the_feed_has_its_position_and_the_instance_that_appended_the_event() {
        let router = router(|options| (options.flow_events, options.client_messages) = (false, false));
        let event = event(Some("s"), json!({ "id": "1-0", "ts": 1, "type": "t" }));
        let (me, other) = ("me".into(), "other".into());
        for (appended_by, instance, on_behalf_of) in
            [(None, "me", None), (Some(&me), "me", None), (Some(&other), "other", Some(&other))]
        {
            let at = FeedEvent { event: &event, position: "p", appended_by };
            let (routed, _) = router.route_at(&at, &mut RunStatusTracker::default(), 7, |_, _| false);
            let message: Value = serde_json::from_str(routed[0].message.json()).unwrap();
            assert_eq!(message["metadata"], json!({ "instanceId": instance, "eventId": "1-0", "position": "p" }));
            assert_eq!(routed[0].message.instance(), on_behalf_of);
        }
    }

    #[test]
    fn the_topics_of_an_event_are_those_that_it_would_be_published_on() {
        let router = router(|_| {});
        let topics = |kind: &str| {
            router.topics(&event(Some("nq:r1"), json!({ "id": "1-0", "ts": 1, "type": kind, "flowName": "order" })))
        };
        let (append, client) = ("store-sync:append:nq:r1", "client:flow:r1");
        assert_eq!(topics("step.completed"), [append, client]);
        let (flow, trigger, ui) = ("flow:event:r1", "flow:trigger:order", "client:ui:flow:order");
        assert_eq!(topics("flow.completed"), [append, flow, trigger, client, ui]);
        assert!(router.topic_globs().is_sorted());
        let globs = with_rows(&["x:{runId}", "x:{type}"]).topic_globs();
        assert_eq!(globs.iter().filter(|glob| ***glob == *"x:*").count(), 1);
    }

    fn with_rows(topics: &[&str]) -> Router {
        router(|options| {
            let row = |topic: &&str| ChannelDefinition {
                name: format!("on {topic}"),
                types: vec!["*".into()],
                topic: (*topic).into(),
                kind: None,
            };
            options.channels = topics.iter().map(row).collect();
        })
    }

    #[test]
    fn a_topic_has_fields_of_the_event_at_any_depth() {
        let event = event(
            Some("s"),
            json!({
                "id": "1-0", "ts": 1, "type": "paid", "flowName": "f", "n": -5, "flag": true, "a.b": "dotted",
                "order": { "id": "o", "by": { "name": "n" } },
            }),
        );
        let topic = |template: &str| {
            let topics = with_rows(&[template]).topics(&event);
            topics.into_iter().find_map(|topic| topic.strip_prefix("x:").map(str::to_owned))
        };
        for (field, expected) in [
            ("type", "paid"),
            ("flowName", "f"),
            ("subject", "s"),
            ("n", "-5"),
            ("a.b", "dotted"),
            ("order.id", "o"),
            ("order.by.name", "n"),
        ] {
            assert_eq!(topic(&format!("x:{{{field}}}")).as_deref(), Some(expected), "{field}");
        }
        for field in ["flag", "order", "order.by", "order.id.x", "order.none", "none"] {
            assert_eq!(topic(&format!("x:{{{field}}}")), None, "{field}");
        }
    }

    #[test]
    fn an_event_without_a_subject_belongs_to_that_of_its_run() {
        let router = router(|options| options.run_subject = "nq:{flowName}:{runId}".into());
        let run = json!({ "id": "1-0", "ts": 1, "type": "t", "runId": "r", "flowName": "f" });
        assert_eq!(router.partition(&event(Some("s"), run.clone())).as_deref(), Some("s"));
        assert_eq!(router.partition(&event(None, run)).as_deref(), Some("nq:f:r"));
        // A subject that ends with a colon names no run.
        let no_run = event(Some("flows:"), json!({ "id": "1-0", "ts": 1, "type": "emit", "flowName": "f" }));
        let (routed, _) = router.route(&no_run, &mut RunStatusTracker::default(), 7);
        let trigger = routed.iter().find(|routed| **routed.message.topic() == *"flow:trigger:f").unwrap();
        let message: Value = serde_json::from_str(trigger.message.json()).unwrap();
        assert_eq!(message["data"].get("runId"), None);
    }
}
