//! Sequences of changes by an owner and by an attacker who holds some of the proofs, against a witness that knows only the rules:
//! nothing weaker than the strongest guard changes a guard, removes a device, replaces or deletes an account; and while a second
//! factor is new, the owner can undo it. 2,000 sequences are made, or as many more as `PROPTEST_CASES` says; the ignored test makes
//! 100,000.

use super::*;
use crate::second_factor::{Factor, Lock, Shown, Verdict, judge};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use uuid::Uuid;

const BEGIN: Timestamp = Timestamp::from_millis(1_795_253_400_000);
const DAY: Duration = Duration::from_secs(86_400);

/// Right proofs that somebody can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Means {
    code: bool,
    factor: bool,
    pin: bool,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Wait(u64),
    Try { by_attacker: bool, change: Change, gives: Means },
}

fn means() -> impl Strategy<Value = Means> {
    any::<[bool; 3]>().prop_map(|[code, factor, pin]| Means { code, factor, pin })
}

fn acts() -> impl Strategy<Value = (Means, Vec<Act>)> {
    let act = prop_oneof![
        1 => (0..30_u64).prop_map(|hours| Act::Wait(hours * 3600)),
        6 => (any::<bool>(), prop::sample::select(Change::ALL.to_vec()), means())
            .prop_map(|(by_attacker, change, gives)| Act::Try { by_attacker, change, gives }),
    ];
    (means(), prop::collection::vec(act, 1..60))
}

/// An account, and who holds what of its guards.
struct World {
    now: Timestamp,
    factor: Option<Factor>,
    factor_is_attackers: bool,
    lock: Option<Lock>,
    pin_is_attackers: bool,
    attacker: Means,
    is_gone: bool,
    allowed: usize,
}

impl World {
    fn new(attacker: Means) -> Self {
        Self {
            now: BEGIN,
            factor: None,
            factor_is_attackers: false,
            lock: None,
            pin_is_attackers: false,
            attacker,
            is_gone: false,
            allowed: 0,
        }
    }

    /// What somebody can give of what he wants to give. Who has set a guard holds it.
    fn held(&self, by_attacker: bool, gives: Means) -> Means {
        let Means { code, factor, pin } = self.attacker;
        match by_attacker {
            true => Means {
                code: gives.code && code,
                factor: gives.factor && (factor || self.factor_is_attackers),
                pin: gives.pin && (pin || self.pin_is_attackers),
            },
            false => Means {
                code: gives.code,
                factor: gives.factor && !self.factor_is_attackers,
                pin: gives.pin && !self.pin_is_attackers,
            },
        }
    }

    fn since(&self) -> Option<Timestamp> {
        self.factor.as_ref().and_then(|factor| factor.enabled_at)
    }

    fn ruling(&self, change: Change, means: Means) -> Ruling {
        let guard = Guard::of(change.asks(DAY, self.now), self.factor.as_ref(), self.lock);
        // The factor is shown where the guard takes one, else the PIN, as a request that gives both.
        let shown = match (&self.factor, self.lock, guard) {
            (Some(factor), _, Guard::Factor(_) | Guard::FactorOrLock(..)) if means.factor => {
                Shown::Step { factor: factor.id, step: factor.last_step + 1 }
            }
            (_, Some(lock), Guard::Lock(_) | Guard::FactorOrLock(..)) if means.pin => Shown::Pin { lock: lock.id },
            _ => Shown::Nothing,
        };
        let shown = match judge(&guard, &shown) {
            Verdict::Passed(used) => Some(used),
            Verdict::NotNeeded | Verdict::Required => None,
            Verdict::Rejected => panic!("only right proofs are given"),
        };
        rule(change, &guard, self.since(), Held { code: means.code, shown }, DAY, self.now)
    }

