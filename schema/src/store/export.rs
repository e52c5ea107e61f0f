//! What an export takes beside what its user sees elsewhere.

use crate::rows::export::{ExportedPushRow, ExportedSessionRow, ExportedStayRow};
use sotto_protocol::{ConversationId, Seq, UserId};

super::facade! {
    /// The sessions of an account, the oldest first.
    read fn exported_sessions(user: UserId) -> Vec<ExportedSessionRow> = export::sessions;
    /// The push tokens of an account's devices.
    read fn exported_push_tokens(user: UserId) -> Vec<ExportedPushRow> = export::push_tokens;
    /// Stays of an account in conversations behind one of them, in the order of conversations.
    read fn exported_stays(user: UserId, after: (ConversationId, Seq), limit: i64) -> Vec<ExportedStayRow> = export::stays;
}
