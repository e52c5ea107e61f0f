//! Links of new devices to accounts: begun, scanned, confirmed, refused, used.
//!
//! Whatever changes one locks its row first, before codes, counts and accounts. What is decided is decided by
//! [`crate::device_link`].

use super::*;
use crate::device_link::{Collecting, Deciding, REPEAT, Stage};
use crate::rows::device_link::{LinkBegun, LinkCollected, LinkConfirmed, LinkRow, NewLink};
use crate::rows::reauthentication::{Proof, Proved};
use crate::rows::sign_in::{Allowance, NewSession, Refusal, SigningDevice};
use crate::rows::trail::Happened;
use crate::types::{Json, Moment, Uuid, Word};
use diesel::QueryableByName;
use diesel::result::OptionalExtension;
use diesel::sql_types::{Binary, Nullable, Text};
use diesel_async::RunQueryDsl;
use sotto_protocol::keys::{Keys, Suite};
use sotto_protocol::trail::TrailEvent;
use sotto_protocol::{DeviceId, LinkId, Timestamp, UserId, limits};

#[derive(QueryableByName)]
struct KeysRow {
    #[diesel(sql_type = Json)]
    keys: serde_json::Value,
}

#[derive(QueryableByName)]
struct FamilyRow {
    #[diesel(sql_type = Uuid)]
    device_id: DeviceId,
    #[diesel(sql_type = Moment)]
    expires_at: Timestamp,
}

/// Stores a link that begins, if the limits allow.
pub async fn begin(
    connection: &mut Connection,
    new: NewLink,
    allowances: Vec<Allowance>,
    now: Timestamp,
) -> Result<LinkBegun, StoreError> {
    let written = |error: serde_json::Error| StoreError::Unavailable(error.to_string());
    let device = serde_json::to_value(&new.info).map_err(written)?;
    let keys = serde_json::to_value(&new.keys).map_err(written)?;
    transaction!(connection, |connection| {
        if let Some(reached) = allowances::take(connection, &allowances, 1, now).await? {
            return Ok(LinkBegun::Limited(reached));
        }
        sql("INSERT INTO device_links (id, challenge_hash, secret_hash, suite, identity_key, signing_key, device, \
                 keys, address, stage, expires_at, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12)")
        .bind::<Uuid, _>(new.id)
        .bind::<Binary, _>(&new.challenge_hash)
        .bind::<Binary, _>(&new.secret_hash)
        .bind::<Word, _>(new.keys.suite.unwrap_or(Suite::Signal))
        .bind::<Binary, _>(new.keys.identity_key.as_ref().map(AsRef::<[u8]>::as_ref).unwrap_or_default())
        .bind::<Nullable<Binary>, _>(new.keys.signing_key.as_ref().map(AsRef::<[u8]>::as_ref))
        .bind::<Json, _>(&device)
        .bind::<Json, _>(&keys)
        .bind::<Nullable<Text>, _>(new.address.as_deref())
        .bind::<Word, _>(Stage::Begun)
        .bind::<Moment, _>(new.expires_at)
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
        Ok::<_, StoreError>(LinkBegun::Begun)
    })
}

/// A link.
pub async fn find(connection: &mut Connection, id: LinkId) -> Result<Option<LinkRow>, StoreError> {
    Ok(sql("SELECT challenge_hash, secret_hash, suite, identity_key, signing_key, device, address, stage, user_id, \
             session_id, used_at, created_at, expires_at FROM device_links WHERE id = $1")
    .bind::<Uuid, _>(id)
    .get_result(connection)
    .await
    .optional()?)
}

/// A link, locked until the transaction ends.
async fn lock(connection: &mut Connection, id: LinkId, now: Timestamp) -> Result<Option<LinkRow>, StoreError> {
    Ok(sql("UPDATE device_links SET updated_at = $2 WHERE id = $1 \
         RETURNING challenge_hash, secret_hash, suite, identity_key, signing_key, device, address, stage, user_id, \
             session_id, used_at, created_at, expires_at")
    .bind::<Uuid, _>(id)
    .bind::<Moment, _>(now)
    .get_result(connection)
    .await
    .optional()?)
}

async fn set_stage(
    connection: &mut Connection,
    id: LinkId,
    stage: Stage,
    account: Option<UserId>,
) -> Result<(), StoreError> {
    sql("UPDATE device_links SET stage = $2, user_id = $3 WHERE id = $1")
        .bind::<Uuid, _>(id)
        .bind::<Word, _>(stage)
        .bind::<Nullable<Uuid>, _>(account)
        .execute(connection)
        .await?;
    Ok(())
}

