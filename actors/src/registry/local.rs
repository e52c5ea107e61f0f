//! Who is at this node: a sharded map in memory.

use super::Registration;
use sotto_protocol::{DeviceId, SessionId, UserId};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 64;

/// What is known of a device, whose id is the key.
#[derive(Clone, Copy, Debug)]
struct Known {
    user: UserId,
    connection: SessionId,
    attempt: i64,
}

type Shard = HashMap<DeviceId, Known>;

/// Connections by device.
#[derive(Debug)]
pub struct LocalRegistry {
    shards: Vec<Mutex<Shard>>,
}

impl Default for LocalRegistry {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl LocalRegistry {
    fn shard(&self, device: DeviceId) -> Option<MutexGuard<'_, Shard>> {
        // Device ids are random: any of their bytes spreads them evenly.
        let last = device.as_bytes().last().copied().unwrap_or_default();
        let shard = self.shards.get(usize::from(last) % SHARDS)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn register(&self, fresh: Registration) -> bool {
        let Registration { user, device, connection, attempt } = fresh;
        let Some(mut shard) = self.shard(device) else {
            return false;
        };
        if shard.get(&device).is_some_and(|known| known.attempt > attempt) {
            return false;
        }
        shard.insert(device, Known { user, connection, attempt });
        true
    }

    pub(super) fn unregister(&self, device: DeviceId, connection: SessionId) {
        if let Some(mut shard) = self.shard(device)
            && shard.get(&device).is_some_and(|known| known.connection == connection)
        {
            shard.remove(&device);
        }
    }

    /// Whether this connection is the device's at this node.
    pub(super) fn holds(&self, device: DeviceId, connection: SessionId) -> bool {
        self.shard(device).is_some_and(|shard| shard.get(&device).is_some_and(|known| known.connection == connection))
    }

    pub(super) fn all(&self) -> Vec<Registration> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(shard.iter().map(|(&device, &Known { user, connection, attempt })| Registration {
                user,
                device,
                connection,
                attempt,
            }));
        }
        all
    }

    pub(super) fn len(&self) -> usize {
        let count = |shard: &Mutex<Shard>| shard.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.shards.iter().map(count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_attempt_never_replaces_a_newer_one_nor_removes_it() {
        let registry = LocalRegistry::default();
        let (user, device) = (UserId::random(), DeviceId::random());
        let of = |attempt| Registration { user, device, connection: SessionId::random(), attempt };
        let (first, second) = (of(1), of(2));
        assert!(registry.register(second));
        assert!(!registry.register(first));
        registry.unregister(device, first.connection);
        assert!(registry.holds(device, second.connection));
        registry.unregister(device, second.connection);
        assert_eq!(registry.len(), 0);
    }
}
