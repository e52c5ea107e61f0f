//! The writing connection of a Journal: one transaction per batch, by rule D11.
//!
//! This is the one place where the two databases' texts differ on purpose: PostgreSQL takes whole
//! arrays per statement because each statement is a round trip; SQLite takes row after row because
//! each statement is a function call. What they decide is shared: [`crate::append`].

use crate::append::{Batch, Outcome, Patience};
use crate::store::Backend;
use crate::{Store, StoreError, postgres as pg, sqlite as lite};
use sotto_protocol::Timestamp;
use std::sync::Arc;

mod postgres;
mod room;
mod sqlite;

pub(crate) use room::Room;

/// A writing connection, owned by one Journal.
#[derive(Debug)]
pub struct JournalConnection {
    inner: Inner,
}

enum Inner {
    Postgres {
        database: pg::Database,
        /// None after a failure of the connection: the next batch connects again.
        connection: Option<Box<pg::Connection>>,
    },
    Sqlite(lite::Database),
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Postgres { .. } => "Postgres",
            Self::Sqlite(_) => "Sqlite",
        })
    }
}

impl Store {
    /// A writing connection for a Journal. It connects at its first batch.
    #[must_use]
    pub fn journal(&self) -> JournalConnection {
        let inner = match &self.backend {
            Backend::Postgres(database) => Inner::Postgres { database: database.clone(), connection: None },
            Backend::Sqlite(database) => Inner::Sqlite(database.clone()),
        };
        JournalConnection { inner }
    }

    /// How many Journals can write at the same time.
    #[must_use]
    pub const fn journals(&self, wanted: usize) -> usize {
        if self.takes_two_writers() { wanted } else { 1 }
    }

    /// Whether two transactions can write at the same time. SQLite makes one wait for the other.
    #[must_use]
    pub const fn takes_two_writers(&self) -> bool {
        matches!(self.backend, Backend::Postgres(_))
    }
}

impl JournalConnection {
    /// Writes a batch in one transaction and tells what became of each part, after the commit.
    /// Must not be dropped before it ends.
    ///
    /// # Errors
    /// `Unavailable`: the outcome is unknown. Anything else (`Busy` among them): nothing was written.
    pub async fn write(
        &mut self,
        batch: Arc<Batch>,
        patience: Patience,
        now: Timestamp,
    ) -> Result<Outcome, StoreError> {
        let has_messages = !batch.appends.is_empty();
        match &mut self.inner {
            Inner::Postgres { database, connection } => {
                let mut open = match connection.take() {
                    Some(open) => open,
                    None => {
                        let mut fresh = database.dedicated().await?;
                        postgres::prepare(&mut fresh).await?;
                        Box::new(fresh)
                    }
                };
                let result = postgres::write(&mut open, &batch, patience, now).await;
                database.room.note(has_messages, &result);
                if !matches!(&result, Err(StoreError::Unavailable(_))) {
                    *connection = Some(open);
                }
                result
            }
            Inner::Sqlite(database) => {
                let mut writer = database.write().await?;
                #[cfg(feature = "planted-bugs")]
                if crate::planted::is(crate::planted::Bug::AnswerBeforeCommit) {
                    let (early, outcome) = tokio::sync::oneshot::channel();
                    let work = move |connection: &mut _| {
                        Ok(crate::planted::with_answer(early, || sqlite::write(connection, &batch, now)))
                    };
                    tokio::spawn(async move { drop(writer.spawn_blocking(work).await) });
                    return outcome.await.map_err(|_| StoreError::Unavailable("the batch failed".to_owned()));
                }
                let result =
                    writer.spawn_blocking(move |connection| Ok(sqlite::write(connection, &batch, now))).await?;
                database.room.note(has_messages, &result);
                result
            }
        }
    }
}
