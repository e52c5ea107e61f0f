//! Sequences of everything that can be done about a number that is protected, against the decisions that the database asks.
//!
//! A witness stands beside them that knows only the rules: which PIN was set when, when a device was heard of, what was shown.
//! Nobody but a known device gets past a PIN, and no number is given away before its time; what is right by the rules is let
//! through. 2,000 sequences are made, or as many more as `PROPTEST_CASES` says; the ignored test makes 100,000.

use super::*;
use crate::rows::sign_in::Allowance;
use crate::second_factor::{Asks, Factor, Guard, Lock, Method, Shown, Tries, Use, Verdict, judge};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use uuid::Uuid;

const BEGIN: Timestamp = Timestamp::from_millis(1_795_253_400_000);
const WAIT: Duration = Duration::from_secs(7 * 86_400);
const DAY: Duration = Duration::from_secs(86_400);
const MOST_TRIES: i64 = 5;
const PINS_A_DAY: usize = 5;
const PINS: [&str; 4] = ["2580", "1357", "8642", "90210"];

#[derive(Clone, Copy, Debug)]
enum Show {
    Nothing,
    /// One of a handful, so that old ones come again and right ones are guessed.
    Pin(usize),
    /// A right code of the authenticator app, where there is one.
    Totp,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Wait(u64),
    /// A device of the account is heard of.
    Contact,
    SetPin(usize),
    RemovePin,
    /// A second factor is enabled, or disabled.
    TurnFactor,
    /// Another code from a text message.
    Verify,
    Login {
        is_known: bool,
        show: Show,
    },
    Recover(Show),
    /// With or without asking for the number of an account that is silent.
    Register(Show, bool),
    /// A PIN is compared, another one is set meanwhile, and only then it is decided.
    Overtaken(usize, usize),
}

fn shows() -> impl Strategy<Value = Show> {
    prop_oneof![2 => Just(Show::Nothing), 6 => (0..PINS.len()).prop_map(Show::Pin), 1 => Just(Show::Totp)]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        2 => (0..3600_u64).prop_map(Act::Wait),
        3 => (0..8 * 86_400_u64).prop_map(Act::Wait),
        2 => Just(Act::Contact),
        4 => (0..PINS.len()).prop_map(Act::SetPin),
        1 => Just(Act::RemovePin),
        1 => Just(Act::TurnFactor),
        4 => Just(Act::Verify),
        5 => (prop::bool::weighted(0.2), shows()).prop_map(|(is_known, show)| Act::Login { is_known, show }),
        3 => shows().prop_map(Act::Recover),
        6 => (shows(), any::<bool>()).prop_map(|(show, replaces)| Act::Register(show, replaces)),
        2 => (0..PINS.len(), 0..PINS.len()).prop_map(|(shown, set)| Act::Overtaken(shown, set)),
    ];
    prop::collection::vec(act, 1..60)
}

/// What a request with the right code from a text message came to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Passed,
    /// Behind no lock at all: a code signs in, and recovery has nothing to go by.
    Open,
    Required(Vec<Method>),
    Rejected,
    Limited,
    CodeRejected,
    Kept(Timestamp, Vec<Method>),
    /// The account is to be deleted, and its devices are told.
    Grace,
}

/// The account as the server has it, and the witness.
struct World {
    now: Timestamp,
    lock: Option<Lock>,
    factor: Option<Factor>,
    step: i64,
    last_contact: Timestamp,
    tries: Tries,
    wrong_pins: Vec<Timestamp>,
    // What the witness knows.
    pin: Option<&'static str>,
    accounts: u32,
    judged_wrong: Vec<Timestamp>,
}

impl World {
    fn new() -> Self {
        Self {
            now: BEGIN,
            lock: None,
            factor: None,
            step: 0,
            last_contact: BEGIN,
            tries: Tries { failed: 0, most: MOST_TRIES, is_used: false },
            wrong_pins: Vec::new(),
            pin: None,
            accounts: 1,
            judged_wrong: Vec::new(),
        }
    }

