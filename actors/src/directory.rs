//! Which actor of this node stands for a key: a sharded map, so that no actor sits where every message passes.

use actix::{Actor, Addr};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 64;

/// Addresses by key. No lock is held while an actor is told something.
pub struct Directory<K, A: Actor> {
    shards: Vec<Mutex<HashMap<K, Addr<A>>>>,
    hasher: RandomState,
}

impl<K, A: Actor> std::fmt::Debug for Directory<K, A> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Directory")
    }
}

impl<K: Hash + Eq + Copy, A: Actor> Default for Directory<K, A> {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl<K: Hash + Eq + Copy, A: Actor> Directory<K, A> {
    fn shard(&self, key: &K) -> Option<MutexGuard<'_, HashMap<K, Addr<A>>>> {
        let hash = usize::try_from(self.hasher.hash_one(key) % 64).unwrap_or(0);
        let shard = self.shards.get(hash)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The actor that stands for the key, if there is one.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<Addr<A>> {
        self.shard(key)?.get(key).cloned()
    }

    /// The actor that stands for the key; `start` makes it if there is none or the known one has stopped.
    #[must_use]
    pub fn get_or_start(&self, key: K, start: impl FnOnce() -> Addr<A>) -> Addr<A> {
        let Some(mut shard) = self.shard(&key) else {
            return start();
        };
        match shard.get(&key) {
            Some(known) if known.connected() => known.clone(),
            _ => {
                let fresh = start();
                shard.insert(key, fresh.clone());
                fresh
            }
        }
    }

    /// Forgets the key, but only if it still leads to this actor.
    pub fn remove(&self, key: &K, address: &Addr<A>) {
        if let Some(mut shard) = self.shard(key)
            && shard.get(key) == Some(address)
        {
            shard.remove(key);
        }
    }

    /// All addresses, shard by shard.
    #[must_use]
    pub fn all(&self) -> Vec<(K, Addr<A>)> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(shard.iter().map(|(key, address)| (*key, address.clone())));
        }
        all
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        let count = |shard: &Mutex<HashMap<K, Addr<A>>>| shard.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.shards.iter().map(count).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
