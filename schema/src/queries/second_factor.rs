//! The second factor of accounts: set up, enabled, shown, used, turned off.
//!
//! Whatever changes one takes the account's lock first, as every sign-in does. What is decided is decided by
//! [`crate::second_factor`]; the statements here compare and set all the same.

use super::*;
use crate::rows::reauthentication::{Proof, Proved};
use crate::rows::second_factor::{BackupCodeRow, FactorChange, FactorOnly, FactorRow, NewFactor};
use crate::rows::sign_in::{Attempt, SignedIn};
use crate::second_factor::{Asks, Enabling, Factor, Guard, Shown, Use, Verdict, judge};
use crate::types::{Moment, Uuid};
use diesel::result::OptionalExtension;
use diesel::sql_types::{BigInt, Binary, Text};
use diesel_async::RunQueryDsl;
use sotto_protocol::trail::TrailEvent;
use sotto_protocol::{Timestamp, UserId};

/// The second factor of an account, enabled or being set up.
pub async fn of_user(connection: &mut Connection, user: UserId) -> Result<Option<FactorRow>, StoreError> {
    let found: Option<FactorOnly> =
        sql("SELECT id, user_id, key_id, secret AS sealed, tries, last_step, enabled_at, expires_at \
         FROM second_factors WHERE user_id = $1")
        .bind::<Uuid, _>(user)
        .get_result(connection)
        .await
        .optional()?;
    let Some(found) = found else {
        return Ok(None);
    };
    let backup_codes: Vec<BackupCodeRow> = sql(
        "SELECT id, salt, key_id, hash AS sealed FROM backup_codes WHERE user_id = $1 AND used_at IS NULL ORDER BY id",
    )
    .bind::<Uuid, _>(user)
    .load(connection)
    .await?;
    let factor = Factor {
        id: found.id,
        tries: found.tries,
        last_step: found.last_step,
        enabled_at: found.enabled_at,
        expires_at: found.expires_at,
        backup_codes: backup_codes.iter().map(|code| code.id).collect(),
    };
    Ok(Some(FactorRow { user_id: found.user_id, secret: found.secret, factor, backup_codes }))
}

/// Locks an account until the transaction ends.
pub async fn lock(connection: &mut Connection, user: UserId, now: Timestamp) -> Result<(), StoreError> {
    allowances::lock(connection, "user", user.as_bytes(), now).await.map(|_| ())
}

/// Locks the account of a number until the transaction ends. `None`: there is none, or it has just got another number.
pub async fn lock_by_phone(
    connection: &mut Connection,
    phone: &str,
    now: Timestamp,
) -> Result<Option<UserId>, StoreError> {
    let Some(user) = devices::by_phone(connection, phone).await? else {
        return Ok(None);
    };
    lock(connection, user, now).await?;
    Ok(devices::by_phone(connection, phone).await?.filter(|owner| *owner == user))
}

/// Begins a set-up in the place of an unfinished one; `false`: a second factor is enabled, and nothing was done.
pub async fn begin(
    connection: &mut Connection,
    user: UserId,
    new: NewFactor,
    now: Timestamp,
) -> Result<bool, StoreError> {
    transaction!(connection, |connection| {
        lock(connection, user, now).await?;
        if of_user(connection, user).await?.is_some_and(|row| row.factor.is_enabled()) {
            return Ok(false);
        }
        let begun = Factor::begun(new.id, new.expires_at);
        remove(connection, user).await?;
        sql("INSERT INTO second_factors \
                (id, user_id, secret, key_id, tries, last_step, expires_at, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)")
        .bind::<Uuid, _>(begun.id)
        .bind::<Uuid, _>(user)
        .bind::<Binary, _>(&new.secret.sealed)
        .bind::<Text, _>(&new.secret.key_id)
        .bind::<BigInt, _>(begun.tries)
        .bind::<BigInt, _>(begun.last_step)
        .bind::<Moment, _>(begun.expires_at)
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
        Ok::<_, StoreError>(true)
    })
}

/// Finishes a set-up by what was shown, with these backup codes.
pub async fn enable(
    connection: &mut Connection,
    user: UserId,
    shown: Shown,
    codes: Vec<BackupCodeRow>,
    now: Timestamp,
) -> Result<Enabling, StoreError> {
    transaction!(connection, |connection| {
        lock(connection, user, now).await?;
        let Some(FactorRow { mut factor, .. }) = of_user(connection, user).await? else {
            return Ok(Enabling::Nothing);
        };
        let enabling = factor.enable(&shown, codes.iter().map(|code| code.id).collect(), now);
        match enabling {
            Enabling::Nothing => {}
            Enabling::Rejected { .. } => {
                sql("UPDATE second_factors SET tries = $2, updated_at = $3 WHERE id = $1")
                    .bind::<Uuid, _>(factor.id)
                    .bind::<BigInt, _>(factor.tries)
                    .bind::<Moment, _>(now)
                    .execute(connection)
                    .await?;
            }
            Enabling::Enabled { step } => {
                sql("UPDATE second_factors SET enabled_at = $2, last_step = $3, updated_at = $2 \
                     WHERE id = $1 AND enabled_at IS NULL")
                .bind::<Uuid, _>(factor.id)
                .bind::<Moment, _>(now)
                .bind::<BigInt, _>(step)
                .execute(connection)
                .await?;
                insert_codes(connection, user, &codes, now).await?;
                trail::append(connection, user, TrailEvent::SecondFactorEnabled.into(), now).await?;
            }
        }
        Ok::<_, StoreError>(enabling)
    })
}

