//! Why the demo ended early, in words for whoever looks at it.

use std::io;
use std::time::Duration;

use sotto_schema::StoreError;

/// What was not as the story promises.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Something is there, but it is something else.
    #[error("the demo failed: {0}")]
    Broken(String),
    /// Something is not there in time.
    #[error("the demo failed: {what}: not within {} s", patience.as_secs())]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        patience: Duration,
    },
    /// A device's call failed.
    #[error("the demo failed: {what}: {error}")]
    Call {
        /// What was to be done.
        what: String,
        /// Why it failed.
        error: sotto_client::Error,
    },
    /// A file, folder or process cannot be used.
    #[error("{what}: {error}")]
    Files {
        /// What was to be done.
        what: String,
        /// Why it failed.
        error: io::Error,
    },
    /// The server's database cannot be read.
    #[error("the server's database cannot be read: {0}")]
    Store(#[from] StoreError),
    /// A signal came.
    #[error("interrupted; the server was stopped and everything removed")]
    Interrupted,
}

impl DemoError {
    pub(super) fn files(what: impl Into<String>, error: io::Error) -> Self {
        Self::Files { what: what.into(), error }
    }

    pub(super) fn call(what: impl Into<String>) -> impl FnOnce(sotto_client::Error) -> Self {
        let what = what.into();
        move |error| Self::Call { what, error }
    }
}

/// Ends the story unless something holds.
pub(super) fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), DemoError> {
    if holds { Ok(()) } else { Err(DemoError::Broken(otherwise())) }
}
