//! Reads options from JSON. Every error names the path of what it refuses.

use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::calendar::{Calendar, Repeat};
use super::options::{Backoff, JobOptions, Keep, MAX_DURATION, NewJob, ScheduleOptions, WorkerOptions};
use crate::error::{Error, Result};
use crate::json::{Object, check_depth, parse_object};
use crate::name::did_you_mean;
use crate::topic::check_name;

const MAX_WHOLE: f64 = 4_294_967_295.0;
/// Longest trace context: that of version 00 has 55 bytes.
const MAX_TRACEPARENT_BYTES: usize = 256;
const JOB_OPTIONS: &[&str] = &[
    "jobId",
    "attempts",
    "backoff",
    "delay",
    "priority",
    "lifo",
    "timeout",
    "removeOnComplete",
    "removeOnFail",
    "traceparent",
];

/// Reads the field `defaultJobOptions` of a backend's options.
pub(super) fn default_job_options<'de, D: Deserializer<'de>>(deserializer: D) -> Result<JobOptions, D::Error> {
    let options = Option::<Object>::deserialize(deserializer)?.unwrap_or_default();
    JobOptions::from_object("defaultJobOptions", options).map_err(|e| D::Error::custom(e.message()))
}

impl JobOptions {
    /// Reads a JSON object; `base` is the path of the object in messages.
    pub fn parse(base: &str, text: &str) -> Result<Self> {
        Self::from_object(base, parse_object(base, text)?)
    }

    fn from_object(base: &str, object: Object) -> Result<Self> {
        let mut options = Self::default();
        for (key, value) in &object {
            let path = format!("{base}.{key}");
            if value.is_null() && JOB_OPTIONS.contains(&key.as_str()) {
                continue;
            }
            match key.as_str() {
                "jobId" => {
                    let id = text(&path, value)?;
                    check_name(&path, id)?;
                    options.job_id = Some(id.into());
                }
                "attempts" => options.attempts = Some(whole(&path, value, 1.0)?),
                "backoff" => options.backoff = Some(backoff(&path, value)?),
                "delay" => options.delay = Some(millis(&path, value)?),
                "priority" => options.priority = Some(whole(&path, value, 0.0)?),
                "lifo" => options.lifo = Some(flag(&path, value)?),
                "timeout" => options.timeout = Some(millis(&path, value)?),
                "removeOnComplete" => options.remove_on_complete = Some(keep(&path, value)?),
                "removeOnFail" => options.remove_on_fail = Some(keep(&path, value)?),
                "traceparent" => {
                    let context = text(&path, value)?;
                    if context.len() > MAX_TRACEPARENT_BYTES {
                        return Err(Error::invalid(format!("{path}: is longer than {MAX_TRACEPARENT_BYTES} bytes")));
                    }
                    options.traceparent = Some(context.into());
                }
                _ => return Err(unknown(base, key, JOB_OPTIONS)),
            }
        }
        Ok(options)
    }
}

impl NewJob {
    /// Reads `{ name, data, opts? }`.
    pub fn parse(base: &str, json: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Fields<'a> {
            #[serde(borrow, default)]
            name: Option<&'a RawValue>,
            #[serde(borrow, default)]
            data: Option<&'a RawValue>,
            #[serde(borrow, default)]
            opts: Option<&'a RawValue>,
        }
        check_depth(base, json)?;
        let fields: Fields<'_> = serde_json::from_str(json)
            .map_err(|e| Error::invalid(format!("{base}: expected {{ name, data, opts? }}: {e}")))?;
        let path = format!("{base}.name");
        let name: String = fields
            .name
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .ok_or_else(|| Error::invalid(format!("{path}: expected a string: the name of a worker")))?;
        check_name(&path, &name)?;
        let options = match fields.opts {
            Some(raw) => JobOptions::parse(&format!("{base}.opts"), raw.get())?,
            None => JobOptions::default(),
        };
        Ok(Self { name: name.into(), data: fields.data.map_or("null", RawValue::get).into(), options })
    }
}

