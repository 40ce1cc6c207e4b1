//! JSON as the core needs it: text that stays as it came, and the few operations that look inside.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};

/// A JSON value as text, shared. Key order and number formats are the writer's.
pub type Json = Arc<str>;

/// A JSON object, in the order of its keys.
pub type Object = Map<String, Value>;

/// Deepest nesting that is accepted. What reads deeper would need a bigger stack than threads have.
pub const MAX_DEPTH: usize = 512;

/// The field of index metadata that counts its changes.
pub const VERSION: &str = "version";

/// Refuses text that nests deeper than [`MAX_DEPTH`]. Everything that parses calls it first.
pub fn check_depth(what: &str, text: &str) -> Result<()> {
    // A shorter text cannot be that deep: each level needs two bytes.
    if text.len() <= 2 * MAX_DEPTH {
        return Ok(());
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(Error::invalid(format!("{what}: nested deeper than {MAX_DEPTH} levels")));
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Parses text into a value. `what` names the argument in the error.
pub fn parse(what: &str, text: &str) -> Result<Value> {
    check_depth(what, text)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.disable_recursion_limit();
    let value = serde::Deserialize::deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|e| Error::invalid(format!("{what}: not usable as JSON: {e}")))?;
    Ok(value)
}

/// Parses text that must be an object.
pub fn parse_object(what: &str, text: &str) -> Result<Object> {
    match parse(what, text)? {
        Value::Object(object) => Ok(object),
        _ => Err(Error::invalid(format!("{what}: expected an object"))),
    }
}

/// The text of a value.
pub fn to_json<T: Serialize + ?Sized>(value: &T) -> Json {
    // Values and objects have string keys and no custom serializers: this cannot fail.
    serde_json::to_string(value).unwrap_or_else(|_| "null".into()).into()
}

/// Appends a JSON string literal.
pub fn push_string(out: &mut String, text: &str) {
    out.push_str(&serde_json::to_string(text).unwrap_or_else(|_| "\"\"".into()));
}

/// Expands dotted keys at every level into nested objects: `{"a.b": 1}` becomes `{"a": {"b": 1}}`. Later keys win.
pub fn expand_dotted(object: Object) -> Object {
    fn put(target: &mut Object, path: &str, value: Value) {
        match path.split_once('.') {
            Some((head, rest)) => {
                let slot = target.entry(head).or_insert_with(|| Value::Object(Object::new()));
                if !slot.is_object() {
                    *slot = Value::Object(Object::new());
                }
                if let Value::Object(inner) = slot {
                    put(inner, rest, value);
                }
            }
            None => match (target.get_mut(path), value) {
                (Some(Value::Object(old)), Value::Object(new)) => {
                    for (key, value) in new {
                        put(old, &key, value);
                    }
                }
                (_, value) => {
                    target.insert(path.into(), value);
                }
            },
        }
    }
    let mut out = Object::new();
    for (key, value) in object {
        let value = match value {
            Value::Object(inner) => Value::Object(expand_dotted(inner)),
            other => other,
        };
        put(&mut out, &key, value);
    }
    out
}

/// Refuses dotted keys at every level of nested objects, naming the path.
pub fn reject_dotted(what: &str, object: &Object) -> Result<()> {
    for (key, value) in object {
        if key.contains('.') {
            return Err(Error::invalid(format!(
                "{what}: the key {key:?} contains a dot, which an update does not take: nest objects instead"
            )));
        }
        if let Value::Object(inner) = value {
            reject_dotted(&format!("{what}.{key}"), inner)?;
        }
    }
    Ok(())
}

/// Deep merge: objects merge, null deletes, everything else replaces (arrays too).
pub fn merge(target: &mut Object, patch: Object) {
    for (key, value) in patch {
        match (target.get_mut(&key), value) {
            (_, Value::Null) => {
                target.shift_remove(&key);
            }
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, Value::Object(new)) => {
                let mut fresh = Object::new();
                merge(&mut fresh, new);
                target.insert(key, Value::Object(fresh));
            }
            (_, value) => {
                target.insert(key, value);
            }
        }
    }
}

