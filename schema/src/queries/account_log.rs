//! The log per user of what changed around him: devices and conversations (rule D12).

use super::*;
use crate::rows::{AccountEventRow, DevicesChange};
use crate::types::{Json, Moment, Uuid};
use diesel::sql_types::{BigInt, Text};
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};
use sotto_protocol::{ConversationId, Timestamp, UserId};

#[derive(diesel::QueryableByName)]
struct UserRow {
    #[diesel(sql_type = Uuid)]
    user_id: UserId,
}

#[derive(diesel::QueryableByName)]
struct SeqRow {
    #[diesel(sql_type = BigInt)]
    seq: i64,
}

/// Appends one event to a user's log, in the caller's transaction, and returns its number.
pub async fn append(
    connection: &mut Connection,
    user: UserId,
    kind: &'static str,
    object: uuid::Uuid,
    body: &Value,
    now: Timestamp,
) -> Result<i64, StoreError> {
    let numbered: SeqRow = sql("UPDATE users SET account_seq = account_seq + 1, updated_at = $2 \
         WHERE id = $1 RETURNING account_seq AS seq")
    .bind::<Uuid, _>(user)
    .bind::<Moment, _>(now)
    .get_result(connection)
    .await?;
    sql("INSERT INTO account_events (user_id, seq, kind, object, body, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $6)")
    .bind::<Uuid, _>(user)
    .bind::<BigInt, _>(numbered.seq)
    .bind::<Text, _>(kind)
    .bind::<Uuid, _>(object)
    .bind::<Json, _>(body)
    .bind::<Moment, _>(now)
    .execute(connection)
    .await?;
    Ok(numbered.seq)
}

/// Tells a change of a user's devices to himself and to all who share a conversation with him, in
/// the caller's transaction: one event each, in id order so that two changes cannot deadlock, and
/// the wake that makes every node look. Raises the user's device version. Returns who was told.
pub async fn append_devices_changed(
    connection: &mut Connection,
    change: &DevicesChange,
    now: Timestamp,
) -> Result<Vec<UserId>, StoreError> {
    let mut told: Vec<UserId> = sql("SELECT DISTINCT other.user_id AS user_id \
         FROM memberships mine JOIN memberships other \
           ON other.conversation_id = mine.conversation_id AND other.to_seq IS NULL \
         WHERE mine.user_id = $1 AND mine.to_seq IS NULL")
    .bind::<Uuid, _>(change.user_id)
    .load::<UserRow>(connection)
    .await?
    .into_iter()
    .map(|row| row.user_id)
    .collect();
    told.push(change.user_id);
    told.sort_unstable();
    told.dedup();
    // A device that has registered anew is another one to whoever has compared its key.
    for device in &change.identity_changed {
        sql("UPDATE devices SET verified_by = NULL, verified_at = NULL WHERE id = $1")
            .bind::<Uuid, _>(*device)
            .execute(connection)
            .await?;
    }
    let body = json!({
        "user_id": change.user_id,
        "added": change.added,
        "removed": change.removed,
        "identity_changed": change.identity_changed,
    });
    let mut heads = Vec::with_capacity(told.len());
    for user in &told {
        // In id order with the others' rows, never first.
        if *user == change.user_id {
            sql("UPDATE users SET device_version = device_version + 1 WHERE id = $1")
                .bind::<Uuid, _>(change.user_id)
                .execute(connection)
                .await?;
        }
        let seq = append(connection, *user, "devices_changed", change.user_id.0, &body, now).await?;
        heads.push((*user, seq));
    }
    wakes::write(connection, &crate::append::Wake::of_users(heads)).await?;
    Ok(told)
}

/// Tells something about a user's account or one of its devices to his own devices, in the caller's transaction, with the
/// wake that makes every node look. An older untold event of this kind about the same object is replaced.
pub async fn append_own(
    connection: &mut Connection,
    user: UserId,
    kind: &'static str,
    object: uuid::Uuid,
    body: &Value,
    now: Timestamp,
) -> Result<(), StoreError> {
    sql("DELETE FROM account_events WHERE user_id = $1 AND kind = $2 AND object = $3")
        .bind::<Uuid, _>(user)
        .bind::<Text, _>(kind)
        .bind::<Uuid, _>(object)
        .execute(connection)
        .await?;
    let seq = append(connection, user, kind, object, body, now).await?;
    wakes::write(connection, &crate::append::Wake::of_users(vec![(user, seq)])).await
}

/// Tells a change of a conversation to users, in the caller's transaction. An older untold event of
/// the same conversation is replaced, so that at most one per conversation waits for a device.
pub async fn append_conversation_changed(
    connection: &mut Connection,
    conversation: ConversationId,
    users: &[UserId],
    now: Timestamp,
) -> Result<Vec<(UserId, i64)>, StoreError> {
    let mut users = users.to_vec();
    users.sort_unstable();
    users.dedup();
    let mut heads = Vec::with_capacity(users.len());
    for user in users {
        sql("DELETE FROM account_events \
             WHERE user_id = $1 AND kind = 'conversation_changed' AND object = $2")
        .bind::<Uuid, _>(user)
        .bind::<Uuid, _>(conversation)
        .execute(connection)
        .await?;
        let body = json!({ "conversation_id": conversation });
        let seq = append(connection, user, "conversation_changed", conversation.0, &body, now).await?;
        heads.push((user, seq));
    }
    Ok(heads)
}

/// A user's events after a number, oldest first.
pub async fn after(
    connection: &mut Connection,
    user: UserId,
    after: i64,
    limit: i64,
) -> Result<Vec<AccountEventRow>, StoreError> {
    Ok(sql("SELECT seq, kind, object, body FROM account_events \
         WHERE user_id = $1 AND seq > $2 ORDER BY seq LIMIT $3")
    .bind::<Uuid, _>(user)
    .bind::<BigInt, _>(after)
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await?)
}

/// The number of a user's newest event; `None`: no such user.
pub async fn head(connection: &mut Connection, user: UserId) -> Result<Option<i64>, StoreError> {
    use diesel::OptionalExtension;
    let row: Option<SeqRow> = sql("SELECT account_seq AS seq FROM users WHERE id = $1")
        .bind::<Uuid, _>(user)
        .get_result(connection)
        .await
        .optional()?;
    Ok(row.map(|row| row.seq))
}

/// Everybody who shares a conversation with a user at present.
pub async fn contacts(connection: &mut Connection, user: UserId) -> Result<Vec<UserId>, StoreError> {
    let rows: Vec<UserRow> = sql("SELECT DISTINCT other.user_id AS user_id \
         FROM memberships mine JOIN memberships other \
           ON other.conversation_id = mine.conversation_id AND other.to_seq IS NULL \
         WHERE mine.user_id = $1 AND mine.to_seq IS NULL AND other.user_id <> $1")
    .bind::<Uuid, _>(user)
    .load(connection)
    .await?;
    Ok(rows.into_iter().map(|row| row.user_id).collect())
}
