//! The key directory: what devices publish, and handing it out (one-time keys once, ever).

use super::*;
use crate::bucket;
use crate::planted::{self, Bug};
use crate::rows::DevicesChange;
use crate::rows::keys::{Claim, Claimed, DeviceKeysRow, KeysStored, LOW_STOCK};
use crate::types::{Moment, Uuid};
use diesel::QueryableByName;
use diesel::result::OptionalExtension;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use diesel_async::RunQueryDsl;
use sotto_protocol::keys::{Bundle, KeyCount, Keys, OneTimeKey, SignedKey};
use sotto_protocol::{Binary as Bytes, DeviceId, Timestamp, UserId, limits};

const SIGNED: &str = "signed";
const ONE_TIME: &str = "one_time";
const PQ_LAST_RESORT: &str = "pq_last_resort";
const PQ_ONE_TIME: &str = "pq_one_time";

#[derive(QueryableByName)]
struct KeyRow {
    #[diesel(sql_type = BigInt)]
    key_id: i64,
    #[diesel(sql_type = Binary)]
    public_key: Vec<u8>,
    #[diesel(sql_type = Nullable<Binary>)]
    signature: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Moment>)]
    expires_at: Option<Timestamp>,
}

impl KeyRow {
    fn signed(self) -> SignedKey {
        let signature = self.signature.unwrap_or_default();
        SignedKey { key_id: self.key_id, public_key: self.public_key.into(), signature: signature.into() }
    }

    fn one_time(self) -> OneTimeKey {
        OneTimeKey { key_id: self.key_id, public_key: self.public_key.into() }
    }
}

