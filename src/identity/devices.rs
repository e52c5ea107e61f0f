//! The devices of one's own account: the list, names, verification, removal.

use std::net::IpAddr;
use std::time::Duration;

use sotto_protocol::devices::{OwnDevice, OwnDevices, RenameDevice, Verified, VerifyDevice};
use sotto_protocol::problem::{ErrorCode, Problem};
use sotto_protocol::reauthentication::Reauthentication;
use sotto_protocol::{DeviceId, Timestamp, limits, text};
use sotto_schema::account_change::Change;
use sotto_schema::rows::own_devices::{DeviceVerified, OwnDeviceRow};
use sotto_schema::rows::sign_in::DevicesRemoved;

use super::Identity;
use super::reauthentication::proved_or_refused;
use super::session::Caller;
use crate::error::ApiError;

impl Identity {
    /// All devices of the caller's account.
    ///
    /// # Errors
    /// The database failed.
    pub async fn own_devices(&self, caller: &Caller) -> Result<OwnDevices, ApiError> {
        let life = self.device_life();
        let rows = self.store.own_devices(caller.user_id).await?;
        Ok(OwnDevices { devices: rows.into_iter().map(|row| seen(row, caller, life)).collect() })
    }

    /// How long a device may be silent.
    pub(super) fn device_life(&self) -> Duration {
        Duration::from_secs(u64::from(self.auth.device_inactive_days) * 86_400)
    }

    /// Gives a device of the caller's account another name; his devices are told.
    ///
    /// # Errors
    /// 422 for a name that is none; 404.
    pub async fn rename_device(
        &self,
        caller: &Caller,
        device_id: DeviceId,
        request: RenameDevice,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        text::check("/name", &request.name, limits::MAX_NAME, true)?;
        if !self.store.rename_device(caller.user_id, device_id, request.name, now).await? {
            return Err(Problem::not_found().into());
        }
        self.changes.devices_changed(caller.user_id, &[caller.user_id]);
        Ok(())
    }

    /// The owner has compared another device's identity key on the calling one.
    ///
    /// # Errors
    /// 404; 409 `conflict` for another key than the stored one, and for the calling device itself.
    pub async fn verify_device(
        &self,
        caller: &Caller,
        device_id: DeviceId,
        request: VerifyDevice,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        if device_id == caller.device_id {
            return Err(Problem::new(ErrorCode::Conflict, "a device is verified by another one").into());
        }
        let key = request.identity_key.0;
        match self.store.verify_device(caller.user_id, device_id, caller.device_id, key, now).await? {
            DeviceVerified::Unknown => Err(Problem::not_found().into()),
            DeviceVerified::OtherKey => {
                Err(Problem::new(ErrorCode::Conflict, "the device has another identity key").into())
            }
            DeviceVerified::Done => {
                self.changes.devices_changed(caller.user_id, &[caller.user_id]);
                Ok(())
            }
        }
    }

    /// Removes another device of the caller's account, or without one all others, if the proof holds: keys, marks and sessions go,
    /// sockets close, everybody concerned is told.
    ///
    /// # Errors
    /// 404 for a device that is none of the account's; 401 `code_rejected` and `second_factor_required` as at sign-in; 409
    /// `conflict` with `available_at` while a second factor is new; 429.
    pub async fn remove_devices(
        &self,
        caller: &Caller,
        device_id: Option<DeviceId>,
        request: &Reauthentication,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let own = self.store.own_devices(caller.user_id).await?;
        if let Some(device_id) = device_id
            && !own.iter().any(|row| row.id == device_id)
        {
            return Err(Problem::not_found().into());
        }
        if device_id.is_none() && own.len() <= 1 {
            return Ok(());
        }
        let (proof, field) = self.proof(caller, request, Change::RemoveDevice, address, now).await?;
        match self.store.remove_devices(proof, device_id).await? {
            DevicesRemoved::Done(removed) if removed.is_empty() && device_id.is_some() => {
                Err(Problem::not_found().into())
            }
            DevicesRemoved::Done(removed) => {
                for removed in &removed {
                    self.device_removed(removed, now);
                }
                self.end_links(caller.user_id, caller.device_id, now).await;
                Ok(())
            }
            DevicesRemoved::Refused(proved) => proved_or_refused(proved, field),
        }
    }
}

fn seen(row: OwnDeviceRow, caller: &Caller, life: Duration) -> OwnDevice {
    OwnDevice {
        device_id: row.id,
        name: row.name,
        platform: row.platform,
        fingerprint: row.fingerprint,
        model: row.model,
        os_version: row.os_version,
        app_version: row.app_version,
        suite: row.suite,
        identity_key: row.identity_key.into(),
        is_current: row.id == caller.device_id,
        created_at: row.created_at,
        last_active_at: row.last_active_at,
        last_address: row.last_address,
        verified: row.verified_by.zip(row.verified_at).map(|(by, at)| Verified { by, at }),
        removed_at: row.last_active_at.plus(life),
    }
}
