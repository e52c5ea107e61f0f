//! What the server knows of an account, for its user.

use crate::account::AccountDeletion;
use crate::auth::{MeUser, PushTokens};
use crate::conversation::{ConversationType, Role};
use crate::devices::OwnDevice;
use crate::keys::KeyCount;
use crate::logins::Login;
use crate::registration_lock::RegistrationLockState;
use crate::second_factor::SecondFactorState;
use crate::trail::{TrailHead, TrailItem};
use crate::{ConversationId, DeviceId, Seq, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// `POST /v1/auth/export`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Export {
    /// When this was read. Its parts are read one after the other, not at one moment.
    pub exported_at: Timestamp,
    /// The account.
    pub user: MeUser,
    /// Its devices.
    pub devices: Vec<ExportedDevice>,
    /// Its sessions.
    pub sessions: Vec<ExportedSession>,
    /// Its second factor, without the secret.
    pub second_factor: SecondFactorState,
    /// Its registration lock, without the PIN.
    pub registration_lock: RegistrationLockState,
    /// Whether it will be deleted.
    pub deletion: AccountDeletion,
    /// The conversations that it is or was in, the oldest first.
    pub conversations: Vec<ExportedConversation>,
    /// Its trail.
    pub trail: Vec<TrailItem>,
    /// Where the trail ends.
    pub trail_head: TrailHead,
    /// Tries to sign in, the newest first.
    pub logins: Vec<Login>,
    /// News that wait for devices which have not acknowledged them.
    pub waiting_events: u64,
    /// What there is beside that, and why it does not stand here.
    pub not_included: Vec<String>,
}

/// A device with what the server keeps for it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ExportedDevice {
    /// The device.
    #[serde(flatten)]
    pub device: OwnDevice,
    /// Where notices to it go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<PushTokens>,
    /// Its stock of public keys.
    pub keys: KeyCount,
}

/// A session, without its tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExportedSession {
    /// The session.
    pub session_id: Uuid,
    /// Its device.
    pub device_id: DeviceId,
    /// When it began.
    pub created_at: Timestamp,
    /// When it ends if it is not renewed.
    pub expires_at: Timestamp,
}

/// A stay in a conversation; whoever left and came back has several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExportedConversation {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ConversationType,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The role in it.
    pub role: Role,
    /// When the stay began.
    pub joined_at: Timestamp,
    /// The first entry of its log that belongs to the stay.
    pub from_seq: Seq,
    /// The last one; absent while the stay goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_seq: Option<Seq>,
    /// Read up to here.
    pub read_up_to: Seq,
}
