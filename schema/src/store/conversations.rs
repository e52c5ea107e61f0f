//! Conversations, their members, their history.

use crate::rows::{ConversationState, MemberChange, MembersChanged, MessageRow, NewConversation};
use sotto_protocol::{ConversationId, MessageId, Seq, Timestamp, UserId};

super::facade! {
    /// Makes a conversation, or finds the direct one that the pair has (`false`). `None`: one of the
    /// users does not exist.
    write fn create_conversation(new: NewConversation, now: Timestamp) -> Option<(ConversationId, bool)> = conversations::create;
    /// The direct conversation of a pair, as [`NewConversation::direct_pair`] writes it.
    read fn direct_conversation(pair: String) -> Option<ConversationId> = conversations::direct;
    /// Everything about a conversation that its actor keeps.
    read fn conversation_state(id: ConversationId) -> Option<ConversationState> = conversations::state;
    /// The conversations of a user, newest first, before one of them.
    read fn list_conversations(user: UserId, before: Option<ConversationId>, limit: i64) -> Vec<ConversationId> = conversations::list;
    /// Adds or removes members.
    write fn change_members(id: ConversationId, by: UserId, change: MemberChange, now: Timestamp) -> MembersChanged = conversations::change_members;
    /// The part of a log that a user may see, ascending.
    read fn history(id: ConversationId, user: UserId, after: Option<Seq>, before: Option<Seq>, limit: i64) -> Vec<MessageRow> = conversations::history;
    /// Whether a user is or was a member.
    read fn was_member(id: ConversationId, user: UserId) -> bool = conversations::was_member;
    /// Where a message stands among a user's conversations; two entries say "several".
    read fn homes_of_message(user: UserId, message: MessageId) -> Vec<(ConversationId, Seq)> = conversations::homes_of_message;
    /// A message that a conversation has under an id: number, sender, time.
    read fn known_message(id: ConversationId, message: MessageId) -> Option<(Seq, Option<UserId>, Timestamp)> = conversations::known_message;
}
