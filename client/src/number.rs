//! The number of the account, and its change.

use crate::client::Client;
use crate::error::Result;
use sotto_protocol::auth::{ChangePhone, MeUser};

impl Client {
    /// Gives the account another number: by a code that was sent there for [`Purpose::PhoneChange`], and beside that the second
    /// factor, or, where there is none, the PIN of the registration lock or a code that was sent to the present number.
    /// Devices, conversations and keys stay.
    ///
    /// [`Purpose::PhoneChange`]: sotto_protocol::auth::Purpose::PhoneChange
    ///
    /// # Errors
    /// As the REST calls. [`Error::needs_second_factor`](crate::Error::needs_second_factor): one of the methods in the problem
    /// is missing; repeat with it, the codes still serve.
    pub async fn change_phone(&self, request: &ChangePhone) -> Result<MeUser> {
        self.call(|rest| async move { rest.change_phone(request).await }).await
    }
}