/// What the account's lock has found, for whoever goes on in the same transaction.
pub enum Asked {
    /// The answer stands; whatever it counts is counted.
    Answered(SignedIn),
    /// Nothing stands behind the code.
    NotNeeded,
    /// What was shown is right; it is not used up yet.
    Passed(Use),
}

/// Asks for what stands behind a right code, in the caller's transaction, which holds the account's lock and has begun the
/// attempt. A wrong one counts against the code, its number and address, and the account.
pub async fn ask(
    connection: &mut Connection,
    attempt: &Attempt,
    user: UserId,
    asks: Asks,
    shown: &Shown,
) -> Result<Asked, StoreError> {
    let row = registration_lock::guards(connection, user).await?;
    let guard = Guard::of(asks, row.factor.as_ref().map(|row| &row.factor), row.lock.map(|lock| lock.id));
    let verdict = judge(&guard, shown);
    if matches!(verdict, Verdict::Rejected | Verdict::Passed(_))
        && let Some(reached) = allowances::peek(connection, &attempt.second_factors, attempt.now).await?
    {
        return Ok(Asked::Answered(SignedIn::Limited(reached)));
    }
    match verdict {
        Verdict::NotNeeded => Ok(Asked::NotNeeded),
        Verdict::Passed(used) => Ok(Asked::Passed(used)),
        Verdict::Required => Ok(Asked::Answered(SignedIn::SecondFactorRequired { methods: guard.methods() })),
        Verdict::Rejected => Ok(Asked::Answered(rejected(connection, attempt).await?)),
    }
}

/// Counts what was shown and is not right, in the caller's transaction.
pub async fn rejected(connection: &mut Connection, attempt: &Attempt) -> Result<SignedIn, StoreError> {
    let attempts_left = sign_in::count_failure(connection, attempt).await?;
    allowances::take(connection, &attempt.second_factors, 1, attempt.now).await?;
    Ok(SignedIn::SecondFactorRejected { attempts_left })
}

/// Uses up what was shown and then the code, in the caller's transaction. `Some`: the answer stands, for what was shown had
/// served before, and nothing may come of it.
pub async fn spend(
    connection: &mut Connection,
    attempt: &Attempt,
    user: UserId,
    used: Option<Use>,
) -> Result<Option<SignedIn>, StoreError> {
    if let Some(used) = used
        && !use_up(connection, user, used, attempt.now).await?
    {
        let attempts_left = sign_in::count_failure(connection, attempt).await?;
        return Ok(Some(SignedIn::SecondFactorRejected { attempts_left }));
    }
    sign_in::use_up(connection, attempt).await?;
    Ok(None)
}

/// Whether this was there to be used up.
async fn use_up(connection: &mut Connection, user: UserId, used: Use, now: Timestamp) -> Result<bool, StoreError> {
    let changed = match used {
        Use::Step(step) => {
            sql("UPDATE second_factors SET last_step = $2, updated_at = $3 \
                 WHERE user_id = $1 AND enabled_at IS NOT NULL AND last_step < $2")
            .bind::<Uuid, _>(user)
            .bind::<BigInt, _>(step)
            .bind::<Moment, _>(now)
            .execute(connection)
            .await?
        }
        Use::BackupCode(id) => {
            sql("UPDATE backup_codes SET used_at = $3, updated_at = $3 \
                 WHERE id = $2 AND user_id = $1 AND used_at IS NULL")
            .bind::<Uuid, _>(user)
            .bind::<Uuid, _>(id)
            .bind::<Moment, _>(now)
            .execute(connection)
            .await?
        }
        Use::Pin(_) => 1,
    };
    Ok(changed == 1)
}

/// Changes an enabled second factor, if the proof holds.
pub async fn change(connection: &mut Connection, proof: Proof, change: FactorChange) -> Result<Proved, StoreError> {
    let (user, now) = (proof.user_id, proof.attempt.now);
    transaction!(connection, |connection| {
        let proved = reauthentication::prove(connection, &proof).await?;
        match (&proved, &change) {
            (Proved::NoSecondFactor | Proved::Refused(_), _) => {}
            (Proved::Done, FactorChange::Disable) => {
                remove(connection, user).await?;
                sign_in::tell(connection, &proof.attempt, user, TrailEvent::SecondFactorDisabled).await?;
            }
            (Proved::Done, FactorChange::NewBackupCodes(codes)) => {
                remove_codes(connection, user).await?;
                insert_codes(connection, user, codes, now).await?;
                sign_in::tell(connection, &proof.attempt, user, TrailEvent::BackupCodesRenewed).await?;
            }
        }
        Ok::<_, StoreError>(proved)
    })
}

/// Removes the second factor of an account with its backup codes, in the caller's transaction.
pub async fn remove(connection: &mut Connection, user: UserId) -> Result<(), StoreError> {
    remove_codes(connection, user).await?;
    sql("DELETE FROM second_factors WHERE user_id = $1").bind::<Uuid, _>(user).execute(connection).await?;
    Ok(())
}

async fn remove_codes(connection: &mut Connection, user: UserId) -> Result<(), StoreError> {
    sql("DELETE FROM backup_codes WHERE user_id = $1").bind::<Uuid, _>(user).execute(connection).await?;
    Ok(())
}

async fn insert_codes(
    connection: &mut Connection,
    user: UserId,
    codes: &[BackupCodeRow],
    now: Timestamp,
) -> Result<(), StoreError> {
    for code in codes {
        sql("INSERT INTO backup_codes (id, user_id, salt, hash, key_id, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $6)")
        .bind::<Uuid, _>(code.id)
        .bind::<Uuid, _>(user)
        .bind::<Binary, _>(&code.salt)
        .bind::<Binary, _>(&code.hash.sealed)
        .bind::<Text, _>(&code.hash.key_id)
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
    }
    Ok(())
}
