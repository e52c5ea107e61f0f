//! The number of an account as a decision without I/O: who gets it, and when.
//!
//! A number in use is signed in to. It is given to a new account, and the one that had it deleted, only by whoever shows the PIN
//! of its registration lock, or asks for it when none of its devices was heard of for a while: numbers are given to other people
//! sooner or later. Nothing is deleted by a request that does not say so.

use crate::second_factor::Shown;
use sotto_protocol::Timestamp;
use std::time::Duration;
use uuid::Uuid;

/// An account whose number somebody wants to register, with the right code for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its registration lock; another one with each PIN.
    pub lock: Option<Uuid>,
    /// When one of its devices was heard of last.
    pub last_contact: Timestamp,
}

/// What comes of it. Nothing is used up but by `Free`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The number is the account's.
    Kept {
        /// From when it can be had by asking for it, if none of the account's devices is heard of until then.
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
    /// Decides, `wait` being how long the account keeps its number after the last contact. `replaces`: whether the account is
    /// to be deleted then, in so many words.
    #[must_use]
    pub fn claim(&self, shown: &Shown, replaces: bool, wait: Duration, now: Timestamp) -> Claim {
        let until = self.last_contact.plus(wait);
        match (self.lock, shown) {
            (Some(lock), Shown::Pin { lock: of }) if *of == lock => Claim::Free,
            _ if replaces && until <= now => Claim::Free,
            (None, _) | (Some(_), Shown::Nothing) => Claim::Kept { until, takes_pin: self.lock.is_some() },
            (Some(_), _) => Claim::Rejected,
        }
    }
}

#[cfg(test)]
mod tests;