/// An account shows the QR code; the first one that shows the right one binds the link.
pub async fn scan(
    connection: &mut Connection,
    id: LinkId,
    account: UserId,
    is_right: bool,
    now: Timestamp,
) -> Result<bool, StoreError> {
    transaction!(connection, |connection| {
        let Some(row) = lock(connection, id, now).await? else {
            return Ok(false);
        };
        let mut link = row.link();
        let is_there = link.scan(account, is_right, now);
        if link != row.link() {
            set_stage(connection, id, link.stage, link.user_id).await?;
        }
        Ok::<_, StoreError>(is_there)
    })
}

/// An account confirms a link that it has scanned, if the proof holds.
pub async fn confirm(
    connection: &mut Connection,
    id: LinkId,
    is_right: bool,
    proof: Proof,
) -> Result<LinkConfirmed, StoreError> {
    let (account, now) = (proof.user_id, proof.now);
    transaction!(connection, |connection| {
        let Some(row) = lock(connection, id, now).await? else {
            return Ok(LinkConfirmed::Unknown);
        };
        let mut link = row.link();
        match link.confirming(account, is_right, now) {
            Deciding::Unknown => return Ok(LinkConfirmed::Unknown),
            Deciding::Already => return Ok(LinkConfirmed::Done),
            Deciding::Open => {}
        }
        // Told here already, where somebody can do something about it. What counts is asked again when the device joins.
        if let Err(refusal) = place(connection, account, &row).await? {
            return Ok(LinkConfirmed::Full(refusal));
        }
        let proved = reauthentication::prove(connection, &proof).await?;
        if !matches!(proved, Proved::Done) {
            return Ok(LinkConfirmed::Refused(proved));
        }
        link.confirm(account, is_right, now);
        set_stage(connection, id, link.stage, link.user_id).await?;
        sql("UPDATE device_links SET confirmed_by = $2 WHERE id = $1")
            .bind::<Uuid, _>(id)
            .bind::<Uuid, _>(proof.device_id)
            .execute(connection)
            .await?;
        Ok::<_, StoreError>(LinkConfirmed::Done)
    })
}

/// An account refuses a link that it has scanned.
pub async fn refuse(
    connection: &mut Connection,
    id: LinkId,
    account: UserId,
    is_right: bool,
    now: Timestamp,
) -> Result<Deciding, StoreError> {
    transaction!(connection, |connection| {
        let Some(row) = lock(connection, id, now).await? else {
            return Ok(Deciding::Unknown);
        };
        let mut link = row.link();
        let decided = link.refuse(account, is_right, now);
        if decided == Deciding::Open {
            set_stage(connection, id, link.stage, link.user_id).await?;
        }
        Ok::<_, StoreError>(decided)
    })
}

/// Refuses the confirmed links of an account that no device has used, but for those that `keeper` confirmed, because what guards
/// the account has changed. In a transaction of its own, behind that of the change: links are locked before accounts.
pub async fn refuse_confirmed(
    connection: &mut Connection,
    account: UserId,
    keeper: DeviceId,
    now: Timestamp,
) -> Result<usize, StoreError> {
    Ok(sql("UPDATE device_links SET stage = $2, updated_at = $3 \
         WHERE user_id = $1 AND stage = 'confirmed' AND (confirmed_by IS NULL OR confirmed_by <> $4)")
    .bind::<Uuid, _>(account)
    .bind::<Word, _>(Stage::Refused)
    .bind::<Moment, _>(now)
    .bind::<Uuid, _>(keeper)
    .execute(connection)
    .await?)
}

/// The place that an account has for a link's device: that of a device with its identity, or a new one.
async fn place(
    connection: &mut Connection,
    account: UserId,
    row: &LinkRow,
) -> Result<Result<Option<(DeviceId, Option<i64>)>, Refusal>, StoreError> {
    let devices = devices::of_user(connection, account).await?;
    let same = devices.iter().find(|known| known.identity_key == row.identity_key);
    let own = same.map_or_else(DeviceId::random, |known| known.device_id);
    if let Some(info) = row.info()
        && devices::is_fingerprint_in_use(connection, account, own, &info).await?
    {
        return Ok(Err(Refusal::FingerprintInUse));
    }
    Ok(match same {
        // Its proof was made with the key that is stored of it only if that is the link's.
        Some(known) if known.suite != row.suite || known.signing_key != row.signing_key => Err(Refusal::KeysChanged),
        Some(known) => Ok(Some((known.device_id, known.registration_id))),
        None if devices.len() >= limits::MAX_DEVICES => Err(Refusal::TooManyDevices),
        None => Ok(None),
    })
}

