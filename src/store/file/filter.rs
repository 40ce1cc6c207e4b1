//! Filters over stored JSON text, which is parsed only where it could match.

use serde_json::Value;

use crate::error::Result;
use crate::json::{self, Filter};

/// A filter with, for each field, texts of which one occurs in every match.
pub(super) struct TextPrefilter<'f> {
    filter: &'f Filter,
    needles: Vec<Vec<String>>,
}

impl<'f> TextPrefilter<'f> {
    pub(super) fn new(filter: &'f Filter) -> Self {
        let needles = filter.fields().filter_map(|(_, wanted)| match wanted {
            // An empty array matches itself only, and says nothing about the text.
            Value::Array(any) if !any.is_empty() => any.iter().map(needle).collect(),
            one => needle(one).map(|needle| vec![needle]),
        });
        Self { filter, needles: needles.collect() }
    }

    /// Returns whether the JSON object in this text matches.
    pub(super) fn matches(&self, text: &str) -> Result<bool> {
        if self.filter.is_empty() {
            return Ok(true);
        }
        // With an escape in it, the text may spell a string in another way.
        let plain = || !text.contains('\\');
        if self.needles.iter().any(|any| !any.iter().any(|needle| text.contains(needle.as_str())) && plain()) {
            return Ok(false);
        }
        Ok(self.filter.matches(&json::parse_object("stored value", text)?))
    }
}

/// Returns the only spelling of a value, if it has only one.
fn needle(value: &Value) -> Option<String> {
    match value {
        Value::Bool(_) => Some(value.to_string()),
        Value::String(text) if !text.bytes().any(|b| b == b'"' || b == b'\\' || b < b' ') => {
            Some(format!("\"{text}\""))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_short_cut_never_changes_the_answer() {
        let objects = [
            r#"{"s":"a","n":1}"#,
            r#"{"s":"\u0061"}"#,
            r#"{"s":null}"#,
            r#"{"s":["a"],"t":"a"}"#,
            r#"{"t":"é","s":true}"#,
            r#"{"e":[]}"#,
            "{}",
        ];
        let filters = [
            json!({"s": "a"}),
            json!({"s": ["a", "b"]}),
            json!({"s": [null, "a"]}),
            json!({"s": true}),
            json!({"n": 1.0}),
            json!({"t": "é"}),
            json!({"s": []}),
            json!({"e": []}),
        ];
        for filter in filters {
            let Value::Object(filter) = filter else { unreachable!() };
            let filter = Filter::new(filter);
            for text in objects {
                let parsed = json::parse_object("", text).unwrap();
                assert_eq!(
                    TextPrefilter::new(&filter).matches(text).unwrap(),
                    filter.matches(&parsed),
                    "{filter:?} {text}"
                );
            }
        }
    }
}
