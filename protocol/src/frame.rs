//! WebSocket frames: one JSON object per text message, `{"t","id"?,"re"?,"n"?,"d"}`.

use crate::{ConversationId, DeviceId, Seq, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use uuid::Uuid;

/// A frame whose `d` has not been read yet: the envelope tells what `d` is.
#[derive(Debug, Deserialize)]
pub struct RawFrame<'a> {
    /// The type.
    #[serde(borrow)]
    pub t: Cow<'a, str>,
    /// Numbers a client's request.
    #[serde(default)]
    pub id: Option<u64>,
    /// The request that this answers.
    #[serde(default)]
    pub re: Option<u64>,
    /// Numbers the durable events of this connection.
    #[serde(default)]
    pub n: Option<u64>,
    /// The content.
    #[serde(borrow, default)]
    pub d: Option<&'a RawValue>,
}

impl RawFrame<'_> {
    /// The text of `d`, or `{}` where there is none.
    #[must_use]
    pub fn data(&self) -> &str {
        self.d.map_or("{}", RawValue::get)
    }
}

/// A frame to be written, members in the order of the contract.
#[derive(Debug, Serialize)]
pub struct Frame<'a, D> {
    /// The type.
    pub t: &'a str,
    /// Numbers a client's request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// The request that this answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub re: Option<u64>,
    /// Numbers the durable events of this connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    /// The content.
    pub d: D,
}

impl<'a, D: Serialize> Frame<'a, D> {
    /// A frame without numbers.
    pub const fn new(t: &'a str, d: D) -> Self {
        Self { t, id: None, re: None, n: None, d }
    }

    /// The same frame as the answer to a request.
    #[must_use]
    pub fn answering(mut self, re: Option<u64>) -> Self {
        self.re = re;
        self
    }

    /// The same frame with a request's number.
    #[must_use]
    pub fn numbered(mut self, id: u64) -> Self {
        self.id = Some(id);
        self
    }

    /// The compact JSON text. Our own types always serialize; a failure gives an empty object.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned())
    }
}

/// `hello`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Hello {
    /// Access token.
    pub token: String,
    /// Protocol version, 1.
    pub version: i64,
    /// Name and version of the client, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Counted up by the device at every attempt to connect, and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<i64>,
}

/// `welcome`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// This connection.
    pub session_id: Uuid,
    /// The node's name.
    pub node: String,
    /// The store's generation; new after a restore.
    pub epoch: Uuid,
    /// Milliseconds between pings; silence of twice that ends the connection.
    pub heartbeat_ms: u64,
    /// Most durable events in flight.
    pub window: u64,
    /// Largest frame in bytes.
    pub max_frame: u64,
    /// When the access token runs out.
    pub token_expires_at: Timestamp,
    /// The server's clock.
    pub server_time: Timestamp,
    /// Whether there is a backlog.
    pub pending: bool,
}

/// `auth`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Auth {
    /// A newer access token of the same device.
    pub token: String,
}

/// `auth_expiring`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuthExpiring {
    /// Seconds left.
    pub expires_in: u64,
}

/// `ack` and `acked`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Ack {
    /// Every durable event up to here.
    pub n: u64,
}

/// `mark_read`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct MarkRead {
    pub conversation_id: ConversationId,
    /// Everything up to this number was read.
    pub up_to: Seq,
}

/// Whether somebody writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum TypingState {
    Started,
    Stopped,
}

/// `typing`, both ways; `user_id` and `device_id` only from the server.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Typing {
    pub conversation_id: ConversationId,
    pub state: TypingState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<DeviceId>,
}

/// What a client says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Activity {
    Active,
    Idle,
}

/// `presence` upward.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PresenceUp {
    pub state: Activity,
}

/// Whether a user is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Availability {
    Online,
    Offline,
}

/// `presence` downward.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Presence {
    pub user_id: UserId,
    pub state: Availability,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<Timestamp>,
}

/// `goaway`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct GoAway {
    pub reason: String,
    /// When to come back, in milliseconds.
    pub reconnect_after_ms: u64,
}

/// An empty `d`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Empty {}
