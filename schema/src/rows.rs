//! Rows as the store's callers get them.

pub mod deletions;
pub mod device_link;
mod devices_change;
pub mod export;
pub mod keys;
pub mod logins;
pub mod nodes;
pub mod number;
pub mod own_devices;
pub mod proofs;
pub mod reauthentication;
pub mod registration_lock;
pub mod sealed;
pub mod second_factor;
pub mod seed;
pub mod sign_in;
pub mod trail;
pub mod verifications;

pub use devices_change::DevicesChange;

use self::sign_in::Reached;
use crate::types::{Json, Moment, Octets, Uuid, Word};
use bytes::Bytes;
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use sotto_protocol::conversation::{ConversationType, Role};
use sotto_protocol::event::KeysLow;
use sotto_protocol::message::{Kind, Message, Sender};
use sotto_protocol::{ConversationId, DeviceId, MessageId, Seq, Timestamp, UserId};

pub mod idempotency;

/// What waits for a device that has come.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The number of its account's newest event.
    pub account_head: i64,
    /// The newest one that the device has acknowledged.
    pub account_seen: i64,
    /// Every conversation in which something waits, with where the device stands.
    pub backlog: Vec<BacklogRow>,
    /// Its stocks of keys that run low, with what is left.
    pub low: Vec<KeysLow>,
}

/// An event of a user's account log.
#[derive(Clone, Debug, QueryableByName)]
pub struct AccountEventRow {
    /// Its number in the user's log.
    #[diesel(sql_type = BigInt)]
    pub seq: i64,
    /// `devices_changed`, `conversation_changed`, `device_updated` or `device_expiring`.
    #[diesel(sql_type = Text)]
    pub kind: String,
    /// The user, conversation or device that it is about.
    #[diesel(sql_type = Uuid)]
    pub object: uuid::Uuid,
    /// What is told, where it is not the object's present state.
    #[diesel(sql_type = Json)]
    pub body: serde_json::Value,
}

/// A message as it is stored.
#[derive(Clone, Debug, QueryableByName)]
#[allow(missing_docs)]
pub struct MessageRow {
    #[diesel(sql_type = Uuid)]
    pub conversation_id: ConversationId,
    #[diesel(sql_type = BigInt)]
    pub seq: Seq,
    #[diesel(sql_type = Uuid)]
    pub message_id: MessageId,
    #[diesel(sql_type = Nullable<Uuid>)]
    pub sender_user: Option<UserId>,
    #[diesel(sql_type = Nullable<Uuid>)]
    pub sender_device: Option<DeviceId>,
    #[diesel(sql_type = Word)]
    pub kind: Kind,
    #[diesel(sql_type = Nullable<Binary>, deserialize_as = Octets)]
    pub ciphertext: Option<Bytes>,
    #[diesel(sql_type = Nullable<Binary>, deserialize_as = Octets)]
    pub envelopes: Option<Bytes>,
    #[diesel(sql_type = Nullable<Uuid>)]
    pub reply_to: Option<MessageId>,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub client_seq: Option<i64>,
    #[diesel(sql_type = Nullable<Json>)]
    pub system: Option<serde_json::Value>,
    #[diesel(sql_type = Nullable<Moment>)]
    pub expires_at: Option<Timestamp>,
    #[diesel(sql_type = Nullable<Moment>)]
    pub edited_at: Option<Timestamp>,
    #[diesel(sql_type = Nullable<Moment>)]
    pub deleted_at: Option<Timestamp>,
    #[diesel(sql_type = Moment)]
    pub created_at: Timestamp,
}

impl MessageRow {
    /// Bytes of what the row carries and the server does not read.
    #[must_use]
    pub fn content_size(&self) -> usize {
        self.ciphertext.as_ref().map_or(0, Bytes::len) + self.envelopes.as_ref().map_or(0, Bytes::len)
    }

    /// What a device gets of the content, with the type of its envelope. Nothing of an expired message or a deleted one.
    #[must_use]
    pub fn content(&self, device: DeviceId, now: Timestamp) -> (Option<&[u8]>, Option<u8>) {
        let gone = self.deleted_at.is_some() || self.expires_at.is_some_and(|at| at <= now);
        let own = self.sender_device == Some(device);
        match (&self.ciphertext, &self.envelopes) {
            _ if gone || own => (None, None),
            (Some(shared), _) => (Some(shared), None),
            (None, Some(packed)) => {
                crate::packed::find(packed, device).map_or((None, None), |(kind, bytes)| (Some(bytes), Some(kind)))
            }
            (None, None) => (None, None),
        }
    }

