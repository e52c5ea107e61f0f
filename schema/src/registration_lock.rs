//! The registration lock of an account as a decision without I/O: who gets the number of an account that is there.
//!
//! An account that a code alone opens is signed in to. One with a lock or a second factor keeps its number from whoever has
//! the number alone, until none of its devices was heard of for a while: numbers are given to other people sooner or later.

use crate::second_factor::Shown;
use sotto_protocol::Timestamp;
use std::time::Duration;
use uuid::Uuid;

/// An account whose number somebody wants to register, with the right code for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether sign-in asks for a second factor.
    pub has_second_factor: bool,
    /// Its registration lock; another one with each PIN.
    pub lock: Option<Uuid>,
    /// When one of its devices was heard of last.
    pub last_contact: Timestamp,
}

/// What comes of it. Nothing is used up but by `Free`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A code alone opens the account: sign in.
    Open,
    /// The number is kept for the account until then, and longer if one of its devices is heard of.
    Kept {
        /// The earliest moment at which it is free.
        until: Timestamp,
        /// Whether a PIN frees it at once.
        takes_pin: bool,
    },
    /// The PIN is not right.
    Rejected,
    /// The number is free for whoever asks, and the account that had it is to be deleted.
    Free,
}

impl Standing {
    /// Decides, `wait` being how long the account keeps its number after the last contact.
    #[must_use]
    pub fn claim(&self, shown: &Shown, wait: Duration, now: Timestamp) -> Claim {
        if self.lock.is_none() && !self.has_second_factor {
            return Claim::Open;
        }
        let until = self.last_contact.plus(wait);
        match (self.lock, shown) {
            _ if until <= now => Claim::Free,
            (Some(lock), Shown::Pin { lock: of }) if *of == lock => Claim::Free,
            (None, _) | (Some(_), Shown::Nothing) => Claim::Kept { until, takes_pin: self.lock.is_some() },
            (Some(_), _) => Claim::Rejected,
        }
    }
}

#[cfg(test)]
mod tests;
