//! Events: ids, and records that stay the JSON text they came as.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::json::{self, Json};

/// The id of a stored event: `<ms>-<seq>`, ordered by both numbers, strictly increasing within a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventId {
    /// Milliseconds of Unix time when it was given, or of the id before it where the clock had gone back.
    pub ms: u64,
    /// Distinguishes ids of one millisecond.
    pub seq: u64,
}

impl EventId {
    /// Returns the greatest id that is less than this one.
    pub fn before(self) -> Self {
        match self.seq.checked_sub(1) {
            Some(seq) => Self { ms: self.ms, seq },
            // The stores keep both numbers as signed ones.
            None => Self { ms: self.ms.saturating_sub(1), seq: i64::MAX as u64 },
        }
    }

    /// The id that follows `last` at this time: greater than it, also when the clock went back.
    pub fn next(last: Option<Self>, now_ms: u64) -> Self {
        match last {
            Some(last) if last.ms >= now_ms => match last.seq.checked_add(1) {
                Some(seq) => Self { ms: last.ms, seq },
                None => Self { ms: last.ms + 1, seq: 0 },
            },
            _ => Self { ms: now_ms, seq: 0 },
        }
    }
}

impl EventId {
    /// How far an id may be ahead of the clock before it counts as a mistake of the clock that gave it.
    const MAX_AHEAD_MS: u64 = 3_600_000;

    /// Returns whether it was given by a clock that was far ahead. Such an id must not raise those of other subjects.
    pub(crate) fn is_far_ahead_of(self, now_ms: u64) -> bool {
        self.ms > now_ms.saturating_add(Self::MAX_AHEAD_MS)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl FromStr for EventId {
    type Err = Error;

    /// Reads `<ms>-<seq>`, or `<ms>` alone, which is `<ms>-0`.
    fn from_str(text: &str) -> Result<Self> {
        let (ms, seq) = text.split_once('-').unwrap_or((text, "0"));
        let number = |part: &str| (!part.is_empty() && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse());
        match (number(ms), number(seq)) {
            (Some(Ok(ms)), Some(Ok(seq))) => Ok(Self { ms, seq }),
            _ => Err(Error::invalid(format!(
                "{text:?} is no event id: expected <ms>-<seq>, for example 1700000000000-0"
            ))),
        }
    }
}

/// The fields of an event that routing and filtering read. Everything else stays text.
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    ts: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "runId")]
    run_id: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "flowName")]
    flow_name: Option<&'a RawValue>,
}

