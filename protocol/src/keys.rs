//! Bodies of the key directory: what a device publishes, and what others get of it.

use crate::{Binary, DeviceId, Timestamp, UserId, json, limits};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The family of encryption a device speaks; fixed for its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Suite {
    /// libsignal: X3DH/PQXDH keys with a type byte, XEdDSA signatures.
    Signal,
    /// Olm and Megolm: bare Curve25519 keys, Ed25519 signatures.
    Olm,
}

impl Suite {
    /// The suite as it stands on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Olm => "olm",
        }
    }

    /// Reads what [`Suite::as_str`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Signal, Self::Olm].into_iter().find(|suite| suite.as_str() == text)
    }
}

/// A public key with its number and the identity's signature over its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignedKey {
    /// 0 … 2³¹−1, its own space per device and kind.
    pub key_id: i64,
    /// The public key.
    pub public_key: Binary,
    /// 64 bytes over exactly the key's bytes.
    pub signature: Binary,
}

/// A public key that is handed out once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OneTimeKey {
    /// 0 … 2³¹−1, growing.
    pub key_id: i64,
    /// The public key.
    pub public_key: Binary,
}

/// What a device publishes. Registration and login need it complete, `PUT /v1/keys` takes any part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Keys {
    /// The family; required at registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<Suite>,
    /// 1 … 16383; required for `signal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration_id: Option<i64>,
    /// Long-term key; required at registration, unchangeable after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_key: Option<Binary>,
    /// Ed25519 key; required for `olm`, absent for `signal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<Binary>,
    /// `olm`: the signing key's signature over [`identity_text`]; optional in 0.1, required for new devices from 0.2 on. Absent
    /// for `signal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_signature: Option<Binary>,
    /// Medium-term key (`olm`: the fallback key).
    #[serde(default, deserialize_with = "json::optional_object", skip_serializing_if = "Option::is_none")]
    pub signed_prekey: Option<SignedKey>,
    /// At most 100.
    #[serde(default, deserialize_with = "json::optional_objects", skip_serializing_if = "Option::is_none")]
    pub one_time_prekeys: Option<Vec<OneTimeKey>>,
    /// Kyber-1024; required for `signal`.
    #[serde(default, deserialize_with = "json::optional_object", skip_serializing_if = "Option::is_none")]
    pub pq_last_resort_prekey: Option<SignedKey>,
    /// Kyber-1024, at most 100.
    #[serde(default, deserialize_with = "json::optional_objects", skip_serializing_if = "Option::is_none")]
    pub pq_one_time_prekeys: Option<Vec<SignedKey>>,
}

/// The bytes that the signature of an identity key stands over: the prefix in UTF-8, then the key.
#[must_use]
pub fn identity_text(identity_key: &[u8]) -> Vec<u8> {
    [limits::IDENTITY_PREFIX.as_bytes(), identity_key].concat()
}

/// `GET /v1/keys/count`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyCount {
    /// One-time keys left.
    pub one_time_prekeys: i64,
    /// Post-quantum one-time keys left.
    pub pq_one_time_prekeys: i64,
    /// When the signed prekey should be replaced.
    pub signed_prekey_expires_at: Timestamp,
}

/// What is needed to begin a session with a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bundle {
    /// The device.
    pub device_id: DeviceId,
    /// Its family of encryption.
    pub suite: Suite,
    /// For `signal`.
    pub registration_id: Option<i64>,
    /// Long-term key.
    pub identity_key: Binary,
    /// For `olm`.
    pub signing_key: Option<Binary>,
    /// For `olm`: the signing key's signature over [`identity_text`]; `null` for devices from before 0.2.
    pub identity_signature: Option<Binary>,
    /// Medium-term key; left out with `claim=false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_prekey: Option<SignedKey>,
    /// Handed out once, ever; `null` when stock or allowance is out.
    pub one_time_prekey: Option<OneTimeKey>,
    /// A one-time key, else the last resort.
    pub pq_prekey: Option<SignedKey>,
}

/// `GET /v1/users/{user_id}/keys`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserKeys {
    /// The account.
    pub user_id: UserId,
    /// Its devices, without the calling one.
    pub devices: Vec<Bundle>,
}
