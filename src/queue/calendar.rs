//! Cron patterns in time zones.

use std::str::FromStr;
use std::sync::Arc;

use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::error::{Error, Result};

/// When a job repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeat {
    /// Cron: five fields, or six with seconds first.
    pub pattern: Arc<str>,
    /// An IANA time zone. None is the machine's.
    pub tz: Option<Arc<str>>,
    /// How often in all.
    pub limit: Option<u32>,
}

/// A cron pattern in its time zone.
#[derive(Debug, Clone)]
pub(super) struct Calendar {
    cron: Cron,
    zone: TimeZone,
}

impl Calendar {
    /// Parses a pattern and a time zone.
    pub(super) fn new(repeat: &Repeat) -> Result<Self> {
        Self::parse("repeat.pattern", "repeat.tz", repeat)
    }

    /// Parses both, with their paths in messages.
    pub(super) fn parse(pattern_at: &str, tz_at: &str, repeat: &Repeat) -> Result<Self> {
        let pattern = &repeat.pattern;
        let invalid = |what: String| Error::invalid(format!("{pattern_at}: {pattern:?} {what}"));
        let fields = pattern.split_whitespace().count();
        if !(pattern.starts_with('@') || (5..=6).contains(&fields)) {
            return Err(invalid(format!("has {fields} fields: expected five, or six with seconds first")));
        }
        let cron = Cron::from_str(pattern).map_err(|e| invalid(format!("is no cron pattern: {e}")))?;
        let zone = match repeat.tz.as_deref() {
            None => TimeZone::system(),
            Some(name) => TimeZone::get(name).map_err(|_| {
                Error::invalid(format!(
                    "{tz_at}: {name:?} is no time zone: expected an IANA name such as Europe/Berlin"
                ))
            })?,
        };
        let calendar = Self { cron, zone };
        match calendar.next_after(0) {
            Some(_) => Ok(calendar),
            None => Err(invalid("never comes".into())),
        }
    }

    /// Returns the first time of the pattern after this one, in ms; None where there is none.
    pub(super) fn next_after(&self, now_ms: u64) -> Option<u64> {
        let now = Timestamp::from_millisecond(i64::try_from(now_ms).ok()?).ok()?;
        let next: Zoned = self.cron.find_next_occurrence(&now.to_zoned(self.zone.clone()), false).ok()?;
        u64::try_from(next.timestamp().as_millisecond()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(pattern: &str, tz: &str, from: &str) -> String {
        let calendar = Calendar::new(&Repeat { pattern: pattern.into(), tz: Some(tz.into()), limit: None }).unwrap();
        let from: Timestamp = from.parse().unwrap();
        let next = calendar.next_after(from.as_millisecond() as u64).unwrap();
        Timestamp::from_millisecond(next as i64).unwrap().to_string()
    }

    #[test]
    fn patterns_have_five_fields_or_six_with_seconds_first() {
        assert_eq!(next("*/5 * * * *", "UTC", "2026-01-01T00:02:00Z"), "2026-01-01T00:05:00Z");
        assert_eq!(next("*/10 * * * * *", "UTC", "2026-01-01T00:00:01Z"), "2026-01-01T00:00:10Z");
    }

    #[test]
    fn the_next_time_is_after_now_also_when_now_is_one() {
        assert_eq!(next("0 0 * * *", "UTC", "2026-01-01T00:00:00Z"), "2026-01-02T00:00:00Z");
    }

    #[test]
    fn time_zones_move_with_summer_time() {
        assert_eq!(next("0 9 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z"), "2026-03-29T07:00:00Z");
        assert_eq!(next("0 9 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z"), "2026-03-28T08:00:00Z");
        // 02:30 does not exist on that day: it runs when the gap is over.
        assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z"), "2026-03-29T01:00:00Z");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |pattern: &str, tz: Option<&str>| {
            let repeat = Repeat { pattern: pattern.into(), tz: tz.map(Into::into), limit: None };
            Calendar::new(&repeat).unwrap_err().message().to_owned()
        };
        assert!(error("* * *", None).contains("has 3 fields"));
        assert!(error("61 * * * *", None).contains("no cron pattern"));
        assert!(error("* * * * *", Some("Mars/Olympus")).contains("repeat.tz"));
        assert!(error("0 0 30 2 *", None).contains("0 0 30 2 *"));
    }
}
