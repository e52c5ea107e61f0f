//! Recovery: a new device in the place of all that an account has, for whoever has lost them.

use sotto_protocol::auth::{Purpose, RecoverRequest, Tokens};
use sotto_protocol::{DeviceId, Timestamp};
use sotto_schema::account_change::Change;

use sotto_schema::rows::sign_in::SignedIn;

use super::Identity;
use super::history::Tried;
use super::proofs::{Compared, Prover, Showing};
use super::sign_in::{check_shape, new_device};
use crate::error::ApiError;

impl Identity {
    /// Signs a new device in by a code and what stands behind it, and removes all others. A backup code turns the second factor
    /// off, whose app is lost.
    ///
    /// # Errors
    /// As [`Identity::login`]; 409 `conflict` for an account that has neither a second factor nor a registration lock: it is
    /// signed in to.
    pub async fn recover(&self, request: RecoverRequest, tried: Tried<'_>, now: Timestamp) -> Result<Tokens, ApiError> {
        check_shape(&request.device, &request.keys)?;
        let (id, address) = (request.verification_id, tried.address);
        let code = self.compare_code(id, Purpose::Recovery, &request.code, Prover::Stranger(address), now).await?;
        let showing = Showing {
            totp: request.totp.as_deref(),
            backup_code: request.backup_code.as_deref(),
            pin: request.pin.as_deref(),
        };
        let wait = self.undo_span();
        let asks = Change::Recover.asks(wait, now);
        let Compared { evidence, field } = self.compare_at_sign_in(asks, showing, &code, address).await?;
        let device = new_device(DeviceId::random(), request.device, self.kept_address(address), request.keys, now);
        let (device_id, begun) = (device.id, self.begin(&tried, now)?);
        let recovered = self.store.recover(code, evidence, wait, device, begun.session.clone()).await?;
        for removed in &recovered.removed {
            self.device_removed(removed, now);
        }
        if let SignedIn::Done { user_id, .. } = recovered.answer {
            self.end_links(user_id, device_id, now).await;
        }
        let tokens = self.signed_in(recovered.answer, field, device_id, begun, now)?;
        tracing::info!(user_id = %tokens.user_id, %device_id, "an account was recovered");
        Ok(tokens)
    }
}
