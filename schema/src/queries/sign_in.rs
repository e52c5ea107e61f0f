//! Signing in: codes, token families, refresh tokens.

use super::second_factor::Asked;
use super::*;
use crate::rows::registration_lock::Takeover;
use crate::rows::sign_in::{
    Attempt, EndedSessionRow, NewSession, Refresh, RefreshTokenRow, Refreshed, Refusal, SignedIn, SigningDevice,
    VerificationRow,
};
use crate::rows::trail::Happened;
use crate::second_factor::{Asks, Shown, Tries, Use};
use crate::types::{Moment, Uuid};
use diesel::QueryableByName;
use diesel::result::OptionalExtension;
use diesel::sql_types::{BigInt, Binary, Nullable};
use diesel_async::RunQueryDsl;
use sotto_protocol::trail::TrailEvent;
use sotto_protocol::{DeviceId, Timestamp, UserId, VerificationId, limits};
use std::time::Duration;

/// So long is the end of a family told to nodes that did not hear of it.
const KEEP_ENDED: Duration = Duration::from_secs(3600);

#[derive(QueryableByName)]
struct TriesRow {
    #[diesel(sql_type = BigInt)]
    tries: i64,
    #[diesel(sql_type = Nullable<Moment>)]
    used_at: Option<Timestamp>,
}

/// A request for a code.
pub async fn verification(
    connection: &mut Connection,
    id: VerificationId,
) -> Result<Option<VerificationRow>, StoreError> {
    Ok(sql("SELECT phone, purpose, code_hash, tries, expires_at, used_at FROM verifications WHERE id = $1")
        .bind::<Uuid, _>(id)
        .get_result(connection)
        .await
        .optional()?)
}

impl TriesRow {
    fn tries(&self, most: i64) -> Tries {
        Tries { failed: self.tries, most, is_used: self.used_at.is_some() }
    }
}

/// Locks the verification and the counts of failures, in the caller's transaction. `Some`: the answer stands already.
pub async fn begin(connection: &mut Connection, attempt: &Attempt) -> Result<Option<SignedIn>, StoreError> {
    let row: Option<TriesRow> =
        sql("UPDATE verifications SET updated_at = $2 WHERE id = $1 AND expires_at > $2 RETURNING tries, used_at")
            .bind::<Uuid, _>(attempt.verification_id)
            .bind::<Moment, _>(attempt.now)
            .get_result(connection)
            .await
            .optional()?;
    let is_open = row.is_some_and(|row| row.tries(attempt.most_tries).is_open());
    if !is_open {
        return Ok(Some(SignedIn::Rejected { attempts_left: 0 }));
    }
    let reached = allowances::peek(connection, &attempt.failures, attempt.now).await?;
    Ok(reached.map(SignedIn::Limited))
}

/// Uses the code up, in the caller's transaction.
pub async fn use_up(connection: &mut Connection, attempt: &Attempt) -> Result<(), StoreError> {
    sql("UPDATE verifications SET used_at = $2, updated_at = $2 WHERE id = $1")
        .bind::<Uuid, _>(attempt.verification_id)
        .bind::<Moment, _>(attempt.now)
        .execute(connection)
        .await?;
    Ok(())
}

/// Counts a wrong code, against its verification, number and address.
pub async fn wrong_code(connection: &mut Connection, attempt: Attempt) -> Result<SignedIn, StoreError> {
    transaction!(connection, |connection| {
        if let Some(answer) = begin(connection, &attempt).await? {
            return Ok(answer);
        }
        Ok(SignedIn::Rejected { attempts_left: count_failure(connection, &attempt).await? })
    })
}

/// Counts a failure against the verification, its number and the address, in the caller's transaction, which has begun
/// the attempt. Returns how many tries are left.
pub async fn count_failure(connection: &mut Connection, attempt: &Attempt) -> Result<i64, StoreError> {
    let row: TriesRow = sql("SELECT tries, used_at FROM verifications WHERE id = $1")
        .bind::<Uuid, _>(attempt.verification_id)
        .get_result(connection)
        .await?;
    let mut tries = row.tries(attempt.most_tries);
    let attempts_left = tries.fail();
    sql("UPDATE verifications SET tries = $2, updated_at = $3 WHERE id = $1")
        .bind::<Uuid, _>(attempt.verification_id)
        .bind::<BigInt, _>(tries.failed)
        .bind::<Moment, _>(attempt.now)
        .execute(connection)
        .await?;
    allowances::take(connection, &attempt.failures, 1, attempt.now).await?;
    Ok(attempts_left)
}

