//! What the key directory gives back.

use super::sign_in::Reached;
use crate::types::{Uuid, Word};
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Nullable};
use sotto_protocol::event::KeyKind;
use sotto_protocol::keys::{Bundle, KeyCount, Suite};
use sotto_protocol::{DeviceId, Timestamp, UserId};
use std::time::Duration;

/// What is stored of a device's identity.
#[derive(Clone, Debug, QueryableByName)]
pub struct DeviceKeysRow {
    /// The device.
    #[diesel(sql_type = Uuid)]
    pub device_id: DeviceId,
    /// Its family of encryption.
    #[diesel(sql_type = Word)]
    pub suite: Suite,
    /// Its registration id.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub registration_id: Option<i64>,
    /// Its long-term key.
    #[diesel(sql_type = Binary)]
    pub identity_key: Vec<u8>,
    /// Its Ed25519 key, for `olm`.
    #[diesel(sql_type = Nullable<Binary>)]
    pub signing_key: Option<Vec<u8>>,
    /// Its signature over the identity key, for `olm`.
    #[diesel(sql_type = Nullable<Binary>)]
    pub identity_signature: Option<Vec<u8>>,
}

/// A request for the keys of a user's devices.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Who asks.
    pub asker: UserId,
    /// The device that asks, which is left out.
    pub asking_device: DeviceId,
    /// Whose keys.
    pub target: UserId,
    /// Only these devices, if given.
    pub only: Option<Vec<DeviceId>>,
    /// Whether keys are handed out, or only devices and identities shown.
    pub take: bool,
    /// How many one-time keys of a device the asker may have at once, and after what time one more; none: no limit.
    pub allowance: Option<(u32, Duration)>,
    /// The moment.
    pub now: Timestamp,
}

/// The answer to a [`Claim`].
#[derive(Clone, Debug)]
pub struct Claimed {
    /// What the asker gets.
    pub bundles: Vec<Bundle>,
    /// Devices whose stock crossed the line by this, or whose signed prekey has expired.
    pub low: Vec<DeviceId>,
}

/// Fewer one-time keys than this are told to their owner.
pub const LOW_STOCK: i64 = 10;

/// The stocks of a device that are low, with what is left. A kind that the device has never uploaded is none that
/// could run out.
#[must_use]
pub fn low_stocks(count: &KeyCount, ever: &[String], now: Timestamp) -> Vec<(KeyKind, i64)> {
    let used = |kind: &str| ever.iter().any(|known| known == kind);
    let mut low = Vec::new();
    if count.one_time_prekeys < LOW_STOCK && used("one_time") {
        low.push((KeyKind::OneTimePrekeys, count.one_time_prekeys));
    }
    if count.pq_one_time_prekeys < LOW_STOCK && used("pq_one_time") {
        low.push((KeyKind::PqOneTimePrekeys, count.pq_one_time_prekeys));
    }
    if count.signed_prekey_expires_at <= now {
        low.push((KeyKind::SignedPrekey, 0));
    }
    low
}

/// What became of an upload.
#[derive(Clone, Debug)]
pub enum KeysStored {
    /// Stored. `told`: who was told of a changed registration id; empty when it did not change.
    Done {
        /// Users with an event in their log.
        told: Vec<UserId>,
    },
    /// The registration id would change, and the user has notified too many: nothing is stored.
    Limited(Reached),
    /// The device is gone.
    NoDevice,
}
