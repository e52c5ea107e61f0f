//! The history of sign-ins, as the store gives and takes it.

use crate::types::{Moment, Uuid};
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Nullable, Text};
use sotto_protocol::{DeviceId, Timestamp, UserId, VerificationId};

/// Refused tries with one verification that have entries of their own: as many as it takes wrong codes.
pub const OF_VERIFICATION: usize = 5;
/// Refused tries of an account in one day (UTC) that have entries of their own.
pub const OF_ACCOUNT_A_DAY: usize = 20;

/// Whose try it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoginOf {
    /// Of whoever has the number of this request for a code: the database finds out, or that it is nobody.
    Code(VerificationId),
    /// Of an account.
    Account(UserId),
}

/// How a device signs in. Stored in the transaction that begins its session.
#[derive(Clone, Debug)]
pub struct LoginWay {
    /// The method, as the contract has it.
    pub method: &'static str,
    /// The address, where addresses are kept.
    pub address: Option<String>,
    /// The name that the program gives itself.
    pub agent: Option<String>,
}

/// A try to sign in that was refused, or several of them.
#[derive(Clone, Debug)]
pub struct RefusedLogin {
    /// Whose it was.
    pub of: LoginOf,
    /// The outcome, as the contract has it.
    pub outcome: &'static str,
    /// How it was made; `None` for a summary.
    pub way: Option<LoginWay>,
    /// Number of tries that this stands for.
    pub tries: i64,
    /// When the first one was made.
    pub first_at: Timestamp,
    /// When the last one was made.
    pub last_at: Timestamp,
}

/// A try to sign in of an account, or a summary of refused ones.
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
    /// Tries that a summary stands for.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub tries: Option<i64>,
    /// When; of a summary, the first try.
    #[diesel(sql_type = Moment)]
    pub created_at: Timestamp,
    /// The last try of a summary.
    #[diesel(sql_type = Moment)]
    pub updated_at: Timestamp,
}
