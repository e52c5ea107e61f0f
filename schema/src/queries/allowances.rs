//! Sliding windows that must survive a restart: each subject has one row with the moments that count.
//!
//! The row is locked by writing it, which both databases do alike; several are locked in order of kind and subject.

use super::*;
use crate::rows::sign_in::{Allowance, Reached};
use crate::types::Moment;
use diesel::sql_types::{Binary, Text};
use diesel_async::RunQueryDsl;
use sotto_protocol::Timestamp;
use std::time::Duration;

#[derive(diesel::QueryableByName)]
struct MomentsRow {
    #[diesel(sql_type = Binary)]
    moments: Vec<u8>,
}

/// Locks a subject's row until the transaction ends, made if there is none, and gives its moments, oldest first.
pub async fn lock(
    connection: &mut Connection,
    kind: &str,
    subject: &[u8],
    now: Timestamp,
) -> Result<Vec<Timestamp>, StoreError> {
    let row: MomentsRow = sql("INSERT INTO allowances (kind, subject, moments, expires_at, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $4, $4) \
         ON CONFLICT (kind, subject) DO UPDATE SET updated_at = excluded.updated_at RETURNING moments")
    .bind::<Text, _>(kind)
    .bind::<Binary, _>(subject)
    .bind::<Binary, _>(Vec::new())
    .bind::<Moment, _>(now)
    .get_result(connection)
    .await?;
    let (moments, _) = row.moments.as_chunks::<8>();
    Ok(moments.iter().map(|bytes| Timestamp::from_micros(i64::from_le_bytes(*bytes))).collect())
}

/// Writes a locked row's moments; the row may go when `keep` has passed.
pub async fn write(
    connection: &mut Connection,
    kind: &str,
    subject: &[u8],
    moments: &[Timestamp],
    keep: Duration,
    now: Timestamp,
) -> Result<(), StoreError> {
    let packed: Vec<u8> = moments.iter().flat_map(|moment| moment.as_micros().to_le_bytes()).collect();
    sql("UPDATE allowances SET moments = $3, expires_at = $4, updated_at = $5 WHERE kind = $1 AND subject = $2")
        .bind::<Text, _>(kind)
        .bind::<Binary, _>(subject)
        .bind::<Binary, _>(packed)
        .bind::<Moment, _>(now.plus(keep))
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
    Ok(())
}

/// An allowance whose row is locked, with its moments.
pub type Locked<'a> = (&'a Allowance, Vec<Timestamp>);

/// Takes `count` of each of the allowances, all or none, in the caller's transaction. `Some`: the limit that is reached.
pub async fn take(
    connection: &mut Connection,
    allowances: &[Allowance],
    count: usize,
    now: Timestamp,
) -> Result<Option<Reached>, StoreError> {
    let (locked, reached) = examine(connection, allowances, count, now).await?;
    if reached.is_none() {
        count_in(connection, locked, count, now).await?;
    }
    Ok(reached)
}

/// Counts so many more of what is locked.
pub async fn count_in(
    connection: &mut Connection,
    locked: Vec<Locked<'_>>,
    count: usize,
    now: Timestamp,
) -> Result<(), StoreError> {
    for (allowance, mut moments) in locked {
        let from = now.minus(allowance.longest());
        moments.retain(|moment| *moment > from);
        moments.extend(std::iter::repeat_n(now, allowance.cost_of(count)));
        write(connection, allowance.kind, &allowance.subject, &moments, allowance.longest(), now).await?;
    }
    Ok(())
}

/// Locks the rows and says which limit `count` more would reach.
pub async fn examine<'a>(
    connection: &mut Connection,
    allowances: &'a [Allowance],
    count: usize,
    now: Timestamp,
) -> Result<(Vec<Locked<'a>>, Option<Reached>), StoreError> {
    let mut sorted: Vec<_> = allowances.iter().collect();
    sorted.sort_by(|a, b| (a.kind, &a.subject).cmp(&(b.kind, &b.subject)));
    let mut locked = Vec::with_capacity(sorted.len());
    let mut worst = None;
    for allowance in sorted {
        let moments = lock(connection, allowance.kind, &allowance.subject, now).await?;
        let reached = allowance.reached(&moments, count, now);
        worst = worst.into_iter().chain(reached).max_by_key(|reached| reached.wait);
        locked.push((allowance, moments));
    }
    Ok((locked, worst))
}

/// Takes from one allowance, in a transaction of its own.
pub async fn take_alone(
    connection: &mut Connection,
    allowance: Allowance,
    count: usize,
    now: Timestamp,
) -> Result<Option<Reached>, StoreError> {
    transaction!(connection, |connection| { take(connection, std::slice::from_ref(&allowance), count, now).await })
}

/// Takes back what was taken of each at a moment, in the caller's transaction.
pub async fn give_back(
    connection: &mut Connection,
    allowances: &[Allowance],
    taken_at: Timestamp,
) -> Result<(), StoreError> {
    for (allowance, mut moments) in examine(connection, allowances, 0, taken_at).await?.0 {
        for _ in 0..allowance.cost_of(1) {
            if let Some(place) = moments.iter().rposition(|moment| *moment == taken_at) {
                moments.remove(place);
            }
        }
        write(connection, allowance.kind, &allowance.subject, &moments, allowance.longest(), taken_at).await?;
    }
    Ok(())
}

/// How many more the tightest of the allowances allows, in the caller's transaction. Without any: as many as a verification has.
pub async fn left(connection: &mut Connection, allowances: &[Allowance], now: Timestamp) -> Result<i64, StoreError> {
    let (locked, _) = examine(connection, allowances, 1, now).await?;
    let least = locked.iter().map(|(allowance, moments)| allowance.left(moments, now)).min();
    Ok(least.map_or(5, |left| i64::try_from(left).unwrap_or(i64::MAX)))
}
