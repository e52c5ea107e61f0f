//! Links of new devices to accounts, as the store gives and takes them.

use super::reauthentication::Proved;
use super::sign_in::{Reached, Refusal};
use crate::device_link::{Link, Stage};
use crate::types::{Json, Moment, Uuid, Word};
use diesel::QueryableByName;
use diesel::sql_types::{Binary, Nullable, Text};
use sotto_protocol::auth::DeviceInfo;
use sotto_protocol::keys::{Keys, Suite};
use sotto_protocol::{DeviceId, LinkId, Timestamp, UserId};

/// A link that begins.
#[derive(Clone, Debug)]
pub struct NewLink {
    /// Its id.
    pub id: LinkId,
    /// Keyed hash of the challenge.
    pub challenge_hash: Vec<u8>,
    /// Keyed hash of the new device's secret.
    pub secret_hash: Vec<u8>,
    /// What the new device says of itself.
    pub info: DeviceInfo,
    /// Its keys, complete and checked.
    pub keys: Keys,
    /// The address that it came from, where addresses are kept.
    pub address: Option<String>,
    /// When the link ends.
    pub expires_at: Timestamp,
}

/// A link without the new device's keys.
#[derive(Clone, Debug, QueryableByName)]
pub struct LinkRow {
    /// Keyed hash of the challenge.
    #[diesel(sql_type = Binary)]
    pub challenge_hash: Vec<u8>,
    /// Keyed hash of the new device's secret.
    #[diesel(sql_type = Binary)]
    pub secret_hash: Vec<u8>,
    /// The new device's family of encryption.
    #[diesel(sql_type = Word)]
    pub suite: Suite,
    /// Its long-term key.
    #[diesel(sql_type = Binary)]
    pub identity_key: Vec<u8>,
    /// Ed25519 key, for `olm`.
    #[diesel(sql_type = Nullable<Binary>)]
    pub signing_key: Option<Vec<u8>>,
    /// What it says of itself.
    #[diesel(sql_type = Json)]
    pub device: serde_json::Value,
    /// The address that it came from.
    #[diesel(sql_type = Nullable<Text>)]
    pub address: Option<String>,
    /// How far it has come.
    #[diesel(sql_type = Word)]
    pub stage: Stage,
    /// The account that it is bound to.
    #[diesel(sql_type = Nullable<Uuid>)]
    pub user_id: Option<UserId>,
    /// The token family that it has brought.
    #[diesel(sql_type = Nullable<Uuid>)]
    pub session_id: Option<uuid::Uuid>,
    /// When the tokens were given.
    #[diesel(sql_type = Nullable<Moment>)]
    pub used_at: Option<Timestamp>,
    /// When it began.
    #[diesel(sql_type = Moment)]
    pub created_at: Timestamp,
    /// When it ends.
    #[diesel(sql_type = Moment)]
    pub expires_at: Timestamp,
}

impl LinkRow {
    /// The link as its machine sees it.
    #[must_use]
    pub const fn link(&self) -> Link {
        Link { stage: self.stage, user_id: self.user_id, expires_at: self.expires_at, used_at: self.used_at }
    }

    /// What the new device says of itself; `None` when the row cannot be read.
    #[must_use]
    pub fn info(&self) -> Option<DeviceInfo> {
        serde_json::from_value(self.device.clone()).ok()
    }
}

/// What became of a link that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkBegun {
    /// It is stored.
    Begun,
    /// A limit is reached; nothing was stored.
    Limited(Reached),
}

/// What became of a confirmation.
#[derive(Clone, Debug)]
pub enum LinkConfirmed {
    /// There is no such link for this account; nothing was used up.
    Unknown,
    /// It is confirmed, now or before.
    Done,
    /// The account cannot take the device; nothing was used up.
    Full(Refusal),
    /// The proof was refused.
    Refused(Proved),
}

/// What became of asking for the tokens.
#[derive(Clone, Debug)]
pub enum LinkCollected {
    /// There is no such link for this device.
    Unknown,
    /// Nobody has confirmed it yet.
    Waiting {
        /// Whether somebody has scanned it.
        scanned: bool,
    },
    /// The account cannot take the device.
    Full(Refusal),
    /// The device has joined.
    Joined {
        /// The account.
        user_id: UserId,
        /// The device: a new one, or the one with this identity.
        device_id: DeviceId,
        /// Families of the device that have ended by it.
        ended: Vec<uuid::Uuid>,
        /// Who was told.
        told: Vec<UserId>,
    },
    /// It had joined, and has used nothing of its family yet.
    Again {
        /// The account.
        user_id: UserId,
        /// The device.
        device_id: DeviceId,
        /// The family.
        session_id: uuid::Uuid,
        /// When its refresh token ends.
        expires_at: Timestamp,
    },
}
