//! How long to wait before the next attempt: full jitter, so that clients do not come back together.

use rand::Rng as _;
use std::time::Duration;

const BASE: Duration = Duration::from_millis(250);
const CAP: Duration = Duration::from_secs(30);

/// Counts failures in a row and tells how long to wait.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// No failure yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { failures: 0 }
    }

    /// Something worked: the next failure waits shortly again.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// How many failures there were in a row.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// The longest wait that the next failure may cause.
    #[must_use]
    pub fn ceiling(&self) -> Duration {
        BASE.saturating_mul(2_u32.saturating_pow(self.failures)).min(CAP)
    }

    /// Counts a failure; a random wait between nothing and [`Backoff::ceiling`].
    pub fn next_wait(&mut self) -> Duration {
        let ceiling = u64::try_from(self.ceiling().as_millis()).unwrap_or(u64::MAX);
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(rand::rng().random_range(0..=ceiling))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_are_spread() {
        let mut backoff = Backoff::new();
        let mut longest = Duration::ZERO;
        for failure in 0..40_u32 {
            let ceiling = backoff.ceiling();
            assert_eq!(ceiling, BASE.saturating_mul(1 << failure.min(20)).min(CAP));
            let wait = backoff.next_wait();
            assert!(wait <= ceiling);
            longest = longest.max(wait);
        }
        assert!(longest > Duration::from_secs(5), "33 draws below 30 s, all under 5 s");
        backoff.reset();
        assert!(backoff.next_wait() <= BASE);
    }
}