    fn allowance() -> Allowance {
        Allowance::new("pin", [], u32::try_from(PINS_A_DAY).unwrap(), DAY)
    }

    fn guard(&self, asks: Asks) -> Guard<'_> {
        Guard::of(asks, self.factor.as_ref(), self.lock)
    }

    /// As `Identity::compare`, without hashes: a try is taken first, and gives nothing to compare when there is none.
    fn compare(&mut self, asks: Asks, show: Show) -> Result<Shown, Answer> {
        match (self.guard(asks), show) {
            (Guard::Factor(factor), Show::Totp) => {
                let factor = factor.id;
                self.step += 1;
                self.take_try()?;
                Ok(Shown::Step { factor, step: self.step })
            }
            (Guard::Lock(lock), Show::Pin(index)) => {
                self.take_try()?;
                if Self::allowance().reached(&self.wrong_pins, 1, self.now).is_some() {
                    return Err(Answer::Limited);
                }
                self.wrong_pins.push(self.now);
                let is_right = self.pin == Some(PINS[index]);
                Ok(if is_right { Shown::Pin { lock } } else { Shown::Wrong })
            }
            _ => Ok(Shown::Nothing),
        }
    }

    fn take_try(&mut self) -> Result<(), Answer> {
        if !self.tries.is_open() {
            return Err(Answer::CodeRejected);
        }
        self.tries.fail();
        Ok(())
    }

    /// As the query `proofs::begin`.
    fn is_begun(&self, shown: &Shown) -> bool {
        self.tries.is_open() || (*shown != Shown::Nothing && !self.tries.is_used)
    }

    /// What was shown is right, and the request comes to something.
    fn spend(&mut self, used: Use) {
        match used {
            Use::Pin(_) => drop(self.wrong_pins.pop()),
            used => self.factor.as_mut().unwrap().use_up(used),
        }
        self.tries.is_used = true;
    }

    /// As the query `second_factor::ask` and what follows it.
    fn ask(&mut self, asks: Asks, shown: &Shown) -> Answer {
        if !self.is_begun(shown) {
            return Answer::CodeRejected;
        }
        let guard = self.guard(asks);
        match judge(&guard, shown) {
            Verdict::NotNeeded => Answer::Open,
            Verdict::Required => Answer::Required(guard.methods()),
            Verdict::Rejected => Answer::Rejected,
            Verdict::Passed(used) => {
                assert_eq!(matches!(used, Use::Pin(_)), self.factor.is_none());
                self.spend(used);
                Answer::Passed
            }
        }
    }

    /// As the query `registration_lock::take_over`.
    fn claim(&mut self, shown: &Shown, replaces: bool) -> Answer {
        if !self.is_begun(shown) {
            return Answer::CodeRejected;
        }
        let guard = self.guard(Asks::Strongest);
        let (verdict, methods) = (judge(&guard, shown), guard.methods());
        let standing = Standing { verdict, methods, last_contact: self.last_contact, young_until: None };
        let claim = standing.claim(replaces, WAIT, self.now);
        match (claim, verdict) {
            (Claim::Kept { until, methods }, _) => Answer::Kept(until, methods),
            (Claim::Rejected, _) => Answer::Rejected,
            (Claim::Grace, Verdict::Passed(used)) => {
                self.spend(used);
                Answer::Grace
            }
            (Claim::Free, Verdict::Passed(used)) => {
                self.spend(used);
                Answer::Passed
            }
            (Claim::Free, _) => {
                self.tries.is_used = true;
                Answer::Passed
            }
            (Claim::Grace, _) => panic!("an account that is in use goes by its strongest guard alone"),
        }
    }

    /// What follows by the rules from a PIN that is asked for.
    fn expected_of_pin(&self, show: Show) -> Answer {
        match show {
            _ if !self.tries.is_open() => Answer::CodeRejected,
            Show::Pin(_) if self.pins_of_a_day() >= PINS_A_DAY => Answer::Limited,
            Show::Pin(index) if self.pin == Some(PINS[index]) => Answer::Passed,
            Show::Pin(_) => Answer::Rejected,
            Show::Nothing | Show::Totp => Answer::Required(vec![Method::Pin]),
        }
    }

    fn pins_of_a_day(&self) -> usize {
        self.judged_wrong.iter().filter(|moment| self.now.since(**moment) < DAY).count()
    }

    fn expected_of_factor(&self, show: Show) -> Answer {
        match show {
            _ if !self.tries.is_open() => Answer::CodeRejected,
            Show::Totp => Answer::Passed,
            Show::Nothing | Show::Pin(_) => Answer::Required(vec![Method::Totp]),
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Wait(seconds) => self.now = self.now.plus(Duration::from_secs(seconds)),
            Act::Contact => self.last_contact = self.now,
            Act::SetPin(index) => {
                let lock = Lock { id: Uuid::new_v4(), set_at: self.now };
                (self.lock, self.pin) = (Some(lock), Some(PINS[index]));
                self.last_contact = self.now;
            }
            Act::RemovePin => (self.lock, self.pin) = (None, None),
            Act::TurnFactor => {
                self.factor = match self.factor.take() {
                    Some(_) => None,
                    None => {
                        let mut factor = Factor::begun(Uuid::new_v4(), self.now.plus(DAY));
                        let shown = Shown::Step { factor: factor.id, step: self.step + 1 };
                        self.step += 1;
                        factor.enable(&shown, Vec::new(), self.now);
                        Some(factor)
                    }
                };
            }
            Act::Verify => self.tries = Tries { failed: 0, most: MOST_TRIES, is_used: false },
            Act::Login { is_known, show } => {
                let asks = if is_known { Asks::Factor } else { Asks::Strongest };
                let expected = match (&self.factor, self.lock) {
                    (Some(_), _) => self.expected_of_factor(show),
                    (None, Some(_)) if !is_known => self.expected_of_pin(show),
                    _ if self.tries.is_open() => Answer::Open,
                    _ => Answer::CodeRejected,
                };
                let answer = self.prove(asks, show);
                assert_eq!(answer, expected, "{act:?}");
                if matches!(answer, Answer::Passed | Answer::Open) {
                    self.tries.is_used = true;
                    self.last_contact = self.now;
                }
            }
            Act::Recover(show) => {
                let expected = match (&self.factor, self.lock) {
                    (Some(_), _) => self.expected_of_factor(show),
                    (None, Some(_)) => self.expected_of_pin(show),
                    (None, None) if self.tries.is_open() => Answer::Open,
                    (None, None) => Answer::CodeRejected,
                };
                let answer = self.prove(Asks::Strongest, show);
                assert_eq!(answer, expected, "{act:?}");
                if answer == Answer::Passed {
                    self.last_contact = self.now;
                }
            }
            Act::Register(show, replaces) => self.register(show, replaces),
            Act::Overtaken(shown, set) => {
                let before = self.compare(Asks::Strongest, Show::Pin(shown));
                self.act(Act::SetPin(set));
                self.act(Act::Verify);
                if let (None, Ok(before @ (Shown::Pin { .. } | Shown::Wrong))) = (&self.factor, before) {
                    self.judged_wrong.push(self.now);
                    assert_eq!(self.ask(Asks::Strongest, &before), Answer::Rejected, "it was another PIN's");
                    assert_eq!(self.claim(&before, false), Answer::Rejected, "nor does it give the number");
                }
            }
        }
        let most = self
            .judged_wrong
            .iter()
            .map(|end| self.judged_wrong.iter().filter(|moment| **moment <= *end && end.since(**moment) < DAY).count());
        assert!(most.max().unwrap_or(0) <= PINS_A_DAY, "more wrong PINs in a day than there may be");
    }

    /// Compares and asks, and notes a wrong PIN for the witness.
    fn prove(&mut self, asks: Asks, show: Show) -> Answer {
        let answer = match self.compare(asks, show) {
            Ok(shown) => self.ask(asks, &shown),
            Err(answer) => answer,
        };
        self.note(&answer, show);
        answer
    }

    fn note(&mut self, answer: &Answer, show: Show) {
        if *answer == Answer::Rejected && matches!(show, Show::Pin(_)) {
            self.judged_wrong.push(self.now);
        }
    }

    fn register(&mut self, show: Show, replaces: bool) {
        let is_silent = self.now.since(self.last_contact) >= WAIT;
        let until = self.last_contact.plus(WAIT);
        let methods = self.guard(Asks::Strongest).methods();
        let shown = match self.factor {
            Some(_) => self.expected_of_factor(show),
            None if self.lock.is_some() => self.expected_of_pin(show),
            None if self.tries.is_open() => Answer::Open,
            None => Answer::CodeRejected,
        };
        let expected = match shown {
            Answer::CodeRejected | Answer::Limited => shown,
            _ if is_silent && replaces => Answer::Passed,
            Answer::Passed if is_silent => Answer::Passed,
            Answer::Passed => Answer::Grace,
            Answer::Rejected => Answer::Rejected,
            _ => Answer::Kept(until, methods),
        };
        let answer = match self.compare(Asks::Strongest, show) {
            Ok(shown) => {
                // Silent and asked for: what was shown does not matter, but a wrong PIN has counted.
                if shown == Shown::Wrong {
                    self.judged_wrong.push(self.now);
                }
                self.claim(&shown, replaces)
            }
            Err(answer) => answer,
        };
        assert_eq!(answer, expected, "{show:?} {replaces}");
        if answer == Answer::Passed {
            // Another account has the number.
            let (now, accounts) = (self.now, self.accounts + 1);
            *self = Self { now, last_contact: now, accounts, ..Self::new() };
            self.tries.is_used = true;
        }
    }
}

