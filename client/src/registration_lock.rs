//! The PIN that protects the account's number.

use crate::client::Client;
use crate::error::Result;
use sotto_protocol::reauthentication::Reauthentication;
use sotto_protocol::registration_lock::{RegistrationLockState, SetRegistrationLock};

impl Client {
    /// Whether the number is protected by a PIN, and since when.
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn registration_lock(&self) -> Result<RegistrationLockState> {
        self.call(|rest| async move { rest.registration_lock().await }).await
    }

    /// Sets the PIN (4 to 20 digits), in the place of any other. From then on a new device needs it beside the code, unless the
    /// account has a second factor; and nobody registers the number anew without it for seven days after the last contact.
    /// The proof needs a code for [`Purpose::RegistrationLock`].
    ///
    /// [`Purpose::RegistrationLock`]: sotto_protocol::auth::Purpose::RegistrationLock
    ///
    /// # Errors
    /// As the REST calls; `validation_failed` for a PIN that is none or too simple.
    pub async fn set_registration_lock(&self, pin: &str, proof: Reauthentication) -> Result<()> {
        let request = SetRegistrationLock::new(pin, proof);
        let request = &request;
        self.call(|rest| async move { rest.set_registration_lock(request).await }).await
    }

    /// Removes the PIN, by the same proof.
    ///
    /// # Errors
    /// As the REST calls.
    pub async fn remove_registration_lock(&self, proof: &Reauthentication) -> Result<()> {
        self.call(|rest| async move { rest.remove_registration_lock(proof).await }).await
    }
}
