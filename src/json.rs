//! JSON as the core needs it: text that stays as it came, and the few operations that look inside.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
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

/// Reads options from a JSON object. `at` is its path in messages; empty where paths begin with the option.
pub fn options<T: DeserializeOwned>(at: &str, text: &str) -> Result<T> {
    read_options(at, text, |reason| reason)
}

/// Reads options as [`options`] does, for those whose values must not appear in a message.
pub fn secret_options<T: DeserializeOwned>(at: &str, text: &str) -> Result<T> {
    read_options(at, text, |_| "not usable".into())
}

/// Reads options. `shown` makes the reason of a value of the wrong type; an error of an option's own check begins with its
/// path.
fn read_options<T: DeserializeOwned>(at: &str, text: &str, shown: fn(String) -> String) -> Result<T> {
    check_depth(if at.is_empty() { "options" } else { at }, text)?;
    let mut reader = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = match (at, error.path().to_string()) {
            ("", path) if path == "." => "options".into(),
            ("", path) => path,
            (at, path) if path == "." => at.into(),
            (at, path) => format!("{at}.{path}"),
        };
        let (line, column) = (error.inner().line(), error.inner().column());
        let reason = error.into_inner().to_string();
        let reason = reason.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&reason);
        let own = path.split('.').next().unwrap_or_default();
        Error::invalid(match reason.starts_with(own) {
            true => reason.to_owned(),
            false => format!("{path}: {}", shown(reason.to_owned())),
        })
    })
}

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

/// Returns the text of a value.
pub fn to_json<T: Serialize + ?Sized>(value: &T) -> Json {
    // Values and objects have string keys and no custom serializers: this cannot fail.
    serde_json::to_string(value).unwrap_or_else(|_| "null".into()).into()
}

/// Serialises a value that is JSON already, for `serialize_with`. What another program made unreadable is shown as text.
pub(crate) fn raw<S: Serializer>(json: &str, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    match serde_json::from_str::<&RawValue>(json) {
        Ok(json) => json.serialize(serializer),
        Err(_) => serializer.serialize_str(json),
    }
}

/// Reads a duration that is given in ms, for `deserialize_with`.
pub(crate) fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}

/// Appends a JSON string literal.
pub fn push_string(out: &mut String, text: &str) {
    out.push_str(&serde_json::to_string(text).unwrap_or_else(|_| "\"\"".into()));
}

/// Returns whether a dotted path has more than [`MAX_DEPTH`] names.
pub fn is_too_deep(path: &str) -> bool {
    path.bytes().filter(|b| *b == b'.').count() >= MAX_DEPTH
}

/// Checks a dotted path: names with dots between them, at most [`MAX_DEPTH`]. `what` names the argument in the error.
pub fn check_path(what: &str, path: &str) -> Result<()> {
    let names = path.bytes().filter(|b| *b == b'.').count() + 1;
    if names > MAX_DEPTH {
        return Err(Error::invalid(format!(
            "{what}: a path of {names} names is too deep, at most {MAX_DEPTH} are allowed"
        )));
    }
    if names > 1 && path.split('.').any(str::is_empty) {
        return Err(Error::invalid(format!("{what}: {path:?} is not a path of names with dots between them")));
    }
    Ok(())
}

/// Returns how deep a value nests: 0 for a scalar, 1 for an array or object of scalars. At most [`MAX_DEPTH`] + 1 levels are
/// counted.
fn depth_of(value: &Value) -> usize {
    let mut level: Vec<&Value> = vec![value];
    for depth in 0..=MAX_DEPTH {
        let mut inner = Vec::new();
        let mut has_level = false;
        for value in level {
            match value {
                Value::Array(values) => {
                    has_level = true;
                    inner.extend(values);
                }
                Value::Object(object) => {
                    has_level = true;
                    inner.extend(object.values());
                }
                _ => {}
            }
        }
        if !has_level {
            return depth;
        }
        level = inner;
    }
    MAX_DEPTH + 1
}

