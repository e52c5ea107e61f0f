//! SQLite: connections, and the queries compiled for it.

use crate::journal::Room;
use crate::{Statement, StoreError, StoreSettings};
use diesel::QueryableByName;
use diesel::sql_types::Integer;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use futures::FutureExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// A connection to SQLite: each statement runs on a thread for blocking work.
pub type Connection = SyncConnectionWrapper<diesel::SqliteConnection>;
type Manager = AsyncDieselConnectionManager<Connection>;

/// A connection that takes several questions at once where the database can: this one cannot.
pub type Shared<'a> = &'a mut Connection;

/// SQL text for this database: `?1` is SQLite's form of a numbered parameter.
#[must_use]
pub fn sql(text: &'static str) -> Statement {
    Statement::new(text.replace('$', "?"))
}

// IMMEDIATE: the write lock is taken at once, so that a transaction that has read never finds the
// file changed under it when it comes to write.
macro_rules! transaction {
    ($connection:expr, |$inner:ident| $body:block) => {
        $connection.immediate_transaction(async |$inner| $body).await
    };
}

// Two questions, one after the other: a connection takes one at a time.
macro_rules! both {
    ($connection:ident, $first:ident, $second:ident, $given:expr) => {
        ($first(&mut *$connection, $given).await?, $second(&mut *$connection, $given).await?)
    };
}

// The rows of a JSON array that is bound as `$1`, and what one of them says. One statement for all of them is one visit
// to the thread that may block.
macro_rules! given_rows {
    () => {
        "FROM json_each($1) AS given"
    };
}
macro_rules! given_uuid {
    ($name:literal) => {
        concat!("unhex(given.value->>'", $name, "')")
    };
}
macro_rules! given_number {
    ($name:literal) => {
        concat!("(given.value->>'", $name, "')")
    };
}
macro_rules! given_bytes {
    ($name:literal) => {
        concat!("unhex(given.value->>'", $name, "')")
    };
}

// Whoever writes holds the file.
macro_rules! lock {
    () => {
        ""
    };
}
macro_rules! skip_locked {
    () => {
        ""
    };
}

// The clock as the database reads it.
macro_rules! now {
    () => {
        "CAST(unixepoch('subsec') * 1000000 AS INTEGER)"
    };
}
macro_rules! seconds_ago {
    ($seconds:literal) => {
        concat!("CAST((unixepoch('subsec') - ", $seconds, ") * 1000000 AS INTEGER)")
    };
}
macro_rules! ms_since {
    ($column:literal) => {
        concat!("CAST(unixepoch('subsec') * 1000 AS INTEGER) - ", $column, " / 1000")
    };
}

/// One writer: ids are committed in order, and serve as positions.
const WRITE_WAKE: &str =
    concat!("INSERT INTO wakes (xid, body, created_at, updated_at) VALUES (0, $1, ", now!(), ", ", now!(), ")");

/// The wakes after an id.
const READ_WAKES: &str = "SELECT id AS position, body FROM wakes WHERE id > $1 ORDER BY id";

const WAKES_POSITION: &str = "SELECT COALESCE(MAX(id), 0) AS position, NULL AS body FROM wakes";

/// The history of sign-ins is one table.
const LOGINS_BY_MONTH: bool = false;

/// Users with the other side of their direct conversations in which both have written.
const PRESENCE_PEERS: &str = "SELECT DISTINCT mine.user_id, other.user_id AS peer FROM memberships mine \
     JOIN conversations c ON c.id = mine.conversation_id AND c.kind = 'direct' \
     JOIN memberships other ON other.conversation_id = mine.conversation_id \
      AND other.user_id <> mine.user_id AND other.first_sent_seq IS NOT NULL \
    WHERE mine.user_id IN (SELECT unhex(given.value->>'id') FROM json_each($1) AS given) \
      AND mine.first_sent_seq IS NOT NULL";

/// The file's write lock is held already.
const LOCK_HEAD: &str = "SELECT last_seq FROM heads WHERE conversation_id = $1";

#[path = "queries/mod.rs"]
#[allow(clippy::duplicate_mod, reason = "one text of each query, compiled per database")]
pub mod queries;

