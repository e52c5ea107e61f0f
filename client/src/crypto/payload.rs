//! What stands inside a ciphertext: a header that repeats what the server could alter, and the content.

use serde::{Deserialize, Serialize};
use sotto_protocol::message::{Kind, Message};
use sotto_protocol::{Binary, ConversationId, DeviceId, MessageId, UserId};
use zeroize::Zeroizing;

const VERSION: u8 = 1;

/// Binds a content to its place, name and sender, so that a server that moves a ciphertext is found out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    v: u8,
    pub(crate) conversation_id: ConversationId,
    pub(crate) message_id: MessageId,
    pub(crate) kind: Kind,
    pub(crate) from_user: UserId,
    pub(crate) from_device: DeviceId,
    /// The sender's identity key.
    pub(crate) from_identity: Binary,
    /// The receiver's identity key, where there is one receiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to_identity: Option<Binary>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reply_to: Option<MessageId>,
    /// The content is for the library: a [`super::group::RoomKey`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) internal: bool,
}

impl Header {
    pub(crate) fn new(
        message: &crate::store::QueuedMessage,
        me: super::Me,
        from_identity: &[u8],
        to_identity: Option<&[u8]>,
    ) -> Self {
        Self {
            v: VERSION,
            conversation_id: message.conversation_id,
            message_id: message.message_id,
            kind: message.kind,
            from_user: me.user_id,
            from_device: me.device_id,
            from_identity: from_identity.to_vec().into(),
            to_identity: to_identity.map(|key| key.to_vec().into()),
            reply_to: message.reply_to,
            internal: message.internal,
        }
    }

    /// Whether the header says the same as the message that the server delivered.
    pub(crate) fn fits(&self, message: &Message) -> bool {
        self.conversation_id == message.conversation_id
            && self.message_id == message.message_id
            && self.kind == message.kind
            && self.reply_to == message.reply_to
            && message.from.is_some_and(|from| from.user_id == self.from_user && from.device_id == self.from_device)
    }
}

/// Header and content as they are encrypted: the header's length in four bytes, header, content.
pub(crate) fn encode(header: &Header, body: &[u8]) -> Zeroizing<Vec<u8>> {
    let head = serde_json::to_vec(header).unwrap_or_default();
    let length = u32::try_from(head.len()).unwrap_or(0);
    let mut text = Zeroizing::new(Vec::with_capacity(4 + head.len() + body.len()));
    text.extend_from_slice(&length.to_be_bytes());
    text.extend_from_slice(&head);
    text.extend_from_slice(body);
    text
}

/// Reads what [`encode`] wrote; `None` for anything else, and for later versions.
pub(crate) fn decode(text: &[u8]) -> Option<super::Opened> {
    let (length, rest) = text.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (head, body) = rest.split_at_checked(length)?;
    let header: Header = serde_json::from_slice(head).ok()?;
    (header.v == VERSION).then(|| super::Opened { header, body: Zeroizing::new(body.to_vec()) })
}
