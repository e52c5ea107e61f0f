//! What nodes tell each other, and how it is written.
//!
//! Postcard, with a version in front of the seal (`seal.rs`). A change that an older node could misread is a new
//! version; until all nodes have it, the sweep delivers.

use crate::registry::Incarnation;
use crate::session::Delivery;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sotto_protocol::event::{KeyKind, KeysLow};
use sotto_protocol::message::Kind;
use sotto_protocol::{ConversationId, DeviceId, MessageId, Seq, SessionId, Timestamp, UserId};
use sotto_schema::rows::MessageRow;
use std::sync::{Arc, OnceLock};
use uuid::Uuid;

/// A message whose content is larger is told by its number alone; its readers take it from the database.
const LARGEST_PAYLOAD: usize = 64 * 1024;

/// What has happened at another node.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message was committed.
    Delivered(Arc<Delivery>),
    /// Receipts of a conversation were committed, up to this version.
    Receipts(ConversationId, i64),
    /// Events were added to the account logs of those who are told.
    Account,
    /// The members of a conversation have changed, with this entry.
    Members(ConversationId, Seq),
    /// A frame that is not stored, for all devices but one.
    Whisper {
        /// The frame's text.
        text: String,
        /// The device that caused it.
        except: Option<DeviceId>,
    },
    /// A user has come and wants to hear whether those who are told are there.
    PresenceAsked(UserId),
    /// A device has opened a newer socket elsewhere: this one is to be closed.
    Replaced(Replaced),
    /// A token family of a device has ended.
    Ended {
        /// The device.
        device: DeviceId,
        /// The family.
        family: Uuid,
        /// The close code.
        code: u16,
    },
    /// One-time keys of a device run out.
    KeysLow {
        /// The device.
        device: DeviceId,
        /// What runs out.
        low: KeysLow,
    },
    /// A device has acknowledged by REST.
    Marked {
        /// The device.
        device: DeviceId,
        /// Conversation, number, receipt.
        conversations: Vec<(ConversationId, Seq, i64)>,
        /// Account event.
        account: i64,
    },
    /// A canary: see [`Canary`].
    Canary(Canary),
}

/// Names one connection of a device, to be closed if it is still that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// Whose device.
    pub user: UserId,
    /// The connection.
    pub connection: SessionId,
    /// Whether the newer one counts its attempts: then the older is told to stop.
    pub explicit: bool,
}

/// A sign of life from node to node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// Who sent it first.
    pub from: Incarnation,
    /// Its number.
    pub number: u64,
    /// Whether it is on its way back.
    pub returns: bool,
}

/// Whom an event is for.
#[derive(Clone, Debug)]
pub enum Receivers {
    /// Users, wherever they are.
    Users(Vec<UserId>),
    /// One node.
    Node(Incarnation),
}

/// An event on its way.
#[derive(Clone, Debug, actix::Message)]
#[rtype(result = "()")]
pub struct Parcel {
    /// For whom.
    pub to: Receivers,
    /// What.
    pub event: Event,
}

impl Parcel {
    /// About how many bytes it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        let users = if let Receivers::Users(users) = &self.to { users.len() * 16 } else { 0 };
        let event = match &self.event {
            Event::Delivered(delivery) => delivery.row.as_ref().map_or(0, MessageRow::content_size),
            Event::Whisper { text, .. } => text.len(),
            Event::Marked { conversations, .. } => conversations.len() * 32,
            _ => 0,
        };
        128 + users + event
    }
}

/// An event as it is written: with the users at the node that it goes to.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Written {
    users: Vec<UserId>,
    body: Body,
}

#[derive(Debug, Serialize, Deserialize)]
enum Body {
    Delivered { conversation_id: ConversationId, seq: Seq, payload: Option<Payload> },
    Receipts(ConversationId, i64),
    Account,
    Members(ConversationId, Seq),
    Whisper { text: String, except: Option<DeviceId> },
    PresenceAsked(UserId),
    Replaced(Replaced),
    Ended { device: DeviceId, family: Uuid, code: u16 },
    KeysLow { device: DeviceId, kind: KeyKind, remaining: i64 },
    Marked { device: DeviceId, conversations: Vec<(ConversationId, Seq, i64)>, account: i64 },
    Canary(Canary),
}

