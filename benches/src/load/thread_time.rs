//! How much of its time a thread was running.

use std::time::{Duration, Instant};

use super::number::ratio;

/// A thread's processor time at one moment.
pub struct ThreadTime {
    at: Instant,
    used: Duration,
}

impl ThreadTime {
    /// The calling thread's, now.
    #[must_use]
    pub fn now() -> Self {
        Self { at: Instant::now(), used: used() }
    }

    /// The share of the time since the last question, 0 to 1. Must be asked on the thread itself.
    pub fn share(&mut self) -> f64 {
        let then = std::mem::replace(self, Self::now());
        let (used, passed) = (self.used.saturating_sub(then.used), self.at.saturating_duration_since(then.at));
        ratio(used.as_secs_f64(), passed.as_secs_f64()).min(1.0)
    }
}

#[cfg(unix)]
fn used() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// A system that does not tell: never busy.
#[cfg(not(unix))]
fn used() -> Duration {
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_waits_is_idle() {
        let mut time = ThreadTime::now();
        let (_sender, receiver) = std::sync::mpsc::channel::<()>();
        assert!(receiver.recv_timeout(Duration::from_millis(100)).is_err());
        assert!(time.share() < 0.5);
        let until = Instant::now() + Duration::from_millis(50);
        while Instant::now() < until {}
        assert!(time.share() > 0.05);
    }
}
