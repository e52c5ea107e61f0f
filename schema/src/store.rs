//! The store as its callers see it: one value, whichever database is behind it.

use crate::{StoreError, postgres, sqlite};

mod account_log;
mod arrivals;
mod conversations;
mod deletions;
mod device_link;
mod devices;
mod export;
mod idempotency;
mod keys;
mod logins;
mod meta;
mod nodes;
mod number;
mod own_devices;
mod registration_lock;
mod sealed;
mod second_factor;
mod seed;
mod sign_in;
mod sync;
mod trail;
mod verifications;

/// How many connections the store keeps.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Pooled connections for reads and small writes, 1 … 100.
    pub read_connections: u32,
    /// Threads that ask much: the pooled connections to PostgreSQL are parted among them, at least two for each.
    pub threads: u32,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { read_connections: 8, threads: 1 }
    }
}

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) backend: Backend,
    gathered: arrivals::Gathered,
    reads: sync::Reads,
}

#[derive(Clone, Debug)]
pub(crate) enum Backend {
    Postgres(postgres::Database),
    Sqlite(sqlite::Database),
}

impl Store {
    /// Opens `sqlite:PATH` or `postgres://…` without looking at the schema: see [`crate::migrate`].
    ///
    /// # Errors
    /// A URL of another kind, a folder that cannot be made, a database that does not answer.
    pub async fn open(url: &str, settings: &StoreSettings) -> Result<Self, StoreError> {
        let backend = if let Some(path) = url.strip_prefix("sqlite:") {
            Backend::Sqlite(sqlite::Database::open(path, settings).await?)
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Backend::Postgres(postgres::Database::open(url, settings).await?)
        } else {
            return Err(StoreError::Setting("store.url must start with sqlite: or postgres://".to_owned()));
        };
        Ok(Self { backend, gathered: arrivals::Gathered::default(), reads: sync::Reads::default() })
    }

    /// `postgres` or `sqlite`, for logs and health.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self.backend {
            Backend::Postgres(_) => "postgres",
            Backend::Sqlite(_) => "sqlite",
        }
    }
}

/// Runs a write to its end even if the caller goes away: a transaction is never dropped half-way.
pub(crate) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
}

/// Declares methods of [`Store`] that run a query on whichever database is there.
macro_rules! facade {
    ($($(#[$meta:meta])* $access:ident fn $name:ident($($arg:ident: $ty:ty),* $(,)?) -> $ret:ty = $($path:ident)::+;)*) => {
        impl crate::Store {
            $(
                $(#[$meta])*
                ///
                /// # Errors
                /// The database failed; see [`crate::StoreError`].
                #[allow(clippy::too_many_arguments)]
                pub async fn $name(&self, $($arg: $ty),*) -> Result<$ret, crate::StoreError> {
                    let began = std::time::Instant::now();
                    let result = match self.backend.clone() {
                        crate::store::Backend::Postgres(database) => {
                            crate::store::facade!(@$access database, postgres, $($path)::+, $($arg),*)
                        }
                        crate::store::Backend::Sqlite(database) => {
                            crate::store::facade!(@$access database, sqlite, $($path)::+, $($arg),*)
                        }
                    };
                    metrics::histogram!("sotto_db_seconds", "query" => stringify!($name))
                        .record(began.elapsed().as_secs_f64());
                    result
                }
            )*
        }
    };
    // A query that is dropped while SQLite's thread works on it would have to block until that thread is done, and
    // panics where a runtime has one thread only: so it runs to its end.
    (@read $database:ident, sqlite, $($path:ident)::+, $($arg:ident),*) => {
        crate::store::to_the_end(async move {
            let mut connection = $database.read().await?;
            crate::sqlite::queries::$($path)::+(&mut connection, $($arg),*).await
        })
        .await
    };
    (@read $database:ident, $backend:ident, $($path:ident)::+, $($arg:ident),*) => {
        async move {
            let mut connection = $database.read().await?;
            crate::$backend::queries::$($path)::+(&mut connection, $($arg),*).await
        }
        .await
    };
    (@write $database:ident, $backend:ident, $($path:ident)::+, $($arg:ident),*) => {
        crate::store::to_the_end(async move {
            let mut connection = $database.write().await?;
            crate::$backend::queries::$($path)::+(&mut connection, $($arg),*).await
        })
        .await
    };
}
pub(crate) use facade;
