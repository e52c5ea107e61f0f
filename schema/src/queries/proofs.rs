//! Proofs: codes are compared here, under the lock of their verification and of the counters that limit guesses.
//!
//! A guess counts before it is judged. When a limit is reached nothing is compared, and what is written and answered is the same
//! for a right and a wrong guess.

use super::*;
use crate::rows::proofs::{CodeCompared, CodeGuess, FactorAdmitted, FactorGuess, FactorTry, RightCode};
use crate::rows::sign_in::SignedIn;
use crate::second_factor::Tries;
use crate::types::{Moment, Uuid, Word};
use diesel::QueryableByName;
use diesel::result::OptionalExtension;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use diesel_async::RunQueryDsl;
use sotto_protocol::auth::Purpose;
use sotto_protocol::{Timestamp, VerificationId};
use subtle::{Choice, ConstantTimeEq as _};

#[derive(QueryableByName)]
struct VerificationRow {
    #[diesel(sql_type = Text)]
    phone: String,
    #[diesel(sql_type = Word)]
    purpose: Purpose,
    #[diesel(sql_type = Binary)]
    code_hash: Vec<u8>,
    #[diesel(sql_type = BigInt)]
    tries: i64,
    #[diesel(sql_type = Nullable<Moment>)]
    used_at: Option<Timestamp>,
}

impl VerificationRow {
    const fn tries(&self, most: i64) -> Tries {
        Tries { failed: self.tries, most, is_used: self.used_at.is_some() }
    }
}

/// Locks a verification that has not ended, in the caller's transaction.
async fn lock(
    connection: &mut Connection,
    id: VerificationId,
    now: Timestamp,
) -> Result<Option<VerificationRow>, StoreError> {
    Ok(sql("UPDATE verifications SET updated_at = $2 WHERE id = $1 AND expires_at > $2 \
         RETURNING phone, purpose, code_hash, tries, used_at")
    .bind::<Uuid, _>(id)
    .bind::<Moment, _>(now)
    .get_result(connection)
    .await
    .optional()?)
}

async fn set_tries(
    connection: &mut Connection,
    id: VerificationId,
    tries: &Tries,
    now: Timestamp,
) -> Result<(), StoreError> {
    sql("UPDATE verifications SET tries = $2, updated_at = $3 WHERE id = $1")
        .bind::<Uuid, _>(id)
        .bind::<BigInt, _>(tries.failed)
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
    Ok(())
}

/// Compares a presented code with every hash that it may have.
fn is_code(guess: &CodeGuess, stored: &[u8]) -> bool {
    let none = Choice::from(0);
    guess.hashes.iter().fold(none, |found, hash| found | hash.as_slice().ct_eq(stored)).into()
}

/// Compares a presented code, in a transaction of its own. A wrong one counts, and so does any while a limit is reached.
pub async fn compare_code(connection: &mut Connection, guess: CodeGuess) -> Result<CodeCompared, StoreError> {
    let (id, now) = (guess.verification_id, guess.now);
    transaction!(connection, |connection| {
        let row = lock(connection, id, now).await?.filter(|row| row.purpose == guess.purpose);
        let Some(row) = row.filter(|row| row.tries(guess.most_tries).is_open()) else {
            return Ok(CodeCompared::Wrong { attempts_left: 0 });
        };
        if let Some(user) = guess.of
            && devices::by_phone(connection, &row.phone).await? != Some(user)
        {
            return Ok(CodeCompared::Wrong { attempts_left: 0 });
        }
        let mut tries = row.tries(guess.most_tries);
        let (locked, reached) = allowances::examine(connection, &guess.counted, 1, now).await?;
        if let Some(reached) = reached {
            tries.fail();
            set_tries(connection, id, &tries, now).await?;
            return Ok(CodeCompared::Limited(reached));
        }
        if is_code(&guess, &row.code_hash) {
            let CodeGuess { verification_id, most_tries, address, networks, now, .. } = guess;
            let phone = row.phone;
            return Ok(CodeCompared::Right(RightCode { verification_id, phone, most_tries, address, networks, now }));
        }
        let attempts_left = tries.fail();
        set_tries(connection, id, &tries, now).await?;
        allowances::count_in(connection, locked, 1, now).await?;
        Ok::<_, StoreError>(CodeCompared::Wrong { attempts_left })
    })
}

