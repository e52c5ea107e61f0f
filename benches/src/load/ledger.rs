//! What was sent, what was answered, what came: a book per sender and a line per receiver of it.
//!
//! A message is in memory while it is under way and leaves two bits behind. Everything else is told by counts: a
//! receiver that has had message 8 and gets 10 lacks 9, until it comes late (reordered) or never (lost).

use std::collections::VecDeque;
use std::time::Instant;

use super::number::{count, small};
use super::summary::LedgerCounts;

/// A message on its way.
struct Entry {
    /// When it was sent, or was to be sent.
    at: Instant,
    is_answered: bool,
    /// The number that the sender was told, or that it came with first.
    seq: Option<u64>,
    /// Receivers that have not got it.
    awaited: u32,
}

/// The messages of one device, counted from 1.
#[derive(Default)]
pub struct Outgoing {
    receivers: u32,
    /// From the oldest one that is under way.
    under_way: VecDeque<Entry>,
    /// How many have left `under_way` in front.
    left: u32,
    /// Those that were refused, and those of them that may have been stored in spite of it.
    refused: Marks,
    unknown: Marks,
    unanswered: u64,
    unsettled: u64,
}

impl Outgoing {
    /// A book for messages to so many devices.
    pub fn new(receivers: usize) -> Self {
        Self { receivers: small(receivers), ..Self::default() }
    }

    /// How many were sent.
    pub fn sent(&self) -> u32 {
        self.left + small(self.under_way.len())
    }

    /// Sent, and neither answered nor refused.
    pub fn unanswered(&self) -> u64 {
        self.unanswered
    }

    /// Sent, and not answered or not come to all receivers.
    pub fn unsettled(&self) -> u64 {
        self.unsettled
    }

    /// Whether everything was answered, and what is stored has come.
    pub fn is_settled(&self) -> bool {
        self.unsettled == 0
    }

    /// A message goes out; its count.
    pub fn send(&mut self, at: Instant) -> u32 {
        self.under_way.push_back(Entry { at, is_answered: false, seq: None, awaited: self.receivers });
        self.unanswered += 1;
        self.unsettled += 1;
        self.sent()
    }

    fn entry(&mut self, count: u32) -> Option<&mut Entry> {
        self.under_way.get_mut(usize::try_from(count.checked_sub(self.left + 1)?).ok()?)
    }

    fn clear(&mut self) {
        while self.under_way.pop_front_if(|entry| entry.is_answered && entry.awaited == 0).is_some() {
            self.left += 1;
        }
    }

    /// The sender was told the message's number; since when it was on its way.
    pub fn answer(&mut self, number: u32, seq: Option<u64>, faults: &mut LedgerCounts) -> Option<Instant> {
        let has_been = number <= self.left;
        let Some(entry) = self.entry(number) else {
            let fault = if has_been { &mut faults.duplicated } else { &mut faults.strange };
            *fault += 1;
            return None;
        };
        if entry.is_answered {
            faults.duplicated += 1;
            return None;
        }
        entry.is_answered = true;
        faults.gaps += u64::from(entry.seq.is_some() && seq.is_some() && entry.seq != seq);
        entry.seq = entry.seq.or(seq);
        let (at, is_settled) = (entry.at, entry.awaited == 0);
        self.unanswered -= 1;
        self.unsettled -= u64::from(is_settled);
        self.clear();
        Some(at)
    }

    /// The sender was told that it failed; since when it was on its way.
    pub fn refuse(&mut self, number: u32, is_unknown: bool, faults: &mut LedgerCounts) -> Option<Instant> {
        let Some(entry) = self.entry(number).filter(|entry| !entry.is_answered) else {
            faults.strange += 1;
            return None;
        };
        let at = entry.at;
        entry.is_answered = true;
        entry.awaited = 0;
        self.unanswered -= 1;
        self.unsettled -= 1;
        self.refused.set(number);
        if is_unknown {
            self.unknown.set(number);
        }
        self.clear();
        Some(at)
    }

    /// A message came at one of its receivers, for the first time there; since when it was on its way.
    pub fn arrive(&mut self, number: u32, seq: Option<u64>, faults: &mut LedgerCounts) -> Option<Instant> {
        if self.refused.has(number) && !self.unknown.has(number) {
            faults.strange += 1;
            return None;
        }
        let entry = self.entry(number)?;
        faults.gaps += u64::from(entry.seq.is_some() && seq.is_some() && entry.seq != seq);
        entry.seq = entry.seq.or(seq);
        let at = entry.at;
        if entry.awaited > 0 {
            entry.awaited -= 1;
            let is_settled = entry.awaited == 0 && entry.is_answered;
            self.unsettled -= u64::from(is_settled);
        }
        self.clear();
        Some(at)
    }
}

/// What one device has got of one sender.
#[derive(Default)]
pub struct Incoming {
    last: u32,
    /// Counts below `last` that have not come, as ranges, ends included.
    missing: Vec<(u32, u32)>,
    /// Up to here a new connection may bring again what was not confirmed on the old one.
    repeats_to: u32,
}

/// Refused messages leave ranges behind; from so many on they are looked through.
const MANY: usize = 256;

impl Incoming {
    /// The device has a new connection, on which unconfirmed messages come again.
    pub fn reconnect(&mut self) {
        self.repeats_to = self.last;
    }

