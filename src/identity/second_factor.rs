//! The second factor of an account: set up, enabled, shown at sign-in, turned off.
//!
//! Codes are compared here, where the keys are; what follows from it is decided in the database, under the account's
//! lock (`sotto_schema::second_factor`). Nothing of an account's second factor is told before the right code from a text
//! message, unless a device that is signed in asks for its own account.
//!
//! Limits: five wrong ones for a code from a text message, and `limits.wrong_second_factors` per account and window, apart
//! for sign-in and for changes by signed-in devices; beside that each counts as a failed sign-in of number and address. All
//! are in the database and fail closed: without it the request is refused. A set-up takes five wrong codes and then ends.

use std::net::IpAddr;
use std::time::Duration;

use sotto_protocol::problem::{ErrorCode, FieldError, Problem};
use sotto_protocol::reauthentication::Reauthentication;
use sotto_protocol::second_factor::{BackupCodes, EnableTotp, SecondFactorState, TotpSetUp};
use sotto_protocol::{Timestamp, UserId};
use sotto_schema::account_change::Change;
use sotto_schema::rows::sealed::SealedColumn;
use sotto_schema::rows::second_factor::{BackupCodeRow, Enabling, FactorChange, FactorRow, NewFactor};
use sotto_schema::rows::sign_in::SignedIn;
use sotto_schema::second_factor::{Method, Shown};
use uuid::Uuid;

use super::Identity;
use super::backup_code::{self, BackupCode};
use super::qr;
use super::reauthentication::proved_or_refused;
use super::sealed::{self, Place};
use super::session::{Caller, unauthenticated};
use super::sign_in::{no_random, refused, rejected};
use super::totp::Secret;
use crate::error::ApiError;

/// How long a set-up that was begun can be finished.
pub const SET_UP_TTL: Duration = Duration::from_secs(600);

impl Identity {
    /// Whether the caller's account has a second factor.
    ///
    /// # Errors
    /// The database failed.
    pub async fn second_factor(&self, caller: &Caller, now: Timestamp) -> Result<SecondFactorState, ApiError> {
        let row = self.store.second_factor(caller.user_id).await?;
        let pending = row.as_ref().filter(|row| row.factor.is_pending(now)).map(|row| row.factor.expires_at);
        let enabled = row.as_ref().filter(|row| row.factor.is_enabled());
        Ok(SecondFactorState {
            enabled: enabled.is_some(),
            enabled_at: enabled.and_then(|row| row.factor.enabled_at),
            undo_until: enabled
                .and_then(|row| Some(row.factor.enabled_at?.plus(self.undo_span())))
                .filter(|until| *until > now),
            pending_until: pending,
            backup_codes_left: enabled
                .map_or(0, |row| u64::try_from(row.factor.backup_codes.len()).unwrap_or(u64::MAX)),
        })
    }

    /// Begins a set-up with a new secret, in the place of one that was not finished.
    ///
    /// # Errors
    /// 409 `conflict` when a second factor is enabled.
    pub async fn set_up_totp(&self, caller: &Caller, now: Timestamp) -> Result<TotpSetUp, ApiError> {
        let account = self.store.account(caller.user_id, caller.device_id).await?.ok_or_else(unauthenticated)?;
        let secret = Secret::random(&self.random).map_err(|_| no_random())?;
        let uri = secret.uri(&self.auth.totp_issuer, &account.phone);
        let qr = qr::draw(&uri)
            .ok_or_else(|| Problem::new(ErrorCode::Internal, "auth.totp_issuer is too long for a QR code"))?;
        let id = Uuid::new_v4();
        let place = Place { column: SealedColumn::TotpSecret, user_id: caller.user_id, row: id };
        let cell = sealed::seal(&self.keys, &self.random, &place, secret.expose()).map_err(|_| no_random())?;
        let expires_at = now.plus(SET_UP_TTL);
        let new = NewFactor { id, secret: cell, expires_at };
        if !self.store.begin_second_factor(caller.user_id, new, now).await? {
            return Err(Problem::new(ErrorCode::Conflict, "a second factor is enabled; disable it first").into());
        }
        Ok(TotpSetUp { secret: secret.base32(), uri, qr_svg: qr.svg, qr_png: qr.png, expires_at })
    }

