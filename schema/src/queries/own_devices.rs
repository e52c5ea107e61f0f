//! Devices as their owner sees and changes them: the list, names, verification, the notice before one is removed.

use super::*;
use crate::rows::own_devices::{DeviceVerified, OwnDeviceRow};
use crate::types::{Moment, Uuid};
use diesel::QueryableByName;
use diesel::result::OptionalExtension;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use diesel_async::RunQueryDsl;
use serde_json::json;
use sotto_protocol::trail::TrailEvent;
use sotto_protocol::{DeviceId, Timestamp, UserId};
use std::time::Duration;

#[derive(QueryableByName)]
struct PlaceRow {
    #[diesel(sql_type = Uuid)]
    user_id: UserId,
    #[diesel(sql_type = Uuid)]
    id: DeviceId,
}

#[derive(QueryableByName)]
struct StateRow {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Binary)]
    identity_key: Vec<u8>,
    #[diesel(sql_type = Nullable<Moment>)]
    verified_at: Option<Timestamp>,
}

#[derive(QueryableByName)]
struct SilentRow {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Moment)]
    last_active_at: Timestamp,
}

/// All devices of an account, the oldest first.
pub async fn list(connection: &mut Connection, user: UserId) -> Result<Vec<OwnDeviceRow>, StoreError> {
    Ok(sql(
        "SELECT id, name, platform, fingerprint, model, os_version, app_version, suite, identity_key, last_address, \
             verified_by, verified_at, created_at, last_active_at FROM devices \
         WHERE user_id = $1 ORDER BY created_at, id",
    )
    .bind::<Uuid, _>(user)
    .load(connection)
    .await?)
}

async fn state(connection: &mut Connection, user: UserId, device: DeviceId) -> Result<Option<StateRow>, StoreError> {
    Ok(sql("SELECT name, identity_key, verified_at FROM devices WHERE id = $1 AND user_id = $2")
        .bind::<Uuid, _>(device)
        .bind::<Uuid, _>(user)
        .get_result(connection)
        .await
        .optional()?)
}

async fn tell_updated(
    connection: &mut Connection,
    user: UserId,
    device: DeviceId,
    name: &str,
    verified_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let body = json!({ "device_id": device, "name": name, "verified_at": verified_at });
    account_log::append_own(connection, user, "device_updated", device.0, &body, now).await
}

/// Gives a device another name, and tells the account's devices. `false`: there is no such device in the account.
pub async fn rename(
    connection: &mut Connection,
    user: UserId,
    device: DeviceId,
    name: String,
    now: Timestamp,
) -> Result<bool, StoreError> {
    transaction!(connection, |connection| {
        second_factor::lock(connection, user, now).await?;
        let Some(before) = state(connection, user, device).await? else {
            return Ok(false);
        };
        if before.name != name {
            sql("UPDATE devices SET name = $2, updated_at = $3 WHERE id = $1")
                .bind::<Uuid, _>(device)
                .bind::<Text, _>(&name)
                .bind::<Moment, _>(now)
                .execute(connection)
                .await?;
            tell_updated(connection, user, device, &name, before.verified_at, now).await?;
        }
        Ok::<_, StoreError>(true)
    })
}

/// A device of the account has compared another one's identity key.
pub async fn verify(
    connection: &mut Connection,
    user: UserId,
    device: DeviceId,
    by: DeviceId,
    identity_key: Vec<u8>,
    now: Timestamp,
) -> Result<DeviceVerified, StoreError> {
    transaction!(connection, |connection| {
        second_factor::lock(connection, user, now).await?;
        let Some(before) = state(connection, user, device).await? else {
            return Ok(DeviceVerified::Unknown);
        };
        if before.identity_key != identity_key {
            return Ok(DeviceVerified::OtherKey);
        }
        sql("UPDATE devices SET verified_by = $2, verified_at = $3, updated_at = $3 WHERE id = $1")
            .bind::<Uuid, _>(device)
            .bind::<Uuid, _>(by)
            .bind::<Moment, _>(now)
            .execute(connection)
            .await?;
        tell_updated(connection, user, device, &before.name, Some(now), now).await?;
        let event = TrailEvent::DeviceVerified { device_id: device, by };
        trail::append(connection, user, event.into(), now).await?;
        Ok::<_, StoreError>(DeviceVerified::Done)
    })
}

/// Devices that were not heard of since a moment, and of which that was not told yet.
pub async fn expiring(
    connection: &mut Connection,
    since: Timestamp,
    limit: i64,
) -> Result<Vec<(UserId, DeviceId)>, StoreError> {
    let rows: Vec<PlaceRow> = sql("SELECT user_id, id FROM devices WHERE last_active_at <= $1 \
             AND (expiry_told_at IS NULL OR expiry_told_at < last_active_at) \
         ORDER BY last_active_at LIMIT $2")
    .bind::<Moment, _>(since)
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.user_id, row.id)).collect())
}

/// Tells a user's devices, once per silence, that one of them will be removed `life` after it was last heard of.
pub async fn tell_expiring(
    connection: &mut Connection,
    user: UserId,
    device: DeviceId,
    since: Timestamp,
    life: Duration,
    now: Timestamp,
) -> Result<bool, StoreError> {
    transaction!(connection, |connection| {
        second_factor::lock(connection, user, now).await?;
        // Of several nodes one finds it untold.
        let silent: Option<SilentRow> = sql("UPDATE devices SET expiry_told_at = $4, updated_at = $4 \
             WHERE id = $1 AND user_id = $2 AND last_active_at <= $3 \
                 AND (expiry_told_at IS NULL OR expiry_told_at < last_active_at) \
             RETURNING name, last_active_at")
        .bind::<Uuid, _>(device)
        .bind::<Uuid, _>(user)
        .bind::<Moment, _>(since)
        .bind::<Moment, _>(now)
        .get_result(connection)
        .await
        .optional()?;
        let Some(silent) = silent else {
            return Ok(false);
        };
        let removed_at = silent.last_active_at.plus(life);
        let body = json!({ "device_id": device, "name": silent.name, "removed_at": removed_at });
        account_log::append_own(connection, user, "device_expiring", device.0, &body, now).await?;
        Ok::<_, StoreError>(true)
    })
}
