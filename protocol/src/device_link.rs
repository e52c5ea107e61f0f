//! Bodies of linking: a new device shows a QR code, a device of the account scans and confirms it.

use crate::auth::{DeviceInfo, Platform};
use crate::keys::Keys;
use crate::reauthentication::Reauthentication;
use crate::{Binary, LinkId, Timestamp, VerificationId, json, limits};
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// What stands before the members of a [`LinkUri`]: the scheme and the version.
const URI_PREFIX: &str = "sotto-link:1?";

/// `POST /v1/auth/links`: a device that wants to join an account.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BeginLink {
    /// The new device.
    #[serde(deserialize_with = "json::object")]
    pub device: DeviceInfo,
    /// Its public keys, complete.
    #[serde(deserialize_with = "json::object")]
    pub keys: Keys,
}

/// The answer to [`BeginLink`]: what the new device shows, and what it keeps for itself.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct BegunLink {
    /// Names the link.
    pub link_id: LinkId,
    /// 32 bytes that only the new device knows; not part of the QR code.
    pub link_secret: Binary,
    /// 32 bytes that stand in the QR code.
    pub challenge: Binary,
    /// The text of the QR code: `sotto-link:1?id=…&challenge=…&identity_key=…`.
    pub qr: String,
    /// The same as a QR code in SVG.
    pub qr_svg: String,
    /// And in PNG, as a `data:` URI.
    pub qr_png: String,
    /// Until when it can be scanned, confirmed and used.
    pub expires_at: Timestamp,
}

/// What a QR code says, as a device of the account gives it back to the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LinkCode {
    /// From the QR code.
    pub challenge: Binary,
    /// The new device's identity key, from the QR code.
    pub identity_key: Binary,
}

/// The answer to a scan: who wants to join. Show it before anybody confirms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScannedLink {
    /// The new device.
    pub device: LinkingDevice,
    /// The address that it was seen at, where the server keeps addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// When the new device asked.
    pub created_at: Timestamp,
    /// Until when it can be confirmed.
    pub expires_at: Timestamp,
}

/// What a device that wants to join says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LinkingDevice {
    /// Name that the user recognises.
    pub name: String,
    /// Kind of system.
    pub platform: Platform,
    /// Model of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Version of the operating system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Version of the application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_version: Option<String>,
}

impl From<DeviceInfo> for LinkingDevice {
    fn from(info: DeviceInfo) -> Self {
        let DeviceInfo { name, platform, model, os_version, app_version, .. } = info;
        Self { name, platform, model, os_version, app_version }
    }
}

/// `POST /v1/auth/links/{link_id}/confirm`: the QR code again, and who confirms proves himself anew.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct ConfirmLink {
    /// From the QR code.
    pub challenge: Binary,
    /// The new device's identity key, from the QR code.
    pub identity_key: Binary,
    /// From a verification of the account's own number for `device_link`. Not needed with a second factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification_id: Option<VerificationId>,
    /// Six digits from the text message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The six digits that the app shows now. They are what counts when both are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totp: Option<String>,
    /// Or a backup code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_code: Option<String>,
    /// The PIN of the registration lock, where the account has one and no second factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
}

impl ConfirmLink {
    /// A confirmation of what a QR code says, by a proof.
    #[must_use]
    pub fn new(code: LinkCode, proof: Reauthentication) -> Self {
        let LinkCode { challenge, identity_key } = code;
        let Reauthentication { verification_id, code, totp, backup_code, pin } = proof;
        Self { challenge, identity_key, verification_id, code, totp, backup_code, pin }
    }

    /// The two halves again.
    #[must_use]
    pub fn parts(self) -> (LinkCode, Reauthentication) {
        let Self { challenge, identity_key, verification_id, code, totp, backup_code, pin } = self;
        (LinkCode { challenge, identity_key }, Reauthentication { verification_id, code, totp, backup_code, pin })
    }
}

/// `POST /v1/auth/links/{link_id}/tokens`: the new device asks whether it was confirmed.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct CollectLink {
    /// From [`BegunLink`].
    pub link_secret: Binary,
    /// From [`BegunLink`].
    pub challenge: Binary,
    /// Signature over [`proof_text`] by the new device's identity: `identity_key` for `signal`, `signing_key` for `olm`.
    pub proof: Binary,
}

/// The answer 202 to [`CollectLink`]: nobody has confirmed yet. Ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LinkPending {
    /// Whether somebody has scanned the QR code.
    pub scanned: bool,
    /// Until when asking makes sense.
    pub expires_at: Timestamp,
}

/// What the new device signs: `sotto-link-proof-v1:`, the link's id, `:` and the challenge in base64url.
#[must_use]
pub fn proof_text(link_id: LinkId, challenge: &[u8]) -> String {
    format!("{}{link_id}:{}", limits::LINK_PROOF_PREFIX, Binary::encode(challenge))
}

/// The text of a QR code. It gives nobody anything but the way to ask the own account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkUri {
    /// The link.
    pub link_id: LinkId,
    /// What it says beside.
    pub code: LinkCode,
}

impl LinkUri {
    /// Reads a QR code; `None` when it is none of ours, or of a version that this library does not know. Members that are
    /// not known are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let members = text.trim().strip_prefix(URI_PREFIX)?;
        let member = |name: &str| {
            members
                .split('&')
                .filter_map(|member| member.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|pair| pair.1)
        };
        let bytes = |name: &str| member(name).and_then(Binary::decode).map(Binary);
        let code = LinkCode { challenge: bytes("challenge")?, identity_key: bytes("identity_key")? };
        Some(Self { link_id: LinkId::parse(member("id")?)?, code })
    }
}

impl fmt::Display for LinkUri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (challenge, identity_key) = (self.code.challenge.as_ref(), self.code.identity_key.as_ref());
        write!(
            formatter,
            "{URI_PREFIX}id={}&challenge={}&identity_key={}",
            self.link_id,
            Binary::encode(challenge),
            Binary::encode(identity_key)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qr_code_comes_back_and_nothing_else_is_one() {
        let code = LinkCode { challenge: Binary(vec![255; 32]), identity_key: Binary(vec![254; 33]) };
        let uri = LinkUri { link_id: LinkId::random(), code };
        let text = uri.to_string();
        assert_eq!(LinkUri::parse(&text).as_ref(), Some(&uri));
        assert_eq!(LinkUri::parse(&format!(" {text}&later=1\n")).as_ref(), Some(&uri));
        assert!(text.chars().all(|character| character.is_ascii_graphic()));
        let other = ["", "sotto-link:1?", "sotto-link:1?id=x&challenge=AA&identity_key=AA", "otpauth://totp/x"];
        assert!(other.into_iter().all(|text| LinkUri::parse(text).is_none()));
        assert!(LinkUri::parse(&text.replacen(":1?", ":2?", 1)).is_none());
        assert!(LinkUri::parse(&text.replace("&identity_key", "&key")).is_none());
    }
}
