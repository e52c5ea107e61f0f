//! Taking a member out of a group while he sends: what he had sent before must stay his.

use std::sync::{Arc, PoisonError};

use sotto_client::protocol::{ConversationId, ErrorCode, UserId};

use crate::HarnessError;
use crate::account::Account;
use crate::book::Note;
use crate::device::{Shared, wait};
use crate::dice::Dice;

/// How often it is tried.
const ATTEMPTS: usize = 20;
/// Between two of them, where the server does not say.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(200);

/// Takes one of these out who does not own the group.
pub async fn remove(
    shared: &Shared,
    members: &[Arc<Account>],
    id: ConversationId,
    dice: &mut Dice,
) -> Result<(), HarnessError> {
    let nobody = || HarnessError::NoServer(format!("nobody takes a member out of {id}"));
    let owner = owner(shared, members, id, dice).await.ok_or_else(nobody)?;
    let others: Vec<_> = members.iter().filter(|account| account.user_id != owner).cloned().collect();
    let chosen = dice.pick(&others).ok_or_else(nobody)?.user_id;
    let owner = members.iter().find(|account| account.user_id == owner).ok_or_else(nobody)?;
    // From now on he may be refused, and nobody owes him anything.
    for account in members.iter().filter(|account| account.user_id == chosen) {
        let (by, user) = (account.device_id, account.user_id);
        shared.removed.lock().unwrap_or_else(PoisonError::into_inner).insert((by, id));
        shared.ledger.note(id, Note::Left { by, user });
    }
    for _ in 0..ATTEMPTS {
        let Some(target) = shared.targets.pick(dice, None) else { break };
        let rest = target.rest.with_token(&owner.access_token);
        match tokio::time::timeout(shared.plan.patience, rest.remove_members(id, &[chosen])).await {
            Ok(Ok(())) => return Ok(()),
            // An earlier attempt has done it.
            Ok(Err(error)) if error.code() == Some(ErrorCode::NotFound) => return Ok(()),
            Ok(Err(error)) => {
                if let Some(code) = error.code() {
                    shared.ledger.counters.refuse(code);
                }
                tokio::time::sleep(wait(&error).unwrap_or(PAUSE)).await;
            }
            Err(_) => shared.ledger.counters.silent.add(),
        }
    }
    Err(nobody())
}

/// Who may do it.
async fn owner(shared: &Shared, members: &[Arc<Account>], id: ConversationId, dice: &mut Dice) -> Option<UserId> {
    for _ in 0..ATTEMPTS {
        let (target, account) = (shared.targets.pick(dice, None)?, dice.pick(members)?);
        let rest = target.rest.with_token(&account.access_token);
        match tokio::time::timeout(shared.plan.patience, rest.conversation(id)).await {
            Ok(Ok(described)) => {
                return described
                    .members
                    .iter()
                    .find(|member| member.role.manages_members())
                    .map(|member| member.user_id);
            }
            Ok(Err(_)) | Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    None
}
