//! What has its time in a device's life: pings, a `hello` that does not come, and the end of the access token with its
//! warning. All by one timer, for each takes more than a hundred bytes of an idle connection.

use sotto_protocol::Timestamp;
use std::time::{Duration, Instant};

/// The warning before a token runs out.
pub(super) const WARN_BEFORE: Duration = Duration::from_secs(60);

/// What is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// A ping.
    Beat,
    /// The end of the wait for `hello`.
    Hello,
    /// The warning that the token runs out.
    Warning,
    /// The end of the token.
    Expiry,
}

/// What the times depend on, besides those that the device knows anyway.
#[derive(Debug)]
pub(super) struct Clock {
    next_beat: Instant,
    /// Whether the end of the token is still to be announced.
    warns: bool,
}

impl Clock {
    /// One whose first beat comes after this time.
    pub(super) fn new(heartbeat: Duration) -> Self {
        Self { next_beat: Instant::now() + heartbeat, warns: false }
    }

    /// The next beat comes after this time.
    pub(super) fn beat(&mut self, heartbeat: Duration) {
        self.next_beat = Instant::now() + heartbeat;
    }

    /// There is a token. If it ends within a minute, it is not announced.
    pub(super) fn begin_token(&mut self, end: Timestamp) {
        self.warns = end.since(Timestamp::now()) > WARN_BEFORE;
    }

    /// The end of the token was announced.
    pub(super) const fn warned(&mut self) {
        self.warns = false;
    }

    /// What is due first, and in how long. `hello_by`: when the wait for `hello` ends, if it is still waited for;
    /// `token_end`: when the token ends, if there is one.
    pub(super) fn next(&self, hello_by: Option<Instant>, token_end: Option<Timestamp>) -> (Due, Duration) {
        let now = Instant::now();
        let beat = (Due::Beat, self.next_beat.saturating_duration_since(now));
        let hello = hello_by.map(|by| (Due::Hello, by.saturating_duration_since(now)));
        let token = token_end.map(|end| {
            let left = end.since(Timestamp::now());
            if self.warns { (Due::Warning, left.saturating_sub(WARN_BEFORE)) } else { (Due::Expiry, left) }
        });
        [hello, token].into_iter().flatten().fold(beat, |first, other| if other.1 < first.1 { other } else { first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn what_comes_first_is_next() {
        let (mut clock, now) = (Clock::new(Duration::from_secs(30)), Instant::now());
        let is_next = |clock: &Clock, hello_by, token_end, due, seconds| {
            let (found, wait) = clock.next(hello_by, token_end);
            assert_eq!(found, due);
            let early = Duration::from_secs(seconds).saturating_sub(wait);
            assert!(wait <= Duration::from_secs(seconds) && early < Duration::from_secs(5), "{wait:?} for {seconds} s");
        };
        let (soon, later) =
            (Timestamp::now().plus(Duration::from_secs(20)), Timestamp::now().plus(Duration::from_secs(80)));
        is_next(&clock, None, None, Due::Beat, 30);
        is_next(&clock, Some(now + Duration::from_secs(10)), None, Due::Hello, 10);
        clock.begin_token(soon);
        is_next(&clock, None, Some(soon), Due::Expiry, 20);
        clock.begin_token(later);
        is_next(&clock, None, Some(later), Due::Warning, 20);
        is_next(&clock, Some(now), Some(later), Due::Hello, 0);
        clock.beat(HOUR);
        clock.warned();
        is_next(&clock, None, Some(later), Due::Expiry, 80);
        is_next(&clock, None, Some(Timestamp::now().minus(HOUR)), Due::Expiry, 0);
    }
}