/// Takes a try to show a second factor or PIN, in a transaction of its own.
pub async fn admit_factor(connection: &mut Connection, guess: FactorGuess) -> Result<FactorAdmitted, StoreError> {
    let FactorGuess { code, counted, now } = guess;
    transaction!(connection, |connection| {
        if let Some(code) = &code {
            let row = lock(connection, code.verification_id, now).await?;
            let Some(mut tries) = row.map(|row| row.tries(code.most_tries)).filter(Tries::is_open) else {
                return Ok(FactorAdmitted::Rejected);
            };
            tries.fail();
            set_tries(connection, code.verification_id, &tries, now).await?;
        }
        if let Some(reached) = allowances::take(connection, &counted, 1, now).await? {
            return Ok(FactorAdmitted::Limited(reached));
        }
        Ok::<_, StoreError>(FactorAdmitted::Try(FactorTry { counted, taken_at: now }))
    })
}

/// Locks the verification of a right code, in the caller's transaction, as its first statement. Returns `Some` with the final
/// answer if the code was used up or its tries ran out meanwhile. If a try was taken already, no other one is needed.
pub async fn begin(
    connection: &mut Connection,
    code: &RightCode,
    taken: Option<&FactorTry>,
) -> Result<Option<SignedIn>, StoreError> {
    let row = lock(connection, code.verification_id, code.now).await?;
    let is_open = row.is_some_and(|row| {
        let tries = row.tries(code.most_tries);
        tries.is_open() || (taken.is_some() && !tries.is_used)
    });
    Ok((!is_open).then_some(SignedIn::Rejected { attempts_left: 0 }))
}

/// Uses the code up, in the caller's transaction.
pub async fn use_up(connection: &mut Connection, code: &RightCode) -> Result<(), StoreError> {
    sql("UPDATE verifications SET used_at = $2, updated_at = $2 WHERE id = $1")
        .bind::<Uuid, _>(code.verification_id)
        .bind::<Moment, _>(code.now)
        .execute(connection)
        .await?;
    Ok(())
}

/// Tries that are left for a second factor or PIN: those of the verification, or without one those of the counters. In the
/// caller's transaction.
pub async fn tries_left(
    connection: &mut Connection,
    code: Option<&RightCode>,
    taken: Option<&FactorTry>,
    now: Timestamp,
) -> Result<i64, StoreError> {
    if let Some(code) = code {
        let row = lock(connection, code.verification_id, now).await?;
        return Ok(row.map_or(0, |row| code.most_tries.saturating_sub(row.tries).max(0)));
    }
    let counted = taken.map(|taken| taken.counted.as_slice()).unwrap_or_default();
    allowances::left(connection, counted, now).await
}

/// Gives a try back, because what was shown is right. In the caller's transaction.
pub async fn give_back(
    connection: &mut Connection,
    code: Option<&RightCode>,
    taken: &FactorTry,
) -> Result<(), StoreError> {
    if let Some(code) = code {
        change_tries(connection, code, -1).await?;
    }
    allowances::give_back(connection, &taken.counted, taken.taken_at).await
}

/// Gives a try back within which nothing was compared, in a transaction of its own.
pub async fn give_try_back(
    connection: &mut Connection,
    code: Option<RightCode>,
    taken: FactorTry,
) -> Result<(), StoreError> {
    transaction!(connection, |connection| {
        if let Some(code) = &code {
            // Before the counters, as everywhere.
            lock(connection, code.verification_id, code.now).await?;
        }
        give_back(connection, code.as_ref(), &taken).await
    })
}

/// Takes a try again that was given back, because what was shown had served before. In the caller's transaction.
pub async fn take_again(
    connection: &mut Connection,
    code: Option<&RightCode>,
    taken: &FactorTry,
) -> Result<(), StoreError> {
    if let Some(code) = code {
        change_tries(connection, code, 1).await?;
    }
    let (locked, _) = allowances::examine(connection, &taken.counted, 1, taken.taken_at).await?;
    allowances::count_in(connection, locked, 1, taken.taken_at).await
}

async fn change_tries(connection: &mut Connection, code: &RightCode, by: i64) -> Result<(), StoreError> {
    sql("UPDATE verifications SET tries = tries + $2 WHERE id = $1")
        .bind::<Uuid, _>(code.verification_id)
        .bind::<BigInt, _>(by)
        .execute(connection)
        .await?;
    Ok(())
}
