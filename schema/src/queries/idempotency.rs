//! Answers that are kept for the same `Idempotency-Key`.

use super::*;
use crate::rows::idempotency::{IdempotencyClaim, IdempotencySlot};
use crate::types::{Moment, Uuid};
use diesel::QueryableByName;
use diesel::result::OptionalExtension;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use diesel_async::RunQueryDsl;
use sotto_protocol::Timestamp;

#[derive(QueryableByName)]
struct ClaimedRow {
    #[diesel(sql_type = Moment)]
    created_at: Timestamp,
}

#[derive(QueryableByName)]
struct KeptRow {
    #[diesel(sql_type = Binary)]
    body_hash: Vec<u8>,
    #[diesel(sql_type = Nullable<BigInt>)]
    status: Option<i64>,
    #[diesel(sql_type = Nullable<Binary>)]
    answer: Option<Vec<u8>>,
}

/// Takes a key for a request that begins now, or tells what is there. A row older than `expired`
/// counts as absent, and so does one without an answer that is older than `abandoned`.
pub async fn claim(
    connection: &mut Connection,
    slot: IdempotencySlot,
    body_hash: Vec<u8>,
    now: Timestamp,
    abandoned: Timestamp,
    expired: Timestamp,
) -> Result<IdempotencyClaim, StoreError> {
    let claimed: Option<ClaimedRow> = sql("INSERT INTO idempotency_keys \
            (device_id, route, key, body_hash, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $5) \
         ON CONFLICT (device_id, route, key) DO UPDATE SET body_hash = excluded.body_hash, \
            status = NULL, answer = NULL, created_at = excluded.created_at, updated_at = excluded.updated_at \
         WHERE idempotency_keys.created_at < $7 \
            OR (idempotency_keys.status IS NULL AND idempotency_keys.created_at < $6) \
         RETURNING created_at")
    .bind::<Uuid, _>(slot.device_id)
    .bind::<Text, _>(slot.route.clone())
    .bind::<Text, _>(slot.key.clone())
    .bind::<Binary, _>(body_hash.clone())
    .bind::<Moment, _>(now)
    .bind::<Moment, _>(abandoned)
    .bind::<Moment, _>(expired)
    .get_result(connection)
    .await
    .optional()?;
    if let Some(row) = claimed {
        return Ok(IdempotencyClaim::Yours(row.created_at));
    }
    let kept: Option<KeptRow> = sql("SELECT body_hash, status, answer FROM idempotency_keys \
         WHERE device_id = $1 AND route = $2 AND key = $3")
    .bind::<Uuid, _>(slot.device_id)
    .bind::<Text, _>(slot.route)
    .bind::<Text, _>(slot.key)
    .get_result(connection)
    .await
    .optional()?;
    Ok(match kept {
        Some(row) if row.body_hash != body_hash => IdempotencyClaim::OtherBody,
        Some(KeptRow { status: Some(status), answer, .. }) => {
            IdempotencyClaim::Answered { status, answer: answer.unwrap_or_default() }
        }
        // Gone between the two statements: its request has just failed, the next try finds it free.
        Some(_) | None => IdempotencyClaim::Running,
    })
}

/// Keeps the answer of the request that claimed the key at this moment.
pub async fn keep(
    connection: &mut Connection,
    slot: IdempotencySlot,
    claimed_at: Timestamp,
    status: i64,
    answer: Vec<u8>,
    now: Timestamp,
) -> Result<(), StoreError> {
    sql("UPDATE idempotency_keys SET status = $5, answer = $6, updated_at = $7 \
         WHERE device_id = $1 AND route = $2 AND key = $3 AND created_at = $4 AND status IS NULL")
    .bind::<Uuid, _>(slot.device_id)
    .bind::<Text, _>(slot.route)
    .bind::<Text, _>(slot.key)
    .bind::<Moment, _>(claimed_at)
    .bind::<BigInt, _>(status)
    .bind::<Binary, _>(answer)
    .bind::<Moment, _>(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// Frees the key of a request that failed.
pub async fn release(
    connection: &mut Connection,
    slot: IdempotencySlot,
    claimed_at: Timestamp,
) -> Result<(), StoreError> {
    sql("DELETE FROM idempotency_keys \
         WHERE device_id = $1 AND route = $2 AND key = $3 AND created_at = $4 AND status IS NULL")
    .bind::<Uuid, _>(slot.device_id)
    .bind::<Text, _>(slot.route)
    .bind::<Text, _>(slot.key)
    .bind::<Moment, _>(claimed_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes what is older than a moment.
pub async fn prune(connection: &mut Connection, before: Timestamp) -> Result<usize, StoreError> {
    Ok(sql("DELETE FROM idempotency_keys WHERE created_at < $1").bind::<Moment, _>(before).execute(connection).await?)
}