fn runs(config: ProptestConfig) {
    let passed = TestRunner::new(config).run(&acts(), |acts| {
        let mut world = World::new();
        for act in acts {
            world.act(act);
        }
        Ok(())
    });
    passed.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn no_stranger_gets_past_a_pin_and_no_number_is_given_away() {
    let config = ProptestConfig::default();
    runs(ProptestConfig { cases: config.cases.max(2_000), ..config });
}

#[test]
#[ignore = "100,000 sequences take a minute; run it with `-- --ignored`"]
fn nor_in_a_hundred_thousand_sequences() {
    runs(ProptestConfig { cases: 100_000, ..ProptestConfig::default() });
}

#[test]
fn the_sequences_reach_what_they_are_for() {
    let mut world = World::new();
    for act in [
        Act::SetPin(0),
        Act::Register(Show::Nothing, true),
        Act::Register(Show::Pin(1), true),
        Act::Login { is_known: false, show: Show::Pin(0) },
        Act::Verify,
        Act::Wait(7 * 86_400 - 1),
        Act::Register(Show::Nothing, true),
        Act::Wait(1),
        Act::Register(Show::Nothing, false),
        Act::Register(Show::Nothing, true),
    ] {
        world.act(act);
    }
    assert_eq!((world.accounts, world.judged_wrong.len()), (2, 0));
    for act in [Act::Verify, Act::SetPin(2), Act::Register(Show::Pin(3), true), Act::Register(Show::Pin(2), false)] {
        world.act(act);
    }
    assert_eq!(world.accounts, 2, "an account that is in use has its time of grace");
    for act in [Act::Verify, Act::Wait(7 * 86_400), Act::Register(Show::Pin(2), false)] {
        world.act(act);
    }
    assert_eq!(world.accounts, 3);
}
