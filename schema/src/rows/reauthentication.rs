//! What somebody who is signed in shows again before something that matters.

use super::sign_in::{Attempt, SignedIn};
use crate::second_factor::Shown;
use sotto_protocol::UserId;

/// A right code from a text message to the account's own number, and what was shown of its second factor.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The try with the code.
    pub attempt: Attempt,
    /// The account.
    pub user_id: UserId,
    /// What was shown.
    pub shown: Shown,
    /// Whether it is about a second factor: an account without one proves nothing then, and nothing is used up.
    pub needs_second_factor: bool,
}

/// What a proof is worth.
#[derive(Clone, Debug)]
pub enum Proved {
    /// It holds, and is used up.
    Done,
    /// It is about a second factor, and the account has none.
    NoSecondFactor,
    /// It was refused as a sign-in is.
    Refused(SignedIn),
}
