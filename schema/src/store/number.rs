//! The number of an account: changed by its devices, or recovered with.

use crate::rows::number::NumberChange;
use crate::rows::proofs::{Evidence, RightCode};
use crate::rows::sign_in::{NewSession, Recovered, SignedIn, SigningDevice};
use std::time::Duration;

super::facade! {
    /// Gives an account another number, if what was shown allows it.
    write fn change_number(change: NumberChange) -> SignedIn = number::change;
    /// Signs a new device in and removes all others, after the right code and what stands behind it.
    write fn recover(code: RightCode, evidence: Evidence, wait: Duration, device: SigningDevice, session: NewSession) -> Recovered = recovery::recover;
}