#[derive(QueryableByName)]
struct NumberRow {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

/// Locks the keys of a device against other uploads and claims, in the caller's transaction.
async fn lock(connection: &mut Connection, device: DeviceId, now: Timestamp) -> Result<(), StoreError> {
    sql("INSERT INTO key_counters (device_id, kind, highest, created_at, updated_at) VALUES ($1, $2, -1, $3, $3) \
         ON CONFLICT (device_id, kind) DO UPDATE SET updated_at = excluded.updated_at")
    .bind::<Uuid, _>(device)
    .bind::<Text, _>(ONE_TIME)
    .bind::<Moment, _>(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// Stores checked keys of a device, in the caller's transaction. One-time keys whose id is not above the highest ever
/// are skipped; the others of a kind are replaced.
pub async fn put(
    connection: &mut Connection,
    device: DeviceId,
    keys: &Keys,
    signed_expires_at: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    lock(connection, device, now).await?;
    if let Some(signature) = &keys.identity_signature {
        sql("UPDATE devices SET identity_signature = $2, updated_at = $3 WHERE id = $1")
            .bind::<Uuid, _>(device)
            .bind::<Binary, _>(signature.as_ref())
            .bind::<Moment, _>(now)
            .execute(connection)
            .await?;
    }
    if let Some(key) = &keys.signed_prekey {
        replace(connection, device, SIGNED, key, Some(signed_expires_at), now).await?;
    }
    if let Some(key) = &keys.pq_last_resort_prekey {
        replace(connection, device, PQ_LAST_RESORT, key, None, now).await?;
    }
    if let Some(list) = &keys.one_time_prekeys {
        let list: Vec<_> = list.iter().map(|key| (key.key_id, &key.public_key, None)).collect();
        add(connection, device, ONE_TIME, &list, now).await?;
    }
    if let Some(list) = &keys.pq_one_time_prekeys {
        let list: Vec<_> = list.iter().map(|key| (key.key_id, &key.public_key, Some(&key.signature))).collect();
        add(connection, device, PQ_ONE_TIME, &list, now).await?;
    }
    Ok(())
}

async fn replace(
    connection: &mut Connection,
    device: DeviceId,
    kind: &str,
    key: &SignedKey,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), StoreError> {
    sql("DELETE FROM prekeys WHERE device_id = $1 AND kind = $2")
        .bind::<Uuid, _>(device)
        .bind::<Text, _>(kind)
        .execute(connection)
        .await?;
    insert(connection, device, kind, (key.key_id, &key.public_key, Some(&key.signature)), expires_at, now).await
}

async fn insert(
    connection: &mut Connection,
    device: DeviceId,
    kind: &str,
    (key_id, public_key, signature): (i64, &Bytes, Option<&Bytes>),
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), StoreError> {
    sql("INSERT INTO prekeys (device_id, kind, key_id, public_key, signature, expires_at, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7)")
    .bind::<Uuid, _>(device)
    .bind::<Text, _>(kind)
    .bind::<BigInt, _>(key_id)
    .bind::<Binary, _>(public_key.as_ref())
    .bind::<Nullable<Binary>, _>(signature.map(AsRef::<[u8]>::as_ref))
    .bind::<Nullable<Moment>, _>(expires_at)
    .bind::<Moment, _>(now)
    .execute(connection)
    .await?;
    Ok(())
}

async fn add(
    connection: &mut Connection,
    device: DeviceId,
    kind: &str,
    list: &[(i64, &Bytes, Option<&Bytes>)],
    now: Timestamp,
) -> Result<(), StoreError> {
    let before: Option<NumberRow> =
        sql("SELECT highest AS number FROM key_counters WHERE device_id = $1 AND kind = $2")
            .bind::<Uuid, _>(device)
            .bind::<Text, _>(kind)
            .get_result(connection)
            .await
            .optional()?;
    let before = before.map_or(-1, |row| row.number);
    let mut highest = before;
    for key in list.iter().filter(|key| key.0 > before) {
        insert(connection, device, kind, *key, None, now).await?;
        highest = highest.max(key.0);
    }
    if highest == before {
        return Ok(());
    }
    sql("INSERT INTO key_counters (device_id, kind, highest, created_at, updated_at) VALUES ($1, $2, $3, $4, $4) \
         ON CONFLICT (device_id, kind) DO UPDATE SET highest = excluded.highest, updated_at = excluded.updated_at")
    .bind::<Uuid, _>(device)
    .bind::<Text, _>(kind)
    .bind::<BigInt, _>(highest)
    .bind::<Moment, _>(now)
    .execute(connection)
    .await?;
    // The oldest go: a device that uploads more than it may keep has forgotten those first.
    sql("DELETE FROM prekeys WHERE device_id = $1 AND kind = $2 AND key_id <= \
         (SELECT old.key_id FROM prekeys old WHERE old.device_id = $1 AND old.kind = $2 \
          ORDER BY old.key_id DESC LIMIT 1 OFFSET $3)")
    .bind::<Uuid, _>(device)
    .bind::<Text, _>(kind)
    .bind::<BigInt, _>(i64::try_from(limits::MAX_KEYS_KEPT).unwrap_or(i64::MAX))
    .execute(connection)
    .await?;
    Ok(())
}

/// Stores a device's upload; a changed registration id is told like a changed device, as far as the user may notify
/// others.
pub async fn upload(
    connection: &mut Connection,
    user: UserId,
    device: DeviceId,
    keys: Keys,
    signed_expires_at: Timestamp,
    notices_per_hour: Option<u32>,
    now: Timestamp,
) -> Result<KeysStored, StoreError> {
    let stored: Result<KeysStored, StoreError> = transaction!(connection, |connection| {
        let Some(stored) = identity(connection, device).await? else {
            return Ok(KeysStored::NoDevice);
        };
        let mut told = Vec::new();
        let changed = keys.registration_id.filter(|id| stored.registration_id != Some(*id));
        if changed.is_some() {
            told = account_log::hearers(connection, user).await?;
            if let Some(reached) = notices::take(connection, user, told.len(), notices_per_hour, now).await? {
                return Ok(KeysStored::Limited(reached));
            }
        }
        put(connection, device, &keys, signed_expires_at, now).await?;
        if let Some(id) = changed {
            sql("UPDATE devices SET registration_id = $2, updated_at = $3 WHERE id = $1")
                .bind::<Uuid, _>(device)
                .bind::<BigInt, _>(id)
                .bind::<Moment, _>(now)
                .execute(connection)
                .await?;
            let change =
                DevicesChange { user_id: user, added: Vec::new(), removed: Vec::new(), identity_changed: vec![device] };
            told = account_log::tell_devices_changed(connection, &change, told, now).await?;
        }
        Ok(KeysStored::Done { told })
    });
    match stored {
        // It was removed since it was looked at.
        Err(error) if error.is_foreign_key_violation() => Ok(KeysStored::NoDevice),
        stored => stored,
    }
}

/// What is stored of a device's identity.
pub async fn identity(connection: &mut Connection, device: DeviceId) -> Result<Option<DeviceKeysRow>, StoreError> {
    Ok(sql("SELECT id AS device_id, suite, registration_id, identity_key, signing_key, identity_signature FROM devices WHERE id = $1")
        .bind::<Uuid, _>(device)
        .get_result(connection)
        .await
        .optional()?)
}

/// The stocks of a device.
pub async fn count(connection: &mut Connection, device: DeviceId) -> Result<KeyCount, StoreError> {
    let signed = newest(connection, device, SIGNED).await?;
    Ok(KeyCount {
        one_time_prekeys: stock(connection, device, ONE_TIME).await?,
        pq_one_time_prekeys: stock(connection, device, PQ_ONE_TIME).await?,
        signed_prekey_expires_at: signed.and_then(|key| key.expires_at).unwrap_or_default(),
    })
}

async fn stock(connection: &mut Connection, device: DeviceId, kind: &str) -> Result<i64, StoreError> {
    let row: NumberRow = sql("SELECT COUNT(*) AS number FROM prekeys WHERE device_id = $1 AND kind = $2")
        .bind::<Uuid, _>(device)
        .bind::<Text, _>(kind)
        .get_result(connection)
        .await?;
    Ok(row.number)
}

async fn newest(connection: &mut Connection, device: DeviceId, kind: &str) -> Result<Option<KeyRow>, StoreError> {
    Ok(sql("SELECT key_id, public_key, signature, expires_at FROM prekeys WHERE device_id = $1 AND kind = $2 \
         ORDER BY created_at DESC LIMIT 1")
    .bind::<Uuid, _>(device)
    .bind::<Text, _>(kind)
    .get_result(connection)
    .await
    .optional()?)
}

/// The keys of a user's devices; `None`: there is no such user. One one-time key of each kind per device leaves the
/// store.
pub async fn claim(connection: &mut Connection, claim: Claim) -> Result<Option<Claimed>, StoreError> {
    transaction!(connection, |connection| { bundles(connection, &claim).await })
}

/// The same without taking anything: devices and identities.
pub async fn show(connection: &mut Connection, claim: Claim) -> Result<Option<Claimed>, StoreError> {
    bundles(connection, &Claim { take: false, ..claim }).await
}

async fn bundles(connection: &mut Connection, claim: &Claim) -> Result<Option<Claimed>, StoreError> {
    let user: NumberRow = sql("SELECT COUNT(*) AS number FROM users WHERE id = $1")
        .bind::<Uuid, _>(claim.target)
        .get_result(connection)
        .await?;
    if user.number == 0 {
        return Ok(None);
    }
    let mut claimed = Claimed { bundles: Vec::new(), low: Vec::new() };
    for device in devices::of_user(connection, claim.target).await? {
        let is_asked = claim.only.as_ref().is_none_or(|only| only.contains(&device.device_id));
        if is_asked && device.device_id != claim.asking_device {
            claimed.bundles.push(bundle(connection, claim, device, &mut claimed.low).await?);
        }
    }
    Ok(Some(claimed))
}

async fn bundle(
    connection: &mut Connection,
    claim: &Claim,
    device: DeviceKeysRow,
    low: &mut Vec<DeviceId>,
) -> Result<Bundle, StoreError> {
    let id = device.device_id;
    let mut bundle = Bundle {
        device_id: id,
        suite: device.suite,
        registration_id: device.registration_id,
        identity_key: device.identity_key.into(),
        signing_key: device.signing_key.map(Into::into),
        identity_signature: device.identity_signature.map(Into::into),
        signed_prekey: None,
        one_time_prekey: None,
        pq_prekey: None,
    };
    if !claim.take {
        return Ok(bundle);
    }
    let signed = newest(connection, id, SIGNED).await?;
    let mut is_low = signed.as_ref().and_then(|key| key.expires_at).is_some_and(|at| at <= claim.now);
    bundle.signed_prekey = signed.map(KeyRow::signed);
    if is_allowed(connection, claim, id).await? {
        if !planted::is(Bug::ClaimBySelect) {
            lock(connection, id, claim.now).await?;
        }
        bundle.one_time_prekey = pop(connection, id, ONE_TIME, &mut is_low).await?.map(KeyRow::one_time);
        bundle.pq_prekey = pop(connection, id, PQ_ONE_TIME, &mut is_low).await?.map(KeyRow::signed);
    }
    if bundle.pq_prekey.is_none() {
        bundle.pq_prekey = newest(connection, id, PQ_LAST_RESORT).await?.map(KeyRow::signed);
    }
    if is_low {
        low.push(id);
    }
    Ok(bundle)
}

/// Takes one claim of asker and device: a bucket whose one stored moment says when it will be full again.
async fn is_allowed(connection: &mut Connection, claim: &Claim, device: DeviceId) -> Result<bool, StoreError> {
    let Some((most, interval)) = claim.allowance else {
        return Ok(true);
    };
    let subject = [claim.asker.as_bytes().as_slice(), device.as_bytes().as_slice()].concat();
    let moments = allowances::lock(connection, "claim", &subject, claim.now).await?;
    let full_at = moments.last().copied().unwrap_or(claim.now);
    let Ok(next) = bucket::take(full_at, interval, interval.saturating_mul(most), claim.now) else {
        return Ok(false);
    };
    allowances::write(connection, "claim", &subject, &[next], next.since(claim.now), claim.now).await?;
    Ok(true)
}

/// Takes the oldest key of a kind out of the store, under the device's lock. Sets `is_low` when the stock falls below
/// the line by it.
async fn pop(
    connection: &mut Connection,
    device: DeviceId,
    kind: &str,
    is_low: &mut bool,
) -> Result<Option<KeyRow>, StoreError> {
    if planted::is(Bug::ClaimBySelect) {
        let key = sql("SELECT key_id, public_key, signature, expires_at FROM prekeys \
             WHERE device_id = $1 AND kind = $2 ORDER BY key_id LIMIT 1")
        .bind::<Uuid, _>(device)
        .bind::<Text, _>(kind)
        .get_result::<KeyRow>(connection)
        .await
        .optional()?;
        sql("DELETE FROM prekeys WHERE device_id = $1 AND kind = $2 AND key_id = $3")
            .bind::<Uuid, _>(device)
            .bind::<Text, _>(kind)
            .bind::<BigInt, _>(key.as_ref().map_or(-1, |key| key.key_id))
            .execute(connection)
            .await?;
        return Ok(key);
    }
    let key: Option<KeyRow> = sql("DELETE FROM prekeys WHERE device_id = $1 AND kind = $2 AND key_id = \
         (SELECT MIN(first.key_id) FROM prekeys first WHERE first.device_id = $1 AND first.kind = $2) \
         RETURNING key_id, public_key, signature, expires_at")
    .bind::<Uuid, _>(device)
    .bind::<Text, _>(kind)
    .get_result(connection)
    .await
    .optional()?;
    if key.is_some() && stock(connection, device, kind).await? == LOW_STOCK - 1 {
        *is_low = true;
    }
    Ok(key)
}

#[derive(QueryableByName)]
struct KindRow {
    #[diesel(sql_type = Text)]
    kind: String,
}

/// The kinds of one-time keys that a device has ever uploaded.
pub async fn stocked_kinds(connection: &mut Connection, device: DeviceId) -> Result<Vec<String>, StoreError> {
    let rows: Vec<KindRow> = sql("SELECT kind FROM key_counters WHERE device_id = $1 AND highest >= 0")
        .bind::<Uuid, _>(device)
        .load(connection)
        .await?;
    Ok(rows.into_iter().map(|row| row.kind).collect())
}
