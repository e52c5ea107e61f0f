//! The trail of accounts: entries chained by hashes, appended in the transaction of what they tell.

use super::*;
use crate::rows::trail::{Happened, HeadRow, ItemRow};
use crate::types::{Moment, Uuid};
use diesel::result::{Error as DieselError, OptionalExtension};
use diesel::sql_types::{BigInt, Binary, Text};
use diesel_async::RunQueryDsl;
use sotto_protocol::trail::{BEGINNING, TrailEntry, TrailHead, TrailItem, link};
use sotto_protocol::{Binary as Bytes, Timestamp, UserId};

/// Appends what happened, in the caller's transaction. The end of the trail is locked from here until the transaction
/// ends: it is the last lock, above all after those of sessions, for a refresh asks for it without the account's lock.
pub async fn append(
    connection: &mut Connection,
    user: UserId,
    happened: Happened,
    now: Timestamp,
) -> Result<(), StoreError> {
    let head: HeadRow = sql("INSERT INTO trail_heads (user_id, seq, hash, created_at, updated_at) \
         VALUES ($1, 0, $2, $3, $3) ON CONFLICT (user_id) DO UPDATE SET updated_at = excluded.updated_at RETURNING seq, hash")
    .bind::<Uuid, _>(user)
    .bind::<Binary, _>(BEGINNING.to_vec())
    .bind::<Moment, _>(now)
    .get_result(connection)
    .await?;
    let seq = head.seq + 1;
    let Happened { event, address } = happened;
    let entry = TrailEntry { seq, at: now, user_id: user, event, address };
    let unreadable = |what: &str| {
        StoreError::Query(DieselError::DeserializationError(format!("the trail of user {user}: {what}").into()))
    };
    let entry = serde_json::to_string(&entry).map_err(|error| unreadable(&error.to_string()))?;
    let previous = head.hash.try_into().map_err(|_| unreadable("a hash of another length"))?;
    let hash = link(&previous, &entry).to_vec();
    sql("INSERT INTO trail (user_id, seq, entry, hash, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $5)")
        .bind::<Uuid, _>(user)
        .bind::<BigInt, _>(seq)
        .bind::<Text, _>(&entry)
        .bind::<Binary, _>(&hash)
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
    sql("UPDATE trail_heads SET seq = $2, hash = $3 WHERE user_id = $1")
        .bind::<Uuid, _>(user)
        .bind::<BigInt, _>(seq)
        .bind::<Binary, _>(&hash)
        .execute(connection)
        .await?;
    Ok(())
}

/// Entries of a user above a number, oldest first.
pub async fn after(
    connection: &mut Connection,
    user: UserId,
    after: i64,
    limit: i64,
) -> Result<Vec<TrailItem>, StoreError> {
    let rows: Vec<ItemRow> =
        sql("SELECT seq, entry, hash FROM trail WHERE user_id = $1 AND seq > $2 ORDER BY seq LIMIT $3")
            .bind::<Uuid, _>(user)
            .bind::<BigInt, _>(after)
            .bind::<BigInt, _>(limit)
            .load(connection)
            .await?;
    Ok(rows.into_iter().map(|row| TrailItem { seq: row.seq, entry: row.entry, hash: Bytes(row.hash) }).collect())
}

/// Where a user's trail ends.
pub async fn head(connection: &mut Connection, user: UserId) -> Result<TrailHead, StoreError> {
    let row: Option<HeadRow> = sql("SELECT seq, hash FROM trail_heads WHERE user_id = $1")
        .bind::<Uuid, _>(user)
        .get_result(connection)
        .await
        .optional()?;
    Ok(row.map_or_else(TrailHead::beginning, |row| TrailHead { seq: row.seq, hash: Bytes(row.hash) }))
}
