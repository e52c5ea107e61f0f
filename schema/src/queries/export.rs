//! What an export takes beside what its user sees elsewhere.

use super::*;
use crate::rows::export::{ExportedPushRow, ExportedSessionRow, ExportedStayRow};
use crate::types::Uuid;
use diesel::sql_types::BigInt;
use diesel_async::RunQueryDsl;
use sotto_protocol::{ConversationId, Seq, UserId};

/// The sessions of an account, the oldest first.
pub async fn sessions(connection: &mut Connection, user: UserId) -> Result<Vec<ExportedSessionRow>, StoreError> {
    Ok(sql("SELECT id, device_id, created_at, expires_at FROM sessions WHERE user_id = $1 ORDER BY created_at, id")
        .bind::<Uuid, _>(user)
        .load(connection)
        .await?)
}

/// The push tokens of an account's devices.
pub async fn push_tokens(connection: &mut Connection, user: UserId) -> Result<Vec<ExportedPushRow>, StoreError> {
    Ok(sql("SELECT id, push FROM devices WHERE user_id = $1").bind::<Uuid, _>(user).load(connection).await?)
}

/// Stays of an account in conversations behind one of them, in the order of conversations.
pub async fn stays(
    connection: &mut Connection,
    user: UserId,
    after: (ConversationId, Seq),
    limit: i64,
) -> Result<Vec<ExportedStayRow>, StoreError> {
    Ok(sql("SELECT m.conversation_id, c.kind, c.name, m.role, m.joined_at, m.from_seq, m.to_seq, \
             COALESCE(r.read_up_to, 0) AS read_up_to \
         FROM memberships m JOIN conversations c ON c.id = m.conversation_id \
         LEFT JOIN reads r ON r.conversation_id = m.conversation_id AND r.user_id = m.user_id \
         WHERE m.user_id = $1 AND (m.conversation_id, m.from_seq) > ($2, $3) \
         ORDER BY m.conversation_id, m.from_seq LIMIT $4")
    .bind::<Uuid, _>(user)
    .bind::<Uuid, _>(after.0)
    .bind::<BigInt, _>(after.1)
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await?)
}
