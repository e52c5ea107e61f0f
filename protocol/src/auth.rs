//! Bodies of sign-in: verification codes, registration, login, refresh, me.

use crate::challenge::ChallengeResponse;
use crate::keys::Keys;
use crate::problem::FieldError;
use crate::{Binary, DeviceId, Timestamp, UserId, VerificationId, json, limits, text};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a code is asked for; a code serves only its purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Purpose {
    Registration,
    Login,
    Recovery,
    PhoneChange,
    SecondFactor,
    DeviceLink,
    AccountDeletion,
    RegistrationLock,
    DeviceRemoval,
    Export,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Self; 10] = [
        Self::Registration,
        Self::Login,
        Self::Recovery,
        Self::PhoneChange,
        Self::SecondFactor,
        Self::DeviceLink,
        Self::AccountDeletion,
        Self::RegistrationLock,
        Self::DeviceRemoval,
        Self::Export,
    ];

    /// Whether its codes go only to numbers that have an account.
    #[must_use]
    pub const fn needs_account(self) -> bool {
        !matches!(self, Self::Registration | Self::PhoneChange)
    }

    /// The purpose as it stands on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registration => "registration",
            Self::Login => "login",
            Self::Recovery => "recovery",
            Self::PhoneChange => "phone_change",
            Self::SecondFactor => "second_factor",
            Self::DeviceLink => "device_link",
            Self::AccountDeletion => "account_deletion",
            Self::RegistrationLock => "registration_lock",
            Self::DeviceRemoval => "device_removal",
            Self::Export => "export",
        }
    }
}

/// `POST /v1/auth/verifications`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct VerificationRequest {
    /// E.164, as `+41791234567`.
    pub phone: String,
    /// What the code is for.
    pub purpose: Purpose,
    /// The answer to a challenge, where one was demanded.
    #[serde(default, deserialize_with = "json::optional_object", skip_serializing_if = "Option::is_none")]
    pub challenge_response: Option<ChallengeResponse>,
}

impl VerificationRequest {
    /// A request without an answer to a challenge.
    #[must_use]
    pub fn new(phone: impl Into<String>, purpose: Purpose) -> Self {
        Self { phone: phone.into(), purpose, challenge_response: None }
    }
}

/// The answer to [`VerificationRequest`].
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Verification {
    /// Names the request when the code is presented.
    pub verification_id: VerificationId,
    /// When the code stops being valid.
    pub expires_at: Timestamp,
    /// From when the same number and purpose is taken again.
    pub resend_at: Timestamp,
}

/// Kind of system a device runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Platform {
    Ios,
    Android,
    Web,
    Desktop,
}

impl Platform {
    /// The platform as it stands on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ios => "ios",
            Self::Android => "android",
            Self::Web => "web",
            Self::Desktop => "desktop",
        }
    }

    /// Reads what [`Platform::as_str`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Ios, Self::Android, Self::Web, Self::Desktop].into_iter().find(|platform| platform.as_str() == text)
    }
}

/// Where a device can be woken from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PushTokens {
    /// Firebase Cloud Messaging token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fcm_token: Option<String>,
    /// Apple Push Notification service token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apns_token: Option<String>,
}

/// What a device says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceInfo {
    /// Name that the user recognises, at most 100 characters.
    pub name: String,
    /// Kind of system.
    pub platform: Platform,
    /// A stable mark of the installation, chosen by the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Model of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Version of the operating system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Version of the application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_version: Option<String>,
    /// Push tokens.
    #[serde(default, deserialize_with = "json::optional_object", skip_serializing_if = "Option::is_none")]
    pub push: Option<PushTokens>,
}

impl DeviceInfo {
    /// Checks lengths and characters; `prefix` is the pointer of the object.
    #[must_use]
    pub fn check(&self, prefix: &str) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut field = |name: &str, value: Option<&str>, max: usize, required: bool| {
            if let Some(value) = value
                && let Err(error) = text::check(&format!("{prefix}/{name}"), value, max, required)
            {
                errors.push(error);
            }
        };
        field("name", Some(&self.name), limits::MAX_NAME, true);
        field("fingerprint", self.fingerprint.as_deref(), 200, true);
        field("model", self.model.as_deref(), limits::MAX_NAME, false);
        field("os_version", self.os_version.as_deref(), limits::MAX_NAME, false);
        field("app_version", self.app_version.as_deref(), limits::MAX_NAME, false);
        if let Some(push) = &self.push {
            field("push/fcm_token", push.fcm_token.as_deref(), 4096, true);
            field("push/apns_token", push.apns_token.as_deref(), 4096, true);
        }
        errors
    }
}

