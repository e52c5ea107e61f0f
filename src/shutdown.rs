//! The wish to stop, as a value: signals raise it in the program, tests raise it by hand.

use std::{io, sync::Arc, thread};

use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// How much of a hurry there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Running,
    Draining,
    Now,
}

/// A wish to stop that many can wait for. Clones share it.
#[derive(Debug, Clone)]
pub struct Shutdown {
    stage: Arc<watch::Sender<Stage>>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// One that nobody has wished for yet.
    #[must_use]
    pub fn new() -> Self {
        Self { stage: Arc::new(watch::Sender::new(Stage::Running)) }
    }

    /// Asks to drain and stop. Asked again, it changes nothing.
    pub fn trigger(&self) {
        self.raise(Stage::Draining);
    }

    /// Asks to stop without waiting for anybody.
    pub fn force(&self) {
        self.raise(Stage::Now);
    }

    /// Whether somebody has asked.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        *self.stage.borrow() >= Stage::Draining
    }

    /// Waits until somebody asks to stop; at once if somebody has.
    pub async fn triggered(&self) {
        self.reached(Stage::Draining).await;
    }

    /// Waits until somebody asks to stop without waiting.
    pub async fn forced(&self) {
        self.reached(Stage::Now).await;
    }

    /// Listens for SIGTERM and SIGINT from now on: the first drains, the second ends the process at once.
    ///
    /// On a thread of its own, so that the second signal works even when every worker is stuck.
    ///
    /// # Errors
    /// When the signals or the thread cannot be had.
    pub fn listen_for_signals(&self) -> io::Result<()> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let (mut terminate, mut interrupt) = {
            let _inside = runtime.enter();
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        let shutdown = self.clone();
        thread::Builder::new().name(String::from("signals")).spawn(move || {
            runtime.block_on(async {
                let name = next(&mut terminate, &mut interrupt).await;
                tracing::info!(signal = name, "draining; a second signal exits at once");
                shutdown.trigger();
                let name = next(&mut terminate, &mut interrupt).await;
                tracing::warn!(signal = name, "exiting at once");
                shutdown.force();
                exit_at_once();
            });
        })?;
        Ok(())
    }

    fn raise(&self, wanted: Stage) {
        self.stage.send_if_modified(|stage| {
            let is_more = wanted > *stage;
            if is_more {
                *stage = wanted;
            }
            is_more
        });
    }

    async fn reached(&self, wanted: Stage) {
        let mut watcher = self.stage.subscribe();
        // It fails only when the sender is gone, and `self` holds it.
        let _stage = watcher.wait_for(|stage| *stage >= wanted).await;
    }
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

#[allow(clippy::disallowed_methods, reason = "the second signal means: whatever is still running, leave now")]
fn exit_at_once() {
    std::process::exit(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_hears_it_those_who_come_late_too() {
        let shutdown = Shutdown::new();
        let early = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.triggered().await }
        });
        assert!(!shutdown.is_triggered());
        shutdown.trigger();
        shutdown.trigger();
        assert!(early.await.is_ok());
        shutdown.triggered().await;
        assert!(shutdown.is_triggered());
    }

    #[tokio::test]
    async fn draining_is_not_leaving_but_leaving_is_draining() {
        let shutdown = Shutdown::new();
        shutdown.trigger();
        assert!(futures::FutureExt::now_or_never(shutdown.forced()).is_none());
        shutdown.force();
        shutdown.trigger();
        shutdown.forced().await;
        shutdown.triggered().await;
    }
}
