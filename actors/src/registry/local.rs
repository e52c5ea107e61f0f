//! The registry of a single node: a sharded map in memory.

use sotto_protocol::{DeviceId, SessionId, UserId};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Entry {
    connection: SessionId,
    attempt: i64,
}

/// Connections by device.
#[derive(Debug)]
pub struct LocalRegistry {
    shards: Vec<Mutex<HashMap<DeviceId, Entry>>>,
}

impl Default for LocalRegistry {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl LocalRegistry {
    fn shard(&self, device: DeviceId) -> Option<MutexGuard<'_, HashMap<DeviceId, Entry>>> {
        // Device ids are random: any of their bytes spreads them evenly.
        let last = device.as_bytes().last().copied().unwrap_or_default();
        let shard = self.shards.get(usize::from(last) % SHARDS)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn register(&self, _user: UserId, device: DeviceId, connection: SessionId, attempt: i64) -> bool {
        let Some(mut shard) = self.shard(device) else {
            return false;
        };
        if shard.get(&device).is_some_and(|known| known.attempt > attempt) {
            return false;
        }
        shard.insert(device, Entry { connection, attempt });
        true
    }

    pub(super) fn unregister(&self, device: DeviceId, connection: SessionId) {
        if let Some(mut shard) = self.shard(device)
            && shard.get(&device).is_some_and(|known| known.connection == connection)
        {
            shard.remove(&device);
        }
    }

    pub(super) fn is_connected(&self, device: DeviceId) -> bool {
        self.shard(device).is_some_and(|shard| shard.contains_key(&device))
    }

    pub(super) fn len(&self) -> usize {
        let count = |shard: &Mutex<HashMap<_, _>>| shard.lock().unwrap_or_else(PoisonError::into_inner).len();
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
        let (first, second) = (SessionId::random(), SessionId::random());
        assert!(registry.register(user, device, second, 2));
        assert!(!registry.register(user, device, first, 1));
        registry.unregister(device, first);
        assert!(registry.is_connected(device));
        registry.unregister(device, second);
        assert!(!registry.is_connected(device));
    }
}
