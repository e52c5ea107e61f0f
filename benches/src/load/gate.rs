//! Where the generator threads wait for each other, and hear when to stop.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Ends a run early, from another thread. Clones stop the same runs.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicU8>);

impl Stop {
    /// Ends the load; what is under way still comes in. A second time: at once.
    pub fn stop(&self) {
        // More than twice says nothing more.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |times| times.checked_add(1));
    }

    /// Whether the load is to end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// Whether even what is under way is to be left.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 1
    }
}

/// Shared by all threads of a run.
#[derive(Default)]
pub struct Gate {
    /// The moments at which the phases begin, as far as they are known.
    opened: Mutex<Vec<Instant>>,
    stop: Stop,
    ended: AtomicU8,
    arrived: AtomicU64,
}

impl Gate {
    /// A closed one.
    pub fn new(stop: Stop) -> Self {
        Self { stop, ..Self::default() }
    }

    /// Lets the next phase begin at this moment.
    pub fn open(&self, at: Instant) {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).push(at);
    }

    /// When a phase begins, if that is known.
    pub fn opened(&self, phase: usize) -> Option<Instant> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(phase).copied()
    }

    /// Ends this run alone; the conductor's way when a thread has failed or a run says enough.
    pub fn end(&self) {
        self.ended.fetch_max(1, Ordering::Relaxed);
    }

    /// As [`Gate::end`], without waiting for what is under way.
    pub fn abandon(&self) {
        self.ended.fetch_max(2, Ordering::Relaxed);
    }

    /// Whether the load is to end.
    pub fn is_stopped(&self) -> bool {
        self.ended.load(Ordering::Relaxed) > 0 || self.stop.is_stopped()
    }

    /// Whether even what is under way is to be left.
    pub fn is_abandoned(&self) -> bool {
        self.ended.load(Ordering::Relaxed) > 1 || self.stop.is_abandoned()
    }

    /// A connection has arrived.
    pub fn arrive(&self) {
        self.arrived.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections that have arrived so far.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }
}
