//! A look inside by plain SQL: for tests, and for who repairs a database by hand. The server itself never comes here.

use crate::store::Backend;
use crate::{Store, StoreError};
use diesel::QueryableByName;
use diesel::sql_types::{Nullable, Text};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};

#[derive(QueryableByName)]
struct TextRow {
    #[diesel(sql_type = Nullable<Text>)]
    text: Option<String>,
}

/// Runs statements on a writing connection. SQLite has one, so that there a transaction may span several calls.
///
/// # Errors
/// Whatever the database says.
pub async fn execute(store: &Store, statements: &str) -> Result<(), StoreError> {
    match &store.backend {
        Backend::Postgres(database) => database.write().await?.batch_execute(statements).await?,
        Backend::Sqlite(database) => database.write().await?.batch_execute(statements).await?,
    }
    Ok(())
}

/// The rows of a query whose one column is a text with the name `text`; NULL is an empty one.
///
/// # Errors
/// Whatever the database says.
pub async fn texts(store: &Store, query: &str) -> Result<Vec<String>, StoreError> {
    let rows: Vec<TextRow> = match &store.backend {
        Backend::Postgres(database) => diesel::sql_query(query).load(&mut *database.read().await?).await?,
        Backend::Sqlite(database) => diesel::sql_query(query).load(&mut *database.read().await?).await?,
    };
    Ok(rows.into_iter().map(|row| row.text.unwrap_or_default()).collect())
}

/// As [`texts`], on the writing connection.
///
/// # Errors
/// Whatever the database says.
pub async fn texts_of_writer(store: &Store, query: &str) -> Result<Vec<String>, StoreError> {
    let rows: Vec<TextRow> = match &store.backend {
        Backend::Postgres(database) => diesel::sql_query(query).load(&mut *database.write().await?).await?,
        Backend::Sqlite(database) => diesel::sql_query(query).load(&mut *database.write().await?).await?,
    };
    Ok(rows.into_iter().map(|row| row.text.unwrap_or_default()).collect())
}
