//! Cron patterns in time zones.

use std::str::FromStr;
use std::sync::Arc;

use croner::Cron;
use jiff::civil::DateTime;
use jiff::tz::AmbiguousOffset;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

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
pub struct Calendar {
    cron: Cron,
    zone: TimeZone,
    /// Whether it matches in every hour of a day.
    is_hourly: bool,
}

impl Calendar {
    /// Parses a pattern and a time zone.
    pub(super) fn new(repeat: &Repeat) -> Result<Self> {
        Self::parse("repeat.pattern", "repeat.tz", repeat)
    }

    /// Parses both, with their paths in messages.
    pub fn parse(pattern_at: &str, tz_at: &str, repeat: &Repeat) -> Result<Self> {
        let pattern = &repeat.pattern;
        let invalid = |what: String| Error::invalid(format!("{pattern_at}: {pattern:?} {what}"));
        let fields = pattern.split_whitespace().count();
        if !(pattern.starts_with('@') || (5..=6).contains(&fields)) {
            return Err(invalid(format!("has {fields} fields: expected five, or six with seconds first")));
        }
        // The parser skips it: an item was forgotten, or a list has a space in it and is read as two fields.
        if pattern.split_whitespace().flat_map(|field| field.split(',')).any(str::is_empty) {
            return Err(invalid("has a list with an empty item".into()));
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
        let is_hourly = (0..24).all(|hour| cron.pattern.hour_match(hour).unwrap_or(false));
        let calendar = Self { cron, zone, is_hourly };
        match calendar.next_after(0) {
            Some(_) => Ok(calendar),
            None => Err(invalid("never comes".into())),
        }
    }

    /// Returns the first time of the pattern after this one, in ms; None where there is none.
    ///
    /// Where the clocks of the time zone change, a pattern for certain hours (`30 2,14 * * *`, `0 */2 * * *`) runs once for
    /// each of its local times: a skipped time runs when the gap is over, a repeated time runs the first time. A pattern
    /// for every hour (`*/10 * * * *`) goes by the time that passes.
    pub fn next_after(&self, now_ms: u64) -> Option<u64> {
        let now = Timestamp::from_millisecond(i64::try_from(now_ms).ok()?).ok()?;
        let next = if self.is_hourly { self.next_elapsed(now) } else { self.next_local(now) };
        u64::try_from(next?.as_millisecond()).ok()
    }

    /// Returns the last time of the pattern that is after `after_ms` and not after `until_ms`; None where there is none.
    pub fn last_between(&self, after_ms: u64, until_ms: u64) -> Option<u64> {
        let comes = |after: u64| self.next_after(after).filter(|time| *time <= until_ms);
        // `next_after` never decreases. `last` is a time of the pattern, and none follows `end`.
        let (mut last, mut end) = (comes(after_ms)?, until_ms);
        while last < end {
            let middle = last + (end - last) / 2;
            match comes(middle) {
                Some(later) => last = later,
                None => end = middle,
            }
        }
        Some(last)
    }

    /// Returns the next match of the pattern in a local time without changes of the clock.
    fn next_civil(&self, after: DateTime, inclusive: bool) -> Option<DateTime> {
        let next = self.cron.find_next_occurrence(&after.to_zoned(TimeZone::UTC).ok()?, inclusive).ok()?;
        Some(next.datetime())
    }

    /// Returns the next time of a pattern for certain hours.
    fn next_local(&self, now: Timestamp) -> Option<Timestamp> {
        let mut local = self.zone.to_datetime(now);
        loop {
            local = self.next_civil(local, false)?;
            let time = match self.zone.to_ambiguous_timestamp(local).offset() {
                AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).ok()?,
                // The time before the change is the first.
                AmbiguousOffset::Fold { before, .. } => before.to_timestamp(local).ok()?,
                // By the offset before the change the time lies after it: the change itself is the end of the gap.
                AmbiguousOffset::Gap { before, .. } => {
                    let skipped = before.to_timestamp(local).ok()?;
                    let after = skipped.checked_add(SignedDuration::from_nanos(1)).ok()?;
                    self.zone.preceding(after).next().map_or(skipped, |change| change.timestamp())
                }
            };
            // Times that the clock repeats are over when it shows them again.
            if time > now {
                return Some(time);
            }
        }
    }

