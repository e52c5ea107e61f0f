//! Proofs of somebody who is signed in, used up in the transaction of what they are for.

use super::second_factor::Asked;
use super::*;
use crate::rows::reauthentication::{Proof, Proved};
use crate::second_factor::Use;
use sotto_protocol::trail::TrailEvent;

/// Takes a proof in the caller's transaction, as its first statements, and uses it up. The account is locked from here
/// until the transaction ends.
pub async fn prove(connection: &mut Connection, proof: &Proof) -> Result<Proved, StoreError> {
    let Proof { attempt, user_id, shown, needs_second_factor } = proof;
    if let Some(answer) = sign_in::begin(connection, attempt).await? {
        return Ok(Proved::Refused(answer));
    }
    second_factor::lock(connection, *user_id, attempt.now).await?;
    let used = match second_factor::ask(connection, attempt, *user_id, shown).await? {
        Asked::Answered(answer) => return Ok(Proved::Refused(answer)),
        Asked::NotNeeded if *needs_second_factor => return Ok(Proved::NoSecondFactor),
        Asked::NotNeeded => None,
        Asked::Passed(used) => Some(used),
    };
    if let Some(answer) = second_factor::spend(connection, attempt, *user_id, used).await? {
        return Ok(Proved::Refused(answer));
    }
    if let Some(Use::BackupCode(_)) = used {
        sign_in::tell(connection, attempt, *user_id, TrailEvent::BackupCodeUsed).await?;
    }
    Ok(Proved::Done)
}
