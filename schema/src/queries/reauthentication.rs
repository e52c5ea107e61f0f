//! Proofs of somebody who is signed in, used up in the transaction of what they are for.

use super::second_factor::Asked;
use super::*;
use crate::rows::reauthentication::{Proof, Proved};
use crate::rows::sign_in::SignedIn;
use crate::second_factor::{Asks, Use};
use sotto_protocol::trail::TrailEvent;

/// Takes a proof in the caller's transaction, as its first statements, and uses it up. The account is locked from here
/// until the transaction ends.
pub async fn prove(connection: &mut Connection, proof: &Proof) -> Result<Proved, StoreError> {
    let Proof { attempt, user_id, shown, needs_second_factor } = proof;
    if let Some(answer) = sign_in::begin(connection, attempt).await? {
        return Ok(Proved::Refused(answer));
    }
    // The code of another number proves nothing here.
    if second_factor::lock_by_phone(connection, &attempt.phone, attempt.now).await? != Some(*user_id) {
        return Ok(Proved::Refused(SignedIn::Rejected { attempts_left: 0 }));
    }
    let used = match second_factor::ask(connection, attempt, *user_id, Asks::Factor, shown).await? {
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
