//! The second factor of accounts: set up, enabled, shown, used, turned off.
//!
//! Whatever changes one takes the account's lock first, as every sign-in does. What is decided is decided by
//! [`crate::second_factor`]; the statements here compare and set all the same.

use super::*;
use crate::rows::proofs::{Evidence, RightCode};
use crate::rows::reauthentication::{Proof, Proved};
use crate::rows::second_factor::{BackupCodeRow, Enabling, FactorChange, FactorOnly, FactorRow, NewFactor};
use crate::rows::sign_in::SignedIn;
use crate::second_factor::{Factor, Finishing, Guard, Shown, Use, Verdict, judge};
use crate::types::{Moment, Uuid};
use diesel::QueryableByName;
use diesel::result::OptionalExtension;
use diesel::sql_types::{BigInt, Binary, Text};
use diesel_async::RunQueryDsl;
use sotto_protocol::trail::TrailEvent;
use sotto_protocol::{Timestamp, UserId};

#[derive(QueryableByName)]
#[allow(dead_code, reason = "whether there is a row is what counts")]
struct FactorIdRow {
    #[diesel(sql_type = Uuid)]
    id: uuid::Uuid,
}

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

/// Finishes a set-up by what was shown, with these backup codes, if the proof holds.
pub async fn enable(
    connection: &mut Connection,
    proof: Proof,
    shown: Shown,
    codes: Vec<BackupCodeRow>,
) -> Result<Enabling, StoreError> {
    let (user, now) = (proof.user_id, proof.now);
    transaction!(connection, |connection| {
        if let Some(code) = &proof.code
            && let Some(answer) = proofs::begin(connection, code, proof.evidence.taken.as_ref()).await?
        {
            return Ok(Enabling::Refused(Proved::Refused(answer)));
        }
        lock(connection, user, now).await?;
        let Some(FactorRow { mut factor, .. }) = of_user(connection, user).await? else {
            return Ok(Enabling::Nothing);
        };
        let step = match factor.enable(&shown, codes.iter().map(|code| code.id).collect(), now) {
            Finishing::Nothing => return Ok(Enabling::Nothing),
            Finishing::Rejected { attempts_left } => {
                sql("UPDATE second_factors SET tries = $2, updated_at = $3 WHERE id = $1")
                    .bind::<Uuid, _>(factor.id)
                    .bind::<BigInt, _>(factor.tries)
                    .bind::<Moment, _>(now)
                    .execute(connection)
                    .await?;
                return Ok(Enabling::Rejected { attempts_left });
            }
            Finishing::Enabled { step } => step,
        };
        let proved = reauthentication::prove(connection, &proof).await?;
        if !matches!(proved, Proved::Done) {
            return Ok(Enabling::Refused(proved));
        }
        sql("UPDATE second_factors SET enabled_at = $2, enabled_by = $4, last_step = $3, updated_at = $2 \
             WHERE id = $1 AND enabled_at IS NULL")
        .bind::<Uuid, _>(factor.id)
        .bind::<Moment, _>(now)
        .bind::<BigInt, _>(step)
        .bind::<Uuid, _>(proof.device_id)
        .execute(connection)
        .await?;
        insert_codes(connection, user, &codes, now).await?;
        reauthentication::tell(connection, &proof, TrailEvent::SecondFactorEnabled).await?;
        Ok::<_, StoreError>(Enabling::Enabled)
    })
}

/// Turns a new second factor off by what guarded the account before, from another device than the one that enabled it.
pub async fn undo(connection: &mut Connection, proof: Proof) -> Result<Proved, StoreError> {
    let (user, device) = (proof.user_id, proof.device_id);
    transaction!(connection, |connection| {
        let enabled_here: Option<FactorIdRow> =
            sql("SELECT id FROM second_factors WHERE user_id = $1 AND enabled_by = $2")
                .bind::<Uuid, _>(user)
                .bind::<Uuid, _>(device)
                .get_result(connection)
                .await
                .optional()?;
        if enabled_here.is_some() {
            return Ok(Proved::OwnFactor);
        }
        let proved = reauthentication::prove(connection, &proof).await?;
        if matches!(proved, Proved::Done) {
            remove(connection, user).await?;
            reauthentication::tell(connection, &proof, TrailEvent::SecondFactorDisabled).await?;
        }
        Ok::<_, StoreError>(proved)
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

/// Checks the second factor or PIN that is needed behind a right code. The caller's transaction holds the account's lock and
/// has begun with the code. A wrong proof was counted before it was compared. The try of a right one is given back here,
/// except that of a PIN: [`spend`] gives it back, because hashes of PINs are expensive and one in a refused request must not
/// be free.
pub async fn ask(
    connection: &mut Connection,
    code: Option<&RightCode>,
    guard: &Guard<'_>,
    evidence: &Evidence,
    now: Timestamp,
) -> Result<Asked, StoreError> {
    let verdict = judge(guard, &evidence.shown);
    if let (Verdict::NotNeeded | Verdict::Passed(Use::Step(_) | Use::BackupCode(_)), Some(taken)) =
        (verdict, &evidence.taken)
    {
        proofs::give_back(connection, code, taken).await?;
    }
    Ok(match verdict {
        Verdict::NotNeeded => Asked::NotNeeded,
        Verdict::Passed(used) => Asked::Passed(used),
        Verdict::Required => Asked::Answered(SignedIn::SecondFactorRequired { methods: guard.methods() }),
        Verdict::Rejected => Asked::Answered(rejected(connection, code, evidence, now).await?),
    })
}

/// The answer to what was shown, counted, and is not right.
pub async fn rejected(
    connection: &mut Connection,
    code: Option<&RightCode>,
    evidence: &Evidence,
    now: Timestamp,
) -> Result<SignedIn, StoreError> {
    let attempts_left = proofs::tries_left(connection, code, evidence.taken.as_ref(), now).await?;
    Ok(SignedIn::SecondFactorRejected { attempts_left })
}

/// Uses up what was shown and then the code, in the caller's transaction. `Some`: the answer stands, for what was shown had
/// served before, and nothing may come of it.
pub async fn spend(
    connection: &mut Connection,
    code: Option<&RightCode>,
    user: UserId,
    used: Option<Use>,
    evidence: &Evidence,
    now: Timestamp,
) -> Result<Option<SignedIn>, StoreError> {
    match (used, &evidence.taken) {
        (Some(Use::Pin(_)), Some(taken)) => proofs::give_back(connection, code, taken).await?,
        (Some(used), taken) if !use_up(connection, user, used, now).await? => {
            if let Some(taken) = taken {
                proofs::take_again(connection, code, taken).await?;
            }
            return rejected(connection, code, evidence, now).await.map(Some);
        }
        _ => {}
    }
    if let Some(code) = code {
        proofs::use_up(connection, code).await?;
    }
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
    let (user, now) = (proof.user_id, proof.now);
    transaction!(connection, |connection| {
        let proved = reauthentication::prove(connection, &proof).await?;
        if !matches!(proved, Proved::Done) {
            return Ok(proved);
        }
        let event = match &change {
            FactorChange::Disable => {
                remove(connection, user).await?;
                TrailEvent::SecondFactorDisabled
            }
            FactorChange::NewBackupCodes(codes) => {
                remove_codes(connection, user).await?;
                insert_codes(connection, user, codes, now).await?;
                TrailEvent::BackupCodesRenewed
            }
        };
        reauthentication::tell(connection, &proof, event).await?;
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
