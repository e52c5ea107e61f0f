//! Proofs that a signed-in user gives again. The transaction of the change that needs them uses them up
//! (`sotto_schema::rows::reauthentication`); `sotto_schema::account_change` decides which ones are needed.

use std::net::IpAddr;

use sotto_protocol::Timestamp;
use sotto_protocol::auth::Purpose;
use sotto_protocol::problem::{ErrorCode, Problem};
use sotto_protocol::reauthentication::Reauthentication;
use sotto_schema::account_change::{Change, Held, Ruling, rule};
use sotto_schema::rows::reauthentication::{Proof, Proved};
use sotto_schema::rows::registration_lock::LockRow;
use sotto_schema::rows::sign_in::SignedIn;
use sotto_schema::second_factor::Guard;

use super::Identity;
use super::proofs::{Compared, Prover, Showing};
use super::second_factor::refusal;
use super::session::Caller;
use super::sign_in::waits;
use crate::error::ApiError;

impl Identity {
    /// Compares the proofs that the caller gives again. `Ok`: the code is right if one is there, and nothing is used up yet.
    /// The transaction that uses them up checks whether they are enough, and whether the code is one of the account's own
    /// number.
    ///
    /// # Errors
    /// 401 `code_rejected`, also for the right code of another purpose; 422; 429.
    pub(super) async fn proof(
        &self,
        caller: &Caller,
        request: &Reauthentication,
        change: Change,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<(Proof, &'static str), ApiError> {
        let prover = Prover::Device(caller.user_id, caller.device_id, address);
        let code = match (request.verification_id, &request.code) {
            (Some(id), Some(text)) => Some(self.compare_code(id, purpose_of(change), text, prover, now).await?),
            (None, None) => None,
            (None, Some(_)) => return Err(Problem::field("/verification_id", "missing").into()),
            (Some(_), None) => return Err(Problem::field("/code", "missing").into()),
        };
        let row = self.store.guards(caller.user_id).await?;
        let wait = self.undo_span();
        let asks = change.asks(wait, now);
        let lock = row.lock.as_ref().map(LockRow::standing);
        let guard = Guard::of(asks, row.factor.as_ref().map(|row| &row.factor), lock);
        let Reauthentication { totp, backup_code, pin, .. } = request;
        let showing = Showing { totp: totp.as_deref(), backup_code: backup_code.as_deref(), pin: pin.as_deref() };
        // A PIN without a code proves nothing: it is not worth a hash.
        let Compared { evidence, field } = match (guard, &code) {
            (Guard::Lock(_), None) => Compared::nothing("/pin"),
            _ => self.compare(&row, asks, showing, code.as_ref(), prover, now).await?,
        };
        // Nothing dearer is done for a request that shows too little.
        let factor_since = row.factor.as_ref().and_then(|row| row.factor.enabled_at);
        let held = Held { code: code.is_some(), shown: None };
        if let (true, Ruling::Missing(methods)) =
            (evidence.is_nothing(), rule(change, &guard, factor_since, held, wait, now))
        {
            return Err(refusal(SignedIn::SecondFactorRequired { methods }, field));
        }
        let Caller { user_id, device_id, .. } = *caller;
        let address = self.kept_address(address);
        Ok((Proof { change, user_id, device_id, code, evidence, wait, address, now }, field))
    }
}

/// What a code must have been asked for.
const fn purpose_of(change: Change) -> Purpose {
    match change {
        Change::EnableFactor | Change::DisableFactor | Change::RenewBackupCodes | Change::UndoFactor => {
            Purpose::SecondFactor
        }
        Change::SetPin | Change::RemovePin => Purpose::RegistrationLock,
        Change::ChangeContact => Purpose::PhoneChange,
        Change::LinkDevice => Purpose::DeviceLink,
        Change::RemoveDevice => Purpose::DeviceRemoval,
        Change::Recover => Purpose::Recovery,
        Change::TakeOver => Purpose::Registration,
        Change::Delete => Purpose::AccountDeletion,
        Change::Export => Purpose::Export,
    }
}

/// The answer to a proof that the store has judged. `field` is where the second factor or PIN stands.
pub(super) fn proved_or_refused(proved: Proved, field: &'static str) -> Result<(), ApiError> {
    let conflict = |detail| Err(Problem::new(ErrorCode::Conflict, detail).into());
    match proved {
        Proved::Done => Ok(()),
        Proved::NoSecondFactor => conflict("the account has no second factor, or none that is new enough for this"),
        Proved::OwnFactor => conflict("another device undoes a second factor than the one that enabled it; disable it"),
        Proved::Waits(until) => Err(waits(until)),
        Proved::Refused(answer) => Err(refusal(answer, field)),
    }
}
