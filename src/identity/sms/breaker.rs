//! A circuit breaker: after some failures in a row nobody calls the gateway for a while; then one call tries it.
//!
//! It decides and does nothing: moments come in, verdicts go out. While it is open, requests for a code are refused at the
//! door (it fails closed: nobody waits for a code that does not come), and messages that were taken wait for the next try.

use std::time::{Duration, Instant};

/// So many calls in a row must fail before nobody calls.
pub const FAILURES: u32 = 5;
/// The first pause. Each try that fails doubles it …
pub const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// … up to this.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A try that was not heard of for so long is given up: longer than a call to the gateway may take.
pub const TRY_TAKES: Duration = Duration::from_secs(150);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Calls go through; so many have failed since the last that did not.
    Closed { failures: u32 },
    /// Nobody calls before this moment.
    Open { until: Instant, pause: Duration },
    /// One call is under way, and is given up at this moment.
    Trying { until: Instant, pause: Duration },
}

/// Whether somebody may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Now; whoever asked tells how it went.
    Go,
    /// Not before so long; then he asks again.
    Wait(Duration),
}

/// Whether the gateway is called.
#[derive(Clone, Debug)]
pub struct Breaker(State);

impl Default for Breaker {
    fn default() -> Self {
        Self(State::Closed { failures: 0 })
    }
}

impl Breaker {
    /// How long nobody will have called at least; `None`: a call would go through, or try. Changes nothing.
    #[must_use]
    pub fn pause(&self, now: Instant) -> Option<Duration> {
        let (State::Open { until, .. } | State::Trying { until, .. }) = self.0 else {
            return None;
        };
        let left = until.saturating_duration_since(now);
        let wait = if matches!(self.0, State::Trying { .. }) { left.min(FIRST_PAUSE) } else { left };
        (!wait.is_zero()).then_some(wait)
    }

    /// Asks to call.
    pub fn admit(&mut self, now: Instant) -> Admission {
        if let Some(wait) = self.pause(now) {
            return Admission::Wait(wait);
        }
        if let State::Open { pause, .. } | State::Trying { pause, .. } = self.0 {
            self.0 = State::Trying { until: now + TRY_TAKES, pause };
        }
        Admission::Go
    }

    /// A call went well, whenever it began. `true`: that closes it.
    pub fn succeeded(&mut self) -> bool {
        let was_open = !matches!(self.0, State::Closed { .. });
        self.0 = State::Closed { failures: 0 };
        was_open
    }

    /// A call failed by the gateway's fault. `true`: that opens it.
    pub fn failed(&mut self, now: Instant) -> bool {
        match self.0 {
            State::Closed { failures } if failures + 1 < FAILURES => {
                self.0 = State::Closed { failures: failures + 1 };
                false
            }
            State::Closed { .. } => {
                self.0 = State::Open { until: now + FIRST_PAUSE, pause: FIRST_PAUSE };
                true
            }
            // It had begun before the others failed.
            State::Open { .. } => false,
            State::Trying { pause, .. } => {
                let pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                self.0 = State::Open { until: now + pause, pause };
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Pass(u64),
        Call,
        /// One of the calls under way ends.
        End {
            which: usize,
            well: bool,
        },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..40_000_u64).prop_map(Step::Pass),
            Just(Step::Call),
            Just(Step::Call),
            (0..8_usize, any::<bool>()).prop_map(|(which, well)| Step::End { which, well }),
            (0..8_usize).prop_map(|which| Step::End { which, well: false }),
        ];
        prop::collection::vec(step, 0..80)
    }

    /// Plays a sequence, and holds the breaker to what it promises.
    fn play(steps: Vec<Step>) {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        let mut under_way: Vec<Instant> = Vec::new();
        let (mut in_a_row, mut opened, mut tried): (u32, Option<Instant>, Option<Instant>) = (0, None, None);
        for step in steps {
            match step {
                Step::Pass(millis) => now += Duration::from_millis(millis),
                Step::Call => match breaker.admit(now) {
                    Admission::Go => {
                        if let Some(opened) = opened {
                            assert!(now.duration_since(opened) >= FIRST_PAUSE, "nobody calls in the pause");
                            assert!(tried.is_none_or(|at| now.duration_since(at) >= TRY_TAKES), "one tries at a time");
                            tried = Some(now);
                        }
                        under_way.push(now);
                    }
                    Admission::Wait(wait) => {
                        assert!(opened.is_some(), "while it is closed nobody waits");
                        assert!(!wait.is_zero() && wait <= LONGEST_PAUSE);
                        assert_eq!(breaker.pause(now), Some(wait), "the door says the same");
                    }
                },
                Step::End { which, well } if !under_way.is_empty() => {
                    under_way.remove(which % under_way.len());
                    if well {
                        assert_eq!(breaker.succeeded(), opened.is_some());
                        (in_a_row, opened, tried) = (0, None, None);
                        assert_eq!(breaker.pause(now), None);
                        continue;
                    }
                    let opens = breaker.failed(now);
                    in_a_row += 1;
                    assert_eq!(opens, opened.is_none() && in_a_row == FAILURES, "the fifth in a row opens it");
                    if opens || tried.take().is_some() {
                        opened = Some(now);
                    }
                }
                Step::End { .. } => {}
            }
        }
        // Whatever happened: there comes a time when somebody may try, and one success closes it.
        now += TRY_TAKES.max(LONGEST_PAUSE);
        assert_eq!(breaker.admit(now), Admission::Go);
        breaker.succeeded();
        assert_eq!(breaker.admit(now), Admission::Go);
        assert_eq!(breaker.pause(now), None);
    }

    proptest! {
        #[test]
        fn nobody_calls_a_gateway_that_fails_and_somebody_always_tries_it_again(steps in steps()) {
            play(steps);
        }
    }

    #[test]
    #[ignore = "a hundred thousand sequences take their time"]
    fn a_hundred_thousand_sequences() {
        let config = ProptestConfig { cases: 100_000, failure_persistence: None, ..ProptestConfig::default() };
        proptest::test_runner::TestRunner::new(config)
            .run(&steps(), |steps| {
                play(steps);
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..FAILURES {
            assert_eq!(breaker.admit(now), Admission::Go);
            breaker.failed(now);
        }
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let pause = breaker.pause(now).unwrap();
            pauses.push(pause.as_secs());
            now += pause;
            assert_eq!(breaker.admit(now), Admission::Go);
            breaker.failed(now);
        }
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
    }
}
