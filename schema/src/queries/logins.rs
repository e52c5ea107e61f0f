//! The history of sign-ins: sign-ins are written in their own transaction, refused tries behind the answers and bounded.
//! Its user reads it; entries are deleted after a while.

use super::super::LOGINS_BY_MONTH;
use super::*;
use crate::month::Month;
use crate::rows::logins::{LoginOf, LoginRow, LoginWay, OF_ACCOUNT_A_DAY, OF_VERIFICATION, RefusedLogin};
use crate::types::{Moment, Uuid};
use diesel::QueryableByName;
use diesel::result::OptionalExtension;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use sotto_protocol::{DeviceId, Timestamp, UserId, VerificationId};

/// Months that have a partition before they begin, beside the present one.
const AHEAD: usize = 2;
/// One node makes partitions at a time: by this name of a lock ("logins" as a number).
const ONE_NODE: &str = "SELECT pg_advisory_xact_lock(119204735251822)";
/// Locks `users` before a partition of `logins` is changed, in the same order as sign-ins, because its foreign key changes
/// `users` too. Gives up after two seconds, so that nothing queues behind it for longer, and is tried again a minute later.
const USERS_FIRST: &str = "SET LOCAL lock_timeout = '2s'; LOCK TABLE users IN ACCESS EXCLUSIVE MODE";
/// Rows that are deleted at once where there are no partitions.
const AT_ONCE: i64 = 1000;

/// Lock that lets one node at a time write refused tries, so that its count of entries stays right ("refused" as a number).
const ONE_WRITER: &str = "SELECT pg_advisory_xact_lock(32195222171100516)";
/// The method of an entry that stands for several refused tries.
const SEVERAL: &str = "several";
const DAY_MICROS: i64 = 86_400_000_000;

const INSERT: &str = "INSERT INTO logins (id, user_id, device_id, method, outcome, address, agent, verification_id, tries, \
         created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

#[derive(QueryableByName)]
struct NameRow {
    #[diesel(sql_type = Text)]
    name: String,
}

#[derive(QueryableByName)]
struct PartitionRow {
    #[diesel(sql_type = Nullable<Text>)]
    name: Option<String>,
}

#[derive(QueryableByName)]
struct UserRow {
    #[diesel(sql_type = Uuid)]
    id: UserId,
}

#[derive(QueryableByName)]
struct CountsRow {
    #[diesel(sql_type = BigInt)]
    of_account: i64,
    #[diesel(sql_type = BigInt)]
    of_verification: i64,
}

/// The day (UTC) that a moment is in: its begin and its end.
fn day_of(at: Timestamp) -> (Timestamp, Timestamp) {
    let begin = at.as_micros().saturating_sub(at.as_micros().rem_euclid(DAY_MICROS));
    (Timestamp::from_micros(begin), Timestamp::from_micros(begin.saturating_add(DAY_MICROS)))
}

/// Whether the history has room for a moment: on PostgreSQL, whether its month has a partition.
async fn has_room(connection: &mut Connection, at: Timestamp) -> Result<bool, StoreError> {
    if !LOGINS_BY_MONTH {
        return Ok(true);
    }
    let Some(month) = Month::of(at) else {
        return Ok(false);
    };
    let row: PartitionRow = sql("SELECT to_regclass($1)::text AS name")
        .bind::<Text, _>(month.partition("logins"))
        .get_result(connection)
        .await?;
    Ok(row.name.is_some())
}

/// Writes a sign-in of a device into the history, in the caller's transaction. Writes nothing if the month has no partition,
/// so that the sign-in succeeds all the same; that happens only after two months without housekeeping.
pub async fn signed_in(
    connection: &mut Connection,
    user: UserId,
    device: DeviceId,
    way: &LoginWay,
    now: Timestamp,
) -> Result<(), StoreError> {
    if !has_room(connection, now).await? {
        return Ok(());
    }
    sql(INSERT)
        .bind::<Uuid, _>(uuid::Uuid::new_v4())
        .bind::<Uuid, _>(user)
        .bind::<Nullable<Uuid>, _>(Some(device))
        .bind::<Text, _>(way.method)
        .bind::<Text, _>("signed_in")
        .bind::<Nullable<Text>, _>(way.address.as_deref())
        .bind::<Nullable<Text>, _>(way.agent.as_deref())
        .bind::<Nullable<Uuid>, _>(None::<VerificationId>)
        .bind::<Nullable<BigInt>, _>(None::<i64>)
        .bind::<Moment, _>(now)
        .bind::<Moment, _>(now)
        .execute(connection)
        .await?;
    Ok(())
}

