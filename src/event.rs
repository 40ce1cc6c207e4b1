//! Events: ids, and records that stay the JSON text they came as.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
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

    /// Returns the id that follows `last` at this time: greater than it, also when the clock went back.
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

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(|e: Error| D::Error::custom(e.message()))
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
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    ts: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "runId")]
    run_id: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "flowName")]
    flow_name: Option<&'a RawValue>,
}

/// Reads a field that is there, as null too.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn text_of(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let raw = raw?.get();
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// Returns JSON in which each half of a surrogate pair, which has no UTF-8, is replaced by U+FFFD, so that it can be parsed.
/// JavaScript writes them as escapes. What is stored and passed on keeps them.
pub fn parseable(json: &str) -> Cow<'_, str> {
    let (low, high) = (0xDC00..=0xDFFF, 0xD800..=0xDBFF);
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(found) = json.get(at..).and_then(|rest| rest.find('\\')) {
        at += found;
        at += match (escaped_unit(json, at), escaped_unit(json, at + UNIT_LEN)) {
            (Some(first), Some(second)) if high.contains(&first) && low.contains(&second) => 2 * UNIT_LEN,
            (Some(half), _) if high.contains(&half) || low.contains(&half) => {
                out.push_str(&json[copied..at]);
                out.push_str("\\ufffd");
                copied = at + UNIT_LEN;
                UNIT_LEN
            }
            // The character after a backslash is no backslash that begins an escape.
            _ => 2,
        };
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    out.push_str(&json[copied..]);
    Cow::Owned(out)
}

/// The length of a code unit as an escape.
const UNIT_LEN: usize = 6;

/// Returns the code unit that JSON has as an escape at a place.
fn escaped_unit(json: &str, at: usize) -> Option<u16> {
    let digits = json.get(at..at + UNIT_LEN)?.strip_prefix("\\u")?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
}

/// Returns the fields of an event in their order, each value as raw JSON.
pub fn fields(event: &str) -> Result<Vec<(String, &RawValue)>> {
    struct Fields;
    impl<'de> Visitor<'de> for Fields {
        type Value = Vec<(String, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut fields = Vec::new();
            while let Some(field) = map.next_entry()? {
                fields.push(field);
            }
            Ok(fields)
        }
    }
    serde_json::Deserializer::from_str(event)
        .deserialize_map(Fields)
        .map_err(|e| Error::invalid(format!("event: not usable as JSON: {e}")))
}

/// A part of an event's text: the value of a header field that is a string. An event has a few million of them in memory,
/// so that each costs eight bytes and no allocation.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    len: u32,
}

impl Span {
    const NONE: Self = Self { start: 0, len: u32::MAX };

    /// Returns where `part`, a slice of `text`, is in it.
    fn of(text: &str, part: Option<&str>) -> Self {
        let Some(part) = part else { return Self::NONE };
        let start = part.as_ptr().addr() - text.as_ptr().addr();
        Self { start: start as u32, len: part.len() as u32 }
    }

    fn shifted(self, by: i64) -> Self {
        if self.len == u32::MAX { self } else { Self { start: (i64::from(self.start) + by) as u32, ..self } }
    }

    fn in_text(self, text: &str) -> Option<&str> {
        if self.len == u32::MAX {
            return None;
        }
        text.get(self.start as usize..(self.start + self.len) as usize)
    }
}

/// Where the header fields are in an event's text, or their values where the text has them with escapes.
#[derive(Debug, Clone)]
struct Fields {
    kind: Span,
    run_id: Span,
    flow_name: Span,
    escaped: Option<Box<Escaped>>,
}

/// Header fields that the text has with escapes.
#[derive(Debug, Clone)]
struct Escaped {
    id: Option<Box<str>>,
    kind: Box<str>,
    run_id: Option<Box<str>>,
    flow_name: Option<Box<str>>,
}