/// The value at a dotted path. A key that itself contains the dots wins over the path.
pub fn at_path<'a>(object: &'a Object, path: &str) -> Option<&'a Value> {
    if let Some(value) = object.get(path) {
        return Some(value);
    }
    let (head, rest) = path.split_once('.')?;
    match object.get(head)? {
        Value::Object(inner) => at_path(inner, rest),
        _ => None,
    }
}

/// Adds to the number at a dotted path (a missing one is 0) and returns the sum.
/// [`crate::error::Code::Type`] where something else is there.
pub fn increment_at(object: &mut Object, path: &str, by: f64) -> Result<Number> {
    let (head, rest) = path.split_once('.').unwrap_or((path, ""));
    if head.is_empty() || (rest.is_empty() && path.contains('.')) {
        return Err(Error::invalid(format!("field: {path:?} is no path of names with dots between them")));
    }
    if !rest.is_empty() {
        let slot = object.entry(head).or_insert_with(|| Value::Object(Object::new()));
        return match slot {
            Value::Object(inner) => increment_at(inner, rest, by),
            _ => Err(Error::wrong_type(format!("field {path:?}: {head:?} is no object"))),
        };
    }
    let old = match object.get(head) {
        None | Some(Value::Null) => 0.0,
        Some(value) => {
            value.as_f64().ok_or_else(|| Error::wrong_type(format!("field {path:?}: the value there is no number")))?
        }
    };
    let sum = number(old + by)?;
    object.insert(head.into(), Value::Number(sum.clone()));
    Ok(sum)
}

/// Adds to a number stored as text (a missing one is 0). [`crate::error::Code::Type`] where the text is something else.
pub fn add_to_text(key: &str, stored: Option<&str>, by: f64) -> Result<Number> {
    let old = match stored {
        None => 0.0,
        Some(text) => {
            text.parse().map_err(|_| Error::wrong_type(format!("key {key:?}: the value there is no number")))?
        }
    };
    number(old + by)
}

/// A finite number as JSON, whole ones without a fraction, as JavaScript writes them.
pub fn number(value: f64) -> Result<Number> {
    const SAFE: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= SAFE {
        return Ok(Number::from(value as i64));
    }
    Number::from_f64(value).ok_or_else(|| Error::wrong_type("the result is not a finite number"))
}

/// Equality per field, with dotted paths; an array in the filter means "one of".
#[derive(Debug, Clone, Default)]
pub struct Filter(Vec<(String, Value)>);

impl Filter {
    /// Reads a filter from its JSON object.
    pub fn new(object: Object) -> Self {
        Self(object.into_iter().collect())
    }

    /// The fields and what each must equal.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(path, value)| (path.as_str(), value))
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the object has what the filter asks for. A missing field equals null.
    pub fn matches(&self, object: &Object) -> bool {
        self.0.iter().all(|(path, wanted)| {
            let found = at_path(object, path).unwrap_or(&Value::Null);
            match wanted {
                Value::Array(any) if !found.is_array() => any.iter().any(|one| equal(one, found)),
                wanted => equal(wanted, found),
            }
        })
    }
}

/// Equality of JSON values, with 1 and 1.0 being the same number.
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        (a, b) => a == b,
    }
}

/// Metadata as `index.add` stores it: dotted keys expanded, nulls kept, the caller's version replaced by 0.
pub fn fresh_metadata(metadata: Object) -> Object {
    let mut metadata = expand_dotted(metadata);
    metadata.shift_remove(VERSION);
    metadata.insert(VERSION.into(), Value::from(0));
    metadata
}

/// The version in stored metadata.
pub fn version_of(metadata: &Object) -> i64 {
    metadata.get(VERSION).and_then(Value::as_i64).unwrap_or(0)
}

