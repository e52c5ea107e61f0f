//! What a device reads to catch up, and its place in the order of connections.

use super::*;
use crate::rows::{BacklogRow, MessageRow, ReceiptRow};
use crate::types::Uuid;
use diesel::result::OptionalExtension;
use diesel::sql_types::BigInt;
use diesel_async::RunQueryDsl;
use sotto_protocol::{ConversationId, DeviceId, Seq, UserId};

/// Where a device stands in one conversation; `None`: its user never was a member.
pub async fn place(
    mut connection: Shared<'_>,
    user: UserId,
    device: DeviceId,
    conversation: ConversationId,
) -> Result<Option<BacklogRow>, StoreError> {
    Ok(sql(places!(
        []
        ["memberships m",]
        ["$2",]
        [" WHERE m.user_id = $1 AND m.conversation_id = $3 \
           GROUP BY m.conversation_id, k.delivered_up_to, k.receipts_seen, h.floor_seq"]
    ))
    .bind::<Uuid, _>(user)
    .bind::<Uuid, _>(device)
    .bind::<Uuid, _>(conversation)
    .get_result(&mut connection)
    .await
    .optional()?)
}

/// The messages of a range that a user may see, ascending. The range decides what was covered:
/// absent numbers are not waited for (rule D10).
pub async fn messages(
    mut connection: Shared<'_>,
    conversation: ConversationId,
    user: UserId,
    after: Seq,
    up_to: Seq,
    limit: i64,
) -> Result<Vec<MessageRow>, StoreError> {
    Ok(sql("SELECT conversation_id, seq, message_id, sender_user, sender_device, kind, \
            ciphertext, envelopes, reply_to, client_seq, system, expires_at, edited_at, \
            deleted_at, created_at \
         FROM messages g WHERE conversation_id = $1 AND seq > $2 AND seq <= $3 AND EXISTS \
            (SELECT 1 FROM memberships m WHERE m.conversation_id = g.conversation_id \
             AND m.user_id = $4 AND m.from_seq <= g.seq \
             AND (m.to_seq IS NULL OR g.seq <= m.to_seq)) ORDER BY seq LIMIT $5")
    .bind::<Uuid, _>(conversation)
    .bind::<BigInt, _>(after)
    .bind::<BigInt, _>(up_to)
    .bind::<Uuid, _>(user)
    .bind::<BigInt, _>(limit)
    .load(&mut connection)
    .await?)
}

/// The receipts of a conversation after a version that concern a device, oldest first: others'
/// delivered marks that cover messages of its user, and read marks that it did not set itself. In
/// large conversations only those of its own user.
pub async fn receipts(
    mut connection: Shared<'_>,
    conversation: ConversationId,
    user: UserId,
    device: DeviceId,
    after: i64,
    limit: i64,
) -> Result<Vec<ReceiptRow>, StoreError> {
    Ok(sql("SELECT k.delivered_version AS version, k.user_id, k.device_id, \
            k.delivered_up_to AS up_to, k.delivered_at AS at \
         FROM marks k \
         WHERE k.conversation_id = $1 AND k.delivered_version > $2 AND k.user_id <> $3 \
           AND EXISTS (SELECT 1 FROM memberships m WHERE m.conversation_id = $1 \
             AND m.user_id = $3 AND m.to_seq IS NULL AND m.first_sent_seq <= k.delivered_up_to) \
           AND (SELECT COUNT(*) FROM memberships c \
             WHERE c.conversation_id = $1 AND c.to_seq IS NULL) <= $5 \
         UNION ALL \
         SELECT r.read_version, r.user_id, CAST(NULL AS uuid), r.read_up_to, r.read_at \
         FROM reads r \
         WHERE r.conversation_id = $1 AND r.read_version > $2 AND r.read_by <> $4 \
           AND (r.user_id = $3 OR (SELECT COUNT(*) FROM memberships c \
             WHERE c.conversation_id = $1 AND c.to_seq IS NULL) <= $5) \
         ORDER BY 1 LIMIT $6")
    .bind::<Uuid, _>(conversation)
    .bind::<BigInt, _>(after)
    .bind::<Uuid, _>(user)
    .bind::<Uuid, _>(device)
    .bind::<BigInt, _>(i64::try_from(sotto_protocol::limits::MAX_MEMBERS_WITH_RECEIPTS).unwrap_or(50))
    .bind::<BigInt, _>(limit)
    .load(&mut connection)
    .await?)
}
