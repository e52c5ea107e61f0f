//! Proofs that somebody gives: codes from text messages, and second factors or PINs behind them.
//!
//! A proof passes two gates in the database before anything depends on it. [`RightCode`] exists only after a code was compared
//! under the lock of its verification and of the counters that limit guesses. [`FactorTry`] exists only after a try was taken
//! from those counters. Both are made by the store alone, so no caller can compare first and count later.

use super::sign_in::{Allowance, Reached};
use crate::second_factor::Shown;
use sotto_protocol::auth::Purpose;
use sotto_protocol::{Timestamp, UserId, VerificationId};

/// A code that somebody presents for a verification.
#[derive(Clone, Debug)]
pub struct CodeGuess {
    /// The verification.
    pub verification_id: VerificationId,
    /// What the code must have been asked for.
    pub purpose: Purpose,
    /// Keyed hashes of the presented text, one for each key that the stored hash may have been made with.
    pub hashes: Vec<Vec<u8>>,
    /// What a wrong code counts against. When one of these is reached the code is not compared.
    pub counted: Vec<Allowance>,
    /// Tries of a verification.
    pub most_tries: i64,
    /// The address that the trail shows.
    pub address: Option<String>,
    /// Keyed hashes of its networks, which a successful sign-in stores.
    pub networks: Vec<Vec<u8>>,
    /// The account whose number the code must have been sent to, where only that counts.
    pub of: Option<UserId>,
    /// The moment.
    pub now: Timestamp,
}

/// What became of a presented code.
#[derive(Clone, Debug)]
pub enum CodeCompared {
    /// It is right, and not used up.
    Right(RightCode),
    /// It is wrong, or there is no such verification. That took a try.
    Wrong {
        /// Tries left of this verification.
        attempts_left: i64,
    },
    /// A limit is reached. The code was not compared, and took a try all the same.
    Limited(Reached),
}

/// A right code, not used up yet. Only the comparison in the database makes one.
#[derive(Clone, Debug)]
pub struct RightCode {
    pub(crate) verification_id: VerificationId,
    pub(crate) phone: String,
    pub(crate) most_tries: i64,
    pub(crate) address: Option<String>,
    pub(crate) networks: Vec<Vec<u8>>,
    pub(crate) now: Timestamp,
}

impl RightCode {
    /// The number that it was sent to.
    #[must_use]
    pub fn phone(&self) -> &str {
        &self.phone
    }

    /// When it was compared.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.now
    }
}

/// A second factor or PIN that somebody is about to show.
#[derive(Clone, Debug)]
pub struct FactorGuess {
    /// The right code that it stands behind, if there is one.
    pub code: Option<RightCode>,
    /// What a wrong one counts against.
    pub counted: Vec<Allowance>,
    /// The moment.
    pub now: Timestamp,
}

/// Whether a second factor or PIN may be compared.
#[derive(Clone, Debug)]
pub enum FactorAdmitted {
    /// It may: the try is counted already.
    Try(FactorTry),
    /// The verification was used up meanwhile.
    Rejected,
    /// A limit is reached. Nothing may be compared; the verification lost a try all the same.
    Limited(Reached),
}

/// A counted try to show a second factor or PIN. Given back when what was shown is right.
#[derive(Clone, Debug)]
pub struct FactorTry {
    pub(crate) counted: Vec<Allowance>,
    pub(crate) taken_at: Timestamp,
}

/// What a request shows of a second factor or PIN, with the try that was taken for it.
#[derive(Clone, Debug)]
pub struct Evidence {
    pub(crate) shown: Shown,
    pub(crate) taken: Option<FactorTry>,
}

impl Evidence {
    /// Whether nothing is shown.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.taken.is_none()
    }

    /// Nothing is shown.
    pub const NOTHING: Self = Self { shown: Shown::Nothing, taken: None };

    /// This is shown, compared within this try.
    #[must_use]
    pub const fn new(shown: Shown, taken: FactorTry) -> Self {
        Self { shown, taken: Some(taken) }
    }
}