    /// Who has sent it; `None`: the server wrote it.
    #[must_use]
    pub fn sender(&self) -> Option<Sender> {
        self.sender_user.zip(self.sender_device).map(|(user_id, device_id)| Sender { user_id, device_id })
    }

    /// The message as one device sees it. An expired or deleted one is a tombstone.
    #[must_use]
    pub fn for_device(&self, device: DeviceId, now: Timestamp) -> Message {
        let (ciphertext, envelope_type) = self.content(device, now);
        Message {
            message_id: self.message_id,
            conversation_id: self.conversation_id,
            seq: self.seq,
            kind: self.kind,
            from: self.sender(),
            ciphertext: ciphertext.map(|bytes| bytes.to_vec().into()),
            envelope_type,
            reply_to: self.reply_to,
            client_seq: self.client_seq,
            server_time: self.created_at,
            edited_at: self.edited_at,
            deleted_at: self.deleted_at,
            expires_at: self.expires_at,
            after_seq: None,
            system: self.system.as_ref().and_then(|value| serde_json::from_value(value.clone()).ok()),
        }
    }

    /// Whether the message is an event for the device: not its own, and with an envelope for it
    /// where there are envelopes. What is not is passed over (rule D10).
    #[must_use]
    pub fn is_for(&self, device: DeviceId) -> bool {
        if self.sender_device == Some(device) {
            return false;
        }
        match &self.envelopes {
            Some(packed) => crate::packed::find(packed, device).is_some(),
            None => true,
        }
    }

    /// About how many bytes the message has on the wire.
    #[must_use]
    pub fn wire_size(&self) -> usize {
        let body = self.ciphertext.as_ref().or(self.envelopes.as_ref());
        600 + body.map_or(0, Bytes::len) * 4 / 3
    }
}

/// What waits for a device in one of its user's intervals of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
pub struct BacklogRow {
    /// The conversation.
    #[diesel(sql_type = Uuid)]
    pub conversation_id: ConversationId,
    /// The device has everything up to here; never below the interval.
    #[diesel(sql_type = BigInt)]
    pub mark: Seq,
    /// The last number it may see at present.
    #[diesel(sql_type = BigInt)]
    pub head: Seq,
    /// Everything up to here was removed by retention.
    #[diesel(sql_type = BigInt)]
    pub floor: Seq,
    /// The newest receipt of the conversation, 0 in intervals that have ended.
    #[diesel(sql_type = BigInt)]
    pub receipts_version: i64,
    /// The newest receipt that the device has acknowledged.
    #[diesel(sql_type = BigInt)]
    pub receipts_seen: i64,
}

/// A member of a conversation, with what the checks of a send need.
#[derive(Clone, Debug, QueryableByName)]
#[allow(missing_docs)]
pub struct MemberRow {
    #[diesel(sql_type = Uuid)]
    pub user_id: UserId,
    #[diesel(sql_type = BigInt)]
    pub from_seq: Seq,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub to_seq: Option<Seq>,
    #[diesel(sql_type = Word)]
    pub role: Role,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub first_sent_seq: Option<Seq>,
    #[diesel(sql_type = Moment)]
    pub joined_at: Timestamp,
    #[diesel(sql_type = BigInt)]
    pub device_version: i64,
    #[diesel(sql_type = BigInt)]
    pub read_up_to: Seq,
}

/// A device in a device list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, QueryableByName)]
#[allow(missing_docs)]
pub struct MemberDeviceRow {
    #[diesel(sql_type = Uuid)]
    pub user_id: UserId,
    #[diesel(sql_type = Uuid)]
    pub device_id: DeviceId,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub registration_id: Option<i64>,
    #[diesel(sql_type = BigInt)]
    pub delivered_up_to: Seq,
}

/// A conversation with its head.
#[derive(Clone, Debug, QueryableByName)]
#[allow(missing_docs)]
pub struct ConversationRow {
    #[diesel(sql_type = Uuid)]
    pub id: ConversationId,
    #[diesel(sql_type = Word)]
    pub kind: ConversationType,
    #[diesel(sql_type = Nullable<Text>)]
    pub name: Option<String>,
    #[diesel(sql_type = Moment)]
    pub created_at: Timestamp,
    #[diesel(sql_type = BigInt)]
    pub last_seq: Seq,
    #[diesel(sql_type = BigInt)]
    pub floor_seq: Seq,
    #[diesel(sql_type = BigInt)]
    pub membership_version: i64,
    #[diesel(sql_type = BigInt)]
    pub receipts_version: i64,
}

