//! Options as callers give them, checked: every error names the path of what it refuses.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::json::{Json, Object, check_depth, parse_object, to_json};
use crate::topic::check_name;

use super::schedule::Calendar;

/// The longest time that an option may name: ten years, in milliseconds.
const MAX_MS: f64 = 10.0 * 366.0 * 24.0 * 3_600_000.0;
const MAX_WHOLE: f64 = 4_294_967_295.0;

/// How long to wait before the next attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// Whether the wait is twice as long after each attempt, rather than always the same.
    pub exponential: bool,
    /// The (first) wait, in ms.
    pub delay: u64,
    /// The part of a wait that chance may take away: 0 for none of it, 1 for all.
    pub jitter: f64,
}

impl Backoff {
    /// Always the same wait.
    pub const fn fixed(delay: u64) -> Self {
        Self { exponential: false, delay, jitter: 0.0 }
    }

    /// The wait after so many attempts, in ms. `dice` is any number.
    pub fn delay(self, attempts_made: u32, dice: u64) -> u64 {
        let factor = match self.exponential {
            true => 1_u64.checked_shl(attempts_made.saturating_sub(1)).unwrap_or(u64::MAX),
            false => 1,
        };
        let whole = self.delay.saturating_mul(factor).min(MAX_MS as u64);
        whole - (whole as f64 * self.jitter * (dice as f64 / u64::MAX as f64)) as u64
    }
}

/// What is kept of a queue's jobs that ended in one way. Looked at when a job ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// The last so many; None is all of them.
    pub count: Option<u64>,
    /// Those that ended at most so many ms ago.
    pub age: Option<u64>,
}

impl Keep {
    /// The last so many.
    pub const fn last(count: u64) -> Self {
        Self { count: Some(count), age: None }
    }

    fn to_value(self) -> Value {
        match self {
            Self { count: None, age: None } => false.into(),
            Self { count: Some(count), age: None } => count.into(),
            Self { count: None, age: Some(age) } => json!({"age": age as f64 / 1000.0}),
            Self { count: Some(count), age: Some(age) } => json!({"age": age as f64 / 1000.0, "count": count}),
        }
    }
}

/// What a caller says about a job. None is the default of the queue, or else of the system.
#[derive(Debug, Clone, Default, PartialEq)]
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
    /// Runs before the jobs of its priority that are there already.
    pub lifo: Option<bool>,
    /// Milliseconds after which an attempt has failed.
    pub timeout: Option<u64>,
    /// What to keep of completed jobs.
    pub remove_on_complete: Option<Keep>,
    /// What to keep of failed jobs.
    pub remove_on_fail: Option<Keep>,
}

const JOB_OPTIONS: &[&str] =
    &["jobId", "attempts", "backoff", "delay", "priority", "lifo", "timeout", "removeOnComplete", "removeOnFail"];

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
                "lifo" => options.lifo = Some(flag(&path, value)?),
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
            lifo: self.lifo.or(defaults.lifo),
            timeout: self.timeout.or(defaults.timeout),
            remove_on_complete: self.remove_on_complete.or(defaults.remove_on_complete),
            remove_on_fail: self.remove_on_fail.or(defaults.remove_on_fail),
        }
    }

    /// As a handler sees them and as they are stored: `attempts` is always there.
    pub fn to_json(&self) -> Json {
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
            self.backoff.map(|Backoff { exponential, delay, jitter }| {
                let kind = if exponential { "exponential" } else { "fixed" };
                let mut backoff = json!({"type": kind, "delay": delay});
                if jitter > 0.0 {
                    backoff["jitter"] = jitter.into();
                }
                backoff
            }),
        );
        put("delay", self.delay.map(Into::into));
        put("priority", self.priority.map(Into::into));
        put("lifo", self.lifo.map(Into::into));
        put("timeout", self.timeout.map(Into::into));
        put("removeOnComplete", self.remove_on_complete.map(Keep::to_value));
        put("removeOnFail", self.remove_on_fail.map(Keep::to_value));
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
        let defaults = Self::default();
        let concurrency = given(what, &object, "concurrency", |path, value| whole(path, value, 1.0))?;
        Ok(Self {
            concurrency: concurrency.map_or(defaults.concurrency, |concurrency| concurrency as usize),
            autorun: given(what, &object, "autorun", flag)?.unwrap_or(defaults.autorun),
        })
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

fn number(path: &str, value: &Value, what: &str, max: f64) -> Result<f64> {
    let number = value.as_f64().filter(|number| (0.0..=max).contains(number));
    number.ok_or_else(|| expected(path, &format!("{what} from 0 to {max}"), value))
}

fn flag(path: &str, value: &Value) -> Result<bool> {
    value.as_bool().ok_or_else(|| expected(path, "true or false", value))
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
        Value::Bool(true) => Ok(Keep::last(0)),
        Value::Bool(false) => Ok(Keep::default()),
        Value::Number(_) => Ok(Keep::last(whole(path, value, 0.0)?.into())),
        Value::Object(object) => {
            // How many are removed at a time (BullMQ's `limit`) is the engine's to bound.
            known(path, object, &["count", "age", "limit"])?;
            Ok(Keep {
                count: given(path, object, "count", |path, value| whole(path, value, 0.0))?.map(Into::into),
                age: given(path, object, "age", |path, value| number(path, value, "seconds", MAX_MS / 1000.0))?
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

/// An option of an object, if it is there.
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
        assert!(message(r#"{"removeOnFail": "all"}"#).starts_with("job.opts.removeOnFail: expected"));
        assert!(
            message(r#"{"removeOnFail": {"age": "1h"}}"#).starts_with("job.opts.removeOnFail.age: expected seconds")
        );
        assert!(message(r#"{"removeOnFail": {"cont": 1}}"#).contains(r#"did you mean "count"?"#));
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
    }

    #[test]
    fn exponential_backoff_doubles_and_is_bounded() {
        let backoff = Backoff { exponential: true, ..Backoff::fixed(100) };
        assert_eq!([1, 2, 3, 4].map(|n| backoff.delay(n, u64::MAX)), [100, 200, 400, 800]);
        assert_eq!(backoff.delay(200, 0), MAX_MS as u64);
    }

    #[test]
    fn jitter_takes_away_at_most_its_part_of_a_wait() {
        let backoff = Backoff { jitter: 0.25, ..Backoff::fixed(100) };
        assert_eq!([0, u64::MAX / 2, u64::MAX].map(|dice| backoff.delay(1, dice)), [100, 88, 75]);
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