/// Expands dotted keys at every level into nested objects: `{"a.b": 1}` becomes `{"a": {"b": 1}}`. Later keys win. Fails
/// where the result would nest deeper than [`MAX_DEPTH`]; `what` names the argument in the error.
pub fn expand_dotted(what: &str, object: Object) -> Result<Object> {
    fn put(mut target: &mut Object, path: &str, value: Value) {
        let mut path = path;
        while let Some((head, rest)) = path.split_once('.') {
            let slot = target.entry(head).or_insert_with(|| Value::Object(Object::new()));
            if !slot.is_object() {
                *slot = Value::Object(Object::new());
            }
            let Value::Object(inner) = slot else { return };
            (target, path) = (inner, rest);
        }
        match (target.get_mut(path), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                for (key, value) in new {
                    put(old, &key, value);
                }
            }
            (_, value) => _ = target.insert(path.into(), value),
        }
    }
    /// Expands the names of an object at the depth `level`. The recursion ends at the bound.
    fn expand(what: &str, object: Object, level: usize) -> Result<Object> {
        let mut out = Object::new();
        for (key, value) in object {
            let names = key.bytes().filter(|b| *b == b'.').count() + 1;
            let inner_level = level + names;
            let depth = if value.is_object() { 1 } else { depth_of(&value) };
            if inner_level + depth > MAX_DEPTH + 1 {
                return Err(Error::invalid(format!(
                    "{what}: nested deeper than {MAX_DEPTH} levels, counting dots in keys"
                )));
            }
            let value = match value {
                Value::Object(inner) => Value::Object(expand(what, inner, inner_level)?),
                other => other,
            };
            put(&mut out, &key, value);
        }
        Ok(out)
    }
    expand(what, object, 1)
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

/// Merges deeply: objects merge, null deletes, everything else replaces (arrays too).
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

/// Returns the value at a dotted path. A key that itself contains the dots wins over the path.
pub fn at_path<'a>(object: &'a Object, path: &str) -> Option<&'a Value> {
    let (mut object, mut path) = (object, path);
    loop {
        if let Some(value) = object.get(path) {
            return Some(value);
        }
        let (head, rest) = path.split_once('.')?;
        match object.get(head)? {
            Value::Object(inner) => (object, path) = (inner, rest),
            _ => return None,
        }
    }
}

/// Adds to the number at a dotted path (a missing one is 0) and returns the sum. Changes nothing where it fails:
/// [`crate::error::Code::Type`] where something else is there.
pub fn increment_at(object: &mut Object, path: &str, by: f64) -> Result<Number> {
    check_path("field", path)?;
    let not_a_number = || Error::wrong_type(format!("field {path:?}: the value there is not a number"));
    let mut old = 0.0;
    let mut names = path.split('.').peekable();
    let mut at = Some(&*object);
    while let (Some(name), Some(inner)) = (names.next(), at) {
        let found = inner.get(name);
        if names.peek().is_none() {
            old = match found {
                None | Some(Value::Null) => 0.0,
                Some(value) => value.as_f64().ok_or_else(not_a_number)?,
            };
        }
        at = match found {
            Some(Value::Object(inner)) => Some(inner),
            Some(_) if names.peek().is_some() => {
                return Err(Error::wrong_type(format!("field {path:?}: {name:?} is not an object")));
            }
            _ => None,
        };
    }
    let sum = number(old + by)?;
    let (mut target, mut rest) = (object, path);
    while let Some((head, inner)) = rest.split_once('.') {
        let slot = target.entry(head).or_insert_with(|| Value::Object(Object::new()));
        let Value::Object(object) = slot else { return Err(not_a_number()) };
        (target, rest) = (object, inner);
    }
    target.insert(rest.into(), Value::Number(sum.clone()));
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

/// Returns a finite number as JSON, whole ones without a fraction, as JavaScript writes them.
pub fn number(value: f64) -> Result<Number> {
    const SAFE: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= SAFE {
        return Ok(Number::from(value as i64));
    }
    Number::from_f64(value).ok_or_else(|| Error::wrong_type("the result is not a finite number"))
}

/// Equality per field, with dotted paths; an array in the filter means "one of".
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "Object")]
pub struct Filter(Vec<(String, Value)>);

impl From<Object> for Filter {
    fn from(object: Object) -> Self {
        Self::new(object)
    }
}

impl Filter {
    /// Reads a filter from its JSON object.
    pub fn new(object: Object) -> Self {
        Self(object.into_iter().collect())
    }

    /// Returns the fields and what each must equal.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(path, value)| (path.as_str(), value))
    }

    /// Returns whether everything matches.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether the object has what the filter asks for. A missing field equals null.
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

/// Compares JSON values; 1 and 1.0 are the same number.
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

/// Returns metadata as `index.add` stores it: dotted keys expanded, nulls kept, the caller's version replaced by 0. Fails
/// where it nests too deep.
pub fn fresh_metadata(metadata: Object) -> Result<Object> {
    let mut metadata = expand_dotted("metadata", metadata)?;
    metadata.shift_remove(VERSION);
    metadata.insert(VERSION.into(), Value::from(0));
    Ok(metadata)
}

