//! What must happen without being asked: ended families of other nodes, new secret keys, tries to sign in, idle devices,
//! rows that have ended.

use std::collections::HashSet;
use std::sync::PoisonError;
use std::time::Duration;

use sotto_protocol::Timestamp;
use sotto_protocol::trail::Removal;
use sotto_schema::StoreError;
use uuid::Uuid;

use super::Identity;

/// How often the ends of families are read.
const LISTEN_EVERY: Duration = Duration::from_secs(2);
/// How often rows are swept, in rounds of listening.
const SWEEP_EVERY: u32 = 30;
/// Clocks of nodes may differ, and commits come late, by this much.
const OVERLAP: Duration = Duration::from_secs(30);
/// Idle devices that are removed in one sweep.
const IDLE_AT_ONCE: i64 = 200;

/// How long before its removal the other devices are told.
const NOTICE: Duration = Duration::from_secs(7 * 86_400);

/// The ends of families that were told here.
pub(super) struct Heard {
    since: Timestamp,
    families: HashSet<Uuid>,
}

impl Heard {
    pub(super) fn since(now: Timestamp) -> Self {
        Self { since: now.minus(OVERLAP), families: HashSet::new() }
    }
}

impl Identity {
    /// Listens and sweeps for ever; spawned once per node and dropped when it stops.
    pub async fn keep_house(&self) {
        let (mut rounds, mut is_erased) = (0_u32, true);
        let mut ticks = tokio::time::interval(LISTEN_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = Timestamp::now();
            self.keys.look();
            if let Err(error) = self.hear_ends(now).await {
                tracing::warn!(%error, "the ends of sessions could not be read");
            }
            if let Err(error) = self.write_history().await {
                tracing::warn!(%error, "tries to sign in could not be written");
            }
            if rounds.is_multiple_of(SWEEP_EVERY) {
                if let Err(error) = self.sweep(now).await {
                    tracing::warn!(%error, "the sweep of sign-in data failed");
                }
                is_erased = false;
            }
            // Once for all that was deleted since the last sweep, here or by a request; again while readers are in the way.
            if !is_erased {
                is_erased = self.store.erase_deleted().await.unwrap_or_else(|error| {
                    tracing::warn!(%error, "deleted data could not be erased from the database's files");
                    true
                });
            }
            rounds = rounds.wrapping_add(1);
        }
    }

    /// Reads which families were ended, on any node, and tells those that were not told yet.
    ///
    /// # Errors
    /// The database failed.
    pub async fn hear_ends(&self, now: Timestamp) -> Result<(), StoreError> {
        let since = self.heard.lock().unwrap_or_else(PoisonError::into_inner).since;
        let ended = self.store.ended_sessions(since).await?;
        let fresh: Vec<_> = {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = ended.iter().filter(|row| !heard.families.contains(&row.id)).copied().collect();
            heard.families = ended.iter().map(|row| row.id).collect();
            heard.since = now.minus(OVERLAP);
            fresh
        };
        for row in fresh {
            self.sessions.end(row.id, now);
            self.changes.session_ended(row.user_id, row.device_id, row.id);
        }
        Ok(())
    }

    /// Removes devices without contact, tells of those that will be, removes codes, counts, families and tokens that have
    /// ended, and old history, and makes room for new.
    ///
    /// # Errors
    /// The database failed.
    pub async fn sweep(&self, now: Timestamp) -> Result<(), StoreError> {
        self.sessions.forget_old(now);
        self.store.sweep_sign_in(now).await?;
        self.keep_history(now).await?;
        self.store.sweep_device_links(now).await?;
        self.delete_accounts(now).await?;
        let life = self.device_life();
        let since = now.minus(life);
        for (user_id, device_id) in self.store.idle_devices(since, IDLE_AT_ONCE).await? {
            if let Some(removed) =
                self.store.remove_device(user_id, device_id, Removal::Silent, Some(since), now).await?
            {
                tracing::info!(%user_id, %device_id, "a device without contact was removed");
                self.end_here(user_id, device_id, &removed.families, now);
                self.changes.devices_changed(user_id, &removed.told);
            }
        }
        // Where devices live for a week at most, they are told of after a day of silence.
        let since = now.minus(life.saturating_sub(NOTICE).max(Duration::from_secs(86_400)));
        for (user_id, device_id) in self.store.expiring_devices(since, IDLE_AT_ONCE).await? {
            if self.store.tell_device_expiring(user_id, device_id, since, life, now).await? {
                self.changes.devices_changed(user_id, &[user_id]);
            }
        }
        Ok(())
    }
}
