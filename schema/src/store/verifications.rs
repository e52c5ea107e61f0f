//! Requests for codes.

use crate::rows::verifications::{NewVerification, VerificationStarted};
use sotto_protocol::Timestamp;

super::facade! {
    /// Stores a request for a code, if the limits allow.
    write fn start_verification(new: NewVerification, now: Timestamp) -> VerificationStarted = verifications::start;
}
