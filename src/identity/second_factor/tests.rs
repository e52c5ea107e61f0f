//! Sequences of everything that can be done about a second factor, against the state machines that the database asks.
//!
//! A witness stands beside them that knows only the rules: what was shown, when, and what had served before. Whatever is
//! let through must be right by the rules, and what is right by the rules must be let through. 2,000 sequences are made, or
//! as many more as `PROPTEST_CASES` says; the ignored test makes 100,000.

use super::super::totp;
use super::*;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use ring::rand::SystemRandom;
use sotto_schema::second_factor::{Asks, Factor, Finishing, Guard, Tries, Verdict, judge};
use std::collections::HashSet;

const BEGIN: Timestamp = Timestamp::from_millis(1_795_253_400_000);
const MOST_TRIES: i64 = 5;

/// What a request shows as its second factor.
#[derive(Clone, Debug)]
enum Show {
    Nothing,
    Garbage,
    /// The code of a step so far from the present one.
    Step(i64),
    /// The same of the secret before the last one.
    OldStep(i64),
    /// A text that was shown before, whatever became of it.
    Again(prop::sample::Index),
    /// One of all backup codes that there ever were.
    Backup(prop::sample::Index),
    /// One of the newest.
    FreshBackup(prop::sample::Index),
}

#[derive(Clone, Debug)]
enum Act {
    Wait(u64),
    SetUp,
    Enable(Show),
    /// Another code from a text message.
    Verify,
    Login {
        is_right: bool,
        show: Show,
    },
    /// Two sign-ins at two nodes: both compare before either is decided.
    Race(Show),
    Disable {
        is_right: bool,
        show: Show,
    },
    Renew {
        is_right: bool,
        show: Show,
    },
}

fn shows() -> impl Strategy<Value = Show> {
    prop_oneof![
        2 => Just(Show::Nothing),
        1 => Just(Show::Garbage),
        8 => (-3..=3_i64).prop_map(Show::Step),
        1 => (-1..=1_i64).prop_map(Show::OldStep),
        4 => any::<prop::sample::Index>().prop_map(Show::Again),
        2 => any::<prop::sample::Index>().prop_map(Show::Backup),
        3 => any::<prop::sample::Index>().prop_map(Show::FreshBackup),
    ]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let is_right = || prop::bool::weighted(0.8);
    let act = prop_oneof![
        4 => (0..90_u64).prop_map(Act::Wait),
        1 => (500..700_u64).prop_map(Act::Wait),
        2 => Just(Act::SetUp),
        3 => shows().prop_map(Act::Enable),
        3 => Just(Act::Verify),
        8 => (is_right(), shows()).prop_map(|(is_right, show)| Act::Login { is_right, show }),
        3 => shows().prop_map(Act::Race),
        1 => (is_right(), shows()).prop_map(|(is_right, show)| Act::Disable { is_right, show }),
        1 => (is_right(), shows()).prop_map(|(is_right, show)| Act::Renew { is_right, show }),
    ];
    prop::collection::vec(act, 1..60)
}

/// What a request with a code from a text message came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Passed,
    /// The code itself: nothing is told about a second factor.
    CodeRejected,
    Required,
    FactorRejected,
}

/// A text with what the server finds it to be.
#[derive(Clone, Debug)]
struct Compared {
    text: Option<String>,
    shown: Shown,
}

/// The account as the server has it, and the witness.
struct World {
    now: Timestamp,
    random: SystemRandom,
    factor: Option<Factor>,
    secret: Option<Secret>,
    /// Backup codes of the present set.
    codes: Vec<(Uuid, BackupCode)>,
    tries: Tries,
    // What the witness knows.
    old_secret: Option<Secret>,
    all_codes: Vec<BackupCode>,
    texts: Vec<String>,
    steps_used: HashSet<(String, i64)>,
    newest_used: i64,
    codes_used: HashSet<String>,
    sign_ins: u32,
    /// Of the present code from a text message: what failed, and whether it has served.
    fails: i64,
    has_served: bool,
}

impl World {
    fn new() -> Self {
        Self {
            now: BEGIN,
            random: SystemRandom::new(),
            factor: None,
            secret: None,
            codes: Vec::new(),
            tries: Tries { failed: 0, most: MOST_TRIES, is_used: false },
            old_secret: None,
            all_codes: Vec::new(),
            texts: Vec::new(),
            steps_used: HashSet::new(),
            newest_used: 0,
            codes_used: HashSet::new(),
            sign_ins: 0,
            fails: 0,
            has_served: false,
        }
    }

    fn is_enabled(&self) -> bool {
        self.factor.as_ref().is_some_and(Factor::is_enabled)
    }

