//! The log per user of what changed around him.

use crate::rows::AccountEventRow;
use sotto_protocol::{DeviceId, UserId};

super::facade! {
    /// A user's events after a number, oldest first.
    read fn account_events_after(user: UserId, after: i64, limit: i64) -> Vec<AccountEventRow> = account_log::after;
    /// The newest event's number and the one that a device has acknowledged; `None`: no such device.
    read fn account_position(user: UserId, device: DeviceId) -> Option<(i64, i64)> = account_log::position;
    /// The number of a user's newest event; `None`: no such user.
    read fn account_head(user: UserId) -> Option<i64> = account_log::head;
    /// Everybody who shares a conversation with a user at present.
    read fn contacts(user: UserId) -> Vec<UserId> = account_log::contacts;
    /// The other side of a user's direct conversations in which both have written.
    read fn presence_peers(user: UserId) -> Vec<UserId> = account_log::presence_peers;
}