/// Appends what came of an attempt to the account's trail, as the last statement of its transaction.
pub async fn tell(
    connection: &mut Connection,
    attempt: &Attempt,
    user: UserId,
    event: TrailEvent,
) -> Result<(), StoreError> {
    trail::append(connection, user, Happened { event, address: attempt.address.clone() }, attempt.now).await
}

/// Makes an account with its first device, after the right code. An account that had the number goes, if it may.
pub async fn register(
    connection: &mut Connection,
    attempt: Attempt,
    takeover: Takeover,
    user: UserId,
    device: SigningDevice,
    session: NewSession,
) -> Result<SignedIn, StoreError> {
    transaction!(connection, |connection| {
        if let Some(answer) = begin(connection, &attempt).await? {
            return Ok(answer);
        }
        if let Some(answer) = registration_lock::take_over(connection, &attempt, &takeover).await? {
            return Ok(answer);
        }
        if !devices::insert_user(connection, user, &attempt.phone, attempt.now).await? {
            return Ok(SignedIn::Refused(Refusal::NumberInUse));
        }
        use_up(connection, &attempt).await?;
        let told = devices::add(connection, user, &device, attempt.now).await?;
        insert_session(connection, user, device.id, &session, attempt.now).await?;
        networks::remember(connection, user, &attempt.networks, attempt.now).await?;
        tell(connection, &attempt, user, TrailEvent::Registered { device_id: device.id }).await?;
        Ok(SignedIn::Done { user_id: user, ended: Vec::new(), told })
    })
}

/// Signs a device in, new or known, after the right code and what was shown of the second factor.
pub async fn login(
    connection: &mut Connection,
    attempt: Attempt,
    shown: Shown,
    device: SigningDevice,
    session: NewSession,
) -> Result<SignedIn, StoreError> {
    transaction!(connection, |connection| {
        if let Some(answer) = begin(connection, &attempt).await? {
            return Ok(answer);
        }
        // One sign-in of a user at a time: the number of devices is bounded, and what proves somebody serves once.
        let Some(user) = second_factor::lock_by_phone(connection, &attempt.phone, attempt.now).await? else {
            return Ok(SignedIn::Refused(Refusal::NoAccount));
        };
        // A device that has proved itself is no stranger with a number.
        let asks = if device.is_known { Asks::Factor } else { Asks::FactorOrPin };
        // Before anything that tells about the account's devices.
        let used = match second_factor::ask(connection, &attempt, user, asks, &shown).await? {
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
        if let Some(answer) = second_factor::spend(connection, &attempt, user, used).await? {
            return Ok(answer);
        }
        let (ended, told) = match same {
            Some(known) => {
                let ended = end_sessions(connection, device.id, attempt.now).await?;
                (ended, devices::renew(connection, user, &device, known.registration_id, attempt.now).await?)
            }
            None => (Vec::new(), devices::add(connection, user, &device, attempt.now).await?),
        };
        insert_session(connection, user, device.id, &session, attempt.now).await?;
        networks::remember(connection, user, &attempt.networks, attempt.now).await?;
        if let Some(Use::BackupCode(_)) = used {
            tell(connection, &attempt, user, TrailEvent::BackupCodeUsed).await?;
        }
        let device_id = device.id;
        let event = match same {
            Some(_) => TrailEvent::DeviceRenewed { device_id },
            None => TrailEvent::DeviceAdded { device_id },
        };
        tell(connection, &attempt, user, event).await?;
        Ok(SignedIn::Done { user_id: user, ended, told })
    })
}

/// Begins a token family with its first refresh token, in the caller's transaction.
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
    insert_token(connection, session.id, 1, &session.token_hash, &session.token_secret, session.expires_at, now).await
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
