//! Options as callers give them, checked: every error names the path of what it refuses.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::json::{Json, Object, check_depth, parse_object, to_json};
use crate::topic::check_name;

use super::schedule::Calendar;

/// The longest time that an option may name: ten years, in milliseconds.
const MAX_MS: f64 = 10.0 * 366.0 * 24.0 * 3_600_000.0;
const MAX_WHOLE: f64 = 4_294_967_295.0;

/// How long to wait before the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backoff {
    /// Always the same, in ms.
    Fixed(u64),
    /// Twice as long after each attempt, from this many ms.
    Exponential(u64),
}

impl Backoff {
    /// The wait after so many attempts, in ms.
    pub fn delay(self, attempts_made: u32) -> u64 {
        match self {
            Self::Fixed(delay) => delay,
            Self::Exponential(delay) => {
                let factor = 1_u64.checked_shl(attempts_made.saturating_sub(1)).unwrap_or(u64::MAX);
                delay.saturating_mul(factor).min(MAX_MS as u64)
            }
        }
    }
}

/// What is kept of jobs that ended in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// All of them.
    #[default]
    All,
    /// The last so many of the queue.
    Last(u64),
}

/// What a caller says about a job. None is the default of the queue, or else of the system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobOptions {
    /// The id; a job that has it already makes the enqueue a no-op.
    pub job_id: Option<Arc<str>>,
    /// How many attempts there are in all. One unless given.
    pub attempts: Option<u32>,
    /// The wait between attempts. None unless given.
    pub backoff: Option<Backoff>,
    /// Milliseconds before it may run.
    pub delay: Option<u64>,
    /// Lower numbers run first, jobs without one (or with 0) before them.
    pub priority: Option<u32>,
    /// Milliseconds after which an attempt has failed.
    pub timeout: Option<u64>,
    /// What to keep of completed jobs.
    pub remove_on_complete: Option<Keep>,
    /// What to keep of failed jobs.
    pub remove_on_fail: Option<Keep>,
}

const JOB_OPTIONS: &[&str] =
    &["jobId", "attempts", "backoff", "delay", "priority", "timeout", "removeOnComplete", "removeOnFail"];

impl JobOptions {
    /// Reads a JSON object; `what` is its path in messages.
    pub fn parse(what: &str, text: &str) -> Result<Self> {
        Self::from_object(what, parse_object(what, text)?)
    }

    pub(super) fn from_object(what: &str, object: Object) -> Result<Self> {
        let mut options = Self::default();
        for (key, value) in &object {
            let path = format!("{what}.{key}");
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
                "timeout" => options.timeout = Some(millis(&path, value)?).filter(|ms| *ms > 0),
                "removeOnComplete" => options.remove_on_complete = Some(keep(&path, value)?),
                "removeOnFail" => options.remove_on_fail = Some(keep(&path, value)?),
                _ => return Err(unknown(what, key, JOB_OPTIONS)),
            }
        }
        Ok(options)
    }

    /// These options, with the missing ones taken from `defaults` (but for the id).
    #[must_use]
    pub fn or(self, defaults: &Self) -> Self {
        Self {
            job_id: self.job_id,
            attempts: self.attempts.or(defaults.attempts),
            backoff: self.backoff.or(defaults.backoff),
            delay: self.delay.or(defaults.delay),
            priority: self.priority.or(defaults.priority),
            timeout: self.timeout.or(defaults.timeout),
            remove_on_complete: self.remove_on_complete.or(defaults.remove_on_complete),
            remove_on_fail: self.remove_on_fail.or(defaults.remove_on_fail),
        }
    }

    /// As a handler sees them and as they are stored: `attempts` is always there.
    pub fn to_json(&self) -> Json {
        fn keep(keep: Keep) -> Value {
            match keep {
                Keep::All => false.into(),
                Keep::Last(count) => count.into(),
            }
        }
        let mut object = Object::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                object.insert(key.into(), value);
            }
        };
        put("jobId", self.job_id.as_deref().map(Into::into));
        put("attempts", Some(self.attempts().into()));
        put(
            "backoff",
            self.backoff.map(|backoff| match backoff {
                Backoff::Fixed(delay) => serde_json::json!({"type": "fixed", "delay": delay}),
                Backoff::Exponential(delay) => serde_json::json!({"type": "exponential", "delay": delay}),
            }),
        );
        put("delay", self.delay.map(Into::into));
        put("priority", self.priority.map(Into::into));
        put("timeout", self.timeout.map(Into::into));
        put("removeOnComplete", self.remove_on_complete.map(keep));
        put("removeOnFail", self.remove_on_fail.map(keep));
        to_json(&object)
    }

    /// Attempts in all.
    pub fn attempts(&self) -> u32 {
        self.attempts.unwrap_or(1)
    }
}

