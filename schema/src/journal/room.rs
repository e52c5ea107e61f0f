//! Whether there is room for messages: a full disk refuses them while it still takes a commit of a few bytes.

use crate::postgres::{self as pg, sql};
use crate::store::{Backend, to_the_end};
use crate::types::{Moment, Uuid};
use crate::{Store, StoreError};
use diesel::result::Error as DieselError;
use diesel::sql_types::{BigInt, Binary};
use diesel_async::{AsyncConnection, RunQueryDsl};
use sotto_protocol::{MessageId, Timestamp};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of the largest ciphertext.
const LARGEST: usize = 96 * 1024;
/// How long a refusal of the disk counts where nothing can be tried.
const COUNTS: Duration = Duration::from_secs(5);

/// When a write of the Journal last found the disk full, unless one has succeeded since. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room(Arc<Mutex<Option<Instant>>>);

impl Room {
    /// Notes how a write ended. That marks could be stored says nothing of room for messages.
    pub(super) fn note<T>(&self, has_messages: bool, result: &Result<T, StoreError>) {
        let mut short = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(_) if has_messages => *short = None,
            Ok(_) => {}
            Err(error) if error.is_full_disk() => *short = Some(Instant::now()),
            Err(_) => {}
        }
    }

    fn short_for(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|since| since.elapsed())
    }
}

impl Store {
    /// A commit and a read-back within the database, and room for a message: what readiness stands on.
    ///
    /// # Errors
    /// The database failed. `false` without an error: it told an older state, or has no room.
    pub async fn probe(&self, now: Timestamp) -> Result<bool, StoreError> {
        Ok(self.commits(now).await? && self.has_room().await?)
    }

    /// Whether messages can be stored, as far as the disk is concerned. Costs nothing while the last batch was stored.
    /// After one that found the disk full, PostgreSQL is given the largest message, which is taken back: the answer
    /// changes when there is room again, and not when somebody dares to send. SQLite would keep such a message in memory
    /// until its commit, so there the refusal counts for 5 s.
    async fn has_room(&self) -> Result<bool, StoreError> {
        match self.backend.clone() {
            Backend::Postgres(database) => {
                if database.room.short_for().is_none() {
                    return Ok(true);
                }
                let room = database.room.clone();
                let tried = to_the_end(async move { try_message(&database).await }).await;
                room.note(true, &tried);
                match tried {
                    Err(error) if error.is_full_disk() => Ok(false),
                    tried => tried.map(|()| true),
                }
            }
            Backend::Sqlite(database) => Ok(database.room.short_for().is_none_or(|time| time > COUNTS)),
        }
    }
}

/// Among the messages, because room in another table's file does not help.
async fn try_message(database: &pg::Database) -> Result<(), StoreError> {
    let mut connection = database.write().await?;
    let written = connection
        .transaction(async |connection| {
            sql("INSERT INTO messages (conversation_id, seq, message_id, kind, ciphertext, created_at, updated_at) \
                 VALUES ($1, $2, $1, 'system', $3, $4, $4)")
            .bind::<Uuid, _>(MessageId::random())
            .bind::<BigInt, _>(0_i64)
            .bind::<Binary, _>(vec![0_u8; LARGEST])
            .bind::<Moment, _>(Timestamp::now())
            .execute(connection)
            .await?;
            Err::<(), _>(DieselError::RollbackTransaction)
        })
        .await;
    match written {
        Err(DieselError::RollbackTransaction) => Ok(()),
        written => Ok(written?),
    }
}
