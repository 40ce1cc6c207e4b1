//! The delay between attempts of something that is repeated until it succeeds.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Delays that double from the first to the cap. Each is shortened by a random part of up to a half, so that instances
/// that failed together do not retry together.
#[derive(Debug, Clone)]
pub(crate) struct RetryBackoff {
    first: Duration,
    next: Duration,
    cap: Duration,
}

impl RetryBackoff {
    /// Creates a policy whose first delay is at most `first` and whose longest is at most `cap`.
    pub(crate) fn new(first: Duration, cap: Duration) -> Self {
        let first = first.min(cap);
        Self { first, next: first, cap }
    }

    /// Returns the delay before the next attempt.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let longest = self.next;
        self.next = (longest * 2).min(self.cap);
        longest.mul_f64(0.5 + 0.5 * random_u64() as f64 / u64::MAX as f64)
    }

    /// Returns whether nothing was repeated since the last success.
    pub(crate) fn is_first(&self) -> bool {
        self.next == self.first
    }

    /// Starts again with the first delay, after a success.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Returns a name that does not collide with another: 128 random bits in hexadecimal.
pub(crate) fn random_name() -> String {
    format!("{:016x}{:016x}", random_u64(), random_u64())
}

/// Returns a number that is random enough for jitter and for names that must not collide, but not for secrets.
pub(crate) fn random_u64() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_cap_with_jitter_and_start_again_after_a_success() {
        let mut backoff = RetryBackoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let delays: Vec<_> = (0..50).map(|_| backoff.next_delay()).collect();
        assert!((25..=50).contains(&delays[0].as_millis()));
        assert!(delays.iter().skip(10).all(|d| (1..=2).contains(&d.as_secs()) && *d <= Duration::from_secs(2)));
        assert!(delays[10..].windows(2).any(|w| w[0] != w[1]));
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(50));
    }
}