/// WAL with `FULL`: a commit is on the disk before it is answered, and survives a power cut.
/// What is deleted is overwritten with zeros (`secure_delete`): otherwise its bytes stay in the file until their place is
/// used again. `FAST` would leave pages alone that become free as a whole.
const SETTINGS: &str = "PRAGMA journal_mode = WAL; PRAGMA secure_delete = ON; \
    PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; \
    PRAGMA cache_size = -16000; PRAGMA wal_autocheckpoint = 4000; \
    PRAGMA journal_size_limit = 67108864;";

/// How long a statement waits for a lock of another connection.
const WAIT: &str = "PRAGMA busy_timeout = 5000;";

/// How long the end of a checkpoint waits for statements that read from the log, while everybody who writes waits too.
const WAIT_FOR_READERS: &str = "PRAGMA busy_timeout = 50;";

#[derive(QueryableByName)]
struct Checkpoint {
    #[diesel(sql_type = Integer)]
    busy: i32,
    /// Pages in the log.
    #[diesel(sql_type = Integer)]
    log: i32,
    /// Pages of the log that are in the file.
    #[diesel(sql_type = Integer)]
    checkpointed: i32,
}

/// Runs a checkpoint; `false`: another connection was in its way.
async fn checkpoint(connection: &mut Connection, statement: &str) -> Result<bool, StoreError> {
    let done: Checkpoint = diesel::sql_query(statement).get_result(connection).await?;
    Ok(done.busy == 0 && done.log == done.checkpointed)
}

/// Pooled readers, and the one writer that everybody who writes waits for in turn: SQLite has one
/// write lock, and waiting in a queue is fair where polling a busy file is not.
#[derive(Clone)]
pub(crate) struct Database {
    path: String,
    readers: bb8::Pool<Manager>,
    writer: Arc<Mutex<Connection>>,
    pub(crate) room: Room,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Sqlite").field(&self.path).finish()
    }
}

async fn connect(path: String) -> diesel::ConnectionResult<Connection> {
    let mut connection = Connection::establish(&path).await?;
    connection
        .batch_execute(&format!("{WAIT} {SETTINGS}"))
        .await
        .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    Ok(connection)
}

impl Database {
    pub(crate) async fn open(path: &str, settings: &StoreSettings) -> Result<Self, StoreError> {
        if let Some(folder) = Path::new(path).parent()
            && !folder.as_os_str().is_empty()
        {
            std::fs::create_dir_all(folder).map_err(|error| {
                StoreError::Setting(format!("cannot make the folder {}: {error}", folder.display()))
            })?;
        }
        let mut config = ManagerConfig::default();
        config.recycling_method = RecyclingMethod::Fast;
        config.custom_setup = Box::new(|path| connect(path.to_owned()).boxed());
        let readers = bb8::Pool::builder()
            .max_size(settings.read_connections)
            .connection_timeout(Duration::from_secs(4))
            .test_on_check_out(false)
            .build_unchecked(Manager::new_with_config(path, config));
        let writer = Arc::new(Mutex::new(connect(path.to_owned()).await?));
        Ok(Self { path: path.to_owned(), readers, writer, room: Room::default() })
    }

    pub(crate) async fn read(&self) -> Result<bb8::PooledConnection<'static, Manager>, StoreError> {
        self.readers.get_owned().await.map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    pub(crate) async fn write(&self) -> Result<OwnedMutexGuard<Connection>, StoreError> {
        Ok(Arc::clone(&self.writer).lock_owned().await)
    }

    /// Moves the write-ahead log into the file and empties it: it has pages from before a deletion, and keeps them until it
    /// is written over. `false`: readers were in the way, and it has to be tried again.
    pub(crate) async fn empty_log(&self) -> Result<bool, StoreError> {
        // Nobody waits for this one. Writers wait for the next, so it must find nothing left to copy.
        if !checkpoint(&mut *self.read().await?, "PRAGMA wal_checkpoint(PASSIVE)").await? {
            return Ok(false);
        }
        let mut writer = self.write().await?;
        writer.batch_execute(WAIT_FOR_READERS).await?;
        let emptied = checkpoint(&mut writer, "PRAGMA wal_checkpoint(TRUNCATE)").await;
        writer.batch_execute(WAIT).await?;
        emptied
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}
