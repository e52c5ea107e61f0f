//! What one generator thread has seen in one second.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::summary::LedgerCounts;

/// The longest time that is told apart, in microseconds; what takes longer counts as that long.
const LONGEST: u64 = 10 * 60 * 1_000_000;
/// Digits that are exact.
const DIGITS: u8 = 3;

/// Which time was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timed {
    /// From the intended moment of sending to the answer.
    Answer,
    /// From the intended moment of sending to the arrival at a receiver.
    Delivery,
    /// From the intended moment of sending by REST to the answer.
    Rest,
    /// From the first packet to the sign-in.
    Connect,
    /// From the first packet to the end of the backlog.
    Drain,
    /// From the moment at which the connections were cut to the end of the backlog on a new one.
    Return,
    /// From the intended moment of sending to the moment of sending.
    Lag,
}

impl Timed {
    /// All, the most telling first.
    pub const ALL: [Self; 7] =
        [Self::Delivery, Self::Answer, Self::Rest, Self::Return, Self::Connect, Self::Drain, Self::Lag];

    /// The stable name, and the one for people.
    #[must_use]
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Answer => ("send_to_ok", "send to ok"),
            Self::Delivery => ("send_to_delivered", "send to delivered"),
            Self::Rest => ("rest_send_to_ok", "REST send to ok"),
            Self::Return => ("cut_to_drained", "cut to drained"),
            Self::Connect => ("connect", "connect to signed in"),
            Self::Drain => ("connect_to_drained", "connect to drained"),
            Self::Lag => ("generator_lag", "intended to sent"),
        }
    }
}

/// A histogram of microseconds.
#[derive(Clone, Default)]
pub struct Times(Option<Histogram<u64>>);

impl Times {
    /// Takes one in.
    pub fn record(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if self.0.is_none() {
            self.0 = Histogram::new_with_bounds(1, LONGEST, DIGITS).ok();
        }
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(micros.max(1));
        }
    }

    /// Takes all of another in.
    pub fn add(&mut self, other: &Self) {
        match (&mut self.0, &other.0) {
            (_, None) => {}
            // They have the same bounds.
            (Some(histogram), Some(other)) => _ = histogram.add(other),
            (none, Some(other)) => *none = Some(other.clone()),
        }
    }

    /// The histogram, if there is something in it.
    #[must_use]
    pub fn histogram(&self) -> Option<&Histogram<u64>> {
        self.0.as_ref()
    }

    /// So many percent took at most so many milliseconds; none of none.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Option<f64> {
        let histogram = self.0.as_ref()?;
        Some(Duration::from_micros(histogram.value_at_percentile(percent)).as_secs_f64() * 1000.0)
    }

    /// How many were taken in.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, Histogram::len)
    }
}

/// What one generator thread has seen in one second.
#[derive(Clone, Default)]
pub struct Slice {
    /// Seconds since the run's beginning.
    pub second: u64,
    /// Operations begun.
    pub begun: u64,
    /// Operations answered, refusals not among them.
    pub answered: u64,
    /// Messages that came.
    pub delivered: u64,
    /// Connections that were signed in and had their backlog.
    pub arrived: u64,
    /// Refusals and failures by code.
    pub errors: BTreeMap<Cow<'static, str>, u64>,
    /// Refusals that do not say when one may ask again, though their kind must.
    pub silent_refusals: u64,
    /// Refused sends.
    pub refused: u64,
    /// Operations without an answer, at the end of the second.
    pub in_flight: u64,
    /// Open connections, at the end of the second.
    pub connections: u64,
    /// Times, by what was measured.
    pub times: BTreeMap<Timed, Times>,
    /// The ledger's faults so far, over all seconds; what is lost shows at the end.
    pub faults: LedgerCounts,
    /// Share of the second in which the thread ran.
    pub busy: f64,
}

impl Slice {
    /// Takes a time in.
    pub fn record(&mut self, timed: Timed, time: Duration) {
        self.times.entry(timed).or_default().record(time);
    }

    /// Counts a refusal or failure.
    pub fn error(&mut self, code: impl Into<Cow<'static, str>>) {
        *self.errors.entry(code.into()).or_default() += 1;
    }

    /// The times of one kind.
    #[must_use]
    pub fn times(&self, timed: Timed) -> Option<&Times> {
        self.times.get(&timed)
    }

    /// Takes the same second of another thread in, or another second; `second` and `busy` stay the larger ones.
    pub fn add(&mut self, other: &Self) {
        self.begun += other.begun;
        self.answered += other.answered;
        self.delivered += other.delivered;
        self.arrived += other.arrived;
        self.silent_refusals += other.silent_refusals;
        self.refused += other.refused;
        self.in_flight += other.in_flight;
        self.connections += other.connections;
        self.busy = self.busy.max(other.busy);
        for (code, count) in &other.errors {
            *self.errors.entry(code.clone()).or_default() += count;
        }
        self.add_times(other);
        add(&mut self.faults, other.faults);
    }

    /// Takes only the times of another in.
    pub fn add_times(&mut self, other: &Self) {
        for (timed, times) in &other.times {
            self.times.entry(*timed).or_default().add(times);
        }
    }
}

/// Adds counts to counts.
pub fn add(sum: &mut LedgerCounts, other: LedgerCounts) {
    let LedgerCounts { lost, duplicated, reordered, gaps, strange, unconfirmed, unanswered } = other;
    sum.lost += lost;
    sum.duplicated += duplicated;
    sum.reordered += reordered;
    sum.gaps += gaps;
    sum.strange += strange;
    sum.unconfirmed += unconfirmed;
    sum.unanswered += unanswered;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_of_threads_add_up() {
        let mut one = Slice { answered: 2, busy: 0.5, ..Slice::default() };
        one.record(Timed::Answer, Duration::from_millis(1));
        one.error("unavailable");
        let mut other = Slice { answered: 3, busy: 0.7, ..Slice::default() };
        other.record(Timed::Answer, Duration::from_millis(3));
        other.record(Timed::Drain, Duration::from_millis(9));
        other.error("unavailable");
        one.add(&other);
        assert_eq!((one.answered, one.busy, one.errors.get("unavailable")), (5, 0.7, Some(&2)));
        let times = one.times(Timed::Answer).unwrap();
        assert_eq!(times.count(), 2);
        assert!((2.9..3.1).contains(&times.percentile(100.0).unwrap()));
        assert_eq!(one.times(Timed::Drain).unwrap().count(), 1);
    }
}
