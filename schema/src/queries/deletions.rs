//! Deleting accounts: asked for with a proof, cancelled by any device, done step by step when the time has come.
//!
//! Each step is a transaction and may be repeated: a node that dies in the middle leaves the rest to the next sweep of any
//! node. First the number goes, so that nobody signs in any more; then devices, then memberships, and last what is about the
//! account alone. What others have got from it stays theirs.

use super::*;
use crate::append::Wake;
use crate::rows::deletions::{DeletionRequested, DeletionRow, LeftOver};
use crate::rows::reauthentication::{Proof, Proved};
use crate::rows::trail::Happened;
use crate::types::{Moment, Uuid};
use diesel::QueryableByName;
use diesel::result::OptionalExtension;
use diesel::sql_types::{BigInt, Binary, Bool, Text};
use diesel_async::RunQueryDsl;
use serde_json::json;
use sotto_protocol::trail::TrailEvent;
use sotto_protocol::{ConversationId, DeviceId, Timestamp, UserId};

/// How an account event about the deletion is called.
const EVENT: &str = "account_deletion";
/// Conversations that are told at once.
const AT_ONCE: i64 = 100;

#[derive(QueryableByName)]
struct DeviceIdRow {
    #[diesel(sql_type = Uuid)]
    id: DeviceId,
}

#[derive(QueryableByName)]
struct PlaceRow {
    #[diesel(sql_type = Uuid)]
    id: ConversationId,
    #[diesel(sql_type = Bool)]
    is_group: bool,
}

#[derive(QueryableByName)]
struct OtherRow {
    #[diesel(sql_type = Uuid)]
    user_id: UserId,
}

#[derive(QueryableByName)]
struct SeqRow {
    #[diesel(sql_type = BigInt)]
    seq: i64,
}

/// The deletion of an account, if it was asked for.
pub async fn find(connection: &mut Connection, user: UserId) -> Result<Option<DeletionRow>, StoreError> {
    Ok(sql("SELECT user_id, deletes_at, begun_at, created_at FROM account_deletions WHERE user_id = $1")
        .bind::<Uuid, _>(user)
        .get_result(connection)
        .await
        .optional()?)
}

/// Asks for the deletion, if the proof holds, and tells the account's devices.
pub async fn request(
    connection: &mut Connection,
    proof: Proof,
    deletes_at: Timestamp,
) -> Result<DeletionRequested, StoreError> {
    transaction!(connection, |connection| {
        let proved = reauthentication::prove(connection, &proof).await?;
        if !matches!(proved, Proved::Done) {
            return Ok(DeletionRequested::Refused(proved));
        }
        let Proof { user_id, address, now, .. } = proof;
        let row = begin_grace(connection, user_id, deletes_at, address, now).await?;
        Ok::<_, StoreError>(DeletionRequested::Done(row))
    })
}

/// Stores a deletion with its time of grace and tells the account's devices, in the caller's transaction, which holds the account's
/// lock. A deletion that was asked for before stands as it is.
pub async fn begin_grace(
    connection: &mut Connection,
    user: UserId,
    deletes_at: Timestamp,
    address: Option<String>,
    now: Timestamp,
) -> Result<DeletionRow, StoreError> {
    if let Some(row) = find(connection, user).await? {
        return Ok(row);
    }
    sql("INSERT INTO account_deletions (user_id, deletes_at, created_at, updated_at) VALUES ($1, $2, $3, $3)")
        .bind::<Uuid, _>(user)
        .bind::<Moment, _>(deletes_at)
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
    let body = json!({ "requested_at": now, "deletes_at": deletes_at });
    account_log::append_own(connection, user, EVENT, user.0, &body, now).await?;
    let happened = Happened { event: TrailEvent::DeletionRequested { deletes_at }, address };
    trail::append(connection, user, happened, now).await?;
    Ok(DeletionRow { user_id: user, deletes_at, begun_at: None, created_at: now })
}

/// Cancels a deletion that has not begun, and tells the account's devices. `false`: there is none.
pub async fn cancel(connection: &mut Connection, user: UserId, now: Timestamp) -> Result<bool, StoreError> {
    transaction!(connection, |connection| {
        second_factor::lock(connection, user, now).await?;
        let removed = sql("DELETE FROM account_deletions WHERE user_id = $1 AND begun_at IS NULL")
            .bind::<Uuid, _>(user)
            .execute(connection)
            .await?;
        if removed == 0 {
            return Ok(false);
        }
        account_log::append_own(connection, user, EVENT, user.0, &json!({}), now).await?;
        trail::append(connection, user, TrailEvent::DeletionCancelled.into(), now).await?;
        Ok::<_, StoreError>(true)
    })
}

/// Accounts whose time has come, or whose deletion was not finished.
pub async fn due(connection: &mut Connection, now: Timestamp, limit: i64) -> Result<Vec<DeletionRow>, StoreError> {
    Ok(sql("SELECT user_id, deletes_at, begun_at, created_at FROM account_deletions WHERE deletes_at <= $1 \
         ORDER BY deletes_at LIMIT $2")
    .bind::<Moment, _>(now)
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await?)
}