    /// Finishes a set-up by a code of the new secret, and gives the backup codes, if what guards the account so far is shown.
    ///
    /// # Errors
    /// 409 `conflict` when there is nothing to finish; 401 `code_rejected` and `second_factor_required`; 429.
    pub async fn enable_totp(
        &self,
        caller: &Caller,
        request: EnableTotp,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<BackupCodes, ApiError> {
        let (totp, request) = request.parts();
        let row = self.store.second_factor(caller.user_id).await?;
        let row = row.filter(|row| row.factor.is_pending(now)).ok_or_else(nothing_to_enable)?;
        let (proof, field) = self.proof(caller, &request, Change::EnableFactor, address, now).await?;
        let shown = self.shown_totp(&row, &totp, now)?;
        let (codes, rows) = self.new_backup_codes(caller.user_id)?;
        match self.store.enable_second_factor(proof, shown, rows).await? {
            Enabling::Nothing => Err(nothing_to_enable()),
            Enabling::Rejected { attempts_left } => Err(not_accepted("/totp", attempts_left)),
            Enabling::Refused(proved) => proved_or_refused(proved, field).and_then(|()| Err(nothing_to_enable())),
            Enabling::Enabled => {
                self.end_links(caller.user_id, caller.device_id, now).await;
                tracing::info!(user_id = %caller.user_id, "a second factor was enabled");
                Ok(codes)
            }
        }
    }

    /// Turns the second factor off.
    ///
    /// # Errors
    /// 401 `code_rejected` and `second_factor_required` as at sign-in; 409 `conflict` when there is none; 429.
    pub async fn disable_totp(
        &self,
        caller: &Caller,
        request: &Reauthentication,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let (proof, field) = self.proof(caller, request, Change::DisableFactor, address, now).await?;
        proved_or_refused(self.store.change_second_factor(proof, FactorChange::Disable).await?, field)?;
        self.end_links(caller.user_id, caller.device_id, now).await;
        tracing::info!(user_id = %caller.user_id, "a second factor was disabled");
        Ok(())
    }

    /// Turns a second factor off that another device enabled within `auth.second_factor_undo_hours`, by what guarded the account
    /// before: a code from a text message, with the PIN if that is older.
    ///
    /// # Errors
    /// As [`Identity::disable_totp`]; 409 `conflict` for the device that enabled it, and when it is too late.
    pub async fn undo_totp(
        &self,
        caller: &Caller,
        request: &Reauthentication,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let (proof, field) = self.proof(caller, request, Change::UndoFactor, address, now).await?;
        proved_or_refused(self.store.undo_second_factor(proof).await?, field)?;
        self.end_links(caller.user_id, caller.device_id, now).await;
        tracing::warn!(user_id = %caller.user_id, device_id = %caller.device_id, "a new second factor was undone");
        Ok(())
    }

    /// New backup codes in the place of all others.
    ///
    /// # Errors
    /// As [`Identity::disable_totp`].
    pub async fn renew_backup_codes(
        &self,
        caller: &Caller,
        request: &Reauthentication,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<BackupCodes, ApiError> {
        let (codes, rows) = self.new_backup_codes(caller.user_id)?;
        let (proof, field) = self.proof(caller, request, Change::RenewBackupCodes, address, now).await?;
        let change = FactorChange::NewBackupCodes(rows);
        proved_or_refused(self.store.change_second_factor(proof, change).await?, field)?;
        Ok(codes)
    }

    /// What the texts of a request turn out to be for an account with this enabled second factor.
    pub(super) fn shown(
        &self,
        row: &FactorRow,
        totp: Option<&str>,
        backup_code: Option<&str>,
        now: Timestamp,
    ) -> Result<Shown, ApiError> {
        match (totp, backup_code) {
            (Some(text), _) => self.shown_totp(row, text, now),
            (None, Some(text)) => self.shown_backup_code(row, text),
            (None, None) => Ok(Shown::Nothing),
        }
    }

    fn shown_totp(&self, row: &FactorRow, text: &str, now: Timestamp) -> Result<Shown, ApiError> {
        let factor = row.factor.id;
        let place = Place { column: SealedColumn::TotpSecret, user_id: row.user_id, row: factor };
        let opened = sealed::open(&self.keys, &place, &row.secret);
        let bytes = opened.map_err(|error| place.does_not_open(&row.secret, &error))?;
        let secret =
            Secret::from_bytes(&bytes).ok_or_else(|| place.does_not_open(&row.secret, &sealed::SealError::Forged))?;
        Ok(secret.step_of(text, now).map_or(Shown::Wrong, |step| Shown::Step { factor, step }))
    }

    /// Compares with every code, so that the time tells nothing about which one it is. One that does not open is logged,
    /// and hides no other one.
    fn shown_backup_code(&self, row: &FactorRow, text: &str) -> Result<Shown, ApiError> {
        let Some(code) = BackupCode::parse(text) else {
            return Ok(Shown::Wrong);
        };
        let (mut found, mut failed) = (None, None);
        for stored in &row.backup_codes {
            let place = Place { column: SealedColumn::BackupCodeHash, user_id: row.user_id, row: stored.id };
            match sealed::open(&self.keys, &place, &stored.hash) {
                Ok(hash) if code.matches(&stored.salt, &hash) => found = Some(stored.id),
                Ok(_) => {}
                Err(error) => failed = Some(place.does_not_open(&stored.hash, &error)),
            }
        }
        match (found, failed) {
            (Some(id), _) => Ok(Shown::BackupCode { factor: row.factor.id, id }),
            (None, Some(failed)) => Err(failed),
            (None, None) => Ok(Shown::Wrong),
        }
    }

    fn new_backup_codes(&self, user_id: UserId) -> Result<(BackupCodes, Vec<BackupCodeRow>), ApiError> {
        let mut backup_codes = Vec::with_capacity(backup_code::COUNT);
        let mut rows = Vec::with_capacity(backup_code::COUNT);
        for _ in 0..backup_code::COUNT {
            let code = BackupCode::random(&self.random).map_err(|_| no_random())?;
            let salt = BackupCode::salt(&self.random).map_err(|_| no_random())?;
            let id = Uuid::new_v4();
            let place = Place { column: SealedColumn::BackupCodeHash, user_id, row: id };
            let hash = sealed::seal(&self.keys, &self.random, &place, &code.hash(&salt)).map_err(|_| no_random())?;
            rows.push(BackupCodeRow { id, salt: salt.to_vec(), hash });
            backup_codes.push(code.expose());
        }
        Ok((BackupCodes { backup_codes }, rows))
    }
}

/// Where in a request the second factor stands that counts. (A PIN stands at `/pin`.)
pub(super) const fn field_of(totp: Option<&str>) -> &'static str {
    if totp.is_some() { "/totp" } else { "/backup_code" }
}

/// The answer to a sign-in, or a proof like one, that did not succeed. `field` is where the second factor stands.
pub(super) fn refusal(answer: SignedIn, field: &'static str) -> ApiError {
    match answer {
        SignedIn::Rejected { attempts_left } => rejected(attempts_left),
        SignedIn::SecondFactorRejected { attempts_left } => not_accepted(field, attempts_left),
        SignedIn::SecondFactorRequired { methods } => {
            let detail = "the code is right; show one of the methods too, in the same request";
            let methods: Vec<_> = methods.into_iter().map(Method::as_str).collect();
            Problem::new(ErrorCode::SecondFactorRequired, detail).with("methods", methods).into()
        }
        SignedIn::Limited(reached) => ApiError::limited(&reached),
        SignedIn::Refused(refusal) => refused(refusal),
        // Callers have dealt with it.
        SignedIn::Done { .. } => rejected(0),
    }
}

/// 401: the code from the text message was right, or is not asked for, and the second factor is not.
fn not_accepted(field: &'static str, attempts_left: i64) -> ApiError {
    let detail = match field {
        "/pin" => "the PIN is wrong",
        _ => "the second factor is wrong, too old, or was used before",
    };
    let mut problem = Problem::new(ErrorCode::CodeRejected, detail).with("attempts_left", attempts_left);
    problem.errors = vec![FieldError::at(field, "not_accepted")];
    problem.into()
}

fn nothing_to_enable() -> ApiError {
    Problem::new(ErrorCode::Conflict, "no set-up is waiting to be finished; begin one").into()
}

#[cfg(test)]
mod tests;
