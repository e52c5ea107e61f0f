//! What a run has done and felt so far, to be looked at while it goes on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use sotto_client::protocol::ErrorCode;

/// A number that many tasks count up.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less; what is counted so was counted up before.
    pub fn take(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counts of a run.
pub struct Counters {
    /// When the run began.
    pub start: Instant,
    /// Messages that were made.
    pub composed: Counter,
    /// Messages with an answer.
    pub acknowledged: Counter,
    /// Messages that were taken back.
    pub withdrawn: Counter,
    /// Attempts to send.
    pub begun: Counter,
    /// Attempts answered with ok.
    pub answered: Counter,
    /// Attempts whose outcome is unknown.
    pub unknown: Counter,
    /// Attempts under way.
    pub under_way: Counter,
    /// Messages that were sent again.
    pub repeated: Counter,
    /// Answers that say that the message was stored before.
    pub duplicates: Counter,
    /// Durable events that came.
    pub events: Counter,
    /// Messages that came.
    pub received: Counter,
    /// Confirmed acknowledgements.
    pub confirmed: Counter,
    /// Sockets that were opened.
    pub opened: Counter,
    /// Sockets that ended against our will.
    pub lost: Counter,
    /// Sockets that could not be opened.
    pub unreachable: Counter,
    /// Requests, other than sends, without an answer.
    pub silent: Counter,
    /// Times that somebody waited because of a limit.
    pub waits: Counter,
    refused: Mutex<BTreeMap<&'static str, u64>>,
    last_ok: AtomicU64,
    newest_ok: AtomicU64,
}

impl Counters {
    /// Nothing yet, from now on.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            composed: Counter::default(),
            acknowledged: Counter::default(),
            withdrawn: Counter::default(),
            begun: Counter::default(),
            answered: Counter::default(),
            unknown: Counter::default(),
            under_way: Counter::default(),
            repeated: Counter::default(),
            duplicates: Counter::default(),
            events: Counter::default(),
            received: Counter::default(),
            confirmed: Counter::default(),
            opened: Counter::default(),
            lost: Counter::default(),
            unreachable: Counter::default(),
            silent: Counter::default(),
            waits: Counter::default(),
            refused: Mutex::default(),
            last_ok: AtomicU64::new(0),
            newest_ok: AtomicU64::new(0),
        }
    }

    /// Counts a refusal.
    pub fn refuse(&self, code: ErrorCode) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(code.as_str()).or_default() += 1;
    }

    /// Counts an attempt, begun then, that was answered with ok now.
    pub fn ok(&self, begun: Instant) {
        self.answered.add();
        self.last_ok.fetch_max(self.micros(Instant::now()), Ordering::Relaxed);
        self.newest_ok.fetch_max(self.micros(begun), Ordering::Relaxed);
    }

    fn micros(&self, moment: Instant) -> u64 {
        // 0 stands for never.
        u64::try_from(moment.saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX).max(1)
    }

    /// When the newest send was begun that has been answered with ok.
    pub fn newest_ok(&self) -> Option<Instant> {
        self.moment(&self.newest_ok)
    }

    fn moment(&self, micros: &AtomicU64) -> Option<Instant> {
        match micros.load(Ordering::Relaxed) {
            0 => None,
            micros => self.start.checked_add(Duration::from_micros(micros)),
        }
    }

    /// All of them as they are now.
    pub fn view(&self) -> View {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        View {
            begun: self.begun.get(),
            answered: self.answered.get(),
            unknown: self.unknown.get(),
            refused: refused.iter().map(|(code, count)| ((*code).to_owned(), *count)).collect(),
            opened: self.opened.get(),
            lost: self.lost.get(),
            unreachable: self.unreachable.get(),
            silent: self.silent.get(),
            unanswered: self.under_way.get(),
            received: self.received.get(),
            confirmed: self.confirmed.get(),
            waits: self.waits.get(),
            last_ok: self.moment(&self.last_ok),
        }
    }
}

/// Counts at one moment. They only grow, but for `unanswered`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct View {
    /// Attempts to send.
    pub begun: u64,
    /// Attempts answered with ok.
    pub answered: u64,
    /// Attempts whose outcome is unknown; they are repeated with the same id.
    pub unknown: u64,
    /// Every refusal by its code, of sends and of other requests.
    pub refused: BTreeMap<String, u64>,
    /// Sockets that were opened.
    pub opened: u64,
    /// Sockets that ended against the client's will.
    pub lost: u64,
    /// Sockets that could not be opened.
    pub unreachable: u64,
    /// Requests, other than sends, without an answer.
    pub silent: u64,
    /// Sends under way now.
    pub unanswered: u64,
    /// Messages that came, repeats included.
    pub received: u64,
    /// Acknowledgements that were confirmed.
    pub confirmed: u64,
    /// Times that somebody waited because of a limit.
    pub waits: u64,
    /// When the last ok came.
    #[serde(skip)]
    pub last_ok: Option<Instant>,
}

/// A moment to compare with.
#[derive(Clone, Debug)]
pub struct Mark {
    pub(crate) at: Instant,
    pub(crate) view: View,
}

/// What clients felt between a mark and now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Felt {
    /// Sends whose outcome is unknown.
    pub unknown: u64,
    /// Answers `unavailable` and `internal`.
    pub unavailable: u64,
    /// Sockets that ended against the client's will.
    pub lost: u64,
    /// Sockets that could not be opened.
    pub unreachable: u64,
    /// Requests without an answer.
    pub silent: u64,
}

impl Felt {
    /// Whether anybody felt anything.
    #[must_use]
    pub const fn any(&self) -> bool {
        self.unknown + self.unavailable + self.lost + self.unreachable + self.silent > 0
    }

    pub(crate) fn between(before: &View, now: &View) -> Self {
        let refused = |view: &View| {
            let count = |code: ErrorCode| view.refused.get(code.as_str()).copied().unwrap_or_default();
            count(ErrorCode::Unavailable) + count(ErrorCode::Internal)
        };
        Self {
            unknown: now.unknown.saturating_sub(before.unknown),
            unavailable: refused(now).saturating_sub(refused(before)),
            lost: now.lost.saturating_sub(before.lost),
            unreachable: now.unreachable.saturating_sub(before.unreachable),
            silent: now.silent.saturating_sub(before.silent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_felt_is_the_difference() {
        let counters = Counters::new();
        counters.lost.add();
        counters.refuse(ErrorCode::RateLimited);
        let before = counters.view();
        assert!(!Felt::between(&before, &counters.view()).any());
        counters.refuse(ErrorCode::RateLimited);
        assert!(!Felt::between(&before, &counters.view()).any(), "a limit is no fault");
        counters.refuse(ErrorCode::Unavailable);
        counters.lost.add();
        let felt = Felt::between(&before, &counters.view());
        assert_eq!((felt.unavailable, felt.lost, felt.any()), (1, 1, true));
    }

    #[test]
    fn the_newest_ok_is_that_of_the_send_that_began_last() {
        let counters = Counters::new();
        assert!(counters.newest_ok().is_none() && counters.view().last_ok.is_none());
        let early = counters.start + Duration::from_millis(1);
        let late = counters.start + Duration::from_millis(9);
        counters.ok(late);
        counters.ok(early);
        assert_eq!(counters.newest_ok(), Some(late));
    }
}
