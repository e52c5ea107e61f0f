//! Networks that accounts signed in from.

use super::*;
use crate::types::{Moment, Uuid};
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Text};
use diesel_async::RunQueryDsl;
use sotto_protocol::{Timestamp, UserId};
use std::time::Duration;

/// Time after the last sign-in for which a network is known.
const KEEP: Duration = Duration::from_secs(90 * 86_400);
/// Bound on the networks of an account; the newest stay. A sign-in over IPv6 stores two.
const MOST: i64 = 16;

#[derive(QueryableByName)]
struct NetworkRow {
    #[diesel(sql_type = Binary)]
    network: Vec<u8>,
}

/// Stores the networks of a successful sign-in, as keyed hashes, in the caller's transaction.
pub async fn remember(
    connection: &mut Connection,
    user: UserId,
    networks: &[Vec<u8>],
    now: Timestamp,
) -> Result<(), StoreError> {
    for network in networks {
        sql("INSERT INTO known_networks (user_id, network, expires_at, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $4) \
             ON CONFLICT (user_id, network) DO UPDATE SET expires_at = excluded.expires_at, updated_at = excluded.updated_at")
        .bind::<Uuid, _>(user)
        .bind::<Binary, _>(network)
        .bind::<Moment, _>(now.plus(KEEP))
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
    }
    if !networks.is_empty() {
        sql("DELETE FROM known_networks WHERE user_id = $1 AND network NOT IN \
             (SELECT k.network FROM known_networks k WHERE k.user_id = $1 ORDER BY k.updated_at DESC, k.network LIMIT $2)")
        .bind::<Uuid, _>(user)
        .bind::<BigInt, _>(MOST)
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Finds the first of the networks that the account of a number signed in from. The same statement runs for numbers without an account.
pub async fn known(
    connection: &mut Connection,
    phone: &str,
    networks: &[Vec<u8>],
    now: Timestamp,
) -> Result<Option<usize>, StoreError> {
    let (narrow, wide) = (networks.first(), networks.last());
    let empty = Vec::new();
    let rows: Vec<NetworkRow> = sql("SELECT k.network FROM known_networks k JOIN users u ON u.id = k.user_id \
         WHERE u.phone = $1 AND k.network IN ($2, $3) AND k.expires_at > $4")
    .bind::<Text, _>(phone)
    .bind::<Binary, _>(narrow.unwrap_or(&empty))
    .bind::<Binary, _>(wide.unwrap_or(&empty))
    .bind::<Moment, _>(now)
    .load(connection)
    .await?;
    Ok(networks.iter().position(|network| rows.iter().any(|row| row.network == *network)))
}
