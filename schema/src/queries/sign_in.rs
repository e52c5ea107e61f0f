//! Signing in: codes, token families, refresh tokens.

use super::second_factor::Asked;
use super::*;
use crate::rows::proofs::{Evidence, RightCode};
use crate::rows::registration_lock::{LockRow, Takeover};
use crate::rows::sign_in::{
    EndedSessionRow, NewSession, Refresh, RefreshTokenRow, Refreshed, Refusal, SignedIn, SigningDevice,
};
use crate::rows::trail::Happened;
use crate::second_factor::{Asks, Guard, Use};
use crate::types::{Moment, Uuid};
use diesel::result::OptionalExtension;
use diesel::sql_types::{BigInt, Binary};
use diesel_async::RunQueryDsl;
use sotto_protocol::trail::TrailEvent;
use sotto_protocol::{DeviceId, Timestamp, UserId, limits};
use std::time::Duration;

/// So long is the end of a family told to nodes that did not hear of it.
const KEEP_ENDED: Duration = Duration::from_secs(3600);

/// Appends what came of a right code to the account's trail, as the last statement of its transaction.
pub async fn tell(
    connection: &mut Connection,
    code: &RightCode,
    user: UserId,
    event: TrailEvent,
) -> Result<(), StoreError> {
    trail::append(connection, user, Happened { event, address: code.address.clone() }, code.now).await
}

/// Makes an account with its first device, after the right code. An account that had the number goes, if it may.
pub async fn register(
    connection: &mut Connection,
    code: RightCode,
    takeover: Takeover,
    user: UserId,
    device: SigningDevice,
    session: NewSession,
) -> Result<SignedIn, StoreError> {
    transaction!(connection, |connection| {
        if let Some(answer) = proofs::begin(connection, &code, takeover.evidence.taken.as_ref()).await? {
            return Ok(answer);
        }
        if let Some(answer) = registration_lock::take_over(connection, &code, &takeover).await? {
            return Ok(answer);
        }
        if !devices::insert_user(connection, user, &code.phone, code.now).await? {
            return Ok(SignedIn::Refused(Refusal::NumberInUse));
        }
        proofs::use_up(connection, &code).await?;
        let told = devices::add(connection, user, &device, code.now).await?;
        insert_session(connection, user, device.id, &session, code.now).await?;
        networks::remember(connection, user, &code.networks, code.now).await?;
        tell(connection, &code, user, TrailEvent::Registered { device_id: device.id }).await?;
        Ok(SignedIn::Done { user_id: user, ended: Vec::new(), told })
    })
}

/// Signs a device in, new or known, after the right code and what was shown of the second factor.
pub async fn login(
    connection: &mut Connection,
    code: RightCode,
    evidence: Evidence,
    device: SigningDevice,
    session: NewSession,
) -> Result<SignedIn, StoreError> {
    let now = code.now;
    transaction!(connection, |connection| {
        if let Some(answer) = proofs::begin(connection, &code, evidence.taken.as_ref()).await? {
            return Ok(answer);
        }
        // One sign-in of a user at a time: the number of devices is bounded, and what proves somebody serves once.
        let Some(user) = second_factor::lock_by_phone(connection, &code.phone, now).await? else {
            return Ok(SignedIn::Refused(Refusal::NoAccount));
        };
        // A device that has proved itself is no stranger with a number.
        let asks = if device.is_known { Asks::Factor } else { Asks::Strongest };
        let row = registration_lock::guards(connection, user).await?;
        let factor = row.factor.as_ref().map(|row| &row.factor);
        let guard = Guard::of(asks, factor, row.lock.as_ref().map(LockRow::standing));
        // Before anything that tells about the account's devices.
        let used = match second_factor::ask(connection, Some(&code), &guard, &evidence, now).await? {
            Asked::Answered(answer) => return Ok(answer),
            Asked::NotNeeded => None,
            Asked::Passed(used) => Some(used),
        };
        let devices = devices::of_user(connection, user).await?;
        let keys = &device.keys;
        let identity = keys.identity_key.as_ref().map(AsRef::<[u8]>::as_ref);
        let same = devices.iter().find(|known| identity == Some(known.identity_key.as_slice()));
        match same {
            Some(known) => {
                if !device.is_known || known.device_id != device.id {
                    return Ok(SignedIn::Refused(Refusal::IdentityInUse));
                }
                let signing = keys.signing_key.as_ref().map(AsRef::<[u8]>::as_ref);
                if keys.suite != Some(known.suite) || signing != known.signing_key.as_deref() {
                    return Ok(SignedIn::Refused(Refusal::KeysChanged));
                }
            }
            // It was removed since it was looked up.
            None if device.is_known => return Ok(SignedIn::Refused(Refusal::IdentityInUse)),
            None if devices.len() >= limits::MAX_DEVICES => {
                return Ok(SignedIn::Refused(Refusal::TooManyDevices));
            }
            None => {}
        }
        if devices::is_fingerprint_in_use(connection, user, device.id, &device.info).await? {
            return Ok(SignedIn::Refused(Refusal::FingerprintInUse));
        }
        if let Some(answer) = second_factor::spend(connection, Some(&code), user, used, &evidence, now).await? {
            return Ok(answer);
        }
        let (ended, told) = match same {
            Some(known) => {
                let ended = end_sessions(connection, device.id, now).await?;
                (ended, devices::renew(connection, user, &device, known.registration_id, now).await?)
            }
            None => (Vec::new(), devices::add(connection, user, &device, now).await?),
        };
        insert_session(connection, user, device.id, &session, now).await?;
        networks::remember(connection, user, &code.networks, now).await?;
        if let Some(Use::BackupCode(_)) = used {
            tell(connection, &code, user, TrailEvent::BackupCodeUsed).await?;
        }
        let device_id = device.id;
        let event = match same {
            Some(_) => TrailEvent::DeviceRenewed { device_id },
            None => TrailEvent::DeviceAdded { device_id },
        };
        tell(connection, &code, user, event).await?;
        Ok(SignedIn::Done { user_id: user, ended, told })
    })
}

