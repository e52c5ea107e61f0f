//! What stands behind a right code (the second factor of an account, or the PIN of its registration lock) as state machines
//! without I/O: what may be shown, what it uses up, what is refused.
//!
//! Nothing here knows a secret. Whoever compares codes says what a text turned out to be ([`Shown`]), and these types
//! say what follows from it. The queries ask them under the account's lock and write what they have decided, so that what
//! holds for every sequence here holds for every sequence there.

use sotto_protocol::Timestamp;
use std::time::Duration;
use uuid::Uuid;

/// Wrong codes that finishing a set-up takes.
pub const MOST_ENABLING_TRIES: i64 = 5;

/// A request for a code from a text message, as its tries see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tries {
    /// What failed so far: wrong codes, and wrong second factors behind the right code.
    pub failed: i64,
    /// At most so many.
    pub most: i64,
    /// Whether the code has served.
    pub is_used: bool,
}

impl Tries {
    /// Whether a code may still be compared.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !self.is_used && self.failed < self.most
    }

    /// Counts a failure; so many are left.
    pub const fn fail(&mut self) -> i64 {
        self.failed += 1;
        self.most - self.failed
    }
}

/// What the texts of a request turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// There was none.
    Nothing,
    /// One that is not right.
    Wrong,
    /// The code of a time step that may be shown now.
    Step {
        /// The set-up whose secret it was compared with.
        factor: Uuid,
        /// The step.
        step: i64,
    },
    /// A backup code.
    BackupCode {
        /// The set-up that it belongs to.
        factor: Uuid,
        /// The code.
        id: Uuid,
    },
    /// The PIN of a registration lock.
    Pin {
        /// The lock that it was compared with.
        lock: Uuid,
    },
}

/// What a proof uses up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A time step, and every older one.
    Step(i64),
    /// A backup code.
    BackupCode(Uuid),
    /// The PIN of this registration lock, which serves again.
    Pin(Uuid),
}

/// What may be shown behind a right code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A code that is sent to the account's number.
    Code,
    /// A code of the authenticator app.
    Totp,
    /// A backup code.
    BackupCode,
    /// The PIN of the registration lock.
    Pin,
    /// A code that was sent to the account's present number.
    OldNumber,
}

impl Method {
    /// The method as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Totp => "totp",
            Self::BackupCode => "backup_code",
            Self::Pin => "pin",
            Self::OldNumber => "old_code",
        }
    }
}

/// Which guards of an account count for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// The second factor, where there is one: a known device proves itself, and needs no PIN.
    Factor,
    /// The strongest guard: the second factor, or without one the PIN of the registration lock.
    Strongest,
    /// The strongest guard, or the PIN that was there for as long as this span before a second factor that is younger than it.
    StrongestOrOlderPin {
        /// How long a new second factor can be undone.
        wait: Duration,
        /// The moment.
        now: Timestamp,
    },
    /// What guarded the account before its second factor was enabled: the PIN, if it was there for this span by then. A younger
    /// one may be of the same hand as the second factor.
    BeforeFactor {
        /// How long a new second factor can be undone.
        wait: Duration,
    },
}

/// A registration lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Another one with each PIN.
    pub id: Uuid,
    /// When the PIN was set.
    pub set_at: Timestamp,
}

/// What stands behind the right code of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard<'a> {
    /// Nothing.
    Open,
    /// A second factor.
    Factor(&'a Factor),
    /// A registration lock.
    Lock(Uuid),
    /// A new second factor, or the registration lock that was there before it.
    FactorOrLock(&'a Factor, Uuid),
}

impl<'a> Guard<'a> {
    /// Of an account with this second factor and this registration lock.
    #[must_use]
    pub fn of(asks: Asks, factor: Option<&'a Factor>, lock: Option<Lock>) -> Self {
        let enabled = factor.and_then(|factor| Some((factor, factor.enabled_at?)));
        match (enabled, lock, asks) {
            (None, _, Asks::Factor) | (None, None, _) => Self::Open,
            (None, Some(lock), _) => Self::Lock(lock.id),
            (Some((_, enabled_at)), lock, Asks::BeforeFactor { wait }) => {
                lock.filter(|lock| lock.set_at.plus(wait) <= enabled_at).map_or(Self::Open, |lock| Self::Lock(lock.id))
            }
            (Some((factor, enabled_at)), Some(lock), Asks::StrongestOrOlderPin { wait, now })
                if lock.set_at.plus(wait) <= enabled_at && enabled_at.plus(wait) > now =>
            {
                Self::FactorOrLock(factor, lock.id)
            }
            (Some((factor, _)), _, _) => Self::Factor(factor),
        }
    }

    /// What may be shown to it.
    #[must_use]
    pub fn methods(&self) -> Vec<Method> {
        let of_factor = |factor: &Factor| match factor.backup_codes.is_empty() {
            true => vec![Method::Totp],
            false => vec![Method::Totp, Method::BackupCode],
        };
        match self {
            Self::Open => Vec::new(),
            Self::Factor(factor) => of_factor(factor),
            Self::Lock(_) => vec![Method::Pin],
            Self::FactorOrLock(factor, _) => [of_factor(factor), vec![Method::Pin]].concat(),
        }
    }
}

/// What a request comes to that may need a second factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is nothing to show.
    NotNeeded,
    /// There is, and nothing was shown.
    Required,
    /// What was shown is not right, or was used before.
    Rejected,
    /// It is right, and uses this up.
    Passed(Use),
}

