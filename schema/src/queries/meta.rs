//! The store's own row: generation and key fingerprint.

use super::*;
use crate::tables::store;
use crate::types::{Moment, Uuid, bound};
use diesel::OptionalExtension;
use diesel::{ExpressionMethods, QueryDsl, QueryableByName};
use diesel_async::RunQueryDsl;
use sotto_protocol::Timestamp;

#[derive(QueryableByName)]
struct StoreRow {
    #[diesel(sql_type = Uuid)]
    epoch: uuid::Uuid,
    #[diesel(sql_type = Moment)]
    updated_at: Timestamp,
}

/// Holds other nodes back while this connection migrates; ends with the connection.
pub async fn lock_migrations(connection: &mut Connection) -> Result<(), StoreError> {
    sql("SELECT pg_advisory_lock(7361746)").execute(connection).await?;
    Ok(())
}

/// The store's generation (rule D13); made at the first call.
pub async fn epoch(connection: &mut Connection) -> Result<uuid::Uuid, StoreError> {
    sql("INSERT INTO store (id, epoch, created_at, updated_at) VALUES (1, $1, $2, $2) \
         ON CONFLICT (id) DO NOTHING")
    .bind::<Uuid, _>(uuid::Uuid::new_v4())
    .bind::<Moment, _>(Timestamp::now())
    .execute(connection)
    .await?;
    let row: StoreRow = sql("SELECT epoch, updated_at FROM store").get_result(connection).await?;
    Ok(row.epoch)
}

/// Gives the store a new generation: its history went back (rule D13). What a backup would bring to life a second time
/// goes in the same transaction: one-time keys that may have been handed out since, codes that may have been used, and
/// wakes, which count another server's transactions. The epoch is of version 7: who reads it knows that it is not the first.
pub async fn new_epoch(connection: &mut Connection, now: Timestamp) -> Result<uuid::Uuid, StoreError> {
    let fresh = uuid::Uuid::now_v7();
    transaction!(connection, |connection| {
        epoch(connection).await?;
        diesel::update(store::table)
            .set((store::epoch.eq(bound::<Uuid, _>(fresh)), store::updated_at.eq(bound::<Moment, _>(now))))
            .execute(connection)
            .await?;
        sql("DELETE FROM prekeys WHERE kind IN ('one_time', 'pq_one_time')").execute(connection).await?;
        sql("DELETE FROM verifications").execute(connection).await?;
        sql("DELETE FROM wakes").execute(connection).await?;
        Ok::<_, StoreError>(fresh)
    })
}

/// Writes the fingerprint of the secret keys if there is none, and returns the one that stands.
pub async fn claim_fingerprint(connection: &mut Connection, fingerprint: String) -> Result<String, StoreError> {
    epoch(connection).await?;
    diesel::update(store::table.filter(store::key_fingerprint.is_null()))
        .set(store::key_fingerprint.eq(&fingerprint))
        .execute(connection)
        .await?;
    let stored: Option<String> =
        store::table.select(store::key_fingerprint).first(connection).await.optional()?.flatten();
    Ok(stored.unwrap_or(fingerprint))
}

/// A commit and a read-back, for readiness.
pub async fn probe(connection: &mut Connection, now: Timestamp) -> Result<bool, StoreError> {
    epoch(connection).await?;
    diesel::update(store::table).set(store::updated_at.eq(bound::<Moment, _>(now))).execute(connection).await?;
    let row: StoreRow = sql("SELECT epoch, updated_at FROM store").get_result(connection).await?;
    Ok(row.updated_at >= now)
}
