//! The log per user of what changed around him.

use crate::rows::AccountEventRow;
use sotto_protocol::UserId;

super::facade! {
    /// A user's events after a number, oldest first.
    read fn account_events_after(user: UserId, after: i64, limit: i64) -> Vec<AccountEventRow> = account_log::after;
    /// The number of a user's newest event; `None`: no such user.
    read fn account_head(user: UserId) -> Option<i64> = account_log::head;
    /// Everybody who shares a conversation with a user at present.
    read fn contacts(user: UserId) -> Vec<UserId> = account_log::contacts;
}
