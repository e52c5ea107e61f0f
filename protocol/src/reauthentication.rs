//! What a signed-in user shows again before something that matters.

use crate::VerificationId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A fresh code from a text message, and the second factor where the account has one.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct Reauthentication {
    /// From a verification of the account's own number, with the purpose of what is done.
    pub verification_id: VerificationId,
    /// Six digits from the text message.
    pub code: String,
    /// The six digits that the app shows now. They are what counts when both are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totp: Option<String>,
    /// Or a backup code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_code: Option<String>,
}