/// Begins a deletion whose time has come: from here on nobody signs in to the account, and its number is free. `false`: it
/// was cancelled.
pub async fn begin(connection: &mut Connection, user: UserId, now: Timestamp) -> Result<bool, StoreError> {
    // Codes on their way to the number. Not under the account's lock: whoever signs in locks his code first, as here.
    sql("DELETE FROM verifications WHERE phone = (SELECT u.phone FROM users u \
             JOIN account_deletions d ON d.user_id = u.id WHERE u.id = $1 AND d.deletes_at <= $2)")
    .bind::<Uuid, _>(user)
    .bind::<Moment, _>(now)
    .execute(connection)
    .await?;
    transaction!(connection, |connection| {
        second_factor::lock(connection, user, now).await?;
        let begun = sql("UPDATE account_deletions SET begun_at = COALESCE(begun_at, $2), updated_at = $2 \
             WHERE user_id = $1 AND deletes_at <= $2")
        .bind::<Uuid, _>(user)
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
        if begun == 0 {
            return Ok(false);
        }
        free_number(connection, user, now).await?;
        Ok::<_, StoreError>(true)
    })
}

async fn free_number(connection: &mut Connection, user: UserId, now: Timestamp) -> Result<(), StoreError> {
    // No number has this form.
    sql("UPDATE users SET phone = $2, updated_at = $3 WHERE id = $1")
        .bind::<Uuid, _>(user)
        .bind::<Text, _>(format!("deleted {user}"))
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
    Ok(())
}

/// Frees the number of an account for whoever registers it, and lets the account be deleted at once, in the caller's
/// transaction, which holds the account's lock.
pub async fn give_up(connection: &mut Connection, user: UserId, now: Timestamp) -> Result<(), StoreError> {
    sql("INSERT INTO account_deletions (user_id, deletes_at, begun_at, created_at, updated_at) \
         VALUES ($1, $2, $2, $2, $2) ON CONFLICT (user_id) DO UPDATE \
         SET deletes_at = excluded.deletes_at, begun_at = excluded.begun_at, updated_at = excluded.updated_at")
    .bind::<Uuid, _>(user)
    .bind::<Moment, _>(now)
    .execute(connection)
    .await?;
    free_number(connection, user, now).await
}

/// Some of what is left of an account.
pub async fn left_over(connection: &mut Connection, user: UserId) -> Result<LeftOver, StoreError> {
    let devices: Vec<DeviceIdRow> =
        sql("SELECT id FROM devices WHERE user_id = $1").bind::<Uuid, _>(user).load(connection).await?;
    let places: Vec<PlaceRow> = sql("SELECT c.id, c.kind = 'group' AS is_group FROM memberships m \
         JOIN conversations c ON c.id = m.conversation_id \
         WHERE m.user_id = $1 AND m.to_seq IS NULL ORDER BY c.id LIMIT $2")
    .bind::<Uuid, _>(user)
    .bind::<BigInt, _>(AT_ONCE)
    .load(connection)
    .await?;
    let (groups, directs): (Vec<_>, Vec<_>) = places.into_iter().partition(|place| place.is_group);
    Ok(LeftOver {
        devices: devices.into_iter().map(|row| row.id).collect(),
        groups: groups.into_iter().map(|place| place.id).collect(),
        directs: directs.into_iter().map(|place| place.id).collect(),
    })
}

/// Ends a user's membership in a direct conversation, which stays for the other, who is told. Returns who was told.
pub async fn leave_direct(
    connection: &mut Connection,
    id: ConversationId,
    user: UserId,
    now: Timestamp,
) -> Result<Vec<UserId>, StoreError> {
    transaction!(connection, |connection| {
        // Appends wait: the number that the membership ends with is the last one, and whoever appends next looks again.
        sql(super::super::LOCK_HEAD).bind::<Uuid, _>(id).execute(connection).await?;
        let head: SeqRow = sql("UPDATE heads SET membership_version = membership_version + 1, updated_at = $2 \
             WHERE conversation_id = $1 RETURNING last_seq AS seq")
        .bind::<Uuid, _>(id)
        .bind::<Moment, _>(now)
        .get_result(connection)
        .await?;
        sql("UPDATE memberships SET to_seq = $3, updated_at = $4 \
             WHERE conversation_id = $1 AND user_id = $2 AND to_seq IS NULL")
        .bind::<Uuid, _>(id)
        .bind::<Uuid, _>(user)
        .bind::<BigInt, _>(head.seq)
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
        let others: Vec<OtherRow> =
            sql("SELECT user_id FROM memberships WHERE conversation_id = $1 AND to_seq IS NULL")
                .bind::<Uuid, _>(id)
                .load(connection)
                .await?;
        let told: Vec<UserId> = others.into_iter().map(|row| row.user_id).collect();
        let heads = account_log::append_conversation_changed(connection, id, &told, now).await?;
        wakes::write(connection, &Wake { conversations: vec![(id, head.seq, 0)], users: heads }).await?;
        Ok::<_, StoreError>(told)
    })
}

/// The last step: everything that is about the account alone.
pub async fn finish(connection: &mut Connection, user: UserId) -> Result<(), StoreError> {
    transaction!(connection, |connection| {
        for statement in [
            "DELETE FROM memberships WHERE user_id = $1",
            "DELETE FROM reads WHERE user_id = $1",
            "DELETE FROM marks WHERE user_id = $1",
            "DELETE FROM ended_sessions WHERE user_id = $1",
            // With devices, sessions, events, second factor, trail, history of sign-ins and the deletion itself.
            "DELETE FROM users WHERE id = $1",
        ] {
            sql(statement).bind::<Uuid, _>(user).execute(connection).await?;
        }
        sql("DELETE FROM allowances WHERE subject = $1")
            .bind::<Binary, _>(user.as_bytes().to_vec())
            .execute(connection)
            .await?;
        Ok::<_, StoreError>(())
    })
}