/// One atomic `index.update`: deep merge, then the version counts one more. False where the expected version differs.
/// The patch must have passed [`reject_dotted`].
pub fn update_metadata(metadata: &mut Object, mut patch: Object, expected_version: Option<i64>) -> bool {
    let version = version_of(metadata);
    if expected_version.is_some_and(|expected| expected != version) {
        return false;
    }
    patch.shift_remove(VERSION);
    merge(metadata, patch);
    metadata.insert(VERSION.into(), Value::from(version + 1));
    true
}

/// One atomic `index.increment`: adds at the path, then the version counts one more.
pub fn increment_metadata(metadata: &mut Object, path: &str, by: f64) -> Result<Number> {
    if path == VERSION {
        return Err(Error::invalid("field: \"version\" counts changes by itself"));
    }
    let sum = increment_at(metadata, path, by)?;
    let version = version_of(metadata);
    metadata.insert(VERSION.into(), Value::from(version + 1));
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Object {
        match value {
            Value::Object(object) => object,
            other => panic!("{other} is no object"),
        }
    }

    #[test]
    fn update_keeps_sibling_keys_at_every_depth() {
        let mut target = object(json!({"a": {"b": {"c": 1, "d": 2}, "e": [1, 2]}, "version": 4}));
        assert!(update_metadata(
            &mut target,
            object(json!({"a": {"b": {"c": null, "x": 3}, "e": [9]}, "version": 99})),
            None
        ));
        assert_eq!(Value::Object(target), json!({"a": {"b": {"d": 2, "x": 3}, "e": [9]}, "version": 5}));
    }

    #[test]
    fn nulls_inside_a_new_object_delete_as_well() {
        let mut target = Object::new();
        merge(&mut target, object(json!({"a": {"b": null, "c": [null]}})));
        assert_eq!(Value::Object(target), json!({"a": {"c": [null]}}));
    }

    #[test]
    fn dotted_keys_expand_at_every_level_and_meet() {
        let expanded =
            expand_dotted(object(json!({"stats.total": 0, "stats": {"ok": 1, "x.y": 2}, "stats.failed": 3})));
        assert_eq!(Value::Object(expanded), json!({"stats": {"total": 0, "ok": 1, "x": {"y": 2}, "failed": 3}}));
    }

    #[test]
    fn dotted_keys_in_an_update_are_told_with_their_path() {
        let error = reject_dotted("metadata", &object(json!({"a": {"b": {"c.d": 1}}}))).unwrap_err();
        assert!(error.message().contains("metadata.a.b") && error.message().contains("c.d"), "{error}");
    }

    #[test]
    fn increments_write_numbers_as_javascript_does() {
        let mut target = object(json!({"n": 0.5}));
        assert_eq!(increment_at(&mut target, "n", 2.5).unwrap().to_string(), "3");
        assert_eq!(increment_at(&mut target, "stats.deep.count", -1.0).unwrap().to_string(), "-1");
        assert_eq!(increment_at(&mut target, "stats.deep", 1.0).unwrap_err().code(), crate::error::Code::Type);
    }

    #[test]
    fn filters_take_paths_lists_and_nulls() {
        let entry = object(json!({"status": "running", "stats": {"n": 1}, "tags": ["a"]}));
        let matches = |filter: Value| Filter::new(object(filter)).matches(&entry);
        assert!(matches(json!({"status": ["running", "awaiting"], "stats.n": 1.0})));
        assert!(matches(json!({"tags": ["a"], "missing": null})));
        assert!(!matches(json!({"status": []})));
        assert!(!matches(json!({"status": "done"})));
    }

    #[test]
    fn depth_is_bounded_and_brackets_in_strings_do_not_count() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse("value", &deep(MAX_DEPTH)).is_ok());
        assert!(parse("value", &deep(MAX_DEPTH + 1)).is_err());
        assert!(parse("value", &format!("\"\\\"{}\"", "[".repeat(5_000))).is_ok());
    }
}
