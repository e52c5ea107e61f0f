//! The history of sign-ins of an account.

use crate::{DeviceId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A try to sign in, or a summary of refused ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Login {
    /// When; of a summary, the first try.
    pub at: Timestamp,
    /// How: `registration`, `code` or `recovery`, the last two also with `_totp`, `_backup_code` or `_pin` behind them, or `link`,
    /// or `several` for a summary; others may come.
    pub method: String,
    /// What came of it: `signed_in`, `wrong_code`, `second_factor_required`, `wrong_second_factor`, `limited` or `refused`;
    /// others may come.
    pub outcome: String,
    /// The device that was signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<DeviceId>,
    /// From which address, where the server keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What the program said that it is (`User-Agent`), at most 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Number of tries that a summary stands for; only in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tries: Option<i64>,
    /// The last try of a summary; only in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at: Option<Timestamp>,
}
