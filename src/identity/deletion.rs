//! The end of an account: asked for with a proof, cancelled by any of its devices, done by the sweep.

use std::net::IpAddr;
use std::time::Duration;

use sotto_protocol::account::AccountDeletion;
use sotto_protocol::problem::Problem;
use sotto_protocol::reauthentication::Reauthentication;
use sotto_protocol::trail::Removal;
use sotto_protocol::{Timestamp, UserId};
use sotto_schema::StoreError;
use sotto_schema::account_change::Change;
use sotto_schema::rows::MemberChange;
use sotto_schema::rows::deletions::{DeletionRequested, DeletionRow, LeftOver};

use super::Identity;
use super::reauthentication::proved_or_refused;
use super::session::Caller;
use crate::error::ApiError;

/// Accounts that one sweep begins to delete.
const AT_ONCE: i64 = 20;

fn told(row: DeletionRow) -> AccountDeletion {
    AccountDeletion { requested_at: Some(row.created_at), deletes_at: Some(row.deletes_at) }
}

impl Identity {
    /// Asks for the deletion of the caller's account. Asked for again, the first one stands.
    ///
    /// # Errors
    /// 401 `code_rejected` and `second_factor_required` as at sign-in; 429.
    pub async fn request_deletion(
        &self,
        caller: &Caller,
        request: &Reauthentication,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<AccountDeletion, ApiError> {
        let (proof, field) = self.proof(caller, request, Change::Delete, address, now).await?;
        let grace = Duration::from_secs(86_400).saturating_mul(self.auth.deletion_grace_days);
        match self.store.request_account_deletion(proof, now.plus(grace)).await? {
            DeletionRequested::Done(row) => {
                tracing::info!(user_id = %caller.user_id, "the deletion of an account was asked for");
                self.changes.devices_changed(caller.user_id, &[caller.user_id]);
                Ok(told(row))
            }
            DeletionRequested::Refused(proved) => Err(proved_or_refused(proved, field).err().unwrap_or_else(none)),
        }
    }

    /// The deletion of the caller's account; empty when none was asked for.
    ///
    /// # Errors
    /// The database failed.
    pub async fn deletion(&self, caller: &Caller) -> Result<AccountDeletion, ApiError> {
        Ok(self.store.account_deletion(caller.user_id).await?.map(told).unwrap_or_default())
    }

    /// Cancels it.
    ///
    /// # Errors
    /// 404 when there is none, or it has begun.
    pub async fn cancel_deletion(&self, caller: &Caller, now: Timestamp) -> Result<(), ApiError> {
        if !self.store.cancel_account_deletion(caller.user_id, now).await? {
            return Err(none());
        }
        tracing::info!(user_id = %caller.user_id, "the deletion of an account was cancelled");
        self.changes.devices_changed(caller.user_id, &[caller.user_id]);
        Ok(())
    }

    /// Deletes accounts whose time has come, and goes on where another sweep was cut off.
    ///
    /// # Errors
    /// The database failed; the rest is left to the next sweep.
    pub(super) async fn delete_accounts(&self, now: Timestamp) -> Result<(), StoreError> {
        for row in self.store.due_account_deletions(now, AT_ONCE).await? {
            self.delete_account(row.user_id, now).await?;
        }
        Ok(())
    }

    async fn delete_account(&self, user_id: UserId, now: Timestamp) -> Result<(), StoreError> {
        if !self.store.begin_account_deletion(user_id, now).await? {
            return Ok(());
        }
        let mut before = None;
        loop {
            let left = self.store.left_over(user_id).await?;
            if left == LeftOver::default() {
                break;
            }
            if before.as_ref() == Some(&left) {
                tracing::error!(%user_id, "an account cannot be deleted: it does not get out of its conversations");
                return Ok(());
            }
            before = Some(left.clone());
            for device_id in left.devices {
                let removed = self.store.remove_device(user_id, device_id, Removal::AccountDeleted, None, now).await?;
                if let Some(removed) = removed {
                    self.end_here(user_id, device_id, &removed.families, now);
                    self.changes.devices_changed(user_id, &removed.told);
                }
            }
            for group in left.groups {
                // Whoever is told looks at the account's log, and nodes at the wake that was written with it.
                self.store.change_members(group, user_id, MemberChange::Remove(vec![user_id]), None, now).await?;
            }
            for direct in left.directs {
                self.store.leave_direct(direct, user_id, now).await?;
            }
        }
        self.store.finish_account_deletion(user_id).await?;
        tracing::info!(%user_id, "an account was deleted");
        Ok(())
    }
}

fn none() -> ApiError {
    Problem::not_found().into()
}
