//! What has its time in a device's life: pings, a `hello` that does not come, and the end of the access token with its
//! warning. All by one timer, for each takes more than a hundred bytes of an idle connection.

use super::{Device, Phase};
use crate::identity::Caller;
use actix::{AsyncContext, Context};
use sotto_protocol::frame::{AuthExpiring, Frame};
use sotto_protocol::{Timestamp, close};
use std::time::{Duration, Instant};

/// The warning before a token runs out.
const WARN_BEFORE: Duration = Duration::from_secs(60);

/// What is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
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
    fn begin_token(&mut self, end: Timestamp) {
        self.warns = end.since(Timestamp::now()) > WARN_BEFORE;
    }

    /// The end of the token was announced.
    const fn warned(&mut self) {
        self.warns = false;
    }

    /// What is due first, and in how long. `hello_by`: when the wait for `hello` ends, if it is still waited for;
    /// `token_end`: when the token ends, if there is one.
    fn next(&self, hello_by: Option<Instant>, token_end: Option<Timestamp>) -> (Due, Duration) {
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

impl Device {
    /// Notes who is there, and for how long.
    pub(super) fn admit(&mut self, caller: Caller, ctx: &mut Context<Self>) {
        self.caller = Some(caller);
        self.clock.begin_token(caller.token_expires_at);
        self.watch(ctx);
    }

    /// What is due next, and in how long.
    fn next_due(&self) -> (Due, Duration) {
        let hello_by = if let Phase::Silent { until } = self.phase { Some(until) } else { None };
        self.clock.next(hello_by, self.caller.map(|caller| caller.token_expires_at))
    }

    /// Sets the timer for it.
    pub(super) fn watch(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let (_, wait) = self.next_due();
        self.timer = Some(ctx.run_later(wait, |device, ctx| {
            device.timer = None;
            // A timer that is cancelled in its last moment comes all the same.
            if let (due, Duration::ZERO) = device.next_due() {
                device.happens(due);
            }
            if !device.socket.is_closing() {
                device.watch(ctx);
            }
        }));
    }

    fn happens(&mut self, due: Due) {
        match due {
            Due::Beat => self.beat(),
            Due::Hello => self.socket.start_close(close::TIMEOUT, "hello did not come in time"),
            Due::Warning => {
                self.clock.warned();
                let expiring = AuthExpiring { expires_in: WARN_BEFORE.as_secs() };
                self.write(Frame::new("auth_expiring", expiring).to_text());
            }
            Due::Expiry => self.socket.start_close(close::TOKEN_EXPIRED, "token expired"),
        }
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
