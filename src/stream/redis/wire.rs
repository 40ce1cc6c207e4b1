//! Messages as they go over Redis: the JSON of the event, on a channel named like the topic.
//!
//! One field is put in front where someone needs it: `"~nvent":"<who published>/<id in the retained topic>"`. That is on
//! retained topics, and where this adapter has a subscriber that leaves out what it published itself. Native subscribers
//! take it out again; others see one field more.

use std::borrow::Cow;

use crate::event::EventId;

const HEAD: &str = "{\"~nvent\":\"";

/// A received message.
pub(super) struct Received<'a> {
    /// Who published it, where it says so.
    pub(super) origin: Option<&'a str>,
    /// Its id, where its topic is retained.
    pub(super) id: Option<EventId>,
    /// The event as it was published.
    pub(super) json: Cow<'a, str>,
}

/// Returns what follows the head: the object without its opening brace, after a comma where it has fields.
pub(super) fn tail(json: &str) -> String {
    let rest = json.trim_start().get(1..).unwrap_or("}").trim_start();
    if rest.starts_with('}') { rest.to_owned() } else { format!(",{rest}") }
}

/// Returns a message that says who published it.
pub(super) fn with_origin(json: &str, origin: &str) -> String {
    format!("{HEAD}{origin}/\"{}", tail(json))
}

/// Takes a message apart. One without a header is the event itself.
pub(super) fn read(text: &str) -> Received<'_> {
    let plain = Received { origin: None, id: None, json: text.into() };
    let Some((head, rest)) = text.strip_prefix(HEAD).and_then(|rest| rest.split_once('"')) else { return plain };
    let Some((origin, id)) = head.split_once('/') else { return plain };
    if origin.len() != 16 || !origin.bytes().all(|b| b.is_ascii_hexdigit()) {
        return plain;
    }
    let id = match (id, id.parse()) {
        ("", _) => None,
        (_, Ok(id)) => Some(id),
        _ => return plain,
    };
    Received { origin: Some(origin), id, json: format!("{{{}", rest.strip_prefix(',').unwrap_or(rest)).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_front_comes_off_again() {
        for json in [r#"{"type":"a","data":null}"#, "{}", r#"{"~nvent":"mine","x":1}"#] {
            let text = with_origin(json, "0123456789abcdef");
            assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
            let read = read(&text);
            assert_eq!((read.origin, read.id, &*read.json), (Some("0123456789abcdef"), None, json));
            assert_eq!(super::read(json).json, json);
        }
        let text = r#"{"~nvent":"0123456789abcdef/5-1","type":"a"}"#;
        assert_eq!(
            (read(text).id.map(|id| id.to_string()), &*read(text).json),
            (Some("5-1".into()), r#"{"type":"a"}"#)
        );
    }
}
