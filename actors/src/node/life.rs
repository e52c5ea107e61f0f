//! A node's life: who is connected, how it is, and how it takes its leave.

use super::Node;
use crate::cluster::{self, Cluster, View};
use crate::journal::Flush;
use crate::mailbox::{ask, tell};
use crate::session::Drain;
use actix::dev::ToEnvelope;
use actix::{Actor, Handler, Message};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// What is said to Redis and the database at the end waits no longer than this for each.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Node {
    /// Counts a socket that wants to open, unless the node is full. `true`: it may.
    #[must_use]
    pub fn connection_opened(&self) -> bool {
        let settings = &self.0.settings;
        let before = self.0.connections.fetch_add(1, Ordering::Relaxed);
        if settings.limits.enabled && before >= settings.max_sockets {
            self.0.connections.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// A counted socket is gone.
    pub fn connection_closed(&self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Open sockets.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.connections.load(Ordering::Relaxed)
    }

    /// Whether the node takes its leave: nothing should be sent to it any more.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.0.leaving.load(Ordering::Relaxed)
    }

    /// Whether the node drains: it takes no sockets any more.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// How long the node has been running.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.0.started.elapsed()
    }

    pub(crate) fn swept(&self) {
        let now = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.swept.store(now, Ordering::Relaxed);
        metrics::gauge!("sotto_sessions").set(f64::from(u32::try_from(self.0.sessions.len()).unwrap_or(u32::MAX)));
        let conversations = u32::try_from(self.0.conversations.len()).unwrap_or(u32::MAX);
        metrics::gauge!("sotto_conversations").set(f64::from(conversations));
    }

    /// How long ago the wakes were read.
    #[must_use]
    pub fn sweep_age(&self) -> Duration {
        let swept = Duration::from_millis(self.0.swept.load(Ordering::Relaxed));
        self.0.started.elapsed().saturating_sub(swept)
    }

    /// What is known of the other nodes and of the paths to them.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.0.view.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn show(&self, view: View) {
        *self.0.view.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }

    /// Whether Redis answers and lets this node hear; `None`: it works without.
    #[must_use]
    pub fn redis_is_well(&self) -> Option<bool> {
        self.redis().map(|redis| redis.answers() && self.bus().hears() != Some(false))
    }

    /// Hands a canary to the actor that waits for it, or answers it.
    pub(crate) fn canary<M>(&self, message: M)
    where
        Cluster: Handler<M>,
        <Cluster as Actor>::Context: ToEnvelope<Cluster, M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        if let Some(cluster) = self.0.cluster.get() {
            // Refused, it counts as missed.
            let _ = tell(cluster, message);
        }
    }

    /// From now on the node says that nothing should be sent to it any more; it serves until it is drained.
    pub fn take_leave(&self) {
        self.0.leaving.store(true, Ordering::Relaxed);
        if let Some(cluster) = self.0.cluster.get() {
            // Refused, others hear it with the next report.
            let _ = tell(cluster, cluster::Report);
        }
    }

    /// Sends all sockets away, flushes the Journals, withdraws what other nodes know of this one; the first of it at
    /// most for `patience`, the rest for some seconds.
    pub async fn drain(&self, patience: Duration) {
        self.take_leave();
        self.0.draining.store(true, Ordering::Relaxed);
        self.0.alarm.disarm();
        let deadline = tokio::time::Instant::now() + patience;
        let sessions = self.0.sessions.all();
        let spread = u64::try_from(sessions.len()).unwrap_or(u64::MAX).min(5000);
        for (place, (_, session)) in sessions.into_iter().enumerate() {
            // Clients come back spread over time, not all in one moment.
            let place = u64::try_from(place).unwrap_or(0);
            let reconnect_after_ms = 100 + place.wrapping_mul(7919) % spread.max(1);
            if tell(&session, Drain { reconnect_after_ms }).is_err() {
                tracing::debug!("a session could not be told of the drain");
            }
        }
        // Sessions end after their devices' sockets are closed and their marks handed over. A socket that has not
        // said who it is has nothing that could be lost.
        while !self.0.sessions.is_empty() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for journal in self.0.journals.get().into_iter().flat_map(|journals| journals.all()) {
            let flush = ask(journal, Flush);
            if tokio::time::timeout_at(deadline.max(tokio::time::Instant::now() + Duration::from_secs(1)), flush)
                .await
                .is_err()
            {
                tracing::warn!("a journal was not flushed in time");
            }
        }
        if tokio::time::timeout(LAST_WORDS, self.limits().settle()).await.is_err() {
            tracing::debug!("leases of limits stay behind; they end by themselves");
        }
        // Other nodes stop to look for anybody here, and then for this node itself.
        if tokio::time::timeout(LAST_WORDS, self.registry().settle()).await.is_err() {
            tracing::debug!("registrations stay behind; they end by themselves");
        }
        if let Some(cluster) = self.0.cluster.get() {
            let left = tokio::time::timeout(LAST_WORDS, ask(cluster, cluster::Leave)).await;
            if !matches!(left, Ok(Ok(()))) {
                tracing::debug!("the node's row stays; others remove it within a minute");
            }
        }
    }
}