impl Fields {
    /// Finds the fields, which are slices of `text` or were written with escapes.
    fn new(text: &str, [id, kind, run_id, flow_name]: [Option<&Cow<'_, str>>; 4]) -> Self {
        let span = |value: Option<&Cow<'_, str>>| Span::of(text, value.map(AsRef::as_ref));
        let is_owned = |value: &&Cow<'_, str>| matches!(value, Cow::Owned(_));
        if [id, kind, run_id, flow_name].into_iter().flatten().any(|value| is_owned(&value)) {
            let boxed = |value: Option<&Cow<'_, str>>| value.map(|value| Box::from(value.as_ref()));
            let escaped = Escaped {
                id: boxed(id),
                kind: boxed(kind).unwrap_or_default(),
                run_id: boxed(run_id),
                flow_name: boxed(flow_name),
            };
            return Self {
                kind: Span::NONE,
                run_id: Span::NONE,
                flow_name: Span::NONE,
                escaped: Some(Box::new(escaped)),
            };
        }
        Self { kind: span(kind), run_id: span(run_id), flow_name: span(flow_name), escaped: None }
    }

    fn shifted(self, by: i64) -> Self {
        Self {
            kind: self.kind.shifted(by),
            run_id: self.run_id.shifted(by),
            flow_name: self.flow_name.shifted(by),
            escaped: self.escaped,
        }
    }

    fn kind<'a>(&'a self, text: &'a str) -> &'a str {
        match &self.escaped {
            Some(escaped) => &escaped.kind,
            None => self.kind.in_text(text).unwrap_or_default(),
        }
    }

    fn run_id<'a>(&'a self, text: &'a str) -> Option<&'a str> {
        match &self.escaped {
            Some(escaped) => escaped.run_id.as_deref(),
            None => self.run_id.in_text(text),
        }
    }

    fn flow_name<'a>(&'a self, text: &'a str) -> Option<&'a str> {
        match &self.escaped {
            Some(escaped) => escaped.flow_name.as_deref(),
            None => self.flow_name.in_text(text),
        }
    }
}

/// An event without id and ts: what a caller appends, or an ingress event on the bus.
#[derive(Debug, Clone)]
pub struct NewEvent {
    fields: Fields,
    /// A JSON object without `id` and `ts`.
    body: Json,
}

impl NewEvent {
    /// Reads a JSON object with a non-empty string as `type`. An `id` and a `ts` in it are left out: the store gives them.
    pub fn parse(text: &str) -> Result<Self> {
        match parse_any(text)? {
            AnyEvent::New(event) => Ok(event),
            AnyEvent::Stored(event) => Self::without_id(event.json()),
        }
    }

    /// Reads an event that has an id or a ts, and leaves both out.
    fn without_id(text: &str) -> Result<Self> {
        let fields = fields(text)?;
        let mut body = String::with_capacity(text.len());
        for (name, value) in fields.iter().filter(|(name, _)| !["id", "ts"].contains(&name.as_str())) {
            body.push(if body.is_empty() { '{' } else { ',' });
            json::push_string(&mut body, name);
            body.push(':');
            body.push_str(value.get());
        }
        body.push('}');
        match parse_any(&body)? {
            AnyEvent::New(event) => Ok(event),
            AnyEvent::Stored(_) => Err(Error::internal("an event without id and ts was read as a stored one")),
        }
    }

    /// Returns the event's type.
    pub fn kind(&self) -> &str {
        self.fields.kind(&self.body)
    }

    /// Returns the run it belongs to.
    pub fn run_id(&self) -> Option<&str> {
        self.fields.run_id(&self.body)
    }

    /// Returns the flow it belongs to.
    pub fn flow_name(&self) -> Option<&str> {
        self.fields.flow_name(&self.body)
    }

    /// Returns the JSON object, without id and ts.
    pub fn json(&self) -> &Json {
        &self.body
    }

    /// Returns the record that a store keeps: `id` and `ts` first, then the fields as they came.
    pub fn persist(self, id: EventId, ts: u64) -> Event {
        let rest = self.body[1..].trim_start();
        let comma = if rest.starts_with('}') { "" } else { "," };
        let mut text = String::with_capacity(rest.len() + 64);
        // Writing to a string does not fail.
        _ = write!(text, "{OPENING}{id}");
        let id = Span { start: OPENING.len() as u32, len: (text.len() - OPENING.len()) as u32 };
        _ = write!(text, "\",\"ts\":{ts}{comma}");
        let shift = text.len() as i64 - (self.body.len() - rest.len()) as i64;
        text.push_str(rest);
        Event(Arc::new(Record { id, fields: self.fields.shifted(shift), json: text.into() }))
    }
}

/// What a record's text begins with.
const OPENING: &str = "{\"id\":\"";

/// A stored event. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Event(Arc<Record>);

#[derive(Debug)]
struct Record {
    id: Span,
    fields: Fields,
    json: Json,
}

impl Event {
    /// Returns the event's id: `<ms>-<seq>` where one of our stores gave it, any text where it came over a foreign bus.
    pub fn id(&self) -> &str {
        let Record { id, fields, json } = &*self.0;
        // An id that a store gave has no escapes, whatever the other fields have.
        let escaped = fields.escaped.as_ref().and_then(|escaped| escaped.id.as_deref());
        escaped.or_else(|| id.in_text(json)).unwrap_or_default()
    }

