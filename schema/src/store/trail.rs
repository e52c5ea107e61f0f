//! The trail of accounts.

use sotto_protocol::UserId;
use sotto_protocol::trail::{TrailHead, TrailItem};

super::facade! {
    /// Entries of a user's trail above a number, oldest first.
    read fn trail_after(user: UserId, after: i64, limit: i64) -> Vec<TrailItem> = trail::after;
    /// Where a user's trail ends.
    read fn trail_head(user: UserId) -> TrailHead = trail::head;
}
