//! Index metadata as a hash, as nvent's adapters keep it: nested objects flattened to dotted fields, arrays as JSON, the
//! rest as text.
//!
//! That form alone does not distinguish `"12"` from 12 and cannot represent null and `{}`. For values that would be read
//! back differently, [`TAGS`] (one more field of the hash, present only if needed) holds a JSON object from path to tag.
//!
//! | tag | meaning |
//! |---|---|
//! | `s<text>` | the field at this path is a string, as long as it still has this text |
//! | `v<text>` | the field at this path is JSON as it stands, as long as it still has this text |
//! | `j<json>` | the value is this, as long as there is no field at or below this path |
//!
//! A tag applies only while the fields agree with it, so a change by a writer that does not know tags is visible at once.

use std::collections::HashMap;

use serde_json::Value;

use super::text::is_json;
use crate::error::{Error, Result};
use crate::json::{self, Filter, Object, VERSION, to_json};

/// Greatest number of fields of an entry. A script works on all of them at once, and the server does nothing else meanwhile.
pub(super) const MAX_FIELDS: usize = 10_000;

/// Greatest number of conditions that the script decides, for each entry of the index.
const MAX_CONDITIONS: usize = 100;

/// Checks the number of fields that one call writes.
pub(super) fn check_fields(what: &str, fields: usize) -> Result<()> {
    if fields > MAX_FIELDS {
        return Err(Error::invalid(format!(
            "{what}: {fields} fields are too many for an entry of an index, at most {MAX_FIELDS} are allowed: keep a value of \
             this size in kv or documents"
        )));
    }
    Ok(())
}

/// The field with the tags.
pub(super) const TAGS: &str = "~nvent";

/// How readers interpret a text in a hash that has no tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guess {
    Text,
    Json,
}

/// Returns how an untagged text is read. Only canonical numbers are numbers: `00123` and ids beyond 2^53 are text.
fn guess(text: &str) -> Guess {
    let json = match text.as_bytes() {
        [b'[', ..] => is_json(text),
        b"true" | b"false" => true,
        [b'-' | b'0'..=b'9', ..] => match text.parse::<f64>() {
            Ok(number) if text.bytes().all(|b| b == b'-' || b.is_ascii_digit()) => number.to_string() == text,
            Ok(number) => number.is_finite() && is_json(text),
            Err(_) => false,
        },
        _ => false,
    };
    if json { Guess::Json } else { Guess::Text }
}

/// The form in which a value is stored.
#[derive(Debug, PartialEq, Eq)]
enum Written {
    Field(String),
    Tagged(char, String),
    OnlyTag(String),
}

fn write(path: &str, value: &Value) -> Written {
    if path == TAGS {
        return Written::OnlyTag(to_json(value).to_string());
    }
    match value {
        Value::Null | Value::Object(_) => Written::OnlyTag(to_json(value).to_string()),
        Value::String(text) if guess(text) == Guess::Text => Written::Field(text.clone()),
        Value::String(text) => Written::Tagged('s', text.clone()),
        other => {
            let text = to_json(other).to_string();
            if guess(&text) == Guess::Json { Written::Field(text) } else { Written::Tagged('v', text) }
        }
    }
}

/// Returns the path of a key in an object at a path. None is the metadata itself; a key may be empty.
fn join(path: Option<&str>, key: &str) -> String {
    path.map_or_else(|| key.to_owned(), |path| format!("{path}.{key}"))
}

/// Converts metadata to the fields of a hash, tags included.
pub(super) fn flatten(metadata: &Object) -> Vec<(String, String)> {
    fn walk(path: Option<&str>, object: &Object, fields: &mut Vec<(String, String)>, tags: &mut Object) {
        for (key, value) in object {
            let path = join(path, key);
            match value {
                Value::Object(inner) if !inner.is_empty() && path != TAGS => walk(Some(&path), inner, fields, tags),
                value => match write(&path, value) {
                    Written::Field(text) => fields.push((path, text)),
                    Written::Tagged(kind, text) => {
                        tags.insert(path.clone(), format!("{kind}{text}").into());
                        fields.push((path, text));
                    }
                    Written::OnlyTag(json) => _ = tags.insert(path, format!("j{json}").into()),
                },
            }
        }
    }
    let (mut fields, mut tags) = (Vec::new(), Object::new());
    walk(None, metadata, &mut fields, &mut tags);
    if !tags.is_empty() {
        fields.push((TAGS.into(), to_json(&tags).to_string()));
    }
    fields
}

