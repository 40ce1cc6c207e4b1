//! Messages of streams.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::fanout::Gap;
use crate::json::{Json, check_depth, push_string};

/// A message: any JSON object, unchanged. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Message(Arc<MessageParts>);

#[derive(Debug)]
struct MessageParts {
    topic: Arc<str>,
    kind: Option<Box<str>>,
    json: Json,
    instance: Option<Arc<str>>,
}

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
}

impl Message {
    /// Parses a JSON object that is published on a topic.
    pub fn parse(topic: &str, json: &str) -> Result<Self> {
        check_depth("event", json)?;
        let json = json.trim();
        if !json.starts_with('{') {
            return Err(Error::invalid("event: expected an object"));
        }
        let header: Header<'_> =
            serde_json::from_str(json).map_err(|e| Error::invalid(format!("event: not usable as JSON: {e}")))?;
        let kind = header.kind.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        Ok(Self(Arc::new(MessageParts {
            topic: topic.into(),
            kind: kind.map(Into::into),
            json: json.into(),
            instance: None,
        })))
    }

    /// Creates a message of a known type.
    pub fn new(topic: &str, kind: &str, json: Json) -> Self {
        Self::on_behalf_of(None, topic, kind, json)
    }

    /// Creates a message that is published for another instance. For subscribers it is that one's own.
    pub fn on_behalf_of(instance: Option<Arc<str>>, topic: &str, kind: &str, json: Json) -> Self {
        Self(Arc::new(MessageParts { topic: topic.into(), kind: Some(kind.into()), json, instance }))
    }

    /// Returns the other instance that it is published for, if it is not the publisher's own.
    pub fn instance(&self) -> Option<&Arc<str>> {
        self.0.instance.as_ref()
    }

    /// Creates the message that reports a gap to a subscriber of `topic`, a name or pattern.
    pub fn gap(topic: &str, gap: Gap, now_ms: u64) -> Self {
        let mut json = String::from("{\"type\":\"stream.gap\",\"data\":{\"reason\":\"");
        json.push_str(gap.reason.as_str());
        json.push_str("\",\"topic\":");
        push_string(&mut json, topic);
        if let Some(missed) = gap.missed {
            json.push_str(&format!(",\"missed\":{missed}"));
        }
        json.push_str(&format!("}},\"timestamp\":{now_ms}}}"));
        Self::new(topic, "stream.gap", json.into())
    }

    /// Returns the topic it was published on.
    pub fn topic(&self) -> &Arc<str> {
        &self.0.topic
    }

    /// Returns its `type`, if it has one.
    pub fn kind(&self) -> Option<&str> {
        self.0.kind.as_deref()
    }

    /// Returns the whole message as JSON text.
    pub fn json(&self) -> &Json {
        &self.0.json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_an_object_whose_type_is_a_text() {
        let message = Message::parse("t", " {\"type\":\"a\"} ").unwrap();
        assert_eq!((&**message.json(), message.kind(), &**message.topic()), (r#"{"type":"a"}"#, Some("a"), "t"));
        assert_eq!(Message::parse("t", r#"{"type":1}"#).unwrap().kind(), None);
        assert_eq!(message.instance(), None);
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(600), "]".repeat(600));
        for (bad, expected) in
            [("[]", "expected an object"), ("{", "not usable as JSON"), (deep.as_str(), "nested deeper")]
        {
            assert!(Message::parse("t", bad).unwrap_err().message().contains(expected), "{expected}");
        }
        let other = Message::on_behalf_of(Some("other".into()), "t", "a", "{}".into());
        assert_eq!(other.instance().map(|instance| &**instance), Some("other"));
    }
}
