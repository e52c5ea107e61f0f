//! Conversations, their members, their history.

use crate::rows::{
    ConversationState, Created, MemberChange, MembersChanged, MessageRow, NewConversation, ShownConversation,
    ShownMember,
};
use sotto_protocol::{ConversationId, MessageId, Seq, Timestamp, UserId};

super::facade! {
    /// Makes a conversation, or finds the direct one that the pair has. The creator may notify so many users an hour.
    write fn create_conversation(new: NewConversation, notices_per_hour: Option<u32>, now: Timestamp) -> Created = conversations::create;
    /// The direct conversation of a pair, as [`NewConversation::direct_pair`] writes it.
    read fn direct_conversation(pair: String) -> Option<ConversationId> = conversations::direct;
    /// Everything about a conversation that its actor keeps.
    read fn conversation_state(id: ConversationId) -> Option<ConversationState> = conversations::state;
    /// The conversations of a user, newest first, before one of them.
    read fn list_conversations(user: UserId, before: Option<ConversationId>, limit: i64) -> Vec<ConversationId> = conversations::list;
    /// Adds or removes members. The caller may notify so many users an hour.
    write fn change_members(id: ConversationId, by: UserId, change: MemberChange, notices_per_hour: Option<u32>, now: Timestamp) -> MembersChanged = members::change;
    /// The part of a log that a user may see, ascending.
    read fn history(id: ConversationId, user: UserId, after: Option<Seq>, before: Option<Seq>, limit: i64) -> Vec<MessageRow> = conversations::history;
    /// A conversation as a user sees it; `None`: he never was a member.
    read fn shown_conversation(id: ConversationId, user: UserId) -> Option<ShownConversation> = conversations::shown;
    /// Members in the order of their ids, after one of them.
    read fn members_after(id: ConversationId, after: UserId, limit: i64) -> Vec<ShownMember> = conversations::members_after;
    /// Whether a user is a member at present; `None`: he never was one.
    read fn is_member(id: ConversationId, user: UserId) -> Option<bool> = conversations::is_member;
    /// Where a message stands among a user's conversations; two entries say "several".
    read fn homes_of_message(user: UserId, message: MessageId) -> Vec<(ConversationId, Seq)> = conversations::homes_of_message;
    /// A message that a conversation has under an id: number, sender, time.
    read fn known_message(id: ConversationId, message: MessageId) -> Option<(Seq, Option<UserId>, Timestamp)> = conversations::known_message;
}
