//! The number of an account, and its change by a device of it.

use std::net::IpAddr;

use sotto_protocol::Timestamp;
use sotto_protocol::auth::{ChangePhone, MeUser, Purpose};
use sotto_protocol::problem::{ErrorCode, FieldError, Problem};
use sotto_schema::account_change::Change;
use sotto_schema::rows::number::NumberChange;
use sotto_schema::rows::sign_in::SignedIn;

use super::Identity;
use super::proofs::{Prover, Showing};
use super::second_factor::refusal;
use super::session::{Caller, unauthenticated};
use crate::error::ApiError;

impl Identity {
    /// Gives the caller's account the number that the code was sent to; devices, conversations and keys stay. Needs the second
    /// factor where there is one, else the PIN of the registration lock where there is one, else a code of the present number.
    ///
    /// # Errors
    /// 401 `code_rejected` and `second_factor_required`; 409 `conflict` when the number has an account, told only to whoever has
    /// shown everything else; 422; 429; 503.
    pub async fn change_phone(
        &self,
        caller: &Caller,
        request: ChangePhone,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<MeUser, ApiError> {
        let old = match (request.old_verification_id, &request.old_code) {
            (Some(id), Some(code)) => Some((id, code)),
            (None, None) => None,
            (None, Some(_)) => return Err(Problem::field("/old_verification_id", "missing").into()),
            (Some(_), None) => return Err(Problem::field("/old_code", "missing").into()),
        };
        let (purpose, prover) = (Purpose::PhoneChange, Prover::Device(caller.user_id, caller.device_id, address));
        let code = self.compare_code(request.verification_id, purpose, &request.code, prover, now).await?;
        let old = match old {
            Some((id, text)) => {
                let old = self.compare_code(id, purpose, text, prover, now).await;
                Some(old.map_err(at_old_code)?)
            }
            None => None,
        };
        let row = self.store.guards(caller.user_id).await?;
        let showing = Showing {
            totp: request.totp.as_deref(),
            backup_code: request.backup_code.as_deref(),
            pin: request.pin.as_deref(),
        };
        let wait = self.undo_span();
        let asks = Change::ChangeContact.asks(wait, now);
        let compared = self.compare(&row, asks, showing, Some(&code), prover, now).await?;
        let change = NumberChange { code, user_id: caller.user_id, evidence: compared.evidence, old, wait };
        match self.store.change_number(change).await? {
            SignedIn::Done { told, .. } => {
                tracing::info!(user_id = %caller.user_id, device_id = %caller.device_id, "a number was changed");
                self.changes.devices_changed(caller.user_id, &told);
                self.end_links(caller.user_id, caller.device_id, now).await;
            }
            refused => return Err(refusal(refused, compared.field)),
        }
        let account = self.store.account(caller.user_id, caller.device_id).await?.ok_or_else(unauthenticated)?;
        Ok(MeUser { user_id: caller.user_id, phone: account.phone, created_at: account.user_created_at })
    }
}

/// The same answer; a code that is not accepted is said to be that of the present number.
fn at_old_code(error: ApiError) -> ApiError {
    let ApiError(mut problem) = error;
    if problem.code == ErrorCode::CodeRejected {
        problem.errors = vec![FieldError::at("/old_code", "not_accepted")];
    }
    ApiError(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_code_that_is_not_accepted_is_said_to_be_the_old_one() {
        let at = |problem: Problem| at_old_code(problem.into()).0.errors.len();
        assert_eq!(at(Problem::new(ErrorCode::CodeRejected, "wrong")), 1);
        assert_eq!(at(Problem::unavailable("the database is away")), 0);
        assert_eq!(at(Problem::rate_limited(1000)), 0);
    }
}
