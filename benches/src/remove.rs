//! Taking a member out of a group while he sends: what he had sent before must stay his.

use std::sync::{Arc, PoisonError};

use sotto_client::protocol::{ConversationId, DeviceId, ErrorCode, UserId};

use crate::HarnessError;
use crate::account::Account;
use crate::book::Note;
use crate::device::{Shared, wait};
use crate::dice::Dice;

/// How often it is tried.
const ATTEMPTS: usize = 20;
/// Between two of them, where the server does not say.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(200);

/// Who takes whom out of which group.
pub struct Removal {
    id: ConversationId,
    by: Arc<Account>,
    /// The devices of whoever goes.
    devices: Vec<Arc<Account>>,
    user: UserId,
}

impl Removal {
    /// One of these who does not own the group, taken out by the one who does.
    ///
    /// # Errors
    /// [`HarnessError::NoServer`] when the server does not tell who owns it.
    pub async fn choose(
        shared: &Shared,
        members: &[Arc<Account>],
        id: ConversationId,
        dice: &mut Dice,
    ) -> Result<Self, HarnessError> {
        let owner = owner(shared, members, id, dice).await.ok_or_else(|| nobody(id))?;
        let others: Vec<_> = members.iter().filter(|account| account.user_id != owner).collect();
        let user = dice.pick(&others).ok_or_else(|| nobody(id))?.user_id;
        let by = members.iter().find(|account| account.user_id == owner).ok_or_else(|| nobody(id))?;
        let devices = members.iter().filter(|account| account.user_id == user).cloned().collect();
        Ok(Self { id, by: Arc::clone(by), devices, user })
    }

    /// A device of whoever goes.
    pub fn device(&self) -> Option<DeviceId> {
        self.devices.first().map(|account| account.device_id)
    }

    /// Takes him out. From the first attempt on he may be refused, and nobody owes him anything.
    ///
    /// # Errors
    /// [`HarnessError::NoServer`] when no attempt is answered.
    pub async fn carry_out(&self, shared: &Shared, dice: &mut Dice) -> Result<(), HarnessError> {
        for account in &self.devices {
            let (by, user) = (account.device_id, account.user_id);
            shared.removed.lock().unwrap_or_else(PoisonError::into_inner).insert((by, self.id));
            shared.ledger.note(self.id, Note::Left { by, user });
        }
        for _ in 0..ATTEMPTS {
            let Some(target) = shared.targets.pick(dice, None) else { break };
            let rest = target.rest.with_token(&self.by.access_token);
            match tokio::time::timeout(shared.plan.patience, rest.remove_members(self.id, &[self.user])).await {
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
        Err(nobody(self.id))
    }
}

fn nobody(id: ConversationId) -> HarnessError {
    HarnessError::NoServer(format!("nobody takes a member out of {id}"))
}

/// Who may do it.
async fn owner(shared: &Shared, members: &[Arc<Account>], id: ConversationId, dice: &mut Dice) -> Option<UserId> {
    for _ in 0..ATTEMPTS {
        let (target, account) = (shared.targets.pick(dice, None)?, dice.pick(members)?);
        let rest = target.rest.with_token(&account.access_token);
        match tokio::time::timeout(shared.plan.patience, rest.whole_conversation(id)).await {
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