/// A job to be: what to run, on what, and how.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Which worker runs it.
    pub name: Arc<str>,
    /// What the worker is handed, as it came.
    pub data: Json,
    /// How.
    pub options: JobOptions,
}

impl NewJob {
    /// Reads `{ name, data, opts? }`.
    pub fn parse(what: &str, json: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Fields<'a> {
            #[serde(borrow, default)]
            name: Option<&'a RawValue>,
            #[serde(borrow, default)]
            data: Option<&'a RawValue>,
            #[serde(borrow, default)]
            opts: Option<&'a RawValue>,
        }
        check_depth(what, json)?;
        let fields: Fields<'_> = serde_json::from_str(json)
            .map_err(|e| Error::invalid(format!("{what}: expected {{ name, data, opts? }}: {e}")))?;
        let path = format!("{what}.name");
        let name: String = fields
            .name
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .ok_or_else(|| Error::invalid(format!("{path}: expected a string: the name of a worker")))?;
        check_name(&path, &name)?;
        let options = match fields.opts {
            Some(raw) => JobOptions::parse(&format!("{what}.opts"), raw.get())?,
            None => JobOptions::default(),
        };
        Ok(Self { name: name.into(), data: fields.data.map_or("null", RawValue::get).into(), options })
    }
}

/// How a worker works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerOptions {
    /// How many jobs of the queue may run at the same time. The first worker of a queue decides for all of them.
    pub concurrency: usize,
    /// Whether [`super::Queue::start`] starts the queue. If not, [`super::Queue::resume`] does.
    pub autorun: bool,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self { concurrency: 1, autorun: true }
    }
}

impl WorkerOptions {
    /// Reads `concurrency` and `autorun`. Others are left alone: they are meant for other backends of nvent.
    pub fn parse(what: &str, json: &str) -> Result<Self> {
        let object = parse_object(what, json)?;
        let mut options = Self::default();
        let given = |key: &str| object.get(key).filter(|value| !value.is_null());
        if let Some(value) = given("concurrency") {
            options.concurrency = whole(&format!("{what}.concurrency"), value, 1.0)? as usize;
        }
        if let Some(value) = given("autorun") {
            options.autorun =
                value.as_bool().ok_or_else(|| expected(&format!("{what}.autorun"), "true or false", value))?;
        }
        Ok(options)
    }
}

/// When a job runs: after a delay, or again and again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScheduleOptions {
    /// Once, after so many ms.
    pub delay: Option<u64>,
    /// When it repeats.
    pub repeat: Option<Repeat>,
}

/// A job that repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeat {
    /// Cron: five fields, or six with seconds first.
    pub pattern: Arc<str>,
    /// An IANA time zone. None is the machine's.
    pub tz: Option<Arc<str>>,
    /// How often in all.
    pub limit: Option<u32>,
}

impl ScheduleOptions {
    /// Reads `{ delay?, cron?, repeat?: { pattern?, limit?, tz? } }`.
    pub fn parse(what: &str, json: &str) -> Result<Self> {
        const KNOWN: &[&str] = &["delay", "cron", "repeat"];
        const KNOWN_REPEAT: &[&str] = &["pattern", "limit", "tz"];
        let (mut delay, mut pattern, mut limit, mut tz) = (None, None::<Arc<str>>, None, None::<Arc<str>>);
        let (mut repeats, mut pattern_at) = (false, String::new());
        for (key, value) in &parse_object(what, json)? {
            let path = format!("{what}.{key}");
            match (key.as_str(), value) {
                ("delay" | "cron" | "repeat", Value::Null) => {}
                ("delay", value) => delay = Some(millis(&path, value)?),
                ("cron", value) => {
                    repeats = true;
                    let cron = text(&path, value)?;
                    if pattern.as_deref().is_some_and(|other| other != cron) {
                        return Err(two_patterns(what));
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
                                    return Err(two_patterns(what));
                                }
                                (pattern, pattern_at) = (Some(text.into()), path);
                            }
                            "limit" => limit = Some(whole(&path, value, 1.0)?),
                            "tz" => tz = Some(text(&path, value)?.into()),
                            _ => return Err(unknown(&format!("{what}.repeat"), key, KNOWN_REPEAT)),
                        }
                    }
                }
                ("repeat", value) => return Err(expected(&path, "{ pattern, limit?, tz? }", value)),
                _ => return Err(unknown(what, key, KNOWN)),
            }
        }
        let repeat = match (repeats, pattern) {
            (true, Some(pattern)) => Some(Repeat { pattern, tz, limit }),
            (true, None) => return Err(Error::invalid(format!("{what}.repeat.pattern: missing: when shall it run?"))),
            (false, _) => None,
        };
        if repeat.is_some() && delay.is_some() {
            return Err(Error::invalid(format!("{what}: takes a delay or a cron pattern, not both")));
        }
        if let Some(repeat) = &repeat {
            Calendar::parse(&pattern_at, &format!("{what}.repeat.tz"), repeat)?;
        }
        Ok(Self { delay, repeat })
    }
}