/// Returns the version in stored metadata.
pub fn version_of(metadata: &Object) -> i64 {
    metadata.get(VERSION).and_then(Value::as_i64).unwrap_or(0)
}

/// Applies an `index.update`: merges deeply, then counts the version one more. Returns false where the expected version
/// differs. The patch must have passed [`reject_dotted`].
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

/// Applies an `index.increment`: adds at the path, then counts the version one more.
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
    fn options_that_are_refused_are_named_by_their_path_and_secrets_are_not_shown() {
        fn even<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<u16, D::Error> {
            let odd = || serde::de::Error::custom("connection.port: expected an even number");
            Some(u16::deserialize(deserializer)?).filter(|port| port % 2 == 0).ok_or_else(odd)
        }
        #[derive(Debug, Deserialize)]
        struct Connection {
            #[serde(rename = "port", deserialize_with = "even")]
            _port: u16,
        }
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Options {
            #[serde(rename = "after")]
            _after: Option<crate::event::EventId>,
            #[serde(rename = "connection")]
            _connection: Option<Connection>,
        }
        let message = |at: &str, text: &str| options::<Options>(at, text).unwrap_err().message().to_owned();
        assert_eq!(
            message("options", r#"{"after":"yesterday"}"#),
            r#"options.after: "yesterday" is no event id: expected <ms>-<seq>, for example 1700000000000-0"#
        );
        assert!(message("", r#"{"after":"yesterday"}"#).starts_with(r#"after: "yesterday""#));
        assert!(message("", r#"{"connection":{"port":"hunter2"}}"#).starts_with("connection.port: "));
        assert!(message("", "5").starts_with("options: "));
        assert!(message("consumer", "5").starts_with("consumer: "));
        assert_eq!(message("", r#"{"connection":{"port":3}}"#), "connection.port: expected an even number");
        let deep = format!("{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
        assert_eq!(message("", &deep), "options: nested deeper than 512 levels");
        assert_eq!(message("consumer", &deep), "consumer: nested deeper than 512 levels");
        let hidden = secret_options::<Options>("", r#"{"connection":{"port":"hunter2"}}"#).unwrap_err();
        assert_eq!(hidden.message(), "connection.port: not usable");
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
    fn fresh_metadata_ends_with_a_version_of_its_own() {
        let fresh = fresh_metadata(object(json!({"version": 9, "a.b": 1, "c": null}))).unwrap();
        assert_eq!(&*to_json(&fresh), r#"{"a":{"b":1},"c":null,"version":0}"#);
    }

    #[test]
    fn nulls_inside_a_new_object_delete_as_well() {
        let mut target = Object::new();
        merge(&mut target, object(json!({"a": {"b": null, "c": [null]}})));
        assert_eq!(Value::Object(target), json!({"a": {"c": [null]}}));
    }

    #[test]
    fn dotted_keys_expand_at_every_level_and_meet() {
        let expanded = expand_dotted(
            "metadata",
            object(json!({"stats.total": 0, "stats": {"ok": 1, "x.y": 2}, "stats.failed": 3})),
        );
        let expanded = expanded.unwrap();
        assert_eq!(Value::Object(expanded), json!({"stats": {"total": 0, "ok": 1, "x": {"y": 2}, "failed": 3}}));
    }

    #[test]
    fn dotted_keys_in_an_update_are_refused_with_their_path() {
        let error = reject_dotted("metadata", &object(json!({"a": {"b": {"c.d": 1}}}))).unwrap_err();
        assert!(error.message().contains("metadata.a.b") && error.message().contains("c.d"), "{error}");
    }

    #[test]
    fn increments_write_numbers_as_javascript_does() {
        let mut target = object(json!({"n": 0.5}));
        assert_eq!(increment_at(&mut target, "n", 2.5).unwrap().to_string(), "3");
        assert_eq!(increment_at(&mut target, "stats.deep.count", -1.0).unwrap().to_string(), "-1");
        assert_eq!(increment_at(&mut target, "stats.deep.count", 3.0).unwrap().to_string(), "2");
        assert_eq!(increment_at(&mut target, "n", 9_007_199_254_740_989.0).unwrap().to_string(), "9007199254740992");
        assert_eq!(increment_at(&mut target, "stats.deep", 1.0).unwrap_err().code(), crate::error::Code::Type);
        let inside = increment_at(&mut target, "n.a", 1.0).unwrap_err();
        assert_eq!(inside.message(), r#"field "n.a": "n" is not an object"#);
    }

    #[test]
    fn filters_take_paths_lists_and_nulls() {
        let entry = object(json!({"status": "running", "stats": {"n": 1}, "tags": ["a"]}));
        let matches = |filter: Value| Filter::new(object(filter)).matches(&entry);
        assert!(matches(json!({"status": ["running", "awaiting"], "stats.n": 1.0})));
        assert!(matches(json!({"tags": ["a"], "missing": null})));
        assert!(matches(json!({"stats": {"n": 1.0}})) && !matches(json!({"stats": {"m": 1}})));
        assert!(!matches(json!({"status": []})));
        assert!(!matches(json!({"status": "done"})));
    }

    #[test]
    fn depth_is_bounded_and_brackets_in_strings_do_not_count() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse("value", &deep(MAX_DEPTH)).is_ok());
        assert!(parse("value", &deep(MAX_DEPTH + 1)).is_err());
        assert!(parse("value", &format!("\"\\\"{}\"", "[".repeat(5_000))).is_ok());
        let beside = vec![r#"[{"a":[]}]"#; MAX_DEPTH].join(",");
        assert!(parse("value", &format!("[{beside}]")).is_ok(), "what is closed does not count");
    }

    #[test]
    fn values_below_dotted_keys_count_with_all_their_levels() {
        // Arrays and objects in turn.
        let deep = |levels: usize| {
            (0..levels).fold(json!(1), |inner, n| if n % 2 == 0 { json!([0, inner]) } else { json!({ "k": inner }) })
        };
        let expand =
            |levels: usize| expand_dotted("metadata", Object::from_iter([("a.b".to_owned(), json!([deep(levels)]))]));
        assert!(expand(MAX_DEPTH - 3).is_ok());
        let shallow_key = Object::from_iter([("a".to_owned(), json!([deep(MAX_DEPTH + 50)]))]);
        assert!(expand_dotted("metadata", shallow_key).is_err());
        for levels in [MAX_DEPTH - 2, MAX_DEPTH - 1, MAX_DEPTH + 50] {
            assert_eq!(expand(levels).unwrap_err().code(), crate::error::Code::Invalid, "{levels}");
        }
    }

    #[test]
    fn dotted_paths_are_bounded_like_nesting_and_cost_no_stack() {
        let path = |names: usize| vec!["a"; names].join(".");
        let expand = |key: String, value: Value| expand_dotted("metadata", Object::from_iter([(key, value)]));
        let deepest = expand(path(MAX_DEPTH), json!(1)).unwrap();
        assert!(parse("value", &to_json(&deepest)).is_ok(), "what is accepted can be read again");
        assert_eq!(at_path(&deepest, &path(MAX_DEPTH)), Some(&json!(1)));
        for (names, value) in
            [(MAX_DEPTH + 1, json!(1)), (400_000, json!(1)), (MAX_DEPTH, json!([])), (MAX_DEPTH, json!({}))]
        {
            assert_eq!(expand(path(names), value).unwrap_err().code(), crate::error::Code::Invalid, "{names}");
        }
        let inner = expand(path(300), json!({ path(300): 1 }));
        assert_eq!(inner.unwrap_err().code(), crate::error::Code::Invalid);
        assert!(expand(path(256), json!({ path(256): 1 })).is_ok());
        assert!(increment_at(&mut Object::new(), &path(MAX_DEPTH), 1.0).is_ok());
        assert!(increment_at(&mut Object::new(), &path(100_000), 1.0).is_err());
        assert_eq!(at_path(&deepest, &path(400_000)), None);
        assert!(!is_too_deep("a") && !is_too_deep(&path(MAX_DEPTH)) && is_too_deep(&path(MAX_DEPTH + 1)));
        assert!(check_path("field", "").is_ok(), "without dots it is a name, whatever it is");
    }

    #[test]
    fn a_refused_increment_changes_nothing() {
        let mut target = object(json!({"text": "x", "n": 1}));
        let before = target.clone();
        for path in ["a..b", ".a", "a.", "text", "text.a", "n.a", "new.text.x."] {
            assert!(increment_at(&mut target, path, 1.0).is_err(), "{path}");
        }
        assert!(increment_at(&mut target, "new.n", f64::INFINITY).is_err());
        assert_eq!(target, before);
    }
}
