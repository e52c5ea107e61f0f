//! Accounts and their devices: making, finding, removing.

use super::*;
use crate::rows::DevicesChange;
use crate::rows::keys::DeviceKeysRow;
use crate::rows::reauthentication::{Proof, Proved};
use crate::rows::sign_in::{AccountRow, DevicesRemoved, KnownDeviceRow, RemovedDevice, SigningDevice};
use crate::types::{Json, Moment, Uuid, Word};
use diesel::QueryableByName;
use diesel::result::OptionalExtension;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use diesel_async::RunQueryDsl;
use sotto_protocol::auth::{DeviceInfo, Platform};
use sotto_protocol::keys::Suite;
use sotto_protocol::trail::{Removal, TrailEvent};
use sotto_protocol::{DeviceId, Timestamp, UserId};

/// Later than anything that was.
const FAR_AWAY: Timestamp = Timestamp::from_millis(253_402_300_799_000);

#[derive(QueryableByName)]
struct UserRow {
    #[diesel(sql_type = Uuid)]
    id: UserId,
}

#[derive(QueryableByName)]
struct FamilyRow {
    #[diesel(sql_type = Uuid)]
    id: uuid::Uuid,
}

#[derive(QueryableByName)]
struct CreatedRow {
    #[diesel(sql_type = Moment)]
    created_at: Timestamp,
}

#[derive(QueryableByName)]
struct IdleRow {
    #[diesel(sql_type = Uuid)]
    user_id: UserId,
    #[diesel(sql_type = Uuid)]
    id: DeviceId,
}

#[derive(QueryableByName)]
struct MeRow {
    #[diesel(sql_type = Text)]
    phone: String,
    #[diesel(sql_type = Moment)]
    user_created_at: Timestamp,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Word)]
    platform: Platform,
    #[diesel(sql_type = Nullable<Text>)]
    fingerprint: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    model: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    os_version: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    app_version: Option<String>,
    #[diesel(sql_type = Nullable<Json>)]
    push: Option<serde_json::Value>,
    #[diesel(sql_type = Moment)]
    created_at: Timestamp,
    #[diesel(sql_type = Moment)]
    last_active_at: Timestamp,
}

/// The account of a number.
pub async fn by_phone(connection: &mut Connection, phone: &str) -> Result<Option<UserId>, StoreError> {
    let row: Option<UserRow> =
        sql("SELECT id FROM users WHERE phone = $1").bind::<Text, _>(phone).get_result(connection).await.optional()?;
    Ok(row.map(|row| row.id))
}

/// The accounts of numbers, without those that have none.
pub async fn lookup(connection: &mut Connection, phones: Vec<String>) -> Result<Vec<(String, UserId)>, StoreError> {
    let mut found = Vec::new();
    for phone in phones {
        if let Some(user) = by_phone(connection, &phone).await? {
            found.push((phone, user));
        }
    }
    Ok(found)
}

/// When an account was made.
pub async fn user_created_at(connection: &mut Connection, user: UserId) -> Result<Option<Timestamp>, StoreError> {
    let row: Option<CreatedRow> = sql("SELECT created_at FROM users WHERE id = $1")
        .bind::<Uuid, _>(user)
        .get_result(connection)
        .await
        .optional()?;
    Ok(row.map(|row| row.created_at))
}

/// The device of a number's account that has this identity.
pub async fn known(
    connection: &mut Connection,
    phone: String,
    identity_key: Vec<u8>,
) -> Result<Option<KnownDeviceRow>, StoreError> {
    Ok(sql("SELECT d.id AS device_id, d.suite, d.signing_key FROM devices d JOIN users u ON u.id = d.user_id \
         WHERE u.phone = $1 AND d.identity_key = $2")
    .bind::<Text, _>(phone)
    .bind::<Binary, _>(identity_key)
    .get_result(connection)
    .await
    .optional()?)
}

/// The present devices of a user with what must not change.
pub async fn of_user(connection: &mut Connection, user: UserId) -> Result<Vec<DeviceKeysRow>, StoreError> {
    Ok(sql(
        "SELECT id AS device_id, suite, registration_id, identity_key, signing_key, identity_signature FROM devices \
         WHERE user_id = $1 ORDER BY id",
    )
    .bind::<Uuid, _>(user)
    .load(connection)
    .await?)
}