/// A message's row, without what no fresh message has.
#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    message_id: MessageId,
    sender_user: Option<UserId>,
    sender_device: Option<DeviceId>,
    kind: Kind,
    ciphertext: Option<Vec<u8>>,
    envelopes: Option<Vec<u8>>,
    reply_to: Option<MessageId>,
    client_seq: Option<i64>,
    expires_at: Option<i64>,
    created_at: i64,
}

impl Payload {
    /// `None`: too large, or more than these fields say.
    fn of(row: &MessageRow) -> Option<Self> {
        if row.content_size() > LARGEST_PAYLOAD || row.system.is_some() || row.deleted_at.is_some() {
            return None;
        }
        Some(Self {
            message_id: row.message_id,
            sender_user: row.sender_user,
            sender_device: row.sender_device,
            kind: row.kind,
            ciphertext: row.ciphertext.as_deref().map(<[u8]>::to_vec),
            envelopes: row.envelopes.as_deref().map(<[u8]>::to_vec),
            reply_to: row.reply_to,
            client_seq: row.client_seq,
            expires_at: row.expires_at.map(Timestamp::as_micros),
            created_at: row.created_at.as_micros(),
        })
    }

    fn row(self, conversation_id: ConversationId, seq: Seq) -> MessageRow {
        MessageRow {
            conversation_id,
            seq,
            message_id: self.message_id,
            sender_user: self.sender_user,
            sender_device: self.sender_device,
            kind: self.kind,
            ciphertext: self.ciphertext.map(Bytes::from),
            envelopes: self.envelopes.map(Bytes::from),
            reply_to: self.reply_to,
            client_seq: self.client_seq,
            system: None,
            expires_at: self.expires_at.map(Timestamp::from_micros),
            edited_at: None,
            deleted_at: None,
            created_at: Timestamp::from_micros(self.created_at),
        }
    }
}

impl Written {
    pub(super) fn of(users: Vec<UserId>, event: &Event) -> Self {
        let body = match event {
            Event::Delivered(delivery) => Body::Delivered {
                conversation_id: delivery.conversation_id,
                seq: delivery.seq,
                payload: delivery.row.as_ref().and_then(Payload::of),
            },
            Event::Receipts(conversation, version) => Body::Receipts(*conversation, *version),
            Event::Account => Body::Account,
            Event::Members(conversation, seq) => Body::Members(*conversation, *seq),
            Event::Whisper { text, except } => Body::Whisper { text: text.clone(), except: *except },
            Event::PresenceAsked(user) => Body::PresenceAsked(*user),
            Event::Replaced(replaced) => Body::Replaced(*replaced),
            Event::Ended { device, family, code } => Body::Ended { device: *device, family: *family, code: *code },
            Event::KeysLow { device, low } => {
                Body::KeysLow { device: *device, kind: low.kind, remaining: low.remaining }
            }
            Event::Marked { device, conversations, account } => {
                Body::Marked { device: *device, conversations: conversations.clone(), account: *account }
            }
            Event::Canary(canary) => Body::Canary(*canary),
        };
        Self { users, body }
    }

    pub(super) fn read(self) -> (Vec<UserId>, Event) {
        let event = match self.body {
            Body::Delivered { conversation_id, seq, payload } => Event::Delivered(Arc::new(Delivery {
                conversation_id,
                seq,
                row: payload.map(|payload| payload.row(conversation_id, seq)),
                shared_text: OnceLock::new(),
            })),
            Body::Receipts(conversation, version) => Event::Receipts(conversation, version),
            Body::Account => Event::Account,
            Body::Members(conversation, seq) => Event::Members(conversation, seq),
            Body::Whisper { text, except } => Event::Whisper { text, except },
            Body::PresenceAsked(user) => Event::PresenceAsked(user),
            Body::Replaced(replaced) => Event::Replaced(replaced),
            Body::Ended { device, family, code } => Event::Ended { device, family, code },
            Body::KeysLow { device, kind, remaining } => Event::KeysLow { device, low: KeysLow { kind, remaining } },
            Body::Marked { device, conversations, account } => Event::Marked { device, conversations, account },
            Body::Canary(canary) => Event::Canary(canary),
        };
        (self.users, event)
    }
}
