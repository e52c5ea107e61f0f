//! What a request for a code brings to the store, and what it gets back.

use super::sign_in::{Allowance, Reached};
use crate::asking::Budgets;
use sotto_protocol::auth::Purpose;
use sotto_protocol::{Timestamp, UserId, VerificationId};

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
    /// The signed-in account that sends the request.
    pub caller: Option<UserId>,
    /// Keyed hashes of the request's networks, the narrowest first; at most two.
    pub networks: Vec<Vec<u8>>,
    /// The budgets that it counts against, whether or not the code is sent.
    pub budgets: Budgets,
    /// Whether challenges are demanded.
    pub demands: bool,
    /// The challenge that was answered, as an allowance of one use.
    pub answer: Option<Allowance>,
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
    /// A challenge must be answered first; nothing was stored.
    Challenged {
        /// The part of the fullest budget that would be taken, in thousandths.
        share: u32,
    },
}
