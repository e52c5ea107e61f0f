//! The history of sign-ins.

use crate::rows::logins::{LoginRow, RefusedLogin};
use sotto_protocol::{Timestamp, UserId};

super::facade! {
    /// Writes refused tries to sign in of accounts that exist; others leave nothing. Beyond a bound they are counted.
    write fn note_refused_logins(logins: Vec<RefusedLogin>) -> () = logins::refused;
    /// Tries of a user since a moment and before an entry (its time and id), newest first.
    read fn logins_before(user: UserId, since: Timestamp, before: (Timestamp, uuid::Uuid), limit: i64) -> Vec<LoginRow> = logins::before;
    /// Makes room for the coming months, and forgets tries from before a moment: whole months on PostgreSQL, some
    /// rows at a time on SQLite.
    write fn keep_logins(since: Timestamp, now: Timestamp) -> () = logins::keep_house;
}