/// Everything about a conversation that an actor keeps.
#[derive(Clone, Debug)]
pub struct ConversationState {
    /// Itself and its head.
    pub conversation: ConversationRow,
    /// All intervals, ended ones too.
    pub members: Vec<MemberRow>,
    /// The devices of present members, with their marks.
    pub devices: Vec<MemberDeviceRow>,
}

/// A present member, as other members see him.
#[derive(Clone, Debug, QueryableByName)]
#[allow(missing_docs)]
pub struct ShownMember {
    #[diesel(sql_type = Uuid)]
    pub user_id: UserId,
    #[diesel(sql_type = Word)]
    pub role: Role,
    #[diesel(sql_type = Moment)]
    pub joined_at: Timestamp,
    #[diesel(sql_type = BigInt)]
    pub read_up_to: Seq,
    /// The lowest mark of his devices; 0 without devices.
    #[diesel(sql_type = BigInt)]
    pub delivered_up_to: Seq,
}

/// A conversation as one who is or was a member sees it.
#[derive(Clone, Debug)]
pub struct ShownConversation {
    /// Itself and its head.
    pub conversation: ConversationRow,
    /// Where his interval has ended, if he is no member any more.
    pub left_at: Option<Seq>,
    /// How far he has read.
    pub read_up_to: Seq,
    /// The lowest mark of his devices; 0 for a former member.
    pub delivered_up_to: Seq,
    /// How many members there are; 0 for a former member, who does not see them.
    pub member_count: i64,
    /// The device versions of all members together.
    pub device_versions: i64,
    /// All members of a small conversation, of a larger one only himself.
    pub members: Vec<ShownMember>,
}

/// One receipt of a conversation: a device's delivered mark, or (without a device) a read mark.
#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
#[allow(missing_docs)]
pub struct ReceiptRow {
    #[diesel(sql_type = BigInt)]
    pub version: i64,
    #[diesel(sql_type = Uuid)]
    pub user_id: UserId,
    #[diesel(sql_type = Nullable<Uuid>)]
    pub device_id: Option<DeviceId>,
    #[diesel(sql_type = BigInt)]
    pub up_to: Seq,
    #[diesel(sql_type = Moment)]
    pub at: Timestamp,
}

/// A conversation to be made.
#[derive(Clone, Debug)]
pub struct NewConversation {
    /// Direct or group.
    pub kind: ConversationType,
    /// A group's name.
    pub name: Option<String>,
    /// Who makes it.
    pub creator: UserId,
    /// Everybody, the creator included, without doubles.
    pub members: Vec<UserId>,
}

impl NewConversation {
    /// The two users of a direct conversation as one text, the lower id first.
    #[must_use]
    pub fn direct_pair(&self) -> Option<String> {
        if self.kind != ConversationType::Direct {
            return None;
        }
        pair(&self.members)
    }
}

/// What became of a conversation to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is there.
    Done {
        /// The conversation.
        id: ConversationId,
        /// Whether it is new; else the pair had it.
        is_new: bool,
    },
    /// One of the users does not exist.
    NoSuchUser,
    /// The creator has notified too many users.
    Limited(Reached),
}

/// Two users as one text, the lower id first.
fn pair(members: &[UserId]) -> Option<String> {
    let low = members.iter().min()?;
    let high = members.iter().max()?;
    Some(format!("{low}:{high}"))
}

/// A change of a group's members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// Users to add; those who are there are passed over.
    Add(Vec<UserId>),
    /// Members to remove; oneself alone leaves.
    Remove(Vec<UserId>),
}

/// What became of a change of members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembersChanged {
    /// The conversation does not exist for the caller.
    NotFound,
    /// He lacks the role, or it is a direct conversation.
    Forbidden,
    /// One of the users to add does not exist.
    NoSuchUser,
    /// One of the users to remove is no member.
    NoSuchMember,
    /// The group would have too many members.
    TooMany,
    /// One of the users to add was a member of this group too often.
    TooOften,
    /// The caller has notified too many users.
    Limited(Reached),
    /// Everything was as wanted already.
    Nothing,
    /// Changed.
    Done {
        /// The entry's number in the log.
        seq: Seq,
        /// Everybody whom it concerns: members before and after.
        told: Vec<UserId>,
    },
}
