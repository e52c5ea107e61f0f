//! What a signed-in user shows again before something that matters.

use crate::VerificationId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Proofs of the strongest guard that the account has: its second factor; or a code from a text message with the PIN of the
/// registration lock; or without either the code alone.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Reauthentication {
    /// From a verification of the account's own number, with the purpose of what is done. Not needed with a second factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification_id: Option<VerificationId>,
    /// Six digits from the text message. Together with `verification_id`, or neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The six digits that the app shows now. They are what counts when a backup code is there as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totp: Option<String>,
    /// Or a backup code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_code: Option<String>,
    /// The PIN of the registration lock, where the account has one and no second factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
}

impl Reauthentication {
    /// A code from a text message, and nothing else.
    #[must_use]
    pub fn by_code(verification_id: VerificationId, code: impl Into<String>) -> Self {
        Self { verification_id: Some(verification_id), code: Some(code.into()), ..Self::default() }
    }

    /// The same with the PIN of the registration lock.
    #[must_use]
    pub fn with_pin(self, pin: impl Into<String>) -> Self {
        Self { pin: Some(pin.into()), ..self }
    }

    /// The same with what the authenticator app shows.
    #[must_use]
    pub fn with_totp(self, totp: impl Into<String>) -> Self {
        Self { totp: Some(totp.into()), ..self }
    }

    /// The same with a backup code.
    #[must_use]
    pub fn with_backup_code(self, backup_code: impl Into<String>) -> Self {
        Self { backup_code: Some(backup_code.into()), ..self }
    }
}
