//! The end of an account.

use crate::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/auth/deletion`, the answer to asking for it, and `account_deletion` to the account's own devices: when the account
/// will be deleted. Empty: it will not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccountDeletion {
    /// When it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<Timestamp>,
    /// From when the account is deleted; until then any of its devices can cancel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletes_at: Option<Timestamp>,
}