/// Converts the fields of a hash to metadata.
pub(super) fn assemble(mut fields: Vec<(String, String)>) -> Object {
    let tags: HashMap<String, Value> = fields
        .iter()
        .position(|(path, _)| path == TAGS)
        .and_then(|at| serde_json::from_str(&fields.remove(at).1).ok())
        .unwrap_or_default();
    // Whatever else another program left there is no tag.
    let text = |(path, tag)| match tag {
        Value::String(tag) => Some((path, tag)),
        _ => None,
    };
    let tags: HashMap<String, String> = tags.into_iter().filter_map(text).collect();
    let mut object = Object::new();
    for (path, text) in fields {
        let tag = tags.get(&path).filter(|tag| tag.get(1..) == Some(&text)).and_then(|tag| tag.chars().next());
        let json = match tag {
            Some('s') => None,
            Some('v') => json::parse("value", &text).ok(),
            _ if guess(&text) == Guess::Json => json::parse("value", &text).ok(),
            _ => None,
        };
        put(&mut object, &path, json.unwrap_or(Value::String(text)));
    }
    for (path, tag) in &tags {
        if let Some(Ok(value)) = tag.strip_prefix('j').map(|text| json::parse("value", text)) {
            put_if_free(&mut object, path, value);
        }
    }
    object.entry(VERSION).or_insert_with(|| 0.into());
    object
}

/// Sets a path. Where a text and fields below it exist, the fields take precedence.
fn put(object: &mut Object, path: &str, value: Value) {
    if json::is_too_deep(path) {
        // Another program wrote it: such a path is a plain name.
        object.insert(path.into(), value);
        return;
    }
    match path.split_once('.') {
        None => {
            if !matches!(object.get(path), Some(Value::Object(_))) {
                object.insert(path.into(), value);
            }
        }
        Some((head, rest)) => {
            let slot = object.entry(head).or_insert_with(|| Value::Object(Object::new()));
            if !slot.is_object() {
                *slot = Value::Object(Object::new());
            }
            if let Value::Object(inner) = slot {
                put(inner, rest, value);
            }
        }
    }
}

fn put_if_free(object: &mut Object, path: &str, value: Value) {
    if json::is_too_deep(path) {
        object.entry(path).or_insert(value);
        return;
    }
    match path.split_once('.') {
        None => _ = object.entry(path).or_insert(value),
        Some((head, rest)) => {
            if let Value::Object(inner) = object.entry(head).or_insert_with(|| Value::Object(Object::new())) {
                put_if_free(inner, rest, value);
            }
        }
    }
}

