//! What every commit tells every node (rule D1). Numbers of transactions are PostgreSQL's alone, so
//! the two statements about them stand with each database's connection.

use super::*;
use crate::append::Wake;
use crate::planted::{self, Bug};
use diesel_async::RunQueryDsl;
use sotto_protocol::{ConversationId, UserId};

/// Writes the wake of the caller's transaction.
pub async fn write(connection: &mut Connection, wake: &Wake) -> Result<(), StoreError> {
    let written = sql(super::super::WRITE_WAKE).bind::<diesel::sql_types::Binary, _>(wake.to_bytes());
    written.execute(connection).await?;
    Ok(())
}

#[derive(diesel::QueryableByName)]
struct WakeRow {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    position: i64,
    #[diesel(sql_type = diesel::sql_types::Nullable<diesel::sql_types::Binary>)]
    body: Option<Vec<u8>>,
}

/// The wakes since a position, and the position to read from next time. Wakes may come twice; none
/// is left out, whatever order the transactions commit in.
pub async fn since(connection: &mut Connection, position: i64) -> Result<(Vec<Wake>, i64), StoreError> {
    let by_id = "SELECT id AS position, body FROM wakes WHERE id > $1 ORDER BY id";
    let text = if planted::is(Bug::SweepBySerialId) { by_id } else { super::super::READ_WAKES };
    let rows: Vec<WakeRow> = sql(text).bind::<diesel::sql_types::BigInt, _>(position).load(connection).await?;
    let next = rows.iter().map(|row| row.position).max().unwrap_or(position);
    let wakes = rows.iter().filter_map(|row| Wake::from_bytes(row.body.as_deref()?)).collect();
    Ok((wakes, next))
}

/// The position at which a sweep that starts now begins.
pub async fn position(connection: &mut Connection) -> Result<i64, StoreError> {
    let by_id = "SELECT COALESCE(MAX(id), 0) AS position, NULL AS body FROM wakes";
    let text = if planted::is(Bug::SweepBySerialId) { by_id } else { super::super::WAKES_POSITION };
    let row: WakeRow = sql(text).get_result(connection).await?;
    Ok(row.position)
}

#[derive(diesel::QueryableByName)]
struct ReaderRow {
    #[diesel(sql_type = crate::types::Uuid)]
    conversation_id: ConversationId,
    #[diesel(sql_type = crate::types::Uuid)]
    user_id: UserId,
}

/// Who is or ever was a member of these conversations.
pub async fn readers(
    connection: &mut Connection,
    conversations: Vec<ConversationId>,
) -> Result<Vec<(ConversationId, UserId)>, StoreError> {
    let given: Vec<serde_json::Value> =
        conversations.iter().map(|id| serde_json::json!({ "id": id.0.simple().to_string() })).collect();
    let rows: Vec<ReaderRow> = sql(concat!(
        "SELECT DISTINCT m.conversation_id, m.user_id ",
        given_rows!(),
        " JOIN memberships m ON m.conversation_id = ",
        given_uuid!("id")
    ))
    .bind::<crate::types::Json, _>(serde_json::Value::from(given))
    .load(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.conversation_id, row.user_id)).collect())
}

/// Removes wakes of more than ten minutes ago. By the database's clock: a node whose own is wrong would take from the
/// others what they have not read.
pub async fn prune(connection: &mut Connection) -> Result<usize, StoreError> {
    let gone = sql(concat!("DELETE FROM wakes WHERE created_at < ", seconds_ago!("600")));
    Ok(gone.execute(connection).await?)
}
