//! What was sent, what was answered, what came: one ledger per direction of a conversation.

use std::time::Instant;

/// A message on its way.
#[derive(Clone, Copy)]
struct Entry {
    /// When it was sent, or was to be sent.
    at: Instant,
    /// The number that the sender was told.
    told: Option<i64>,
    /// The number with which it came.
    came: Option<i64>,
    failed: bool,
}

/// Messages from one device to another. They are named by their count, from 1.
#[derive(Default)]
pub struct Ledger {
    entries: Vec<Entry>,
    last_count: i64,
    last_seq: i64,
    pub answered: usize,
    pub delivered: usize,
    pub failed: usize,
    pub faults: Faults,
}

/// What must not happen.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Answered, and never came.
    pub lost: usize,
    /// Came twice on one connection, or was stored twice.
    pub doubled: usize,
    /// Came before an earlier one.
    pub reordered: usize,
    /// The chain of numbers is broken: `n`, `after_seq`, or two numbers for one message.
    pub gaps: usize,
    /// Came, and nobody had sent it.
    pub strange: usize,
    /// An acknowledgement that was not confirmed.
    pub unconfirmed: usize,
}

impl Faults {
    pub fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.gaps += other.gaps;
        self.strange += other.strange;
        self.unconfirmed += other.unconfirmed;
    }

    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

impl Ledger {
    /// A message goes out; its count.
    pub fn send(&mut self, at: Instant) -> i64 {
        self.entries.push(Entry { at, told: None, came: None, failed: false });
        self.entries.len() as i64
    }

    fn entry(&mut self, count: i64) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(count - 1).ok()?)
    }

    /// The sender was told the message's number; since when it was on its way.
    pub fn answer(&mut self, count: i64, seq: i64, duplicate: bool) -> Instant {
        let entry = self.entry(count).expect("an answer to something that was sent");
        let at = entry.at;
        let (again, differs) = (entry.told.is_some() || duplicate, entry.came.is_some_and(|came| came != seq));
        entry.told = Some(seq);
        self.faults.doubled += usize::from(again);
        self.faults.gaps += usize::from(differs);
        self.answered += 1;
        at
    }

    /// The sender was told that it failed: whether it comes is open.
    pub fn fail(&mut self, count: i64) {
        if let Some(entry) = self.entry(count) {
            entry.failed = true;
        }
        self.failed += 1;
    }

    /// A message came; since when it was on its way. `None`: nothing to measure.
    pub fn deliver(&mut self, count: i64, seq: i64, after: i64) -> Option<Instant> {
        let (last_count, last_seq) = (self.last_count, self.last_seq);
        let Some(entry) = self.entry(count) else {
            self.faults.strange += 1;
            return None;
        };
        if entry.came.is_some() {
            self.faults.doubled += 1;
            return None;
        }
        let at = entry.at;
        let differs = entry.told.is_some_and(|told| told != seq);
        entry.came = Some(seq);
        self.faults.gaps += usize::from(differs);
        self.faults.reordered += usize::from(count <= last_count || seq <= last_seq);
        // The first one's chain begins at a mark that only the server knows.
        self.faults.gaps += usize::from(last_seq > 0 && after != last_seq);
        (self.last_count, self.last_seq) = (count.max(last_count), seq.max(last_seq));
        self.delivered += 1;
        Some(at)
    }

    /// Whether everything was answered, and all of it came.
    pub fn is_settled(&self) -> bool {
        let open = |entry: &Entry| !entry.failed && (entry.told.is_none() || entry.came.is_none());
        // From the end: what is open is mostly new.
        !self.entries.iter().rev().any(open)
    }

    /// What is missing in the end.
    pub fn close(&mut self) -> Faults {
        self.faults.lost = self.entries.iter().filter(|entry| entry.told.is_some() && entry.came.is_none()).count();
        self.faults
    }

    /// Messages that were never answered at all.
    pub fn unanswered(&self) -> usize {
        self.entries.iter().filter(|entry| entry.told.is_none() && !entry.failed).count()
    }
}
