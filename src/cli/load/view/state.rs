//! What the view knows: the run's frame, the last minutes, and the totals.

use std::collections::{BTreeMap, VecDeque};

use sotto_harness::load::{Generator, LedgerCounts, Moment};

/// So many seconds are kept: more than the widest terminal has columns for.
const KEPT: usize = 600;
/// The seconds that "the last minute" has.
pub const MINUTE: usize = 60;

/// What does not change while the run lasts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Header {
    /// The scenario's name.
    pub scenario: String,
    /// The run's name.
    pub title: String,
    /// What is driven: kind and addresses.
    pub target: String,
    /// Seconds before the measured span.
    pub warmup_seconds: f64,
    /// The measured span in seconds.
    pub seconds: f64,
}

/// Counts since the beginning of the run, warm-up included.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Totals {
    /// Operations begun.
    pub sent: u64,
    /// Operations answered.
    pub answered: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Refusals and failures by code.
    pub errors: BTreeMap<String, u64>,
    /// What is known already not to have held. Lost, unconfirmed and unanswered are known only at the end.
    pub ledger: LedgerCounts,
    /// The generator's own state.
    pub generator: Generator,
}

/// Where the run stands.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub(super) header: Header,
    pub(super) totals: Totals,
    /// The last seconds, the newest at the end.
    pub(super) moments: VecDeque<Moment>,
    pub(super) stops: u8,
    stage: Option<String>,
}

impl State {
    /// Nothing measured yet.
    pub fn new(header: Header) -> Self {
        Self { header, totals: Totals::default(), moments: VecDeque::new(), stops: 0, stage: None }
    }

    /// Takes another second in.
    pub fn take(&mut self, moment: &Moment, totals: Totals) {
        if self.moments.len() >= KEPT {
            let _oldest = self.moments.pop_front();
        }
        self.moments.push_back(moment.clone());
        self.totals = totals;
    }

    /// What the run is doing, in words of its own.
    pub fn set_stage(&mut self, stage: Option<String>) {
        self.stage = stage;
    }

    /// The person wants to stop; a second time: to leave.
    pub fn stop(&mut self) {
        self.stops = self.stops.saturating_add(1);
    }

    /// The newest second.
    pub fn now(&self) -> Option<&Moment> {
        self.moments.back()
    }

    /// Seconds since the beginning of the warm-up.
    pub fn elapsed(&self) -> f64 {
        self.now().map_or(0.0, |moment| moment.at)
    }

    /// Seconds of warm-up and measured span.
    pub fn length(&self) -> f64 {
        self.header.warmup_seconds + self.header.seconds
    }

    /// How much of the run is over, 0 to 1.
    pub fn progress(&self) -> f64 {
        let share = self.elapsed() / self.length();
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// What the run is doing.
    pub fn stage(&self) -> &str {
        match &self.stage {
            _ if self.stops > 1 => "leaving",
            _ if self.stops == 1 => "stopping: the last answers are awaited",
            Some(stage) => stage,
            None if self.moments.is_empty() => "starting",
            None if self.elapsed() < self.header.warmup_seconds => "warm-up",
            None if self.elapsed() < self.length() => "measuring",
            None => "the last answers are awaited",
        }
    }

    /// A value in each of the last seconds, the newest last.
    pub fn last<T>(&self, seconds: usize, value: impl Fn(&Moment) -> T) -> impl Iterator<Item = T> {
        self.moments.iter().skip(self.moments.len().saturating_sub(seconds)).map(value)
    }

    /// The worst second of the last minute, for median, 99th percentile and largest alike.
    pub fn worst(&self, times: impl Fn(&Moment) -> Option<[f64; 3]>) -> Option<[f64; 3]> {
        self.last(MINUTE, times).flatten().reduce(|[p50, p99, max], [other_p50, other_p99, other_max]| {
            [p50.max(other_p50), p99.max(other_p99), max.max(other_max)]
        })
    }

    /// The most frequent refusals and failures first.
    pub fn errors(&self) -> Vec<(&str, u64)> {
        let mut errors: Vec<(&str, u64)> =
            self.totals.errors.iter().map(|(code, count)| (code.as_str(), *count)).collect();
        errors.sort_by_key(|(code, count)| (std::cmp::Reverse(*count), *code));
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State::new(Header { warmup_seconds: 5.0, seconds: 10.0, ..Header::default() })
    }

    fn at(second: u32) -> Moment {
        let time = f64::from(second);
        Moment { at: time, answer_ms: Some([time, 2.0 * time, 1000.0 - time]), ..Moment::default() }
    }

    #[test]
    fn the_stage_follows_from_the_time_until_somebody_stops() {
        let mut state = state();
        assert_eq!((state.stage(), state.progress()), ("starting", 0.0));
        for (second, stage) in
            [(1, "warm-up"), (5, "measuring"), (14, "measuring"), (15, "the last answers are awaited")]
        {
            state.take(&at(second), Totals::default());
            assert_eq!(state.stage(), stage, "at {second} s");
        }
        assert!((state.progress() - 1.0).abs() < 1e-9);
        state.set_stage(Some("reading the ledger".to_owned()));
        assert_eq!(state.stage(), "reading the ledger");
        state.stop();
        assert!(state.stage().starts_with("stopping"));
        state.stop();
        assert_eq!(state.stage(), "leaving");
    }

    #[test]
    fn the_worst_is_that_of_the_last_minute() {
        let mut state = state();
        assert_eq!(state.worst(|moment| moment.answer_ms), None);
        for second in 1..=100 {
            state.take(&at(second), Totals::default());
        }
        assert_eq!(state.worst(|moment| moment.answer_ms), Some([100.0, 200.0, 959.0]));
        assert_eq!(state.worst(|moment| moment.delivery_ms), None);
    }

    #[test]
    fn a_run_of_a_day_keeps_its_last_minutes() {
        let mut state = state();
        for second in 0..86_400 {
            state.take(&at(second), Totals::default());
        }
        assert_eq!(state.moments.len(), KEPT);
        assert_eq!(state.last(2, |moment| moment.at).collect::<Vec<_>>(), [86_398.0, 86_399.0]);
    }
}
