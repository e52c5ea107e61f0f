//! Keys of a device without a store: tests and load tools sign in with them and never decrypt.

use crate::crypto::account;
use crate::error::Result;
use sotto_protocol::keys::Keys;
use sotto_protocol::{Binary, LinkId, VerificationId};
use std::fmt;
use vodozemac::olm::Account;

/// A device's own keys, gone when dropped. Whoever wants to read messages takes [`crate::Client`].
pub struct DeviceKeys {
    account: Account,
}

impl DeviceKeys {
    /// New random keys.
    #[must_use]
    pub fn generate() -> Self {
        let mut account = Account::new();
        account.generate_fallback_key();
        Self { account }
    }

    /// Everything that signing in needs, with as many new one-time keys as wanted, at most 100.
    ///
    /// # Errors
    /// Not in practice: a key's number would have to be without bounds.
    pub fn sign_in_keys(&mut self, one_time_keys: usize) -> Result<Keys> {
        let keys = account::complete_keys(&mut self.account, one_time_keys);
        self.account.mark_keys_as_published();
        self.account.generate_fallback_key();
        keys
    }

    /// Only new one-time keys, for `PUT /v1/keys`.
    ///
    /// # Errors
    /// As [`DeviceKeys::sign_in_keys`].
    pub fn more(&mut self, one_time_keys: usize) -> Result<Keys> {
        let keys = self.sign_in_keys(one_time_keys)?;
        Ok(Keys { one_time_prekeys: keys.one_time_prekeys, ..Keys::default() })
    }

    /// Proves at a login that these are the keys of a known device.
    #[must_use]
    pub fn proof(&self, verification: VerificationId) -> Binary {
        account::sign_proof(&self.account, verification)
    }

    /// Proves that these are the keys of the device that shows a link's QR code.
    #[must_use]
    pub fn link_proof(&self, link: LinkId, challenge: &Binary) -> Binary {
        account::sign_link_proof(&self.account, link, challenge)
    }
}

impl fmt::Debug for DeviceKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DeviceKeys(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_is_complete_and_numbers_grow() {
        let mut device = DeviceKeys::generate();
        let first = device.sign_in_keys(3).unwrap();
        let second = device.sign_in_keys(3).unwrap();
        assert_eq!(first.identity_key, second.identity_key);
        assert!(first.signing_key.is_some() && first.suite.is_some());
        assert!(first.signed_prekey.as_ref().unwrap().key_id < second.signed_prekey.as_ref().unwrap().key_id);
        let last = first.one_time_prekeys.unwrap().last().unwrap().key_id;
        assert!(second.one_time_prekeys.unwrap().iter().all(|key| key.key_id > last));
        let more = device.more(2).unwrap();
        assert_eq!((more.one_time_prekeys.unwrap().len(), more.signed_prekey), (2, None));
    }
}