    fn text(&self, show: &Show) -> Option<String> {
        let present = totp::step_at(self.now);
        let of = |secret: &Option<Secret>, away: i64| secret.as_ref().map(|secret| secret.code(present + away));
        let pick = |index: &prop::sample::Index, codes: Vec<&BackupCode>| {
            (!codes.is_empty()).then(|| codes[index.index(codes.len())].expose())
        };
        match show {
            Show::Nothing => None,
            Show::Garbage => Some("12345".to_owned()),
            Show::Step(away) => of(&self.secret, *away),
            Show::OldStep(away) => of(&self.old_secret, *away),
            Show::Again(index) => (!self.texts.is_empty()).then(|| self.texts[index.index(self.texts.len())].clone()),
            Show::Backup(index) => pick(index, self.all_codes.iter().collect()),
            Show::FreshBackup(index) => pick(index, self.codes.iter().map(|(_, code)| code).collect()),
        }
    }

    /// As `Identity::shown`, without the sealing.
    fn compare(&mut self, show: &Show) -> Compared {
        let text = self.text(show);
        let shown = match (&text, &self.factor, &self.secret) {
            (None, _, _) | (_, None, _) | (_, _, None) => Shown::Nothing,
            (Some(text), Some(factor), Some(secret)) => match BackupCode::parse(text) {
                Some(code) => {
                    let found = self.codes.iter().find(|(id, own)| *own == code && factor.backup_codes.contains(id));
                    found.map_or(Shown::Wrong, |(id, _)| Shown::BackupCode { factor: factor.id, id: *id })
                }
                None => {
                    secret.step_of(text, self.now).map_or(Shown::Wrong, |step| Shown::Step { factor: factor.id, step })
                }
            },
        };
        self.texts.extend(text.clone());
        Compared { text, shown }
    }

    /// As the query behind a sign-in: the attempt is begun, the code was compared, and the account's lock is held.
    fn ask(&mut self, is_right: bool, compared: &Compared) -> Answer {
        if !self.tries.is_open() {
            return Answer::CodeRejected;
        }
        if !is_right {
            self.tries.fail();
            self.fails += 1;
            return Answer::CodeRejected;
        }
        match judge(&Guard::of(Asks::Factor, self.factor.as_ref(), None), &compared.shown) {
            Verdict::NotNeeded => {
                self.tries.is_used = true;
                Answer::Passed
            }
            Verdict::Required => Answer::Required,
            Verdict::Rejected => {
                self.tries.fail();
                self.fails += 1;
                Answer::FactorRejected
            }
            Verdict::Passed(used) => {
                self.factor.as_mut().unwrap().use_up(used);
                self.tries.is_used = true;
                Answer::Passed
            }
        }
    }

    /// Whether a text is right by the rules.
    fn is_due(&self, text: &str) -> bool {
        if let Some(code) = BackupCode::parse(text) {
            return self.codes.iter().any(|(_, own)| *own == code) && !self.codes_used.contains(&code.expose());
        }
        self.step_due(text).is_some()
    }

    fn step_due(&self, text: &str) -> Option<i64> {
        let (secret, present) = (self.secret.as_ref()?, totp::step_at(self.now));
        [present, present - 1].into_iter().find(|step| secret.code(*step) == text && *step > self.newest_used)
    }

    /// Notes that a text has served; it must not have served before.
    fn served(&mut self, text: &str) {
        if let Some(code) = BackupCode::parse(text) {
            assert!(self.codes_used.insert(code.expose()), "a backup code has served twice");
            return;
        }
        let step = self.step_due(text).expect("a code of a step that is due");
        let secret = self.secret.as_ref().unwrap().base32();
        assert!(self.steps_used.insert((secret, step)), "a step has served twice");
        self.newest_used = step;
    }

    /// Asks, and judges the answer by the rules.
    fn prove(&mut self, is_right: bool, compared: &Compared) -> Answer {
        let was_open = !self.has_served && self.fails < MOST_TRIES;
        let (enabled, fails) = (self.is_enabled(), self.fails);
        let due = compared.text.as_ref().is_some_and(|text| self.is_due(text));
        let answer = self.ask(is_right, compared);
        let expected = match () {
            () if !was_open || !is_right => Answer::CodeRejected,
            () if !enabled => Answer::Passed,
            () if compared.text.is_none() => Answer::Required,
            () if due => Answer::Passed,
            () => Answer::FactorRejected,
        };
        assert_eq!(answer, expected, "{compared:?}");
        let costs = was_open && matches!(answer, Answer::CodeRejected | Answer::FactorRejected);
        assert_eq!(self.fails - fails, i64::from(costs), "only what failed takes a try, and all of it does");
        assert!(self.tries.failed <= MOST_TRIES);
        self.has_served |= answer == Answer::Passed;
        if answer == Answer::Passed && enabled {
            self.served(compared.text.as_ref().expect("nothing opens an account with a second factor"));
        }
        answer
    }

