//! When schedules are due, as JavaScript asks for it.

use napi_derive::napi;

use crate::node::bridge::guard;
use crate::queue::{Calendar, Repeat};

/// A cron pattern in a time zone. Times are Unix times in ms.
#[napi]
pub struct NativeCalendar {
    calendar: Calendar,
}

#[napi]
impl NativeCalendar {
    /// Parses a pattern and an IANA time zone; without one it is the machine's. `pattern_at` and `tz_at` name them in
    /// messages.
    #[napi(constructor)]
    pub fn new(pattern: String, tz: Option<String>, pattern_at: String, tz_at: String) -> napi::Result<Self> {
        guard(|| {
            let repeat = Repeat { pattern: pattern.into(), tz: tz.map(Into::into), limit: None };
            Ok(Self { calendar: Calendar::parse(&pattern_at, &tz_at, &repeat)? })
        })
    }

    /// Returns the first due time after this one.
    #[napi]
    pub fn next(&self, after: f64) -> napi::Result<Option<f64>> {
        guard(|| Ok(self.calendar.next_after(after as u64).map(|time| time as f64)))
    }

    /// Returns the last due time after `after` that is not later than `until`.
    #[napi]
    pub fn last(&self, after: f64, until: f64) -> napi::Result<Option<f64>> {
        guard(|| Ok(self.calendar.last_between(after as u64, until as u64).map(|time| time as f64)))
    }
}
