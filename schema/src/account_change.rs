//! Changes of an account as a decision without I/O: which proofs each change needs, and which changes wait after a new second factor.
//!
//! The strongest guard of an account is its second factor, else the PIN of its registration lock, else a code that is sent to its
//! number. No change is allowed by anything weaker. A PIN has few digits, so a code goes with it.
//!
//! A second factor that somebody else enabled would lock the owner out. For a span after it was enabled it can be undone by what
//! guarded the account before, and nothing is allowed that would take the means for that away.

use crate::second_factor::{Asks, Guard, Method, Use};
use sotto_protocol::Timestamp;
use std::time::Duration;

/// What somebody wants to change about an account, or take from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// A second factor is enabled.
    EnableFactor,
    /// The second factor is turned off.
    DisableFactor,
    /// The backup codes are replaced.
    RenewBackupCodes,
    /// A new second factor is turned off by what guarded the account before.
    UndoFactor,
    /// A PIN is set or replaced.
    SetPin,
    /// The PIN is removed.
    RemovePin,
    /// The number is replaced. A right code of the new number is there already.
    ChangeContact,
    /// A new device is taken in by one that is signed in.
    LinkDevice,
    /// Another device of the account is removed.
    RemoveDevice,
    /// A new device takes the place of all others.
    Recover,
    /// A new account takes the number, and this one is deleted.
    TakeOver,
    /// The account is deleted.
    Delete,
    /// Everything that is known of the account is given out.
    Export,
}

impl Change {
    /// Every change.
    pub const ALL: [Self; 13] = [
        Self::EnableFactor,
        Self::DisableFactor,
        Self::RenewBackupCodes,
        Self::UndoFactor,
        Self::SetPin,
        Self::RemovePin,
        Self::ChangeContact,
        Self::LinkDevice,
        Self::RemoveDevice,
        Self::Recover,
        Self::TakeOver,
        Self::Delete,
        Self::Export,
    ];

    /// The guards that count for it.
    #[must_use]
    pub const fn asks(self, wait: Duration, now: Timestamp) -> Asks {
        match self {
            Self::UndoFactor => Asks::BeforeFactor { wait },
            Self::Recover => Asks::StrongestOrOlderPin { wait, now },
            _ => Asks::Strongest,
        }
    }

    /// Whether it would take away what a new second factor is undone with: other devices, the number, the PIN, the account.
    #[must_use]
    pub const fn waits(self) -> bool {
        matches!(
            self,
            Self::SetPin
                | Self::RemovePin
                | Self::ChangeContact
                | Self::RemoveDevice
                | Self::Recover
                | Self::TakeOver
                | Self::Delete
        )
    }
}

/// The right proofs that somebody has given with a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// A code that was sent to the account's number.
    pub code: bool,
    /// What was shown to the guard that counts, and is right.
    pub shown: Option<Use>,
}

/// What a change comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It is made.
    Allowed,
    /// These are missing.
    Missing(Vec<Method>),
    /// It can be made from this moment on.
    Waits(Timestamp),
    /// There is no second factor, or none that is new enough.
    NothingToChange,
}

/// Decides a change. `guard` is what counts for it ([`Change::asks`]); `factor_since` is when the second factor was enabled, if one
/// is; `wait` is how long a new second factor can be undone.
#[must_use]
pub fn rule(
    change: Change,
    guard: &Guard<'_>,
    factor_since: Option<Timestamp>,
    held: Held,
    wait: Duration,
    now: Timestamp,
) -> Ruling {
    let young_until = factor_since.map(|since| since.plus(wait)).filter(|until| *until > now);
    match change {
        Change::DisableFactor | Change::RenewBackupCodes if factor_since.is_none() => return Ruling::NothingToChange,
        Change::UndoFactor if young_until.is_none() => return Ruling::NothingToChange,
        _ => {}
    }
    let missing = missing(change, guard, held);
    if !missing.is_empty() {
        return Ruling::Missing(missing);
    }
    let by_older_pin = change == Change::Recover && matches!(held.shown, Some(Use::Pin(_)));
    match young_until {
        Some(until) if change.waits() && !by_older_pin => Ruling::Waits(until),
        _ => Ruling::Allowed,
    }
}

/// What is missing of the strongest guard.
fn missing(change: Change, guard: &Guard<'_>, held: Held) -> Vec<Method> {
    let needs_code = match guard {
        Guard::Open => true,
        // The code of the new number goes with the PIN: whoever has lost the old one needs it most.
        Guard::Lock(_) => change != Change::ChangeContact,
        Guard::Factor(_) | Guard::FactorOrLock(..) => false,
    };
    let mut missing = Vec::new();
    if needs_code && !held.code {
        // The new number's code is there; this is about the present one.
        missing.push(if change == Change::ChangeContact { Method::OldNumber } else { Method::Code });
    }
    if held.shown.is_none() {
        missing.extend(guard.methods());
    }
    missing
}

#[cfg(test)]
mod tests;
