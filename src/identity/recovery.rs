//! Recovery: a new device in the place of all that an account has, for whoever has lost them.

use std::net::IpAddr;

use sotto_protocol::auth::{Purpose, RecoverRequest, Tokens};
use sotto_protocol::{DeviceId, Timestamp};
use sotto_schema::second_factor::Asks;

use super::Identity;
use super::guard::{Compared, Showing};
use super::sign_in::{check_shape, new_device};
use crate::error::ApiError;

impl Identity {
    /// Signs a new device in by a code and what stands behind it, and removes all others. A backup code turns the second factor
    /// off, whose app is lost.
    ///
    /// # Errors
    /// As [`Identity::login`]; 409 `conflict` for an account that has neither a second factor nor a registration lock: it is
    /// signed in to.
    pub async fn recover(&self, request: RecoverRequest, address: IpAddr, now: Timestamp) -> Result<Tokens, ApiError> {
        check_shape(&request.device, &request.keys)?;
        let id = request.verification_id;
        let mut attempt = self.check_code(id, Purpose::Recovery, &request.code, address, now).await?;
        let showing = Showing {
            totp: request.totp.as_deref(),
            backup_code: request.backup_code.as_deref(),
            pin: request.pin.as_deref(),
        };
        let Compared { shown, field } = self.compare_at_sign_in(Asks::FactorOrPin, showing, &mut attempt).await?;
        let device = new_device(DeviceId::random(), request.device, self.kept_address(address), request.keys, now);
        let (device_id, begun) = (device.id, self.begin(now)?);
        let recovered = self.store.recover(attempt, shown, device, begun.session.clone()).await?;
        for removed in &recovered.removed {
            for gone in &removed.change.removed {
                self.end_here(removed.change.user_id, *gone, &removed.families, now);
            }
            self.changes.devices_changed(removed.change.user_id, &removed.told);
        }
        let tokens = self.signed_in(recovered.answer, field, device_id, begun, now)?;
        tracing::info!(user_id = %tokens.user_id, %device_id, "an account was recovered");
        Ok(tokens)
    }
}
