//! The change of an account's number, as the store takes it.

use super::sign_in::Attempt;
use crate::second_factor::Shown;
use sotto_protocol::{UserId, VerificationId};

/// A right code of the new number, and what was shown beside it.
#[derive(Clone, Debug)]
pub struct NumberChange {
    /// The try with the code of the new number.
    pub attempt: Attempt,
    /// The account.
    pub user_id: UserId,
    /// What was shown of second factor or PIN.
    pub shown: Shown,
    /// A right code of the present number, which is that number's, too.
    pub old: Option<(VerificationId, String)>,
}
