//! The clock, injected so that tests decide what time it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// Returns the Unix time in milliseconds. It may step, also backwards.
    fn now_ms(&self) -> u64;
    /// Returns milliseconds since some moment of this process. It never goes back: durations are measured with it.
    fn monotonic_ms(&self) -> u64;
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The clock of the machine. It may step, also backwards.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        // A clock before 1970 counts as 1970: ids stay increasing all the same, see `EventId::next`.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic_ms(&self) -> u64 {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Returns the clock of the machine, shared.
pub fn system_clock() -> SharedClock {
    Arc::new(SystemClock)
}

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock {
    wall: AtomicU64,
    monotonic: AtomicU64,
}

impl ManualClock {
    /// Creates a clock that shows this time.
    pub fn at(ms: u64) -> Arc<Self> {
        Arc::new(Self { wall: AtomicU64::new(ms), monotonic: AtomicU64::new(0) })
    }

    /// Sets the wall clock, as an administrator would. The monotonic clock is unaffected.
    pub fn set(&self, ms: u64) {
        self.wall.store(ms, Ordering::Relaxed);
    }

    /// Lets time pass: both clocks advance.
    pub fn advance(&self, ms: u64) {
        self.wall.fetch_add(ms, Ordering::Relaxed);
        self.monotonic.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.wall.load(Ordering::Relaxed)
    }

    fn monotonic_ms(&self) -> u64 {
        self.monotonic.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_the_machine_shows_milliseconds_since_1970() {
        let clock = system_clock();
        let (before, seconds) = (clock.monotonic_ms(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
        assert!(clock.now_ms().abs_diff(seconds * 1_000) < 3_600_000);
        assert!(clock.monotonic_ms() >= before);
        let clock = ManualClock::at(5);
        clock.advance(2);
        clock.set(1);
        assert_eq!((clock.now_ms(), clock.monotonic_ms()), (1, 2));
    }
}
