//! What a device reads to catch up.

use crate::append::Wake;
use crate::rows::{BacklogRow, MessageRow, ReceiptRow};
use sotto_protocol::{ConversationId, DeviceId, Seq, UserId};

super::facade! {
    /// Where a device stands in one conversation; `None`: its user never was a member.
    read fn place(user: UserId, device: DeviceId, conversation: ConversationId) -> Option<BacklogRow> = sync::place;
    /// The messages of a range (after, up to] that a user may see, ascending.
    read fn messages(conversation: ConversationId, user: UserId, after: Seq, up_to: Seq, limit: i64) -> Vec<MessageRow> = sync::messages;
    /// The receipts of a conversation after a version that concern a device, oldest first.
    read fn receipts(conversation: ConversationId, user: UserId, device: DeviceId, after: i64, limit: i64) -> Vec<ReceiptRow> = sync::receipts;
    /// The wakes since a position, and the next position.
    read fn wakes_since(position: i64) -> (Vec<Wake>, i64) = wakes::since;
    /// Who is or ever was a member of these conversations.
    read fn readers(conversations: Vec<ConversationId>) -> Vec<(ConversationId, UserId)> = wakes::readers;
    /// Where a sweep that starts now begins.
    read fn wakes_position() -> i64 = wakes::position;
    /// Removes wakes of more than ten minutes ago.
    write fn prune_wakes() -> usize = wakes::prune;
}
