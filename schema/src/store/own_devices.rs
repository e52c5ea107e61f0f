//! Devices as their owner sees and changes them.

use crate::rows::own_devices::{DeviceVerified, OwnDeviceRow};
use sotto_protocol::{DeviceId, Timestamp, UserId};
use std::time::Duration;

super::facade! {
    /// All devices of an account, the oldest first.
    read fn own_devices(user: UserId) -> Vec<OwnDeviceRow> = own_devices::list;
    /// Gives a device another name, and tells the account's devices. `false`: there is no such device in the account.
    write fn rename_device(user: UserId, device: DeviceId, name: String, now: Timestamp) -> bool = own_devices::rename;
    /// A device of the account has compared another one's identity key.
    write fn verify_device(user: UserId, device: DeviceId, by: DeviceId, identity_key: Vec<u8>, now: Timestamp) -> DeviceVerified = own_devices::verify;
    /// Devices that were not heard of since a moment, and of which that was not told yet.
    read fn expiring_devices(since: Timestamp, limit: i64) -> Vec<(UserId, DeviceId)> = own_devices::expiring;
    /// Tells a user's devices, once per silence, that one of them will be removed so long after it was last heard of. `false`: that is not due any more.
    write fn tell_device_expiring(user: UserId, device: DeviceId, since: Timestamp, life: Duration, now: Timestamp) -> bool = own_devices::tell_expiring;
}