/// Makes a user without devices, in the caller's transaction. `false`: the number has an account.
pub async fn insert_user(
    connection: &mut Connection,
    user: UserId,
    phone: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let made = sql("INSERT INTO users (id, phone, device_version, account_seq, created_at, updated_at) \
         VALUES ($1, $2, 0, 0, $3, $3) ON CONFLICT (phone) DO NOTHING")
    .bind::<Uuid, _>(user)
    .bind::<Text, _>(phone)
    .bind::<Moment, _>(now)
    .execute(connection)
    .await?;
    Ok(made == 1)
}

/// Adds a device with its keys, tells it, and lets it begin at the end of every log, in the caller's transaction.
pub async fn add(
    connection: &mut Connection,
    user: UserId,
    device: &SigningDevice,
    now: Timestamp,
) -> Result<Vec<UserId>, StoreError> {
    let info = &device.info;
    let keys = &device.keys;
    let push = info.push.as_ref().and_then(|push| serde_json::to_value(push).ok());
    sql("INSERT INTO devices (id, user_id, name, platform, fingerprint, model, os_version, app_version, push, suite, \
             registration_id, identity_key, signing_key, attempt, account_seen, last_active_at, created_at, updated_at, \
             last_address) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, -1, \
             (SELECT account_seq FROM users WHERE users.id = $2), $14, $14, $14, $15)")
    .bind::<Uuid, _>(device.id)
    .bind::<Uuid, _>(user)
    .bind::<Text, _>(&info.name)
    .bind::<Word, _>(info.platform)
    .bind::<Nullable<Text>, _>(info.fingerprint.as_deref())
    .bind::<Nullable<Text>, _>(info.model.as_deref())
    .bind::<Nullable<Text>, _>(info.os_version.as_deref())
    .bind::<Nullable<Text>, _>(info.app_version.as_deref())
    .bind::<Nullable<Json>, _>(push)
    .bind::<Word, _>(keys.suite.unwrap_or(Suite::Signal))
    .bind::<Nullable<BigInt>, _>(keys.registration_id)
    .bind::<Binary, _>(keys.identity_key.as_ref().map(AsRef::<[u8]>::as_ref).unwrap_or_default())
    .bind::<Nullable<Binary>, _>(keys.signing_key.as_ref().map(AsRef::<[u8]>::as_ref))
    .bind::<Moment, _>(now)
    .bind::<Nullable<Text>, _>(device.address.as_deref())
    .execute(connection)
    .await?;
    keys::put(connection, device.id, keys, device.signed_prekey_expires_at, now).await?;
    // What was said before the sign-in is not for this device, in conversations that its user has left neither.
    sql("INSERT INTO marks (conversation_id, device_id, user_id, delivered_up_to, delivered_version, delivered_at, \
             receipts_seen, created_at, updated_at) \
         SELECT m.conversation_id, $1, m.user_id, h.last_seq, 0, $3, COALESCE(r.version, 0), $3, $3 \
         FROM (SELECT DISTINCT conversation_id, user_id FROM memberships WHERE user_id = $2) m \
         JOIN heads h ON h.conversation_id = m.conversation_id \
         LEFT JOIN receipts r ON r.conversation_id = m.conversation_id")
    .bind::<Uuid, _>(device.id)
    .bind::<Uuid, _>(user)
    .bind::<Moment, _>(now)
    .execute(connection)
    .await?;
    let change =
        DevicesChange { user_id: user, added: vec![device.id], removed: Vec::new(), identity_changed: Vec::new() };
    let told = account_log::append_devices_changed(connection, &change, now).await?;
    // Nor is the news of itself.
    sql("UPDATE devices SET account_seen = (SELECT account_seq FROM users WHERE users.id = $2) WHERE id = $1")
        .bind::<Uuid, _>(device.id)
        .bind::<Uuid, _>(user)
        .execute(connection)
        .await?;
    Ok(told)
}