fn two_patterns(what: &str) -> Error {
    Error::invalid(format!("{what}: cron and repeat.pattern differ: give one of them"))
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

/// Fractions of a millisecond are rounded up: callers multiply by random factors.
fn millis(path: &str, value: &Value) -> Result<u64> {
    match value.as_f64() {
        Some(number) if (0.0..=MAX_MS).contains(&number) => Ok(number.ceil() as u64),
        _ => Err(expected(path, "milliseconds, from 0 to ten years", value)),
    }
}

fn keep(path: &str, value: &Value) -> Result<Keep> {
    match value {
        Value::Bool(true) => Ok(Keep::Last(0)),
        Value::Bool(false) => Ok(Keep::All),
        Value::Number(_) => Ok(Keep::Last(whole(path, value, 0.0)?.into())),
        _ => Err(expected(path, "true, false or how many to keep", value)),
    }
}

fn backoff(path: &str, value: &Value) -> Result<Backoff> {
    let Value::Object(object) = value else {
        return match value {
            Value::Number(_) => Ok(Backoff::Fixed(millis(path, value)?)),
            _ => Err(expected(path, "milliseconds or { type, delay }", value)),
        };
    };
    if let Some(key) = object.keys().find(|key| !matches!(key.as_str(), "type" | "delay")) {
        return Err(unknown(path, key, &["type", "delay"]));
    }
    let delay = match object.get("delay") {
        None | Some(Value::Null) => 0,
        Some(value) => millis(&format!("{path}.delay"), value)?,
    };
    match object.get("type") {
        Some(Value::String(kind)) if kind == "exponential" => Ok(Backoff::Exponential(delay)),
        Some(Value::String(kind)) if kind == "fixed" => Ok(Backoff::Fixed(delay)),
        other => Err(expected(&format!("{path}.type"), "\"exponential\" or \"fixed\"", other.unwrap_or(&Value::Null))),
    }
}

/// The error for an option that does not exist, with the known one that looks most like it.
pub(super) fn unknown(what: &str, key: &str, known: &[&str]) -> Error {
    let nearest = known.iter().map(|name| (distance(key, name), name)).min().filter(|(distance, _)| *distance <= 3);
    let hint = nearest.map_or(String::new(), |(_, name)| format!("; did you mean {name:?}?"));
    Error::invalid(format!("{what}.{key}: unknown option{hint} (known: {})", known.join(", ")))
}

/// Levenshtein's distance, letter case aside.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let cost = if x == *y { diagonal } else { 1 + diagonal.min(row[j]).min(row[j + 1]) };
            diagonal = std::mem::replace(&mut row[j + 1], cost);
        }
    }
    row[b.len()]
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
        assert!(message(r#"{"removeOnFail": {"age": 1}}"#).starts_with("job.opts.removeOnFail: expected"));
        assert!(message(r#"{"delay": -1}"#).starts_with("job.opts.delay: expected milliseconds"));
    }

    #[test]
    fn options_come_back_from_what_is_stored() {
        let text = r#"{"jobId":"a","attempts":3,"backoff":{"type":"exponential","delay":100},"delay":5,"priority":2,"timeout":9,"removeOnComplete":true,"removeOnFail":10}"#;
        let options = JobOptions::parse("opts", text).unwrap();
        assert_eq!(options.remove_on_complete, Some(Keep::Last(0)));
        assert_eq!(JobOptions::parse("opts", &options.to_json()).unwrap(), options);
    }

    #[test]
    fn nulls_are_absent_and_a_number_is_a_fixed_backoff() {
        let options = JobOptions::parse("opts", r#"{"jobId":null,"timeout":null,"backoff":250.5}"#).unwrap();
        assert_eq!(options, JobOptions { backoff: Some(Backoff::Fixed(251)), ..JobOptions::default() });
    }

    #[test]
    fn exponential_backoff_doubles_and_is_bounded() {
        let backoff = Backoff::Exponential(100);
        assert_eq!([1, 2, 3, 4].map(|n| backoff.delay(n)), [100, 200, 400, 800]);
        assert_eq!(backoff.delay(200), MAX_MS as u64);
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
}
