//! Values as text, as nvent's adapters keep them in stream entries and plain keys: strings as they are, the rest as JSON.
//!
//! Readers parse a text as JSON if they can, so a string such as `true`, `12` or the empty one would be read as another
//! type. Such strings are written as JSON string literals, which every reader, nvent's included, parses to the string.
//! This makes the encoding unambiguous without tags.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use crate::json::{check_depth, push_string};

/// Converts a JSON value to text.
pub(super) fn to_text(json: &str) -> Cow<'_, str> {
    let json = json.trim();
    if !json.starts_with('"') {
        return json.into();
    }
    match serde_json::from_str::<String>(json) {
        Ok(text) if !text.is_empty() && !is_json(&text) => text.into(),
        // Empty, ambiguous, or not expressible in UTF-8 (half a surrogate pair): the literal itself.
        _ => json.into(),
    }
}

/// Appends the JSON value that a text stands for.
pub(super) fn push_json(out: &mut String, text: &str) {
    if is_json(text) { out.push_str(text.trim()) } else { push_string(out, text) }
}

/// Converts a text to JSON.
pub(super) fn to_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_json(&mut out, text);
    out
}

/// Returns whether a text is JSON.
pub(super) fn is_json(text: &str) -> bool {
    // The first byte excludes most strings.
    let begins = text.trim_start_matches([' ', '\t', '\n', '\r']).bytes().next();
    matches!(begins, Some(b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n'))
        && check_depth("value", text).is_ok()
        && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_json_value_survives_the_way_through_text() {
        for json in [
            "0",
            "-1.5e3",
            "9007199254740991",
            "true",
            "false",
            "null",
            "{}",
            "[null,{}]",
            r#"{"a.b":[1]}"#,
            r#""""#,
            r#""true""#,
            r#""00123""#,
            r#""123""#,
            r#""null""#,
            r#""{}""#,
            r#""\"quoted\"""#,
            r#"" 5 ""#,
            r#""plain""#,
            r#""line\nbreak""#,
            r#""\ud800""#,
            r#""[1""#,
        ] {
            assert_eq!(to_json(&to_text(json)), json);
        }
    }

    #[test]
    fn ordinary_strings_are_kept_as_they_are() {
        for text in ["hello", "00123", "nan", "[1", "step.completed"] {
            assert_eq!(to_text(&format!("\"{text}\"")), text);
        }
    }
}
