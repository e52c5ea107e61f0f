//! Which actors a node cannot live without, and how it hears that one has died.
//!
//! Start order: limits, Journals, Sweep, then conversations, sessions and devices as they are needed. Stop order: the
//! other way round, see [`crate::Node::drain`]. actix neither catches the panic of an actor nor rebuilds its fields, so
//! a permanent actor that dies ends the node in order: what it held is unanswered, clients repeat, ids make that safe.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;

/// Rings when a permanent actor has died before its time.
#[derive(Debug, Default)]
pub struct Alarm {
    dead: OnceLock<&'static str>,
    stopping: AtomicBool,
    rung: Notify,
}

impl Alarm {
    /// Waits until a permanent actor dies, and names it.
    pub async fn heard(&self) -> &'static str {
        loop {
            let rung = self.rung.notified();
            if let Some(what) = self.dead.get() {
                return what;
            }
            rung.await;
        }
    }

    /// From now on actors end because they are meant to.
    pub fn disarm(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn ring(&self, what: &'static str) {
        if !self.stopping.load(Ordering::Relaxed) {
            tracing::error!(what, "a permanent actor has died; the node ends");
            // The first one is named.
            let _ = self.dead.set(what);
            self.rung.notify_waiters();
            self.rung.notify_one();
        }
    }
}

/// Held by a permanent actor: dropped with it.
#[derive(Debug)]
pub struct Vital {
    what: &'static str,
    alarm: Arc<Alarm>,
}

impl Vital {
    /// For an actor of this name.
    #[must_use]
    pub const fn new(what: &'static str, alarm: Arc<Alarm>) -> Self {
        Self { what, alarm }
    }
}

impl Drop for Vital {
    fn drop(&mut self) {
        self.alarm.ring(self.what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::{LimitSettings, Limits};
    use sotto_protocol::UserId;
    use std::time::Duration;

    #[actix::test]
    async fn the_death_of_a_permanent_actor_is_heard() {
        let alarm = Arc::new(Alarm::default());
        let limits = Limits::start(LimitSettings::default(), None, &alarm);
        let quiet = tokio::time::timeout(Duration::from_millis(50), alarm.heard()).await;
        assert!(quiet.is_err(), "all live");
        limits.panic_for_test(UserId::random());
        let heard = tokio::time::timeout(Duration::from_secs(5), alarm.heard()).await;
        assert_eq!(heard, Ok("rate limit"));
    }

    #[test]
    fn an_orderly_end_rings_nothing() {
        let alarm = Arc::new(Alarm::default());
        alarm.disarm();
        drop(Vital::new("journal", Arc::clone(&alarm)));
        assert_eq!(alarm.dead.get(), None);
    }
}