/// The new device, which has shown that it is the one, joins the account: all in one transaction, so that there is no
/// device without tokens. The same family again while nothing of it was used.
pub async fn collect(
    connection: &mut Connection,
    id: LinkId,
    new_device: DeviceId,
    session: NewSession,
    signed_prekey_expires_at: Timestamp,
    now: Timestamp,
) -> Result<LinkCollected, StoreError> {
    transaction!(connection, |connection| {
        let Some(row) = lock(connection, id, now).await? else {
            return Ok(LinkCollected::Unknown);
        };
        let mut link = row.link();
        let account = match link.collecting(true, now) {
            Collecting::Unknown => return Ok(LinkCollected::Unknown),
            Collecting::Waiting { scanned } => return Ok(LinkCollected::Waiting { scanned }),
            Collecting::Again => return again(connection, &row).await,
            Collecting::Join(account) => account,
        };
        // One sign-in of a user at a time: the number of devices is bounded.
        second_factor::lock(connection, account, now).await?;
        let known = match place(connection, account, &row).await? {
            Ok(known) => known,
            Err(refusal) => return Ok(LinkCollected::Full(refusal)),
        };
        let (Some(info), Some(keys)) = (row.info(), stored_keys(connection, id).await?) else {
            return Ok(LinkCollected::Unknown);
        };
        let device_id = known.map_or(new_device, |(device_id, _)| device_id);
        let device = SigningDevice {
            id: device_id,
            is_known: known.is_some(),
            info,
            address: row.address.clone(),
            keys,
            signed_prekey_expires_at,
        };
        let (ended, told) = match known {
            Some((_, registration_id)) => {
                let ended = sign_in::end_sessions(connection, device_id, now).await?;
                (ended, devices::renew(connection, account, &device, registration_id, now).await?)
            }
            None => (Vec::new(), devices::add(connection, account, &device, now).await?),
        };
        sign_in::insert_session(connection, account, device_id, &session, now).await?;
        link.use_up(now);
        sql("UPDATE device_links SET stage = $2, session_id = $3, used_at = $4 WHERE id = $1")
            .bind::<Uuid, _>(id)
            .bind::<Word, _>(link.stage)
            .bind::<Uuid, _>(session.id)
            .bind::<Nullable<Moment>, _>(link.used_at)
            .execute(connection)
            .await?;
        let happened = Happened { event: TrailEvent::DeviceLinked { device_id }, address: device.address.clone() };
        trail::append(connection, account, happened, now).await?;
        Ok::<_, StoreError>(LinkCollected::Joined { user_id: account, device_id, ended, told })
    })
}

/// The family that a link has brought, if it stands and nothing of it was used.
async fn again(connection: &mut Connection, row: &LinkRow) -> Result<LinkCollected, StoreError> {
    let (Some(user_id), Some(session_id)) = (row.user_id, row.session_id) else {
        return Ok(LinkCollected::Unknown);
    };
    let family: Option<FamilyRow> = sql("SELECT device_id, expires_at FROM sessions \
         WHERE id = $1 AND generation = 1 AND confirmed = 0")
    .bind::<Uuid, _>(session_id)
    .get_result(connection)
    .await
    .optional()?;
    Ok(family.map_or(LinkCollected::Unknown, |family| LinkCollected::Again {
        user_id,
        device_id: family.device_id,
        session_id,
        expires_at: family.expires_at,
    }))
}

async fn stored_keys(connection: &mut Connection, id: LinkId) -> Result<Option<Keys>, StoreError> {
    let row: KeysRow =
        sql("SELECT keys FROM device_links WHERE id = $1").bind::<Uuid, _>(id).get_result(connection).await?;
    Ok(serde_json::from_value(row.keys).ok())
}

/// Removes links that have ended. Used ones stay for as long as their tokens may be asked for again.
pub async fn sweep(connection: &mut Connection, now: Timestamp) -> Result<usize, StoreError> {
    Ok(sql("DELETE FROM device_links WHERE expires_at < $1")
        .bind::<Moment, _>(now.minus(REPEAT))
        .execute(connection)
        .await?)
}
