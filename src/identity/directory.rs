//! The key directory and finding people by number.

use std::collections::HashSet;
use std::time::Duration;

use sotto_protocol::auth::{FoundUser, LookupAnswer, LookupRequest};
use sotto_protocol::keys::{KeyCount, Keys, UserKeys};
use sotto_protocol::problem::{ErrorCode, Problem};
use sotto_protocol::{Binary, DeviceId, Timestamp, UserId, limits};
use sotto_schema::rows::keys::{Claim, KeysStored};
use sotto_schema::rows::sign_in::Allowance;

use super::Identity;
use super::key_check::{self, Signer};
use super::phone::Phone;
use super::session::{Caller, unauthenticated};
use super::sign_in::SIGNED_PREKEY_LIFE;
use crate::error::ApiError;

const DAY: Duration = Duration::from_secs(86_400);

impl Identity {
    /// Stores what the caller's device publishes, all or nothing.
    ///
    /// # Errors
    /// 422 with pointers; 409 when `suite`, `identity_key` or `signing_key` is another than the stored one; 429 when a new
    /// registration id would notify too many users.
    pub async fn put_keys(&self, caller: &Caller, keys: Keys, now: Timestamp) -> Result<(), ApiError> {
        let stored = self.store.device_keys(caller.device_id).await?.ok_or_else(unauthenticated)?;
        let is_other = |given: &Option<Binary>, stored: Option<&[u8]>| {
            given.as_ref().is_some_and(|given| Some(given.as_ref()) != stored)
        };
        let has_changed = keys.suite.is_some_and(|suite| suite != stored.suite)
            || is_other(&keys.identity_key, Some(&stored.identity_key))
            || (stored.signing_key.is_some() && is_other(&keys.signing_key, stored.signing_key.as_deref()));
        if has_changed {
            let detail = "suite, identity_key and signing_key of a device cannot be changed";
            return Err(Problem::new(ErrorCode::Conflict, detail).into());
        }
        let signer = Signer {
            suite: stored.suite,
            identity_key: &stored.identity_key,
            signing_key: stored.signing_key.as_deref(),
        };
        key_check::part("", &keys, &signer, stored.registration_id).map_err(Problem::invalid)?;
        let expires_at = now.plus(SIGNED_PREKEY_LIFE);
        let notices = self.limits.enabled.then_some(self.limits.notified_users_per_hour);
        match self.store.upload_keys(caller.user_id, caller.device_id, keys, expires_at, notices, now).await? {
            KeysStored::Done { told } => {
                if !told.is_empty() {
                    self.changes.devices_changed(caller.user_id, &told);
                }
                Ok(())
            }
            KeysStored::Limited(reached) => Err(ApiError::limited(&reached)),
            KeysStored::NoDevice => Err(unauthenticated()),
        }
    }

    /// The stocks of the caller's device.
    ///
    /// # Errors
    /// The database failed.
    pub async fn key_count(&self, caller: &Caller) -> Result<KeyCount, ApiError> {
        Ok(self.store.key_count(caller.device_id).await?)
    }

    /// The keys of a user's devices but the calling one; with `take` one one-time key of each kind per device leaves
    /// the store for ever. Out of stock or allowance: the last resort, never an error.
    ///
    /// # Errors
    /// 404 when there is no such user.
    pub async fn user_keys(
        &self,
        caller: &Caller,
        target: UserId,
        only: Option<Vec<DeviceId>>,
        take: bool,
        now: Timestamp,
    ) -> Result<UserKeys, ApiError> {
        let limits = &self.limits;
        let claim = Claim {
            asker: caller.user_id,
            asking_device: caller.device_id,
            target,
            only,
            take,
            allowance: limits.enabled.then(|| (limits.key_claims, limits.key_claim_interval.duration())),
            now,
        };
        let claimed = if take { self.store.claim_keys(claim).await? } else { self.store.show_keys(claim).await? };
        let claimed = claimed.ok_or_else(Problem::not_found)?;
        for device_id in claimed.low {
            self.changes.keys_low(target, device_id);
        }
        Ok(UserKeys { user_id: target, devices: claimed.bundles })
    }

    /// Finds accounts by number. Numbers without one, hidden and malformed ones are left out alike.
    ///
    /// # Errors
    /// 422 for more than 100 numbers, 429 when the budget of 1,000 in the account's first day, then 200 a day, would
    /// be passed.
    pub async fn lookup(
        &self,
        caller: &Caller,
        request: LookupRequest,
        now: Timestamp,
    ) -> Result<LookupAnswer, ApiError> {
        if request.phones.len() > limits::MAX_LOOKUP {
            return Err(Problem::field("/phones", "too_many").into());
        }
        let mut seen = HashSet::new();
        let phones: Vec<String> = request.phones.into_iter().filter(|phone| seen.insert(phone.clone())).collect();
        if self.limits.enabled && !phones.is_empty() {
            let made_at = self.store.user_created_at(caller.user_id).await?.ok_or_else(unauthenticated)?;
            let budget = self.lookup_budget(caller.user_id, made_at, now);
            if let Some(reached) = self.store.take_allowance(budget, phones.len(), now).await? {
                return Err(ApiError::limited(&reached));
            }
        }
        let valid = phones.into_iter().filter(|phone| Phone::parse(phone).is_some()).collect();
        let users = self.store.users_by_phone(valid).await?;
        let users = users.into_iter().map(|(phone, user_id)| FoundUser { phone, user_id }).collect();
        Ok(LookupAnswer { users })
    }

    fn lookup_budget(&self, user_id: UserId, made_at: Timestamp, now: Timestamp) -> Allowance {
        let second_day = made_at.plus(DAY);
        let (most, not_before) = if now < second_day {
            (self.limits.lookups_first_day, made_at)
        } else {
            (self.limits.lookups_per_day, second_day)
        };
        Allowance { not_before, ..Allowance::new("lookup", user_id.as_bytes().as_slice(), most, DAY) }
    }
}