    /// Returns the next time of a pattern for every hour.
    fn next_elapsed(&self, now: Timestamp) -> Option<Timestamp> {
        let (mut from, mut inclusive) = (now, false);
        loop {
            let offset = self.zone.to_offset(from);
            let next = offset.to_timestamp(self.next_civil(offset.to_datetime(from), inclusive)?).ok()?;
            match self.zone.following(from).next().map(|change| change.timestamp()) {
                Some(change) if change <= next => (from, inclusive) = (change, true),
                _ => return Some(next),
            }
        }
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
        assert_eq!(next("@daily", "UTC", "2026-01-01T00:00:01Z"), "2026-01-02T00:00:00Z");
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

    /// Returns the times of a pattern from one moment until another.
    fn times(pattern: &str, tz: &str, from: &str, until: &str) -> Vec<String> {
        let mut times = vec![next(pattern, tz, from)];
        while times.last().is_some_and(|last| last.as_str() < until) {
            times.push(next(pattern, tz, times.last().unwrap()));
        }
        times.pop();
        times
    }

    #[test]
    fn skipped_times_run_once_when_the_gap_is_over() {
        for (pattern, expected) in [
            ("30 2 * * *", &["01:00"][..]),
            ("30 2,14 * * *", &["01:00", "12:30"]),
            ("30 2-4 * * *", &["01:00", "01:30", "02:30"]),
            ("15,45 2 * * *", &["01:00"]),
            ("*/20 2 * * *", &["01:00"]),
            (
                "0 */2 * * *",
                &["01:00", "02:00", "04:00", "06:00", "08:00", "10:00", "12:00", "14:00", "16:00", "18:00", "20:00"],
            ),
            ("0 3 * * *", &["01:00"]),
            ("0 2,3 * * *", &["01:00"]),
            ("30 2 29 3 *", &["01:00"]),
        ] {
            let times = times(pattern, "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T22:00:00Z");
            assert_eq!(
                times,
                expected.iter().map(|time| format!("2026-03-29T{time}:00Z")).collect::<Vec<_>>(),
                "{pattern}"
            );
        }
    }

    #[test]
    fn repeated_times_run_the_first_time() {
        for (pattern, expected) in [
            ("30 2 * * *", &["00:30"][..]),
            ("30 2,14 * * *", &["00:30", "13:30"]),
            ("0 1-3 * * *", &["00:00", "02:00"]),
            ("0,30 2 * * *", &["00:00", "00:30"]),
            ("*/20 2 * * *", &["00:00", "00:20", "00:40"]),
            ("0 */6 * * *", &["05:00", "11:00", "17:00"]),
        ] {
            let times = times(pattern, "Europe/Berlin", "2026-10-24T23:30:00Z", "2026-10-25T22:00:00Z");
            assert_eq!(
                times,
                expected.iter().map(|time| format!("2026-10-25T{time}:00Z")).collect::<Vec<_>>(),
                "{pattern}"
            );
        }
    }

    #[test]
    fn patterns_for_every_hour_go_by_the_time_that_passes() {
        let hourly =
            |day: &str| times("30 * * * *", "Europe/Berlin", &format!("{day}T00:00:00Z"), &format!("{day}T04:00:00Z"));
        for day in ["2026-03-29", "2026-10-25"] {
            let expected = ["00:30", "01:30", "02:30", "03:30"].map(|time| format!("{day}T{time}:00Z"));
            assert_eq!(hourly(day), expected);
        }
        assert_eq!(next("*/40 * * * *", "Europe/Berlin", "2026-03-29T00:40:00Z"), "2026-03-29T01:00:00Z");
        assert_eq!(next("0 0-23 * * *", "Europe/Berlin", "2026-10-25T00:00:00Z"), "2026-10-25T01:00:00Z");
        // A pattern without an hour of the day is none for every hour: what is skipped runs.
        for pattern in ["30 1-23 * * *", "30 0-22 * * *"] {
            assert_eq!(next(pattern, "Europe/Berlin", "2026-03-29T00:30:00Z"), "2026-03-29T01:00:00Z", "{pattern}");
        }
        // Half an hour is repeated, and skipped, on Lord Howe Island.
        assert_eq!(next("0 * * * *", "Australia/Lord_Howe", "2026-10-03T15:15:00Z"), "2026-10-03T16:00:00Z");
        assert_eq!(next("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00Z"), "2026-04-04T14:45:00Z");
        assert_eq!(next("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z"), "2026-10-03T15:30:00Z");
    }

    #[test]
    fn the_last_time_of_a_span_is_found_without_walking_through_it() {
        let ms = |time: &str| time.parse::<Timestamp>().unwrap().as_millisecond() as u64;
        let last = |pattern: &str, after: &str, until: &str| {
            let tz = Some("Europe/Berlin".into());
            let calendar = Calendar::new(&Repeat { pattern: pattern.into(), tz, limit: None }).unwrap();
            calendar
                .last_between(ms(after), ms(until))
                .map(|time| Timestamp::from_millisecond(time as i64).unwrap().to_string())
        };
        let year = ("2026-01-01T00:00:00Z", "2026-12-31T12:34:56Z");
        assert_eq!(last("* * * * * *", year.0, year.1).as_deref(), Some("2026-12-31T12:34:56Z"));
        assert_eq!(last("0 9 * * *", year.0, year.1).as_deref(), Some("2026-12-31T08:00:00Z"));
        assert_eq!(last("0 0 29 2 *", year.0, year.1), None);
        // Before, in and after a repeated hour, and on both ends of the span.
        assert_eq!(
            last("30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-25T01:40:00Z").as_deref(),
            Some("2026-10-25T00:30:00Z")
        );
        assert_eq!(last("0 9 * * *", "2026-01-01T08:00:00Z", "2026-01-02T07:59:59Z"), None);
        assert_eq!(
            last("0 9 * * *", "2026-01-01T07:59:59Z", "2026-01-01T08:00:00Z").as_deref(),
            Some("2026-01-01T08:00:00Z")
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |pattern: &str, tz: Option<&str>| {
            let repeat = Repeat { pattern: pattern.into(), tz: tz.map(Into::into), limit: None };
            Calendar::new(&repeat).unwrap_err().message().to_owned()
        };
        for (pattern, count) in [("* * *", 3), ("* * * *", 4), ("* * * * * * *", 7)] {
            assert!(error(pattern, None).contains(&format!("has {count} fields")), "{pattern}");
        }
        assert!(error("61 * * * *", None).contains("no cron pattern"));
        for pattern in ["1, 2 * * * *", "1,,2 * * * *", ",1 * * * *", "0 0 * * 1,"] {
            assert!(error(pattern, None).contains("empty item"), "{pattern}");
        }
        assert!(error("* * * * *", Some("Mars/Olympus")).contains("repeat.tz"));
        assert!(error("0 0 30 2 *", None).contains("0 0 30 2 *"));
    }
}
