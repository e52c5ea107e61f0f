//! Registration locks: set, removed, and asked by whoever registers a number that has an account.

use super::second_factor::Asked;
use super::*;
use crate::registration_lock::{Claim, Standing};
use crate::rows::proofs::RightCode;
use crate::rows::reauthentication::{Proof, Proved};
use crate::rows::registration_lock::{GuardRow, LockRow, NewLock, Takeover};
use crate::rows::sign_in::{Refusal, SignedIn};
use crate::second_factor::{Asks, Guard, judge};
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
    let (user, now) = (proof.user_id, proof.now);
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
            reauthentication::tell(connection, &proof, event).await?;
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

/// Frees the number of a right code from the account that has it, in the caller's transaction, which has begun with the code.
/// `Some`: the answer stands. `None`: the number is free, and the account that had it is being deleted.
pub async fn take_over(
    connection: &mut Connection,
    code: &RightCode,
    takeover: &Takeover,
) -> Result<Option<SignedIn>, StoreError> {
    let now = code.now;
    let Some(user) = second_factor::lock_by_phone(connection, &code.phone, now).await? else {
        return Ok(None);
    };
    let Takeover { evidence, replaces, wait, grace, undo } = takeover;
    let row = guards(connection, user).await?;
    let factor = row.factor.as_ref().map(|row| &row.factor);
    let guard = Guard::of(Asks::Strongest, factor, row.lock.as_ref().map(LockRow::standing));
    let verdict = judge(&guard, &evidence.shown);
    let enabled_at = factor.and_then(|factor| factor.enabled_at);
    let standing = Standing {
        verdict,
        methods: guard.methods(),
        last_contact: last_contact(connection, user).await?,
        young_until: enabled_at.map(|since| since.plus(*undo)).filter(|until| *until > now),
    };
    let used = match second_factor::ask(connection, Some(code), &guard, evidence, now).await? {
        Asked::Passed(used) => Some(used),
        Asked::NotNeeded | Asked::Answered(_) => None,
    };
    match standing.claim(*replaces, *wait, now) {
        Claim::Kept { until, methods } => Ok(Some(SignedIn::Refused(Refusal::NumberKept { until, methods }))),
        Claim::Rejected => Ok(Some(second_factor::rejected(connection, Some(code), evidence, now).await?)),
        Claim::Grace if !grace.is_zero() => {
            if let Some(answer) = second_factor::spend(connection, Some(code), user, used, evidence, now).await? {
                return Ok(Some(answer));
            }
            let row = deletions::begin_grace(connection, user, now.plus(*grace), code.address.clone(), now).await?;
            Ok(Some(SignedIn::Refused(Refusal::DeletionBegun { deletes_at: row.deletes_at })))
        }
        Claim::Grace | Claim::Free => {
            if let Some(answer) = second_factor::spend(connection, Some(code), user, used, evidence, now).await? {
                return Ok(Some(answer));
            }
            deletions::give_up(connection, user, now).await?;
            Ok(None)
        }
    }
}
