//! What a session is told, and by whom.

use super::Session;
use crate::device::Device;
use crate::mailbox::{Refused, tell};
use actix::{Addr, Message};
use bytes::Bytes;
use sotto_protocol::event::KeysLow;
use sotto_protocol::frame::Activity;
use sotto_protocol::{ConversationId, DeviceId, Seq, SessionId, UserId};
use sotto_schema::rows::MessageRow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::oneshot;
use uuid::Uuid;

/// Before a full mailbox is told again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A committed message on its way to the members of its conversation.
#[derive(Debug)]
pub struct Delivery {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Its head.
    pub seq: Seq,
    /// The message with that number, where it is at hand.
    pub row: Option<MessageRow>,
    /// A shared message as an open object on the wire, made once for all its readers.
    pub shared_text: OnceLock<String>,
}

/// A message was committed, or a head was seen to have grown.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Deliver(pub Arc<Delivery>);

/// Receipts of a conversation wait.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct ReceiptsMoved {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// The newest.
    pub version: i64,
}

/// Events of the user's account log wait.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct AccountMoved(pub i64);

/// Something that is not stored: typing, presence. Dropped under pressure.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Ephemeral {
    /// The frame.
    pub text: Bytes,
    /// The device that caused it.
    pub except: Option<DeviceId>,
}

/// A device's socket has said who it is.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Attach {
    /// The device.
    pub device_id: DeviceId,
    /// Its connection.
    pub connection: SessionId,
    /// The connection's number, claimed in the database (rule D7).
    pub attempt: i64,
    /// The token family that the device has signed in with.
    pub family: Uuid,
    /// Whether the device counts its attempts itself.
    pub explicit: bool,
    /// The socket.
    pub socket: Addr<Device>,
    /// Ends the socket: with a close code, or by being dropped.
    pub lease: oneshot::Sender<u16>,
}

/// A device's socket is gone.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Detach(pub SessionId);

impl Detach {
    /// Tells the session, however long its mailbox is full.
    pub(crate) fn insist(self, session: Addr<Session>) {
        if tell(&session, self) == Err(Refused::Full) {
            actix_rt::spawn(async move {
                while tell(&session, self) == Err(Refused::Full) {
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            });
        }
    }
}

/// A device has stored everything up to `n` of a connection.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Ack {
    /// The connection that `n` belongs to.
    pub connection: SessionId,
    /// The number.
    pub n: u64,
}

/// A device has acknowledged by REST: what it has will not be sent again.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct MarkedElsewhere {
    /// The device.
    pub device_id: DeviceId,
    /// Conversation, number, receipt.
    pub conversations: Vec<(ConversationId, Seq, i64)>,
    /// Account event.
    pub account: i64,
}

/// A device's token family has ended: the socket that came with it closes, and not the one after it.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct End {
    /// The device.
    pub device_id: DeviceId,
    /// The family.
    pub family: Uuid,
    /// The close code.
    pub code: u16,
}

/// One-time keys of a device run out.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct StockIsLow {
    /// The device.
    pub device_id: DeviceId,
    /// What runs out.
    pub low: KeysLow,
}

/// A client says whether somebody uses it.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct SetActivity {
    /// The connection.
    pub connection: SessionId,
    /// What it says.
    pub activity: Activity,
}

/// Another user's device has come, here or elsewhere, and wants to hear whether this one is there.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct PresenceWanted(pub UserId);

/// The device has opened a newer socket at another node: this connection is the old one.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Replace {
    /// The connection; any other stays.
    pub connection: SessionId,
    /// Whether the newer one counts its attempts.
    pub explicit: bool,
}

/// The node drains: all sockets are sent elsewhere.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Drain {
    /// When to come back, in milliseconds.
    pub reconnect_after_ms: u64,
}

/// The node may have missed wakes: every backlog is read again (rules D1 and D3).
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct ReadAgain;
