//! The log per user of what changed around him: devices and conversations (rule D12).
//!
//! A log holds at most one event about a subject, so that nobody can fill the logs of others by changing something again and
//! again. A newer event replaces the older one and gets a number above all others. What a device then reads depends on its
//! cursor:
//! - Cursor below the older event: only the newer event, which contains all that the older one said (the present state, or
//!   for changes of devices both changes merged into one).
//! - Cursor between the two: the newer event. It may repeat what the device knows, and then changes nothing.
//! - A device that is reading at this moment gets one of the two, and is woken for the newer one.
//!
//! What all devices of a user have acknowledged is not sent to any of them again.

use super::*;
use crate::rows::{AccountEventRow, DevicesChange};
use crate::types::{Json, Moment, Uuid};
use diesel::sql_types::{BigInt, Text};
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};
use sotto_protocol::{ConversationId, Timestamp, UserId};
use std::collections::HashMap;

#[derive(diesel::QueryableByName)]
struct UserRow {
    #[diesel(sql_type = Uuid)]
    user_id: UserId,
}

#[derive(diesel::QueryableByName)]
struct CountRow {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

#[derive(diesel::QueryableByName)]
struct HeadRow {
    #[diesel(sql_type = Uuid)]
    user_id: UserId,
    #[diesel(sql_type = BigInt)]
    seq: i64,
}

#[derive(diesel::QueryableByName)]
struct PendingRow {
    #[diesel(sql_type = Uuid)]
    user_id: UserId,
    #[diesel(sql_type = Json)]
    body: Value,
}

/// What an event is about: a new one of the same kind and object replaces the older ones in a user's log.
struct Subject {
    kind: &'static str,
    object: uuid::Uuid,
}

/// Users as rows of `given_rows!`.
pub fn given(users: &[UserId]) -> Value {
    users.iter().map(|user| json!({ "user": hex(user.0) })).collect()
}

/// Writes one event about a subject into the logs of all these users, in the caller's transaction, and returns where each
/// log ends then. It replaces what the log had about the subject, and gets a new number: a device that has seen the old
/// event sees the subject once more, one that has not sees only the new event (rule D12). A user of `bodies` gets that
/// body, the others get `body`.
///
/// The users' rows must be locked by [`lock_users`]. A fixed number of statements, however many users there are.
async fn put(
    connection: &mut Connection,
    users: &[UserId],
    subject: &Subject,
    body: &Value,
    bodies: &HashMap<UserId, Value>,
    now: Timestamp,
) -> Result<Vec<(UserId, i64)>, StoreError> {
    let numbered: Vec<HeadRow> = sql(concat!(
        "UPDATE users SET account_seq = account_seq + 1, updated_at = $2 WHERE id IN (SELECT ",
        given_uuid!("user"),
        " ",
        given_rows!(),
        ") RETURNING id AS user_id, account_seq AS seq"
    ))
    .bind::<Json, _>(given(users))
    .bind::<Moment, _>(now)
    .load(connection)
    .await?;
    let rows: Value = users
        .iter()
        .map(|user| match bodies.get(user) {
            Some(own) => json!({ "user": hex(user.0), "body": own }),
            None => json!({ "user": hex(user.0) }),
        })
        .collect();
    sql(concat!(
        "DELETE FROM account_events WHERE kind = $2 AND object = $3 AND user_id IN (SELECT ",
        given_uuid!("user"),
        " ",
        given_rows!(),
        ")"
    ))
    .bind::<Json, _>(given(users))
    .bind::<Text, _>(subject.kind)
    .bind::<Uuid, _>(subject.object)
    .execute(connection)
    .await?;
    sql(concat!(
        "INSERT INTO account_events (user_id, seq, kind, object, body, created_at, updated_at) \
         SELECT u.id, u.account_seq, $2, $3, COALESCE(given.value->'body', $4), $5, $5 ",
        given_rows!(),
        " JOIN users u ON u.id = ",
        given_uuid!("user")
    ))
    .bind::<Json, _>(rows)
    .bind::<Text, _>(subject.kind)
    .bind::<Uuid, _>(subject.object)
    .bind::<Json, _>(body)
    .bind::<Moment, _>(now)
    .execute(connection)
    .await?;
    let mut heads: Vec<(UserId, i64)> = numbered.into_iter().map(|row| (row.user_id, row.seq)).collect();
    heads.sort_unstable();
    Ok(heads)
}

/// Locks the rows of users until the transaction ends, in the order of their ids, so that two changes cannot deadlock.
async fn lock_users(connection: &mut Connection, users: &[UserId]) -> Result<(), StoreError> {
    sql(concat!(
        "SELECT u.id FROM users u WHERE u.id IN (SELECT ",
        given_uuid!("user"),
        " ",
        given_rows!(),
        ") ORDER BY u.id",
        lock!()
    ))
    .bind::<Json, _>(given(users))
    .execute(connection)
    .await?;
    Ok(())
}

/// Who hears of a change of a user's devices: himself and all who share a conversation with him, in id order.
pub async fn hearers(connection: &mut Connection, user: UserId) -> Result<Vec<UserId>, StoreError> {
    let mut users = contacts(connection, user).await?;
    users.push(user);
    users.sort_unstable();
    users.dedup();
    Ok(users)
}

/// Tells a change of a user's devices to those who hear of it, in the caller's transaction, with the wake that makes every
/// node look. Raises the user's device version. Returns who was told.
pub async fn append_devices_changed(
    connection: &mut Connection,
    change: &DevicesChange,
    now: Timestamp,
) -> Result<Vec<UserId>, StoreError> {
    let told = hearers(connection, change.user_id).await?;
    tell_devices_changed(connection, change, told, now).await
}

/// The same to users who were looked up by [`hearers`] in this transaction.
pub async fn tell_devices_changed(
    connection: &mut Connection,
    change: &DevicesChange,
    told: Vec<UserId>,
    now: Timestamp,
) -> Result<Vec<UserId>, StoreError> {
    // A device that has registered anew is another one to whoever has compared its key.
    for device in &change.identity_changed {
        sql("UPDATE devices SET verified_by = NULL, verified_at = NULL WHERE id = $1")
            .bind::<Uuid, _>(*device)
            .execute(connection)
            .await?;
    }
    lock_users(connection, &told).await?;
    sql("UPDATE users SET device_version = device_version + 1 WHERE id = $1")
        .bind::<Uuid, _>(change.user_id)
        .execute(connection)
        .await?;
    let subject = Subject { kind: "devices_changed", object: change.user_id.0 };
    let pending = pending(connection, &told, &subject).await?;
    let mut older: HashMap<UserId, DevicesChange> = HashMap::new();
    for row in pending {
        let Some(next) = DevicesChange::from_body(row.body) else { continue };
        // A node of the version before leaves several.
        let merged = older.get(&row.user_id).map_or_else(|| next.clone(), |before| next.after(before));
        older.insert(row.user_id, merged);
    }
    let bodies = older.into_iter().map(|(user, older)| (user, change.after(&older).to_body())).collect();
    let heads = put(connection, &told, &subject, &change.to_body(), &bodies, now).await?;
    wakes::write(connection, &crate::append::Wake::of_users(heads)).await?;
    Ok(told)
}

/// The events about a subject in the logs of users that one of their devices has not acknowledged yet, each log's oldest first.
async fn pending(
    connection: &mut Connection,
    users: &[UserId],
    subject: &Subject,
) -> Result<Vec<PendingRow>, StoreError> {
    Ok(sql(concat!(
        "SELECT e.user_id, e.body ",
        given_rows!(),
        " JOIN account_events e ON e.user_id = ",
        given_uuid!("user"),
        " WHERE e.kind = $2 AND e.object = $3 \
          AND EXISTS (SELECT 1 FROM devices d WHERE d.user_id = e.user_id AND d.account_seen < e.seq) \
         ORDER BY e.user_id, e.seq"
    ))
    .bind::<Json, _>(given(users))
    .bind::<Text, _>(subject.kind)
    .bind::<Uuid, _>(subject.object)
    .load(connection)
    .await?)
}

/// Tells something about a user's account or one of its devices to his own devices, in the caller's transaction, with the
/// wake that makes every node look. An older event of this kind about the same object is replaced.
pub async fn append_own(
    connection: &mut Connection,
    user: UserId,
    kind: &'static str,
    object: uuid::Uuid,
    body: &Value,
    now: Timestamp,
) -> Result<(), StoreError> {
    let heads = put(connection, &[user], &Subject { kind, object }, body, &HashMap::new(), now).await?;
    wakes::write(connection, &crate::append::Wake::of_users(heads)).await
}

/// Tells a change of a conversation to users, in the caller's transaction, and returns where each log ends then. An older
/// event of the same conversation is replaced.
pub async fn append_conversation_changed(
    connection: &mut Connection,
    conversation: ConversationId,
    users: &[UserId],
    now: Timestamp,
) -> Result<Vec<(UserId, i64)>, StoreError> {
    let mut users = users.to_vec();
    users.sort_unstable();
    users.dedup();
    lock_users(connection, &users).await?;
    let subject = Subject { kind: "conversation_changed", object: conversation.0 };
    let body = json!({ "conversation_id": conversation });
    put(connection, &users, &subject, &body, &HashMap::new(), now).await
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

/// The numbers of users' newest events.
pub async fn heads(connection: &mut Connection, users: Vec<UserId>) -> Result<Vec<(UserId, i64)>, StoreError> {
    let rows: Vec<HeadRow> = sql(concat!(
        "SELECT u.id AS user_id, u.account_seq AS seq ",
        given_rows!(),
        " JOIN users u ON u.id = ",
        given_uuid!("user")
    ))
    .bind::<Json, _>(given(&users))
    .load(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.user_id, row.seq)).collect())
}

/// How many events a user's log holds.
pub async fn count(connection: &mut Connection, user: UserId) -> Result<i64, StoreError> {
    let row: CountRow = sql("SELECT COUNT(*) AS count FROM account_events WHERE user_id = $1")
        .bind::<Uuid, _>(user)
        .get_result(connection)
        .await?;
    Ok(row.count)
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
