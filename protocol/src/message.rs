//! Messages: what a device sends, what it gets as an answer, what others receive.

use crate::problem::{ErrorCode, FieldError, Problem};
use crate::{Binary, ConversationId, DeviceId, MessageId, Seq, Timestamp, UserId, json, limits};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use utoipa::ToSchema;

/// What a message is for; the server does not look inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Kind {
    Text,
    Media,
    File,
    Call,
    System,
}

impl Kind {
    /// The kind as it stands on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Media => "media",
            Self::File => "file",
            Self::Call => "call",
            Self::System => "system",
        }
    }

    /// Reads what [`Kind::as_str`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Text, Self::Media, Self::File, Self::Call, Self::System].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// One device's own ciphertext of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Envelope {
    /// The receiver.
    pub user_id: UserId,
    /// His device.
    pub device_id: DeviceId,
    /// The registration id that the ciphertext was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration_id: Option<i64>,
    /// 0…255, carried and not read (signal 2, 3; olm 0, 1).
    #[serde(rename = "type")]
    pub kind: u8,
    /// 1 byte … 96 KiB.
    pub ciphertext: Binary,
}

/// A message as a device sends it: one shared `ciphertext`, or `envelopes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutgoingMessage {
    /// Made by the client; a repeat carries the same.
    pub message_id: MessageId,
    /// Where to.
    pub conversation_id: ConversationId,
    /// What it is for.
    pub kind: Kind,
    /// One ciphertext for everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ciphertext: Option<Binary>,
    /// One ciphertext per device of every other member and of the sender's other devices.
    #[serde(default, deserialize_with = "json::optional_objects", skip_serializing_if = "Option::is_none")]
    pub envelopes: Option<Vec<Envelope>>,
    /// The message it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
    /// Seconds until it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<i64>,
    /// 1, 2, 3 … per sending device and conversation; carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_seq: Option<i64>,
    /// The device list's version that a shared ciphertext was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roster: Option<String>,
}

impl OutgoingMessage {
    /// Checks the shape, without looking at anything stored.
    ///
    /// # Errors
    /// `validation_failed` with pointers, or `payload_too_large` for too many envelopes or bytes.
    pub fn check(&self, sender: DeviceId) -> Result<(), Problem> {
        let mut errors = Vec::new();
        match (&self.ciphertext, &self.envelopes) {
            (Some(_), Some(_)) => errors.push(FieldError::at("/envelopes", "not_with_ciphertext")),
            (None, None) => errors.push(FieldError::at("/ciphertext", "missing")),
            (Some(ciphertext), None) => check_ciphertext("/ciphertext", ciphertext, &mut errors)?,
            (None, Some(envelopes)) => check_envelopes(envelopes, sender, &mut errors)?,
        }
        if self.expires_in.is_some_and(|seconds| !(1..=31_536_000).contains(&seconds)) {
            errors.push(FieldError::at("/expires_in", "out_of_range"));
        }
        if self.client_seq.is_some_and(|count| count < 1) {
            errors.push(FieldError::at("/client_seq", "out_of_range"));
        }
        if self.roster.as_ref().is_some_and(|roster| roster.len() > 200) {
            errors.push(FieldError::at("/roster", "too_long"));
        }
        if errors.is_empty() { Ok(()) } else { Err(Problem::invalid(errors)) }
    }
}

fn check_ciphertext(pointer: &str, ciphertext: &Binary, errors: &mut Vec<FieldError>) -> Result<(), Problem> {
    if ciphertext.is_empty() {
        errors.push(FieldError::at(pointer, "empty"));
    }
    if ciphertext.len() > limits::MAX_CIPHERTEXT {
        let mut problem = Problem::new(
            ErrorCode::PayloadTooLarge,
            format!("a ciphertext has at most {} bytes", limits::MAX_CIPHERTEXT),
        );
        problem.errors.push(FieldError::at(pointer, "too_long"));
        return Err(problem);
    }
    Ok(())
}

fn check_envelopes(envelopes: &[Envelope], sender: DeviceId, errors: &mut Vec<FieldError>) -> Result<(), Problem> {
    if envelopes.len() > limits::MAX_ENVELOPES {
        let detail = format!("at most {} envelopes; use one shared ciphertext", limits::MAX_ENVELOPES);
        return Err(Problem::new(ErrorCode::PayloadTooLarge, detail));
    }
    let mut seen = HashSet::with_capacity(envelopes.len());
    for (index, envelope) in envelopes.iter().enumerate() {
        check_ciphertext(&format!("/envelopes/{index}/ciphertext"), &envelope.ciphertext, errors)?;
        if envelope.device_id == sender {
            let pointer = format!("/envelopes/{index}/device_id");
            errors.push(FieldError::at(pointer, "sending_device"));
        }
        if !seen.insert(envelope.device_id) {
            let pointer = format!("/envelopes/{index}/device_id");
            errors.push(FieldError::at(pointer, "repeated"));
        }
    }
    Ok(())
}

/// The answer to a send: the message is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sent {
    /// As sent.
    pub message_id: MessageId,
    /// As sent.
    pub conversation_id: ConversationId,
    /// Its number.
    pub seq: Seq,
    /// When it was stored.
    pub server_time: Timestamp,
    /// Whether it was stored by an earlier request.
    pub duplicate: bool,
}

/// The device that sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sender {
    /// The account.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
}

/// What a membership entry of the log tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum MembershipEvent {
    Joined,
    Left,
    Removed,
}

/// An entry of the log that the server wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SystemEntry {
    /// What happened.
    pub event: MembershipEvent,
    /// To whom.
    pub user_ids: Vec<UserId>,
    /// By whom.
    pub by: UserId,
}

/// A message as a device receives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Message {
    /// Named by its sender.
    pub message_id: MessageId,
    /// Where it stands.
    pub conversation_id: ConversationId,
    /// Its number there.
    pub seq: Seq,
    /// What it is for.
    pub kind: Kind,
    /// `null`: written by the server.
    pub from: Option<Sender>,
    /// The shared ciphertext or this device's own; `null` where none was made for this device.
    pub ciphertext: Option<Binary>,
    /// The envelope's type.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub envelope_type: Option<u8>,
    /// The message it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
    /// The sender's count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_seq: Option<i64>,
    /// When it was stored.
    pub server_time: Timestamp,
    /// When it was edited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited_at: Option<Timestamp>,
    /// When it was deleted; the ciphertext is gone then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// When it expires or expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// In `new_message`: the number of the event before it on this connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_seq: Option<Seq>,
    /// What the server tells by this entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemEntry>,
}

/// A device in a list of differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct DeviceRef {
    /// The account.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
}
