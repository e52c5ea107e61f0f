//! One-time keys under a crowd: owners upload, repeat their uploads, and several others claim at the same moment.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use sotto_client::protocol::keys::{Keys, OneTimeKey};
use sotto_client::protocol::{Binary, DeviceId, ErrorCode, Timestamp};
use sotto_client::{Error, Rest};
use tokio::sync::watch;

use crate::account::Account;
use crate::device::{Phase, Shared, pause_until, wait};
use crate::dice::Dice;
use crate::keys::KeyNote;

/// Between two crowds.
const PAUSE: Duration = Duration::from_millis(400);
/// Keys of one upload, at most.
const KEYS: i64 = 12;
/// Who claims at once, at most.
const ASKERS: u64 = 6;

/// The crowd around the keys of all devices.
pub struct Claims {
    accounts: Vec<Account>,
    dice: Dice,
    shared: Arc<Shared>,
    /// The last upload of each owner.
    uploads: HashMap<DeviceId, Keys>,
    quiet: Instant,
}

impl Claims {
    /// A crowd of these devices.
    pub fn new(accounts: Vec<Account>, dice: Dice, shared: Arc<Shared>) -> Self {
        Self { accounts, dice, shared, uploads: HashMap::new(), quiet: Instant::now() }
    }

    /// One crowd after the other until it is told to stop.
    pub async fn run(mut self, mut phase: watch::Receiver<Phase>) {
        while *phase.borrow() == Phase::Live && phase.has_changed().is_ok() {
            let Some(owner) = self.dice.pick(&self.accounts).cloned() else { return };
            if !self.shared.is_gone(owner.device_id) {
                self.crowd(&owner).await;
            }
            pause_until(self.quiet.max(Instant::now() + PAUSE), &mut phase).await;
        }
    }

    async fn crowd(&mut self, owner: &Account) {
        let fresh = self.fresh(owner.device_id);
        if let Some(keys) = fresh {
            for key in keys.one_time_prekeys.iter().flatten() {
                let (key_id, key) = (key.key_id, key.public_key.clone());
                self.shared.ledger.key(KeyNote::Uploaded { owner: owner.device_id, key_id, key });
            }
            self.uploads.insert(owner.device_id, keys);
        }
        let Some(upload) = self.uploads.get(&owner.device_id).cloned() else { return };
        self.upload(owner, &upload).await;
        let askers = self.dice.within(2, ASKERS + 1);
        let claims: Vec<_> = (0..askers).filter_map(|_| self.asker(owner)).collect();
        let patience = self.shared.plan.patience;
        let only = [owner.device_id];
        let answers = join_all(claims.iter().map(async |rest| {
            let claim = rest.claim_keys(owner.user_id, &only);
            tokio::time::timeout(patience, claim).await.unwrap_or(Err(Error::Timeout))
        }))
        .await;
        for answer in answers {
            match answer {
                Ok(keys) => {
                    for bundle in keys.devices {
                        if let Some(key) = bundle.one_time_prekey {
                            let (owner, key_id, key) = (bundle.device_id, key.key_id, key.public_key);
                            self.shared.ledger.key(KeyNote::Given { owner, key_id, key });
                        }
                    }
                }
                Err(error) => self.failed("a claim", &error),
            }
        }
        // A repeated upload brings none back.
        if self.dice.percent(30) {
            self.upload(owner, &upload).await;
        }
    }

    /// Somebody else, at some node.
    fn asker(&mut self, owner: &Account) -> Option<Rest> {
        let asker = self.dice.pick(&self.accounts)?.clone();
        if asker.device_id == owner.device_id || self.shared.is_gone(asker.device_id) {
            return None;
        }
        let target = self.shared.targets.pick(&mut self.dice, None)?;
        Some(target.rest.with_token(&asker.access_token))
    }

    /// New keys, if time has passed since the last.
    fn fresh(&self, owner: DeviceId) -> Option<Keys> {
        let now = Timestamp::now().as_seconds();
        let last =
            self.uploads.get(&owner).and_then(|keys| keys.one_time_prekeys.as_ref()?.last().map(|key| key.key_id));
        let from = last.map_or(now - KEYS, |last| last + 1).max(now - KEYS);
        let keys: Vec<_> = (from..now).map(|key_id| key(owner, key_id)).collect();
        (!keys.is_empty()).then(|| Keys { one_time_prekeys: Some(keys), ..Keys::default() })
    }

    async fn upload(&mut self, owner: &Account, keys: &Keys) {
        let Some(target) = self.shared.targets.pick(&mut self.dice, None) else { return };
        let rest = target.rest.with_token(&owner.access_token);
        let upload = tokio::time::timeout(self.shared.plan.patience, rest.put_keys(keys)).await;
        if let Err(error) = upload.unwrap_or(Err(Error::Timeout)) {
            self.failed("an upload of keys", &error);
        }
    }

    fn failed(&mut self, what: &str, error: &Error) {
        let counters = &self.shared.ledger.counters;
        let Some(code) = error.code() else {
            match error {
                Error::Transport(_) | Error::Timeout => counters.silent.add(),
                _ => self.shared.ledger.strange(format!("{what}: {error}")),
            }
            return;
        };
        counters.refuse(code);
        match code {
            ErrorCode::RateLimited => {
                counters.waits.add();
                self.quiet = Instant::now() + wait(error).unwrap_or(PAUSE);
            }
            ErrorCode::Unavailable | ErrorCode::Internal => self.quiet = Instant::now() + PAUSE,
            // Somebody who is just being signed out.
            ErrorCode::Unauthenticated | ErrorCode::NotFound
                if !self.shared.gone.lock().unwrap_or_else(PoisonError::into_inner).is_empty() => {}
            _ => self.shared.ledger.strange(format!("{what}: {error}")),
        }
    }
}

/// A key whose number is a second, so that numbers grow from run to run. A run that follows closely uploads the last
/// numbers of the one before again, of which the server keeps the first: so a number has one key for ever.
fn key(owner: DeviceId, key_id: i64) -> OneTimeKey {
    let (high, low) = owner.0.as_u64_pair();
    let mut dice = Dice::new(high ^ low.rotate_left(17) ^ key_id.unsigned_abs().wrapping_mul(0x9e37_79b9_7f4a_7c15));
    OneTimeKey { key_id, public_key: Binary([dice.bytes(), dice.bytes()].concat()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_key_for_ever_and_no_two_have_the_same() {
        let owners = [DeviceId::random(), DeviceId::random()];
        let all = |owner| (0..50).map(move |number| key(owner, number).public_key.0);
        assert!(all(owners[0]).eq(all(owners[0])));
        let distinct: std::collections::HashSet<_> = owners.into_iter().flat_map(all).collect();
        assert_eq!(distinct.len(), 100);
        assert!(distinct.iter().all(|key| key.len() == 32));
    }
}
