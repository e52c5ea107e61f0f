//! What is asked and noted when devices come, for many of them in one statement: see `gather.rs`.

use super::*;
use crate::rows::keys::{LOW_STOCK, low_stocks};
use crate::rows::sign_in::SessionRow;
use crate::rows::{Arrival, BacklogRow};
use crate::types::{Json, Moment, Uuid};
use diesel::QueryableByName;
use diesel::result::OptionalExtension;
use diesel::sql_types::{BigInt, Bool, Nullable};
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};
use sotto_protocol::event::KeysLow;
use sotto_protocol::keys::KeyCount;
use sotto_protocol::{DeviceId, Timestamp, UserId};
use std::collections::HashMap;

#[derive(QueryableByName)]
struct NameRow {
    #[diesel(sql_type = Uuid)]
    id: uuid::Uuid,
}

#[derive(QueryableByName)]
struct FamilyRow {
    #[diesel(sql_type = Uuid)]
    id: uuid::Uuid,
    #[diesel(embed)]
    session: SessionRow,
}

/// Token families with their devices; one that has ended is not there.
pub async fn sessions(
    connection: &mut Connection,
    families: Vec<uuid::Uuid>,
) -> Result<HashMap<uuid::Uuid, SessionRow>, StoreError> {
    let given: Vec<Value> = families.into_iter().map(|id| json!({ "id": hex(id) })).collect();
    let rows: Vec<FamilyRow> = sql(concat!(
        "SELECT s.id, s.user_id, s.device_id, s.generation, s.confirmed, s.expires_at, d.last_active_at \
         FROM sessions s JOIN devices d ON d.id = s.device_id WHERE s.id IN (SELECT ",
        given_uuid!("id"),
        " ",
        given_rows!(),
        ")"
    ))
    .bind::<Json, _>(Value::Array(given))
    .load(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.session)).collect())
}

/// Notes that tokens of these numbers of their families have been used, and tells for which that was news. What somebody
/// else holds is left out.
pub async fn confirm(
    connection: &mut Connection,
    used: Vec<(uuid::Uuid, i64)>,
    now: Timestamp,
) -> Result<HashMap<uuid::Uuid, ()>, StoreError> {
    let given: Vec<Value> = used.into_iter().map(|(id, number)| json!({ "id": hex(id), "number": number })).collect();
    let rows: Vec<NameRow> = sql(concat!(
        "WITH asked AS MATERIALIZED (SELECT ",
        given_uuid!("id"),
        " AS id, ",
        given_number!("number"),
        " AS number ",
        given_rows!(),
        "), held AS MATERIALIZED (SELECT s.id FROM sessions s WHERE s.id IN (SELECT id FROM asked) ORDER BY s.id",
        skip_locked!(),
        ") UPDATE sessions SET confirmed = asked.number, updated_at = $2 FROM asked JOIN held ON held.id = asked.id \
         WHERE sessions.id = asked.id AND sessions.confirmed < asked.number RETURNING sessions.id"
    ))
    .bind::<Json, _>(Value::Array(given))
    .bind::<Moment, _>(now)
    .load(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, ())).collect())
}

/// The same for one, which is waited for.
pub async fn confirm_one(
    connection: &mut Connection,
    id: uuid::Uuid,
    generation: i64,
    now: Timestamp,
) -> Result<(), StoreError> {
    sql("UPDATE sessions SET confirmed = $2, updated_at = $3 WHERE id = $1 AND confirmed < $2")
        .bind::<Uuid, _>(id)
        .bind::<BigInt, _>(generation)
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
    Ok(())
}

/// Notes that devices were heard of, and where from if that is told, unless that is known since `unless_since` or somebody else holds them.
pub async fn touch(
    connection: &mut Connection,
    devices: Vec<(DeviceId, Option<String>)>,
    unless_since: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    let given: Vec<Value> =
        devices.into_iter().map(|(id, address)| json!({ "id": hex(id.0), "address": address })).collect();
    sql(concat!(
        "WITH held AS MATERIALIZED (SELECT d.id FROM devices d WHERE d.id IN (SELECT ",
        given_uuid!("id"),
        " ",
        given_rows!(),
        ") AND d.last_active_at < $2 ORDER BY d.id",
        skip_locked!(),
        ") UPDATE devices SET last_active_at = $3, last_address = COALESCE((SELECT given.value->>'address' ",
        given_rows!(),
        " WHERE ",
        given_uuid!("id"),
        " = devices.id), last_address) FROM held WHERE devices.id = held.id AND devices.last_active_at < $2"
    ))
    .bind::<Json, _>(Value::Array(given))
    .bind::<Moment, _>(unless_since)
    .bind::<Moment, _>(now)
    .execute(connection)
    .await?;
    Ok(())
}