/// Writes refused tries of accounts that exist; those of numbers without one leave nothing. Beyond [`OF_VERIFICATION`] and
/// [`OF_ACCOUNT_A_DAY`] a try is counted in the summary of its account, day and outcome.
pub async fn refused(connection: &mut Connection, logins: Vec<RefusedLogin>) -> Result<(), StoreError> {
    transaction!(connection, |connection| {
        if LOGINS_BY_MONTH {
            connection.batch_execute(ONE_WRITER).await?;
        }
        for login in &logins {
            if let Some(user) = user_of(connection, login.of).await? {
                write_refused(connection, user, login).await?;
            }
        }
        Ok::<_, StoreError>(())
    })
}

async fn user_of(connection: &mut Connection, of: LoginOf) -> Result<Option<UserId>, StoreError> {
    let (text, id) = match of {
        LoginOf::Code(id) => {
            ("SELECT u.id FROM verifications v JOIN users u ON u.phone = v.phone WHERE v.id = $1", id.0)
        }
        LoginOf::Account(id) => ("SELECT id FROM users WHERE id = $1", id.0),
    };
    let row: Option<UserRow> = sql(text).bind::<Uuid, _>(id).get_result(connection).await.optional()?;
    Ok(row.map(|row| row.id))
}

async fn write_refused(connection: &mut Connection, user: UserId, login: &RefusedLogin) -> Result<(), StoreError> {
    let verification = match login.of {
        LoginOf::Code(id) => Some(id),
        LoginOf::Account(_) => None,
    };
    let (begin, end) = day_of(login.first_at);
    let own = match &login.way {
        Some(way) => has_own_entry(connection, user, verification, begin, end).await?.then_some(way),
        None => None,
    };
    if own.is_none() && count_in(connection, user, login, begin, end).await? {
        return Ok(());
    }
    sql(INSERT)
        .bind::<Uuid, _>(uuid::Uuid::new_v4())
        .bind::<Uuid, _>(user)
        .bind::<Nullable<Uuid>, _>(None::<DeviceId>)
        .bind::<Text, _>(own.map_or(SEVERAL, |way| way.method))
        .bind::<Text, _>(login.outcome)
        .bind::<Nullable<Text>, _>(own.and_then(|way| way.address.as_deref()))
        .bind::<Nullable<Text>, _>(own.and_then(|way| way.agent.as_deref()))
        .bind::<Nullable<Uuid>, _>(verification.filter(|_| own.is_some()))
        .bind::<Nullable<BigInt>, _>(own.is_none().then_some(login.tries))
        .bind::<Moment, _>(login.first_at)
        .bind::<Moment, _>(login.last_at)
        .execute(connection)
        .await?;
    Ok(())
}

/// Whether another refused try of this day has an entry of its own.
async fn has_own_entry(
    connection: &mut Connection,
    user: UserId,
    verification: Option<VerificationId>,
    begin: Timestamp,
    end: Timestamp,
) -> Result<bool, StoreError> {
    let counts: CountsRow = sql("SELECT COUNT(*) AS of_account, \
             COUNT(CASE WHEN verification_id = $4 THEN 1 END) AS of_verification FROM logins \
         WHERE user_id = $1 AND created_at >= $2 AND created_at < $3 AND device_id IS NULL AND tries IS NULL")
    .bind::<Uuid, _>(user)
    .bind::<Moment, _>(begin)
    .bind::<Moment, _>(end)
    .bind::<Nullable<Uuid>, _>(verification)
    .get_result(connection)
    .await?;
    let is_below = |count: i64, most: usize| usize::try_from(count).is_ok_and(|count| count < most);
    Ok(is_below(counts.of_account, OF_ACCOUNT_A_DAY) && is_below(counts.of_verification, OF_VERIFICATION))
}

