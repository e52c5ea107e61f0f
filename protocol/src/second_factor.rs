//! Bodies of the second factor: setting it up, backup codes.

use crate::reauthentication::Reauthentication;
use crate::{Timestamp, VerificationId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/auth/totp`: whether sign-in asks for a second factor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecondFactorState {
    /// Whether sign-in asks for it.
    pub enabled: bool,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled_at: Option<Timestamp>,
    /// Until when it can be undone, while it is new. Some changes of the account wait until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_until: Option<Timestamp>,
    /// Until when a set-up that was begun can be finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_until: Option<Timestamp>,
    /// Backup codes that were not used.
    pub backup_codes_left: u64,
}

/// The answer to `POST /v1/auth/totp`: what an authenticator app needs. Shown this once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct TotpSetUp {
    /// The secret in base32, for typing.
    pub secret: String,
    /// `otpauth://totp/…`, for an app on the same device.
    pub uri: String,
    /// The same as a QR code in SVG.
    pub qr_svg: String,
    /// And in PNG, as a `data:` URI.
    pub qr_png: String,
    /// Until when the set-up can be finished.
    pub expires_at: Timestamp,
}

/// `POST /v1/auth/totp/enable`: a code of the new secret, and what guards the account so far.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct EnableTotp {
    /// The six digits that the app shows now.
    pub totp: String,
    /// From a verification of the account's own number with the purpose `second_factor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification_id: Option<VerificationId>,
    /// Six digits from the text message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The PIN of the registration lock, where the account has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
}

impl EnableTotp {
    /// A code of the new secret with what is shown for it.
    #[must_use]
    pub fn new(totp: impl Into<String>, proof: Reauthentication) -> Self {
        let Reauthentication { verification_id, code, pin, .. } = proof;
        Self { totp: totp.into(), verification_id, code, pin }
    }

    /// The two halves again.
    #[must_use]
    pub fn parts(self) -> (String, Reauthentication) {
        let Self { totp, verification_id, code, pin } = self;
        (totp, Reauthentication { verification_id, code, pin, ..Reauthentication::default() })
    }
}

/// Backup codes, each good for one sign-in without the app. Shown this once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct BackupCodes {
    /// Ten of them.
    pub backup_codes: Vec<String>,
}