fn text_of(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let raw = raw?.get();
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// An event without id and ts: what a caller appends, or an ingress event on the bus.
#[derive(Debug, Clone)]
pub struct NewEvent {
    kind: Arc<str>,
    run_id: Option<Arc<str>>,
    flow_name: Option<Arc<str>>,
    /// A JSON object without `id` and `ts`.
    body: Json,
}

impl NewEvent {
    /// Reads a JSON object with a non-empty string as `type`. An `id` and a `ts` in it are left out: the store gives them.
    pub fn parse(text: &str) -> Result<Self> {
        match parse_any(text)? {
            AnyEvent::New(event) => Ok(event),
            AnyEvent::Stored(event) => {
                let mut object = json::parse_object("event", event.json())?;
                object.shift_remove("id");
                object.shift_remove("ts");
                Ok(Self {
                    kind: event.0.kind.clone(),
                    run_id: event.0.run_id.clone(),
                    flow_name: event.0.flow_name.clone(),
                    body: json::to_json(&object),
                })
            }
        }
    }

    /// The event's type.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The run it belongs to.
    pub fn run_id(&self) -> Option<&str> {
        self.run_id.as_deref()
    }

    /// The flow it belongs to.
    pub fn flow_name(&self) -> Option<&str> {
        self.flow_name.as_deref()
    }

    /// The JSON object, without id and ts.
    pub fn json(&self) -> &Json {
        &self.body
    }

    /// The record that a store keeps: `id` and `ts` first, then the fields as they came.
    pub fn persist(self, id: EventId, ts: u64) -> Event {
        let id: Box<str> = id.to_string().into();
        let rest = self.body[1..].trim_start();
        let comma = if rest.starts_with('}') { "" } else { "," };
        let json: Json = format!("{{\"id\":\"{id}\",\"ts\":{ts}{comma}{rest}").into();
        Event(Arc::new(Record { id, kind: self.kind, run_id: self.run_id, flow_name: self.flow_name, json }))
    }
}

/// A stored event. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Event(Arc<Record>);

#[derive(Debug)]
struct Record {
    id: Box<str>,
    kind: Arc<str>,
    run_id: Option<Arc<str>>,
    flow_name: Option<Arc<str>>,
    json: Json,
}

impl Event {
    /// The event's id: `<ms>-<seq>` where one of our stores gave it, any text where it came over a foreign bus.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The event's type.
    pub fn kind(&self) -> &str {
        &self.0.kind
    }

    /// The run it belongs to.
    pub fn run_id(&self) -> Option<&str> {
        self.0.run_id.as_deref()
    }

    /// The flow it belongs to.
    pub fn flow_name(&self) -> Option<&str> {
        self.0.flow_name.as_deref()
    }

    /// The whole record as JSON text.
    pub fn json(&self) -> &Json {
        &self.0.json
    }

    /// Reads a stored record.
    pub fn parse(text: &str) -> Result<Self> {
        match parse_any(text)? {
            AnyEvent::Stored(event) => Ok(event),
            AnyEvent::New(_) => Err(Error::invalid("event: a stored record needs a string as id and a number as ts")),
        }
    }
}

/// An event as it comes over a bus: stored if it has a string as `id` and a number as `ts`.
#[derive(Debug, Clone)]
pub enum AnyEvent {
    /// Without id or ts.
    New(NewEvent),
    /// With both.
    Stored(Event),
}

/// Reads an event of either kind.
pub fn parse_any(text: &str) -> Result<AnyEvent> {
    json::check_depth("event", text)?;
    let text = text.trim();
    if !text.starts_with('{') {
        return Err(Error::invalid("event: expected an object"));
    }
    let header: Header<'_> =
        serde_json::from_str(text).map_err(|e| Error::invalid(format!("event: not usable as JSON: {e}")))?;
    let kind = text_of(header.kind)
        .filter(|kind| !kind.is_empty())
        .ok_or_else(|| Error::invalid("event.type: expected a non-empty string"))?;
    let kind: Arc<str> = kind.into();
    let run_id = text_of(header.run_id).map(Arc::from);
    let flow_name = text_of(header.flow_name).map(Arc::from);
    let is_number = |raw: &RawValue| raw.get().starts_with(|c: char| c == '-' || c.is_ascii_digit());
    if header.id.is_none() && header.ts.is_none() {
        return Ok(AnyEvent::New(NewEvent { kind, run_id, flow_name, body: text.into() }));
    }
    match (text_of(header.id).filter(|id| !id.is_empty()), header.ts.is_some_and(is_number)) {
        (Some(id), true) => Ok(AnyEvent::Stored(Event(Arc::new(Record {
            id: id.as_ref().into(),
            kind,
            run_id,
            flow_name,
            json: text.into(),
        })))),
        _ => {
            // Half of what makes a record (`id: undefined`, a `ts` of one's own) is no record: both go.
            let mut object = json::parse_object("event", text)?;
            object.shift_remove("id");
            object.shift_remove("ts");
            Ok(AnyEvent::New(NewEvent { kind, run_id, flow_name, body: json::to_json(&object) }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_increase_when_the_clock_goes_back() {
        let first = EventId::next(None, 1_000);
        let second = EventId::next(Some(first), 900);
        assert_eq!((first.to_string(), second.to_string()), ("1000-0".into(), "1000-1".into()));
        assert!(EventId::next(Some(second), 1_001) > second);
        assert!(EventId::next(Some(EventId { ms: 5, seq: u64::MAX }), 5) > EventId { ms: 5, seq: u64::MAX });
    }

    #[test]
    fn ids_compare_as_numbers() {
        let parse = |text: &str| text.parse::<EventId>().unwrap();
        assert!(parse("10-10") > parse("10-9"));
        assert!(parse("9-0") < parse("10-0"));
        for bad in ["", "x", "1-", "-1", "1-2-3", "+1-0", "1 -0"] {
            assert!(bad.parse::<EventId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_record_keeps_every_field_in_order_and_gets_id_and_ts() {
        let event = NewEvent::parse(r#"{"type":"a","z":1,"a":{"k":[null]},"id":"mine","ts":5}"#).unwrap();
        let stored = event.persist(EventId { ms: 7, seq: 1 }, 7);
        assert_eq!(&**stored.json(), r#"{"id":"7-1","ts":7,"type":"a","z":1,"a":{"k":[null]}}"#);
        assert_eq!(Event::parse(stored.json()).unwrap().id(), "7-1");
    }

    #[test]
    fn half_a_record_is_an_ingress_event() {
        assert!(matches!(parse_any(r#"{"type":"a","ts":5}"#).unwrap(), AnyEvent::New(_)));
        assert!(matches!(parse_any(r#"{"type":"a","id":"1-0","ts":5}"#).unwrap(), AnyEvent::Stored(_)));
    }

    #[test]
    fn a_type_is_needed() {
        for bad in ["{}", r#"{"type":""}"#, r#"{"type":5}"#, "[]", "null", "{"] {
            assert_eq!(NewEvent::parse(bad).unwrap_err().code(), crate::error::Code::Invalid, "{bad}");
        }
    }
}
