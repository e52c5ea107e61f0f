//! Users by the thousand, as a load tool orders them.

use serde_json::{Value, json};
use sotto_protocol::conversation::{ConversationType, Role};
use sotto_protocol::{ConversationId, DeviceId, Timestamp, UserId};
use std::fmt::Write as _;

/// A user with one device (suite olm) that is signed in.
#[derive(Clone, Debug)]
pub struct SeedUser {
    /// The user.
    pub user_id: UserId,
    /// E.164; no other account may have it.
    pub phone: String,
    /// The device.
    pub device_id: DeviceId,
    /// Curve25519, 32 bytes.
    pub identity_key: Vec<u8>,
    /// Ed25519, 32 bytes.
    pub signing_key: Vec<u8>,
    /// The signing key's over the identity key, 64 bytes.
    pub identity_signature: Vec<u8>,
    /// Curve25519, 32 bytes.
    pub signed_prekey: Vec<u8>,
    /// The signing key's over the signed prekey, 64 bytes.
    pub signature: Vec<u8>,
    /// The token family.
    pub family: uuid::Uuid,
}

/// A conversation that nobody has written in.
#[derive(Clone, Debug)]
pub struct SeedConversation {
    /// Its id.
    pub conversation_id: ConversationId,
    /// Direct ones have two members.
    pub kind: ConversationType,
    /// Who is in it; the first one made it.
    pub members: Vec<UserId>,
}

/// What one transaction stores.
#[derive(Clone, Debug)]
pub struct Seed {
    /// Users who are not there yet.
    pub users: Vec<SeedUser>,
    /// Conversations among them.
    pub conversations: Vec<SeedConversation>,
    /// When the signed prekeys should be replaced.
    pub signed_prekey_expires_at: Timestamp,
    /// When the token families end.
    pub families_expire_at: Timestamp,
}

impl Seed {
    /// One object per user: ids and bytes as hexadecimal digits, which both databases read.
    pub(crate) fn user_rows(&self) -> Value {
        let row = |user: &SeedUser| {
            json!({
                "user": hex(user.user_id.as_bytes()),
                "phone": user.phone,
                "device": hex(user.device_id.as_bytes()),
                "identity_key": hex(&user.identity_key),
                "signing_key": hex(&user.signing_key),
                "identity_signature": hex(&user.identity_signature),
                "signed_prekey": hex(&user.signed_prekey),
                "signature": hex(&user.signature),
                "family": hex(user.family.as_bytes()),
            })
        };
        self.users.iter().map(row).collect()
    }

    /// One object per conversation.
    pub(crate) fn conversation_rows(&self) -> Value {
        let row = |conversation: &SeedConversation| {
            let is_direct = conversation.kind == ConversationType::Direct;
            let pair = super::pair(&conversation.members).filter(|_| is_direct);
            json!({
                "conversation": hex(conversation.conversation_id.as_bytes()),
                "kind": conversation.kind.as_str(),
                "pair": pair,
                "creator": conversation.members.first().map(|creator| hex(creator.as_bytes())),
            })
        };
        self.conversations.iter().map(row).collect()
    }

    /// One object per member of a conversation.
    pub(crate) fn member_rows(&self) -> Value {
        let rows = self.conversations.iter().flat_map(|conversation| {
            let members = conversation.members.iter().enumerate();
            members.map(|(place, member)| {
                let owns = place == 0 && conversation.kind == ConversationType::Group;
                json!({
                    "conversation": hex(conversation.conversation_id.as_bytes()),
                    "user": hex(member.as_bytes()),
                    "role": if owns { Role::Owner } else { Role::Member }.as_str(),
                })
            })
        });
        rows.collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_digits() {
        assert_eq!(hex(&[0, 1, 0xab, 0xff]), "0001abff");
    }
}
