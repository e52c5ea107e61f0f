//! What the live side of the server must hear after a commit; the database has it already, so a lost word costs time
//! and nothing else.

use sotto_protocol::{DeviceId, UserId};
use uuid::Uuid;

/// Told after the commit. None of these waits.
pub trait Changes: Send + Sync + 'static {
    /// A user's devices changed; all in `told` (the user among them) have a new event in their account log.
    fn devices_changed(&self, user_id: UserId, told: &[UserId]);

    /// A device's token family ended before its time: its socket closes with 4503. Told before the device gets tokens
    /// of a new family, or not at all if another node ended it and the device has signed in again since; may be told
    /// twice.
    fn session_ended(&self, user_id: UserId, device_id: DeviceId, family: Uuid);

    /// A device's stock of keys fell below the line, or its signed prekey has expired.
    fn keys_low(&self, user_id: UserId, device_id: DeviceId);
}

/// Nobody listens; for tools and tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct NobodyListens;

impl Changes for NobodyListens {
    fn devices_changed(&self, _user_id: UserId, _told: &[UserId]) {}
    fn session_ended(&self, _user_id: UserId, _device_id: DeviceId, _family: Uuid) {}
    fn keys_low(&self, _user_id: UserId, _device_id: DeviceId) {}
}
