//! What can go wrong in the store, sorted by what the caller can do about it.

use diesel::result::{DatabaseErrorKind, Error as DieselError};

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, is busy or gave up waiting: the outcome of a write is
    /// unknown, and the same request may succeed later.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// Another transaction held a row for too long; nothing was written.
    #[error("the database is busy: {0}")]
    Busy(String),
    /// A statement failed for a reason that a repeat does not mend.
    #[error("a statement failed: {0}")]
    Query(#[source] DieselError),
    /// The database's schema and this program do not fit.
    #[error("{0}")]
    Schema(String),
    /// The URL or a setting is wrong.
    #[error("{0}")]
    Setting(String),
}

impl StoreError {
    /// The same failure for another caller of the same statement.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Unavailable(reason) => Self::Unavailable(reason.clone()),
            Self::Busy(reason) => Self::Busy(reason.clone()),
            Self::Query(error) => Self::Query(DieselError::QueryBuilderError(error.to_string().into())),
            Self::Schema(reason) => Self::Schema(reason.clone()),
            Self::Setting(reason) => Self::Setting(reason.clone()),
        }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Busy(_))
    }

    /// Whether the database found no room on its disk.
    #[must_use]
    pub fn is_full_disk(&self) -> bool {
        matches!(self, Self::Unavailable(text) if FULL.iter().any(|part| text.contains(part)))
    }

    /// Whether a row that another one belongs to is not there, or not any more.
    #[must_use]
    pub const fn is_foreign_key_violation(&self) -> bool {
        matches!(self, Self::Query(DieselError::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _)))
    }

    /// Whether a unique key was violated.
    #[must_use]
    pub const fn is_unique_violation(&self) -> bool {
        matches!(self, Self::Query(DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _)))
    }
}

/// Parts of messages that mean "held by another": the transaction was rolled back.
const HELD: [&str; 4] = ["lock timeout", "database is locked", "database table is locked", "deadlock detected"];

/// Parts of messages that mean "the disk is full". PostgreSQL says the last one when a part of a page still fitted.
const FULL: [&str; 3] = ["disk is full", "No space left", "could not extend file"];

/// Other parts of messages that mean "later": time limits, shutdown, a disk that does not take what it is given.
const LATER: [&str; 7] = [
    "statement timeout",
    "terminating connection",
    "the database system is",
    "connection closed",
    "too many clients",
    "could not write",
    "disk I/O error",
];

impl From<DieselError> for StoreError {
    fn from(error: DieselError) -> Self {
        match &error {
            DieselError::DatabaseError(
                DatabaseErrorKind::SerializationFailure
                | DatabaseErrorKind::UnableToSendCommand
                | DatabaseErrorKind::ClosedConnection,
                info,
            ) => Self::Unavailable(info.message().to_owned()),
            DieselError::DatabaseError(_, info) if HELD.iter().any(|part| info.message().contains(part)) => {
                Self::Busy(info.message().to_owned())
            }
            DieselError::DatabaseError(_, info)
                if FULL.iter().chain(&LATER).any(|part| info.message().contains(part)) =>
            {
                Self::Unavailable(info.message().to_owned())
            }
            DieselError::BrokenTransactionManager | DieselError::RollbackErrorOnCommit { .. } => {
                Self::Unavailable(error.to_string())
            }
            _ => Self::Query(error),
        }
    }
}

impl From<diesel::ConnectionError> for StoreError {
    fn from(error: diesel::ConnectionError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
