//! What a user does about the account itself: second factor, registration lock, number, recovery, deletion, past.

use super::{Rest, nothing, parse, path};
use crate::error::Result;
use reqwest::Method;
use reqwest::header::HeaderMap;
use sotto_protocol::account::AccountDeletion;
use sotto_protocol::auth::{ChangePhone, MeUser, RecoverRequest, Tokens};
use sotto_protocol::conversation::Page;
use sotto_protocol::export::Export;
use sotto_protocol::logins::Login;
use sotto_protocol::reauthentication::Reauthentication;
use sotto_protocol::registration_lock::{RegistrationLockState, SetRegistrationLock};
use sotto_protocol::second_factor::{BackupCodes, EnableTotp, SecondFactorState, TotpSetUp};
use sotto_protocol::text::percent_encode;
use sotto_protocol::trail::TrailPage;

impl Rest {
    /// `GET /v1/auth/totp`: whether sign-in asks for a second factor.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn second_factor(&self) -> Result<SecondFactorState> {
        self.get("/v1/auth/totp").await
    }

    /// `POST /v1/auth/totp`: begins to set a second factor up.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn set_up_totp(&self) -> Result<TotpSetUp> {
        parse(&self.send(Method::POST, "/v1/auth/totp", None::<&()>, HeaderMap::new()).await?)
    }

    /// `POST /v1/auth/totp/enable`: finishes the set-up by a code of the app and the proof of what guards the account so far; the
    /// backup codes are told this once.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn enable_totp(&self, totp: &str, proof: Reauthentication) -> Result<BackupCodes> {
        self.post("/v1/auth/totp/enable", &EnableTotp::new(totp, proof)).await
    }

    /// `POST /v1/auth/totp/undo`: turns off what another device has enabled lately.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn undo_totp(&self, proof: &Reauthentication) -> Result<()> {
        nothing(self.send(Method::POST, "/v1/auth/totp/undo", Some(proof), HeaderMap::new()).await?)
    }

    /// `POST /v1/auth/totp/disable`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn disable_totp(&self, proof: &Reauthentication) -> Result<()> {
        nothing(self.send(Method::POST, "/v1/auth/totp/disable", Some(proof), HeaderMap::new()).await?)
    }

    /// `POST /v1/auth/backup_codes`: new ones in the place of all others.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn renew_backup_codes(&self, proof: &Reauthentication) -> Result<BackupCodes> {
        self.post("/v1/auth/backup_codes", proof).await
    }

    /// `POST /v1/auth/deletion`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn request_deletion(&self, proof: &Reauthentication) -> Result<AccountDeletion> {
        self.post("/v1/auth/deletion", proof).await
    }

    /// `GET /v1/auth/deletion`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn deletion(&self) -> Result<AccountDeletion> {
        self.get("/v1/auth/deletion").await
    }

    /// `DELETE /v1/auth/deletion`.
    ///
    /// # Errors
    /// As [`Rest::verify`]; `not_found` when none was asked for.
    pub async fn cancel_deletion(&self) -> Result<()> {
        nothing(self.send(Method::DELETE, "/v1/auth/deletion", None::<&()>, HeaderMap::new()).await?)
    }

    /// `POST /v1/auth/export`: what the server knows of the account; a few times a day.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn export(&self, proof: &Reauthentication) -> Result<Export> {
        self.post("/v1/auth/export", proof).await
    }

    /// `GET /v1/auth/trail`: entries above a number, oldest first, as the server tells them.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn trail(&self, after: i64, limit: usize) -> Result<TrailPage> {
        self.get(&format!("/v1/auth/trail?after={after}&limit={limit}")).await
    }

    /// `GET /v1/auth/logins`: tries to sign in, newest first.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn logins(&self, after: Option<&str>, limit: usize) -> Result<Page<Login>> {
        let after = after.map(|cursor| format!("after={}", percent_encode(cursor)));
        self.get(&path("/v1/auth/logins", &after.into_iter().chain([format!("limit={limit}")]).collect::<Vec<_>>()))
            .await
    }

    /// `GET /v1/auth/registration_lock`: whether the number is protected by a PIN.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn registration_lock(&self) -> Result<RegistrationLockState> {
        self.get("/v1/auth/registration_lock").await
    }

    /// `PUT /v1/auth/registration_lock`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn set_registration_lock(&self, request: &SetRegistrationLock) -> Result<()> {
        nothing(self.send(Method::PUT, "/v1/auth/registration_lock", Some(request), HeaderMap::new()).await?)
    }

    /// `POST /v1/auth/registration_lock/remove`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn remove_registration_lock(&self, proof: &Reauthentication) -> Result<()> {
        nothing(self.send(Method::POST, "/v1/auth/registration_lock/remove", Some(proof), HeaderMap::new()).await?)
    }

    /// `POST /v1/auth/phone`: gives the account the number that the code was sent to.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn change_phone(&self, request: &ChangePhone) -> Result<MeUser> {
        self.post("/v1/auth/phone", request).await
    }

    /// `POST /v1/auth/recover`: a new device in the place of all others.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn recover(&self, request: &RecoverRequest) -> Result<Tokens> {
        self.post("/v1/auth/recover", request).await
    }
}