/// What an attempt to finish a set-up comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finishing {
    /// There is nothing to finish: none was begun, it has ended, or it was finished.
    Nothing,
    /// The code is not right; so many tries are left.
    Rejected {
        /// With none left the set-up must be begun anew.
        attempts_left: i64,
    },
    /// It is enabled, and this step is used up.
    Enabled {
        /// The step.
        step: i64,
    },
}

/// A second factor that is being set up or enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Factor {
    /// The set-up.
    pub id: Uuid,
    /// Wrong codes while it was being set up.
    pub tries: i64,
    /// The newest time step that was used.
    pub last_step: i64,
    /// Since when it is enabled.
    pub enabled_at: Option<Timestamp>,
    /// Until when the set-up can be finished.
    pub expires_at: Timestamp,
    /// Backup codes that were not used.
    pub backup_codes: Vec<Uuid>,
}

impl Factor {
    /// A set-up that begins.
    #[must_use]
    pub const fn begun(id: Uuid, expires_at: Timestamp) -> Self {
        Self { id, tries: 0, last_step: 0, enabled_at: None, expires_at, backup_codes: Vec::new() }
    }

    /// Whether sign-in asks for it.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        self.enabled_at.is_some()
    }

    /// Whether the set-up can be finished.
    #[must_use]
    pub fn is_pending(&self, now: Timestamp) -> bool {
        !self.is_enabled() && self.expires_at > now && self.tries < MOST_ENABLING_TRIES
    }

    /// Finishes the set-up by a code, with these backup codes.
    pub fn enable(&mut self, shown: &Shown, backup_codes: Vec<Uuid>, now: Timestamp) -> Finishing {
        if !self.is_pending(now) {
            return Finishing::Nothing;
        }
        match *shown {
            Shown::Step { factor, step } if factor == self.id && step > self.last_step => {
                self.last_step = step;
                self.enabled_at = Some(now);
                self.backup_codes = backup_codes;
                Finishing::Enabled { step }
            }
            _ => {
                self.tries += 1;
                Finishing::Rejected { attempts_left: MOST_ENABLING_TRIES - self.tries }
            }
        }
    }

    fn proof(&self, shown: &Shown) -> Option<Use> {
        match *shown {
            Shown::Step { factor, step } if factor == self.id && step > self.last_step => Some(Use::Step(step)),
            Shown::BackupCode { factor, id } if factor == self.id && self.backup_codes.contains(&id) => {
                Some(Use::BackupCode(id))
            }
            _ => None,
        }
    }

    /// Uses up what a verdict has named.
    pub fn use_up(&mut self, used: Use) {
        match used {
            Use::Step(step) => self.last_step = self.last_step.max(step),
            Use::BackupCode(id) => self.backup_codes.retain(|code| *code != id),
            Use::Pin(_) => {}
        }
    }
}

/// What a request comes to when this stands behind its code. Uses nothing up.
#[must_use]
pub fn judge(guard: &Guard<'_>, shown: &Shown) -> Verdict {
    match (guard, shown) {
        (Guard::Open, _) => Verdict::NotNeeded,
        (_, Shown::Nothing) => Verdict::Required,
        (Guard::Lock(lock) | Guard::FactorOrLock(_, lock), Shown::Pin { lock: of }) if lock == of => {
            Verdict::Passed(Use::Pin(*lock))
        }
        (Guard::Factor(factor) | Guard::FactorOrLock(factor, _), shown) => {
            factor.proof(shown).map_or(Verdict::Rejected, Verdict::Passed)
        }
        (Guard::Lock(_), _) => Verdict::Rejected,
    }
}
