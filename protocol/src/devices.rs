//! Bodies about the devices of one's own account: the list, renaming, verifying.

use crate::auth::Platform;
use crate::keys::Suite;
use crate::{Binary, DeviceId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/devices`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OwnDevices {
    /// All devices of the caller's account, the oldest first.
    pub devices: Vec<OwnDevice>,
}

/// A device as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OwnDevice {
    /// The device.
    pub device_id: DeviceId,
    /// Name that the user recognises.
    pub name: String,
    /// Kind of system.
    pub platform: Platform,
    /// A stable mark of the installation, once per account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Model of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Version of the operating system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Version of the application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_version: Option<String>,
    /// The family of encryption it speaks.
    pub suite: Suite,
    /// Its identity key, to be compared by another way.
    pub identity_key: Binary,
    /// Whether it is the calling one.
    pub is_current: bool,
    /// When it signed in first.
    pub created_at: Timestamp,
    /// When it was last heard of, to the minute or so.
    pub last_active_at: Timestamp,
    /// The address of its last REST request, to the minute or so, where the server keeps addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_address: Option<String>,
    /// That another device has compared its identity key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
    /// When it is removed if nothing is heard of it.
    pub removed_at: Timestamp,
}

/// Who has verified a device, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verified {
    /// The device that has compared.
    pub by: DeviceId,
    /// When.
    pub at: Timestamp,
}

/// `PATCH /v1/devices/{device_id}`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RenameDevice {
    /// 1 to 100 characters.
    pub name: String,
}

/// `POST /v1/devices/{device_id}/verify`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct VerifyDevice {
    /// The other device's identity key, as it shows it itself.
    pub identity_key: Binary,
}