impl WorkerOptions {
    /// Reads `concurrency`, `autorun` and `abandonAfter`. Other options, of other backends, are ignored.
    pub fn parse(base: &str, json: &str) -> Result<Self> {
        let object = parse_object(base, json)?;
        let defaults = Self::default();
        let concurrency = given(base, &object, "concurrency", |path, value| whole(path, value, 1.0))?;
        Ok(Self {
            concurrency: concurrency.map_or(defaults.concurrency, |concurrency| concurrency as usize),
            autorun: given(base, &object, "autorun", flag)?.unwrap_or(defaults.autorun),
            abandon_after: given(base, &object, "abandonAfter", millis)?.unwrap_or(defaults.abandon_after),
        })
    }
}

impl ScheduleOptions {
    /// Reads `{ delay?, cron?, repeat?: { pattern?, limit?, tz? } }`.
    pub fn parse(base: &str, json: &str) -> Result<Self> {
        const KNOWN: &[&str] = &["delay", "cron", "repeat"];
        const KNOWN_REPEAT: &[&str] = &["pattern", "limit", "tz"];
        let (mut delay, mut pattern, mut limit, mut tz) = (None, None::<Arc<str>>, None, None::<Arc<str>>);
        let (mut repeats, mut pattern_at) = (false, String::new());
        for (key, value) in &parse_object(base, json)? {
            let path = format!("{base}.{key}");
            match (key.as_str(), value) {
                ("delay" | "cron" | "repeat", Value::Null) => {}
                ("delay", value) => delay = Some(millis(&path, value)?),
                ("cron", value) => {
                    repeats = true;
                    let cron = text(&path, value)?;
                    if pattern.as_deref().is_some_and(|other| other != cron) {
                        return Err(two_patterns(base));
                    }
                    (pattern, pattern_at) = (Some(cron.into()), path);
                }
                ("repeat", Value::Object(repeat)) => {
                    repeats = true;
                    for (key, value) in repeat.iter().filter(|(_, value)| !value.is_null()) {
                        let path = format!("{path}.{key}");
                        match key.as_str() {
                            "pattern" => {
                                let text = text(&path, value)?;
                                if pattern.as_deref().is_some_and(|other| other != text) {
                                    return Err(two_patterns(base));
                                }
                                (pattern, pattern_at) = (Some(text.into()), path);
                            }
                            "limit" => limit = Some(whole(&path, value, 1.0)?),
                            "tz" => tz = Some(text(&path, value)?.into()),
                            _ => return Err(unknown(&format!("{base}.repeat"), key, KNOWN_REPEAT)),
                        }
                    }
                }
                ("repeat", value) => return Err(expected(&path, "{ pattern, limit?, tz? }", value)),
                _ => return Err(unknown(base, key, KNOWN)),
            }
        }
        let repeat = match (repeats, pattern) {
            (true, Some(pattern)) => Some(Repeat { pattern, tz, limit }),
            (true, None) => return Err(Error::invalid(format!("{base}.repeat.pattern: required"))),
            (false, _) => None,
        };
        if repeat.is_some() && delay.is_some() {
            return Err(Error::invalid(format!("{base}: takes a delay or a cron pattern, not both")));
        }
        if let Some(repeat) = &repeat {
            Calendar::parse(&pattern_at, &format!("{base}.repeat.tz"), repeat)?;
        }
        Ok(Self { delay, repeat })
    }
}

fn two_patterns(base: &str) -> Error {
    Error::invalid(format!("{base}: cron and repeat.pattern differ: give one of them"))
}

fn expected(path: &str, wanted: &str, got: &Value) -> Error {
    Error::invalid(format!("{path}: expected {wanted}, got {got}"))
}

fn text<'a>(path: &str, value: &'a Value) -> Result<&'a str> {
    value.as_str().ok_or_else(|| expected(path, "a string", value))
}

fn whole(path: &str, value: &Value, min: f64) -> Result<u32> {
    match value.as_f64() {
        Some(number) if number.fract() == 0.0 && (min..=MAX_WHOLE).contains(&number) => Ok(number as u32),
        _ => Err(expected(path, &format!("a whole number from {min} on"), value)),
    }
}

