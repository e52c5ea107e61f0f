//! Durable events: what a device gets, acknowledges, and finds again until it did.

use crate::account::AccountDeletion;
use crate::conversation::Conversation;
use crate::message::Message;
use crate::{ConversationId, DeviceId, Seq, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A durable event, by socket with its `n`, by `GET /v1/sync` without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "t", content = "d", rename_all = "snake_case")]
pub enum Event {
    /// A message of a conversation.
    NewMessage(Message),
    /// A device of another user has stored messages.
    MessageDelivered(Delivered),
    /// A member has read.
    MessageReadUpdate(Read),
    /// Name, members or roles changed.
    ConversationChanged(ConversationChanged),
    /// A user's devices changed.
    DevicesChanged(DevicesChanged),
    /// A device of the own account has another name, or was verified.
    DeviceUpdated(DeviceUpdated),
    /// A device of the own account will be removed for its silence.
    DeviceExpiring(DeviceExpiring),
    /// The account will be deleted, or will not any more.
    AccountDeletion(AccountDeletion),
    /// The account has another number.
    PhoneChanged(PhoneChanged),
    /// One-time keys run out, or the signed prekey is old.
    KeysLow(KeysLow),
    /// Older messages were removed by retention.
    HistoryPruned(HistoryPruned),
}

/// `message_delivered`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[allow(missing_docs)]
pub struct Delivered {
    pub conversation_id: ConversationId,
    pub user_id: UserId,
    pub device_id: DeviceId,
    /// Everything up to this number is stored on that device.
    pub up_to: Seq,
    pub at: Timestamp,
}

/// `message_read_update`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[allow(missing_docs)]
pub struct Read {
    pub conversation_id: ConversationId,
    pub user_id: UserId,
    /// Everything up to this number was read.
    pub up_to: Seq,
    pub at: Timestamp,
}

/// `conversation_changed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConversationChanged {
    /// Its present state.
    pub conversation: Conversation,
}

/// `devices_changed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DevicesChanged {
    /// Whose devices.
    pub user_id: UserId,
    /// New devices.
    pub added: Vec<DeviceId>,
    /// Devices that are gone.
    pub removed: Vec<DeviceId>,
    /// Devices that registered anew.
    pub identity_changed: Vec<DeviceId>,
}

/// `device_updated`, to the devices of its own account only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceUpdated {
    /// The device.
    pub device_id: DeviceId,
    /// Its name.
    pub name: String,
    /// When another device has compared its identity key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<Timestamp>,
}

/// `device_expiring`, to the other devices of its own account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceExpiring {
    /// The device that is silent.
    pub device_id: DeviceId,
    /// Its name.
    pub name: String,
    /// When it is removed if nothing is heard of it.
    pub removed_at: Timestamp,
}

/// `phone_changed`, to the devices of its own account only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PhoneChanged {
    /// The number that it has now, E.164.
    pub phone: String,
}

/// Which stock of keys runs low.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// One-time prekeys.
    OneTimePrekeys,
    /// Post-quantum one-time prekeys.
    PqOneTimePrekeys,
    /// The signed prekey has expired.
    SignedPrekey,
}

/// `keys_low`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeysLow {
    /// Which stock.
    pub kind: KeyKind,
    /// How many are left.
    pub remaining: i64,
}

/// `history_pruned`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[allow(missing_docs)]
pub struct HistoryPruned {
    pub conversation_id: ConversationId,
    /// Everything up to this number is gone.
    pub up_to: Seq,
}
