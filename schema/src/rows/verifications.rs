//! What a request for a code brings to the store, and what it gets back.

use super::sign_in::{Allowance, Reached};
use sotto_protocol::auth::Purpose;
use sotto_protocol::{Timestamp, VerificationId};

/// A request for a code.
#[derive(Clone, Debug)]
pub struct NewVerification {
    /// Its id.
    pub id: VerificationId,
    /// E.164.
    pub phone: String,
    /// What for.
    pub purpose: Purpose,
    /// Keyed hash of the code.
    pub code_hash: Vec<u8>,
    /// Stored instead when no code is sent, so that no text is right.
    pub no_code: Vec<u8>,
    /// When the code ends.
    pub expires_at: Timestamp,
    /// What it counts against.
    pub asking: Vec<Allowance>,
    /// What it counts against beside that if the code is sent; it is refused by these alike if it is not.
    pub sending: Vec<Allowance>,
}

/// What became of a request for a code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerificationStarted {
    /// It is stored. `send`: whether the code is to be sent.
    Started {
        /// Not for numbers without an account where one is needed.
        send: bool,
    },
    /// A limit is reached; nothing was stored.
    Limited(Reached),
}