    /// The rules in the words of `docs/security.md`.
    fn is_enough(&self, change: Change, means: Means) -> bool {
        let young = self.since().is_some_and(|since| self.now.since(since) < DAY);
        let older_pin = self.lock.zip(self.since()).is_some_and(|(lock, since)| lock.set_at.plus(DAY) <= since);
        match change {
            Change::UndoFactor => young && means.code && (!older_pin || means.pin),
            Change::Recover if young => older_pin && means.pin && !means.factor,
            Change::DisableFactor | Change::RenewBackupCodes if self.factor.is_none() => false,
            _ if young && change.waits() => false,
            _ if self.factor.is_some() => means.factor,
            Change::ChangeContact if self.lock.is_some() => means.pin,
            _ if self.lock.is_some() => means.pin && means.code,
            _ => means.code,
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Wait(seconds) => self.now = self.now.plus(Duration::from_secs(seconds)),
            Act::Try { by_attacker, change, gives } => {
                // There is one second factor at a time.
                if self.is_gone || (change == Change::EnableFactor && self.factor.is_some()) {
                    return;
                }
                let mut means = self.held(by_attacker, gives);
                if matches!(change, Change::Recover | Change::TakeOver) {
                    // Nobody gets that far without the right code.
                    if by_attacker && !self.attacker.code {
                        return;
                    }
                    means.code = true;
                }
                let ruling = self.ruling(change, means);
                assert_eq!(ruling == Ruling::Allowed, self.is_enough(change, means), "{act:?} {means:?}: {ruling:?}");
                if let Ruling::Waits(until) = ruling {
                    assert!(until > self.now && until <= self.now.plus(DAY));
                }
                if ruling == Ruling::Allowed {
                    self.allowed += 1;
                    self.apply(change, by_attacker);
                }
            }
        }
        self.owner_can_undo();
    }

    fn apply(&mut self, change: Change, by_attacker: bool) {
        match change {
            Change::EnableFactor => {
                let mut factor = Factor::begun(Uuid::new_v4(), self.now.plus(DAY));
                factor.enable(&Shown::Step { factor: factor.id, step: 1 }, Vec::new(), self.now);
                (self.factor, self.factor_is_attackers) = (Some(factor), by_attacker);
            }
            Change::DisableFactor | Change::UndoFactor => self.factor = None,
            Change::SetPin => {
                (self.lock, self.pin_is_attackers) = (Some(Lock { id: Uuid::new_v4(), set_at: self.now }), by_attacker);
                // Two changes of one moment have no order.
                self.now = self.now.plus(Duration::from_secs(1));
            }
            Change::RemovePin => self.lock = None,
            Change::TakeOver | Change::Delete => self.is_gone = true,
            _ => {}
        }
    }

    /// While the attacker's second factor is new, a code and the owner's older PIN undo it.
    fn owner_can_undo(&self) {
        let young = self.since().is_some_and(|since| self.now.since(since) < DAY);
        if young && self.factor_is_attackers && !self.pin_is_attackers {
            let owner = Means { code: true, factor: false, pin: true };
            assert_eq!(self.ruling(Change::UndoFactor, owner), Ruling::Allowed);
        }
    }
}

fn runs(config: ProptestConfig) {
    let passed = TestRunner::new(config).run(&acts(), |(attacker, acts)| {
        let mut world = World::new(attacker);
        for act in acts {
            world.act(act);
        }
        Ok(())
    });
    passed.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn nothing_weaker_than_the_strongest_guard_changes_an_account() {
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
    let all = Means { code: true, factor: true, pin: true };
    let mut world = World::new(Means { code: true, factor: false, pin: false });
    let by = |by_attacker, change| Act::Try { by_attacker, change, gives: all };
    for (act, allowed) in [
        (by(false, Change::SetPin), 1),
        (by(true, Change::EnableFactor), 1),
        (by(false, Change::EnableFactor), 2),
        (by(false, Change::RemoveDevice), 2),
        (by(false, Change::DisableFactor), 3),
        (by(false, Change::RemovePin), 4),
        (by(true, Change::EnableFactor), 5),
        (by(true, Change::RemoveDevice), 5),
        (by(true, Change::TakeOver), 5),
        (by(false, Change::UndoFactor), 6),
        (by(true, Change::EnableFactor), 7),
        (Act::Wait(86_400), 7),
        (by(false, Change::UndoFactor), 7),
        (by(true, Change::TakeOver), 8),
    ] {
        world.act(act);
        assert_eq!(world.allowed, allowed, "{act:?}");
    }
    assert!(world.is_gone);
}