/// Converts a patch to steps for `index_update.lua`: kind, path, text. Parents precede their children.
pub(super) fn steps(patch: &Object) -> Vec<(&'static str, String, String)> {
    fn walk(path: Option<&str>, object: &Object, steps: &mut Vec<(&'static str, String, String)>) {
        for (key, value) in object {
            let path = join(path, key);
            match value {
                Value::Null => steps.push(("delete", path, String::new())),
                Value::Object(inner) if path != TAGS => {
                    steps.push(("object", path.clone(), String::new()));
                    walk(Some(&path), inner, steps);
                }
                value => match write(&path, value) {
                    Written::Field(text) => steps.push(("set", path, text)),
                    Written::Tagged('s', text) => steps.push(("string", path, text)),
                    Written::Tagged(_, text) => steps.push(("value", path, text)),
                    Written::OnlyTag(json) => steps.push(("tag", path, json)),
                },
            }
        }
    }
    let mut steps = Vec::new();
    walk(None, patch, &mut steps);
    steps
}

/// Splits a filter into the conditions that `index_read.lua` decides by comparing texts (as JSON) and the rest.
pub(super) fn split_filter(filter: &Filter) -> (Vec<Value>, Filter) {
    let (mut here, mut rest) = (Vec::new(), Object::new());
    for (path, wanted) in filter.fields() {
        let any = match wanted {
            wanted if here.len() >= MAX_CONDITIONS => {
                rest.insert(path.into(), wanted.clone());
                continue;
            }
            // One of several; an array also equals itself, which `list` is for.
            Value::Array(any) if any.iter().all(is_scalar) => any.iter().map(alternative).collect(),
            one if is_scalar(one) => vec![alternative(one)],
            _ => {
                rest.insert(path.into(), wanted.clone());
                continue;
            }
        };
        let list = wanted.is_array().then(|| to_json(wanted).to_string());
        here.push(serde_json::json!({ "path": path, "any": any, "list": list }));
    }
    (here, Filter::new(rest))
}

fn is_scalar(value: &Value) -> bool {
    !matches!(value, Value::Array(_) | Value::Object(_))
}

fn alternative(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            let kind = if guess(text) == Guess::Text { "text" } else { "string" };
            serde_json::json!({ "kind": kind, "text": text })
        }
        Value::Null => serde_json::json!({ "kind": "null" }),
        Value::Number(_) => serde_json::json!({ "kind": "number", "text": value.to_string() }),
        other => serde_json::json!({ "kind": "json", "text": other.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn object(value: Value) -> Object {
        match value {
            Value::Object(object) => object,
            other => panic!("{other} is no object"),
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let text =
            prop_oneof!["[a-z]{0,4}", "-?[0-9]{1,20}", "(true|false|null|\\[1\\]|\\{\\}|1e5|0x10| 5 |-0|~nvent)"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("JSON has no such number", |n| n.is_finite()).prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("(a|b|~nvent||[c-e]{1,2})", inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_metadata_survives_the_hash(value in value()) {
            let mut metadata = Object::new();
            metadata.insert("x".into(), value.clone());
            metadata.insert(TAGS.into(), value);
            metadata.insert(VERSION.into(), 0.into());
            prop_assert!(json::equal(&Value::Object(assemble(flatten(&metadata))), &Value::Object(metadata)));
        }
    }

    #[test]
    fn an_object_under_an_empty_key_is_apart_from_the_metadata_itself() {
        let metadata = object(json!({"": {"x": 1, "": {"x": 2}}, "x": 3, "version": 0}));
        assert_eq!(assemble(flatten(&metadata)), metadata);
        let paths: Vec<_> = steps(&metadata).into_iter().map(|(_, path, _)| path).collect();
        assert_eq!(paths, ["", ".x", ".", "..x", "x", "version"]);
    }

    #[test]
    fn ordinary_metadata_needs_no_tags() {
        let fields =
            flatten(&object(json!({"status": "running", "at": "2026-01-01T00:00:00Z", "stats": {"n": 0, "ok": true},
            "tags": ["a", null], "code": "00123", "version": 0})));
        let fields: Vec<_> = fields.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(
            fields,
            [
                ("status", "running"),
                ("at", "2026-01-01T00:00:00Z"),
                ("stats.n", "0"),
                ("stats.ok", "true"),
                ("tags", r#"["a",null]"#),
                ("code", "00123"),
                ("version", "0")
            ]
        );
    }

    #[test]
    fn what_an_instance_without_tags_changes_is_seen() {
        let mut fields = flatten(&object(json!({"a": "12", "b": null, "c": {}, "d": "7", "version": 0})));
        let at = fields.iter().position(|(path, _)| path == "a").unwrap();
        fields[at].1 = "13".into();
        fields.retain(|(path, _)| path != "d");
        fields.extend([("b".into(), "x".into()), ("c.k".into(), "1".into())]);
        assert_eq!(Value::Object(assemble(fields)), json!({"a": 13, "b": "x", "c": {"k": 1}, "version": 0}));
    }
}
