//! The second factor of the account: setting it up, backup codes, turning it off.

use crate::client::Client;
use crate::error::Result;
use sotto_protocol::reauthentication::Reauthentication;
use sotto_protocol::second_factor::{BackupCodes, SecondFactorState, TotpSetUp};

impl Client {
    /// Whether sign-in asks for a second factor, and how many backup codes are left.
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn second_factor(&self) -> Result<SecondFactorState> {
        self.call(|rest| async move { rest.second_factor().await }).await
    }

    /// Begins to set a second factor up. Show the QR code, or open the URI on the same device; nothing is asked for at
    /// sign-in before [`Client::enable_totp`].
    ///
    /// # Errors
    /// As the REST calls; `conflict` when one is enabled.
    pub async fn set_up_totp(&self) -> Result<TotpSetUp> {
        self.call(|rest| async move { rest.set_up_totp().await }).await
    }

    /// Finishes the set-up by the code that the app shows, and a proof of what guards the account so far: a code for
    /// [`Purpose::SecondFactor`], with the PIN where there is one. The backup codes are told this once: let people keep them.
    ///
    /// [`Purpose::SecondFactor`]: sotto_protocol::auth::Purpose::SecondFactor
    ///
    /// # Errors
    /// As the REST calls; `code_rejected` with the tries that are left. After an unknown outcome
    /// [`Client::second_factor`] tells whether it is enabled, and [`Client::renew_backup_codes`] gives codes.
    pub async fn enable_totp(&self, totp: &str, proof: &Reauthentication) -> Result<BackupCodes> {
        self.call(|rest| async move { rest.enable_totp(totp, proof.clone()).await }).await
    }

    /// Turns a second factor off that another device has enabled within a day, by the same proof as enabling one.
    ///
    /// # Errors
    /// As the REST calls; `conflict` when it is too late, and for the device that enabled it.
    pub async fn undo_totp(&self, proof: &Reauthentication) -> Result<()> {
        self.call(|rest| async move { rest.undo_totp(proof).await }).await
    }

    /// Turns the second factor off. The proof is a code of it, or a backup code.
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn disable_totp(&self, proof: &Reauthentication) -> Result<()> {
        self.call(|rest| async move { rest.disable_totp(proof).await }).await
    }

    /// New backup codes in the place of all others, by the same proof.
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn renew_backup_codes(&self, proof: &Reauthentication) -> Result<BackupCodes> {
        self.call(|rest| async move { rest.renew_backup_codes(proof).await }).await
    }
}