#[derive(QueryableByName)]
struct ClaimedRow {
    #[diesel(sql_type = Uuid)]
    id: DeviceId,
    #[diesel(sql_type = BigInt)]
    attempt: i64,
}

/// Claims the numbers of connections (rule D7); without a number the next one is given. A device that is not in the answer
/// knows a higher one, or is gone, or is held by somebody else, for whom the others do not wait.
pub async fn claim(
    connection: &mut Connection,
    claims: Vec<(DeviceId, Option<i64>)>,
    now: Timestamp,
) -> Result<HashMap<DeviceId, i64>, StoreError> {
    let given: Vec<Value> =
        claims.into_iter().map(|(id, number)| json!({ "id": hex(id.0), "number": number })).collect();
    // Multiples of 512 are the device's own to count.
    let rows: Vec<ClaimedRow> = sql(concat!(
        "WITH asked AS MATERIALIZED (SELECT ",
        given_uuid!("id"),
        " AS id, ",
        given_number!("number"),
        " AS number ",
        given_rows!(),
        "), held AS MATERIALIZED (SELECT d.id FROM devices d WHERE d.id IN (SELECT id FROM asked) ORDER BY d.id",
        skip_locked!(),
        ") UPDATE devices SET attempt = CASE WHEN asked.number IS NOT NULL THEN asked.number \
             WHEN devices.attempt % 512 = 511 THEN devices.attempt + 2 ELSE devices.attempt + 1 END, updated_at = $2 \
         FROM asked JOIN held ON held.id = asked.id \
         WHERE devices.id = asked.id AND (asked.number IS NULL OR devices.attempt < asked.number) \
         RETURNING devices.id, devices.attempt"
    ))
    .bind::<Json, _>(Value::Array(given))
    .bind::<Moment, _>(now)
    .load(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.attempt)).collect())
}

/// The same for one, which is waited for.
pub async fn claim_one(
    connection: &mut Connection,
    device: DeviceId,
    attempt: Option<i64>,
    now: Timestamp,
) -> Result<Option<i64>, StoreError> {
    let claimed: Option<ClaimedRow> = match attempt {
        Some(attempt) => sql("UPDATE devices SET attempt = $2, updated_at = $3 \
             WHERE id = $1 AND attempt < $2 RETURNING id, attempt")
        .bind::<Uuid, _>(device)
        .bind::<BigInt, _>(attempt)
        .bind::<Moment, _>(now)
        .get_result(connection)
        .await
        .optional()?,
        // Multiples of 512 are the device's own to count.
        None => sql("UPDATE devices SET attempt = attempt + CASE WHEN attempt % 512 = 511 THEN 2 ELSE 1 END, \
             updated_at = $2 WHERE id = $1 RETURNING id, attempt")
        .bind::<Uuid, _>(device)
        .bind::<Moment, _>(now)
        .get_result(connection)
        .await
        .optional()?,
    };
    Ok(claimed.map(|row| row.attempt))
}

#[derive(QueryableByName)]
struct PositionRow {
    #[diesel(sql_type = Uuid)]
    id: DeviceId,
    #[diesel(sql_type = BigInt)]
    newest: i64,
    #[diesel(sql_type = BigInt)]
    seen: i64,
    #[diesel(sql_type = Bool)]
    one_time_used: bool,
    #[diesel(sql_type = BigInt)]
    one_time: i64,
    #[diesel(sql_type = Bool)]
    pq_one_time_used: bool,
    #[diesel(sql_type = BigInt)]
    pq_one_time: i64,
    #[diesel(sql_type = Nullable<Moment>)]
    signed_expires_at: Option<Timestamp>,
}

#[derive(QueryableByName)]
struct WaitingRow {
    #[diesel(sql_type = Uuid)]
    device_id: DeviceId,
    #[diesel(embed)]
    row: BacklogRow,
}