/// Signs a known device in again: it keeps its id, marks and backlog, in the caller's transaction. A changed
/// registration id is told.
pub async fn renew(
    connection: &mut Connection,
    user: UserId,
    device: &SigningDevice,
    registration_id: Option<i64>,
    now: Timestamp,
) -> Result<Vec<UserId>, StoreError> {
    let info = &device.info;
    let push = info.push.as_ref().and_then(|push| serde_json::to_value(push).ok());
    sql("UPDATE devices SET name = $2, platform = $3, fingerprint = $4, model = $5, os_version = $6, \
             app_version = $7, push = $8, registration_id = $9, attempt = -1, last_active_at = $10, updated_at = $10, \
             last_address = COALESCE($11, last_address) WHERE id = $1")
    .bind::<Uuid, _>(device.id)
    .bind::<Text, _>(&info.name)
    .bind::<Word, _>(info.platform)
    .bind::<Nullable<Text>, _>(info.fingerprint.as_deref())
    .bind::<Nullable<Text>, _>(info.model.as_deref())
    .bind::<Nullable<Text>, _>(info.os_version.as_deref())
    .bind::<Nullable<Text>, _>(info.app_version.as_deref())
    .bind::<Nullable<Json>, _>(push)
    .bind::<Nullable<BigInt>, _>(device.keys.registration_id)
    .bind::<Moment, _>(now)
    .bind::<Nullable<Text>, _>(device.address.as_deref())
    .execute(connection)
    .await?;
    keys::put(connection, device.id, &device.keys, device.signed_prekey_expires_at, now).await?;
    if device.keys.registration_id == registration_id {
        return Ok(Vec::new());
    }
    let change =
        DevicesChange { user_id: user, added: Vec::new(), removed: Vec::new(), identity_changed: vec![device.id] };
    account_log::append_devices_changed(connection, &change, now).await
}

/// Whether another device of a user has this fingerprint. Asked under the account's lock, as whatever sets one.
pub async fn is_fingerprint_in_use(
    connection: &mut Connection,
    user: UserId,
    device: DeviceId,
    info: &DeviceInfo,
) -> Result<bool, StoreError> {
    let Some(fingerprint) = &info.fingerprint else {
        return Ok(false);
    };
    let other: Option<CreatedRow> =
        sql("SELECT created_at FROM devices WHERE user_id = $1 AND fingerprint = $2 AND id <> $3")
            .bind::<Uuid, _>(user)
            .bind::<Text, _>(fingerprint)
            .bind::<Uuid, _>(device)
            .get_result(connection)
            .await
            .optional()?;
    Ok(other.is_some())
}

