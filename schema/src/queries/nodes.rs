//! Nodes as they see each other. All moments are the database's own: the clocks of nodes may jump.

use super::*;
use crate::append::Wake;
use crate::rows::nodes::{NewerRow, NodeReport, NodeRow};
use crate::types::{Json, Moment, Uuid};
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};
use sotto_protocol::DeviceId;

/// Writes a node's row, removes those that nobody has written for a minute, and reads all.
pub async fn report(connection: &mut Connection, report: NodeReport) -> Result<Vec<NodeRow>, StoreError> {
    let redis = report.redis.map(|answers| if answers { "ok" } else { "away" });
    sql(concat!(
        "INSERT INTO nodes (incarnation, node_id, version, started_at, seen_at, sockets, sessions, conversations, \
         sweep_lag_ms, is_draining, redis, degraded, missed, created_at, updated_at) VALUES ($1, $2, $3, COALESCE($4, ",
        now!(),
        "), ",
        now!(),
        ", $5, $6, $7, $8, $9, $10, $11, $12, ",
        now!(),
        ", ",
        now!(),
        ") ON CONFLICT (incarnation) DO UPDATE SET seen_at = excluded.seen_at, sockets = excluded.sockets, \
         sessions = excluded.sessions, conversations = excluded.conversations, \
         sweep_lag_ms = excluded.sweep_lag_ms, is_draining = excluded.is_draining, redis = excluded.redis, \
         degraded = excluded.degraded, missed = excluded.missed, updated_at = excluded.updated_at"
    ))
    .bind::<Uuid, _>(report.incarnation)
    .bind::<Text, _>(report.node_id)
    .bind::<Text, _>(report.version)
    .bind::<Nullable<Moment>, _>(report.started_at)
    .bind::<BigInt, _>(report.sockets)
    .bind::<BigInt, _>(report.sessions)
    .bind::<BigInt, _>(report.conversations)
    .bind::<BigInt, _>(report.sweep_lag_ms)
    .bind::<Bool, _>(report.is_draining)
    .bind::<Nullable<Text>, _>(redis)
    .bind::<Json, _>(json!(report.degraded))
    .bind::<Json, _>(json!(report.missed))
    .execute(connection)
    .await?;
    sql(concat!("DELETE FROM nodes WHERE seen_at < ", seconds_ago!("60"))).execute(connection).await?;
    list(connection).await
}

/// All rows, by name.
pub async fn list(connection: &mut Connection) -> Result<Vec<NodeRow>, StoreError> {
    Ok(sql(concat!(
        "SELECT incarnation, node_id, version, started_at, ",
        ms_since!("started_at"),
        " AS up_ms, ",
        ms_since!("seen_at"),
        " AS silent_ms, sockets, sessions, conversations, sweep_lag_ms, is_draining, redis, degraded, missed \
         FROM nodes ORDER BY node_id, started_at, incarnation"
    ))
    .load(connection)
    .await?)
}

/// Removes the row of a node that ends in order.
pub async fn remove(connection: &mut Connection, incarnation: uuid::Uuid) -> Result<usize, StoreError> {
    let gone = sql("DELETE FROM nodes WHERE incarnation = $1").bind::<Uuid, _>(incarnation);
    Ok(gone.execute(connection).await?)
}

/// Commits a wake that nothing has caused.
pub async fn canary(connection: &mut Connection, wake: Wake) -> Result<(), StoreError> {
    wakes::write(connection, &wake).await
}

/// Of these devices with the numbers of their connections: those that have claimed a higher number since.
pub async fn newer(connection: &mut Connection, known: Vec<(DeviceId, i64)>) -> Result<Vec<NewerRow>, StoreError> {
    let given: Vec<Value> =
        known.iter().map(|(id, attempt)| json!({ "id": id.0.simple().to_string(), "attempt": attempt })).collect();
    Ok(sql(concat!(
        "SELECT d.id AS device_id, d.attempt ",
        given_rows!(),
        " JOIN devices d ON d.id = ",
        given_uuid!("id"),
        " WHERE d.attempt > CAST(given.value->>'attempt' AS BIGINT)"
    ))
    .bind::<Json, _>(Value::from(given))
    .load(connection)
    .await?)
}
