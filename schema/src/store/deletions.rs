//! The deletion of accounts, step by step.

use super::{Backend, to_the_end};
use crate::rows::deletions::{DeletionRequested, DeletionRow, LeftOver};
use crate::rows::reauthentication::Proof;
use crate::{Store, StoreError};
use sotto_protocol::{ConversationId, Timestamp, UserId};

super::facade! {
    /// The deletion of an account, if it was asked for.
    read fn account_deletion(user: UserId) -> Option<DeletionRow> = deletions::find;
    /// Asks for the deletion of an account, if the proof holds.
    write fn request_account_deletion(proof: Proof, deletes_at: Timestamp) -> DeletionRequested = deletions::request;
    /// Cancels a deletion that has not begun; `false`: there is none.
    write fn cancel_account_deletion(user: UserId, now: Timestamp) -> bool = deletions::cancel;
    /// Accounts whose time has come, or whose deletion was not finished.
    read fn due_account_deletions(now: Timestamp, limit: i64) -> Vec<DeletionRow> = deletions::due;
    /// Begins a deletion: nobody signs in to the account any more, its number is free. `false`: it was cancelled.
    write fn begin_account_deletion(user: UserId, now: Timestamp) -> bool = deletions::begin;
    /// Some of what is left of an account; nothing: it can be finished.
    read fn left_over(user: UserId) -> LeftOver = deletions::left_over;
    /// Ends a user's membership in a direct conversation; returns who was told.
    write fn leave_direct(id: ConversationId, user: UserId, now: Timestamp) -> Vec<UserId> = deletions::leave_direct;
    /// Removes what is about the account alone, and the account.
    write fn finish_account_deletion(user: UserId) -> () = deletions::finish;
}

impl Store {
    /// Removes what was deleted from the files of SQLite. PostgreSQL does it by itself (`VACUUM`, its own log). `false`:
    /// statements that read were in the way, and it has to be tried again.
    ///
    /// # Errors
    /// The database failed; see [`StoreError`].
    pub async fn erase_deleted(&self) -> Result<bool, StoreError> {
        match self.backend.clone() {
            Backend::Postgres(_) => Ok(true),
            Backend::Sqlite(database) => to_the_end(async move { database.empty_log().await }).await,
        }
    }
}
