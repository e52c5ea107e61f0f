//! How many bytes a connection may send in a span of time while HTTP is spoken on it.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes a second.
const RATE: u64 = 2 * 1024 * 1024;

/// Bytes at once, after a pause.
const BURST: u64 = 4 * 1024 * 1024;

/// Bytes that must be free before a connection that has used up its quota reads again, so that no timer runs for each byte.
const LEAST: u64 = 64 * 1024;

/// What is left of it.
#[derive(Debug)]
pub(super) struct Quota {
    left: u64,
    /// When it was refilled last.
    at: Instant,
}

impl Quota {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, at: now }
    }

    /// How many bytes may be read now.
    ///
    /// # Errors
    /// None, before this time has passed.
    pub(super) fn room(&mut self, clock: impl FnOnce() -> Instant) -> Result<usize, Duration> {
        // The clock is looked at only when there is need.
        if self.left < LEAST {
            let now = clock();
            let passed = u64::try_from(now.saturating_duration_since(self.at).as_micros()).unwrap_or(u64::MAX);
            let more = passed.saturating_mul(RATE) / 1_000_000;
            if self.left + more.min(BURST) < LEAST {
                return Err(Duration::from_micros((LEAST - self.left - more) * 1_000_000 / RATE + 1));
            }
            self.left = (self.left + more.min(BURST)).min(BURST);
            self.at = now;
        }
        Ok(usize::try_from(self.left).unwrap_or(usize::MAX))
    }

    pub(super) fn take(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_at_once_and_then_the_rate() {
        let begun = Instant::now();
        let (mut quota, mut now, mut read) = (Quota::new(begun), begun, 0u64);
        while now < begun + Duration::from_secs(10) {
            match quota.room(|| now) {
                Ok(room) => {
                    let bytes = room.min(16 * 1024);
                    quota.take(bytes);
                    read += u64::try_from(bytes).unwrap();
                }
                Err(wait) => now += wait,
            }
        }
        let most = BURST + 10 * RATE;
        assert!(read <= most + LEAST && read + 2 * LEAST >= most, "{read} of {most}");
        assert_eq!(
            quota.room(|| now + Duration::from_secs(3600)),
            Ok(usize::try_from(BURST).unwrap()),
            "no more than a burst is saved up"
        );
    }
}
