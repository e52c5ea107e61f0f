//! The deletion of an account, as the store gives and takes it.

use super::reauthentication::Proved;
use crate::types::{Moment, Uuid};
use diesel::QueryableByName;
use diesel::sql_types::Nullable;
use sotto_protocol::{ConversationId, DeviceId, Timestamp, UserId};

/// A deletion that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, QueryableByName)]
pub struct DeletionRow {
    /// Whose account.
    #[diesel(sql_type = Uuid)]
    pub user_id: UserId,
    /// From when it is deleted.
    #[diesel(sql_type = Moment)]
    pub deletes_at: Timestamp,
    /// When that began; it cannot be cancelled since.
    #[diesel(sql_type = Nullable<Moment>)]
    pub begun_at: Option<Timestamp>,
    /// When it was asked for.
    #[diesel(sql_type = Moment)]
    pub created_at: Timestamp,
}

/// What became of asking for it.
#[derive(Clone, Debug)]
pub enum DeletionRequested {
    /// It stands; or stood already, as it was asked for first.
    Done(DeletionRow),
    /// The proof was refused.
    Refused(Proved),
}

/// What is left of an account that is being deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOver {
    /// Its devices.
    pub devices: Vec<DeviceId>,
    /// Groups that it is in.
    pub groups: Vec<ConversationId>,
    /// Direct conversations that it is in.
    pub directs: Vec<ConversationId>,
}
