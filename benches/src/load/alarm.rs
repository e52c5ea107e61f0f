//! Wakes a generator thread at a moment, more precisely than the system's polling does.
//!
//! Polling takes whole milliseconds, which would be most of what a message needs. On Linux a timer of its own rings
//! to the microsecond; elsewhere a thread wakes up to a millisecond late, which shows as the generator's lag.

use std::io;
use std::time::{Duration, Instant};

use mio::{Poll, Token};

/// The alarm of one thread.
pub struct Alarm {
    #[cfg(target_os = "linux")]
    timer: std::os::fd::OwnedFd,
    #[cfg(target_os = "linux")]
    set_to: Option<Instant>,
}

#[cfg(target_os = "linux")]
impl Alarm {
    /// One that rings as an event of this token.
    ///
    /// # Errors
    /// When the system has none left.
    pub fn new(poll: &Poll, token: Token) -> io::Result<Self> {
        use std::os::fd::AsRawFd as _;

        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        poll.registry().register(&mut mio::unix::SourceFd(&timer.as_raw_fd()), token, mio::Interest::READABLE)?;
        Ok(Self { timer, set_to: None })
    }

    /// How long polling may wait so that the thread is awake at the moment.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn until(&mut self, at: Instant, now: Instant) -> io::Result<Duration> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

        let wait = at.saturating_duration_since(now);
        if wait.is_zero() {
            return Ok(wait);
        }
        if self.set_to != Some(at) {
            let value = Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: wait.subsec_nanos().into(),
            };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
            self.set_to = Some(at);
        }
        // The timer rings; this is for a system where it does not.
        Ok(wait + Duration::from_millis(5))
    }
}

#[cfg(not(target_os = "linux"))]
impl Alarm {
    /// One that rings as an event of this token.
    ///
    /// # Errors
    /// When the system has none left.
    pub fn new(_poll: &Poll, _token: Token) -> io::Result<Self> {
        Ok(Self {})
    }

    /// How long polling may wait so that the thread is awake at the moment.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn until(&mut self, at: Instant, now: Instant) -> io::Result<Duration> {
        Ok(at.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rings_at_the_moment() {
        let mut poll = Poll::new().unwrap();
        let mut alarm = Alarm::new(&poll, Token(1)).unwrap();
        let mut events = mio::Events::with_capacity(4);
        let mut best = Duration::MAX;
        for _ in 0..50 {
            let at = Instant::now() + Duration::from_micros(300);
            let wait = alarm.until(at, Instant::now()).unwrap();
            poll.poll(&mut events, Some(wait)).unwrap();
            assert!(Instant::now() >= at - Duration::from_micros(20));
            best = best.min(Instant::now().saturating_duration_since(at));
        }
        // A busy machine is late, but not every time.
        assert!(best < Duration::from_millis(1), "{best:?}");
    }
}
