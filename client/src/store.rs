//! The device's own database: one SQLite file with keys, ratchets, messages and what is to be sent.
//!
//! Everything that belongs together is written in one transaction, and nothing about encryption is
//! kept in memory between two of them: a process may be killed at any moment and go on from here.

mod conversations;
mod devices;
mod groups;
mod messages;
mod meta;
mod outbox;
mod schema;
mod sessions;

pub(crate) use groups::OutboundGroup;
pub(crate) use messages::{MessageRow, MessageState, NewMessage};
pub(crate) use outbox::{OutboxRow, OutboxState, QueuedMessage};

use crate::error::{Error, Result};
use crate::seal::{Seal, StoreKey};
use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");
const PRAGMAS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000; \
     PRAGMA secure_delete = ON;";
const CHECK: &str = "check";

/// The store of one device. Cloning gives another handle to the same store.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    connection: Mutex<SqliteConnection>,
    seal: Seal,
}

/// An open transaction.
pub(crate) struct Tx<'a> {
    connection: &'a mut SqliteConnection,
    seal: &'a Seal,
}

impl Store {
    /// Opens the store at `path`, or makes it. A store made with another key is refused.
    ///
    /// # Errors
    /// [`Error::StoreKey`] for another key, [`Error::Store`] when the file cannot be used.
    pub async fn open(path: impl AsRef<Path>, key: StoreKey) -> Result<Self> {
        let path =
            path.as_ref().to_str().ok_or_else(|| Error::Usage("the store's path is not UTF-8".to_owned()))?.to_owned();
        blocking(move || Self::connect(&path, &key)).await
    }

    /// Opens the store at `path` with the key in `path.key`; makes both where they are missing.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_with_key_beside(path: impl AsRef<Path>) -> Result<Self> {
        let key = StoreKey::beside(path.as_ref())?;
        Self::open(path, key).await
    }

    /// A store that is gone when its last handle is dropped, for tests and throw-away bots.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn in_memory() -> Result<Self> {
        Self::connect(":memory:", &StoreKey::random()?)
    }

    fn connect(path: &str, key: &StoreKey) -> Result<Self> {
        let mut connection = SqliteConnection::establish(path).map_err(Error::store)?;
        connection.batch_execute(PRAGMAS)?;
        connection.run_pending_migrations(MIGRATIONS).map_err(Error::store)?;
        let store = Self { shared: Arc::new(Shared { connection: Mutex::new(connection), seal: Seal::new(key)? }) };
        store.run_here(|tx| match tx.meta(CHECK)? {
            Some(_) => Ok(()),
            None => tx.set_meta(CHECK, CHECK.as_bytes()),
        })?;
        Ok(store)
    }

    /// Runs `work` in one transaction on a thread that may block. The work is done to its end even
    /// if the caller no longer waits.
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let store = self.clone();
        blocking(move || store.run_here(work)).await
    }

    fn run_here<T>(&self, work: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self.shared.connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection.immediate_transaction(|connection| work(&mut Tx { connection, seal: &self.shared.seal }))
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Store(..)")
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Error::store)?
}

impl Tx<'_> {
    fn seal(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>> {
        self.seal.seal(context, plain)
    }

    fn unseal(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        self.seal.open(context, sealed)
    }
}

/// Reads an id that this store wrote.
fn id<T: From<uuid::Uuid>>(text: &str) -> Result<T> {
    uuid::Uuid::try_parse(text).map(T::from).map_err(Error::store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn another_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let key = StoreKey::random().unwrap();
        drop(Store::open(&path, key.clone()).await.unwrap());
        drop(Store::open(&path, key).await.unwrap());
        let other = Store::open(&path, StoreKey::random().unwrap()).await;
        assert!(matches!(other, Err(Error::StoreKey)));
    }

    #[tokio::test]
    async fn failed_work_leaves_nothing() {
        let store = Store::in_memory().unwrap();
        let failed: Result<()> = store
            .run(|tx| {
                tx.set_meta("name", b"value")?;
                Err(Error::Usage("no".to_owned()))
            })
            .await;
        assert!(failed.is_err());
        assert!(store.run(|tx| tx.meta("name")).await.unwrap().is_none());
    }
}