/// What waits for devices that have just come. A device that is not in the answer is gone.
pub async fn arrivals(
    connection: &mut Connection,
    coming: Vec<(DeviceId, UserId)>,
    now: Timestamp,
) -> Result<HashMap<DeviceId, Arrival>, StoreError> {
    let given: Vec<Value> =
        coming.into_iter().map(|(id, user)| json!({ "device": hex(id.0), "user": hex(user.0) })).collect();
    let given = Value::Array(given);
    let (positions, waiting) = both!(connection, positions, waiting, &given);
    let mut arrivals: HashMap<DeviceId, Arrival> = positions
        .into_iter()
        .map(|row| {
            let mut ever = Vec::new();
            ever.extend(row.one_time_used.then(|| "one_time".to_owned()));
            ever.extend(row.pq_one_time_used.then(|| "pq_one_time".to_owned()));
            let count = KeyCount {
                one_time_prekeys: row.one_time,
                pq_one_time_prekeys: row.pq_one_time,
                signed_prekey_expires_at: row.signed_expires_at.unwrap_or_default(),
            };
            let low = low_stocks(&count, &ever, now);
            let low = low.into_iter().map(|(kind, remaining)| KeysLow { kind, remaining }).collect();
            (row.id, Arrival { account_head: row.newest, account_seen: row.seen, backlog: Vec::new(), low })
        })
        .collect();
    for waiting in waiting {
        if let Some(arrival) = arrivals.get_mut(&waiting.device_id) {
            arrival.backlog.push(waiting.row);
        }
    }
    Ok(arrivals)
}

/// Where the given devices stand in their accounts' logs, and what they have left of their keys.
async fn positions(mut connection: Shared<'_>, given: &Value) -> Result<Vec<PositionRow>, StoreError> {
    macro_rules! stock {
        ($kind:literal) => {
            concat!(
                "EXISTS (SELECT 1 FROM key_counters c WHERE c.device_id = d.id AND c.kind = '",
                $kind,
                "' AND c.highest >= 0) AS ",
                $kind,
                "_used, (SELECT COUNT(*) FROM (SELECT 1 FROM prekeys p WHERE p.device_id = d.id AND p.kind = '",
                $kind,
                "' LIMIT $2) AS few) AS ",
                $kind,
                ", "
            )
        };
    }
    Ok(sql(concat!(
        "SELECT d.id, u.account_seq AS newest, d.account_seen AS seen, ",
        stock!("one_time"),
        stock!("pq_one_time"),
        "(SELECT p.expires_at FROM prekeys p WHERE p.device_id = d.id AND p.kind = 'signed' \
          ORDER BY p.created_at DESC LIMIT 1) AS signed_expires_at \
         FROM (SELECT ",
        given_uuid!("device"),
        " AS device, ",
        given_uuid!("user"),
        " AS owner ",
        given_rows!(),
        ") AS asked JOIN devices d ON d.id = asked.device AND d.user_id = asked.owner JOIN users u ON u.id = d.user_id"
    ))
    .bind::<Json, _>(given)
    .bind::<BigInt, _>(LOW_STOCK)
    .load(&mut connection)
    .await?)
}

/// The conversations in which something waits for the given devices.
async fn waiting(mut connection: Shared<'_>, given: &Value) -> Result<Vec<WaitingRow>, StoreError> {
    Ok(sql(places!(
        ["asked.device AS device_id, ",]
        ["(SELECT ", given_uuid!("device"), " AS device, ", given_uuid!("user"), " AS owner ", given_rows!(),
         ") AS asked JOIN memberships m ON m.user_id = asked.owner",]
        ["asked.device",]
        [" GROUP BY asked.device, m.conversation_id, k.delivered_up_to, k.receipts_seen, h.floor_seq \
           HAVING MAX(COALESCE(m.to_seq, h.last_seq)) > COALESCE(k.delivered_up_to, MIN(m.from_seq) - 1) \
             OR MAX(CASE WHEN m.to_seq IS NULL THEN r.version ELSE 0 END) > COALESCE(k.receipts_seen, 0) \
           ORDER BY asked.device, m.conversation_id"]
    ))
    .bind::<Json, _>(given)
    .load(&mut connection)
    .await?)
}

#[derive(QueryableByName)]
struct PeerRow {
    #[diesel(sql_type = Uuid)]
    user_id: UserId,
    #[diesel(sql_type = Uuid)]
    peer: UserId,
}

/// The other side of users' direct conversations in which both have written; who has none is not there.
pub async fn presence_peers(
    connection: &mut Connection,
    users: Vec<UserId>,
) -> Result<HashMap<UserId, Vec<UserId>>, StoreError> {
    let given: Vec<Value> = users.into_iter().map(|id| json!({ "id": hex(id.0) })).collect();
    let rows: Vec<PeerRow> =
        sql(super::super::PRESENCE_PEERS).bind::<Json, _>(Value::Array(given)).load(connection).await?;
    let mut peers: HashMap<UserId, Vec<UserId>> = HashMap::new();
    for row in rows {
        peers.entry(row.user_id).or_default().push(row.peer);
    }
    Ok(peers)
}
