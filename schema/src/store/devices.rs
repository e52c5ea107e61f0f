//! Accounts and their devices.

use crate::rows::reauthentication::Proof;
use crate::rows::sign_in::{AccountRow, DevicesRemoved, KnownDeviceRow, RemovedDevice};
use sotto_protocol::trail::Removal;
use sotto_protocol::{DeviceId, Timestamp, UserId};

super::facade! {
    /// The accounts of numbers.
    read fn users_by_phone(phones: Vec<String>) -> Vec<(String, UserId)> = devices::lookup;
    /// When an account was made; `None`: there is none.
    read fn user_created_at(user: UserId) -> Option<Timestamp> = devices::user_created_at;
    /// The device of a number's account that has this identity.
    read fn known_device(phone: String, identity_key: Vec<u8>) -> Option<KnownDeviceRow> = devices::known;
    /// An account with one of its devices.
    read fn account(user: UserId, device: DeviceId) -> Option<AccountRow> = devices::me;
    /// Removes a device with everything that belongs to it (with `idle_since` only if it was not heard of since), and
    /// tells it. `None`: there is no such device.
    write fn remove_device(user: UserId, device: DeviceId, reason: Removal, idle_since: Option<Timestamp>, now: Timestamp) -> Option<RemovedDevice> = devices::remove;
    /// Removes a device of the prover's account, or without one all but the proving device, if the proof holds.
    write fn remove_devices(proof: Proof, device: Option<DeviceId>) -> DevicesRemoved = devices::remove_proved;
    /// Devices that were not heard of since a moment, the longest silent first.
    read fn idle_devices(since: Timestamp, limit: i64) -> Vec<(UserId, DeviceId)> = devices::idle;
}
