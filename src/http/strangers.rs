//! Limits the requests without a token: a number per network, kind and minute, counted by this node alone.
//!
//! A count is stored as the moment at which the whole allowance of a network and kind will be free again (the generic cell
//! rate algorithm). A network may use the allowance of a minute at once, and after that what becomes free.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sotto_actors::rate_limit::Decision;

use crate::config::limits::Limits;
use crate::identity::network::place as network_of;

const MINUTE: Duration = Duration::from_secs(60);
/// Most networks and kinds that are counted apart. Above that, those who come new are counted together.
const MOST: usize = 100_000;
/// Those who are counted together may ask as much as so many networks.
const TOGETHER: u32 = 100;
/// The network of those who are counted together.
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Least time between two removals of entries whose whole allowance is free again; done only when there are too many.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// Kinds of open requests. Every open route names its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Open {
    /// Codes, registration, login, recovery, links of new devices.
    SignIn,
    /// New tokens for old ones, and looks whether those of a link are there: a new device asks again and again.
    Refresh,
    /// Upgrades to a socket.
    Socket,
    /// Pages and documents.
    Page,
    /// What load balancers and operators ask.
    Probe,
}

/// The counts. Clones are the same.
#[derive(Clone, Debug)]
pub struct Strangers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: Limits,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    /// When everything is free again.
    free: HashMap<(Open, IpAddr), Instant>,
    forgotten: Instant,
}

impl Strangers {
    /// Nobody has asked yet.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let counts = Counts { free: HashMap::new(), forgotten: Instant::now() };
        Self(Arc::new(Inner { limits: limits.clone(), counts: Mutex::new(counts) }))
    }

    /// Counts a request of an address; none: nothing is limited.
    #[must_use]
    pub fn count(&self, kind: Open, address: IpAddr) -> Option<Decision> {
        let limits = &self.0.limits;
        if !limits.enabled {
            return None;
        }
        let limit = match kind {
            Open::SignIn => limits.sign_ins_per_network_per_minute,
            Open::Refresh => limits.refreshes_per_network_per_minute,
            Open::Socket => limits.sockets_per_network_per_minute,
            Open::Page => limits.pages_per_network_per_minute,
            Open::Probe => limits.probes_per_network_per_minute,
        };
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        Some(counts.count(kind, network_of(address), limit, Instant::now()))
    }
}

impl Counts {
    fn count(&mut self, kind: Open, network: IpAddr, limit: u32, now: Instant) -> Decision {
        let is_full = self.free.len() >= MOST && !self.free.contains_key(&(kind, network));
        if is_full && now.saturating_duration_since(self.forgotten) >= FORGET_EVERY {
            self.free.retain(|_, free| *free > now);
            self.forgotten = now;
        }
        let (network, limit) = if is_full && self.free.len() >= MOST {
            (OTHERS, limit.saturating_mul(TOGETHER))
        } else {
            (network, limit)
        };
        let free = self.free.entry((kind, network)).or_insert(now);
        let (next, decision) = decide(*free, limit, now);
        *free = next;
        decision
    }
}

/// Whether one more may be asked, when everything is free again at `free`; and when that is afterwards.
fn decide(free: Instant, limit: u32, now: Instant) -> (Instant, Decision) {
    let cost = MINUTE / limit.max(1);
    let used = free.saturating_duration_since(now);
    let wanted = used + cost;
    let allowed = wanted <= MINUTE;
    let after = if allowed { wanted } else { used };
    let left = MINUTE.saturating_sub(after).as_nanos() / cost.as_nanos().max(1);
    let wait = wanted.saturating_sub(MINUTE).as_millis();
    let decision = Decision {
        allowed,
        limit,
        remaining: u32::try_from(left).unwrap_or(u32::MAX).min(limit),
        window_secs: MINUTE.as_secs(),
        reset_secs: after.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX),
        retry_after_ms: if allowed { 0 } else { u64::try_from(wait).unwrap_or(u64::MAX).max(1) },
    };
    (now + after, decision)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_minutes_requests_at_once_and_then_as_they_come_free() {
        let begun = Instant::now();
        let mut free = begun;
        for left in (0..6).rev() {
            let (next, decision) = decide(free, 6, begun);
            assert_eq!((decision.allowed, decision.remaining), (true, left));
            free = next;
        }
        let (same, refused) = decide(free, 6, begun);
        assert_eq!((same, refused.allowed, refused.retry_after_ms, refused.reset_secs), (free, false, 10_000, 60));
        assert!(!decide(free, 6, begun + Duration::from_millis(9_999)).1.allowed);
        assert!(decide(free, 6, begun + Duration::from_secs(10)).1.allowed);
    }

    #[test]
    fn networks_and_kinds_are_counted_apart_and_those_beyond_the_room_together() {
        let mut counts = Counts { free: HashMap::new(), forgotten: Instant::now() };
        let (now, one) = (Instant::now(), IpAddr::from([192, 0, 2, 1]));
        assert!(counts.count(Open::Refresh, one, 1, now).allowed);
        assert!(!counts.count(Open::Refresh, one, 1, now).allowed);
        assert!(counts.count(Open::SignIn, one, 1, now).allowed);
        for number in 0..u32::try_from(MOST).unwrap() {
            counts.count(Open::Page, IpAddr::V4(Ipv4Addr::from_bits(number + 1)), 1, now);
        }
        assert!(counts.free.len() <= MOST + 1, "{}", counts.free.len());
        let new = IpAddr::from([198, 51, 100, 7]);
        let allowed = (0..300).filter(|_| counts.count(Open::Refresh, new, 1, now).allowed).count();
        assert_eq!(allowed, 100);
        assert!(!counts.count(Open::Refresh, one, 1, now).allowed, "who is known is counted as before");
        let later = now + MINUTE + FORGET_EVERY;
        assert!(counts.count(Open::Refresh, new, 1, later).allowed);
        assert!(counts.free.len() < 10, "they are forgotten");
    }

    proptest! {
        /// However requests come, no minute allows more than twice the limit, and the time to wait is right.
        #[test]
        fn no_more_than_the_limit(limit in 1u32..50, gaps in proptest::collection::vec(0u64..20_000, 1..200)) {
            let mut now = Instant::now();
            let (begun, mut free, mut allowed) = (now, now, 0u32);
            for gap in gaps {
                now += Duration::from_millis(gap);
                let (next, decision) = decide(free, limit, now);
                free = next;
                allowed += u32::from(decision.allowed);
                if !decision.allowed {
                    let again = now + Duration::from_millis(decision.retry_after_ms + 1);
                    prop_assert!(decide(free, limit, again).1.allowed);
                }
            }
            let elapsed = now.duration_since(begun).as_secs_f64();
            prop_assert!(f64::from(allowed) <= f64::from(limit) * (1.0 + elapsed / 60.0) + 1.0);
        }
    }
}