/// `POST /v1/auth/register`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RegisterRequest {
    /// From the verification.
    pub verification_id: VerificationId,
    /// Six digits.
    pub code: String,
    /// The device that registers.
    #[serde(deserialize_with = "json::object")]
    pub device: DeviceInfo,
    /// Its public keys, complete.
    #[serde(deserialize_with = "json::object")]
    pub keys: Keys,
    /// A code of the authenticator app, where the account that has the number has a second factor. With the strongest guard of that
    /// account shown, the account is deleted and a new one takes its place; if it was in use lately, only after its time of grace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totp: Option<String>,
    /// Or a backup code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_code: Option<String>,
    /// Or the PIN of its registration lock, where it has one and no second factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
    /// `true`: the account that has the number is deleted without a PIN, if none of its devices was heard of for seven days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace: Option<bool>,
}

/// `POST /v1/auth/login`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LoginRequest {
    /// From the verification.
    pub verification_id: VerificationId,
    /// Six digits.
    pub code: String,
    /// The device that signs in.
    #[serde(deserialize_with = "json::object")]
    pub device: DeviceInfo,
    /// Its public keys, complete.
    #[serde(deserialize_with = "json::object")]
    pub keys: Keys,
    /// Signature over `sotto-device-proof-v1:` and the verification id, by a known device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_proof: Option<Binary>,
    /// Second factor, six digits: for accounts that have one, after the right code. It is what counts when both are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totp: Option<String>,
    /// Backup code instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_code: Option<String>,
    /// PIN of the registration lock: for new devices of accounts that have one and no second factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
}

/// `POST /v1/auth/recover`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RecoverRequest {
    /// From a verification with the purpose `recovery`.
    pub verification_id: VerificationId,
    /// Six digits.
    pub code: String,
    /// The device that takes the place of all others.
    #[serde(deserialize_with = "json::object")]
    pub device: DeviceInfo,
    /// Its public keys, complete.
    #[serde(deserialize_with = "json::object")]
    pub keys: Keys,
    /// Second factor, six digits. It is what counts when both are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totp: Option<String>,
    /// Backup code instead; it turns the second factor off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_code: Option<String>,
    /// PIN of the registration lock, for accounts without a second factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
}

/// `POST /v1/auth/phone`.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct ChangePhone {
    /// From a verification of the new number with the purpose `phone_change`.
    pub verification_id: VerificationId,
    /// Six digits.
    pub code: String,
    /// Second factor, six digits: for accounts that have one. It is what counts when both are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totp: Option<String>,
    /// Backup code instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_code: Option<String>,
    /// PIN of the registration lock, for accounts without a second factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
    /// Without second factor and PIN: a verification of the present number with the purpose `phone_change` …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_verification_id: Option<VerificationId>,
    /// … and its six digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_code: Option<String>,
}

/// `POST /v1/auth/refresh`.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct RefreshRequest {
    /// The last refresh token.
    pub refresh_token: String,
}

/// A signed-in device's tokens.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct Tokens {
    /// The account.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// For `Authorization: Bearer`.
    pub access_token: String,
    /// Works once.
    pub refresh_token: String,
    /// Always `Bearer`.
    pub token_type: String,
    /// Seconds that the access token is valid.
    pub expires_in: u64,
    /// Seconds that the refresh token is valid.
    pub refresh_expires_in: u64,
}

/// `GET /v1/auth/me`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// The account.
    pub user: MeUser,
    /// The calling device.
    pub device: MeDevice,
}

/// The caller's account.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MeUser {
    /// The account.
    pub user_id: UserId,
    /// E.164.
    pub phone: String,
    /// When it was registered.
    pub created_at: Timestamp,
}

/// The calling device.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MeDevice {
    /// The device.
    pub device_id: DeviceId,
    /// What it said of itself.
    #[serde(flatten)]
    pub info: DeviceInfo,
    /// When it signed in first.
    pub created_at: Timestamp,
    /// When it was last heard of, to the minute or so.
    pub last_active_at: Timestamp,
}

/// `POST /v1/users/lookup`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LookupRequest {
    /// At most 100 numbers in E.164.
    pub phones: Vec<String>,
}

/// The answer to [`LookupRequest`]: only the numbers that were found.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LookupAnswer {
    /// The found accounts.
    pub users: Vec<FoundUser>,
}

/// A number and its account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FoundUser {
    /// As it was asked for.
    pub phone: String,
    /// The account.
    pub user_id: UserId,
}
