//! What a device is told.

use actix::Message;
use bytes::Bytes;

/// Frames for the socket, in order.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Push(pub Vec<Bytes>);

/// A frame that may be dropped.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Whisper(pub Bytes);

/// The session has read the backlog: `welcome` goes out, and everything else after it.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Joined {
    /// Whether there is a backlog.
    pub pending: bool,
}
