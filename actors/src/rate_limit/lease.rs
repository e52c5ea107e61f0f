//! A node's share of a limit that counts over the cluster: the permits at hand, and what Redis is to be told of used ones.
//!
//! A lease is a portion of a limit. Redis keeps it as an entry that counts against the limit; the node may use its
//! permits for [`VALIDITY`] after it asked. Then it tells how many it used and when last, and the entry counts until a
//! window after that. What is never told counts until a window after the last moment at which it could have been used.
//!
//! Why no window holds more than the limit, over all nodes: take the newest grant whose permits were used in a window.
//! Redis granted it before that use, so before the window's end. Every other lease used in the window was granted
//! earlier, and counted at that moment with at least what was used of it, because an entry ends a full window after
//! the last use. The script grants no more than the limit leaves beside all of them.
//!
//! It holds as long as Redis keeps its memory and its clock is not put forward. Without Redis the node counts alone;
//! what it allowed is owed, and told when Redis is back.

use super::Limit;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Permits may be used for so long after they were asked for.
pub(super) const VALIDITY: Duration = Duration::from_secs(5);
/// A refusal of Redis stands here for at most so long, so that a flood does not reach it.
const STANDS: Duration = Duration::from_secs(1);
/// Leases that are remembered. Of one that is forgotten Redis is not told: it counts for longest then.
const MOST_REMEMBERED: usize = 64;

/// What Redis is to be told of a lease that is used no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// The lease.
    pub id: Uuid,
    /// So many of its permits were used; none: it goes.
    pub used: u32,
    /// The last of them so long ago.
    pub age: Duration,
}

/// What is asked of Redis for one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    /// The name of the lease, if one is granted.
    pub id: Uuid,
    /// So many permits at most; 0: none are needed.
    pub portion: u32,
    /// What has to do with earlier ones.
    pub told: Vec<Told>,
    /// When.
    pub at: Instant,
}

/// What Redis says to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// So many permits.
    pub granted: u32,
    /// What the limit leaves to everybody beside them.
    pub left: u32,
    /// When the limit may leave more.
    pub retry: Duration,
    /// When nothing counts any more.
    pub reset: Duration,
}

/// A refusal that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    until: Instant,
    /// When to try again.
    pub retry_at: Instant,
    /// When nothing counts any more.
    pub reset_at: Instant,
}

/// Permits that this node got, or, with none granted, what it allowed without Redis.
#[derive(Clone, Copy, Debug)]
struct Lease {
    id: Uuid,
    granted: u32,
    used: u32,
    /// The last use; before it, when it was asked for.
    last: Instant,
    /// Not used from here on.
    ends: Instant,
    /// Redis knows how much was used.
    is_told: bool,
}

/// The share of one subject.
#[derive(Debug, Default)]
pub(super) struct Share {
    live: Option<Lease>,
    /// Used no more.
    closed: VecDeque<Lease>,
    left: u32,
    refused: Option<Refused>,
}

impl Share {
    /// Permits at hand.
    fn permits(&self, now: Instant) -> u32 {
        self.live.filter(|lease| now < lease.ends).map_or(0, |lease| lease.granted.saturating_sub(lease.used))
    }

    /// How many more are allowed, as far as is known.
    pub(super) fn left(&self, now: Instant) -> u32 {
        self.permits(now).saturating_add(self.left)
    }

