//! What a device reads to catch up, and its place in the order of connections.

use super::*;
use crate::rows::{BacklogRow, MessageRow, ReceiptRow};
use crate::types::{Moment, Uuid};
use diesel::QueryableByName;
use diesel::result::OptionalExtension;
use diesel::sql_types::BigInt;
use diesel_async::RunQueryDsl;
use sotto_protocol::{ConversationId, DeviceId, Seq, Timestamp, UserId};

#[derive(QueryableByName)]
struct AttemptRow {
    #[diesel(sql_type = BigInt)]
    attempt: i64,
}

/// Where a device stands in conversations of its user: one text for all of them and for one.
macro_rules! places {
    ($where:literal, $rest:literal) => {
        concat!(
            "SELECT m.conversation_id, \
            COALESCE(k.delivered_up_to, MIN(m.from_seq) - 1) AS mark, \
            MAX(COALESCE(m.to_seq, h.last_seq)) AS head, \
            h.floor_seq AS floor, \
            MAX(CASE WHEN m.to_seq IS NULL THEN r.version ELSE 0 END) AS receipts_version, \
            COALESCE(k.receipts_seen, 0) AS receipts_seen \
         FROM memberships m \
         JOIN heads h ON h.conversation_id = m.conversation_id \
         JOIN receipts r ON r.conversation_id = m.conversation_id \
         LEFT JOIN marks k ON k.conversation_id = m.conversation_id AND k.device_id = $2 ",
            $where,
            " GROUP BY m.conversation_id, k.delivered_up_to, k.receipts_seen, h.floor_seq",
            $rest
        )
    };
}

/// Every conversation in which something waits for a device, with where it stands.
pub async fn backlog(
    connection: &mut Connection,
    user: UserId,
    device: DeviceId,
) -> Result<Vec<BacklogRow>, StoreError> {
    Ok(sql(places!(
        "WHERE m.user_id = $1",
        " HAVING MAX(COALESCE(m.to_seq, h.last_seq)) \
                > COALESCE(k.delivered_up_to, MIN(m.from_seq) - 1) \
             OR MAX(CASE WHEN m.to_seq IS NULL THEN r.version ELSE 0 END) \
                > COALESCE(k.receipts_seen, 0) \
         ORDER BY m.conversation_id"
    ))
    .bind::<Uuid, _>(user)
    .bind::<Uuid, _>(device)
    .load(connection)
    .await?)
}

/// Where a device stands in one conversation; `None`: its user never was a member.
pub async fn place(
    connection: &mut Connection,
    user: UserId,
    device: DeviceId,
    conversation: ConversationId,
) -> Result<Option<BacklogRow>, StoreError> {
    Ok(sql(places!("WHERE m.user_id = $1 AND m.conversation_id = $3", ""))
        .bind::<Uuid, _>(user)
        .bind::<Uuid, _>(device)
        .bind::<Uuid, _>(conversation)
        .get_result(connection)
        .await
        .optional()?)
}

/// The messages of a range that a user may see, ascending. The range decides what was covered:
/// absent numbers are not waited for (rule D10).
pub async fn messages(
    connection: &mut Connection,
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
    .load(connection)
    .await?)
}

/// The receipts of a conversation after a version that concern a device, oldest first: others'
/// delivered marks that cover messages of its user, and read marks that it did not set itself. In
/// large conversations only those of its own user.
pub async fn receipts(
    connection: &mut Connection,
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
    .load(connection)
    .await?)
}

/// Claims a connection's number for a device (rule D7): the given one if it is the highest yet, or
/// the next one. `None`: a higher one is known, or the device is gone.
pub async fn claim_attempt(
    connection: &mut Connection,
    device: DeviceId,
    attempt: Option<i64>,
    now: Timestamp,
) -> Result<Option<i64>, StoreError> {
    let claimed: Option<AttemptRow> = match attempt {
        Some(attempt) => sql("UPDATE devices SET attempt = $2, updated_at = $3 \
             WHERE id = $1 AND attempt < $2 RETURNING attempt")
        .bind::<Uuid, _>(device)
        .bind::<BigInt, _>(attempt)
        .bind::<Moment, _>(now)
        .get_result(connection)
        .await
        .optional()?,
        // Multiples of 512 are the device's own to count.
        None => sql("UPDATE devices SET attempt = attempt + CASE WHEN attempt % 512 = 511 THEN 2 ELSE 1 END, \
             updated_at = $2 WHERE id = $1 RETURNING attempt")
        .bind::<Uuid, _>(device)
        .bind::<Moment, _>(now)
        .get_result(connection)
        .await
        .optional()?,
    };
    Ok(claimed.map(|row| row.attempt))
}
