//! Registration locks: set, removed, and asked by whoever registers a number that has an account.

use super::*;
use crate::registration_lock::{Claim, Standing};
use crate::rows::reauthentication::{Proof, Proved};
use crate::rows::registration_lock::{GuardRow, LockRow, NewLock, Takeover};
use crate::rows::sign_in::{Attempt, Refusal, SignedIn};
use crate::second_factor::Shown;
use crate::types::{Moment, Uuid};
use diesel::QueryableByName;
use diesel::result::OptionalExtension;
use diesel::sql_types::{Binary, Nullable, Text};
use diesel_async::RunQueryDsl;
use sotto_protocol::trail::TrailEvent;
use sotto_protocol::{Timestamp, UserId};

#[derive(QueryableByName)]
struct ContactRow {
    #[diesel(sql_type = Moment)]
    created_at: Timestamp,
    #[diesel(sql_type = Nullable<Moment>)]
    last_active_at: Option<Timestamp>,
    #[diesel(sql_type = Nullable<Moment>)]
    last_entry_at: Option<Timestamp>,
}

/// The registration lock of an account.
pub async fn of_user(connection: &mut Connection, user: UserId) -> Result<Option<LockRow>, StoreError> {
    Ok(sql("SELECT id, key_id, hash AS sealed, created_at FROM registration_locks WHERE user_id = $1")
        .bind::<Uuid, _>(user)
        .get_result(connection)
        .await
        .optional()?)
}

/// What an account has behind the right code.
pub async fn guards(connection: &mut Connection, user: UserId) -> Result<GuardRow, StoreError> {
    let factor = second_factor::of_user(connection, user).await?;
    Ok(GuardRow { user_id: user, factor, lock: of_user(connection, user).await? })
}

/// What the account of a number has behind the right code.
pub async fn guards_of_phone(connection: &mut Connection, phone: String) -> Result<Option<GuardRow>, StoreError> {
    match devices::by_phone(connection, &phone).await? {
        Some(user) => Ok(Some(guards(connection, user).await?)),
        None => Ok(None),
    }
}

/// Sets a lock in the place of any other, if the proof holds; `None` removes it.
pub async fn change(connection: &mut Connection, proof: Proof, new: Option<NewLock>) -> Result<Proved, StoreError> {
    let (user, now) = (proof.user_id, proof.attempt.now);
    transaction!(connection, |connection| {
        let proved = reauthentication::prove(connection, &proof).await?;
        if !matches!(proved, Proved::Done) {
            return Ok(proved);
        }
        let removed =
            sql("DELETE FROM registration_locks WHERE user_id = $1").bind::<Uuid, _>(user).execute(connection).await?;
        let event = match &new {
            Some(new) => {
                sql("INSERT INTO registration_locks (id, user_id, hash, key_id, created_at, updated_at) \
                     VALUES ($1, $2, $3, $4, $5, $5)")
                .bind::<Uuid, _>(new.id)
                .bind::<Uuid, _>(user)
                .bind::<Binary, _>(&new.hash.sealed)
                .bind::<Text, _>(&new.hash.key_id)
                .bind::<Moment, _>(now)
                .execute(connection)
                .await?;
                Some(TrailEvent::RegistrationLockSet)
            }
            None if removed > 0 => Some(TrailEvent::RegistrationLockRemoved),
            None => None,
        };
        if let Some(event) = event {
            sign_in::tell(connection, &proof.attempt, user, event).await?;
        }
        Ok::<_, StoreError>(proved)
    })
}

/// When one of the account's devices was heard of last. Of an account without devices the last thing that happened to it.
async fn last_contact(connection: &mut Connection, user: UserId) -> Result<Timestamp, StoreError> {
    let row: ContactRow = sql("SELECT u.created_at, \
             (SELECT MAX(d.last_active_at) FROM devices d WHERE d.user_id = u.id) AS last_active_at, \
             (SELECT h.updated_at FROM trail_heads h WHERE h.user_id = u.id) AS last_entry_at \
         FROM users u WHERE u.id = $1")
    .bind::<Uuid, _>(user)
    .get_result(connection)
    .await?;
    Ok([row.last_active_at, row.last_entry_at].into_iter().flatten().fold(row.created_at, Timestamp::max))
}

/// Frees the number of an attempt from the account that has it, in the caller's transaction, which has begun the attempt.
/// `Some`: the answer stands. `None`: the number is free, and the account that had it is being deleted.
pub async fn take_over(
    connection: &mut Connection,
    attempt: &Attempt,
    takeover: &Takeover,
) -> Result<Option<SignedIn>, StoreError> {
    let Some(user) = second_factor::lock_by_phone(connection, &attempt.phone, attempt.now).await? else {
        return Ok(None);
    };
    let lock = of_user(connection, user).await?.map(|row| row.id);
    let standing = Standing { lock, last_contact: last_contact(connection, user).await? };
    let Takeover { shown, replaces, wait } = takeover;
    let claim = standing.claim(shown, *replaces, *wait, attempt.now);
    let shows_pin = matches!(shown, Shown::Pin { .. });
    if (claim == Claim::Rejected || shows_pin)
        && let Some(reached) = allowances::peek(connection, &attempt.second_factors, attempt.now).await?
    {
        return Ok(Some(SignedIn::Limited(reached)));
    }
    match claim {
        Claim::Kept { until, takes_pin } => Ok(Some(SignedIn::Refused(Refusal::NumberKept { until, takes_pin }))),
        Claim::Rejected => Ok(Some(second_factor::rejected(connection, attempt).await?)),
        Claim::Free => {
            deletions::give_up(connection, user, attempt.now).await?;
            Ok(None)
        }
    }
}
