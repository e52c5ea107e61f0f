//! The key directory.

use crate::rows::keys::{Claim, Claimed, DeviceKeysRow, KeysStored};
use sotto_protocol::keys::{KeyCount, Keys};
use sotto_protocol::{DeviceId, Timestamp, UserId};

super::facade! {
    /// What is stored of a device's identity.
    read fn device_keys(device: DeviceId) -> Option<DeviceKeysRow> = keys::identity;
    /// Stores checked keys, all or nothing.
    write fn upload_keys(user: UserId, device: DeviceId, keys: Keys, signed_expires_at: Timestamp, notices_per_hour: Option<u32>, now: Timestamp) -> KeysStored = keys::upload;
    /// The kinds of one-time keys that a device has ever uploaded.
    read fn stocked_kinds(device: DeviceId) -> Vec<String> = keys::stocked_kinds;
    /// The stocks of a device.
    read fn key_count(device: DeviceId) -> KeyCount = keys::count;
    /// The devices of a user with their identities; `None`: there is no such user. Nothing is handed out.
    read fn show_keys(claim: Claim) -> Option<Claimed> = keys::show;
    /// The keys of a user's devices; `None`: there is no such user.
    write fn claim_keys(claim: Claim) -> Option<Claimed> = keys::claim;
}
