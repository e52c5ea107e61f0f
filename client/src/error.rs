//! What can go wrong for a caller of this library.

use sotto_protocol::challenge::Challenge;
use sotto_protocol::{DeviceId, ErrorCode, MessageId, Problem, UserId};

/// A result of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. No variant holds a token, a key or the text of a message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server refused; except for `unavailable` and `internal` nothing was changed there.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// No connection, or it broke; whether the request took effect is unknown.
    #[error("no answer from the server: {0}")]
    Transport(String),
    /// No answer in time; whether the request took effect is unknown.
    #[error("no answer from the server in time")]
    Timeout,
    /// The socket was closed.
    #[error("the connection was closed with {code:?} {reason:?}")]
    Closed {
        /// The close code, if there was a close frame with one.
        code: Option<u16>,
        /// The text of the close frame.
        reason: String,
    },
    /// The server said something that this library does not understand.
    #[error("the server's answer cannot be read: {0}")]
    Protocol(String),
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(String),
    /// The store was made with another key.
    #[error("the store cannot be opened with this key")]
    StoreKey,
    /// Encryption or decryption failed.
    #[error("encryption failed: {0}")]
    Crypto(String),
    /// A device shows another identity key than it had before: somebody may stand in between.
    #[error("device {device_id} of user {user_id} shows another identity key than before")]
    IdentityChanged {
        /// Whose device.
        user_id: UserId,
        /// Which device.
        device_id: DeviceId,
    },
    /// A device's identity key is not the one that its signing key has signed: somebody may stand in between.
    #[error("the identity key of device {device_id} of user {user_id} is signed wrongly")]
    IdentityForged {
        /// Whose device.
        user_id: UserId,
        /// Which device.
        device_id: DeviceId,
    },
    /// None of the receiver's devices speaks Olm.
    #[error("no device of user {0} speaks this client's encryption")]
    NoCommonSuite(UserId),
    /// The message is larger than a ciphertext may be.
    #[error("the message is too large")]
    TooLarge,
    /// The store holds no signed-in device.
    #[error("nobody is signed in with this store")]
    NotSignedIn,
    /// The session has ended; signing in again with the same store gives the same device back.
    #[error("the session has ended, sign in again")]
    SignedOut,
    /// The message is stored in the outbox and will be sent with the next connection or `flush`.
    #[error("message {message_id} waits in the outbox: {cause}")]
    Undelivered {
        /// Which message.
        message_id: MessageId,
        /// What kept it.
        cause: Box<Error>,
    },
    /// The account's trail is not to be believed.
    #[error("{0}")]
    Trail(#[from] crate::trail::TrailFault),
    /// The call makes no sense as it was made.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// The server's problem, where there is one.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            Self::Undelivered { cause, .. } => cause.problem(),
            _ => None,
        }
    }

    /// The code of the server's problem, where there is one.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        self.problem().map(|problem| problem.code)
    }

    /// The challenge that must be answered before a code is sent.
    #[must_use]
    pub fn challenge(&self) -> Option<Challenge> {
        let problem = self.problem().filter(|problem| problem.code == ErrorCode::ChallengeRequired)?;
        serde_json::from_value(problem.more.get("challenge")?.clone()).ok()
    }

    /// Whether the code was right and the account asks for a second factor or a PIN beside it, or the one that was shown was not
    /// accepted. The code is not used up.
    #[must_use]
    pub fn needs_second_factor(&self) -> bool {
        self.problem().is_some_and(|problem| match problem.code {
            ErrorCode::SecondFactorRequired => true,
            ErrorCode::CodeRejected => problem
                .errors
                .iter()
                .any(|error| matches!(error.pointer.as_deref(), Some("/totp" | "/backup_code" | "/pin"))),
            _ => false,
        })
    }

    /// Whether the same request with the same ids may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Problem(problem) => problem.retryable,
            Self::Transport(_) | Self::Timeout | Self::Closed { .. } => true,
            _ => false,
        }
    }

    /// Whether the server may have done what was asked for: only a repeat with the same ids is right.
    #[must_use]
    pub fn is_unknown_outcome(&self) -> bool {
        match self {
            Self::Problem(problem) => matches!(problem.code, ErrorCode::Unavailable | ErrorCode::Internal),
            Self::Transport(_) | Self::Timeout | Self::Closed { .. } => true,
            _ => false,
        }
    }

    pub(crate) fn store(reason: impl ToString) -> Self {
        Self::Store(reason.to_string())
    }

    pub(crate) fn crypto(reason: impl ToString) -> Self {
        Self::Crypto(reason.to_string())
    }

    pub(crate) fn protocol(reason: impl ToString) -> Self {
        Self::Protocol(reason.to_string())
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

impl From<diesel::result::Error> for Error {
    fn from(error: diesel::result::Error) -> Self {
        Self::store(error)
    }
}
