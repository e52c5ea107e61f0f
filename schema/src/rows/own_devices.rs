//! Devices as their owner sees them.

use crate::types::{Moment, Uuid, Word};
use diesel::QueryableByName;
use diesel::sql_types::{Binary, Nullable, Text};
use sotto_protocol::auth::Platform;
use sotto_protocol::keys::Suite;
use sotto_protocol::{DeviceId, Timestamp};

/// A device of an account.
#[derive(Clone, Debug, QueryableByName)]
#[allow(missing_docs)]
pub struct OwnDeviceRow {
    #[diesel(sql_type = Uuid)]
    pub id: DeviceId,
    #[diesel(sql_type = Text)]
    pub name: String,
    #[diesel(sql_type = Word)]
    pub platform: Platform,
    #[diesel(sql_type = Nullable<Text>)]
    pub fingerprint: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    pub model: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    pub os_version: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    pub app_version: Option<String>,
    #[diesel(sql_type = Word)]
    pub suite: Suite,
    #[diesel(sql_type = Binary)]
    pub identity_key: Vec<u8>,
    #[diesel(sql_type = Nullable<Text>)]
    pub last_address: Option<String>,
    #[diesel(sql_type = Nullable<Uuid>)]
    pub verified_by: Option<DeviceId>,
    #[diesel(sql_type = Nullable<Moment>)]
    pub verified_at: Option<Timestamp>,
    #[diesel(sql_type = Moment)]
    pub created_at: Timestamp,
    #[diesel(sql_type = Moment)]
    pub last_active_at: Timestamp,
}

/// What became of comparing a device's identity key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceVerified {
    /// There is no such device in this account.
    Unknown,
    /// It has another identity key; nothing was changed.
    OtherKey,
    /// It is verified.
    Done,
}
