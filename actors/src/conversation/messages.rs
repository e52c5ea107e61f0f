//! What a conversation is told, and by whom.

use crate::pressure::Permit;
use crate::rate_limit::Decision;
use crate::reply::Reply;
use actix::Message;
use sotto_protocol::frame::TypingState;
use sotto_protocol::message::{OutgoingMessage, Sender};
use sotto_protocol::{DeviceId, Problem, Seq, UserId};
use sotto_schema::append::Raised;
use tokio::sync::oneshot;

/// A message to be appended.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Send {
    /// Who sends.
    pub sender: Sender,
    /// What; its shape has been checked.
    pub message: OutgoingMessage,
    /// The sender is over his limit: refuse with this time to wait, unless it is a repeat.
    pub limited: Option<Decision>,
    /// Its place among those that wait.
    pub permit: Permit,
    /// Where the answer goes.
    pub reply: Reply,
}

/// Heads that a sweep or another node has seen: 0 says nothing.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Wake {
    /// Number of the last message.
    pub seq: Seq,
    /// The newest receipt.
    pub receipts: i64,
    /// Tell even what was told before: a mailbox refused it.
    pub again: bool,
}

/// Marks of this conversation that were raised and committed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct MarksRaised(pub Vec<Raised>);

/// A change of the members was committed: an entry of the log that is to be told.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct MembersMoved {
    /// The entry's number.
    pub seq: Seq,
}

/// A member reads.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ReadUpTo {
    /// Who.
    pub user: UserId,
    /// On which device.
    pub device: DeviceId,
    /// Up to where.
    pub up_to: Seq,
    /// Answered after the commit.
    pub reply: oneshot::Sender<Result<(), Problem>>,
}

/// A member writes, or stops to.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct TypingSignal {
    /// Who.
    pub sender: Sender,
    /// What.
    pub state: TypingState,
}