    /// Uses a permit, if one is at hand.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        match &mut self.live {
            Some(lease) if now < lease.ends && lease.used < lease.granted => {
                lease.used += 1;
                lease.last = now;
                true
            }
            _ => false,
        }
    }

    /// Notes a use without a permit. `true`: Redis is to be told of it later, and nobody has been asked to yet.
    pub(super) fn owe(&mut self, now: Instant) -> bool {
        if let Some(debt) = self.closed.back_mut().filter(|debt| debt.granted == 0 && debt.used > 0 && now < debt.ends)
        {
            debt.used += 1;
            debt.last = now;
            debt.is_told = false;
            return false;
        }
        let debt = Lease { used: 1, ..unused(Uuid::new_v4(), now) };
        self.remember(debt);
        true
    }

    /// A refusal that still stands.
    pub(super) fn refused(&self, now: Instant) -> Option<Refused> {
        self.refused.filter(|refused| now < refused.until)
    }

    /// Gives the newest use back. `true`: Redis counts it, and is to be told.
    pub(super) fn refund(&mut self) -> bool {
        if let Some(lease) = self.live.as_mut().filter(|lease| lease.used > 0) {
            lease.used -= 1;
            return false;
        }
        let Some(lease) = self.closed.iter_mut().rev().find(|lease| lease.used > 0) else {
            return false;
        };
        lease.used -= 1;
        lease.is_told = false;
        // What stands may not be true any more.
        self.refused = None;
        true
    }

    /// What to ask of Redis now; `None`: nothing is needed and nothing is new.
    pub(super) fn ask(&mut self, portion: u32, limit: Limit, now: Instant) -> Option<Ask> {
        // What was told of a lease would be wrong if it were used afterwards.
        if self.live.is_some_and(|lease| now >= lease.ends || lease.used >= lease.granted) {
            self.close();
        }
        self.forget(limit, now);
        let news = self.closed.iter().filter(|lease| !lease.is_told);
        let told: Vec<Told> = news
            .map(|lease| Told { id: lease.id, used: lease.used, age: now.saturating_duration_since(lease.last) })
            .collect();
        (portion > 0 || !told.is_empty()).then(|| Ask { id: Uuid::new_v4(), portion, told, at: now })
    }

    /// Redis has answered. When the new lease ends, if there is one.
    pub(super) fn answered(&mut self, ask: &Ask, answer: Answer, now: Instant) -> Option<Instant> {
        for told in &ask.told {
            let lease = self.closed.iter_mut().find(|lease| lease.id == told.id && lease.used == told.used);
            if let Some(lease) = lease {
                lease.is_told = true;
            }
        }
        if ask.portion == 0 {
            return None;
        }
        self.left = answer.left;
        if answer.granted == 0 {
            let (retry, reset) = (answer.retry.max(Duration::from_millis(1)), answer.reset);
            self.refused =
                Some(Refused { until: now + retry.min(STANDS), retry_at: now + retry, reset_at: now + reset });
            return None;
        }
        self.refused = None;
        self.close();
        let lease = Lease { granted: answer.granted, ..unused(ask.id, ask.at) };
        self.live = Some(lease);
        Some(lease.ends)
    }

    /// Redis has not answered: what it may have granted all the same is given back later.
    pub(super) fn unanswered(&mut self, ask: &Ask) {
        if ask.portion > 0 {
            self.remember(unused(ask.id, ask.at));
        }
    }

    /// Forgets what counts no more. `true`: nothing is left.
    pub(super) fn forget(&mut self, limit: Limit, now: Instant) -> bool {
        self.closed.retain(|lease| {
            let counts = |from: Instant| now.saturating_duration_since(from) < limit.window;
            if lease.is_told { lease.used > 0 && counts(lease.last) } else { counts(lease.ends) }
        });
        self.live.is_none() && self.closed.is_empty() && self.refused(now).is_none()
    }

    /// Uses nothing more of what is at hand.
    pub(super) fn close(&mut self) {
        if let Some(lease) = self.live.take() {
            self.remember(lease);
        }
    }

    fn remember(&mut self, lease: Lease) {
        if self.closed.len() >= MOST_REMEMBERED {
            self.closed.pop_front();
        }
        self.closed.push_back(lease);
    }
}

fn unused(id: Uuid, at: Instant) -> Lease {
    Lease { id, granted: 0, used: 0, last: at, ends: at + VALIDITY, is_told: false }
}
