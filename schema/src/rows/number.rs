//! The change of an account's number, as the store takes it.

use super::proofs::{Evidence, RightCode};
use sotto_protocol::UserId;
use std::time::Duration;

/// A right code of the new number, and what is shown beside it.
#[derive(Clone, Debug)]
pub struct NumberChange {
    /// The right code of the new number.
    pub code: RightCode,
    /// The account.
    pub user_id: UserId,
    /// What is shown of second factor or PIN.
    pub evidence: Evidence,
    /// A right code of the present number.
    pub old: Option<RightCode>,
    /// How long a new second factor can be undone.
    pub wait: Duration,
}