fn number(path: &str, value: &Value, unit: &str, max: f64) -> Result<f64> {
    let number = value.as_f64().filter(|number| (0.0..=max).contains(number));
    number.ok_or_else(|| expected(path, &format!("{unit} from 0 to {max}"), value))
}

fn flag(path: &str, value: &Value) -> Result<bool> {
    value.as_bool().ok_or_else(|| expected(path, "true or false", value))
}

/// Parses milliseconds. Fractions are rounded up: callers multiply by random factors.
fn millis(path: &str, value: &Value) -> Result<u64> {
    match value.as_f64() {
        Some(number) if (0.0..=MAX_DURATION).contains(&number) => Ok(number.ceil() as u64),
        _ => Err(expected(path, "milliseconds, from 0 to ten years", value)),
    }
}

fn keep(path: &str, value: &Value) -> Result<Keep> {
    match value {
        Value::Bool(true) => Ok(Keep::last(0)),
        Value::Bool(false) => Ok(Keep::default()),
        Value::Number(_) => Ok(Keep::last(whole(path, value, 0.0)?.into())),
        Value::Object(object) => {
            // How many are removed at a time (BullMQ's `limit`) is the engine's to bound.
            known(path, object, &["count", "age", "limit"])?;
            Ok(Keep {
                count: given(path, object, "count", |path, value| whole(path, value, 0.0))?.map(Into::into),
                age: given(path, object, "age", |path, value| number(path, value, "seconds", MAX_DURATION / 1000.0))?
                    .map(|seconds| (seconds * 1000.0) as u64),
            })
        }
        _ => Err(expected(path, "true, false, how many to keep or { count?, age? }", value)),
    }
}

fn backoff(path: &str, value: &Value) -> Result<Backoff> {
    let object = match value {
        Value::Object(object) => object,
        Value::Number(_) => return Ok(Backoff::fixed(millis(path, value)?)),
        _ => return Err(expected(path, "milliseconds or { type, delay }", value)),
    };
    known(path, object, &["type", "delay", "jitter"])?;
    let exponential = match object.get("type") {
        Some(Value::String(kind)) if kind == "exponential" => true,
        Some(Value::String(kind)) if kind == "fixed" => false,
        other => {
            let wanted = "\"exponential\" or \"fixed\"";
            return Err(expected(&format!("{path}.type"), wanted, other.unwrap_or(&Value::Null)));
        }
    };
    Ok(Backoff {
        exponential,
        delay: given(path, object, "delay", millis)?.unwrap_or(0),
        jitter: given(path, object, "jitter", |path, value| number(path, value, "a number", 1.0))?.unwrap_or(0.0),
    })
}

/// Reads an option that may be missing.
fn given<T>(path: &str, object: &Object, key: &str, read: impl FnOnce(&str, &Value) -> Result<T>) -> Result<Option<T>> {
    let value = object.get(key).filter(|value| !value.is_null());
    value.map(|value| read(&format!("{path}.{key}"), value)).transpose()
}

/// Refuses keys that do not exist.
fn known(path: &str, object: &Object, names: &[&str]) -> Result<()> {
    match object.keys().find(|key| !names.contains(&key.as_str())) {
        Some(key) => Err(unknown(path, key, names)),
        None => Ok(()),
    }
}

