//! Proofs of somebody who is signed in, used up in the transaction of what they are for.

use super::second_factor::Asked;
use super::*;
use crate::account_change::{Held, Ruling, rule};
use crate::rows::reauthentication::{Proof, Proved};
use crate::rows::sign_in::SignedIn;
use crate::rows::trail::Happened;
use crate::second_factor::{Guard, Use};
use sotto_protocol::trail::TrailEvent;

/// Takes a proof in the caller's transaction, as its first statements, and uses it up. The account is locked from here
/// until the transaction ends.
pub async fn prove(connection: &mut Connection, proof: &Proof) -> Result<Proved, StoreError> {
    let Proof { change, user_id, code, evidence, wait, now, .. } = proof;
    let (user, code, now) = (*user_id, code.as_ref(), *now);
    if let Some(code) = code
        && let Some(answer) = proofs::begin(connection, code, evidence.taken.as_ref()).await?
    {
        return Ok(Proved::Refused(answer));
    }
    // No other account is locked: of two that show each other's codes none waits for the other.
    second_factor::lock(connection, user, now).await?;
    if let Some(code) = code
        && devices::by_phone(connection, &code.phone).await? != Some(user)
    {
        // The code of another number proves nothing here.
        return Ok(Proved::Refused(SignedIn::Rejected { attempts_left: 0 }));
    }
    let row = registration_lock::guards(connection, user).await?;
    let factor = row.factor.as_ref().map(|row| &row.factor);
    let factor_since = factor.and_then(|factor| factor.enabled_at);
    let guard = Guard::of(change.asks(*wait, now), factor, row.lock.as_ref().map(|lock| lock.standing()));
    let shown = match second_factor::ask(connection, code, &guard, evidence, now).await? {
        // What is missing is told below, with the code where that is missing too.
        Asked::NotNeeded | Asked::Answered(SignedIn::SecondFactorRequired { .. }) => None,
        Asked::Answered(answer) => return Ok(Proved::Refused(answer)),
        Asked::Passed(used) => Some(used),
    };
    match rule(*change, &guard, factor_since, Held { code: code.is_some(), shown }, *wait, now) {
        Ruling::Allowed => {}
        Ruling::Missing(methods) => return Ok(Proved::Refused(SignedIn::SecondFactorRequired { methods })),
        Ruling::Waits(until) => return Ok(Proved::Waits(until)),
        Ruling::NothingToChange => return Ok(Proved::NoSecondFactor),
    }
    if let Some(answer) = second_factor::spend(connection, code, user, shown, evidence, now).await? {
        return Ok(Proved::Refused(answer));
    }
    if let Some(Use::BackupCode(_)) = shown {
        tell(connection, proof, TrailEvent::BackupCodeUsed).await?;
    }
    Ok(Proved::Done)
}

/// Takes a proof in a transaction of its own.
pub async fn prove_alone(connection: &mut Connection, proof: Proof) -> Result<Proved, StoreError> {
    transaction!(connection, |connection| { prove(connection, &proof).await })
}

/// Appends what came of a proof to the account's trail, as the last statement of its transaction.
pub async fn tell(connection: &mut Connection, proof: &Proof, event: TrailEvent) -> Result<(), StoreError> {
    let happened = Happened { event, address: proof.address.clone() };
    trail::append(connection, proof.user_id, happened, proof.now).await
}
