//! Bringing the schema up, down, and telling where it stands. Migrations are embedded.

use crate::store::Backend;
use crate::{Store, StoreError, postgres};
use diesel::migration::Migration;
use diesel_async::AsyncMigrationHarness;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

const POSTGRES: EmbeddedMigrations = embed_migrations!("../migrations/postgres");
const SQLITE: EmbeddedMigrations = embed_migrations!("../migrations/sqlite");

/// One migration and whether it has been applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationStatus {
    /// Its name, as the folder's.
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
}

/// Applies what is missing and returns the names of what was applied.
///
/// # Errors
/// A schema that is newer than this program, or a migration that fails.
pub async fn migrate(store: &Store) -> Result<Vec<String>, StoreError> {
    on_harness(store, Work::Up).await
}

/// Takes back the newest `count` migrations and returns their names.
///
/// # Errors
/// A migration that fails.
pub async fn downgrade(store: &Store, count: usize) -> Result<Vec<String>, StoreError> {
    on_harness(store, Work::Down(count)).await
}

/// The migrations this program knows and whether the database has them.
///
/// # Errors
/// A database that does not answer.
pub async fn status(store: &Store) -> Result<Vec<MigrationStatus>, StoreError> {
    let pending = on_harness(store, Work::Pending).await?;
    let names = match &store.backend {
        Backend::Postgres(_) => names::<diesel::pg::Pg>(&POSTGRES)?,
        Backend::Sqlite(_) => names::<diesel::sqlite::Sqlite>(&SQLITE)?,
    };
    Ok(names.into_iter().map(|name| MigrationStatus { applied: !pending.contains(&name), name }).collect())
}

fn names<DB: diesel::backend::Backend>(source: &EmbeddedMigrations) -> Result<Vec<String>, StoreError>
where
    EmbeddedMigrations: diesel::migration::MigrationSource<DB>,
{
    use diesel::migration::MigrationSource;
    let mut names: Vec<String> = MigrationSource::<DB>::migrations(source)
        .map_err(schema_error)?
        .iter()
        .map(|migration| migration.name().to_string())
        .collect();
    names.sort();
    Ok(names)
}

#[derive(Clone, Copy)]
enum Work {
    Up,
    Down(usize),
    Pending,
}

async fn on_harness(store: &Store, work: Work) -> Result<Vec<String>, StoreError> {
    match &store.backend {
        Backend::Postgres(database) => {
            // One node at a time: others wait here and then find nothing left to do.
            let mut connection = database.plain().await?;
            postgres::queries::meta::lock_migrations(&mut connection).await?;
            // The harness blocks the thread on the connection's future, so it gets one of its own
            // where the runtime that drives the connection goes on.
            tokio::task::spawn_blocking(move || {
                let mut harness = AsyncMigrationHarness::new(connection);
                run(&mut harness, || POSTGRES, work)
            })
            .await
            .map_err(schema_error)?
        }
        Backend::Sqlite(database) => {
            let path = database.path().to_owned();
            tokio::task::spawn_blocking(move || {
                use diesel::Connection;
                use diesel::connection::SimpleConnection;
                let mut connection = diesel::SqliteConnection::establish(&path)?;
                connection.batch_execute("PRAGMA busy_timeout = 10000; PRAGMA secure_delete = ON")?;
                run(&mut connection, || SQLITE, work)
            })
            .await
            .map_err(schema_error)?
        }
    }
}

fn run<DB, H>(harness: &mut H, source: impl Fn() -> EmbeddedMigrations, work: Work) -> Result<Vec<String>, StoreError>
where
    DB: diesel::backend::Backend,
    H: MigrationHarness<DB>,
    EmbeddedMigrations: diesel::migration::MigrationSource<DB>,
{
    use diesel::migration::MigrationSource;
    let known = MigrationSource::<DB>::migrations(&source()).map_err(schema_error)?;
    let newest_known = known.iter().map(|migration| migration.name().version().to_string()).max();
    let applied = harness.applied_migrations().map_err(schema_error)?;
    let newest_applied = applied.iter().map(ToString::to_string).max();
    if newest_applied > newest_known {
        return Err(StoreError::Schema(format!(
            "the database's schema ({}) is newer than this program ({}); run the newer program",
            newest_applied.unwrap_or_default(),
            newest_known.unwrap_or_default(),
        )));
    }
    let name_of = |version: &dyn std::fmt::Display| {
        let version = version.to_string();
        known
            .iter()
            .map(|migration| (migration.name().version().to_string(), migration.name().to_string()))
            .find(|(known_version, _)| *known_version == version)
            .map_or(version, |(_, name)| name)
    };
    match work {
        Work::Up => {
            let versions = harness.run_pending_migrations(source()).map_err(schema_error)?;
            Ok(versions.iter().map(|version| name_of(version)).collect())
        }
        Work::Down(count) => {
            let mut names = Vec::new();
            for _ in 0..count.min(applied.len()) {
                let version = harness.revert_last_migration(source()).map_err(schema_error)?;
                names.push(name_of(&version));
            }
            Ok(names)
        }
        Work::Pending => {
            let pending = harness.pending_migrations(source()).map_err(schema_error)?;
            Ok(pending.iter().map(|migration| migration.name().to_string()).collect())
        }
    }
}

fn schema_error(error: impl std::fmt::Display) -> StoreError {
    StoreError::Schema(format!("a migration failed: {error}"))
}