    /// Returns the event's type.
    pub fn kind(&self) -> &str {
        self.0.fields.kind(&self.0.json)
    }

    /// Returns the run it belongs to.
    pub fn run_id(&self) -> Option<&str> {
        self.0.fields.run_id(&self.0.json)
    }

    /// Returns the flow it belongs to.
    pub fn flow_name(&self) -> Option<&str> {
        self.0.fields.flow_name(&self.0.json)
    }

    /// Returns when it was stored, in ms of Unix time. None where the record has no number.
    pub fn ts(&self) -> Option<f64> {
        let fields = fields(self.json()).unwrap_or_default();
        fields.iter().find(|(name, _)| name == "ts").and_then(|(_, ts)| ts.get().parse().ok())
    }

    /// Returns the whole record as JSON text.
    pub fn json(&self) -> &Json {
        &self.0.json
    }

    /// Returns the record's `id` and `ts` as JSON, for a caller that has the rest: the id alone where its time is the ts, else
    /// `[id, ts]`. The whole record where it does not begin with these two, which only one of another program's does not.
    pub fn stamp_json(&self) -> String {
        const TS: &str = "\",\"ts\":";
        let json = &*self.0.json;
        let id = self.0.id.in_text(json).filter(|_| self.0.id.start as usize == OPENING.len());
        let Some(id) = id else { return json.into() };
        let rest = json.get(OPENING.len() + id.len()..).and_then(|rest| rest.strip_prefix(TS));
        let Some((rest, end)) = rest.and_then(|rest| Some((rest, rest.find([',', '}'])?))) else { return json.into() };
        let ts = &rest[..end];
        match id.strip_prefix(ts) {
            Some(seq) if seq.starts_with('-') => format!("\"{id}\""),
            _ => format!("[\"{id}\",{ts}]"),
        }
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
    if u32::try_from(text.len()).is_err() {
        return Err(Error::invalid("event: more than 4 GiB of JSON"));
    }
    let (run_id, flow_name) = (text_of(header.run_id), text_of(header.flow_name));
    let fields = |id| Fields::new(text, [id, Some(&kind), run_id.as_ref(), flow_name.as_ref()]);
    let is_number = |raw: &RawValue| raw.get().starts_with(|c: char| c == '-' || c.is_ascii_digit());
    if header.id.is_none() && header.ts.is_none() {
        return Ok(AnyEvent::New(NewEvent { fields: fields(None), body: text.into() }));
    }
    match (text_of(header.id).filter(|id| !id.is_empty()), header.ts.is_some_and(is_number)) {
        (Some(id), true) => {
            let at = if let Cow::Borrowed(id) = &id { Span::of(text, Some(id)) } else { Span::NONE };
            Ok(AnyEvent::Stored(Event(Arc::new(Record { id: at, fields: fields(Some(&id)), json: text.into() }))))
        }
        // Half of what makes a record (`id: undefined`, a `ts` of one's own) is no record: both go.
        _ => NewEvent::without_id(text).map(AnyEvent::New),
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
    fn halves_of_surrogate_pairs_are_replaced_to_be_parsed() {
        for (json, expected) in [
            (r#""plain é""#, r#""plain é""#),
            (r#""\ud83d\ude00 \u00e9 \\ud800 \"""#, r#""\ud83d\ude00 \u00e9 \\ud800 \"""#),
            (r#""a\ud800b\uDFFF""#, r#""a\ufffdb\ufffd""#),
            (r#""\ud800\ud83d\ude00é\ud800""#, r#""\ufffd\ud83d\ude00é\ufffd""#),
            (r#""\ud800\\\udc00""#, r#""\ufffd\\\ufffd""#),
            // No JSON: left to the parser.
            (r"\u12", r"\u12"),
            (r"é\", r"é\"),
            (r"\é", r"\é"),
        ] {
            assert_eq!(parseable(json), expected);
        }
        assert!(serde_json::from_str::<String>(&parseable(r#""x\ud800""#)).is_ok());
    }

    #[test]
    fn an_event_loses_its_id_and_nothing_else() {
        let event = r#"{ "id":"1-0", "type":"a", "n":1e400, "data":{ "id":7, "half":"x\udc00" }, "ts":5 }"#;
        let expected = r#"{"type":"a","n":1e400,"data":{ "id":7, "half":"x\udc00" }}"#;
        assert_eq!(&**NewEvent::parse(event).unwrap().json(), expected);
        assert_eq!(&**NewEvent::parse(r#"{"id":"1-0","type":"a"}"#).unwrap().json(), r#"{"type":"a"}"#);
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
    fn header_fields_are_read_from_the_text_before_and_after_it_is_stored() {
        for text in [
            r#"{"type":"a","runId":"r","flowName":"f"}"#,
            r#" {  "flowName" : "f", "x": {"type": "no"}, "runId":"r","type":"a" } "#,
            r#"{"type":"\u0061","runId":"r","flowName":"f"}"#,
            r#"{"type":"a","runId":"\u0072","flowName":"f","id":null}"#,
            r#"{"type":"a","runId":"r","flowName":"\u0066","ts":1}"#,
        ] {
            let event = NewEvent::parse(text).unwrap();
            assert_eq!((event.kind(), event.run_id(), event.flow_name()), ("a", Some("r"), Some("f")), "{text}");
            let stored = event.persist(EventId { ms: 7, seq: 1 }, 7);
            for stored in [&stored, &Event::parse(stored.json()).unwrap()] {
                assert_eq!((stored.id(), stored.kind()), ("7-1", "a"), "{text}");
                assert_eq!((stored.run_id(), stored.flow_name()), (Some("r"), Some("f")), "{text}");
                assert_eq!(stored.stamp_json(), r#""7-1""#, "{text}");
            }
        }
        let foreign = Event::parse(r#"{"type":"ä","id":"\u0061/1","ts":5,"runId":5}"#).unwrap();
        assert_eq!(foreign.stamp_json(), &**foreign.json());
        let behind = NewEvent::parse(r#"{"type":"a"}"#).unwrap().persist(EventId { ms: 70, seq: 0 }, 7);
        assert_eq!(behind.stamp_json(), r#"["70-0",7]"#, "the clock went back");
        assert_eq!((foreign.id(), foreign.kind(), foreign.run_id(), foreign.flow_name()), ("a/1", "ä", None, None));
    }

    #[test]
    fn half_a_record_is_an_ingress_event() {
        assert!(matches!(parse_any(r#"{"type":"a","ts":5}"#).unwrap(), AnyEvent::New(_)));
        assert!(matches!(parse_any(r#"{"type":"a","id":"1-0"}"#).unwrap(), AnyEvent::New(_)));
        assert!(matches!(parse_any(r#"{"type":"a","id":"1-0","ts":"5"}"#).unwrap(), AnyEvent::New(_)));
        for ts in ["5", "-5", "0.5"] {
            let stored = parse_any(&format!(r#"{{"type":"a","id":"1-0","ts":{ts}}}"#)).unwrap();
            assert!(matches!(stored, AnyEvent::Stored(_)), "{ts}");
        }
    }

    #[test]
    fn an_id_is_far_ahead_where_it_is_more_than_an_hour_later_than_the_clock() {
        let id = |ms: u64| EventId { ms, seq: 0 };
        assert!(!id(3_601_000).is_far_ahead_of(1_000) && id(3_601_001).is_far_ahead_of(1_000));
        assert!(!id(0).is_far_ahead_of(1_000) && !id(u64::MAX).is_far_ahead_of(u64::MAX));
    }

    #[test]
    fn an_event_that_is_nested_too_deeply_is_refused() {
        let event = |levels: usize| format!(r#"{{"type":"a","x":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        assert!(NewEvent::parse(&event(json::MAX_DEPTH - 1)).is_ok());
        assert!(NewEvent::parse(&event(json::MAX_DEPTH)).is_err());
    }

    #[test]
    fn a_type_is_needed() {
        for bad in ["{}", r#"{"type":""}"#, r#"{"type":5}"#, "[]", "null", "{"] {
            assert_eq!(NewEvent::parse(bad).unwrap_err().code(), crate::error::Code::Invalid, "{bad}");
        }
    }
}
