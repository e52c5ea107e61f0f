//! The registration lock: a PIN that keeps an account, and its number, from whoever has the number alone.
//!
//! A stolen or swapped SIM card gets every code. With a lock it does not open the account to a new device, and does not
//! register the number anew before the account's devices were silent for `auth.registration_lock_days`. Signed-in devices set
//! and remove it with the second factor, or without one with a fresh code and the PIN that there is.
//!
//! Limits: five wrong ones for a code from a text message, `limits.wrong_pins_per_day` for an account; in the database,
//! closed without it.

use std::net::IpAddr;

use sotto_protocol::Timestamp;
use sotto_protocol::problem::Problem;
use sotto_protocol::reauthentication::Reauthentication;
use sotto_protocol::registration_lock::{RegistrationLockState, SetRegistrationLock, check_pin};
use sotto_schema::account_change::Change;
use sotto_schema::rows::registration_lock::NewLock;
use sotto_schema::rows::sealed::SealedColumn;
use uuid::Uuid;

use super::pin::Pin;
use super::reauthentication::proved_or_refused;
use super::sealed::{self, Place};
use super::session::Caller;
use super::sign_in::no_random;
use super::{Identity, network};
use crate::error::ApiError;

impl Identity {
    /// Whether the caller's number is protected by a PIN.
    ///
    /// # Errors
    /// The database failed.
    pub async fn registration_lock(&self, caller: &Caller) -> Result<RegistrationLockState, ApiError> {
        let lock = self.store.registration_lock(caller.user_id).await?;
        Ok(RegistrationLockState { enabled: lock.is_some(), enabled_at: lock.map(|lock| lock.created_at) })
    }

    /// Sets the PIN, in the place of any other.
    ///
    /// # Errors
    /// 422 for what is no PIN, or too simple; 401 `code_rejected` and `second_factor_required` as at sign-in; 429; 503.
    pub async fn set_registration_lock(
        &self,
        caller: &Caller,
        request: SetRegistrationLock,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let (pin, request) = request.parts();
        check_pin("/pin", &pin)?;
        let pin = Pin::parse(&pin).ok_or_else(|| Problem::field("/pin", "not_a_pin"))?;
        // Before the work of a hash.
        let (proof, field) = self.proof(caller, &request, Change::SetPin, address, now).await?;
        let random = self.random.clone();
        let hash = self.hashing.run(caller.user_id, network::place(address), move || pin.hash(&random)).await?;
        let hash = hash.map_err(|error| Problem::unavailable(error.to_string()))?;
        let id = Uuid::new_v4();
        let place = Place { column: SealedColumn::PinHash, user_id: caller.user_id, row: id };
        let hash = sealed::seal(&self.keys, &self.random, &place, hash.as_bytes()).map_err(|_| no_random())?;
        proved_or_refused(self.store.change_registration_lock(proof, Some(NewLock { id, hash })).await?, field)?;
        self.end_links(caller.user_id, caller.device_id, now).await;
        tracing::info!(user_id = %caller.user_id, "a registration lock was set");
        Ok(())
    }

    /// Removes the PIN; without one nothing changes.
    ///
    /// # Errors
    /// 401 `code_rejected` and `second_factor_required` as at sign-in; 429.
    pub async fn remove_registration_lock(
        &self,
        caller: &Caller,
        request: &Reauthentication,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let (proof, field) = self.proof(caller, request, Change::RemovePin, address, now).await?;
        proved_or_refused(self.store.change_registration_lock(proof, None).await?, field)?;
        tracing::info!(user_id = %caller.user_id, "a registration lock was removed");
        Ok(())
    }
}
