//! The trail of an account: what happened to its devices and its security, chained by hashes, so that whoever has seen
//! the end once finds out when something before it was changed.
//!
//! The hash of an entry is SHA-256 (FIPS 180-4) over a domain, the hash before it, and the length and bytes of the
//! entry's text ([`link`]). The text is JSON, and is kept and given out byte for byte: nothing that reads and writes JSON
//! may come between it and its hash.

use crate::{Binary, DeviceId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

/// What is hashed before everything else.
const DOMAIN: &[u8] = b"sotto-trail-v1";
/// The hash before the first entry.
pub const BEGINNING: [u8; 32] = [0; 32];

/// The hash of an entry behind the hash of the one before: `SHA-256("sotto-trail-v1" || previous || length || entry)`, the
/// length in bytes as eight of them, big-endian.
#[must_use]
pub fn link(previous: &[u8; 32], entry: &str) -> [u8; 32] {
    let length = u64::try_from(entry.len()).unwrap_or(u64::MAX);
    let hash = Sha256::new().chain_update(DOMAIN).chain_update(previous);
    hash.chain_update(length.to_be_bytes()).chain_update(entry).finalize().into()
}

/// `GET /v1/auth/trail`: a page of the trail, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrailPage {
    /// The entries.
    pub items: Vec<TrailItem>,
    /// Where the trail ends at present.
    pub head: TrailHead,
    /// Where the next page starts; `null` at the end.
    pub next: Option<String>,
}

/// An entry with its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrailItem {
    /// Its number: 1, 2, 3 … without gaps.
    pub seq: i64,
    /// A [`TrailEntry`] as the text that was hashed.
    pub entry: String,
    /// The hash, 32 bytes.
    pub hash: Binary,
}

/// The end of a trail. Of one without entries: 0, and 32 zero bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrailHead {
    /// Number of the newest entry.
    pub seq: i64,
    /// Its hash, 32 bytes.
    pub hash: Binary,
}

impl TrailHead {
    /// Of a trail without entries.
    #[must_use]
    pub fn beginning() -> Self {
        Self { seq: 0, hash: Binary(BEGINNING.to_vec()) }
    }
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrailEntry {
    /// Its number.
    pub seq: i64,
    /// When it happened, by the server's clock.
    pub at: Timestamp,
    /// Whose trail it is in.
    pub user_id: UserId,
    /// What happened.
    #[serde(flatten)]
    pub event: TrailEvent,
    /// The address that it was done from, where the server keeps addresses and knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TrailEvent {
    /// The account was made, with its first device.
    Registered {
        /// The device.
        device_id: DeviceId,
    },
    /// A new device signed in.
    DeviceAdded {
        /// The device.
        device_id: DeviceId,
    },
    /// A new device was linked by its QR code, which the account has confirmed; or a known one, that way again.
    DeviceLinked {
        /// The device.
        device_id: DeviceId,
    },
    /// A device of the account has compared another one's identity key, and found it right.
    DeviceVerified {
        /// The device that was compared.
        device_id: DeviceId,
        /// The device that says so.
        by: DeviceId,
    },
    /// A known device signed in again, by a proof of its identity key.
    DeviceRenewed {
        /// The device.
        device_id: DeviceId,
    },
    /// A device was removed.
    DeviceRemoved {
        /// The device.
        device_id: DeviceId,
        /// Why.
        reason: Removal,
    },
    /// A refresh token of a device came a second time: somebody has a copy. Its session was ended.
    RefreshTokenReused {
        /// The device.
        device_id: DeviceId,
    },
    /// Sign-in asks for a second factor from now on.
    SecondFactorEnabled,
    /// … and does not any more.
    SecondFactorDisabled,
    /// New backup codes took the place of the old ones.
    BackupCodesRenewed,
    /// A backup code stood in for the second factor.
    BackupCodeUsed,
    /// The number is protected by a PIN from now on, or by another one.
    RegistrationLockSet,
    /// … and is not any more.
    RegistrationLockRemoved,
    /// The account has another number.
    PhoneChanged,
    /// A new device took the place of all others, by a code and what stands behind it.
    Recovered {
        /// The device.
        device_id: DeviceId,
    },
    /// The account will be deleted.
    DeletionRequested {
        /// From when on.
        deletes_at: Timestamp,
    },
    /// … and will not.
    DeletionCancelled,
    /// Something that this version does not know; its text says what.
    #[serde(other)]
    Unknown,
}

/// Why a device was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Removal {
    /// It signed out.
    SignedOut,
    /// Another device of the account has removed it.
    Revoked,
    /// Its account was deleted.
    AccountDeleted,
    /// The account was recovered by a new device.
    Recovered,
    /// It was not heard of for too long.
    Silent,
    /// Something that this version does not know.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_written_by_name_and_strange_ones_are_read() {
        let (user_id, device_id) = (UserId::random(), DeviceId::random());
        let at = Timestamp::from_millis(1_795_253_400_000);
        let event = TrailEvent::DeviceRemoved { device_id, reason: Removal::Silent };
        let entry = TrailEntry { seq: 7, at, user_id, event, address: None };
        let text = serde_json::to_string(&entry).unwrap();
        assert_eq!(
            text,
            format!(
                r#"{{"seq":7,"at":"{at}","user_id":"{user_id}","event":"device_removed","device_id":"{device_id}","reason":"silent"}}"#
            )
        );
        assert_eq!(serde_json::from_str::<TrailEntry>(&text).unwrap(), entry);
        let strange = text.replace("device_removed", "number_hidden");
        assert_eq!(serde_json::from_str::<TrailEntry>(&strange).unwrap().event, TrailEvent::Unknown);
        let plain = TrailEntry { event: TrailEvent::BackupCodeUsed, address: Some("192.0.2.1".to_owned()), ..entry };
        let text = serde_json::to_string(&plain).unwrap();
        assert!(text.ends_with(r#""event":"backup_code_used","address":"192.0.2.1"}"#), "{text}");
        assert_eq!(serde_json::from_str::<TrailEntry>(&text).unwrap(), plain);
    }

    /// Computed with Python's hashlib.
    #[test]
    fn the_chain_is_what_the_document_says() {
        let chain = [
            (r#"{"seq":1,"event":"registered"}"#, "66908742745ccf07c61393a35b01540d9b710bde63ebde5233881ca8cce6bae6"),
            (
                r#"{"seq":2,"event":"device_added","name":"Büro"}"#,
                "044736493e91e1e31d0795f4dc1a2842efc01fb7b7ecaed92b1e59092d1ec06a",
            ),
            (r#""#, "3cf9313120b9e7b4cd9993bb5a385196be49e1591e49cbaa5e5ee9f468e5bf27"),
        ];
        let mut previous = BEGINNING;
        for (entry, expected) in chain {
            previous = link(&previous, entry);
            let hex: String = previous.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected);
        }
    }
}
