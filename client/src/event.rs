//! What the application hears.

use sotto_protocol::account::AccountDeletion;
use sotto_protocol::conversation::Conversation;
use sotto_protocol::event::{
    Delivered, DeviceExpiring, DeviceUpdated, DevicesChanged, HistoryPruned, PhoneChanged, Read,
};
use sotto_protocol::frame::{Presence, Typing};
use sotto_protocol::message::{Kind, Sender, SystemEntry};
use sotto_protocol::{ConversationId, MessageId, Seq, Timestamp};
use std::fmt;
use std::time::Duration;
use uuid::Uuid;

/// Something happened. Whatever came from the server's log is in the store before it is told here.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The socket is open and the server has said welcome.
    Connected {
        /// This connection.
        session_id: Uuid,
        /// The server's node.
        node: String,
        /// Whether a backlog follows.
        pending: bool,
    },
    /// The backlog has been received; what follows is live.
    Drained,
    /// The socket is gone.
    Disconnected {
        /// The close code; `None` when the connection broke without one.
        code: Option<u16>,
        /// When the next attempt is made; `None`: not before the application connects again.
        retry_in: Option<Duration>,
    },
    /// A readable message, from another user or from another device of this one.
    Message(Message),
    /// A message that cannot be read, now or ever.
    Undecryptable(Undecryptable),
    /// Members joined or left.
    Membership {
        /// Where.
        conversation_id: ConversationId,
        /// The entry's number in the conversation.
        seq: Seq,
        /// What happened.
        entry: SystemEntry,
        /// When.
        at: Timestamp,
    },
    /// A device of another user has stored messages of this user.
    Delivered(Delivered),
    /// A member has read.
    Read(Read),
    /// A conversation's name, members or roles changed, or it is new.
    ConversationChanged(Box<Conversation>),
    /// A user's devices changed. A careful application tells the user.
    DevicesChanged(DevicesChanged),
    /// A device of this account has another name, or was verified.
    DeviceUpdated(DeviceUpdated),
    /// Another device of this account will be removed for its silence.
    DeviceExpiring(DeviceExpiring),
    /// This account will be deleted, or will not any more: let the user know.
    AccountDeletion(AccountDeletion),
    /// This account has another number.
    PhoneChanged(PhoneChanged),
    /// Older messages are gone from the server; the store still has those it got.
    HistoryPruned(HistoryPruned),
    /// Somebody writes, or stopped.
    Typing(Typing),
    /// Somebody came or went.
    Presence(Presence),
    /// On one connection the server passed from one message to another that is not its next: a
    /// fault of the server, told so that tests and operators see it.
    Gap {
        /// Where.
        conversation_id: ConversationId,
        /// The last number that came on this connection.
        expected_after: Seq,
        /// The number that the server says came before.
        after_seq: Seq,
    },
    /// The reader of this stream was slow: state events were left out, messages were not.
    Lagged {
        /// How many.
        missed: u64,
    },
    /// The session has ended; signing in again with the same store gives the same device back.
    SignedOut,
}

/// A readable message. `Debug` shows no text.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Grows in the order in which this device could read messages. An application that keeps the
    /// last position it handled goes on exactly there after a restart.
    pub position: i64,
    /// Named by its sender.
    pub message_id: MessageId,
    /// Where it stands.
    pub conversation_id: ConversationId,
    /// Its number there.
    pub seq: Seq,
    /// What it is for.
    pub kind: Kind,
    /// Who sent it.
    pub from: Sender,
    /// The decrypted content.
    pub content: Vec<u8>,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
    /// The sender's own count in this conversation.
    pub client_seq: Option<i64>,
    /// When the server stored it.
    pub server_time: Timestamp,
}

impl Message {
    /// The content as text; `None` if it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.content).ok()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Message")
            .field("position", &self.position)
            .field("message_id", &self.message_id)
            .field("conversation_id", &self.conversation_id)
            .field("seq", &self.seq)
            .field("kind", &self.kind)
            .field("from", &self.from)
            .field("content", &format_args!("{} bytes", self.content.len()))
            .finish_non_exhaustive()
    }
}

/// A message that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecryptable {
    /// Named by its sender.
    pub message_id: MessageId,
    /// Where it stands.
    pub conversation_id: ConversationId,
    /// Its number there.
    pub seq: Seq,
    /// Who sent it.
    pub from: Sender,
    /// Why.
    pub reason: Reason,
}

/// Why a message cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The group's key has not arrived yet; once it does, the message follows.
    KeyMissing,
    /// There is no session that fits.
    NoSession,
    /// The ciphertext is damaged or was seen before.
    Damaged,
    /// The device showed another identity key than before.
    IdentityChanged,
    /// What is inside says another sender, place or name than what is outside.
    Forged,
    /// It was made by something that this library does not understand.
    Unsupported,
}
