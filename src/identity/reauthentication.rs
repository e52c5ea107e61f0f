//! Proofs that somebody who is signed in gives again: a fresh code from a text message, and the second factor if there is
//! one. What they are for takes them in its own transaction (`sotto_schema::rows::reauthentication`).

use std::net::IpAddr;

use sotto_protocol::Timestamp;
use sotto_protocol::auth::Purpose;
use sotto_protocol::problem::{ErrorCode, Problem};
use sotto_protocol::reauthentication::Reauthentication;
use sotto_schema::rows::reauthentication::{Proof, Proved};
use sotto_schema::second_factor::Asks;

use super::Identity;
use super::guard::{Compared, Counts, Showing};
use super::second_factor::{field_of, refusal};
use super::session::Caller;
use crate::error::ApiError;

impl Identity {
    /// Compares what the caller shows again. `Ok`: the code is right, and nothing is used up yet. Whether it is one of the
    /// account's own number is seen where it is used up.
    ///
    /// # Errors
    /// 401 `code_rejected`, also for the right code of another purpose; 429.
    pub(super) async fn proof(
        &self,
        caller: &Caller,
        request: &Reauthentication,
        purpose: Purpose,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<Proof, ApiError> {
        let mut attempt = self.check_code(request.verification_id, purpose, &request.code, address, now).await?;
        let row = self.store.guards(caller.user_id).await?;
        let (totp, backup_code) = (request.totp.as_deref(), request.backup_code.as_deref());
        let showing = Showing { totp, backup_code, pin: None };
        let Compared { shown, .. } = self.compare(&row, Asks::Factor, showing, Counts::SignedIn, &mut attempt).await?;
        Ok(Proof { attempt, user_id: caller.user_id, shown, needs_second_factor: false })
    }
}

/// The answer to a proof that the store has judged.
pub(super) fn proved_or_refused(proved: Proved, request: &Reauthentication) -> Result<(), ApiError> {
    match proved {
        Proved::Done => Ok(()),
        Proved::NoSecondFactor => Err(Problem::new(ErrorCode::Conflict, "the account has no second factor").into()),
        Proved::Refused(answer) => Err(refusal(answer, field_of(request.totp.as_deref()))),
    }
}
