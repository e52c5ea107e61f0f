//! The number of an account as a decision without I/O: who gets it, and when.
//!
//! A number in use belongs to its account, whose owner signs in. It is given to a new account, and the old account is
//! deleted, only if the request shows the strongest guard of the old account, or asks for it after none of its devices was
//! heard of for a while, because numbers are given to other people sooner or later. An account that was heard of lately is
//! notified first and has a grace period.

use crate::second_factor::{Method, Verdict};
use sotto_protocol::Timestamp;
use std::time::Duration;

/// An account whose number somebody wants to register, with the right code for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What the shown guard is worth.
    pub verdict: Verdict,
    /// What may be shown.
    pub methods: Vec<Method>,
    /// When one of its devices was heard of last.
    pub last_contact: Timestamp,
    /// Until when a new second factor can be undone, which keeps the number where it is.
    pub young_until: Option<Timestamp>,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The number is the account's. Nothing is used up.
    Kept {
        /// From when it can be had by asking for it, if none of the account's devices is heard of until then.
        until: Timestamp,
        /// What frees it before.
        methods: Vec<Method>,
    },
    /// What was shown is not right.
    Rejected,
    /// The account is to be deleted after its time of grace; its devices are told, and any of them can cancel.
    Grace,
    /// The number is free for who asks, and the account that had it is to be deleted.
    Free,
}

impl Standing {
    /// Decides, `wait` being how long the account keeps its number after the last contact. `replaces`: whether the account is
    /// to be deleted then, in so many words.
    #[must_use]
    pub fn claim(&self, replaces: bool, wait: Duration, now: Timestamp) -> Claim {
        let until = self.last_contact.plus(wait);
        let is_silent = until <= now;
        match (self.verdict, self.young_until) {
            _ if replaces && is_silent => Claim::Free,
            (Verdict::Rejected, _) => Claim::Rejected,
            (Verdict::Passed(_), None) if is_silent => Claim::Free,
            (Verdict::Passed(_), None) => Claim::Grace,
            (Verdict::Passed(_), Some(young_until)) => {
                Claim::Kept { until: until.max(young_until), methods: self.methods.clone() }
            }
            (Verdict::Required | Verdict::NotNeeded, _) => Claim::Kept { until, methods: self.methods.clone() },
        }
    }
}

#[cfg(test)]
mod tests;