/// Begins a token family with its first refresh token, and writes that into the history of sign-ins. In the caller's transaction.
pub async fn insert_session(
    connection: &mut Connection,
    user: UserId,
    device: DeviceId,
    session: &NewSession,
    now: Timestamp,
) -> Result<(), StoreError> {
    sql("INSERT INTO sessions (id, user_id, device_id, generation, confirmed, expires_at, created_at, updated_at) \
         VALUES ($1, $2, $3, 1, 0, $4, $5, $5)")
    .bind::<Uuid, _>(session.id)
    .bind::<Uuid, _>(user)
    .bind::<Uuid, _>(device)
    .bind::<Moment, _>(session.expires_at)
    .bind::<Moment, _>(now)
    .execute(connection)
    .await?;
    insert_token(connection, session.id, 1, &session.token_hash, &session.token_secret, session.expires_at, now)
        .await?;
    match &session.way {
        Some(way) => logins::signed_in(connection, user, device, way, now).await,
        None => Ok(()),
    }
}

async fn insert_token(
    connection: &mut Connection,
    session: uuid::Uuid,
    generation: i64,
    hash: &[u8],
    secret: &[u8],
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    sql("INSERT INTO refresh_tokens (hash, session_id, generation, secret, expires_at, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $6)")
    .bind::<Binary, _>(hash)
    .bind::<Uuid, _>(session)
    .bind::<BigInt, _>(generation)
    .bind::<Binary, _>(secret)
    .bind::<Moment, _>(expires_at)
    .bind::<Moment, _>(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// A refresh token.
pub async fn refresh_token(connection: &mut Connection, hash: Vec<u8>) -> Result<Option<RefreshTokenRow>, StoreError> {
    find_token(connection, &hash).await
}

async fn find_token(connection: &mut Connection, hash: &[u8]) -> Result<Option<RefreshTokenRow>, StoreError> {
    Ok(sql(
        "SELECT t.session_id, s.user_id, s.device_id, t.generation, t.secret, t.used_at, t.expires_at, s.confirmed \
         FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id WHERE t.hash = $1",
    )
    .bind::<Binary, _>(hash)
    .get_result(connection)
    .await
    .optional()?)
}

/// Uses a refresh token: makes its successor, gives the same one again, or ends the family.
pub async fn refresh(connection: &mut Connection, refresh: Refresh) -> Result<Refreshed, StoreError> {
    let now = refresh.now;
    transaction!(connection, |connection| {
        // The family's row first: of two that present tokens of one family, one waits and then sees what the other did.
        sql("UPDATE sessions SET updated_at = $2 WHERE id = $1")
            .bind::<Uuid, _>(refresh.session_id)
            .bind::<Moment, _>(now)
            .execute(connection)
            .await?;
        let Some(token) = find_token(connection, &refresh.hash).await?.filter(|token| token.expires_at > now) else {
            return Ok(Refreshed::Unknown);
        };
        let generation = token.generation + 1;
        let Some(used_at) = token.used_at else {
            sql("UPDATE refresh_tokens SET used_at = $2, updated_at = $2 WHERE hash = $1")
                .bind::<Binary, _>(&refresh.hash)
                .bind::<Moment, _>(now)
                .execute(connection)
                .await?;
            sql("UPDATE sessions SET generation = $2, confirmed = $3, expires_at = $4 WHERE id = $1")
                .bind::<Uuid, _>(token.session_id)
                .bind::<BigInt, _>(generation)
                .bind::<BigInt, _>(token.confirmed.max(token.generation))
                .bind::<Moment, _>(refresh.next_expires_at)
                .execute(connection)
                .await?;
            let expires_at = refresh.next_expires_at;
            let (hash, secret) = (&refresh.next_hash, &refresh.next_secret);
            insert_token(connection, token.session_id, generation, hash, secret, expires_at, now).await?;
            return Ok(Refreshed::Done { generation, expires_at });
        };
        let next = find_token(connection, &refresh.next_hash).await?;
        let may_repeat = token.confirmed < generation && now.since(used_at) <= refresh.grace;
        match next.filter(|_| may_repeat) {
            Some(next) => Ok(Refreshed::Done { generation, expires_at: next.expires_at }),
            None => {
                end_session(connection, token.session_id, now).await?;
                let event = TrailEvent::RefreshTokenReused { device_id: token.device_id };
                trail::append(connection, token.user_id, event.into(), now).await?;
                Ok(Refreshed::Reused)
            }
        }
    })
}

/// Ends a family before its time, in the caller's transaction, so that every node hears of it.
async fn end_session(connection: &mut Connection, id: uuid::Uuid, now: Timestamp) -> Result<(), StoreError> {
    sql("INSERT INTO ended_sessions (id, user_id, device_id, created_at, updated_at) \
         SELECT id, user_id, device_id, $2, $2 FROM sessions WHERE id = $1")
    .bind::<Uuid, _>(id)
    .bind::<Moment, _>(now)
    .execute(connection)
    .await?;
    sql("DELETE FROM sessions WHERE id = $1").bind::<Uuid, _>(id).execute(connection).await?;
    Ok(())
}

/// Ends all families of a device, in the caller's transaction. Returns them.
pub async fn end_sessions(
    connection: &mut Connection,
    device: DeviceId,
    now: Timestamp,
) -> Result<Vec<uuid::Uuid>, StoreError> {
    let families = devices::families(connection, device).await?;
    for family in &families {
        end_session(connection, *family, now).await?;
    }
    Ok(families)
}

/// Locks the token families of an account. The caller's transaction must hold the account's lock and must not have written
/// the trail yet, because a refresh locks its family first and then the trail.
pub async fn lock_sessions(connection: &mut Connection, user: UserId, now: Timestamp) -> Result<(), StoreError> {
    sql("UPDATE sessions SET updated_at = $2 WHERE user_id = $1")
        .bind::<Uuid, _>(user)
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
    Ok(())
}

/// Families that were ended since a moment.
pub async fn ended_since(connection: &mut Connection, since: Timestamp) -> Result<Vec<EndedSessionRow>, StoreError> {
    Ok(sql("SELECT id, user_id, device_id FROM ended_sessions WHERE created_at >= $1 ORDER BY created_at")
        .bind::<Moment, _>(since)
        .load(connection)
        .await?)
}

/// Removes what has ended: codes, counts, families, tokens, set-ups of second factors. Returns how many rows.
pub async fn sweep(connection: &mut Connection, now: Timestamp) -> Result<usize, StoreError> {
    let mut removed = 0;
    for statement in [
        "DELETE FROM verifications WHERE expires_at < $1",
        "DELETE FROM allowances WHERE expires_at < $1",
        "DELETE FROM known_networks WHERE expires_at < $1",
        "DELETE FROM sessions WHERE expires_at < $1",
        "DELETE FROM refresh_tokens WHERE expires_at < $1",
        "DELETE FROM second_factors WHERE enabled_at IS NULL AND expires_at < $1",
    ] {
        removed += sql(statement).bind::<Moment, _>(now).execute(connection).await?;
    }
    removed += sql("DELETE FROM ended_sessions WHERE created_at < $1")
        .bind::<Moment, _>(now.minus(KEEP_ENDED))
        .execute(connection)
        .await?;
    Ok(removed)
}