/// The families of a device.
pub async fn families(connection: &mut Connection, device: DeviceId) -> Result<Vec<uuid::Uuid>, StoreError> {
    let rows: Vec<FamilyRow> =
        sql("SELECT id FROM sessions WHERE device_id = $1").bind::<Uuid, _>(device).load(connection).await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Removes a device with everything that belongs to it, and tells it. With `idle_since` only if it was not heard of
/// since then. `None`: there is no such device (any more).
pub async fn remove(
    connection: &mut Connection,
    user: UserId,
    device: DeviceId,
    reason: Removal,
    idle_since: Option<Timestamp>,
    now: Timestamp,
) -> Result<Option<RemovedDevice>, StoreError> {
    transaction!(connection, |connection| {
        allowances::lock(connection, "user", user.as_bytes(), now).await?;
        let is_there: Option<CreatedRow> = sql("SELECT created_at FROM devices \
             WHERE id = $1 AND user_id = $2 AND last_active_at <= $3")
        .bind::<Uuid, _>(device)
        .bind::<Uuid, _>(user)
        .bind::<Moment, _>(idle_since.unwrap_or(FAR_AWAY))
        .get_result(connection)
        .await
        .optional()?;
        if is_there.is_none() {
            return Ok(None);
        }
        let families = sign_in::end_sessions(connection, device, now).await?;
        remove_in(connection, user, device, reason, families, now).await.map(Some)
    })
}

/// Removes a device whose families `families` were ended, in the caller's transaction, which holds the account's lock.
pub async fn remove_in(
    connection: &mut Connection,
    user: UserId,
    device: DeviceId,
    reason: Removal,
    families: Vec<uuid::Uuid>,
    now: Timestamp,
) -> Result<RemovedDevice, StoreError> {
    for statement in [
        "DELETE FROM devices WHERE id = $1",
        "DELETE FROM marks WHERE device_id = $1",
        "DELETE FROM idempotency_keys WHERE device_id = $1",
    ] {
        sql(statement).bind::<Uuid, _>(device).execute(connection).await?;
    }
    let change =
        DevicesChange { user_id: user, added: Vec::new(), removed: vec![device], identity_changed: Vec::new() };
    let told = account_log::append_devices_changed(connection, &change, now).await?;
    let event = TrailEvent::DeviceRemoved { device_id: device, reason };
    trail::append(connection, user, event.into(), now).await?;
    Ok(RemovedDevice { change, families, told })
}

/// Removes a device of the prover's account, or without one all but the proving device, if the proof holds.
pub async fn remove_proved(
    connection: &mut Connection,
    proof: Proof,
    device: Option<DeviceId>,
) -> Result<DevicesRemoved, StoreError> {
    let (user, own, now) = (proof.user_id, proof.device_id, proof.now);
    transaction!(connection, |connection| {
        if let Some(code) = &proof.code
            && let Some(answer) = proofs::begin(connection, code, proof.evidence.taken.as_ref()).await?
        {
            return Ok(DevicesRemoved::Refused(Proved::Refused(answer)));
        }
        second_factor::lock(connection, user, now).await?;
        let devices = of_user(connection, user).await?.into_iter().map(|row| row.device_id);
        let gone: Vec<DeviceId> = devices.filter(|id| device.map_or(*id != own, |device| *id == device)).collect();
        if gone.is_empty() {
            return Ok(DevicesRemoved::Done(Vec::new()));
        }
        sign_in::lock_sessions(connection, user, now).await?;
        let proved = reauthentication::prove(connection, &proof).await?;
        if !matches!(proved, Proved::Done) {
            return Ok(DevicesRemoved::Refused(proved));
        }
        let mut removed = Vec::with_capacity(gone.len());
        for id in gone {
            let families = sign_in::end_sessions(connection, id, now).await?;
            removed.push(remove_in(connection, user, id, Removal::Revoked, families, now).await?);
        }
        Ok::<_, StoreError>(DevicesRemoved::Done(removed))
    })
}

/// Devices that were not heard of since a moment.
pub async fn idle(
    connection: &mut Connection,
    since: Timestamp,
    limit: i64,
) -> Result<Vec<(UserId, DeviceId)>, StoreError> {
    let rows: Vec<IdleRow> = sql("SELECT user_id, id FROM devices WHERE last_active_at <= $1 \
         ORDER BY last_active_at LIMIT $2")
    .bind::<Moment, _>(since)
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.user_id, row.id)).collect())
}

/// An account with one of its devices.
pub async fn me(connection: &mut Connection, user: UserId, device: DeviceId) -> Result<Option<AccountRow>, StoreError> {
    let row: Option<MeRow> =
        sql("SELECT u.phone, u.created_at AS user_created_at, d.name, d.platform, d.fingerprint, \
             d.model, d.os_version, d.app_version, d.push, d.created_at, d.last_active_at \
         FROM devices d JOIN users u ON u.id = d.user_id WHERE d.id = $1 AND u.id = $2")
        .bind::<Uuid, _>(device)
        .bind::<Uuid, _>(user)
        .get_result(connection)
        .await
        .optional()?;
    Ok(row.map(|row| AccountRow {
        phone: row.phone,
        user_created_at: row.user_created_at,
        info: DeviceInfo {
            name: row.name,
            platform: row.platform,
            fingerprint: row.fingerprint,
            model: row.model,
            os_version: row.os_version,
            app_version: row.app_version,
            push: row.push.and_then(|value| serde_json::from_value(value).ok()),
        },
        created_at: row.created_at,
        last_active_at: row.last_active_at,
    }))
}
