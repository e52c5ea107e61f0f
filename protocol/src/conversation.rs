//! Bodies of conversations: creating, listing, members, read marks.

use crate::{ConversationId, Seq, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Two people, or a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum ConversationType {
    Direct,
    Group,
}

impl ConversationType {
    /// The type as it stands on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Group => "group",
        }
    }

    /// Reads what [`ConversationType::as_str`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Direct, Self::Group].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Role {
    Owner,
    Admin,
    Member,
}

impl Role {
    /// The role as it stands on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
        }
    }

    /// Reads what [`Role::as_str`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Owner, Self::Admin, Self::Member].into_iter().find(|role| role.as_str() == text)
    }

    /// Whether the role adds and removes members.
    #[must_use]
    pub const fn manages_members(self) -> bool {
        matches!(self, Self::Owner | Self::Admin)
    }
}

/// `POST /v1/conversations`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreateConversation {
    /// Direct or group.
    #[serde(rename = "type")]
    pub kind: ConversationType,
    /// The others; a direct conversation names exactly one.
    pub members: Vec<UserId>,
    /// A group's name, at most 100 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A conversation as a member sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Conversation {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Direct or group.
    #[serde(rename = "type")]
    pub kind: ConversationType,
    /// A group's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Present members: all of them up to 50; in larger conversations the caller alone, and the others come by page.
    pub members: Vec<Member>,
    /// How many members there are; 0 for a former member.
    #[serde(default)]
    pub member_count: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// Number of its last message.
    pub last_seq: Seq,
    /// The caller has read up to here.
    pub read_up_to: Seq,
    /// All devices of the caller have received up to here.
    pub delivered_up_to: Seq,
    /// Version of the device list, for shared ciphertexts.
    pub roster: String,
}

impl Conversation {
    /// Whether `members` names all of them.
    #[must_use]
    pub fn has_all_members(&self) -> bool {
        usize::try_from(self.member_count).is_ok_and(|count| self.members.len() >= count)
    }
}

/// A present member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// The account.
    pub user_id: UserId,
    /// What he may do.
    pub role: Role,
    /// Since when.
    pub joined_at: Timestamp,
    /// He has read up to here.
    pub read_up_to: Seq,
    /// All his devices have received up to here.
    pub delivered_up_to: Seq,
}

/// `POST` and `DELETE /v1/conversations/{id}/members`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MemberChange {
    /// Whom to add or remove; oneself alone leaves.
    pub user_ids: Vec<UserId>,
}

/// `PUT /v1/conversations/{id}/read`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReadUpTo {
    /// Everything up to this number has been read.
    pub up_to: Seq,
}

/// `PUT /v1/messages/{message_id}/read`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ReadMessage {
    /// The conversation, where the message id alone does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<ConversationId>,
}

/// A page of a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page starts; `null` at the end.
    pub next: Option<String>,
}