    /// Another code from a text message.
    fn verify(&mut self) {
        self.tries = Tries { failed: 0, most: MOST_TRIES, is_used: false };
        (self.fails, self.has_served) = (0, false);
    }

    fn new_codes(&mut self) -> Vec<Uuid> {
        self.codes =
            (0..backup_code::COUNT).map(|_| (Uuid::new_v4(), BackupCode::random(&self.random).unwrap())).collect();
        self.all_codes.extend(self.codes.iter().map(|(_, code)| code.clone()));
        self.codes.iter().map(|(id, _)| *id).collect()
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Wait(seconds) => self.now = self.now.plus(Duration::from_secs(*seconds)),
            Act::SetUp => {
                if !self.is_enabled() {
                    self.factor = Some(Factor::begun(Uuid::new_v4(), self.now.plus(SET_UP_TTL)));
                    self.old_secret = self.secret.replace(Secret::random(&self.random).unwrap());
                    (self.newest_used, self.codes) = (0, Vec::new());
                }
            }
            Act::Enable(show) => self.enable(show),
            Act::Verify => self.verify(),
            Act::Login { is_right, show } => {
                let compared = self.compare(show);
                if self.prove(*is_right, &compared) == Answer::Passed {
                    self.sign_ins += 1;
                }
            }
            Act::Race(show) => {
                let compared = self.compare(show);
                let passed = (0..2).filter(|_| {
                    self.verify();
                    self.prove(true, &compared) == Answer::Passed
                });
                let passed = passed.count();
                assert!(!self.is_enabled() || passed <= 1, "what proves somebody serves once");
            }
            Act::Disable { is_right, show } => {
                let compared = self.compare(show);
                if self.is_enabled() && self.prove(*is_right, &compared) == Answer::Passed {
                    (self.factor, self.codes) = (None, Vec::new());
                }
            }
            Act::Renew { is_right, show } => {
                let compared = self.compare(show);
                if self.is_enabled() && self.prove(*is_right, &compared) == Answer::Passed {
                    let ids = self.new_codes();
                    self.factor.as_mut().unwrap().backup_codes = ids;
                }
            }
        }
    }

    fn enable(&mut self, show: &Show) {
        let compared = self.compare(show);
        let Some(mut factor) = self.factor.take() else { return };
        let was_pending = factor.is_pending(self.now);
        let due = compared.text.as_ref().is_some_and(|text| self.step_due(text).is_some());
        let tries = factor.tries;
        let ids = if was_pending && due { self.new_codes() } else { Vec::new() };
        let enabling = factor.enable(&compared.shown, ids, self.now);
        match enabling {
            Finishing::Nothing => assert!(!was_pending),
            Finishing::Rejected { attempts_left } => {
                assert!(was_pending && !due);
                assert_eq!(attempts_left, 5 - tries - 1);
                assert!(!factor.is_enabled());
            }
            Finishing::Enabled { .. } => {
                assert!(was_pending && due);
                self.served(compared.text.as_ref().unwrap());
            }
        }
        self.factor = Some(factor);
    }
}

fn runs(config: ProptestConfig) {
    let passed = TestRunner::new(config).run(&acts(), |acts| {
        let mut world = World::new();
        for act in &acts {
            world.act(act);
        }
        Ok(())
    });
    passed.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn nothing_gets_past_and_nothing_serves_twice() {
    let config = ProptestConfig::default();
    runs(ProptestConfig { cases: config.cases.max(2_000), ..config });
}

#[test]
#[ignore = "100,000 sequences take a minute; run it with `-- --ignored`"]
fn nothing_gets_past_in_a_hundred_thousand_sequences() {
    runs(ProptestConfig { cases: 100_000, ..ProptestConfig::default() });
}

#[test]
fn the_sequences_reach_what_they_are_for() {
    let mut world = World::new();
    for act in [
        Act::SetUp,
        Act::Enable(Show::Step(-1)),
        Act::Login { is_right: true, show: Show::Nothing },
        Act::Login { is_right: true, show: Show::Step(1) },
        Act::Login { is_right: true, show: Show::Step(0) },
        Act::Verify,
        Act::Wait(30),
        Act::Race(Show::Step(0)),
    ] {
        world.act(&act);
    }
    assert_eq!((world.sign_ins, world.steps_used.len(), world.is_enabled()), (1, 3, true));
}