/// Returns the error for an unknown option, with the nearest known one.
fn unknown(base: &str, key: &str, known: &[&str]) -> Error {
    Error::invalid(format!("{base}.{key}: unknown option{}", did_you_mean(key, known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(json: &str) -> String {
        JobOptions::parse("job.opts", json).unwrap_err().message().to_owned()
    }

    #[test]
    fn errors_name_the_path_and_what_is_known() {
        assert!(
            message(r#"{"atempts": 3}"#).starts_with(r#"job.opts.atempts: unknown option; did you mean "attempts"?"#)
        );
        assert!(message(r#"{"backoff": {"type": "linear"}}"#).starts_with("job.opts.backoff.type: expected"));
        assert!(
            message(r#"{"attempts": 0}"#).starts_with("job.opts.attempts: expected a whole number from 1 on, got 0")
        );
        assert!(message(r#"{"removeOnFail": "all"}"#).starts_with("job.opts.removeOnFail: expected"));
        assert!(
            message(r#"{"removeOnFail": {"age": "1h"}}"#).starts_with("job.opts.removeOnFail.age: expected seconds")
        );
        assert!(message(r#"{"removeOnFail": {"cont": 1}}"#).contains(r#"did you mean "count"?"#));
        assert!(message(r#"{"backoff": {"type": "fixed", "jiter": 1}}"#).contains(r#"did you mean "jitter"?"#));
        assert!(
            message(r#"{"backoff": {"type": "fixed", "jitter": 2}}"#).starts_with("job.opts.backoff.jitter: expected")
        );
        assert!(message(r#"{"delay": -1}"#).starts_with("job.opts.delay: expected milliseconds"));
    }

    #[test]
    fn options_come_back_from_what_is_stored() {
        let text = r#"{"jobId":"a","attempts":3,"backoff":{"type":"exponential","delay":100,"jitter":0.5},"delay":5,"priority":2,"lifo":true,"timeout":9,"removeOnComplete":true,"removeOnFail":{"age":2.5,"count":10}}"#;
        let options = JobOptions::parse("opts", text).unwrap();
        assert_eq!(options.remove_on_complete, Some(Keep::last(0)));
        assert_eq!(options.remove_on_fail, Some(Keep { count: Some(10), age: Some(2_500) }));
        assert_eq!(JobOptions::parse("opts", &options.to_json()).unwrap(), options);
    }

    #[test]
    fn nulls_are_absent_and_a_number_is_a_fixed_backoff() {
        let options = JobOptions::parse("opts", r#"{"jobId":null,"timeout":null,"backoff":250.5}"#).unwrap();
        assert_eq!(options, JobOptions { backoff: Some(Backoff::fixed(251)), ..JobOptions::default() });
        let options = JobOptions::parse("opts", r#"{"backoff":{"type":"fixed","delay":null}}"#).unwrap();
        assert_eq!(options.backoff, Some(Backoff::fixed(0)));
    }

    #[test]
    fn exponential_backoff_doubles_and_is_bounded() {
        let backoff = Backoff { exponential: true, ..Backoff::fixed(100) };
        assert_eq!([1, 2, 3, 4].map(|n| backoff.delay(n, u64::MAX)), [100, 200, 400, 800]);
        assert_eq!(backoff.delay(200, 0), MAX_DURATION as u64);
    }

    #[test]
    fn jitter_takes_away_at_most_its_part_of_a_wait() {
        let backoff = Backoff { jitter: 0.25, ..Backoff::fixed(100) };
        assert_eq!([0, u64::MAX / 2, u64::MAX].map(|seed| backoff.delay(1, seed)), [100, 88, 75]);
    }

    #[test]
    fn a_schedule_takes_a_delay_or_a_pattern() {
        let parse = |json: &str| ScheduleOptions::parse("opts", json);
        assert_eq!(parse(r#"{"delay":5}"#).unwrap().delay, Some(5));
        let repeat = parse(r#"{"cron":"0 3 * * *","repeat":{"limit":2}}"#).unwrap().repeat.unwrap();
        assert_eq!((&*repeat.pattern, repeat.limit), ("0 3 * * *", Some(2)));
        assert!(parse(r#"{"delay":5,"cron":"* * * * *"}"#).is_err());
        assert!(parse(r#"{"repeat":{}}"#).unwrap_err().message().contains("repeat.pattern"));
        let message = |json: &str| parse(json).unwrap_err().message().to_owned();
        assert!(message(r#"{"cron":"* * *"}"#).starts_with("opts.cron: \"* * *\" has 3 fields"));
        assert!(message(r#"{"repeat":{"pattern":"* * *"}}"#).starts_with("opts.repeat.pattern: "));
        assert!(message(r#"{"cron":"* * * * *","repeat":{"tz":"Mars"}}"#).starts_with("opts.repeat.tz: "));
        assert!(parse(r#"{"repeat":{"patern":"* * * * *"}}"#).unwrap_err().message().contains("opts.repeat.patern"));
    }

    #[test]
    fn numbers_texts_and_flags_are_bounded() {
        let accepted = |json: String| JobOptions::parse("opts", &json);
        for (option, largest, too_large) in [
            ("attempts", "4294967295", "4294967296"),
            ("priority", "0", "0.5"),
            ("delay", "316224000000", "316224000001"),
            ("removeOnComplete", r#"{"age":316224000}"#, r#"{"age":316224001}"#),
            ("lifo", "false", "0"),
            ("jobId", r#""x""#, r#""""#),
        ] {
            accepted(format!("{{{option:?}:{largest}}}")).unwrap();
            let error = accepted(format!("{{{option:?}:{too_large}}}")).unwrap_err();
            assert!(error.message().starts_with(&format!("opts.{option}")), "{error}");
        }
        assert_eq!(accepted(r#"{"lifo":false}"#.into()).unwrap().lifo, Some(false));
        assert_eq!(accepted(r#"{"removeOnFail":false}"#.into()).unwrap().remove_on_fail, Some(Keep::default()));
        let context = |length| JobOptions::parse("opts", &format!(r#"{{"traceparent":"{}"}}"#, "0".repeat(length)));
        assert_eq!(context(MAX_TRACEPARENT_BYTES).unwrap().traceparent.unwrap().len(), MAX_TRACEPARENT_BYTES);
        assert!(context(MAX_TRACEPARENT_BYTES + 1).unwrap_err().message().starts_with("opts.traceparent: is longer"));
        let deep = |field: &str| format!(r#"{{"name":"a",{field:?}:{}1{}}}"#, "[".repeat(600), "]".repeat(600));
        assert!(NewJob::parse("job", &deep("data")).unwrap_err().message().contains("nested deeper"));
        assert!(NewJob::parse("job", r#"{"name":""}"#).unwrap_err().message().starts_with("job.name: "));
    }

    #[test]
    fn a_worker_has_the_options_that_are_given() {
        let parse = |json: &str| WorkerOptions::parse("opts", json);
        let options = parse(r#"{"concurrency":3,"autorun":false,"abandonAfter":5,"other":1}"#).unwrap();
        assert_eq!((options.concurrency, options.autorun, options.abandon_after), (3, false, 5));
        let (options, defaults) = (parse(r#"{"autorun":null}"#).unwrap(), WorkerOptions::default());
        assert_eq!((options.concurrency, options.autorun), (defaults.concurrency, defaults.autorun));
        assert_eq!(options.abandon_after, defaults.abandon_after);
        for bad in [r#"{"concurrency":0}"#, r#"{"autorun":1}"#, r#"{"abandonAfter":-1}"#] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_schedule_has_one_pattern() {
        let parse = |json: &str| ScheduleOptions::parse("opts", json);
        let (a, b) = ("* * * * *", "0 * * * *");
        for json in [
            format!(r#"{{"cron":"{a}","repeat":{{"pattern":"{a}"}}}}"#),
            format!(r#"{{"repeat":{{"pattern":"{a}"}},"cron":"{a}"}}"#),
        ] {
            assert_eq!(&*parse(&json).unwrap().repeat.unwrap().pattern, a);
        }
        for json in [
            format!(r#"{{"cron":"{a}","repeat":{{"pattern":"{b}"}}}}"#),
            format!(r#"{{"repeat":{{"pattern":"{a}"}},"cron":"{b}"}}"#),
        ] {
            assert!(parse(&json).unwrap_err().message().contains("cron and repeat.pattern differ"), "{json}");
        }
        assert_eq!(parse(r#"{"delay":null,"cron":null,"repeat":null}"#).unwrap(), ScheduleOptions::default());
        assert!(parse(r#"{"repeat":1}"#).unwrap_err().message().starts_with("opts.repeat: expected"));
        assert!(parse(r#"{"crom":"x"}"#).unwrap_err().message().contains(r#"did you mean "cron"?"#));
    }
}
