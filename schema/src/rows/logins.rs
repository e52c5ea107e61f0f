//! The history of sign-ins, as the store gives and takes it.

use crate::types::{Moment, Uuid};
use diesel::QueryableByName;
use diesel::sql_types::{Nullable, Text};
use sotto_protocol::{DeviceId, Timestamp, UserId, VerificationId};

/// Whose try it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginOf {
    /// Of whoever has the number of this request for a code: the database finds out, or that it is nobody.
    Code(VerificationId),
    /// Of an account.
    Account(UserId),
}

/// A try to sign in.
#[derive(Clone, Debug)]
pub struct NewLogin {
    /// The entry.
    pub id: uuid::Uuid,
    /// Whose it was.
    pub of: LoginOf,
    /// The device that was signed in.
    pub device_id: Option<DeviceId>,
    /// How, as the contract has it.
    pub method: &'static str,
    /// What came of it, as the contract has it.
    pub outcome: &'static str,
    /// From which address, where that is kept.
    pub address: Option<String>,
    /// What the program said that it is.
    pub agent: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// A try to sign in of an account.
#[derive(Clone, Debug, QueryableByName)]
pub struct LoginRow {
    /// The entry.
    #[diesel(sql_type = Uuid)]
    pub id: uuid::Uuid,
    /// The device that was signed in.
    #[diesel(sql_type = Nullable<Uuid>)]
    pub device_id: Option<DeviceId>,
    /// How.
    #[diesel(sql_type = Text)]
    pub method: String,
    /// What came of it.
    #[diesel(sql_type = Text)]
    pub outcome: String,
    /// From which address.
    #[diesel(sql_type = Nullable<Text>)]
    pub address: Option<String>,
    /// What the program said that it is.
    #[diesel(sql_type = Nullable<Text>)]
    pub agent: Option<String>,
    /// When.
    #[diesel(sql_type = Moment)]
    pub created_at: Timestamp,
}
