//! The log per user of what changed around him.

use crate::rows::AccountEventRow;
use sotto_protocol::UserId;

super::facade! {
    /// A user's events after a number, oldest first.
    read fn account_events_after(user: UserId, after: i64, limit: i64) -> Vec<AccountEventRow> = account_log::after;
    /// The numbers of users' newest events.
    read fn account_heads(users: Vec<UserId>) -> Vec<(UserId, i64)> = account_log::heads;
    /// How many events a user's log holds.
    read fn account_events_count(user: UserId) -> i64 = account_log::count;
    /// Everybody who shares a conversation with a user at present.
    read fn contacts(user: UserId) -> Vec<UserId> = account_log::contacts;
}