    /// A message came; whether it is new here.
    pub fn take(&mut self, number: u32, from: &Outgoing, faults: &mut LedgerCounts) -> bool {
        if number == 0 || number > from.sent() {
            faults.strange += 1;
            return false;
        }
        if number > self.last {
            if number > self.last + 1 {
                self.missing.push((self.last + 1, number - 1));
                if self.missing.len() > MANY {
                    self.missing.retain(|(first, end)| !(*first..=*end).all(|count| from.refused.has(count)));
                }
            }
            self.last = number;
            return true;
        }
        let Some(place) = self.missing.iter().position(|(first, end)| (*first..=*end).contains(&number)) else {
            faults.duplicated += u64::from(number > self.repeats_to);
            return false;
        };
        let (first, end) = self.missing.swap_remove(place);
        self.missing.extend((first < number).then_some((first, number - 1)));
        self.missing.extend((number < end).then_some((number + 1, end)));
        // What failed and was stored in spite of it has no promised place.
        faults.reordered += u64::from(!from.unknown.has(number));
        true
    }

    /// How many were promised and have not come.
    pub fn lost(&self, from: &Outgoing) -> u64 {
        let rest = (self.last < from.sent()).then_some((self.last + 1, from.sent()));
        let ranges = self.missing.iter().copied().chain(rest);
        let is_promised = |number: &u32| !from.refused.has(*number) && !from.is_open(*number);
        ranges.map(|(first, end)| count((first..=end).filter(is_promised).count())).sum()
    }
}

impl Outgoing {
    /// Whether the sender has no answer yet, so that nothing is promised.
    fn is_open(&self, number: u32) -> bool {
        let place = number.checked_sub(self.left + 1).and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| self.under_way.get(place)).is_some_and(|entry| !entry.is_answered)
    }
}

/// A set of counts, a bit each.
#[derive(Default)]
struct Marks(Vec<u64>);

impl Marks {
    fn set(&mut self, number: u32) {
        let place = usize::try_from(number / 64).unwrap_or_default();
        if self.0.len() <= place {
            self.0.resize(place + 1, 0);
        }
        if let Some(word) = self.0.get_mut(place) {
            *word |= 1 << (number % 64);
        }
    }

    fn has(&self, number: u32) -> bool {
        let place = usize::try_from(number / 64).unwrap_or_default();
        self.0.get(place).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sender with one receiver, told what happens as `s`ent, `a`nswered, `c`ame, `r`efused, `u`nknown and a count.
    fn told(story: &str) -> (LedgerCounts, bool) {
        let (mut out, mut inbound, mut faults) = (Outgoing::new(1), Incoming::default(), LedgerCounts::default());
        for word in story.split(' ') {
            let (verb, number) = word.split_at(1);
            let number: u32 = number.parse().unwrap();
            let seq = Some(u64::from(number) + 10);
            match verb {
                "s" => assert_eq!(out.send(Instant::now()), number),
                "a" => _ = out.answer(number, seq, &mut faults),
                "w" => _ = out.answer(number, Some(1), &mut faults),
                "r" => _ = out.refuse(number, false, &mut faults),
                "u" => _ = out.refuse(number, true, &mut faults),
                "x" => inbound.reconnect(),
                _ => {
                    if inbound.take(number, &out, &mut faults) {
                        out.arrive(number, seq, &mut faults);
                    }
                }
            }
        }
        faults.lost = inbound.lost(&out);
        faults.unanswered = out.unanswered();
        (faults, out.is_settled())
    }

    #[test]
    fn what_is_right_has_no_faults_in_any_order_of_answer_and_arrival() {
        for story in ["s1 a1 c1", "s1 c1 a1", "s1 s2 c1 c2 a2 a1", "s1 s2 s3 a1 c1 r2 c3 a3", "s1 s2 u1 c2 a2 c1"] {
            assert_eq!(told(story), (LedgerCounts::default(), true), "{story}");
        }
    }

    #[test]
    fn each_fault_is_found_and_named() {
        let none = LedgerCounts::default();
        let cases = [
            ("s1 s2 a1 a2 c2", LedgerCounts { lost: 1, ..none }),
            ("s1 a1", LedgerCounts { lost: 1, ..none }),
            ("s1 s2 a1 a2 c1", LedgerCounts { lost: 1, ..none }),
            ("s1 a1 c1 c1", LedgerCounts { duplicated: 1, ..none }),
            ("s1 a1 a1 c1", LedgerCounts { duplicated: 1, ..none }),
            ("s1 s2 a1 a2 c2 c1", LedgerCounts { reordered: 1, ..none }),
            ("s1 w1 c1", LedgerCounts { gaps: 1, ..none }),
            ("s1 a1 c1 c7", LedgerCounts { strange: 1, ..none }),
            ("s1 r1 c1", LedgerCounts { strange: 1, ..none }),
            ("s1 c1", LedgerCounts { unanswered: 1, ..none }),
        ];
        for (story, faults) in cases {
            assert_eq!(told(story).0, faults, "{story}");
        }
    }

    #[test]
    fn a_new_connection_may_bring_again_what_the_old_one_brought() {
        assert_eq!(told("s1 a1 c1 x0 c1"), (LedgerCounts::default(), true));
        assert_eq!(told("s1 a1 c1 x0 s2 a2 c2 c2").0.duplicated, 1);
    }

    #[test]
    fn many_refusals_leave_little_behind() {
        let (mut out, mut inbound, mut faults) = (Outgoing::new(1), Incoming::default(), LedgerCounts::default());
        for _ in 0..10_000 {
            let refused = out.send(Instant::now());
            out.refuse(refused, false, &mut faults);
            let stored = out.send(Instant::now());
            out.answer(stored, None, &mut faults);
            assert!(inbound.take(stored, &out, &mut faults));
            out.arrive(stored, None, &mut faults);
        }
        assert_eq!(faults, LedgerCounts::default());
        assert!(out.is_settled() && out.under_way.is_empty() && inbound.missing.len() <= MANY);
        assert_eq!(inbound.lost(&out), 0);
    }
}
