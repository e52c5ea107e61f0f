//! What the rest of the client sees of the managed connection: its state, and a way to ask through it.

use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// The contract allows 256 unanswered requests; half of it leaves room for everything else.
pub(crate) const MOST_UNANSWERED: usize = 128;
/// Name of the count of attempts to connect, which signing in sets to nothing.
pub(crate) const ATTEMPT: &str = "attempt";
/// No answer to a request for so long on a living connection: its outcome counts as unknown.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// How the managed connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkState {
    /// The application has not connected, or has disconnected.
    Off,
    /// Being opened, or waiting for the next attempt.
    Connecting,
    /// Welcome has been said.
    Up,
    /// The server closed with a code that forbids coming back by itself.
    Stopped,
}

/// What the connection's task is asked for.
pub(crate) enum Command {
    Request { t: &'static str, d: String, answer: oneshot::Sender<Result<String>> },
    Tell { t: &'static str, d: String },
}

/// What the rest of the client knows of the connection.
pub(crate) struct Link {
    pub(crate) state: watch::Sender<LinkState>,
    pub(crate) running: Mutex<Option<Running>>,
}

/// A connection's task, and how to speak to it.
pub(crate) struct Running {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) task: JoinHandle<()>,
}

impl Link {
    pub(crate) fn new() -> Self {
        Self { state: watch::Sender::new(LinkState::Off), running: Mutex::new(None) }
    }

    pub(crate) fn state(&self) -> LinkState {
        *self.state.borrow()
    }

    /// Whether requests can go by the socket, waiting a little for one that is being opened.
    pub(crate) async fn is_up_within(&self, patience: Duration) -> bool {
        if self.state() == LinkState::Connecting {
            let mut state = self.state.subscribe();
            let settled = state.wait_for(|state| *state != LinkState::Connecting);
            drop(tokio::time::timeout(patience, settled).await);
        }
        self.state() == LinkState::Up
    }

    /// A request by the socket; [`Error::Transport`] when there is none or it breaks meanwhile.
    pub(crate) async fn request<T: DeserializeOwned>(&self, t: &'static str, d: String) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::Request { t, d, answer }).await?;
        let text = tokio::time::timeout(ANSWER_WITHIN, answered)
            .await
            .map_err(|_| Error::Timeout)?
            .map_err(|_| Error::Transport("the connection ended before the answer".to_owned()))??;
        serde_json::from_str(&text).map_err(Error::protocol)
    }

    /// A frame without answer.
    pub(crate) async fn tell(&self, t: &'static str, d: String) -> Result<()> {
        self.command(Command::Tell { t, d }).await
    }

    async fn command(&self, command: Command) -> Result<()> {
        let no_socket = || Error::Transport("there is no connection".to_owned());
        let commands = {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.as_ref().map(|running| running.commands.clone()).ok_or_else(no_socket)?
        };
        if self.state() != LinkState::Up {
            return Err(no_socket());
        }
        commands.send(command).await.map_err(|_| no_socket())
    }

    /// Asks the task to end; the task, to be waited for.
    pub(crate) fn stop(&self) -> Option<JoinHandle<()>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        running.stop.send_replace(true);
        Some(running.task)
    }
}