/// Counts refused tries in the summary of their day and outcome, if there is one.
async fn count_in(
    connection: &mut Connection,
    user: UserId,
    login: &RefusedLogin,
    begin: Timestamp,
    end: Timestamp,
) -> Result<bool, StoreError> {
    let changed = sql("UPDATE logins SET tries = tries + $5, \
             updated_at = CASE WHEN updated_at < $6 THEN $6 ELSE updated_at END \
         WHERE user_id = $1 AND created_at >= $2 AND created_at < $3 AND outcome = $4 AND tries IS NOT NULL")
    .bind::<Uuid, _>(user)
    .bind::<Moment, _>(begin)
    .bind::<Moment, _>(end)
    .bind::<Text, _>(login.outcome)
    .bind::<BigInt, _>(login.tries)
    .bind::<Moment, _>(login.last_at)
    .execute(connection)
    .await?;
    Ok(changed > 0)
}

/// Tries of a user since a moment and before an entry, newest first.
pub async fn before(
    connection: &mut Connection,
    user: UserId,
    since: Timestamp,
    before: (Timestamp, uuid::Uuid),
    limit: i64,
) -> Result<Vec<LoginRow>, StoreError> {
    Ok(sql("SELECT id, device_id, method, outcome, address, agent, tries, created_at, updated_at FROM logins \
         WHERE user_id = $1 AND created_at >= $2 AND (created_at, id) < ($3, $4) \
         ORDER BY created_at DESC, id DESC LIMIT $5")
    .bind::<Uuid, _>(user)
    .bind::<Moment, _>(since)
    .bind::<Moment, _>(before.0)
    .bind::<Uuid, _>(before.1)
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await?)
}

/// Makes room for the coming months, and forgets what is older than `since`. Any number of nodes may do it at once.
pub async fn keep_house(connection: &mut Connection, since: Timestamp, now: Timestamp) -> Result<(), StoreError> {
    if !LOGINS_BY_MONTH {
        sql("DELETE FROM logins WHERE (user_id, created_at, id) IN \
             (SELECT user_id, created_at, id FROM logins WHERE created_at < $1 ORDER BY created_at LIMIT $2)")
        .bind::<Moment, _>(since)
        .bind::<BigInt, _>(AT_ONCE)
        .execute(connection)
        .await?;
        return Ok(());
    }
    let wanted: Vec<Month> =
        std::iter::successors(Month::of(now), |month| Some(month.next())).take(AHEAD + 1).collect();
    if changes(connection, &wanted, since).await?.is_empty() {
        return Ok(());
    }
    transaction!(connection, |connection| {
        connection.batch_execute(ONE_NODE).await?;
        connection.batch_execute(USERS_FIRST).await?;
        for statement in changes(connection, &wanted, since).await? {
            connection.batch_execute(&statement).await?;
        }
        Ok::<_, StoreError>(())
    })
}

/// What is to be done about partitions.
async fn changes(connection: &mut Connection, wanted: &[Month], since: Timestamp) -> Result<Vec<String>, StoreError> {
    let rows: Vec<NameRow> =
        sql("SELECT c.relname::text AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhparent = 'logins'::regclass")
        .load(connection)
        .await?;
    let there: Vec<Month> = rows.iter().filter_map(|row| Month::of_partition("logins", &row.name)).collect();
    let oldest = Month::of(since);
    let made = wanted.iter().filter(|month| !there.contains(month)).map(|month| {
        let (name, from, to) = (month.partition("logins"), month.start(), month.next().start());
        format!("CREATE TABLE {name} PARTITION OF logins FOR VALUES FROM ('{from}') TO ('{to}')")
    });
    let dropped = there.iter().filter(|month| oldest.is_some_and(|oldest| **month < oldest) && !wanted.contains(month));
    Ok(made.chain(dropped.map(|month| format!("DROP TABLE {}", month.partition("logins")))).collect())
}
